"""What a process uses, as Linux tells it, and work that is done in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_QUIET_SECONDS = 0.5
_QUIET_CPU_SHARE = 0.02
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What the process has used so far: CPU time of all its threads, and what it has caused to be written to the disk."""

    cpu_seconds: float
    written_bytes: int


def usage() -> Usage:
    # The processor's own clock: `/proc/self/stat` counts the same time in ticks of 10 ms, which is too coarse for an idle process.
    written = re.search(r"^write_bytes: (\d+)$", Path("/proc/self/io").read_text(), re.MULTILINE)
    assert written is not None
    return Usage(time.process_time(), int(written[1]))


def rss_bytes() -> int:
    """What the process has in memory now, after a collection of what is garbage."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_rss_mb() -> float:
    """The most that the process has had in memory. `getrusage` would count what its parent had when it was made."""
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert peak is not None
    return int(peak[1]) / 1024


async def until_quiet() -> None:
    """What the process had to do is done: it has used next to nothing for half a second. After a minute it is taken as it is."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        before = time.process_time()
        await asyncio.sleep(_QUIET_SECONDS)
        if time.process_time() - before < _QUIET_CPU_SHARE * _QUIET_SECONDS:
            return


async def in_fresh_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the function returns in a new interpreter, which has nothing of this one's memory and ends with it."""
    pool = ProcessPoolExecutor(1, get_context("spawn"))
    try:
        return await asyncio.wrap_future(pool.submit(function, *args, **kwargs))
    finally:
        # Its end is waited for elsewhere: whoever works in this event loop, under measurement perhaps, goes on.
        await asyncio.to_thread(pool.shutdown)
