"""Warm generators are a cache: with room for one or for all, the same results and the same histories, and no trace of those that were dropped."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from datetime import timedelta
from typing import Any

import pytest

from replayflow import ActivityError, App, Limits, Orchestration, OrchestrationContext, when_all, when_any
from tests.engine.kit import Counted, ToldStore, audit, history_of, hub_on, shape, turns, until, until_suspended

INSTANCES = 24


def busy_app(ran: Counted[str]) -> App:
    app = App()

    @app.activity
    async def double(x: int) -> int:
        ran(f"double {x}")
        await asyncio.sleep(0)
        return 2 * x

    @app.activity
    async def fails(x: int) -> int:
        raise ValueError(f"no {x}")

    @app.orchestrator
    def child(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
        yield from ctx.create_timer(timedelta(milliseconds=x % 3))
        return (yield from ctx.call_activity(double, x))

    @app.orchestrator
    def busy(ctx: OrchestrationContext, x: int) -> Orchestration[list[Any]]:
        seen: list[Any] = []
        try:
            seen.append((yield from when_all([ctx.call_activity(double, 100 * x + i) for i in range(3)])))
            try:
                yield from ctx.call_activity(fails, x)
            except ActivityError as error:
                seen.append(error.details.message)
            yield from ctx.create_timer(timedelta(milliseconds=5))
            seen.append((yield from ctx.call_sub_orchestrator(child, x)))
            event = ctx.wait_for_external_event("go", type=int)
            deadline = ctx.create_timer(timedelta(hours=1))
            winner = yield from when_any([event, deadline])
            deadline.cancel()
            seen.append(winner is event and event.result)
        finally:
            seen.append("finally")
            last = yield from ctx.call_activity(double, 1_000_000 + x)
        return [*seen, last]

    return app


async def lived(warm: int) -> tuple[list[Any], list[Any], Counted[str], ToldStore]:
    ran: Counted[str] = Counted()
    store = ToldStore()
    async with hub_on(store, busy_app(ran), Limits(warm_instances=warm)) as hub:
        started = [await hub.client.start("busy", x, instance_id=f"b{x}") for x in range(INSTANCES)]
        for x, one in enumerate(started):
            await one.raise_event("go", x)
            if x % 5 == 0:
                await one.suspend()
                await until_suspended(
                    one
                )  # or `resume` would look for the request among the messages, by a load of its own
                await one.resume()
        results = [await one.result(20) for one in started]
        histories = []
        for one in started:
            # What came when is a matter of time; what was decided, and in which order, is not.
            decided = [event for event in shape(await history_of(hub.client, one.id)) if event[1] not in (None, -1)]
            histories.append(decided)
        await audit(hub.client)
    return results, histories, ran, store


async def test_with_room_for_few_generators_results_and_histories_are_the_same() -> None:
    results, histories, ran, store = await lived(10_000)
    assert not store.loads
    for warm in (1, 2, 5):
        few_results, few_histories, few_ran, few_store = await lived(warm)
        assert few_results == results
        assert few_histories == histories
        assert few_ran.calls == ran.calls, "nothing ran again only because its generator was dropped"
        assert few_store.loads


async def test_a_result_within_the_grace_is_recorded_also_where_the_generator_was_dropped() -> None:
    ran: Counted[str] = Counted()
    app, go, store = App(), asyncio.Event(), ToldStore()

    @app.activity
    async def slow(x: int) -> int:
        ran(str(x))
        await go.wait()
        return x

    @app.orchestrator
    def one(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
        return (yield from ctx.call_activity(slow, x))

    async with hub_on(store, app, Limits(warm_instances=1, grace=timedelta(seconds=5))) as hub:
        for x in range(5):
            await hub.client.start(one, x, instance_id=f"i{x}")
        await until(lambda: len(ran.calls) == 5)
        asyncio.get_running_loop().call_later(0.02, go.set)
    async with hub_on(store, app) as hub:
        assert [await hub.client.get(f"i{x}").result(5) for x in range(5)] == list(range(5))
    assert set(ran.calls.values()) == {1}


class Unraisable:
    """What the interpreter could only print."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[Any] = []
        monkeypatch.setattr(sys, "unraisablehook", lambda hint: self.seen.append(str(hint.exc_value)))


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Unraisable:
    return Unraisable(monkeypatch)


