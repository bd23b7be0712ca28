"""One orchestration that asks for everything at once, and waits for all of it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from benchmarks.flows import app, fan, warm_up
from benchmarks.question import PEAK, Bar, Figures, Question, rate
from replayflow import TaskHub


async def measure(n: int, folder: Path) -> Figures:
    async with TaskHub(folder / "fan.db", app) as hub:
        await warm_up(hub)
        began = time.perf_counter()
        assert await (await hub.client.start(fan, n)).result() == n * (n + 1) // 2
        return {"activities_per_s": n / (time.perf_counter() - began)}


QUESTION = Question(
    "fan",
    "one orchestration: fan-out to n activities, and fan-in",
    measure,
    figures=(rate(), replace(PEAK, bar=Bar(300))),
    sizes=(1_000, 10_000, 100_000),
    short_sizes=(1_000, 10_000, 100_000),
)
