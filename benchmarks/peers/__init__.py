"""replayflow's rivals, measured side by side with it on the same machine: `python -m benchmarks.peers --help`.

The scripts in `rivals/` run in the rivals' own environments, which `python -m benchmarks.peers install` makes under `.peers/`.
"""

from benchmarks.peers.catalogue import Peer, installed

__all__ = ["Peer", "installed"]
