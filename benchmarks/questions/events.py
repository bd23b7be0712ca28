"""Events from a client in another process: how many, how soon they have their effect, and how soon the client sees it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random

from benchmarks.process import in_fresh_process
from benchmarks.question import Figure, Figures, Question, percentile, rate
from replayflow import App, Client, Instance, Orchestration, OrchestrationContext, TaskHub

app = App()
_ALONE_MAX = 50
_PAUSE_SECONDS_MAX = 0.05


@app.orchestrator
def wait(ctx: OrchestrationContext) -> Orchestration[int]:
    return (yield from ctx.wait_for_external_event("go", type=int))


async def measure(n: int, folder: Path) -> Figures:
    path = folder / "events.db"
    alone = [f"alone-{i}" for i in range(min(n, _ALONE_MAX))]
    crowd = [f"crowd-{i}" for i in range(n)]
    async with TaskHub(path, app) as hub:
        instances = await asyncio.gather(*[hub.client.start(wait, instance_id=id) for id in [*alone, *crowd]])
        ends = [asyncio.create_task(_end(instance)) for instance in instances]
        times = await in_fresh_process(raise_one_by_one, path, alone)
        began, accepted = await in_fresh_process(raise_together, path, crowd)
        ended = await asyncio.gather(*ends)
    # One clock for all processes: Linux counts `perf_counter` from the machine's start.
    seen = [seen - raised for raised, seen in times]
    had = [end - raised for (raised, _), end in zip(times, ended[: len(alone)], strict=True)]
    return {
        "accepted_per_s": n / (accepted - began),
        "events_per_s": n / (max(ended[len(alone) :]) - began),
        "p50_ms": percentile(had, 50) * 1e3,
        "p99_ms": percentile(had, 99) * 1e3,
        "seen_p50_ms": percentile(seen, 50) * 1e3,
        "seen_p99_ms": percentile(seen, 99) * 1e3,
    }


async def _end(instance: Instance[int]) -> float:
    """When the worker's own process had the result."""
    number = int(instance.id.partition("-")[2])
    assert await instance.result() == number
    return time.perf_counter()


def raise_one_by_one(path: Path, ids: list[str]) -> list[tuple[float, float]]:
    """When each event was raised, and when this process had the result; some time later comes the next.

    The pauses are by chance: whoever always raises as soon as it has seen a result falls into step with those who look for news now and then.
    """
    chance = Random(50)

    async def run() -> list[tuple[float, float]]:
        times = []
        async with Client(path, app) as client:
            for number, id in enumerate(ids):
                instance = client.get(id)
                await asyncio.sleep(chance.uniform(0, _PAUSE_SECONDS_MAX))
                raised = time.perf_counter()
                await instance.raise_event("go", number)
                assert await instance.result() == number
                times.append((raised, time.perf_counter()))
        return times

    return asyncio.run(run())


def raise_together(path: Path, ids: list[str]) -> tuple[float, float]:
    """When the first event was raised, and when the last was accepted."""

    async def run() -> tuple[float, float]:
        async with Client(path, app) as client:
            began = time.perf_counter()
            await asyncio.gather(*[client.get(id).raise_event("go", number) for number, id in enumerate(ids)])
            return began, time.perf_counter()

    return asyncio.run(run())


QUESTION = Question(
    "events",
    f"a client in another process raises n events at once, each for an instance that waits for it; and then {_ALONE_MAX} one by one",
    measure,
    figures=(
        rate("accepted_per_s", "accepted"),
        rate("events_per_s", "brought to a result"),
        Figure("p50_ms", "raise to result, p50", "ms"),
        Figure("p99_ms", "raise to result, p99", "ms"),
        Figure("seen_p50_ms", "raise to result seen by the client, p50", "ms"),
        Figure("seen_p99_ms", "raise to result seen by the client, p99", "ms"),
    ),
    sizes=(10_000,),
    short_sizes=(2_000,),
)
