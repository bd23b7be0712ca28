"""Whether the last activity of a long history costs what the first did."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.flows import app as flows
from benchmarks.flows import warm_up
from benchmarks.question import PEAK, Bar, Figure, Figures, Question, rate
from replayflow import App, Orchestration, OrchestrationContext, TaskHub

app = App()
app.include(flows)
_STRETCH = 1_000
_began: list[float] = []
"""When each activity began."""


@app.activity
async def look_at_the_clock(x: int) -> int:
    _began.append(time.perf_counter())
    return x + 1


@app.orchestrator
def long(ctx: OrchestrationContext, n: int) -> Orchestration[int]:
    x = 0
    for _ in range(n):
        x = yield ctx.call_activity(look_at_the_clock, x)
    return x


async def measure(n: int, folder: Path) -> Figures:
    async with TaskHub(folder / "long.db", app) as hub:
        await warm_up(hub)
        _began.clear()
        began = time.perf_counter()
        assert await (await hub.client.start(long, n)).result() == n
        ended = time.perf_counter()
    assert len(_began) == n
    each = [end - begin for begin, end in pairwise([*_began, ended])]
    stretch = min(_STRETCH, n // 2)
    # Medians, for a stretch is short: a moment in which the disk was slow would decide between the two.
    first, last = median(each[:stretch]), median(each[-stretch:])
    return {
        "activities_per_s": n / (ended - began),
        "first_us": first * 1e6,
        "last_us": last * 1e6,
        "last_over_first": last / first,
    }


QUESTION = Question(
    "long",
    "one orchestration of n activities one after the other; the first and the last 1,000 of them, or halves",
    measure,
    figures=(
        rate(),
        Figure("first_us", "one of the first, as a median", "µs"),
        Figure("last_us", "one of the last, as a median", "µs"),
        Figure("last_over_first", "last / first", "x", bar=Bar(1.25)),
        PEAK,
    ),
    sizes=(1_000, 10_000, 100_000),
    short_sizes=(1_000, 10_000),
    n_min=2,
)
