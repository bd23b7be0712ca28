"""Activities: where they run, how many at a time, for how long, and what comes of those that behave badly (I4: one event of each run)."""

from __future__ import annotations

import asyncio
import threading
import time
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    ActivityContext,
    ActivityError,
    App,
    Codec,
    Limits,
    NonRetryableError,
    Orchestration,
    OrchestrationContext,
    OrchestrationFailed,
    OrchestrationTerminated,
    RetryPolicy,
    TaskHub,
    race,
    when_all,
)
from replayflow.core import events
from replayflow.errors import InvalidArgumentError
from tests.engine import process_activities
from tests.engine.kit import PATIENCE_SECONDS, Counted, ToldStore, audit, history_of, hub_on, turns, until

EXECUTORS = ["async", "thread", "process"]


@pytest.fixture
def app() -> App:
    app = App()
    app.include(process_activities.app)

    @app.orchestrator
    def calls(ctx: OrchestrationContext, call: list[Any]) -> Orchestration[Any]:
        name, argument = call
        return (yield from ctx.call_activity(name, argument))

    @app.orchestrator
    def fans(ctx: OrchestrationContext, call: list[Any]) -> Orchestration[list[Any]]:
        name, width = call
        return (yield from when_all([ctx.call_activity(name, i) for i in range(width)]))

    return app


async def outcome_of(hub: TaskHub, name: str, argument: object = None) -> Any:
    return await (await hub.client.start("calls", [name, argument])).result(20)