def stubborn_app(touched: Counted[str]) -> App:
    app = App()

    @app.activity
    async def undo(x: int) -> int:
        touched("undo ran")
        return x

    @app.orchestrator
    def calls_in_finally(ctx: OrchestrationContext) -> Orchestration[str]:
        try:
            return (yield from ctx.wait_for_external_event("go", type=str))
        finally:
            touched("finally")
            ctx.call_activity(undo, 1)
            ctx.set_custom_status("undone")
            ctx.send_event("nobody", "x")
            ctx.create_timer(timedelta(seconds=1))
            ctx.call_sub_orchestrator(calls_in_finally)
            ctx.logger.warning("in finally")

    @app.orchestrator
    def yields_in_finally(ctx: OrchestrationContext) -> Orchestration[str]:
        try:
            return (yield from ctx.wait_for_external_event("go", type=str))
        finally:
            yield from ctx.call_activity(undo, 2)
            yield from ctx.create_timer(timedelta(milliseconds=1))

    @app.orchestrator
    def raises_in_finally(ctx: OrchestrationContext) -> Orchestration[str]:
        try:
            result = yield from ctx.wait_for_external_event("go", type=str)
        except GeneratorExit:
            raise ZeroDivisionError from None
        return result

    @app.orchestrator
    def swallows_exit(ctx: OrchestrationContext) -> Orchestration[str]:
        for _ in range(10):
            try:
                return (yield from ctx.wait_for_external_event("go", type=str))
            except GeneratorExit:
                touched("exit swallowed")
        return "never"

    @app.orchestrator
    def continues_in_finally(ctx: OrchestrationContext) -> Orchestration[str]:
        try:
            return (yield from ctx.wait_for_external_event("go", type=str))
        except GeneratorExit:
            ctx.continue_as_new(None)
            return "never"

    return app


@pytest.mark.parametrize("how", ["eviction", "shutdown"])
@pytest.mark.parametrize(
    "name", ["calls_in_finally", "yields_in_finally", "raises_in_finally", "swallows_exit", "continues_in_finally"]
)
async def test_what_a_finally_does_while_its_generator_is_dropped_changes_nothing(
    how: str, name: str, unraisable: Unraisable, caplog: pytest.LogCaptureFixture
) -> None:
    touched: Counted[str] = Counted()
    store, app = ToldStore(), stubborn_app(touched)
    caplog.set_level(logging.INFO)
    async with hub_on(store, app, Limits(warm_instances=1 if how == "eviction" else 100)) as hub:
        one = await hub.client.start(name, instance_id="one")
        before = [*store.written]
        if how == "eviction":
            await hub.client.start(name, instance_id="other")
            await turns()
        history = shape(await history_of(hub.client, "one"))
    gc.collect()
    if how != "eviction":
        assert store.written == before
    assert "in finally" not in caplog.text
    assert not unraisable.seen
    async with hub_on(store, app) as hub:
        assert shape(await history_of(hub.client, "one")) == history
        await hub.client.get("one").raise_event("go", "gone")
        one = hub.client.get("one")
        assert await one.result(5) == "gone"
        assert not unraisable.seen


async def test_a_hub_whose_exit_is_cancelled_drops_its_generators_in_silence(unraisable: Unraisable) -> None:
    touched: Counted[str] = Counted()
    store, app, started = ToldStore(), stubborn_app(touched), asyncio.Event()

    @app.activity
    async def hangs() -> None:
        started.set()
        await asyncio.Event().wait()

    @app.orchestrator
    def busy(ctx: OrchestrationContext) -> Orchestration[None]:
        yield from ctx.call_activity(hangs)

    async def open_and_close() -> None:
        async with hub_on(store, app, Limits(grace=timedelta(seconds=60))) as hub:
            await hub.client.start("yields_in_finally", instance_id="one")
            await hub.client.start("busy")
            await started.wait()

    task = asyncio.create_task(open_and_close())
    await started.wait()
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gc.collect()
    assert not unraisable.seen
    async with hub_on(store, app) as hub:
        await hub.client.get("one").raise_event("go", "gone")
        assert await hub.client.get("one").result(5) == "gone"
