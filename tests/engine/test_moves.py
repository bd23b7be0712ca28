"""What an instance does with the result that it waits for: in one stretch, where nothing else is about to come for it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from replayflow import App, MemoryStore, Orchestration, OrchestrationContext, ReplayflowError, TaskHub, when_all
from replayflow.core import events
from replayflow.core.events import TaskCompleted


def app_of_chains() -> App:
    app = App()

    @app.activity
    async def double(x: int) -> int:
        return 2 * x

    @app.orchestrator
    def chain(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
        for _ in range(3):
            x = yield ctx.call_activity(double, x)
        return x

    @app.orchestrator
    def fan(ctx: OrchestrationContext, n: int) -> Orchestration[int]:
        results: list[int] = yield when_all([ctx.call_activity(double, x) for x in range(n)])
        return sum(results)

    return app


async def results_per_piece(store: MemoryStore, id: str) -> list[int]:
    pieces = [events.decode(piece) for piece in await store.history(id)]
    return [sum(isinstance(event, TaskCompleted) for event in piece) for piece in pieces]


async def test_each_result_of_a_chain_has_its_episode() -> None:
    store = MemoryStore()
    async with TaskHub(store, app_of_chains()) as hub:
        instances = await hub.client.start_many("chain", range(50))
        assert await hub.client.results(instances) == [8 * x for x in range(50)]
        for one in instances:
            found = await results_per_piece(store, one.id)
            assert sorted(found) == [0] * (len(found) - 3) + [1, 1, 1]


async def test_results_that_come_together_are_taken_together() -> None:
    store = MemoryStore()
    async with TaskHub(store, app_of_chains()) as hub:
        instance = await hub.client.start("fan", 90)
        assert await instance.result() == 90 * 89
        found = await results_per_piece(store, instance.id)
    assert sum(found) == 90
    assert len(found) < 10


async def test_a_fault_in_a_later_step_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: Any) -> Any:
        raise RuntimeError("a fault of ours")

    async def run() -> None:
        async with TaskHub(MemoryStore(), app_of_chains()) as hub, asyncio.timeout(10):
            instance = await hub.client.start("chain", 1)
            with pytest.raises(ReplayflowError, match="a fault of ours"):
                await instance.result()

    monkeypatch.setattr("replayflow.core.episode.turn", faulty)
    with pytest.raises(ReplayflowError, match="a fault of ours"):
        await run()


def test_an_interrupt_in_a_later_step_leaves_the_program() -> None:
    app = App()

    @app.activity
    async def nothing() -> None:
        pass

    @app.orchestrator
    def interrupted(ctx: OrchestrationContext) -> Orchestration[None]:
        yield ctx.call_activity(nothing)
        if not ctx.is_replaying:
            raise KeyboardInterrupt

    async def run() -> None:
        async with TaskHub(MemoryStore(), app) as hub:
            await (await hub.client.start(interrupted)).result()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(asyncio.wait_for(run(), 10))


precision: ContextVar[int] = ContextVar("precision", default=28)


async def test_what_an_activity_sets_for_itself_does_not_reach_the_code_that_goes_on() -> None:
    """A replay does not run the activity: what reached the code once would not reach it again."""
    app, seen = App(), list[int]()

    @app.activity
    async def sets(x: int) -> int:
        precision.set(x)
        return x

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Orchestration[None]:
        seen.append(precision.get())
        yield ctx.call_activity(sets, 1)
        seen.append(precision.get())
        yield when_all([ctx.call_activity(sets, x) for x in range(2, 5)])
        seen.append(precision.get())

    async with TaskHub(MemoryStore(), app) as hub:
        precision.set(50)  # what a client sets for itself, neither
        await hub.client.results(await hub.client.start_many(main, [None] * 20))
        await (await hub.client.start(main)).result(10)
    assert set(seen) == {28}
