"""Scheduling, composites and timers, end to end."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from replayflow import App, OrchestrationContext, TaskCanceledError, TaskHub, race, when_all, when_any
from replayflow.errors import InvalidArgumentError, NotATaskError, OrchestratorError, RegistrationError
from tests.engine.kit import TestClock
from tests.semantics.kit import LIMIT, Place, failure_of, history, kinds, until

SHORT = timedelta(milliseconds=20)


def numbers() -> App:
    app = App()

    @app.activity
    async def double(x: int) -> int:
        return 2 * x

    @app.activity
    def fail(text: str) -> None:
        raise ValueError(text)

    return app


@pytest.mark.parametrize("ends", ["returns", "fails", "continues"])
async def test_an_activity_that_is_never_yielded_still_runs(place: Place, ends: str) -> None:
    app, ran = App(), asyncio.Event()

    @app.activity
    async def forgotten() -> None:
        ran.set()

    @app.orchestrator
    def main(ctx: OrchestrationContext, is_first: bool) -> Any:
        if not is_first:
            return "done"
        ctx.call_activity(forgotten)
        if ends == "fails":
            raise ValueError
        if ends == "continues":
            ctx.continue_as_new(False)
        return "done"

    async with place.hub(app) as hub:
        await (await hub.client.start(main, True)).wait(LIMIT)
        async with asyncio.timeout(LIMIT):
            await ran.wait()


async def test_actions_are_numbered_from_one_in_program_order(place: Place) -> None:
    app = numbers()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        first, second = ctx.call_activity("double", 1), ctx.call_activity("double", 2)
        yield second
        timer = ctx.create_timer(SHORT)
        yield when_all([first, timer])

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        await instance.result(LIMIT)
        numbered = [(e.event_id, type(e).__name__) for e in await history(instance) if e.event_id > 0]
        assert numbered == [
            (1, "TaskScheduled"),
            (2, "TaskScheduled"),
            (3, "TimerCreated"),
            (4, "ExecutionCompleted"),
        ]


async def test_a_history_begins_with_its_episode_and_its_start(place: Place) -> None:
    app = numbers()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity("double", 21))

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        assert await instance.result(LIMIT) == 42
        assert await kinds(instance) == [
            "OrchestratorStarted",
            "ExecutionStarted",
            "TaskScheduled",
            "OrchestratorStarted",
            "TaskCompleted",
            "ExecutionCompleted",
        ]


async def test_yielding_no_task_fails_at_once_with_what_and_the_line(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield 5

    async with place.hub(app) as hub:
        details = await failure_of(await hub.client.start(main))
        assert details.is_caused_by(NotATaskError)
        assert "yielded 5" in details.message
        assert "test_scheduling.py:" in details.message


async def test_a_plain_function_is_an_orchestrator_that_ends_in_its_first_episode(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext, x: int) -> int:
        return x + 1

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, 1)
        assert await instance.result(LIMIT) == 2
        assert (await kinds(instance)).count("OrchestratorStarted") == 1


def test_async_orchestrators_are_refused_at_registration_with_the_fix() -> None:
    app = App()
    with pytest.raises(RegistrationError, match="`yield` where you would await"):

        @app.orchestrator
        async def main(ctx: OrchestrationContext) -> None: ...

    with pytest.raises(RegistrationError, match="`yield` where you would await"):

        @app.orchestrator
        async def many(ctx: OrchestrationContext) -> Any:
            yield


async def test_an_action_after_continue_as_new_is_an_error(place: Place) -> None:
    app = numbers()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        ctx.continue_as_new()
        yield ctx.call_activity("double", 1)

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        assert (await failure_of(instance)).is_caused_by(OrchestratorError)
        assert "TaskScheduled" not in await kinds(instance)


async def test_code_after_continue_as_new_runs_to_its_return(place: Place) -> None:
    app, ends = App(), []

    @app.orchestrator
    def main(ctx: OrchestrationContext, round: int) -> Any:
        if round < 5:
            ctx.continue_as_new(round + 1)
            ends.append(round)
            return None
        yield ctx.create_timer(timedelta(0))
        return ctx.execution_id

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, 1)
        assert await instance.result(LIMIT) == (await instance.status()).execution_id
        assert ends == [1, 2, 3, 4]


# ---- composites ----------------------------------------------------------------------------------------------


async def test_when_all_gives_results_in_list_order_and_of_nothing_nothing(place: Place) -> None:
    app = numbers()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        nothing = yield when_all([])
        some = yield when_all([ctx.call_activity("double", n) for n in range(50)])
        return nothing, some

    async with place.hub(app) as hub:
        assert await (await hub.client.start(main)).result(LIMIT) == ([], [2 * n for n in range(50)])


@pytest.mark.parametrize("make", [when_any, race])
async def test_a_choice_of_nothing_is_a_value_error_at_the_call(place: Place, make: Any) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            make([])
        except ValueError as error:
            return type(error).__name__
        yield

    async with place.hub(app) as hub:
        assert await (await hub.client.start(main)).result(LIMIT) == "InvalidArgumentError"


async def test_when_all_waits_for_all_and_raises_the_first_failure_in_list_order(place: Place) -> None:
    app = numbers()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        tasks = [ctx.call_activity("double", 1), ctx.call_activity("fail", "x"), ctx.call_activity("fail", "y")]
        try:
            yield when_all(tasks)
        except Exception as error:
            failures: Any = getattr(error, "failures", None)
            return str(error), len(failures), all(task.is_complete for task in tasks)

    async with place.hub(app) as hub:
        text, failures, all_complete = await (await hub.client.start(main)).result(LIMIT)
        assert "ValueError: x" in text
        assert (failures, all_complete) == (2, True)


async def test_fail_fast_does_not_wait_for_the_rest(place: Place) -> None:
    app = numbers()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            yield when_all([ctx.create_timer(timedelta(days=1)), ctx.call_activity("fail", "x")], fail_fast=True)
        except Exception as error:
            return str(error)

    async with place.hub(app) as hub:
        assert "ValueError: x" in await (await hub.client.start(main)).result(LIMIT)


async def test_when_any_returns_the_task_and_the_loser_stays_live(place: Place) -> None:
    app = numbers()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        work, slow = ctx.call_activity("fail", "x"), ctx.wait_for_external_event("slow")
        winner = yield when_any([slow, work])
        return winner is work, winner.is_failed, (yield slow)

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)

        async def has_failed() -> bool:
            return "TaskFailed" in await kinds(instance)

        await until(has_failed)
        await instance.raise_event("slow", "late")
        assert await instance.result(LIMIT) == (True, True, "late")


async def test_a_race_cancels_its_losers(place: Place) -> None:
    app, stopped = App(), asyncio.Event()

    @app.activity
    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        loser = ctx.call_activity(endless)
        won = yield race([ctx.create_timer(SHORT), loser])
        return won, isinstance(loser.exception, TaskCanceledError)

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        assert await instance.result(LIMIT) == (None, True)
        assert "TaskCanceled" in await kinds(instance)
        async with asyncio.timeout(LIMIT):
            await stopped.wait()


# ---- timers --------------------------------------------------------------------------------------------------


async def test_a_naive_datetime_is_an_error_that_says_so(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.create_timer(datetime(2030, 1, 1))  # noqa: DTZ001 - the point

    async with place.hub(app) as hub:
        details = await failure_of(await hub.client.start(main))
        assert details.is_caused_by(InvalidArgumentError)
        assert "naive" in details.message


@pytest.mark.parametrize("when", [timedelta(0), timedelta(days=-1), timedelta.min])
async def test_a_time_in_the_past_fires_at_once(place: Place, when: timedelta) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.create_timer(when)
        return "fired"

    async with place.hub(app) as hub:
        assert await (await hub.client.start(main)).result(LIMIT) == "fired"


async def test_a_timer_fires_at_its_time_and_the_orchestrator_sees_that_time(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        before = ctx.current_utc_datetime
        yield ctx.create_timer(before + SHORT)
        return ctx.current_utc_datetime - before >= SHORT

    async with place.hub(app) as hub:
        assert await (await hub.client.start(main)).result(LIMIT) is True


async def test_a_timer_may_be_years_long_and_is_dropped_at_the_end(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        ctx.create_timer(timedelta(days=36_500))
        yield ctx.create_timer(SHORT)
        return "done"

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        assert await instance.result(LIMIT) == "done"
        assert (await instance.status()).status == "COMPLETED"
        assert (await kinds(instance)).count("TimerFired") == 1


async def test_a_time_after_the_year_9999_is_refused_and_the_worker_goes_on(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext, days: int) -> Any:
        yield ctx.create_timer(timedelta(days=days))

    async with place.hub(app) as hub:
        assert "9999" in (await failure_of(await hub.client.start(main, 999_999_999))).message
        await (await hub.client.start(main, 0)).result(LIMIT)


async def test_cancelling_a_timer_drops_it_and_a_completed_one_is_not_cancelled(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        long, short = ctx.create_timer(timedelta(days=1)), ctx.create_timer(SHORT)
        yield short
        return long.cancel(), long.cancel(), short.cancel()

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        assert await instance.result(LIMIT) == (True, False, False)
        assert (await kinds(instance)).count("TimerCanceled") == 1


async def test_a_timer_survives_the_worker(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.create_timer(timedelta(hours=1))
        return "fired"

    clock = TestClock()
    async with TaskHub(place.store(), app, clock=clock) as hub:
        instance = await hub.client.start(main, instance_id="sleeper")
        assert (await instance.status()).status == "RUNNING"
    clock.advance(timedelta(hours=2))
    async with TaskHub(place.store(), app, clock=clock) as hub:
        assert await hub.client.get("sleeper").result(LIMIT) == "fired"
