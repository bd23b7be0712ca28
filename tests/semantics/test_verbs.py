"""Suspend, resume, terminate, cancel, custom status: what each does, and the state in which it is refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from replayflow import (
    App,
    InstanceNotFoundError,
    OrchestrationCanceled,
    OrchestrationCancelled,
    OrchestrationContext,
    OrchestrationTerminated,
    TaskHub,
)
from replayflow.errors import InvalidStateError
from tests.engine.kit import TestClock
from tests.semantics.kit import LIMIT, Place, kinds, until, until_recorded, until_status


def app_of_verbs() -> tuple[App, dict[str, Any]]:
    app = App()
    seen: dict[str, Any] = {"undone": [], "stopped": asyncio.Event(), "started": asyncio.Event()}

    @app.activity
    async def undo(what: str) -> str:
        seen["undone"].append(what)
        return what

    @app.activity
    async def endless() -> None:
        seen["started"].set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen["stopped"].set()
            raise

    @app.orchestrator
    def two(ctx: OrchestrationContext) -> Any:
        first = yield ctx.wait_for_external_event("go")
        return [first, (yield ctx.wait_for_external_event("go"))]

    @app.orchestrator
    def works(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(endless)

    @app.orchestrator
    def cleans_up(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.wait_for_external_event("never")
        except OrchestrationCancelled as request:
            yield ctx.call_activity(undo, str(request))
            raise

    @app.orchestrator
    def stubborn(ctx: OrchestrationContext) -> Any:
        requests: list[str] = []
        while len(requests) < 2:
            try:
                yield ctx.wait_for_external_event("never")
            except Exception:
                requests.append("swallowed as an Exception")
            except OrchestrationCancelled as request:
                requests.append(str(request))
        return requests

    @app.orchestrator
    def forgets(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.wait_for_external_event("never")
        finally:
            ctx.call_activity(undo, "never yielded")

    return app, seen


async def test_a_suspended_instance_buffers_everything_until_it_is_resumed(place: Place) -> None:
    app, _ = app_of_verbs()
    async with place.hub(app) as hub:
        instance = await hub.client.start("two")
        await instance.suspend("a break")
        await until_status(instance, "SUSPENDED")
        await instance.raise_event("go", 1)
        await instance.raise_event("go", 2)
        with pytest.raises(TimeoutError, match="SUSPENDED"):
            await instance.result(0.05)
        assert "EventRaised" not in await kinds(instance)
        await instance.resume()
        assert await instance.result(LIMIT) == [1, 2]


async def test_a_suspension_outlives_the_worker_with_what_it_buffers(place: Place) -> None:
    app, _ = app_of_verbs()
    async with place.hub(app) as hub:
        instance = await hub.client.start("two", instance_id="i")
        await instance.suspend()
        await until_status(instance, "SUSPENDED")
        await instance.raise_event("go", 1)
    async with place.hub(app) as hub:
        instance = hub.client.get("i")
        await instance.raise_event("go", 2)
        assert (await instance.status()).status == "SUSPENDED"
        await instance.resume()
        assert await instance.result(LIMIT) == [1, 2]


async def test_a_result_that_comes_during_a_suspension_is_kept(place: Place) -> None:
    app, gate = App(), asyncio.Event()

    @app.activity
    async def work() -> str:
        await gate.wait()
        return "kept"

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity(work))

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        await instance.suspend()
        await until_status(instance, "SUSPENDED")
        gate.set()
        with pytest.raises(TimeoutError):
            await instance.result(0.05)
        await instance.resume()
        assert await instance.result(LIMIT) == "kept"


async def test_a_timer_of_a_suspended_instance_fires_after_the_resumption(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.create_timer(timedelta(hours=1))
        return "fired"

    clock = TestClock()  # or the timer might be over before the instance is suspended
    async with TaskHub(place.store(), app, clock=clock) as hub:
        instance = await hub.client.start(main)
        await instance.suspend()
        await until_status(instance, "SUSPENDED")
        clock.advance(timedelta(hours=2))
        assert hub._engine is not None
        hub._engine.look_at_the_clock()
        with pytest.raises(TimeoutError):
            await instance.result(0.1)
        await instance.resume()
        assert await instance.result(LIMIT) == "fired"


async def test_terminate_ends_at_once_and_cancels_running_activities(place: Place) -> None:
    app, seen = app_of_verbs()
    async with place.hub(app) as hub:
        instance = await hub.client.start("works")
        async with asyncio.timeout(LIMIT):
            await seen["started"].wait()
            await instance.terminate("enough")
            with pytest.raises(OrchestrationTerminated, match="enough"):
                await instance.result()
            await seen["stopped"].wait()
        assert (await instance.status()).status == "TERMINATED"


async def test_terminate_runs_no_clean_up(place: Place) -> None:
    app, seen = app_of_verbs()
    async with place.hub(app) as hub:
        for name in ("cleans_up", "forgets"):
            instance = await hub.client.start(name)
            await instance.terminate()
            with pytest.raises(OrchestrationTerminated):
                await instance.result(LIMIT)
        assert seen["undone"] == []


async def test_a_suspended_instance_can_be_terminated(place: Place) -> None:
    app, _ = app_of_verbs()
    async with place.hub(app) as hub:
        instance = await hub.client.start("two")
        await instance.suspend()
        await until_status(instance, "SUSPENDED")
        await instance.raise_event("go", 1)
        await instance.terminate()
        with pytest.raises(OrchestrationTerminated):
            await instance.result(LIMIT)


async def test_cancel_lets_the_orchestrator_clean_up(place: Place) -> None:
    app, seen = app_of_verbs()
    async with place.hub(app) as hub:
        instance = await hub.client.start("cleans_up")
        await instance.cancel("changed my mind")
        with pytest.raises(OrchestrationCanceled, match="changed my mind"):
            await instance.result(LIMIT)
        assert seen["undone"] == ["changed my mind"]
        assert (await instance.status()).status == "CANCELED"


async def test_cancel_is_raised_once_per_request(place: Place) -> None:
    app, _ = app_of_verbs()
    async with place.hub(app) as hub:
        instance = await hub.client.start("stubborn")
        await instance.cancel("please")
        await until_recorded(instance, "ExecutionCancelRequested")
        assert (await instance.status()).status == "RUNNING"
        await instance.cancel("now")
        assert await instance.result(LIMIT) == ["please", "now"]


async def test_what_a_clean_up_asks_for_and_does_not_wait_for_still_runs(place: Place) -> None:
    app, seen = app_of_verbs()
    async with place.hub(app) as hub:
        instance = await hub.client.start("forgets")
        await instance.cancel()
        with pytest.raises(OrchestrationCanceled):
            await instance.result(LIMIT)

        async def is_undone() -> bool:
            return bool(seen["undone"] == ["never yielded"])

        await until(is_undone)


async def test_cancelling_stops_the_activities_that_were_waited_for(place: Place) -> None:
    app, seen = app_of_verbs()
    async with place.hub(app) as hub:
        instance = await hub.client.start("works")
        async with asyncio.timeout(LIMIT):
            await seen["started"].wait()
            await instance.cancel()
            with pytest.raises(OrchestrationCanceled):
                await instance.result()
            await seen["stopped"].wait()


@pytest.mark.parametrize("verb", ["suspend", "resume", "terminate", "cancel"])
async def test_a_verb_that_does_not_fit_the_state_says_so_with_the_state(place: Place, verb: str) -> None:
    app, _ = app_of_verbs()
    async with place.hub(app) as hub:
        with pytest.raises(InstanceNotFoundError):
            await getattr(hub.client.get("nobody"), verb)()
        instance = await hub.client.start("two")
        if verb == "resume":
            with pytest.raises(InvalidStateError, match="RUNNING"):
                await instance.resume()
        if verb == "suspend":
            await instance.suspend()
            await until_status(instance, "SUSPENDED")
            with pytest.raises(InvalidStateError, match="suspended already"):
                await instance.suspend()
            await instance.resume()
        await instance.raise_event("go")
        await instance.raise_event("go")
        await instance.wait(LIMIT)
        with pytest.raises(InvalidStateError, match="COMPLETED"):
            await getattr(instance, verb)()


async def test_verbs_reach_an_instance_that_always_continues_as_new(place: Place) -> None:
    app = App()

    @app.activity
    async def step() -> None: ...

    @app.orchestrator
    def eternal(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(step)
        ctx.continue_as_new()

    async with place.hub(app) as hub:
        for verb, status in (("suspend", "SUSPENDED"), ("cancel", "CANCELED"), ("terminate", "TERMINATED")):
            instance = await hub.client.start(eternal)
            await getattr(instance, verb)()
            await until_status(instance, status)
            if verb == "suspend":
                await instance.terminate()
                await until_status(instance, "TERMINATED")


# ---- custom status -------------------------------------------------------------------------------------------


async def test_custom_status_is_sticky_and_kept_over_continue_as_new(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext, round: int) -> Any:
        if round == 1:
            ctx.set_custom_status({"step": 1})
        yield ctx.wait_for_external_event("go")
        if round == 1:
            ctx.continue_as_new(2)
            return
        ctx.set_custom_status("last")

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, 1)
        first = await instance.status()
        assert first.custom_status == {"step": 1}
        await instance.raise_event("go")

        async def is_new() -> bool:
            return (await instance.status()).execution_id != first.execution_id

        await until(is_new)
        assert (await instance.status()).custom_status == {"step": 1}
        await instance.raise_event("go")
        assert (await instance.wait(LIMIT)).custom_status == "last"


async def test_custom_status_can_be_set_back_to_what_was_carried_over(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext, round: int) -> Any:
        ctx.set_custom_status("new" if round == 2 else "old")
        if round == 1:
            ctx.continue_as_new(2)
            return
        yield ctx.wait_for_external_event("go")
        ctx.set_custom_status("old")

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, 1)
        await instance.raise_event("go")
        assert (await instance.wait(LIMIT)).custom_status == "old"
