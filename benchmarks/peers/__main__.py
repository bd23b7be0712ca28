"""Measures replayflow beside every rival that is installed, in turns, and prints a table.

python -m benchmarks.peers install     make the rivals' environments under .peers/
python -m benchmarks.peers             all workloads
python -m benchmarks.peers chain fan   only these
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import environments
from benchmarks.peers.catalogue import Peer, installed
from benchmarks.peers.comparison import HEAD, QUESTIONS, Entry, ask, entries, measure_process, rows


def main() -> int:
    options = _options()
    if options.what == ["install"]:
        return 0 if environments.install() else 1
    # Asked to end, it ends what is being measured first, as for an interrupt.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    peers = installed()
    print(_machine(peers), flush=True)
    print(HEAD, flush=True)
    asked: list[Entry] = []
    for question in QUESTIONS:
        if not options.what or question.workload in options.what:
            contest = entries(question, peers)
            ask(contest, options.rounds, measure_process)
            print("\n".join(rows(question, contest)), flush=True)
            asked += contest
    failed = [entry for entry in asked if entry.error is not None]
    for entry in failed:
        print(f"\n{' '.join(entry.command)} failed:\n{entry.error}", file=sys.stderr)
    if options.json is not None:
        options.json.write_text(json.dumps([_record(entry) for entry in asked], indent=1) + "\n", "utf-8")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    workloads = sorted({question.workload for question in QUESTIONS})
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", nargs="*", metavar="WORKLOAD", help=f"only these, of {', '.join(workloads)}; or: install"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where every single measurement is written")
    options = parser.parse_args()
    unknown = [] if options.what == ["install"] else sorted(set(options.what) - set(workloads))
    if unknown:
        parser.error(f"no such workload: {', '.join(unknown)}; there are {', '.join(workloads)}")
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: at least 1")
    return options


def _machine(peers: list[Peer]) -> str:
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, cwd=environments.ROOT, capture_output=True, text=True, check=False).stdout.strip()
    today = datetime.datetime.now(datetime.UTC).date()
    beside = "; ".join(peer.label for peer in peers) or "nobody: python -m benchmarks.peers install"
    return (
        f"{today}, {os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, commit {commit or '?'}; beside {beside}\n"
    )


def _record(entry: Entry) -> dict[str, object]:
    return {"system": entry.name, "label": entry.label, "n": entry.n, "lines": entry.lines, "error": entry.error}


if __name__ == "__main__":
    sys.exit(main())
