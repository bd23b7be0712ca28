"""Large values: in as the orchestration's input, to an activity and back, out as its result."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

from benchmarks.question import PEAK, Figure, Figures, Question
from replayflow import App, Orchestration, OrchestrationContext, TaskHub

app = App()
_BYTES_IN_ALL = 30_000_000
_TRIPS_MAX = 300


@app.activity
async def hand_back(value: bytes) -> bytes:
    return value


@app.orchestrator
def carry(ctx: OrchestrationContext, value: bytes) -> Orchestration[bytes]:
    return (yield from ctx.call_activity(hand_back, value))


async def measure(n: int, folder: Path) -> Figures:
    value = Random(n).randbytes(n)  # noise, which nothing can make smaller
    trips = max(3, min(_TRIPS_MAX, _BYTES_IN_ALL // n))
    async with TaskHub(folder / "payload.db", app) as hub:
        assert await (await hub.client.start(carry, value[:1_000])).result() == value[:1_000]
        began = time.perf_counter()
        for _ in range(trips):
            assert await (await hub.client.start(carry, value)).result() == value
        seconds = time.perf_counter() - began
    return {"ms": seconds / trips * 1e3, "mb_per_s": n * trips / seconds / 1e6}


QUESTION = Question(
    "payload",
    "n bytes from start to result by way of an activity, one orchestration at a time; the value is counted once, and stored four times",
    measure,
    figures=(Figure("ms", "each", "ms"), Figure("mb_per_s", "payload", "MB/s", more_is_better=True), PEAK),
    sizes=(1_000, 100_000, 10_000_000),
    short_sizes=(1_000, 100_000, 10_000_000),
)
