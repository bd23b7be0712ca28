"""Sagas in a hub: what is undone when work fails or is cancelled, and how a compensation that fails for good waits to be mended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    ActivityContext,
    App,
    Client,
    CompensationFailed,
    Instance,
    InvalidStateError,
    MapStopped,
    NonRetryableError,
    Orchestration,
    OrchestrationCanceled,
    OrchestrationContext,
    OrchestrationFailed,
    OrchestrationTerminated,
    RetryPolicy,
    Saga,
    StoreBusyError,
    SubOrchestrationError,
    when_all,
)
from replayflow.core import events
from replayflow.core.commit import Commit
from replayflow.store.base import Park
from tests.engine.kit import ToldStore, hub_on
from tests.semantics.kit import LIMIT, Place, failure_of, history, kinds, until, until_recorded


class World:
    """What the activities do, and what is broken in it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.keys: list[str] = []
        self.is_broken = True
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_at_work = asyncio.Event()

    def app(self, undo_in_code: Callable[[], object] = lambda: None) -> App:
        app = App()

        @app.activity
        async def do(what: str) -> str:
            self.is_at_work.set()
            await self.gate.wait()
            self.done.append(what)
            if what == "impossible":
                raise NonRetryableError("impossible")
            return f"receipt of {what}"

        @app.activity
        async def undo(ctx: ActivityContext, what: str) -> None:
            self.keys.append(ctx.idempotency_key)
            await asyncio.sleep(0)
            if what == "flights" and self.is_broken:
                raise NonRetryableError("the airline is closed")
            self.done.append(f"not {what}")

        @app.orchestrator
        def trip(ctx: OrchestrationContext, last: str) -> Orchestration[str]:
            def by_hand() -> Orchestration[None]:
                undo_in_code()
                yield from ctx.call_activity(undo, "car")

            def body(saga: Saga) -> Orchestration[str]:
                yield from saga.run(do, undo, "hotel")
                yield from saga.run(do, undo, "flights")
                yield from saga.run(do, by_hand, "car")
                return (yield from saga.run(do, undo, last))

            return (yield from ctx.saga(body, undo_retry=RetryPolicy(max_attempts=2, first_interval=timedelta(0))))

        @app.orchestrator
        def journey(ctx: OrchestrationContext) -> Orchestration[str]:
            def body(saga: Saga) -> Orchestration[str]:
                yield from saga.run(do, undo, "insurance")
                return (yield from saga.run(ctx.call_sub_orchestrator(trip, "impossible"), undo, undo_input="trip"))

            try:
                return (yield from ctx.saga(body))
            except SubOrchestrationError as error:
                return error.details.message

        return app


async def until_parked(instance: Instance[Any]) -> str:
    async def problem() -> str | None:
        return (await instance.status()).problem

    found = await until(problem)
    assert isinstance(found, str)
    return found


async def test_a_saga_that_succeeds_gives_its_result(place: Place) -> None:
    world = World()
    async with place.hub(world.app()) as hub:
        instance = await hub.client.start("trip", "dinner")
        assert await instance.result(LIMIT) == "receipt of dinner"
    assert world.done == ["hotel", "flights", "car", "dinner"]


async def test_a_compensation_that_fails_for_good_parks_the_instance_and_resume_goes_on(place: Place) -> None:
    world = World()
    async with place.hub(world.app()) as hub:
        instance = await hub.client.start("trip", "impossible")
        problem = await until_parked(instance)
        assert "compensation 'undo'" in problem
        assert "left to undo besides: undo" in problem
        assert "the airline is closed" in problem
        assert [state.id async for state in hub.client.list(parked=True)] == [instance.id]
        assert world.done[-2:] == ["not impossible", "not car"]
        await instance.resume("try again")
        await until_recorded(instance, "CompensationFailed", 2)
        await until_parked(instance)
        world.is_broken = False
        await instance.resume()
        assert (await failure_of(instance)).type == "ActivityError"
        assert (await instance.status()).problem is None
    assert world.done[-2:] == ["not flights", "not hotel"]
    of_flights = [key for key in world.keys if world.keys.count(key) > 1]
    assert len(of_flights) == 3
    assert len(set(of_flights)) == 1  # the same task each time: whoever de-duplicates sees the same key


