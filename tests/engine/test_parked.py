"""A parked instance stays so until somebody asks for something: no wake-up from before brings it back, and what comes meanwhile is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeAlias

import pytest

from replayflow import (
    App,
    Client,
    Instance,
    NonRetryableError,
    Orchestration,
    OrchestrationContext,
    OrchestrationFailed,
    OrchestrationTerminated,
    Saga,
    StoreBusyError,
    TaskHub,
)
from replayflow.core import events
from replayflow.store.base import InstanceFilter, Loaded, Operation, Outcome, Page, Park, Wake
from replayflow.testing.clock import VirtualClock
from tests.engine.kit import ToldStore, history_of, hub_on, turns, until, until_empty, until_state, until_suspended

Verb: TypeAlias = Callable[[Instance[Any]], Awaitable[None]]


class Trips:
    """Sagas of two actions at once. To undo `bad` fails while it `is_broken`; to undo `slow` takes until the gate opens."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.is_broken = True
        self.gate = asyncio.Event()
        self.may_fail = asyncio.Event()
        self.may_fail.set()
        self.app = app = App()

        @app.activity
        async def do(what: str) -> str:
            return what

        @app.activity
        async def undo(what: str) -> None:
            self.calls.append(what)
            if what == "slow":
                await self.gate.wait()
                return
            await self.may_fail.wait()
            if self.is_broken:
                raise NonRetryableError("closed")

        @app.activity
        async def double(x: int) -> int:
            self.calls.append(f"double {x}")
            await self.gate.wait()
            return 2 * x

        @app.orchestrator
        def trip(ctx: OrchestrationContext, actions: list[str]) -> Orchestration[None]:
            def body(saga: Saga) -> Orchestration[None]:
                for what in actions:
                    yield from saga.run(do, undo, what)
                raise ValueError

            yield from ctx.saga(body, parallel=True)

    def count(self, what: str) -> int:
        return self.calls.count(what)


class Gated(ToldStore):
    """Each list is given when its gate is open; and while `parking` is clear, no problem is written."""

    def __init__(self) -> None:
        super().__init__()
        self.listing, self.waking, self.parking, self.is_parking = (asyncio.Event() for _ in range(4))
        for gate in (self.listing, self.waking, self.parking):
            gate.set()

    async def page(
        self, wanted: InstanceFilter, limit: int, cursor: str | None = None, latest_first: bool = False
    ) -> Page:
        if wanted.is_parked:
            await self.listing.wait()
        return await super().page(wanted, limit, cursor, latest_first)

    async def wakes(self, after: tuple[int, int] | None, limit: int) -> list[Wake]:
        await self.waking.wait()
        return await super().wakes(after, limit)

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        if any(isinstance(one, Park) and one.problem is not None for one in operations):
            self.is_parking.set()
            await self.parking.wait()
        return await super().write(operations, epoch)


async def until_parked(instance: Instance[Any]) -> None:
    await until_state(instance, lambda state: state.problem, "its problem")


async def stays_parked(hub: TaskHub, instance: Instance[Any], trips: Trips) -> None:
    """Nothing that is under way tries it again."""
    calls = list(trips.calls)
    await turns(100)
    assert hub._engine is not None
    await until(lambda: hub._engine is not None and hub._engine._residents.is_quiet)
    assert trips.calls == calls
    assert (await instance.status()).problem is not None


# ---- what was under way when it was parked does not bring it back


@pytest.mark.parametrize("gate", ["listing", "waking"])
async def test_a_list_that_a_worker_gets_late_at_its_start_does_not_bring_back_what_it_has_parked_itself(
    gate: str,
) -> None:
    trips, store = Trips(), Gated()
    getattr(store, gate).clear()
    async with hub_on(store, trips.app) as hub:
        instance = await hub.client.start("trip", ["bad"])
        await until_parked(instance)
        getattr(store, gate).set()
        await stays_parked(hub, instance, trips)
        trips.is_broken = False
        await instance.resume()
        with pytest.raises(OrchestrationFailed, match="ValueError"):
            await instance.result(10)
    assert trips.count("bad") == 2


