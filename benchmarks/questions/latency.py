"""How long one takes that is alone."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.flows import app, chain, warm_up
from benchmarks.question import Figure, Figures, Question, percentile
from replayflow import TaskHub


async def measure(n: int, folder: Path) -> Figures:
    seconds = []
    async with TaskHub(folder / "latency.db", app) as hub:
        await warm_up(hub)
        for i in range(n):
            began = time.perf_counter()
            assert await (await hub.client.start(chain, i)).result() == i + 5
            seconds.append(time.perf_counter() - began)
    return {"p50_ms": percentile(seconds, 50) * 1e3, "p99_ms": percentile(seconds, 99) * 1e3}


QUESTION = Question(
    "latency",
    "a chain of five activities from start to result, n times, one at a time",
    measure,
    figures=(Figure("p50_ms", "p50", "ms"), Figure("p99_ms", "p99", "ms")),
    sizes=(1_000,),
    short_sizes=(300,),
)