async def test_what_is_at_work_when_an_instance_is_parked_goes_on_and_runs_once(place: Place) -> None:
    app = App()
    gate, calls, is_broken = asyncio.Event(), list[str](), [True]

    @app.activity
    async def do(what: str) -> str:
        return what

    @app.activity
    async def undo(what: str) -> None:
        calls.append(what)
        if what == "slow":
            await gate.wait()
        elif is_broken[0]:
            raise NonRetryableError("broken")

    @app.orchestrator
    def both(ctx: OrchestrationContext) -> Orchestration[None]:
        def body(saga: Saga) -> Orchestration[None]:
            yield from saga.run(do, undo, "slow")
            yield from saga.run(do, undo, "bad")
            raise ValueError

        yield from ctx.saga(body, parallel=True)

    async with place.hub(app) as hub:
        instance = await hub.client.start(both)
        await until_parked(instance)
        is_broken[0] = False
        await instance.resume()
        await until_recorded(instance, "ExecutionResumed")
        await until_recorded(instance, "TaskCompleted", 3)
        assert sorted(calls) == ["bad", "bad", "slow"]
        gate.set()
        assert (await failure_of(instance)).type == "ValueError"
        assert sorted(calls) == ["bad", "bad", "slow"]


async def test_the_next_worker_tries_a_parked_compensation_again(place: Place) -> None:
    world = World()
    async with place.hub(world.app()) as hub:
        instance = await hub.client.start("trip", "impossible", instance_id="t")
        await until_parked(instance)
    world.is_broken = False
    async with place.hub(world.app()) as hub:
        assert (await failure_of(hub.client.get("t"))).type == "ActivityError"
        failed = [event async for event in hub.client.get("t").history() if isinstance(event, CompensationFailed)]
    assert [event.attempt for event in failed] == [1]
    assert world.done[-2:] == ["not flights", "not hotel"]


async def test_an_instance_that_is_not_parked_is_not_resumed(place: Place) -> None:
    world = World()
    world.gate.clear()
    async with place.hub(world.app()) as hub:
        instance = await hub.client.start("trip", "dinner")
        await world.is_at_work.wait()
        with pytest.raises(InvalidStateError, match="only a suspended instance, or a parked one"):
            await instance.resume()
        world.gate.set()
        await instance.result(LIMIT)


async def test_another_process_resumes_a_parked_instance(tmp_path: Path) -> None:
    world = World()
    place = Place("sqlite", tmp_path)
    async with place.hub(world.app()) as hub, Client(place.store()) as client:
        instance = await hub.client.start("trip", "impossible", instance_id="t")
        await until_parked(instance)
        world.is_broken = False
        await client.get("t").resume("the airline has opened")
        assert (await failure_of(instance)).type == "ActivityError"


async def test_code_that_is_wrong_parks_without_a_trace_and_mended_code_goes_on(place: Place) -> None:
    world = World()
    world.is_broken = False

    def wrong() -> None:
        raise KeyError("a typo")

    async with place.hub(world.app(wrong)) as hub:
        instance = await hub.client.start("trip", "impossible", instance_id="t")
        problem = await until_parked(instance)
        assert "'by_hand'" in problem
        assert "a typo" in problem
        before = await history(instance)
        await instance.resume()  # the same code comes to the same, and nothing is written but the request
        assert "a typo" in await until_parked(instance)
        assert len(await history(instance)) == len(before)
    async with place.hub(world.app()) as hub:
        assert (await failure_of(hub.client.get("t"))).type == "ActivityError"
    assert world.done[-3:] == ["not car", "not flights", "not hotel"]


async def test_a_cancelled_saga_undoes_what_it_did_and_a_second_request_does_not_stop_it(place: Place) -> None:
    world = World()
    world.is_broken = False
    async with place.hub(world.app()) as hub:
        world.gate.clear()
        instance = await hub.client.start("trip", "dinner")
        await world.is_at_work.wait()
        await instance.cancel("too expensive")
        await instance.cancel("really")
        await until_recorded(instance, "ExecutionCancelRequested", 2)
        world.gate.set()
        with pytest.raises(OrchestrationCanceled, match="too expensive"):
            await instance.result(LIMIT)
    assert world.done == ["hotel", "not hotel"]


