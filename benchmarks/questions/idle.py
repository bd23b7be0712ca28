"""What a worker costs while nothing happens."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks.flows import app, put_to_sleep, warm_up
from benchmarks.process import in_fresh_process, until_quiet, usage
from benchmarks.question import Bar, Figure, Figures, Question
from replayflow import TaskHub

_SECONDS = 3.0


async def measure(n: int, folder: Path) -> Figures:
    path = folder / "idle.db"
    if n:
        await in_fresh_process(put_to_sleep, n, path)
    async with TaskHub(path, app) as hub:
        await warm_up(hub)
        await until_quiet()
        began, before = time.perf_counter(), usage()
        await asyncio.sleep(_SECONDS)
        seconds, after = time.perf_counter() - began, usage()
    return {
        "cpu_percent": 100 * (after.cpu_seconds - before.cpu_seconds) / seconds,
        "written_bytes": float(after.written_bytes - before.written_bytes),
    }


QUESTION = Question(
    "idle",
    f"a worker with nothing to do beside n sleeping instances, over {_SECONDS:.0f} seconds",
    measure,
    figures=(
        Figure("cpu_percent", "of a core", "%", bar=Bar(0.5, is_strict=True)),
        Figure("written_bytes", "written to the disk", "bytes", bar=Bar(0)),
    ),
    sizes=(0, 100_000),
    short_sizes=(0, 20_000),
    n_min=0,
)