async def test_what_a_former_worker_has_parked_is_tried_once_even_if_it_is_asked_for_by_a_request_first() -> None:
    trips, store = Trips(), Gated()
    async with hub_on(store, trips.app) as hub:
        instances = [await hub.client.start("trip", ["bad"]) for _ in range(3)]
        for instance in instances:
            await until_parked(instance)
    async with Client(store) as client:
        await client.get(instances[0].id).resume()
    store.listing.clear()
    async with hub_on(store, trips.app) as hub:
        await until(lambda: trips.count("bad") == 4)
        instance = hub.client.get(instances[0].id)
        await until(lambda: sum(isinstance(one, Park) and one.problem is not None for one in store.written) == 4)
        store.listing.set()
        await until(lambda: trips.count("bad") == 6)
        await until(lambda: sum(isinstance(one, Park) and one.problem is not None for one in store.written) == 6)
        await stays_parked(hub, instance, trips)


async def test_a_message_that_was_read_before_the_parking_does_not_bring_the_instance_back() -> None:
    trips, store = Trips(), Gated()
    trips.may_fail.clear()
    async with hub_on(store, trips.app) as hub, Client(store) as client:
        instance = await hub.client.start("trip", ["bad"])
        await until(lambda: trips.count("bad") == 1)
        await turns()
        store.reading.clear()  # what is read from now on was true before
        await client.get(instance.id).raise_event("news", 1)
        await turns()
        trips.may_fail.set()
        await until_parked(instance)
        store.reading.set()
        await stays_parked(hub, instance, trips)


async def test_a_sleepers_alarm_does_not_bring_back_what_was_parked_after_it_was_set() -> None:
    trips, store = Trips(), Gated()
    store.waking.clear()
    async with hub_on(store, trips.app) as hub:
        instance = await hub.client.start("trip", ["bad"])
        await until_parked(instance)
        assert hub._engine is not None
        hub._engine._residents.alarms.sleep(instance.id, 0)
        store.waking.set()
        await stays_parked(hub, instance, trips)


# ---- what comes while it is being parked is not lost


async def test_what_ends_while_its_instance_is_being_parked_is_not_run_again() -> None:
    trips, store = Trips(), Gated()
    store.parking.clear()
    async with hub_on(store, trips.app) as hub:
        instance = await hub.client.start("trip", ["slow", "bad"])
        await store.is_parking.wait()
        trips.gate.set()
        await turns()
        store.parking.set()
        await until_parked(instance)
        trips.is_broken = False
        await instance.resume()
        with pytest.raises(OrchestrationFailed, match="ValueError"):
            await instance.result(10)
        assert sorted(trips.calls) == ["bad", "bad", "slow"]
        await until_empty(store)


async def test_what_has_ended_is_not_run_again_where_the_parking_is_refused_for_a_while() -> None:
    trips, store = Trips(), Gated()
    store.parking.clear()
    async with hub_on(store, trips.app) as hub:
        instance = await hub.client.start("trip", ["slow", "bad"])
        await store.is_parking.wait()
        trips.gate.set()
        await turns()
        store.fail_with(StoreBusyError("not now"), StoreBusyError("not now either"))
        store.parking.set()
        await until_parked(instance)
        await stays_parked(hub, instance, trips)
        trips.is_broken = False
        await instance.resume()
        with pytest.raises(OrchestrationFailed, match="ValueError"):
            await instance.result(10)
        assert sorted(trips.calls) == ["bad", "bad", "slow"]
        failed = [
            event for event in await history_of(hub.client, instance.id) if isinstance(event, events.CompensationFailed)
        ]
        assert len(failed) == 1


async def _terminated(instance: Instance[Any]) -> None:
    with pytest.raises(OrchestrationTerminated):
        await instance.result(10)


