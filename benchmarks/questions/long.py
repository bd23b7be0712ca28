"""Whether the last activity of a long history costs what the first did."""

from __future__ import annotations

import time
from array import array
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
_began, _used = array("d"), array("d")
"""When each activity began, and the CPU time that the process had used by then."""


@app.activity
async def look_at_the_clock(x: int) -> int:
    _began.append(time.perf_counter())
    _used.append(time.process_time())
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
        del _began[:], _used[:]
        began = time.perf_counter()
        assert await (await hub.client.start(long, n)).result() == n
        ended, used = time.perf_counter(), time.process_time()
    assert len(_began) == n
    stretch = min(_STRETCH, n // 2)
    # Medians, for a stretch is short: a moment in which the disk was slow would decide between the two.
    each = [end - begin for begin, end in pairwise([*_began, ended])]
    first, last = median(each[:stretch]), median(each[-stretch:])
    first_cpu, last_cpu = _used[stretch] - _used[0], used - _used[-stretch]
    return {
        "activities_per_s": n / (ended - began),
        "first_us": first * 1e6,
        "last_us": last * 1e6,
        "last_over_first": last / first,
        "last_over_first_cpu": last_cpu / first_cpu,
    }


QUESTION = Question(
    "long",
    "one orchestration of n activities one after the other; the first and the last 1,000 of them, or halves",
    measure,
    figures=(
        rate(),
        Figure("first_us", "one of the first, as a median", "µs"),
        Figure("last_us", "one of the last, as a median", "µs"),
        Figure("last_over_first", "last / first", "x"),
        Figure("last_over_first_cpu", "last / first, in CPU time", "x", bar=Bar(1.25, n_from=1_000)),
        PEAK,
    ),
    sizes=(1_000, 10_000, 100_000),
    short_sizes=(1_000, 10_000),
    n_min=2,
)
