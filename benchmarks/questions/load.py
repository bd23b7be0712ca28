"""How long one takes among others: first what the worker can do, then the half of it is offered, whether or not it keeps up.

The load is an open loop with Poisson arrivals. A latency counts from when the arrival was due, so that a worker that holds up those who ask
does not hide it.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random

from benchmarks.flows import add_one
from benchmarks.question import Bar, Figure, Figures, Question, percentile, rate
from replayflow import App, Client, Orchestration, OrchestrationContext, TaskHub

app = App()
app.activity(add_one)
_IN_FLIGHT = 500


@app.orchestrator
def one(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
    return (yield from ctx.call_activity(add_one, x))


async def measure(n: int, folder: Path) -> Figures:
    async with TaskHub(folder / "load.db", app) as hub:
        await _capacity(hub.client, n)  # the first time warms up
        capacity = await _capacity(hub.client, n)
        seconds = await _offer(hub.client, n, capacity / 2)
    p50, p99 = percentile(seconds, 50), percentile(seconds, 99)
    return {
        "capacity_per_s": capacity,
        "offered_per_s": capacity / 2,
        "p50_ms": p50 * 1e3,
        "p99_ms": p99 * 1e3,
        "p99_over_p50": p99 / p50,
    }


async def _capacity(client: Client, n: int) -> float:
    """How many end in a second, where a new one starts whenever one ends."""
    left = iter(range(n))

    async def keep_starting() -> None:
        for i in left:
            await _run(client, i)

    began = time.perf_counter()
    await asyncio.gather(*[keep_starting() for _ in range(min(_IN_FLIGHT, n))])
    return n / (time.perf_counter() - began)


async def _offer(client: Client, n: int, arrivals_per_s: float) -> list[float]:
    """The seconds from due to done of n that come by chance, so many in a second."""
    chance = Random(50)
    seconds = []

    async def arrive(i: int, due: float) -> None:
        await _run(client, i)
        seconds.append(time.perf_counter() - due)

    due = time.perf_counter()
    async with asyncio.TaskGroup() as arrivals:
        for i in range(n):
            due += chance.expovariate(arrivals_per_s)
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            arrivals.create_task(arrive(i, due))
    return seconds


async def _run(client: Client, x: int) -> None:
    assert await (await client.start(one, x)).result() == x + 1


QUESTION = Question(
    "load",
    "one activity from start to result at half of what the worker can do: n Poisson arrivals",
    measure,
    figures=(
        rate("capacity_per_s", "capacity"),
        rate("offered_per_s", "offered"),
        Figure("p50_ms", "p50", "ms"),
        Figure("p99_ms", "p99", "ms"),
        Figure("p99_over_p50", "p99 / p50", "x", bar=Bar(10, is_strict=True)),
    ),
    sizes=(50_000,),
    short_sizes=(10_000,),
)
