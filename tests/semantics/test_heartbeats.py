"""Heartbeats: what an activity tells on its way is there for its next attempt, whatever ended the last."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    ActivityContext,
    ActivityError,
    App,
    EncodeError,
    HeartbeatRecorded,
    Orchestration,
    OrchestrationContext,
    RetryPolicy,
)
from tests.engine import process_activities
from tests.semantics.kit import LIMIT, Place, failure_of, history, kinds, until, until_recorded, until_status

AT_ONCE = RetryPolicy(max_attempts=10, first_interval=timedelta(milliseconds=1))


class Broken(Exception):
    pass


@dataclass
class Mark:
    line: int


def beats(events: list[Any]) -> list[Any]:
    return [event.detail for event in events if isinstance(event, HeartbeatRecorded)]


def app_with(*activities: Any) -> App:
    """One orchestrator, which calls the first activity, patiently."""
    app = App()
    app.include(process_activities.app)
    for activity in activities:
        app.activity(activity)

    @app.orchestrator
    def main(ctx: OrchestrationContext, call: list[Any]) -> Orchestration[Any]:
        name, input, seconds = call
        timeout = None if seconds is None else timedelta(seconds=seconds)
        return (yield from ctx.call_activity(name, input, retry=AT_ONCE, timeout=timeout))

    return app


async def in_loop(ctx: ActivityContext) -> Any:
    if ctx.last_heartbeat is None:
        for number in range(1000):
            ctx.heartbeat({"done": number})
        raise Broken
    return [ctx.attempt, ctx.last_heartbeat]


def in_thread(ctx: ActivityContext) -> Any:
    if ctx.last_heartbeat is None:
        for number in range(1000):
            ctx.heartbeat({"done": number})
        raise Broken
    return [ctx.attempt, ctx.last_heartbeat]


@pytest.mark.parametrize("activity", ["in_loop", "in_thread", "counts_up"])
async def test_after_a_failure_the_next_attempt_has_the_very_last_detail_and_a_tight_loop_writes_little(
    place: Place, activity: str
) -> None:
    app = app_with(in_loop, in_thread)
    input = "x" if activity == "counts_up" else None
    async with place.hub(app) as hub:
        instance = await hub.client.start("main", [activity, input, None])
        assert (await instance.result(LIMIT))[:2] == [2, {"done": 999}]
        events = await history(instance)
        told = beats(events)
        assert told[-1] == {"done": 999}
        assert len(told) < 10
        names = [type(event).__name__ for event in events]
        assert len(names) - 1 - names[::-1].index("HeartbeatRecorded") < names.index("TaskAttemptFailed")


async def test_the_detail_is_kept_for_as_many_attempts_as_tell_nothing_new(place: Place) -> None:
    attempts: list[Any] = []

    async def work(ctx: ActivityContext) -> str:
        attempts.append(ctx.last_heartbeat)
        if ctx.attempt == 1:
            ctx.heartbeat(Mark(7))
        if ctx.attempt < 3:
            ctx.heartbeat()
            raise Broken
        return "done"

    async with place.hub(app_with(work)) as hub:
        assert await (await hub.client.start("main", ["work", None, None])).result(LIMIT) == "done"
    assert attempts == [None, {"line": 7}, {"line": 7}]


DETAILS = [0, "", b"\x00", [1, (2, 3)], {"a": Decimal("1.5")}, datetime(2026, 1, 1, tzinfo=UTC), {1, 2}]


@pytest.mark.parametrize("detail", DETAILS, ids=repr)
async def test_a_detail_is_any_payload(place: Place, detail: Any) -> None:
    async def work(ctx: ActivityContext) -> bool:
        if ctx.attempt == 1:
            ctx.heartbeat(detail)
            raise Broken
        return bool(ctx.last_heartbeat == detail)

    async with place.hub(app_with(work)) as hub:
        assert await (await hub.client.start("main", ["work", None, None])).result(LIMIT) is True


async def test_what_is_no_payload_is_refused_where_it_is_told(place: Place) -> None:
    async def work(ctx: ActivityContext) -> str:
        with pytest.raises(EncodeError, match="heartbeat of activity 'work'"):
            ctx.heartbeat(object())
        return "told"

    async with place.hub(app_with(work)) as hub:
        instance = await hub.client.start("main", ["work", None, None])
        assert await instance.result(LIMIT) == "told"
        assert beats(await history(instance)) == []


async def test_after_a_time_limit_the_next_attempt_has_the_last_detail(place: Place) -> None:
    async def slow(ctx: ActivityContext) -> Any:
        if ctx.last_heartbeat is None:
            for number in range(10):
                ctx.heartbeat(number)
            await asyncio.Event().wait()
        return ctx.last_heartbeat

    def slow_thread(ctx: ActivityContext) -> Any:
        if ctx.last_heartbeat is None:
            for number in range(10):
                ctx.heartbeat(number)
            while not ctx.cancelled:
                time.sleep(0.002)
            ctx.heartbeat("too late")
        return ctx.last_heartbeat

    async with place.hub(app_with(slow, slow_thread)) as hub:
        for name in ("slow", "slow_thread"):
            instance = await hub.client.start("main", [name, None, 0.05])
            assert await instance.result(LIMIT) == 9
            assert "too late" not in beats(await history(instance))


async def test_a_process_that_is_over_its_time_is_killed_and_the_next_attempt_goes_on(
    place: Place, tmp_path: Path
) -> None:
    async with place.hub(app_with(), process_activities=1) as hub:  # so that there is no second place
        instance = await hub.client.start("main", ["counts_and_waits", str(tmp_path / "began"), 0.2])
        assert await instance.result(LIMIT) == ["so far"]


@pytest.mark.parametrize("activity", ["work", "thread", "counts_and_waits"])
async def test_what_a_worker_has_no_grace_for_goes_on_in_the_next_with_the_last_detail(
    place: Place, tmp_path: Path, activity: str
) -> None:
    began = tmp_path / "began"

    async def work(ctx: ActivityContext, path: str) -> Any:
        if ctx.last_heartbeat is None:
            for number in range(100):
                ctx.heartbeat([number])
            ctx.heartbeat(["so far"])
            began.touch()
            await asyncio.Event().wait()
        return ctx.last_heartbeat

    def thread(ctx: ActivityContext, path: str) -> Any:
        if ctx.last_heartbeat is None:
            for number in range(100):
                ctx.heartbeat([number])
            ctx.heartbeat(["so far"])
            began.touch()
            while not ctx.cancelled:
                time.sleep(0.002)
        return ctx.last_heartbeat

    app = app_with(work, thread)
    async with place.hub(app, grace=timedelta(0)) as hub:
        instance = await hub.client.start("main", [activity, str(began), None], instance_id="i")

        async def is_told() -> bool:
            # Out of a process the last word takes a moment to get here; in this one it has to be there at once.
            return began.exists() and (activity != "counts_and_waits" or "HeartbeatRecorded" in await kinds(instance))

        await until(is_told)
    async with place.hub(app) as hub:
        assert await hub.client.get("i").result(LIMIT) == ["so far"]


async def test_a_heart_that_stops_fails_the_attempt_with_a_timeout_that_is_tried_again(
    place: Place, tmp_path: Path
) -> None:
    app = app_with()

    @app.activity(heartbeat_timeout=timedelta(milliseconds=60))
    async def silent(ctx: ActivityContext) -> Any:
        if ctx.last_heartbeat is None:
            ctx.heartbeat("once")
            await asyncio.Event().wait()
        return ctx.last_heartbeat

    stopped = threading.Event()

    @app.activity(heartbeat_timeout=timedelta(milliseconds=60))
    def silent_thread(ctx: ActivityContext) -> Any:
        if ctx.last_heartbeat is None:
            ctx.heartbeat("once")
            while not ctx.cancelled:
                time.sleep(0.002)
            stopped.set()
        return ctx.last_heartbeat

    @app.orchestrator
    def once(ctx: OrchestrationContext) -> Orchestration[None]:
        yield from ctx.call_activity(silent)

    async with place.hub(app) as hub:
        for name in ("silent", "silent_thread"):
            instance = await hub.client.start("main", [name, None, None])
            assert await instance.result(LIMIT) == "once"
        assert await asyncio.to_thread(stopped.wait, LIMIT)
        instance = await hub.client.start("main", ["falls_silent", str(tmp_path / "never"), None])
        assert isinstance(await instance.result(LIMIT), int)
        details = await failure_of(await hub.client.start(once))
        assert details.is_caused_by(ActivityError)
        assert details.is_caused_by(TimeoutError)
        assert "activity 'silent' gave no heartbeat for longer than its heartbeat_timeout of 0.06 s" in str(details)


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_heart_that_beats_lives_longer_than_its_limit(place: Place, is_async: bool) -> None:
    app = app_with()
    limit = 1.0

    if is_async:

        @app.activity(name="work", heartbeat_timeout=timedelta(seconds=limit))
        async def in_loop(ctx: ActivityContext) -> str:
            began = time.monotonic()
            while time.monotonic() < began + 1.2 * limit:
                ctx.heartbeat()
                await asyncio.sleep(0.01)
            return "lived"
    else:

        @app.activity(name="work", heartbeat_timeout=timedelta(seconds=limit))
        def in_thread(ctx: ActivityContext) -> str:
            began = time.monotonic()
            while time.monotonic() < began + 1.2 * limit:
                ctx.heartbeat()
                time.sleep(0.01)
            return "lived"

    async with place.hub(app) as hub:
        instance = await hub.client.start("main", ["work", None, None])
        assert await instance.result(LIMIT) == "lived"
        names = await kinds(instance)
        assert "HeartbeatRecorded" not in names  # there was nothing to remember
        assert "TaskAttemptFailed" not in names


async def test_heartbeats_may_come_from_any_thread(place: Place) -> None:
    async def work(ctx: ActivityContext) -> Any:
        if ctx.last_heartbeat is None:
            await asyncio.gather(*(asyncio.to_thread(ctx.heartbeat, "told") for _ in range(20)))
            raise Broken
        return ctx.last_heartbeat

    async with place.hub(app_with(work)) as hub:
        assert await (await hub.client.start("main", ["work", None, None])).result(LIMIT) == "told"


async def test_a_suspended_instance_takes_heartbeats_in_and_its_next_attempt_has_them(place: Place) -> None:
    may_fail = asyncio.Event()

    async def work(ctx: ActivityContext) -> Any:
        if ctx.last_heartbeat is None:
            await started_suspended.wait()
            ctx.heartbeat("first")
            await may_fail.wait()
            ctx.heartbeat("second")
            raise Broken
        return ctx.last_heartbeat

    started_suspended = asyncio.Event()
    async with place.hub(app_with(work)) as hub:
        instance = await hub.client.start("main", ["work", None, None])
        await instance.suspend()
        await until_status(instance, "SUSPENDED")
        started_suspended.set()
        await until_recorded(instance, "HeartbeatRecorded")
        may_fail.set()
        await until_recorded(instance, "HeartbeatRecorded", 2)
        await instance.resume()
        assert await instance.result(LIMIT) == "second"


async def test_what_is_told_while_an_instance_is_parked_is_there_when_it_goes_on(place: Place) -> None:
    app, may_fail, failed = App(), asyncio.Event(), asyncio.Event()

    @app.activity(retry=AT_ONCE)
    async def work(ctx: ActivityContext) -> Any:
        if ctx.last_heartbeat is None:
            ctx.heartbeat("before")
            await may_fail.wait()
            ctx.heartbeat("while parked")
            failed.set()
            raise Broken
        return ctx.last_heartbeat

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Orchestration[Any]:
        task = ctx.call_activity(work)
        yield ctx.wait_for_external_event("go")
        yield ctx.call_activity("missing")
        return (yield from task)

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await until_recorded(instance, "HeartbeatRecorded")
        await instance.raise_event("go")

        async def is_parked() -> bool:
            return (await instance.status()).problem is not None

        await until(is_parked)
        may_fail.set()
        await failed.wait()

    @app.activity
    async def missing() -> None: ...

    async with place.hub(app) as hub:
        instance = hub.client.get("i")
        assert await instance.result(LIMIT) == "while parked"
        assert beats(await history(instance)) == ["before", "while parked"]


async def test_calls_of_a_map_have_heartbeats_of_their_own(place: Place) -> None:
    app = App()
    seen: dict[int, Any] = {}
    keys: dict[int, set[str]] = {}

    @app.activity(retry=AT_ONCE)
    async def work(ctx: ActivityContext, item: int) -> int:
        keys.setdefault(item, set()).add(ctx.idempotency_key)
        if ctx.attempt == 1 and item % 2:
            ctx.heartbeat([item, "told"])
            raise Broken
        seen[item] = ctx.last_heartbeat
        return item

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Orchestration[list[int | None]]:
        return (yield from ctx.map(work, range(20), concurrency=4)).results

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        assert await instance.result(LIMIT) == [*range(20)]
        assert {event.call for event in await history(instance) if isinstance(event, HeartbeatRecorded)} == {
            *range(1, 20, 2)
        }
    assert seen == {item: [item, "told"] if item % 2 else None for item in range(20)}
    assert all(len(own) == 1 for own in keys.values())
    assert len(set.union(*keys.values())) == 20


async def test_calls_of_a_map_go_on_in_another_worker_where_they_were(place: Place) -> None:
    app = App()
    told = count(1)
    two_told, seen = asyncio.Event(), dict[int, Any]()

    @app.activity
    async def work(ctx: ActivityContext, item: int) -> int:
        if ctx.last_heartbeat is None and item < 2:
            ctx.heartbeat(item * 10 + 1)
            if next(told) == 2:
                two_told.set()
            await asyncio.Event().wait()
        seen[item] = ctx.last_heartbeat
        return item

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Orchestration[list[int | None]]:
        return (yield from ctx.map(work, range(4), concurrency=2)).results

    async with place.hub(app, grace=timedelta(0)) as hub:
        await hub.client.start(main, instance_id="i")
        await two_told.wait()
    async with place.hub(app) as hub:
        assert await hub.client.get("i").result(LIMIT) == [0, 1, 2, 3]
    assert seen == {0: 1, 1: 11, 2: None, 3: None}


async def test_each_page_of_a_map_has_heartbeats_of_its_own(place: Place) -> None:
    app, seen = App(), list[tuple[int, int, Any]]()

    @app.activity(retry=AT_ONCE)
    async def page(ctx: ActivityContext, cursor: int | None) -> tuple[list[int], int | None]:
        number = cursor or 0
        seen.append((number, ctx.attempt, ctx.last_heartbeat))
        ctx.heartbeat(f"page {number}, attempt {ctx.attempt}")
        if ctx.attempt == 1:
            raise Broken
        await asyncio.sleep(0.01)
        return [number], number + 1 if number < 2 else None

    @app.activity
    async def work(item: int) -> int:
        return item

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Orchestration[list[int | None]]:
        return (yield from ctx.map(work, page, concurrency=1)).results

    async with place.hub(app) as hub:
        assert await (await hub.client.start(main)).result(LIMIT) == [0, 1, 2]
    assert seen == [
        (number, attempt, f"page {number}, attempt 1" if attempt == 2 else None)
        for number in range(3)
        for attempt in (1, 2)
    ]


async def test_heartbeats_survive_a_generator_that_does_not_stay_warm(place: Place) -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def work(ctx: ActivityContext, number: int) -> Any:
        if ctx.last_heartbeat is None:
            ctx.heartbeat(f"told by {number}")
            await gates[number].wait()
            raise Broken
        return ctx.last_heartbeat

    async with place.hub(app_with(work), warm_instances=1) as hub:
        instances = [await hub.client.start("main", ["work", number, None]) for number in range(3)]
        for instance in instances:
            await until_recorded(instance, "HeartbeatRecorded")
        for gate in gates:
            gate.set()
        assert [await instance.result(LIMIT) for instance in instances] == [f"told by {n}" for n in range(3)]


async def test_the_heartbeats_of_an_activity_that_nobody_waits_for_are_dropped(place: Place) -> None:
    app, may_beat, has_ended = App(), asyncio.Event(), asyncio.Event()

    @app.activity
    async def orphan(ctx: ActivityContext) -> None:
        await may_beat.wait()
        ctx.heartbeat("nobody listens")
        has_ended.set()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> str:
        ctx.call_activity(orphan)
        return "ended"

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        assert await instance.result(LIMIT) == "ended"
        may_beat.set()
        await has_ended.wait()
    async with place.hub(app) as hub:
        assert beats(await history(hub.client.get(instance.id))) == []