async def test_a_parked_saga_can_be_terminated(place: Place) -> None:
    world = World()
    async with place.hub(world.app()) as hub:
        instance = await hub.client.start("trip", "impossible")
        await until_parked(instance)
        await instance.terminate("give it up")
        with pytest.raises(OrchestrationTerminated, match="give it up"):
            await instance.result(LIMIT)
        assert (await instance.status()).problem is None
    assert "not hotel" not in world.done


async def test_a_request_to_cancel_a_parked_saga_waits_until_it_is_mended(place: Place) -> None:
    world = World()
    async with place.hub(world.app()) as hub:
        instance = await hub.client.start("trip", "impossible")
        await until_parked(instance)
        await instance.cancel()
        world.is_broken = False
        await instance.resume()
        with pytest.raises(OrchestrationFailed, match="impossible"):
            await instance.result(LIMIT)  # the error that the saga began with; nobody was left to hear the request
    assert world.done[-1] == "not hotel"


async def test_a_suspended_saga_undoes_when_it_is_resumed(place: Place) -> None:
    world = World()
    async with place.hub(world.app()) as hub:
        instance = await hub.client.start("trip", "impossible")
        await until_parked(instance)
        await instance.suspend()
        world.is_broken = False
        await until_recorded(instance, "ExecutionSuspended")
        await instance.resume()
        assert (await failure_of(instance)).type == "ActivityError"


async def test_a_saga_in_a_sub_orchestration_undoes_before_its_parent_does(place: Place) -> None:
    world = World()
    world.is_broken = False
    async with place.hub(world.app()) as hub:
        instance = await hub.client.start("journey")
        assert "impossible" in await instance.result(LIMIT)
    assert world.done[-5:] == ["not car", "not flights", "not hotel", "not trip", "not insurance"]


async def test_a_crash_between_the_failure_and_the_parking_loses_nothing() -> None:
    world = World()
    store = ToldStore()
    store.failing = lambda group: (
        StoreBusyError("no parking") if any(isinstance(operation, Park) for operation in group) else None
    )
    async with hub_on(store, world.app()) as hub:
        instance = await hub.client.start("trip", "impossible", instance_id="t")
        await until_recorded(instance, "CompensationFailed")
        assert (await instance.status()).problem is None
    store.work()
    world.is_broken = False
    async with hub_on(store, world.app()) as hub:
        assert (await failure_of(hub.client.get("t"))).type == "ActivityError"
    assert world.done[-2:] == ["not flights", "not hotel"]


