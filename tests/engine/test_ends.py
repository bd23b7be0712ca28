"""Whoever waits for an end hears of one that still holds, however late the worker itself hears that it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from replayflow import App, Client, Instance, MemoryStore, Orchestration, OrchestrationContext
from replayflow.core.commit import Commit
from replayflow.core.instance import Status
from replayflow.store.base import InstanceRecord, Operation, Outcome
from tests.engine.kit import ToldStore, hub_on, turns, until


class LateStore(ToldStore):
    """That a failure is written is told when `told` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.told, self.is_written = asyncio.Event(), asyncio.Event()

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        outcomes = await super().write(operations, epoch)
        if any(
            isinstance(one, Commit) and one.state is not None and one.state.status is Status.FAILED
            for one in operations
        ):
            self.is_written.set()
            await self.told.wait()
        return outcomes


async def alone(client: Client, instance: Instance[Any]) -> Any:
    return await client.get(instance.id).result(10)


async def in_a_batch(client: Client, instance: Instance[Any]) -> Any:
    return (await client.results([client.get(instance.id)], timeout=10))[0]


@pytest.mark.parametrize("ask", [alone, in_a_batch])
async def test_a_result_that_is_asked_for_after_a_rewind_is_not_the_failure_before_it(
    ask: Callable[[Client, Instance[Any]], Awaitable[Any]],
) -> None:
    app, store = App(), LateStore()
    is_broken = True

    @app.activity
    async def fails() -> str:
        if is_broken:
            raise ValueError("broken")
        return "mended"

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Orchestration[str]:
        said: str = yield ctx.call_activity(fails)
        return said

    async with hub_on(store, app) as hub:
        instance = await hub.client.start(main)
        await store.is_written.wait()  # the worker stands still, and has not heard of it
        is_broken = False
        elsewhere = Client(store, app)  # by the store itself, which is open, and not by the worker
        await elsewhere.get(instance.id).rewind("mended")
        result = asyncio.ensure_future(ask(hub.client, instance))
        await turns()
        store.told.set()
        assert await result == "mended"


class CountingStore(ToldStore):
    """Counts how many rows it is asked for."""

    rows_read = 0

    async def get(self, instance_id: str) -> InstanceRecord | None:
        self.rows_read += 1
        return await super().get(instance_id)


async def test_whoever_starts_one_and_waits_for_it_reads_no_row_though_it_ends_at_once() -> None:
    app, store = App(), CountingStore()

    @app.activity
    async def double(x: int) -> int:
        return 2 * x

    @app.orchestrator
    def main(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
        doubled: int = yield ctx.call_activity(double, x)
        return doubled

    async def one(client: Client, x: int) -> int:
        return await (await client.start(main, x)).result(10)

    async with hub_on(store, app) as hub:
        # A crowd: when the last of them hears that it was started, the first have had their results, and have ended in memory.
        assert await asyncio.gather(*[one(hub.client, x) for x in range(300)]) == [2 * x for x in range(300)]
        assert store.rows_read == 0


async def test_whoever_is_ended_while_an_activity_runs_leaves_memory_when_that_has_ended() -> None:
    app = App()

    @app.activity
    async def more(x: int) -> int:
        return x + 1

    @app.orchestrator
    def main(ctx: OrchestrationContext, x: int) -> Orchestration[None]:
        for _ in range(100_000):
            x = yield ctx.call_activity(more, x)

    async with hub_on(MemoryStore(), app) as hub:
        crowd = await hub.client.start_many(main, range(200))
        await turns()
        await asyncio.gather(*[one.terminate("enough") for one in crowd])
        await hub.client.results(crowd, timeout=10, return_exceptions=True)
        await until(lambda: not hub._engine._residents._lives, "nobody in memory")  # type: ignore[union-attr]
