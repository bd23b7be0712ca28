"""What is at work for an execution while it fails and is rewound goes on for the next one: it is not lost, not run twice, and keeps its key."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from replayflow import ActivityContext, App, Client, Instance, Orchestration, OrchestrationContext, Transaction
from replayflow.store.base import Delivery, Transact
from tests.engine.kit import ToldStore, audit, hub_on, turns, until, until_state

Moment = Literal["before", "after"]


class Slow(ToldStore):
    """Transactional activities wait at two doors: before their transaction, and between it and whoever asked for it."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = asyncio.Event(), asyncio.Event()
        self.has_asked = self.has_run = False

    async def transact(self, wanted: Transact, epoch: int) -> Delivery | None:
        self.has_asked = True
        await self.before.wait()
        result = await super().transact(wanted, epoch)
        self.has_run = True
        await self.after.wait()
        return result


class World:
    def __init__(self) -> None:
        self.app = app = App()
        self.is_broken = asyncio.Event()
        self.breaks = asyncio.Event()
        self.is_free = asyncio.Event()
        self.keys: list[str] = []

        @app.activity
        async def breaks() -> int:
            await self.breaks.wait()
            if not self.is_broken.is_set():
                self.is_broken.set()
                raise ValueError("broken")
            return 1

        @app.activity(transactional=True)
        def counts(tx: Transaction) -> int:
            self.keys.append(tx.idempotency_key)
            return 7

        @app.activity(concurrency=1)
        async def alone(ctx: ActivityContext) -> int:
            self.keys.append(ctx.idempotency_key)
            await self.is_free.wait()
            return 7

        @app.orchestrator
        def both(ctx: OrchestrationContext, name: str) -> Orchestration[int]:
            other = ctx.call_activity(name, result_type=int)
            yield from ctx.call_activity(breaks)
            return (yield from other)

        @app.orchestrator
        def one(ctx: OrchestrationContext, name: str) -> Orchestration[int]:
            return (yield from ctx.call_activity(name, result_type=int))


async def until_failed(world: World, client: Client) -> Instance[int]:
    """The instance has failed, while its other activity has not ended."""
    world.breaks.set()
    instance: Instance[int] = client.get("x")
    await until_state(instance, lambda state: state.status == "FAILED")
    return instance


async def rewind(instance: Instance[int], store: ToldStore) -> None:
    """The instance is rewound, and the worker has read it again."""
    store.loads.clear()
    await instance.rewind()
    await until(lambda: store.loads)
    await turns()


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_transactional_activity_runs_once_and_is_heard(moment: Moment) -> None:
    world, store = World(), Slow()
    async with hub_on(store, world.app) as hub:
        await hub.client.start("both", "counts", instance_id="x")
        await until(lambda: store.has_asked)
        instance = await until_failed(world, hub.client)
        execution_id = (await instance.status()).execution_id
        if moment == "after":
            store.before.set()
            await until(lambda: store.has_run)
        await rewind(instance, store)
        store.before.set()
        store.after.set()
        assert await instance.result(5) == 7
        assert world.keys == [f"x/{execution_id}/1"]
        await audit(hub.client)


async def test_what_has_not_begun_keeps_its_key() -> None:
    world, store = World(), ToldStore()
    async with hub_on(store, world.app) as hub:
        first = await hub.client.start("one", "alone", instance_id="first")
        await until(lambda: world.keys)
        await hub.client.start("both", "alone", instance_id="x")
        instance = await until_failed(world, hub.client)
        execution_id = (await instance.status()).execution_id
        await rewind(instance, store)
        world.is_free.set()
        assert await instance.result(5) == await first.result(5) == 7
        assert world.keys[1:] == [f"x/{execution_id}/1"]
        await audit(hub.client)