@pytest.mark.parametrize(
    ("ask", "has_happened"),
    [(Instance.terminate, _terminated), (Instance.suspend, until_suspended)],
    ids=["terminate", "suspend"],
)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_request_that_comes_while_an_instance_is_being_parked_is_heard(
    ask: Callable[[Instance[Any]], Awaitable[None]], has_happened: Verb, when: str
) -> None:
    trips, store = Trips(), Gated()
    trips.may_fail.clear()
    store.parking.clear()
    async with hub_on(store, trips.app) as hub, Client(store) as client:
        instance = await hub.client.start("trip", ["bad"])
        await until(lambda: trips.count("bad") == 1)
        await turns()
        if when == "before":
            with store.holding():  # the failure is on its way to the disk
                trips.may_fail.set()
                await turns()
                await ask(client.get(instance.id))
                await turns()
        else:
            trips.may_fail.set()
            await store.is_parking.wait()
            await ask(client.get(instance.id))
            await turns()
        store.parking.set()
        await has_happened(instance)


async def test_an_instance_that_goes_on_shows_no_problem_once_the_store_takes_that() -> None:
    trips, store = Trips(), Gated()
    async with hub_on(store, trips.app) as hub:
        instance = await hub.client.start("trip", ["bad"])
        await until_parked(instance)
        trips.may_fail.clear()
        refusals = [StoreBusyError("not now")] * 3
        store.failing = lambda group: (
            refusals.pop() if refusals and any(isinstance(one, Park) for one in group) else None
        )
        await instance.resume()
        await until(lambda: not refusals)
        await until_state(instance, lambda state: state.problem is None)
        trips.may_fail.set()
        await until_parked(instance)
        assert trips.count("bad") == 2


async def test_a_map_at_work_for_an_instance_that_was_parked_is_forgotten_with_it() -> None:
    trips, store = Trips(), Gated()
    name = "double"

    @trips.app.activity
    async def other(x: int) -> int:
        return x

    @trips.app.orchestrator
    def changing(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map(name, [1, 2])).succeeded

    async with hub_on(store, trips.app) as hub:
        instance = await hub.client.start(changing, instance_id="i")
        await until(lambda: len(trips.calls) == 2)
        assert hub._engine is not None
        hub._engine.cool_all()
        name = "other"
        await instance.raise_event("news")
        await until_parked(instance)
        name = "double"
        await instance.resume()
        trips.gate.set()
        assert await instance.result(10) == [2, 4]
        await turns()
        assert hub._engine._residents.resident("i") is None


async def test_an_instance_that_goes_on_is_not_left_alone_by_a_reading_from_before_that_was_written() -> None:
    class Late(Gated):
        """Nothing shows that an instance goes on before `going_on` is set, and what is read of instances comes when `reading` is set."""

        def __init__(self) -> None:
            super().__init__()
            self.going_on, self.reading, self.is_going_on, self.has_read = (asyncio.Event() for _ in range(4))
            self.reading.set()

        async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
            if any(isinstance(one, Park) and one.problem is None for one in operations):
                self.is_going_on.set()
                await self.going_on.wait()
            return await super().write(operations, epoch)

        async def load(self, instance_ids: Sequence[str]) -> list[Loaded]:
            loaded = await super().load(instance_ids)
            self.has_read.set()
            await self.reading.wait()
            return loaded

    app, store = App(), Late()

    @app.orchestrator
    def naps(ctx: OrchestrationContext) -> Orchestration[str]:
        yield ctx.create_timer(timedelta(days=1))
        return "rested"

    clock = VirtualClock()
    async with hub_on(store, app, clock=clock) as hub:
        await hub.client.start("naps", instance_id="i")
    async with hub_on(store, App(), clock=clock) as hub:
        assert hub._engine is not None
        hub._engine._residents.look_at("i")
        await until_parked(hub.client.get("i"))
    async with hub_on(store, app, clock=clock) as hub:
        instance = hub.client.get("i")
        await store.is_going_on.wait()
        engine = hub._engine
        assert engine is not None
        engine.cool_all()  # it sleeps in the store, until its timer is due
        store.reading.clear()
        store.has_read.clear()
        clock.set(clock.now() + 2 * 86_400 * 1_000_000)
        engine.look_at_the_clock()
        await store.has_read.wait()
        store.going_on.set()
        await until_state(instance, lambda state: state.problem is None)
        await turns()
        store.reading.set()
        assert await instance.result(10) == "rested"
