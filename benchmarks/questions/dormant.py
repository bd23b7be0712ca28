"""What those who sleep cost a worker that starts beside them: it should be nothing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks.flows import app, put_to_sleep, warm_up
from benchmarks.process import in_fresh_process, rss_bytes, until_quiet
from benchmarks.question import Bar, Figure, Figures, Question
from replayflow import TaskHub


async def measure(n: int, folder: Path) -> Figures:
    path = folder / "dormant.db"
    await in_fresh_process(put_to_sleep, n, path)
    size = path.stat().st_size
    alone_s, alone_bytes = await in_fresh_process(start_up, folder / "alone.db")
    among_s, among_bytes = await in_fresh_process(start_up, path)
    return {
        "alone_s": alone_s,
        "first_result_s": among_s,
        "more_mb": (among_bytes - alone_bytes) / 2**20,
        "disk_bytes_each": size / n,
    }


def start_up(path: Path) -> tuple[float, int]:
    """Seconds from opening the hub to the result of a first chain of five, and the bytes in memory when all is quiet."""

    async def run() -> tuple[float, int]:
        began = time.perf_counter()
        async with TaskHub(path, app) as hub:
            await warm_up(hub)
            seconds = time.perf_counter() - began
            await until_quiet()
            return seconds, rss_bytes()

    return asyncio.run(run())


QUESTION = Question(
    "dormant",
    "a worker starts beside n sleeping instances, and beside none: the first result of a chain of five, and memory",
    measure,
    figures=(
        Figure("alone_s", "first result, alone", "s"),
        Figure("first_result_s", "first result, beside them", "s"),
        # What the worker knows of the next few thousand sleepers and SQLite's page cache: a constant, whatever n is.
        Figure("more_mb", "more memory, for all of them", "MB", bar=Bar(5)),
        Figure("disk_bytes_each", "disk, each", "bytes"),
    ),
    sizes=(100_000,),
    short_sizes=(20_000,),
)
