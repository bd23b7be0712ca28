"""Decisions and replay by example: numbering, waiting, divergence, what a closing generator may do."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from replayflow import App, OrchestrationContext, race, when_all, when_any
from replayflow.core.events import ExecutionCancelRequested, ExecutionTerminated, OrchestratorStarted
from replayflow.core.instance import Status
from replayflow.core.sites import site_of
from replayflow.errors import (
    EncodeError,
    InvalidArgumentError,
    NonDeterminismError,
    NotATaskError,
    OrchestrationCancelled,
    OrchestratorError,
    UnknownNameError,
)
from tests.core.driver import (
    BEGIN,
    SECOND,
    Stage,
    app_with,
    child_done,
    done,
    failed,
    fired,
    open_ids,
    plain,
    raised,
    successor,
    waits,
)

Code = Callable[[OrchestrationContext], Any]


def a(x: int) -> Any:
    return x


def b(x: int) -> Any:
    return x


def staged(code: Code, **options: Any) -> Stage:
    return Stage(app_with(code, a, b), **options)


# ---- numbering and waiting -----------------------------------------------------------------------------------


def test_actions_are_numbered_from_one_in_program_order() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        ctx.call_activity(a, 1)
        ctx.create_timer(timedelta(1))
        ctx.wait_for_external_event("no action")
        ctx.send_event("other", "hello")
        ctx.call_sub_orchestrator("child")
        ctx.wait_for_external_event("timed", timeout=timedelta(1))
        ctx.set_custom_status("no id")
        yield ctx.call_activity(b, 2)

    stage = staged(code)
    stage.run()
    numbered = [(e.event_id, type(e).__name__) for e in stage.history()[0] if e.is_decision and e.event_id > 0]
    assert numbered == [
        (1, "TaskScheduled"),
        (2, "TimerCreated"),
        (3, "EventSent"),
        (4, "SubOrchestrationInstanceCreated"),
        (5, "TimerCreated"),
        (6, "TaskScheduled"),
    ]


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda ctx: ctx.call_activity(a, object()), id="activity input"),
        pytest.param(lambda ctx: ctx.call_activity(a, 1, timeout=timedelta(0)), id="activity timeout"),
        pytest.param(lambda ctx: ctx.call_activity(len, 1), id="unregistered activity"),
        pytest.param(lambda ctx: ctx.call_sub_orchestrator("c", object()), id="child input"),
        pytest.param(lambda ctx: ctx.call_sub_orchestrator("c", instance_id="a/b"), id="child id"),
        pytest.param(lambda ctx: ctx.call_sub_orchestrator(len), id="unregistered orchestrator"),
        pytest.param(lambda ctx: ctx.create_timer(datetime(2024, 1, 1)), id="naive datetime"),  # noqa: DTZ001
        pytest.param(lambda ctx: ctx.create_timer(5), id="a number as time"),
        pytest.param(lambda ctx: ctx.create_timer(timedelta.max), id="a time after the year 9999"),
        pytest.param(lambda ctx: ctx.wait_for_external_event(""), id="empty event name"),
        pytest.param(lambda ctx: ctx.wait_for_external_event("e", timeout=datetime(2024, 1, 1)), id="naive limit"),  # noqa: DTZ001
        pytest.param(lambda ctx: ctx.send_event("i", "e" * 257), id="long event name"),
        pytest.param(lambda ctx: ctx.send_event("@i", "e"), id="receiver"),
        pytest.param(lambda ctx: ctx.send_event("i", "e", object()), id="payload"),
        pytest.param(lambda ctx: ctx.set_custom_status(object()), id="custom status"),
        pytest.param(lambda ctx: ctx.continue_as_new(object()), id="next input"),
    ],
)
def test_what_is_refused_takes_no_id_and_decides_nothing(call: Callable[[OrchestrationContext], object]) -> None:
    def code(ctx: OrchestrationContext) -> Any:
        with pytest.raises((EncodeError, InvalidArgumentError, UnknownNameError)):
            call(ctx)
        yield ctx.call_activity(a, 1)

    stage = staged(code)
    stage.run()
    assert stage.kinds() == ["ExecutionStarted", "TaskScheduled"]
    assert open_ids(stage.replay) == [1]


@pytest.mark.parametrize(
    "when", [timedelta.min, timedelta(0), datetime.min.replace(tzinfo=UTC), datetime(1960, 1, 1, tzinfo=UTC)]
)
def test_a_time_in_the_past_can_be_asked_for(when: datetime | timedelta) -> None:
    def code(ctx: OrchestrationContext) -> Any:
        yield ctx.create_timer(when)

    stage = staged(code)
    stage.run()
    (at,) = stage.instance.timers.values()
    assert at <= BEGIN
    stage.run(fired(1, at))
    assert stage.instance.status is Status.COMPLETED


def test_the_longest_durations_can_be_stored() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(a, 1, timeout=timedelta.max)

    stage = staged(code)
    stage.run()
    assert stage.kinds() == ["ExecutionStarted", "TaskScheduled"]


def test_waiters_and_events_of_a_name_are_served_first_come_first_served() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        first, second = ctx.wait_for_external_event("Go"), ctx.wait_for_external_event("gO")
        early = yield when_all([first, second])
        yield ctx.create_timer(timedelta(1))
        second = yield ctx.wait_for_external_event("GO")
        third = yield ctx.wait_for_external_event("GO")
        return early, [second, third, (yield ctx.wait_for_external_event("GO"))]

    stage = staged(code)
    stage.run(raised("go", 1))
    stage.run(raised("GO", 2), raised("go", 3), raised("Straße", 0), raised("go", 4))
    stage.run(fired(1))
    stage.run(raised("go", 5))
    assert stage.result() == ([1, 2], [3, 4, 5])


def test_names_of_events_compare_casefolded() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        return (yield ctx.wait_for_external_event("STRASSE"))

    stage = staged(code)
    stage.run()
    stage.run(raised("straße", 1))
    assert stage.result() == 1


def test_a_cancelled_waiter_takes_nothing() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        first, second = ctx.wait_for_external_event("e"), ctx.wait_for_external_event("e")
        assert first.cancel()
        value = yield second
        return value, first.is_failed

    stage = staged(code)
    stage.run()
    stage.run(raised("e", 1))
    assert stage.result() == (1, True)


def test_a_time_limit_ends_the_wait_and_the_next_event_goes_to_the_next_waiter() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        limited = ctx.wait_for_external_event("e", timeout=timedelta(seconds=1))
        patient = ctx.wait_for_external_event("e")
        try:
            yield limited
        except TimeoutError as error:
            return str(error), (yield patient)

    stage = staged(code)
    stage.run()
    stage.run(fired(1), later=SECOND)
    stage.run(raised("e", 1))
    assert stage.result() == ("no event 'e' came within its time limit", 1)


def test_an_event_in_time_cancels_the_time_limit() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        yield ctx.wait_for_external_event("e", timeout=timedelta(seconds=1))
        yield ctx.wait_for_external_event("never")

    stage = staged(code)
    stage.run()
    stage.run(raised("e", 1))
    assert stage.kinds() == ["EventRaised", "TimerCanceled"]
    assert stage.instance.timers == {}
    assert stage.run(fired(1)).commit is None


def test_an_event_that_is_there_already_needs_no_timer() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(a, 1)
        return (yield ctx.wait_for_external_event("e", timeout=timedelta(seconds=1)))

    stage = staged(code)
    stage.run(raised("e", "early"))
    stage.run(done(1))
    assert stage.result() == "early"
    assert stage.kinds() == ["TaskCompleted", "ExecutionCompleted"]


def test_a_value_that_does_not_fit_its_annotation_fails_the_yield() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.wait_for_external_event("e", type=int)
        except TypeError as error:
            return str(error)

    stage = staged(code)
    stage.run()
    stage.run(raised("e", "no number"))
    assert "int" in stage.result()


# ---- what is yielded -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("yielded", "hint"),
    [
        (5, "yielded 5"),
        (None, "yielded None"),
        ([], "when_all"),
        ((n for n in range(1)), "yield from"),
    ],
    ids=["a number", "nothing", "a list", "a generator"],
)
def test_yielding_no_task_fails_at_once_with_what_and_where(yielded: object, hint: str) -> None:
    def code(ctx: OrchestrationContext) -> Any:
        yield yielded

    stage = staged(code)
    stage.run()
    assert stage.instance.status is Status.FAILED
    assert stage.instance.failure is not None
    assert stage.instance.failure.is_caused_by(NotATaskError)
    assert hint in stage.instance.failure.message
    assert f"core/test_core_replay.py:{code.__code__.co_firstlineno + 1}" in stage.instance.failure.message


def test_yielding_a_coroutine_fails_and_leaves_no_warning_behind() -> None:
    async def work() -> None: ...

    def code(ctx: OrchestrationContext) -> Any:
        yield work()

    stage = staged(code)
    stage.run()
    assert stage.instance.failure is not None
    assert "do not await" in stage.instance.failure.message


def test_the_line_is_that_of_the_innermost_generator() -> None:
    def inner(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(a, 1)
        yield "no task"

    def code(ctx: OrchestrationContext) -> Any:
        yield from inner(ctx)

    stage = staged(code)
    stage.run()
    stage.run(done(1))
    assert stage.instance.failure is not None
    assert f"test_core_replay.py:{inner.__code__.co_firstlineno + 2}" in stage.instance.failure.message


def test_a_task_of_another_execution_cannot_be_waited_for() -> None:
    stolen: list[Any] = []

    def donor(ctx: OrchestrationContext) -> Any:
        stolen.append(ctx.call_activity(a, 1))
        yield stolen[0]

    def code(ctx: OrchestrationContext) -> Any:
        yield stolen[0]

    staged(donor).run()
    stage = staged(code)
    stage.run()
    assert stage.instance.failure is not None
    assert "belongs to another execution" in stage.instance.failure.message


def test_one_task_may_be_yielded_twice() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        task = ctx.call_activity(a, 1)
        return (yield task), (yield task), (yield from task)

    stage = staged(code)
    stage.run()
    stage.run(done(1, "x"))
    assert stage.result() == ("x", "x", "x")


def test_a_plain_function_ends_in_its_first_episode_and_what_it_called_is_scheduled() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        ctx.call_activity(a, 1)
        return "at once"

    stage = staged(code)
    episode = stage.run()
    assert stage.result() == "at once"
    assert [task.name for task in episode.scheduled] == ["a"]


def test_a_failure_in_one_of_two_awaited_activities_keeps_its_own_cause() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity(a, 1)
        except Exception:
            yield ctx.call_activity(b, 1)  # fails while the first failure is being handled

    stage = staged(code)
    stage.run()
    stage.run(failed(1, KeyError("first")))
    stage.run(failed(2, LookupError("second")))
    assert stage.instance.failure is not None
    assert stage.instance.failure.is_caused_by(LookupError)
    assert "second" in str(stage.instance.failure)


@pytest.mark.parametrize(
    "error", [SystemExit(3), GeneratorExit(), BaseExceptionGroup("several", [SystemExit()])], ids=repr
)
@pytest.mark.parametrize("yields", [True, False])
def test_whatever_an_orchestrator_raises_fails_it_and_nothing_else(error: BaseException, yields: bool) -> None:
    def generator(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(a, 1)
        raise error

    def function(ctx: OrchestrationContext) -> Any:
        raise error

    stage = staged(generator if yields else function)
    stage.run()
    if yields:
        stage.run(done(1))
    assert stage.instance.status is Status.FAILED
    assert stage.instance.failure is not None
    assert stage.instance.failure.type == type(error).__name__


def test_an_interrupt_from_the_keyboard_is_no_failure() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        staged(code).run()


def test_an_unencodable_result_fails_with_its_path() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        return {"ok": 1, "bad": [1, object()]}

    stage = staged(code)
    stage.run()
    assert stage.instance.failure is not None
    assert stage.instance.failure.type == "EncodeError"
    assert "bad" in stage.instance.failure.message
    assert "[1]" in stage.instance.failure.message


# ---- continue as new -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda ctx: ctx.call_activity(a, 1), id="activity"),
        pytest.param(lambda ctx: ctx.create_timer(timedelta(1)), id="timer"),
        pytest.param(lambda ctx: ctx.call_sub_orchestrator("c"), id="child"),
        pytest.param(lambda ctx: ctx.send_event("i", "e"), id="event"),
        pytest.param(lambda ctx: ctx.continue_as_new(2), id="a second time"),
        pytest.param(lambda ctx: ctx.wait_for_external_event("e", timeout=timedelta(1)), id="limited wait"),
    ],
)
def test_no_action_may_follow_continue_as_new(call: Callable[[OrchestrationContext], object]) -> None:
    def code(ctx: OrchestrationContext) -> Any:
        ctx.continue_as_new(1)
        call(ctx)

    stage = staged(code)
    stage.run()
    assert stage.instance.status is Status.FAILED
    assert stage.instance.failure is not None
    assert stage.instance.failure.is_caused_by(OrchestratorError)
    assert f"test_core_replay.py:{code.__code__.co_firstlineno + 1}" in stage.instance.failure.message


def test_no_wait_may_follow_continue_as_new() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        task = ctx.call_activity(a, 1)
        ctx.continue_as_new(1)
        yield task

    stage = staged(code)
    stage.run()
    assert stage.instance.failure is not None
    assert "yielded after continue_as_new" in stage.instance.failure.message


def test_events_that_nobody_had_go_with_continue_as_new() -> None:
    def code(ctx: OrchestrationContext, round: int) -> Any:
        value = yield ctx.wait_for_external_event("e")
        if round < 3:
            ctx.continue_as_new(round + 1)
            return None
        return value

    stage = staged(code, input=1)  # type: ignore[arg-type]
    stage.run(raised("E", "one"), raised("e", "two"), raised("e", "three"), raised("other", 0))
    second = successor(stage)
    second.run()
    third = successor(second)
    third.run()
    assert third.result() == "three"


def test_events_go_with_continue_as_new_in_the_order_in_which_they_came_whatever_their_names() -> None:
    def code(ctx: OrchestrationContext, round: int) -> Any:
        if round == 1:
            yield ctx.wait_for_external_event("go")
            yield ctx.wait_for_external_event("left")
            ctx.continue_as_new(2)
            return None
        return (yield race([ctx.wait_for_external_event(name) for name in ("left", "right")]))

    stage = staged(code, input=1)  # type: ignore[arg-type]
    stage.run(raised("left", 1), raised("right", 2), raised("left", 3), raised("go"))
    second = successor(stage)
    second.run()
    assert second.result() == 2


def test_events_that_come_after_the_end_go_with_it_and_not_to_a_waiter_that_is_gone() -> None:
    def code(ctx: OrchestrationContext, round: int) -> Any:
        event = ctx.wait_for_external_event("e", timeout=timedelta(hours=1))
        if round == 2:
            return (yield event)
        yield when_any([event, ctx.call_activity(a, 1)])
        ctx.continue_as_new(2)
        return None

    stage = staged(code, input=1)  # type: ignore[arg-type]
    stage.run()
    stage.run(done(2), raised("e", "late"))
    assert stage.instance.status is Status.CONTINUED_AS_NEW
    second = successor(stage)
    second.run()
    assert second.result() == "late"


def test_events_can_be_left_behind() -> None:
    def code(ctx: OrchestrationContext, round: int) -> Any:
        if round == 1:
            yield ctx.call_activity(a, 1)
            ctx.continue_as_new(2, save_events=False)
            return
        yield ctx.wait_for_external_event("e")

    stage = staged(code, input=1)  # type: ignore[arg-type]
    stage.run(raised("e", 1))
    stage.run(done(1))
    second = successor(stage)
    second.run()
    assert second.instance.status is Status.RUNNING


def test_a_request_to_cancel_that_comes_with_the_end_reaches_the_next_execution() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(a, 1)
        ctx.continue_as_new(save_events=False)

    stage = staged(code)
    stage.run()
    stage.run(done(1), ExecutionCancelRequested())
    second = successor(stage)
    second.run()
    assert second.instance.status is Status.CANCELED


# ---- cancel and close ----------------------------------------------------------------------------------------


def test_a_request_to_cancel_is_raised_once_at_the_yield_so_that_code_can_clean_up() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity(a, 1)
        except Exception:
            return "swallowed"
        finally:
            yield ctx.call_activity(b, 2)

    stage = staged(code)
    stage.run()
    stage.run(ExecutionCancelRequested())
    assert stage.kinds() == ["ExecutionCancelRequested", "TaskScheduled"]
    stage.run(done(2))
    assert stage.instance.status is Status.CANCELED


def test_a_caught_cancellation_is_over() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity(a, 1)
        except OrchestrationCancelled as error:
            return str(error)

    stage = staged(code)
    stage.run()
    stage.run(ExecutionCancelRequested())
    assert stage.result() == ""


def test_a_generator_that_is_closed_decides_nothing_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def code(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity(a, 1)
        finally:
            ctx.set_custom_status("closing")
            ctx.call_activity(b, 2)
            ctx.continue_as_new()
            ctx.logger.info("cleaning up")
            yield ctx.create_timer(timedelta(1))

    stage = staged(code)
    stage.run()
    stage.replay.close()
    assert stage.replay.take() == []
    assert "cleaning up" not in caplog.text


def test_generators_inside_are_closed_with_it() -> None:
    inside: list[Any] = []

    def inner(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity(a, 1)
        finally:
            yield ctx.create_timer(timedelta(1))

    def code(ctx: OrchestrationContext) -> Any:
        inside.append(inner(ctx))
        yield from inside[0]

    stage = staged(code)
    stage.run()
    stage.replay.close()
    assert inspect.getgeneratorstate(inside[0]) == inspect.GEN_CLOSED


def test_what_a_closing_generator_raises_is_dropped() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity(a, 1)
        finally:
            raise RuntimeError

    stage = staged(code)
    stage.run()
    stage.replay.close()
    stage.replay.close()


# ---- custom status -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("always_cold", [False, True])
def test_custom_status_is_kept_over_continue_as_new_and_set_against_what_was_kept(always_cold: bool) -> None:
    def code(ctx: OrchestrationContext, values: list[str | None]) -> Any:
        for value in values:
            ctx.set_custom_status(value)
            yield ctx.wait_for_external_event("next")
        if values != ["last"]:
            ctx.continue_as_new(["last"] if values == ["new", "old", None] else ["new", "old", None])

    stage = staged(code, input=["old"], always_cold=always_cold)  # type: ignore[arg-type]
    stage.run()
    stage.run(raised("next"))
    second = successor(stage, always_cold=always_cold)
    seen = []
    second.run()
    seen.append(second.status_shown())
    for _ in range(2):
        second.run(raised("next"))
        seen.append(second.status_shown())
    assert seen == ["new", "old", None]


def test_the_kept_custom_status_can_be_cleared_in_the_first_step() -> None:
    def code(ctx: OrchestrationContext, round: int) -> Any:
        ctx.set_custom_status("old" if round == 1 else None)
        if round == 1:
            ctx.continue_as_new(2)
            return
        yield ctx.wait_for_external_event("e")

    stage = staged(code, input=1)  # type: ignore[arg-type]
    stage.run()
    second = successor(stage)
    second.run()
    assert second.status_shown() is None


def test_only_a_changed_custom_status_is_recorded_and_of_several_the_last() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        ctx.set_custom_status(1)
        ctx.set_custom_status(2)
        yield ctx.wait_for_external_event("e")
        ctx.set_custom_status(2)
        yield ctx.wait_for_external_event("e")

    stage = staged(code)
    stage.run()
    assert stage.kinds() == ["ExecutionStarted", "CustomStatusSet"]
    stage.run(raised("e"))
    assert stage.kinds() == ["EventRaised"]


# ---- determinism ---------------------------------------------------------------------------------------------


def test_time_chance_and_ids_are_the_same_on_every_replay() -> None:
    seen: list[Any] = []

    def code(ctx: OrchestrationContext) -> Any:
        for _ in range(2):
            seen.append((ctx.current_utc_datetime, ctx.new_uuid(), ctx.new_uuid(), ctx.random.random()))
            yield ctx.call_activity(a, 1)

    stage = staged(code)
    stage.run()
    stage.run(done(1), later=SECOND)
    live = list(seen)
    seen.clear()
    stage.replayed()
    assert seen == live
    assert live[0][0] == datetime.fromtimestamp(BEGIN // SECOND, UTC)
    assert live[1][0] - live[0][0] == timedelta(seconds=1)
    assert len({value for row in live for value in row[1:]}) == 6


def test_is_replaying_is_true_for_the_past_alone_and_the_logger_is_silent_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    seen: list[bool] = []

    def code(ctx: OrchestrationContext) -> Any:
        for step in range(3):
            seen.append(ctx.is_replaying)
            ctx.logger.info("step %d", step)
            yield ctx.call_activity(a, 1)

    stage = staged(code, always_cold=True)
    stage.run()
    stage.run(done(1))
    stage.run(done(2))
    assert seen == [False, True, False, True, True, False]
    assert [record.getMessage() for record in caplog.records] == ["step 0", "step 1", "step 2"]


def test_a_terminated_piece_decided_nothing() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(a, 1)
        yield ctx.call_activity(b, 2)

    stage = staged(code)
    stage.run()
    stage.run(done(1), ExecutionTerminated())
    assert stage.instance.status is Status.TERMINATED
    replay = stage.replayed()
    assert open_ids(replay) == [1]
    # What was on its way then stands behind the end, and the code did not hear of it.
    replay.replay([OrchestratorStarted(stage.instance.now), done(1)])
    assert open_ids(replay) == [1]


# ---- changed code --------------------------------------------------------------------------------------------


def line_of(code: Code, text: str) -> str:
    lines, first = inspect.getsourcelines(code)
    return f"core/test_core_replay.py:{first + next(i for i, line in enumerate(lines) if text in line)}"


def then_calls(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    ctx.call_activity(a, 1)  # first then
    ctx.call_activity(b, 1)  # second then
    yield ctx.wait_for_external_event("go")  # waits then
    ctx.create_timer(timedelta(1))  # third then
    yield ctx.wait_for_external_event("never")


def now_swapped(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    ctx.call_activity(b, 1)  # first now
    ctx.call_activity(a, 1)
    yield ctx.wait_for_external_event("go")
    ctx.create_timer(timedelta(1))
    yield ctx.wait_for_external_event("never")


def now_renamed(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    ctx.call_activity("renamed", 1)  # first now
    ctx.call_activity(b, 1)
    yield ctx.wait_for_external_event("go")
    ctx.create_timer(timedelta(1))
    yield ctx.wait_for_external_event("never")


def now_one_more(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    ctx.call_activity(a, 1)
    ctx.call_activity(b, 1)
    ctx.call_activity(b, 1)  # one more now
    yield ctx.wait_for_external_event("go")
    ctx.create_timer(timedelta(1))
    yield ctx.wait_for_external_event("never")


def now_one_less(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    ctx.call_activity(a, 1)
    yield ctx.wait_for_external_event("go")  # waits now
    ctx.create_timer(timedelta(1))
    yield ctx.wait_for_external_event("never")


def now_a_timer(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    ctx.call_activity(a, 1)
    ctx.create_timer(timedelta(1))  # second now
    yield ctx.wait_for_external_event("go")
    ctx.create_timer(timedelta(1))
    yield ctx.wait_for_external_event("never")


def now_another_kind(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    ctx.call_activity(a, 1)
    ctx.call_sub_orchestrator("b", 1)  # second now
    yield ctx.wait_for_external_event("go")
    ctx.create_timer(timedelta(1))
    yield ctx.wait_for_external_event("never")


def now_ends_early(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    ctx.call_activity(a, 1)
    ctx.call_activity(b, 1)
    yield ctx.wait_for_external_event("go")
    ctx.create_timer(timedelta(1))
    return "early"


def now_ends_before_its_calls(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    ctx.call_activity(a, 1)
    ctx.call_activity(b, 1)
    yield ctx.wait_for_external_event("go")


def now_fails(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    ctx.call_activity(a, 1)
    ctx.call_activity(b, 1)
    yield ctx.wait_for_external_event("go")
    ctx.create_timer(timedelta(1))
    raise ValueError("a new bug")


def now_waits_longer(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    ctx.call_activity(a, 1)
    ctx.call_activity(b, 1)
    yield ctx.wait_for_external_event("another")  # waits now
    ctx.create_timer(timedelta(1))


CHANGES = [
    (now_swapped, ("activity 'a' (task 1)", "# first then"), ("activity 'b' (task 1)", "# first now")),
    (now_renamed, ("activity 'a' (task 1)", "# first then"), ("activity 'renamed' (task 1)", "# first now")),
    (now_one_more, ("activity 'b' (task 2)", "# second then"), ("activity 'b' (task 3)", "# one more now")),
    (now_one_less, ("activity 'b' (task 2)", "# second then"), ("event 'go'", "# waits now")),
    (now_a_timer, ("activity 'b' (task 2)", "# second then"), ("timer (task 2)", "# second now")),
    (now_another_kind, ("activity 'b' (task 2)", "# second then"), ("sub-orchestration 'b'", "# second now")),
    (now_ends_early, ("timer (task 3)", "# third then"), ("ends here, with the end, COMPLETED", "def now_")),
    (now_ends_before_its_calls, ("timer (task 3)", "# third then"), ("ends here", "def now_")),
    (now_fails, ("timer (task 3)", "# third then"), ("ValueError: a new bug", "def now_")),
    (now_waits_longer, ("timer (task 3)", "# third then"), ("event 'another'", "# waits now")),
]


@pytest.mark.parametrize(("code", "then", "now"), CHANGES, ids=[code.__name__ for code, _, _ in CHANGES])
def test_changed_code_is_told_with_both_sides_and_both_lines(
    code: Code, then: tuple[str, str], now: tuple[str, str]
) -> None:
    stage = staged(then_calls)
    stage.run()
    stage.run(raised("go"))
    changed = staged(code)
    changed.pieces, changed.start = stage.pieces, stage.start
    with pytest.raises(NonDeterminismError) as caught:
        changed.replayed()
    message = str(caught.value)
    assert "instance 'i'" in message
    for side, (what, where), source in (("then", then, then_calls), ("now", now, code)):
        assert what in message, side
        assert line_of(source, where) in message, side


def test_code_that_ends_late_is_told_with_the_end_and_the_line_where_it_waits() -> None:
    def then(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(a, 1)

    def now(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(a, 1)
        yield ctx.wait_for_external_event("more")

    stage = staged(then)
    stage.run()
    stage.run(done(1))
    changed = staged(now)
    changed.pieces = stage.pieces
    with pytest.raises(NonDeterminismError, match="the end, COMPLETED; the code now asks for nothing more") as caught:
        changed.replayed()
    assert line_of(now, '"more"') in str(caught.value)


def test_code_that_ends_in_another_way_is_told() -> None:
    def then(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(a, 1)

    def now(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(a, 1)
        raise ValueError

    stage = staged(then)
    stage.run()
    stage.run(done(1))
    assert stage.replayed().outcome is not None
    changed = staged(now)
    changed.pieces = stage.pieces
    with pytest.raises(NonDeterminismError, match=r"COMPLETED; .*FAILED"):
        changed.replayed()


def then_plain_wait(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    event = ctx.wait_for_external_event("e")
    timer = ctx.create_timer(timedelta(1))
    yield when_any([event, timer])
    yield ctx.wait_for_external_event("never")


def now_limited_wait(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    yield ctx.wait_for_external_event("e", timeout=timedelta(1))
    yield ctx.wait_for_external_event("never")


def now_race(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    yield race([ctx.wait_for_external_event("e"), ctx.create_timer(timedelta(1))])
    yield ctx.wait_for_external_event("never")


@pytest.mark.parametrize("code", [now_limited_wait, now_race])
def test_a_difference_that_an_event_makes_before_the_code_runs_is_a_mismatch_too(code: Code) -> None:
    stage = staged(then_plain_wait)
    stage.run()
    stage.run(raised("e"))
    changed = staged(code)
    changed.pieces = stage.pieces
    with pytest.raises(NonDeterminismError, match="cancelling timer 1"):
        changed.replayed()


def test_code_that_catches_everything_is_told_all_the_same() -> None:
    def then(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(a, 1)

    def now(ctx: OrchestrationContext) -> Any:
        for _ in range(5):
            try:
                yield ctx.call_activity(b, 1)
            except BaseException:  # noqa: S112 - what users write
                continue

    stage = staged(then)
    stage.run()
    changed = staged(now)
    changed.pieces = stage.pieces
    with pytest.raises(NonDeterminismError, match=re.escape("activity 'a' (task 1)")):
        changed.replayed()


@pytest.mark.parametrize(
    ("then", "now", "word"),
    [
        (lambda ctx: ctx.call_activity(a, 1), lambda ctx: ctx.call_activity(a, 2), "input"),
        (lambda ctx: ctx.send_event("x", "e", 1), lambda ctx: ctx.send_event("x", "e", 2), "input"),
        (lambda ctx: ctx.send_event("x", "e"), lambda ctx: ctx.send_event("y", "e"), "target"),
        (lambda ctx: ctx.call_sub_orchestrator("c", 1), lambda ctx: ctx.call_sub_orchestrator("c", 2), "input"),
        (
            lambda ctx: ctx.call_sub_orchestrator("c", instance_id="x"),
            lambda ctx: ctx.call_sub_orchestrator("c", instance_id="y"),
            "target",
        ),
    ],
)
def test_a_changed_input_or_target_only_warns(
    then: Callable[[OrchestrationContext], Any],
    now: Callable[[OrchestrationContext], Any],
    word: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def code_with(call: Callable[[OrchestrationContext], Any]) -> Code:
        def code(ctx: OrchestrationContext) -> Any:
            call(ctx)
            yield ctx.wait_for_external_event("never")

        return code

    stage = staged(code_with(then))
    stage.run()
    changed = staged(code_with(now))
    changed.pieces = stage.pieces
    replay = changed.replayed()
    assert waits(replay) == ["never"]
    assert f"another {word}" in caplog.text
    assert stage.replayed()
    assert len(caplog.records) == 1


def test_another_length_of_a_timer_is_the_history_s_to_say() -> None:
    def then(ctx: OrchestrationContext) -> Any:
        yield ctx.create_timer(timedelta(1))

    def now(ctx: OrchestrationContext) -> Any:
        yield ctx.create_timer(timedelta(2))

    stage = staged(then)
    stage.run()
    changed = staged(now)
    changed.pieces = stage.pieces
    assert open_ids(changed.replayed()) == [1]


# ---- sites ---------------------------------------------------------------------------------------------------


def test_a_site_is_a_folder_a_file_and_a_line() -> None:
    frame = inspect.currentframe()
    assert frame is not None
    assert site_of(frame) == f"core/test_core_replay.py:{frame.f_lineno}"


def test_every_decision_has_the_line_that_made_it() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        ctx.call_activity(a, 1)
        ctx.create_timer(timedelta(1))
        ctx.call_sub_orchestrator("c")
        ctx.send_event("x", "e")
        yield ctx.wait_for_external_event("e", timeout=timedelta(1))

    stage = staged(code)
    stage.run()
    first = code.__code__.co_firstlineno
    sites = [getattr(event, "site", "") for event in stage.history()[0] if event.is_decision]
    assert sites == [f"core/test_core_replay.py:{first + n}" for n in range(1, 6)]


def test_what_the_first_step_decides_replays_as_it_was() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        child = ctx.call_sub_orchestrator("c")
        winner = yield when_any([child, ctx.create_timer(timedelta(1))])
        return winner is child

    stage = staged(code)
    stage.run()
    stage.run(child_done(1))
    assert stage.result() is True
    replay = stage.replayed()
    assert replay.outcome is not None
    assert plain(replay.outcome.record()) == plain(stage.history()[-1][-1])


def test_a_bound_method_can_be_called_by_itself() -> None:
    class Shop:
        def reserve(self, sku: str) -> str:
            return sku

        def order(self, ctx: OrchestrationContext) -> Any:
            return (yield ctx.call_activity(self.reserve, "x"))

    shop, app = Shop(), App()
    app.activity(shop.reserve)
    app.orchestrator(name="main")(shop.order)
    stage = Stage(app)
    stage.run()
    assert stage.kinds() == ["ExecutionStarted", "TaskScheduled"]