class Batch:
    """A saga whose only action is a map, and what became of it."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.pages: list[int] = []
        self.undone: list[tuple[str, int, int]] = []
        self.gate = asyncio.Event()

    def app(self, over: str, options: dict[str, Any]) -> App:
        app = App()

        @app.activity
        async def work(x: int) -> int:
            self.begun.append(x)
            await self.gate.wait()
            self.ended.append(x)
            return x

        @app.activity
        async def pages(cursor: int | None) -> tuple[list[int], int]:
            page = cursor or 0
            self.pages.append(page)
            if page:
                await self.gate.wait()
            return [2 * page, 2 * page + 1], page + 1  # there is always one more

        @app.activity
        async def undo(what: str) -> None:
            self.undone.append((what, len(self.begun), len(self.ended)))

        @app.orchestrator
        def child(ctx: OrchestrationContext, x: int) -> Orchestration[None]:
            def body(saga: Saga) -> Orchestration[None]:
                saga.add(undo, f"child {x}")
                yield ctx.wait_for_external_event("never")

            yield from ctx.saga(body)

        @app.orchestrator
        def main(ctx: OrchestrationContext) -> Orchestration[None]:
            def body(saga: Saga) -> Orchestration[None]:
                items = pages if over.startswith("pages") else range(500)
                mapped = ctx.map(child if over.endswith("children") else work, items, concurrency=3, **options)
                saga.run(mapped, undo, undo_input="all")
                yield when_all([mapped])

            yield from ctx.saga(body)

        return app


OPTIONS: list[dict[str, Any]] = [
    {},
    {"tolerated_failures": 1.0},
    {"on_item_error": "collect", "retry": RetryPolicy(max_attempts=9, first_interval=timedelta(0))},
]


@pytest.mark.parametrize("warm", [1, 1000])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("over", ["activities", "pages"])
async def test_of_a_map_that_is_undone_no_more_activities_start_and_those_at_work_are_waited_for(
    place: Place, over: str, options: dict[str, Any], warm: int
) -> None:
    batch = Batch()
    async with place.hub(batch.app(over, options), warm_instances=warm) as hub:
        instance = await hub.client.start("main", instance_id="m")
        await until(lambda: _true(len(batch.begun) == (2 if over == "pages" else 3)))
        await until(lambda: _true(len(batch.pages) == (2 if over == "pages" else 0)))
        pages = len(batch.pages)
        await instance.cancel("enough")
        await until_recorded(instance, "MapStopped")
        assert not batch.undone
        batch.gate.set()
        with pytest.raises(OrchestrationCanceled):
            await instance.result(LIMIT)
        begun = len(batch.begun)
        assert begun == (2 if over == "pages" else 3)
        assert batch.undone == [("all", begun, begun)]
        assert len(batch.pages) == pages
        assert (await kinds(instance)).count("MapDrained") == 1
        assert [state.is_over for state in await instance.maps()] == [True]


@pytest.mark.parametrize("warm", [1, 1000])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("over", ["children", "pages of children"])
async def test_children_of_a_map_that_is_undone_are_asked_to_cancel_and_undo_first(
    place: Place, over: str, options: dict[str, Any], warm: int
) -> None:
    batch = Batch()
    batch.gate.set()
    async with place.hub(batch.app(over, options), warm_instances=warm) as hub:
        instance = await hub.client.start("main", instance_id="m")

        async def children() -> bool:
            states = [state async for state in hub.client.list()]
            return sum(state.name == "child" and state.status == "RUNNING" for state in states) == 3

        await until(children)
        await instance.cancel("enough")
        with pytest.raises(OrchestrationCanceled):
            await instance.result(LIMIT)
        assert sorted(what for what, *_ in batch.undone[:-1]) == ["child 0", "child 1", "child 2"]
        assert batch.undone[-1] == ("all", 0, 0)
        states = [state async for state in hub.client.list()]
        assert {state.status for state in states} == {"CANCELED"}
        assert len(states) == 4, "no other began"


@pytest.mark.parametrize("over", ["activities", "pages", "children", "pages of children"])
async def test_a_crash_while_a_map_is_drained_begins_nothing_of_it_again(over: str) -> None:
    batch, store = Batch(), ToldStore()
    app = batch.app(over, {})
    at_work = 3 if over == "activities" else 2 if over == "pages" else 0
    async with hub_on(store, app) as hub:
        instance = await hub.client.start("main", instance_id="m")
        if at_work:
            await until(lambda: _true(len(batch.begun) == at_work))
        else:
            await until_recorded(instance, "MapPage" if "pages" in over else "MapScheduled")
        store.failing = lambda _: StoreBusyError("the disk is gone") if _stopped(store) else None
        await instance.cancel("enough")
        await until_recorded(instance, "MapStopped")
    assert not [undo for undo in batch.undone if undo[0] == "all"]
    store.work()
    async with hub_on(store, app) as hub:
        with pytest.raises(OrchestrationCanceled):
            await hub.client.get("m").result(LIMIT)
    assert len(batch.begun) == at_work
    assert batch.undone[-1] == ("all", at_work, 0)


def _stopped(store: ToldStore) -> bool:
    """Whether a map was asked to stop in what was written."""
    chunks = [commit.chunk for commit in store.written if isinstance(commit, Commit) and commit.chunk is not None]
    return any(isinstance(event, MapStopped) for chunk in chunks for event in events.decode(chunk))


async def _true(value: bool) -> bool:
    return value
