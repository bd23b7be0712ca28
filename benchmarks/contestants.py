"""Who is measured: replayflow, the floor, and the peers that are installed. Each measurement is a command that prints a line of JSON."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.machine import ROOT

FLOOR = "floor"
OURS = "replayflow"
_WORKLOADS_OF_THE_FLOOR = {"chain", "fan", "latency", "long", "recover"}


class Peer(Protocol):
    """Another system, as `benchmarks/peers` offers it: its command prints the same line for the same workload; None where it has none."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    def command(self, workload: str, n: int) -> list[str] | None: ...


@dataclass(frozen=True, slots=True)
class Contestant:
    """`command(workload, n)` is what measures it; None where it has no such workload. Where one that `may_fail` does, the others go on."""

    name: str
    label: str
    command: Callable[[str, int], list[str] | None]
    may_fail: bool = False


def replayflow() -> Contestant:
    return Contestant(OURS, OURS, lambda workload, n: [sys.executable, "-m", "benchmarks.workloads", workload, str(n)])


def floor(path: Path) -> Contestant:
    def command(workload: str, n: int) -> list[str] | None:
        return [sys.executable, str(path), workload, str(n)] if workload in _WORKLOADS_OF_THE_FLOOR else None

    return Contestant(FLOOR, "the floor", command)


def floor_path() -> Path:
    """Where the floor is looked for: `$REPLAYFLOW_FLOOR`, or in the folder `shared` beside the checkout."""
    named = os.environ.get("REPLAYFLOW_FLOOR")
    return Path(named) if named else ROOT.parent / "shared" / "bench" / "floor.py"


def peers() -> list[Contestant]:
    """The peers whose own environments are there; none where the checkout has no `benchmarks/peers`."""
    if importlib.util.find_spec("benchmarks.peers") is None:
        return []
    installed: list[Peer] = importlib.import_module("benchmarks.peers").installed()
    return [Contestant(peer.name, peer.label, peer.command, may_fail=True) for peer in installed]
