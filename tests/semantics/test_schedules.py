"""Schedules in a hub: verbs, runs, restarts, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    Instance,
    InstanceExistsError,
    InstanceNotFoundError,
    InvalidArgumentError,
    InvalidStateError,
    Limits,
    Orchestration,
    OrchestrationCancelled,
    OrchestrationContext,
    RegistrationError,
    Schedule,
    ScheduleError,
    ScheduleState,
    TaskHub,
    UnknownNameError,
)
from replayflow.core import episode
from replayflow.engine import alarms
from replayflow.patterns.timing import Timing
from tests.engine.kit import TestClock
from tests.semantics.kit import LIMIT, Place, until

OFTEN = timedelta(milliseconds=100)
HOUR = timedelta(hours=1)
NEVER = timedelta(days=365)


def app_of_reports() -> App:
    app = App()

    @app.orchestrator
    def report(ctx: OrchestrationContext, about: str) -> str:
        assert ctx.parent_instance_id is None
        return f"{about}, {ctx.tags['schedule']}"

    @app.orchestrator
    def long(ctx: OrchestrationContext) -> Orchestration[str]:
        try:
            yield from ctx.wait_for_external_event("enough")
        except OrchestrationCancelled:
            return "made room"
        return "enough"

    return app


async def until_shown(schedule: Schedule, holds: Callable[[ScheduleState], object]) -> ScheduleState:
    async def state() -> ScheduleState | None:
        found = await schedule.status()
        return found if holds(found) else None

    found = await until(state)
    assert isinstance(found, ScheduleState)
    return found


async def until_exists(instance: Instance[Any]) -> None:
    async def exists() -> bool:
        try:
            return bool(await instance.status())
        except InstanceNotFoundError:
            return False

    await until(exists)


async def test_a_schedule_starts_runs_of_its_own_that_outlive_it(place: Place) -> None:
    async with place.hub(app_of_reports()) as hub:
        schedule = await hub.client.create_schedule("often", "report", "all", every=OFTEN, tags={"team": "blue"})
        state = await until_shown(schedule, lambda state: state.runs >= 2)
        assert state.last_run is not None
        assert await hub.client.get(state.last_run).result(LIMIT) == "all, often"
        assert (await hub.client.get(state.last_run).status()).tags == {"team": "blue", "schedule": "often"}
        await schedule.delete("no longer wanted")
        assert (await hub.client.get(schedule.instance_id).wait(LIMIT)).status == "TERMINATED"
        assert [state async for state in hub.client.list_schedules()] == []
        statuses = {state.status async for state in hub.client.list(tags={"schedule": "often"})}
        assert statuses <= {"COMPLETED", "RUNNING", "PENDING"}


async def test_what_is_asked_while_nobody_works_is_there_when_somebody_does(tmp_path: Path) -> None:
    place = Place("sqlite", tmp_path)
    async with Client(place.store()) as client:
        schedule = await client.create_schedule("s", "report", "x", every=NEVER, paused=True)
        triggered = await schedule.trigger()
        await schedule.resume("go")
        with pytest.raises(InstanceNotFoundError):
            await triggered.status()
    async with place.hub(app_of_reports()) as hub:
        again = hub.client.get_schedule("s")
        state = await until_shown(again, lambda state: not state.is_paused)
        assert (state.reason, state.runs, state.last_run) == ("go", 1, triggered.id)
        assert await hub.client.get(triggered.id).result(LIMIT) == "x, s"


async def test_the_former_makes_room(place: Place) -> None:
    async with place.hub(app_of_reports()) as hub:
        schedule = await hub.client.create_schedule("s", "long", every=NEVER, overlap="cancel")
        first = await schedule.trigger()
        await until_exists(first)
        second = await schedule.trigger()
        assert await first.result(LIMIT) == "made room"
        await until_exists(second)
        third = await schedule.trigger(overlap="terminate")
        assert (await second.wait(LIMIT)).status == "TERMINATED"
        await until_exists(third)
        assert (await schedule.status()).running == [third.id]
        await third.raise_event("enough")
        await until_shown(schedule, lambda state: not state.running)


async def test_one_that_is_skipped_never_exists(place: Place) -> None:
    async with place.hub(app_of_reports()) as hub:
        schedule = await hub.client.create_schedule("s", "long", every=NEVER)
        await schedule.trigger()
        skipped = await schedule.trigger()
        await until_shown(schedule, lambda state: state.skipped == 1)
        with pytest.raises(InstanceNotFoundError):
            await skipped.status()
        with pytest.raises(InvalidArgumentError, match="skip, buffer_one"):
            await schedule.trigger(overlap="sometimes")  # type: ignore[arg-type]


async def test_a_backfill_runs_a_past_range_once(place: Place) -> None:
    async with place.hub(app_of_reports()) as hub:
        schedule = await hub.client.create_schedule("s", "report", "x", cron="0 3 * * *", zone="Europe/Berlin")
        first, last = datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC)
        for _ in range(2):
            assert await schedule.backfill(first, last) == 4
        await until_shown(schedule, lambda state: state.runs == 8)

        async def ids() -> list[str]:
            return [state.id async for state in hub.client.list(id_prefix="s:")]

        assert await ids() == [
            "s:2026-03-27T02:00:00Z",
            "s:2026-03-28T02:00:00Z",
            "s:2026-03-29T01:00:00Z",
            "s:2026-03-30T01:00:00Z",
        ]
        for start, end in (
            (last, first),
            (first, datetime(2900, 1, 1, tzinfo=UTC)),
            (first.replace(tzinfo=None), last),
        ):
            with pytest.raises(InvalidArgumentError):
                await schedule.backfill(start, end)
        await schedule.update(every=timedelta(seconds=1))
        await until_shown(schedule, lambda state: state.every is not None)
        with pytest.raises(InvalidArgumentError, match="more than 10000"):
            await schedule.backfill(first, last)


async def test_a_long_stop_ends_with_one_run_and_the_schedule_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms, "LOOK_SECONDS_MAX", 0.005)
    clock = TestClock()
    store = place.store()
    limits = Limits(grace=timedelta(seconds=1))
    async with TaskHub(store, app_of_reports(), clock=clock, limits=limits) as hub:
        schedule = await hub.client.create_schedule("s", "report", "x", every=HOUR)
        next_at = (await schedule.status()).next_at
        assert next_at is not None
        created = next_at - HOUR
    clock.advance(10.5 * HOUR)
    async with TaskHub(place.store(), app_of_reports(), clock=clock, limits=limits) as hub:
        schedule = hub.client.get_schedule("s")
        state = await until_shown(schedule, lambda state: state.runs)
        assert state.last_run == schedule.run_id(created + 10 * HOUR)
        assert (state.runs, state.next_at) == (1, created + 11 * HOUR)
        clock.advance(HOUR)
        state = await until_shown(schedule, lambda state: state.runs == 2)
        assert state.last_run == schedule.run_id(created + 11 * HOUR)


async def test_a_worker_without_the_zone_parks_the_schedule_and_one_that_has_it_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise ScheduleError("no such zone here")

    async with place.hub(app_of_reports()) as hub:
        schedule = await hub.client.create_schedule("s", "report", "x", every=NEVER)
        with monkeypatch.context() as patched:
            patched.setattr(Timing, "after", missing)
            triggered = await schedule.trigger()
            state = await until_shown(schedule, lambda state: state.problem)
            assert state.problem == "schedule 's': no such zone here"
            assert state.runs == 0
    async with place.hub(app_of_reports()) as hub:
        assert await until_result(hub.client.get(triggered.id)) == "x, s"
        assert (await hub.client.get_schedule("s").status()).problem is None


async def until_result(instance: Instance[Any]) -> Any:
    await until_exists(instance)
    return await instance.result(LIMIT)


# ---- making and changing ---------------------------------------------------------------------------------------


async def test_what_a_program_says_again_at_each_start_changes_nothing(place: Place) -> None:
    async with place.hub(app_of_reports()) as hub:
        made = await hub.client.create_schedule("s", "report", "x", every=HOUR, on_existing="update")
        before = await until_shown(made, lambda state: state.status == "RUNNING")
        await hub.client.create_schedule("s", "report", "x", every=HOUR, on_existing="update")
        await hub.client.create_schedule("s", "report", "another", every=OFTEN, on_existing="return")
        await asyncio.sleep(0)
        assert await made.status() == before
        await hub.client.create_schedule("s", "report", "another", every=2 * HOUR, on_existing="update")
        after = await until_shown(made, lambda state: state.every == 2 * HOUR)
        assert after.input == "another"
        with pytest.raises(InstanceExistsError, match="schedule 's'"):
            await hub.client.create_schedule("s", "report", "x", every=HOUR)


async def test_an_update_leaves_what_it_does_not_name(place: Place) -> None:
    async with place.hub(app_of_reports()) as hub:
        schedule = await hub.client.create_schedule("s", "report", "x", every=HOUR, jitter=OFTEN, overlap="allow")
        await schedule.update(cron="30 4 * * 1-5", zone="America/New_York")
        state = await until_shown(schedule, lambda state: state.cron)
        assert (state.every, state.zone, state.input, state.overlap) == (None, "America/New_York", "x", "allow")
        await schedule.update(orchestrator="long", input=None, tags={"a": "b"}, misfire="catch_up", catch_up_max=3)
        state = await until_shown(schedule, lambda state: state.orchestrator == "long")
        assert (state.cron, state.tags, state.misfire, state.input) == ("30 4 * * 1-5", {"a": "b"}, "catch_up", None)


async def test_updates_that_nobody_has_seen_yet_all_hold(tmp_path: Path) -> None:
    place = Place("sqlite", tmp_path)
    async with Client(place.store()) as client:
        schedule = await client.create_schedule("s", "report", "x", every=HOUR)
        await schedule.update(every=2 * HOUR)
        await schedule.update(jitter=OFTEN)
        await schedule.update(input="y")
        await schedule.update(overlap="allow", tags={"a": "b"})
        await schedule.update(every=3 * HOUR)
        await schedule.update()
    async with place.hub(app_of_reports()) as hub:
        state = await until_shown(hub.client.get_schedule("s"), lambda state: state.every == 3 * HOUR)
        assert (state.jitter, state.input, state.overlap, state.tags) == (OFTEN, "y", "allow", {"a": "b"})


async def test_a_schedule_whose_deletion_nobody_has_seen_yet_takes_no_verbs_and_can_be_made_again(
    tmp_path: Path,
) -> None:
    place = Place("sqlite", tmp_path)
    async with Client(place.store()) as client:
        schedule = await client.create_schedule("s", "report", "x", every=HOUR)
        await schedule.delete()
        for verb in (schedule.pause, schedule.resume, schedule.trigger):
            with pytest.raises(InvalidStateError, match="being deleted"):
                await verb()
        with pytest.raises(InvalidStateError, match="being deleted"):
            await schedule.update(every=2 * HOUR)
        await client.create_schedule("s", "report", "y", every=2 * HOUR, on_existing="update")
        with pytest.raises(InstanceExistsError, match="schedule 's'"):
            await client.create_schedule("s", "report", "z", every=HOUR)
    async with place.hub(app_of_reports()) as hub:
        state = await until_shown(hub.client.get_schedule("s"), lambda state: state.every == 2 * HOUR)
        assert (state.status.is_finished, state.input) == (False, "y")


async def test_a_reason_is_text_and_a_backfill_may_begin_with_the_calendar(place: Place) -> None:
    async with place.hub(app_of_reports()) as hub:
        schedule = await hub.client.create_schedule("s", "report", "x", every=timedelta(days=36_525))
        wrong: Any = 5
        for verb in (schedule.pause, schedule.resume):
            with pytest.raises(InvalidArgumentError, match="the reason is 5"):
                await verb(wrong)
        first = datetime.min.replace(tzinfo=UTC)
        assert await schedule.backfill(first, datetime(1, 1, 2, tzinfo=UTC)) == 0


async def test_a_deleted_schedule_can_be_made_again_and_takes_no_verbs(place: Place) -> None:
    async with place.hub(app_of_reports()) as hub:
        schedule = await hub.client.create_schedule("s", "report", "x", every=HOUR)
        await schedule.delete()
        await hub.client.get(schedule.instance_id).wait(LIMIT)
        for verb in (schedule.pause, schedule.resume, schedule.trigger, schedule.delete):
            with pytest.raises(InvalidStateError):
                await verb()
        await hub.client.create_schedule("s", "report", "y", every=HOUR)
        assert (await schedule.status()).input == "y"


async def test_a_schedule_that_is_not_there(place: Place) -> None:
    async with place.hub(app_of_reports()) as hub:
        schedule = hub.client.get_schedule("none")
        for verb in (
            schedule.status,
            schedule.pause,
            schedule.resume,
            schedule.trigger,
            schedule.delete,
            schedule.update,
        ):
            with pytest.raises(InstanceNotFoundError, match="no schedule 'none'"):
                await verb()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "a/b"}, InvalidArgumentError, "no name for a schedule"),
        ({"name": "x" * 201}, InvalidArgumentError, "no name for a schedule"),
        ({"name": ""}, InvalidArgumentError, "no name for a schedule"),
        ({"orchestrator": "unknown"}, UnknownNameError, "unknown"),
        ({"every": None}, InvalidArgumentError, "either an interval"),
        ({"overlap": "sometimes"}, InvalidArgumentError, "skip, buffer_one"),
        ({"overlap": None}, InvalidArgumentError, "skip, buffer_one"),
        ({"misfire": "sometimes"}, InvalidArgumentError, "run_once"),
        ({"on_existing": "sometimes"}, InvalidArgumentError, "error, return, update"),
        ({"catch_up_max": 0}, InvalidArgumentError, "catch_up_max"),
        ({"grace": timedelta(-1)}, InvalidArgumentError, "grace"),
        ({"start_at": datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)}, InvalidArgumentError, "start_at"),
        ({"every": None, "cron": "* * * * *", "zone": "Mars/Olympus"}, ScheduleError, "Mars/Olympus"),
        ({"input": object()}, TypeError, "input of orchestrator 'report'"),
        ({"tags": {"a": 1}}, InvalidArgumentError, "tags are text"),
        ({"tags": "team=blue"}, InvalidArgumentError, "a mapping of text by text"),
        ({"every": 5}, InvalidArgumentError, "every is 5; it is a timedelta"),
        ({"jitter": 5}, InvalidArgumentError, "jitter is 5; it is a timedelta"),
        (
            {"every": None, "cron": "0 * * * *", "jitter": timedelta.max},
            InvalidArgumentError,
            "no longer than 366 days",
        ),
        ({"every": None, "cron": 5}, InvalidArgumentError, "cron is 5; it is text"),
        ({"every": None, "cron": "*/" + "9" * 5000 + " * * * *"}, InvalidArgumentError, "no cron expression"),
        ({"zone": 5}, InvalidArgumentError, "zone is 5; it is text"),
        ({"grace": 5}, InvalidArgumentError, "grace is 5; it is a timedelta"),
        ({"catch_up_max": 1.5}, InvalidArgumentError, "a whole number"),
        ({"paused": "no"}, InvalidArgumentError, "paused is 'no'"),
        ({"end_at": "tomorrow"}, InvalidArgumentError, "end_at is 'tomorrow'"),
        ({"start_at": datetime.min.replace(tzinfo=timezone(HOUR))}, InvalidArgumentError, "in no calendar"),
    ],
)
async def test_what_is_wrong_is_refused_before_anything_is_written(
    options: dict[str, Any], error: type[Exception], message: str, place: Place
) -> None:
    given: dict[str, Any] = {"name": "s", "orchestrator": "report", "input": "x", "every": HOUR} | options
    async with place.hub(app_of_reports()) as hub:
        with pytest.raises(error, match=message):
            await hub.client.create_schedule(**given)
        assert [state async for state in hub.client.list()] == []


def test_our_names_are_not_for_users() -> None:
    with pytest.raises(RegistrationError, match="replayflow's own"):
        App().orchestrator(name="replayflow.schedule")(app_of_reports)


async def test_the_names_that_an_error_lists_are_the_programs_own(place: Place) -> None:
    async with place.hub(app_of_reports()) as hub:
        with pytest.raises(UnknownNameError, match=r"it has: long, report$"):
            await hub.client.start("missing")


def has_run_since(before: ScheduleState, state: ScheduleState) -> bool:
    return state.runs > before.runs


async def test_a_schedule_keeps_its_last_executions_without_any_retention(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episode, "OWN_EXECUTIONS_KEPT", 3)
    store = place.store()
    async with TaskHub(store, app_of_reports(), limits=Limits(grace=timedelta(0))) as hub:
        schedule = await hub.client.create_schedule("s", "report", "x", every=HOUR, overlap="allow")
        for _ in range(5):
            before = await schedule.status()
            await schedule.trigger()
            await until_shown(schedule, partial(has_run_since, before))
        assert len(await store.executions("schedule:s")) == 1 + 3