class Peak:
    """How many are inside at one time, at the most."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.inside -= 1


async def test_no_more_async_activities_run_at_one_time_than_the_limit_says(app: App) -> None:
    peak = Peak()

    @app.activity
    async def counted(x: int) -> int:
        with peak:
            await asyncio.sleep(0.001)
        return x

    async with hub_on("memory://", app, Limits(async_activities=7)) as hub:
        assert await (await hub.client.start("fans", ["counted", 60])).result(10) == list(range(60))
    assert peak.most == 7


async def test_no_more_threads_are_at_work_than_the_limit_says(app: App) -> None:
    peak = Peak()

    @app.activity
    def counted(x: int) -> int:
        with peak:
            time.sleep(0.002)
        return x

    async with hub_on("memory://", app, Limits(thread_activities=3)) as hub:
        assert await (await hub.client.start("fans", ["counted", 30])).result(10) == list(range(30))
    assert peak.most == 3


async def test_no_more_processes_are_at_work_than_the_limit_says(app: App) -> None:
    async with hub_on("memory://", app, Limits(process_activities=2)) as hub:
        pids = await (await hub.client.start("fans", ["whereabouts", 6])).result(20)
    assert len(set(pids)) == 2


@pytest.mark.parametrize("field", ["async_activities", "thread_activities", "process_activities", "warm_instances"])
def test_a_limit_that_lets_nothing_run_is_refused(field: str) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        Limits(**{field: 0})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


# ---- time limits


async def test_an_async_activity_is_cancelled_at_its_time_limit(app: App) -> None:
    ended: list[str] = []

    @app.activity(timeout=timedelta(milliseconds=30))
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    async with hub_on("memory://", app) as hub:
        with pytest.raises(
            OrchestrationFailed, match=r"TimeoutError: activity 'slow' took longer than its timeout of 0.03 s"
        ):
            await outcome_of(hub, "slow")
    assert ended == ["cancelled"]


async def test_a_thread_that_overstays_its_time_limit_fails_and_is_told(app: App) -> None:
    saw, may_end = threading.Event(), threading.Event()

    @app.activity(timeout=timedelta(milliseconds=30))
    def slow(ctx: ActivityContext) -> str:
        while not ctx.cancelled:
            time.sleep(0.002)
        saw.set()
        may_end.wait(5)
        return "late"

    async with hub_on("memory://", app, Limits(thread_activities=1)) as hub:
        with pytest.raises(OrchestrationFailed, match=r"TimeoutError: activity 'slow' took longer"):
            await outcome_of(hub, "slow")
        assert saw.wait(5)
        may_end.set()
        await audit(hub.client)


async def test_a_process_that_overstays_its_time_limit_fails(app: App, tmp_path: Path) -> None:
    file = tmp_path / "go"

    @app.orchestrator
    def limited(ctx: OrchestrationContext) -> Orchestration[Any]:
        return (yield from ctx.call_activity("waits_for_file", str(file), timeout=timedelta(milliseconds=30)))

    async with hub_on("memory://", app) as hub:
        with pytest.raises(OrchestrationFailed, match=r"TimeoutError: activity 'waits_for_file' took longer"):
            await (await hub.client.start(limited)).result(20)


async def test_the_time_limit_is_of_the_attempt_not_of_the_waiting_for_a_place(app: App) -> None:
    @app.activity(timeout=timedelta(seconds=2))
    async def short(x: int) -> int:
        await asyncio.sleep(0.01)
        return x

    async with hub_on("memory://", app, Limits(async_activities=1)) as hub:
        assert await (await hub.client.start("fans", ["short", 20])).result(10) == list(range(20))


# ---- a real task, shared by nobody


async def test_an_async_activity_has_all_that_a_task_has(app: App) -> None:
    @app.activity
    async def inner_limit() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            return "timed out"
        return "never"

    @app.activity
    async def group() -> int:
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(asyncio.sleep(0, i)) for i in range(3)]
        return sum(task.result() for task in made)

    @app.activity
    async def failing_group() -> str:
        async def fails() -> None:
            raise ValueError("in the group")

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fails())
                await asyncio.sleep(60)
        except* ValueError:
            pass
        await asyncio.sleep(0)
        return "caught"

    @app.activity
    async def current() -> bool:
        task = asyncio.current_task()
        await asyncio.sleep(0)
        return task is not None and task is asyncio.current_task()

    @app.activity
    async def never_waits() -> bool:
        return asyncio.current_task() is not None

    @app.activity
    async def gathers() -> list[int]:
        return list(await asyncio.gather(*(asyncio.sleep(0, i) for i in range(3))))

    async with hub_on("memory://", app) as hub:
        for _ in range(3):  # on runners that have served before, too
            assert await outcome_of(hub, "inner_limit") == "timed out"
            assert await outcome_of(hub, "group") == 3
            assert await outcome_of(hub, "failing_group") == "caught"
            assert await outcome_of(hub, "current") is True
            assert await outcome_of(hub, "never_waits") is True
            assert await outcome_of(hub, "gathers") == [0, 1, 2]


variable: ContextVar[str] = ContextVar("variable", default="unset")


async def test_what_a_client_or_an_activity_sets_in_a_context_variable_reaches_no_other_activity(app: App) -> None:
    @app.activity
    async def sets(x: int) -> str:
        before = variable.get()
        variable.set(f"async {x}")
        if x % 2:
            await asyncio.sleep(0)
        assert variable.get() == f"async {x}"
        return before

    @app.activity
    def sets_in_thread(x: int) -> str:
        before = variable.get()
        variable.set(f"thread {x}")
        return before

    async with hub_on("memory://", app, Limits(thread_activities=2)) as hub:
        variable.set("the client's")
        assert set(await (await hub.client.start("fans", ["sets", 50])).result(10)) == {"unset"}
        assert set(await (await hub.client.start("fans", ["sets_in_thread", 50])).result(10)) == {"unset"}


async def test_an_activity_that_never_waits_does_not_keep_others_from_running(app: App) -> None:
    order: list[str] = []

    @app.activity
    async def quick(x: int) -> None:
        order.append("quick")

    async with hub_on("memory://", app) as hub:
        asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_later(0, order.append, "loop"))
        await (await hub.client.start("fans", ["quick", 5_000])).result(20)
    assert "loop" in order[:4_999]


# ---- bad behaviour


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        BaseException("bare"),
        asyncio.CancelledError("by itself"),
        GeneratorExit("odd"),
        ValueError("plain"),
    ],
)
@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_whatever_an_activity_raises_it_fails_and_the_next_one_runs(
    app: App, kind: str, error: BaseException, waits: bool
) -> None:
    @app.activity(name="bad")
    async def bad() -> None:
        if waits:
            await asyncio.sleep(0)
        raise error

    @app.activity(name="bad in thread")
    def bad_in_thread() -> None:
        raise error

    @app.activity
    async def good(x: int) -> int:
        await asyncio.sleep(0)
        return x

    async with hub_on("memory://", app, Limits(async_activities=2, thread_activities=1)) as hub:
        for i in range(5):
            with pytest.raises(OrchestrationFailed) as failed:
                await outcome_of(hub, "bad" if kind == "async" else "bad in thread")
            assert failed.value.details.is_caused_by(type(error))
            assert await outcome_of(hub, "good", i) == i
            assert await outcome_of(hub, "square", i) == i * i if i == 4 else True


@pytest.mark.parametrize("waits", [False, True])
async def test_an_activity_that_cancels_its_own_task_hurts_no_other(app: App, waits: bool) -> None:
    @app.activity
    async def mixed(x: int) -> int:
        if x % 5 == 0:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        if waits or x % 5:
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                assert x % 5 == 0, "the cancellation was another's"
        return x

    async with hub_on("memory://", app) as hub:
        for _ in range(3):
            assert await (await hub.client.start("fans", ["mixed", 40])).result(5) == list(range(40))


async def test_a_cancellation_that_an_activity_swallows_does_not_hurt_the_next(app: App) -> None:
    began, swallowed, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @app.activity
    async def stubborn() -> str:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            swallowed.set()
        await may_end.wait()
        return "late"

    @app.activity
    async def good(x: int) -> int:
        await asyncio.sleep(0.001)
        return x

    async with hub_on("memory://", app) as hub:
        one = await hub.client.start("calls", ["stubborn", None])
        await began.wait()
        await one.terminate()
        await swallowed.wait()
        assert await (await hub.client.start("fans", ["good", 20])).result(5) == list(range(20))
        may_end.set()
        assert await (await hub.client.start("fans", ["good", 20])).result(5) == list(range(20))
        with pytest.raises(OrchestrationTerminated):
            await one.result(5)
        await audit(hub.client)


@pytest.mark.parametrize("kind", EXECUTORS)
async def test_a_result_that_cannot_be_encoded_fails_the_activity_with_its_path(app: App, kind: str) -> None:
    @app.activity(name="async")
    async def in_loop(x: int) -> object:
        return {"deep": [object()]}

    @app.activity(name="thread")
    def in_thread(x: int) -> object:
        return {"deep": [object()]}

    name = "unencodable" if kind == "process" else kind
    async with hub_on("memory://", app) as hub:
        with pytest.raises(OrchestrationFailed, match=f"EncodeError: result of activity '{name}'"):
            await outcome_of(hub, name, 1)


async def test_a_payload_over_the_limit_fails_the_activity_and_is_not_tried_again(app: App) -> None:
    ran: Counted[str] = Counted()

    @app.activity(retry=RetryPolicy(max_attempts=5, first_interval=timedelta(0)))
    async def large() -> bytes:
        ran("large")
        return b"x" * 3_000

    async with hub_on("memory://", app, codec=Codec(payload_bytes_max=2_000)) as hub:
        with pytest.raises(OrchestrationFailed, match="PayloadTooLargeError"):
            await outcome_of(hub, "large")
    assert ran.calls.total() == 1


# ---- processes


async def test_errors_cross_from_a_process(app: App) -> None:
    async with hub_on("memory://", app) as hub:
        with pytest.raises(OrchestrationFailed, match="KeyError: 'missing'") as failed:
            await outcome_of(hub, "raises", 1)
        assert failed.value.details.is_caused_by(KeyError, LookupError)
        with pytest.raises(OrchestrationFailed, match="SystemExit: 3"):
            await outcome_of(hub, "exits", 1)
        assert await outcome_of(hub, "square", 5) == 25


async def test_a_process_that_dies_fails_its_activity_alone(app: App, tmp_path: Path) -> None:
    file = tmp_path / "go"
    async with hub_on("memory://", app, Limits(process_activities=2)) as hub:
        beside = await hub.client.start("calls", ["waits_for_file", str(file)])
        with pytest.raises(OrchestrationFailed, match="ProcessDied: the process of activity 'dies' died"):
            await outcome_of(hub, "dies", str(tmp_path / "died"))
        file.touch()
        assert await beside.result(10) == "seen"
        assert await outcome_of(hub, "square", 6) == 36


async def test_an_activity_whose_process_died_is_tried_again_where_its_policy_says_so(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def insists(ctx: OrchestrationContext) -> Orchestration[Any]:
        policy = RetryPolicy(max_attempts=2, first_interval=timedelta(0))
        return (yield from ctx.call_activity("dies", str(tmp_path / "died"), retry=policy))

    async with hub_on("memory://", app) as hub:
        assert await (await hub.client.start(insists)).result(10) == 1


# ---- cancelling


async def test_terminate_cancels_what_runs_and_what_waits_for_a_place(app: App) -> None:
    began: Counted[int] = Counted()
    cancelled: Counted[int] = Counted()
    thread_saw = threading.Event()

    @app.activity
    async def slow(x: int) -> None:
        began(x)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled(x)
            raise

    @app.activity
    def slow_thread(ctx: ActivityContext, x: int) -> None:
        while not ctx.cancelled:
            time.sleep(0.002)
        thread_saw.set()

    @app.orchestrator
    def both(ctx: OrchestrationContext) -> Orchestration[Any]:
        return (
            yield from when_all([ctx.call_activity(slow_thread, 1), *(ctx.call_activity(slow, i) for i in range(5))])
        )

    async with hub_on("memory://", app, Limits(async_activities=2)) as hub:
        one = await hub.client.start(both)
        await until(lambda: len(began.calls) == 2)
        await one.terminate("enough")
        with pytest.raises(OrchestrationTerminated, match="enough"):
            await one.result(5)
        await until(lambda: len(cancelled.calls) == 2)
        assert await asyncio.to_thread(thread_saw.wait, 5)
        await turns()
        assert began.calls == {0: 1, 1: 1}, "those that waited for a place never begin"
        state = await one.status()
        record = await hub._store.get(one.id)
        assert state.status == "TERMINATED"
        assert record is not None
        assert record.wake_at is None
        await audit(hub.client)


async def test_the_losers_of_a_race_are_cancelled_and_the_places_are_free(app: App) -> None:
    cancelled: Counted[int] = Counted()

    @app.activity
    async def lap(seconds: float) -> float:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            cancelled(1)
            raise
        return seconds

    @app.orchestrator
    def races(ctx: OrchestrationContext) -> Orchestration[float]:
        return (yield from race([ctx.call_activity(lap, s) for s in (0.001, 60.0, 60.0)]))

    async with hub_on("memory://", app, Limits(async_activities=3)) as hub:
        for _ in range(3):
            assert await (await hub.client.start(races)).result(5) == 0.001
        await until(lambda: cancelled.calls[1] == 6)
        await audit(hub.client)


# ---- orphans: scheduled, never waited for


def orphan_app(ran: Counted[str], may_end: asyncio.Event) -> App:
    app = App()

    @app.activity
    async def orphan(ctx: ActivityContext, name: str) -> str:
        ran(f"{name} {ctx.idempotency_key}")
        await may_end.wait()
        return name

    @app.activity
    async def tried(x: int) -> int:
        ran("tried")
        if ran.calls["tried"] == 1:
            raise ValueError("once")
        return x

    @app.orchestrator
    def ends(ctx: OrchestrationContext, how: str) -> Orchestration[str]:
        ctx.call_activity(orphan, "first")
        if how == "fails":
            raise ValueError("as it should")
        if how == "continues":
            ctx.continue_as_new("later")
        if how == "continues and retries":
            ctx.continue_as_new("retries")
        if how == "retries":
            yield from ctx.call_activity(
                tried, 1, retry=RetryPolicy(max_attempts=2, first_interval=timedelta(milliseconds=20))
            )
        if how in ("later", "cancelled"):
            yield from ctx.wait_for_external_event("go")
        return "done"

    return app


async def row_sleeps(store: Any, instance_id: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (record := await store.get(instance_id)).wake_at is not None or record.orphans is not None:
        assert time.monotonic() < deadline, f"{instance_id} still has wake_at {record.wake_at}"
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("how", ["completes", "fails", "continues"])
async def test_an_activity_of_the_last_episode_runs_and_then_the_row_sleeps(how: str, killed: bool) -> None:
    ran: Counted[str] = Counted()
    may_end, store = asyncio.Event(), ToldStore()
    app = orphan_app(ran, may_end)
    async with hub_on(store, app) as hub:
        one = await hub.client.start("ends", how, instance_id="one")
        if how == "continues":
            await until(lambda: len(ran.calls) == 2)  # of both executions, with one task id
        else:
            await one.wait(5)
            await until(lambda: ran.calls)
        record = await store.get("one")
        assert record is not None
        assert record.wake_at == 0
        assert record.orphans is not None
        if not killed:
            may_end.set()
            if how == "continues":
                await one.raise_event("go")
                await one.result(5)
            await row_sleeps(store, "one")
    if killed:  # no grace: nothing of it was recorded
        may_end.set()
        async with hub_on(store, app) as hub:
            await until(lambda: min(ran.calls.values()) == 2, "the same calls once more")
            if how == "continues":
                await hub.client.get("one").raise_event("go")
                await hub.client.get("one").result(5)
            await row_sleeps(store, "one")
    assert set(ran.calls.values()) == {2 if killed else 1}
    assert len(ran.calls) == (2 if how == "continues" else 1)
    before = ran.calls.total()
    async with hub_on(store, app):
        await turns(100)
    assert ran.calls.total() == before


async def test_an_orphan_with_the_id_of_a_present_task_does_not_stand_in_its_way() -> None:
    """After a restart the old execution's task 1 runs beside the new execution's, whose retry must not wait for it."""
    ran: Counted[str] = Counted()
    may_end, store = asyncio.Event(), ToldStore()
    app = App()

    @app.activity
    async def orphan() -> None:
        ran("orphan")
        await may_end.wait()

    @app.activity
    async def tried() -> str:
        ran("tried")
        if ran.calls["tried"] < 3:
            raise ValueError("not yet")
        return "third time"

    @app.orchestrator
    def loops(ctx: OrchestrationContext, lap: int) -> Orchestration[str]:
        if lap == 0:
            ctx.call_activity(orphan)
            ctx.continue_as_new(1)
            return ""
        policy = RetryPolicy(max_attempts=3, first_interval=timedelta(milliseconds=30))
        return (yield from ctx.call_activity(tried, retry=policy))

    async with hub_on(store, app) as hub:
        one = await hub.client.start(loops, 0, instance_id="one")
        await until(lambda: ran.calls["tried"] and ran.calls["orphan"])
    async with hub_on(store, app) as hub:
        one = hub.client.get("one")
        assert await one.result(5) == "third time"
        may_end.set()
        await row_sleeps(store, "one")


async def test_an_orphan_that_has_run_does_not_run_again_when_its_pay_off_fails() -> None:
    ran: Counted[str] = Counted()
    may_end, store = asyncio.Event(), ToldStore()
    app = orphan_app(ran, may_end)
    async with hub_on(store, app) as hub:
        one = await hub.client.start("ends", "continues", instance_id="one")
        await until(lambda: len(ran.calls) == 2)
        refusals: list[int] = []

        def refuse_pay_off(commit: Any) -> bool:
            if commit.chunk is None and len(refusals) < 3:
                refusals.append(1)
                return True
            return False

        store.refuses = refuse_pay_off
        may_end.set()
        await turns(100)
        await one.raise_event("go")
        await one.result(5)
        await row_sleeps(store, "one")
    assert set(ran.calls.values()) == {1}


async def test_of_a_terminated_orchestration_nothing_is_owed() -> None:
    ran: Counted[str] = Counted()
    may_end, store = asyncio.Event(), ToldStore()
    async with hub_on(store, orphan_app(ran, may_end)) as hub:
        one = await hub.client.start("ends", "later", instance_id="one")
        await until(lambda: ran.calls)
        await one.terminate()
        await one.wait(5)
        await row_sleeps(store, "one")


async def test_non_retryable_errors_are_not_tried_again_and_others_are(app: App) -> None:
    ran: Counted[str] = Counted()

    @app.activity(retry=RetryPolicy(max_attempts=3, first_interval=timedelta(0)))
    async def bad(how: str) -> None:
        ran(how)
        raise NonRetryableError("no") if how == "final" else ValueError("again")

    async with hub_on("memory://", app) as hub:
        for how, times in (("final", 1), ("passing", 3)):
            instance = await hub.client.start("calls", ["bad", how])
            with pytest.raises(OrchestrationFailed):
                await instance.result(5)
            assert ran.calls[how] == times
            attempts = [e for e in await history_of(hub.client, instance.id) if isinstance(e, events.TaskAttemptFailed)]
            assert len(attempts) == times - 1


async def test_an_activity_error_carries_what_was_raised(app: App) -> None:
    class Custom(ValueError):
        pass

    @app.activity
    async def bad() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise Custom("outer") from error

    @app.orchestrator
    def catches(ctx: OrchestrationContext) -> Orchestration[list[bool]]:
        try:
            yield from ctx.call_activity(bad)
        except ActivityError as error:
            return [error.is_caused_by(Custom), error.is_caused_by(KeyError), error.is_caused_by(OSError)]
        return []

    async with hub_on("memory://", app) as hub:
        assert await (await hub.client.start(catches)).result(5) == [True, True, False]
