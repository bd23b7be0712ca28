"""One orchestration that maps an activity over many items."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from benchmarks.flows import add_one, app, warm_up
from benchmarks.question import PEAK, Bar, Figures, Question, rate
from replayflow import Orchestration, OrchestrationContext, TaskHub


@app.orchestrator
def mapped(ctx: OrchestrationContext, n: int) -> Orchestration[int]:
    result = yield from ctx.map(add_one, range(n))
    return sum(result.succeeded)


async def measure(n: int, folder: Path) -> Figures:
    async with TaskHub(folder / "map.db", app) as hub:
        await warm_up(hub)
        began = time.perf_counter()
        assert await (await hub.client.start(mapped, n)).result() == n * (n + 1) // 2
        return {"activities_per_s": n / (time.perf_counter() - began)}


QUESTION = Question(
    "map",
    "one orchestration: one map of n items",
    measure,
    figures=(rate(), replace(PEAK, bar=Bar(500))),
    sizes=(10_000, 100_000, 1_000_000),
    short_sizes=(10_000, 100_000),
)
