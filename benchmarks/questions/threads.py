"""Activities that are plain functions: each has a thread while it runs."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.flows import app as flows
from benchmarks.flows import warm_up
from benchmarks.question import PEAK, Figures, Question, rate
from replayflow import App, Orchestration, OrchestrationContext, TaskHub, when_all

app = App()
app.include(flows)


@app.activity
def add_one_in_a_thread(x: int) -> int:
    return x + 1


@app.orchestrator
def fan_in_threads(ctx: OrchestrationContext, n: int) -> Orchestration[int]:
    results: list[int] = yield when_all([ctx.call_activity(add_one_in_a_thread, i) for i in range(n)])
    return sum(results)


async def measure(n: int, folder: Path) -> Figures:
    async with TaskHub(folder / "threads.db", app) as hub:
        await warm_up(hub)
        assert await (await hub.client.start(fan_in_threads, 100)).result() == 5_050  # the threads are there
        began = time.perf_counter()
        assert await (await hub.client.start(fan_in_threads, n)).result() == n * (n + 1) // 2
        return {"activities_per_s": n / (time.perf_counter() - began)}


QUESTION = Question(
    "threads",
    "one orchestration: fan-out to n activities in threads, and fan-in",
    measure,
    figures=(rate(), PEAK),
    sizes=(10_000,),
    short_sizes=(10_000,),
)
