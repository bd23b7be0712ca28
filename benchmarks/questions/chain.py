"""Many short orchestrations at once: what one group commit can carry."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.flows import app, chain, warm_up
from benchmarks.question import PEAK, Figures, Question, rate
from replayflow import TaskHub


async def measure(n: int, folder: Path) -> Figures:
    async with TaskHub(folder / "chain.db", app) as hub:
        await warm_up(hub)
        began = time.perf_counter()
        instances = await hub.client.start_many(chain, range(n))
        assert await hub.client.results(instances) == [i + 5 for i in range(n)]
        return {"activities_per_s": 5 * n / (time.perf_counter() - began)}


QUESTION = Question(
    "chain",
    "n orchestrations of five activities one after the other, all started at once",
    measure,
    figures=(
        rate(
            at_least=(("floor", 0.5), ("dbos-sqlite", 50), ("dbos-postgres", 50), ("durabletask", 50), ("restate", 1))
        ),
        PEAK,
    ),
    sizes=(1_000,),
    short_sizes=(1_000,),
)
