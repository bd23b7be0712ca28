"""What the scripts that run a rival have in common: the command line, the folder, and the one JSON line.

Imports the standard library alone, for it runs in the rivals' environments.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

Figures = dict[str, float]
Workload = Callable[[int, Path], Awaitable[Figures]]


def main(system: str, workloads: Mapping[str, Workload]) -> None:
    """Runs the workload that the command line ends with, `WORKLOAD N`, in a temporary folder, and prints its line."""
    workload, n = sys.argv[-2], int(sys.argv[-1])
    # A caller that gives up ends this process only: it still has to end its servers on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Background threads of a rival may still close their files while the folder goes.
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR"), ignore_cleanup_errors=True) as folder:
        began = time.perf_counter()
        figures = asyncio.run(_run(workloads[workload], n, Path(folder)))
        figures["seconds"] = time.perf_counter() - began
    # A system of several processes has measured them all.
    figures.setdefault("peak_rss_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps({"system": system, "workload": workload, "n": n} | {k: round(v, 4) for k, v in figures.items()}))


async def _run(workload: Workload, n: int, folder: Path) -> Figures:
    return await workload(n, folder)


def rate(activities: int, began: float) -> Figures:
    return {"activities_per_s": activities / (time.perf_counter() - began)}


def percentiles(seconds: Sequence[float]) -> Figures:
    ordered = sorted(seconds)
    return {"p50_ms": ordered[len(ordered) // 2] * 1e3, "p99_ms": ordered[len(ordered) * 99 // 100] * 1e3}


def rss_peak_mb(groups: Sequence[int]) -> float:
    """The peaks of all processes of these groups, added up: what a system of several processes asks of a machine. Linux; 0 elsewhere."""
    peaks = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            group = int((process / "stat").read_text().rpartition(")")[2].split()[2])
            if group in groups:
                peaks += int((process / "status").read_text().partition("VmHWM:")[2].split()[0])
        except (OSError, IndexError):
            continue  # it has ended meanwhile, or is a zombie, without memory
    return peaks / 1024
