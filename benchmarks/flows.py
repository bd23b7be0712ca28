"""The orchestrations that several questions are asked with."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from replayflow import App, Orchestration, OrchestrationContext, TaskHub, when_all

app = App()
_STARTED_TOGETHER = 5_000
_WARM_UP = 250


@app.activity
async def add_one(x: int) -> int:
    return x + 1


@app.orchestrator
def chain(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
    for _ in range(5):
        x = yield ctx.call_activity(add_one, x)
    return x


@app.orchestrator
def fan(ctx: OrchestrationContext, n: int) -> Orchestration[int]:
    results: list[int] = yield when_all([ctx.call_activity(add_one, i) for i in range(n)])
    return sum(results)


@app.orchestrator
def sleep(ctx: OrchestrationContext) -> Orchestration[None]:
    yield ctx.create_timer(timedelta(days=365))


def put_to_sleep(n: int, path: Path) -> None:
    """The hub at the path has n instances more, each asleep for a year."""

    async def start() -> None:
        async with TaskHub(path, app) as hub:
            for first in range(0, n, _STARTED_TOGETHER):
                await hub.client.start_many(sleep, [None] * (min(first + _STARTED_TOGETHER, n) - first))

    asyncio.run(start())


async def warm_up(hub: TaskHub) -> None:
    """Imports, connections and caches cost nobody anything from here on: the statements of many rows, too, have been prepared."""
    assert await hub.client.results(await hub.client.start_many(chain, range(_WARM_UP))) == [
        x + 5 for x in range(_WARM_UP)
    ]
