"""Sagas on the stage: what is undone, in what order, what is heard when, and that all of it replays."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replayflow import (
    NonRetryableError,
    OrchestrationCancelled,
    OrchestrationContext,
    RetryPolicy,
    Saga,
    race,
    when_all,
)
from replayflow.core import events
from replayflow.core.events import (
    CompensationFailed,
    ExecutionCancelRequested,
    ExecutionTerminated,
    HistoryEvent,
    TaskScheduled,
)
from replayflow.core.instance import TASK_RETRY, Alarm, Status
from replayflow.core.saga import MENDING
from replayflow.errors import (
    ActivityError,
    CompensationError,
    DecodeError,
    EncodeError,
    InvalidArgumentError,
    OrchestratorError,
    UnknownNameError,
)
from tests.core.driver import (
    CODEC,
    SECOND,
    Stage,
    app_with,
    child_done,
    child_failed,
    done,
    encoded,
    failed,
    open_ids,
    raised,
    successor,
)

Body = Callable[[OrchestrationContext, Saga], Any]


def a(x: Any) -> Any:
    return x


def undo(x: Any) -> Any: ...


def staged(body: Body, **options: Any) -> Stage:
    """A stage whose orchestrator is one saga with the body."""

    def code(ctx: OrchestrationContext) -> Any:
        return (yield from ctx.saga(lambda saga: body(ctx, saga), **options))

    return Stage(app_with(code, a, undo), always_cold=True)


def of(code: Callable[[OrchestrationContext], Any]) -> Stage:
    return Stage(app_with(code, a, undo), always_cold=True)


def asked(stage: Stage) -> list[tuple[str, Any]]:
    """The activities that have been scheduled, with their inputs."""
    return [
        (event.name, CODEC.decode(event.input))
        for piece in stage.history()
        for event in piece
        if isinstance(event, TaskScheduled)
    ]


def undone(stage: Stage) -> list[Any]:
    return [value for name, value in asked(stage) if name == "undo"]


def steps(*values: Any, last: str | None = "fails") -> Body:
    """A body that does one thing after another, and then fails."""

    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        for value in values:
            yield from saga.run(a, undo, value)
        if last is not None:
            raise ValueError(last)
        return "done"

    return body


def complete_all(stage: Stage, *, rounds: int = 50) -> None:
    """Each activity that is open returns its id, one after the other."""
    for _ in range(rounds):
        ids = open_ids(stage.replay)
        if stage.instance.is_finished or not ids:
            return
        stage.run(done(ids[0], ids[0]))


# ---- what is undone --------------------------------------------------------------------------------------------


def test_a_saga_that_succeeds_undoes_nothing() -> None:
    with staged(steps(1, 2, last=None)) as stage:
        stage.run()
        complete_all(stage)
        assert stage.result() == "done"
        assert undone(stage) == []


def test_a_saga_that_fails_undoes_the_last_first_and_raises_the_error() -> None:
    with staged(steps(1, 2, 3)) as stage:
        stage.run()
        complete_all(stage)
        assert undone(stage) == [3, 2, 1]
        assert stage.instance.status is Status.FAILED
        assert stage.instance.failure is not None
        assert (stage.instance.failure.type, stage.instance.failure.message) == ("ValueError", "fails")


def test_each_compensation_begins_when_the_one_before_has_ended() -> None:
    with staged(steps(1, 2)) as stage:
        stage.run()
        stage.run(done(1))
        stage.run(done(2))
        assert undone(stage) == [2]
        stage.run(done(3))
        assert undone(stage) == [2, 1]
        assert not stage.instance.is_finished
        stage.run(done(4))
        assert stage.instance.status is Status.FAILED


def test_an_action_that_failed_is_undone_too() -> None:
    with staged(steps(1, 2)) as stage:
        stage.run()
        stage.run(done(1))
        stage.run(failed(2))
        complete_all(stage)
        assert undone(stage) == [2, 1]
        assert stage.instance.failure is not None
        assert stage.instance.failure.type == "ActivityError"


def test_in_parallel_all_are_undone_at_once() -> None:
    with staged(steps(1, 2, 3), parallel=True) as stage:
        stage.run()
        for id in (1, 2, 3):
            stage.run(done(id))
        assert undone(stage) == [3, 2, 1]
        for id in (5, 4):
            stage.run(done(id))
            assert not stage.instance.is_finished
        stage.run(done(6))
        assert stage.instance.status is Status.FAILED


def test_an_empty_saga_is_its_body() -> None:
    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        yield from ()
        return "nothing to it"

    with staged(body) as stage:
        stage.run()
        assert stage.result() == "nothing to it"


@pytest.mark.parametrize("is_generator", [True, False])
def test_a_body_that_raises_at_once_raises(is_generator: bool) -> None:
    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        yield from ()
        raise ValueError("at once")

    def plain(ctx: OrchestrationContext, saga: Saga) -> Any:
        raise ValueError("at once")

    with staged(body if is_generator else plain) as stage:
        stage.run()
        assert stage.instance.failure is not None
        assert stage.instance.failure.message == "at once"


def test_a_failure_that_the_body_handles_undoes_nothing_until_another_comes() -> None:
    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        try:
            yield from saga.run(a, undo, 1)
        except ActivityError:
            yield from saga.run(a, undo, 2)
        if (yield from ctx.wait_for_external_event("fail", type=bool)):
            raise ValueError
        return "handled"

    for fails, expected in ((False, []), (True, [2, 1])):
        with staged(body) as stage:
            stage.run()
            stage.run(failed(1))
            stage.run(done(2))
            stage.run(raised("fail", fails))
            complete_all(stage)
            assert undone(stage) == expected


def test_an_action_that_is_still_at_work_is_waited_for_before_it_is_undone() -> None:
    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        yield when_all([saga.run(a, undo, 1), saga.run(a, undo, 2, undo_input=lambda x: x)], fail_fast=True)

    with staged(body) as stage:
        stage.run()
        stage.run(failed(1))
        assert undone(stage) == []
        stage.run(done(2, "the result"))
        assert undone(stage) == ["the result"]
        complete_all(stage)
        assert undone(stage) == ["the result", 1]


def test_a_child_that_is_at_work_is_asked_to_cancel_and_waited_for_and_not_tried_again() -> None:
    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        child = ctx.call_sub_orchestrator("book", retry=RetryPolicy(max_attempts=5))
        yield from saga.run(child, undo, undo_input="the trip")

    with staged(body) as stage:
        stage.run()
        messages = stage.run(cancel()).messages
        assert [(message.instance_id, message.execution_id) for message in messages] == [("i:0001", f"{1:032x}")]
        assert [type(event) for event in events.decode(messages[0].event)] == [ExecutionCancelRequested]
        assert undone(stage) == []
        stage.run(child_failed(1))
        assert undone(stage) == ["the trip"]
        stage.run(done(2))
        assert stage.instance.status is Status.CANCELED


def test_what_is_nobodys_work_is_not_waited_for() -> None:
    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        answer = ctx.wait_for_external_event("never", timeout=timedelta(days=1))
        yield from saga.run(race([answer, ctx.create_timer(timedelta(days=2))]), undo, undo_input=1)

    with staged(body) as stage:
        stage.run()
        stage.run(cancel())
        assert undone(stage) == [1]
        assert not stage.instance.timers
        complete_all(stage)
        assert stage.instance.status is Status.CANCELED


def test_in_a_composite_the_work_is_waited_for_and_the_rest_given_up() -> None:
    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        work = ctx.call_activity(a, 1)
        yield from saga.run(when_all([work, ctx.wait_for_external_event("never")]), undo, undo_input=1)

    with staged(body) as stage:
        stage.run()
        stage.run(cancel())
        assert undone(stage) == []
        stage.run(done(1))
        assert undone(stage) == [1]
        complete_all(stage)
        assert stage.instance.status is Status.CANCELED


@pytest.mark.parametrize("parallel", [True, False])
def test_tasks_of_every_kind_can_be_undone(parallel: bool) -> None:
    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        booked = yield from saga.run(ctx.call_sub_orchestrator("book"), undo, undo_input=lambda trip: f"trip {trip}")
        saga.add(undo, "by hand")
        raise ValueError(booked)

    with staged(body, parallel=parallel) as stage:
        stage.run()
        stage.run(child_done(1, 7))
        complete_all(stage)
        assert undone(stage) == ["by hand", "trip 7"]


# ---- what a compensation gets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "is_done", "expected"),
    [
        ({}, True, "in"),
        ({}, False, "in"),
        ({"undo_input": "another"}, True, "another"),
        ({"undo_input": None}, True, None),
        ({"undo_input": lambda result: result}, True, "out"),
        ({"undo_input": lambda result: result}, False, None),
    ],
)
def test_a_compensation_gets_the_actions_input_or_what_it_is_given(
    options: dict[str, Any], is_done: bool, expected: object
) -> None:
    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        yield from saga.run(a, undo, "in", **options)
        raise ValueError

    with staged(body) as stage:
        stage.run()
        stage.run(done(1, "out") if is_done else failed(1))
        assert undone(stage) == [expected]


def test_a_generator_undoes() -> None:
    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        def undo_both(total: int) -> Any:
            yield from ctx.call_activity(undo, total)
            yield from ctx.call_activity(undo, "the other")

        def undo_one() -> Any:
            yield from ctx.call_activity(undo, "one")

        yield from saga.run(a, undo_both, 5, undo_input=lambda total: total)
        yield from saga.run(a, undo_one, 1)
        saga.add(undo_both, "added")
        raise ValueError

    with staged(body) as stage:
        stage.run()
        complete_all(stage)
        assert undone(stage) == ["added", "the other", "one", 1, "the other"]


def test_what_cannot_be_stored_or_is_not_registered_is_refused_before_anything_is_asked_for() -> None:
    refused: list[type[Exception]] = []

    def unknown() -> None: ...

    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        generator: Any = a_generator_that_fails

        def now(call: Callable[[], Any]) -> None:
            with pytest.raises((EncodeError, UnknownNameError, InvalidArgumentError)) as caught:
                call()
            refused.append(caught.type)

        now(lambda: saga.run(a, undo, object()))
        now(lambda: saga.run(a, undo, 1, undo_input=object()))
        now(lambda: saga.run(a, unknown, 1))
        now(lambda: saga.run(unknown, undo))
        now(lambda: saga.run(a, undo, 1, timeout=timedelta(0)))
        now(lambda: saga.run(ctx.wait_for_external_event("e"), undo, timeout=timedelta(1)))  # type: ignore[call-overload]
        now(lambda: saga.run(generator, undo))
        now(lambda: saga.add(undo, object()))
        yield from ()
        raise ValueError

    with staged(body) as stage:
        stage.run()
        unknown_names = [UnknownNameError] * 2
        assert refused == [*[EncodeError] * 2, *unknown_names, *[InvalidArgumentError] * 3, EncodeError]
        assert asked(stage) == []
        assert stage.instance.is_finished


def test_a_generator_that_asks_for_what_it_does_not_get_is_refused_where_it_is_registered() -> None:
    refused: list[str] = []

    def as_an_orchestrator(ctx: OrchestrationContext, what: int) -> Any:
        yield from ()

    def of_one(what: Any) -> Any:
        yield from ()

    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        for call in (
            lambda: saga.run(a, as_an_orchestrator, 1),
            lambda: saga.run(a, as_an_orchestrator, 1, undo_input=2),
            lambda: saga.run(a, of_one, 1),
            lambda: saga.run(a, as_an_orchestrator, 1, undo_input=str),
            lambda: saga.add(of_one),
        ):
            with pytest.raises(InvalidArgumentError) as caught:
                call()
            refused.append(str(caught.value))
        saga.add(of_one, 1)
        saga.add(partial(of_one, 1))
        yield from ()

    with staged(body) as stage:
        stage.run()
        assert asked(stage) == []
        assert stage.instance.is_finished
    assert len(refused) == 5
    assert "missing a required argument: 'ctx'" in refused[0]
    assert "ctx.call_sub_orchestrator" in refused[0]


def test_a_saga_that_is_over_takes_nothing() -> None:
    kept: list[Saga] = []

    def code(ctx: OrchestrationContext) -> Any:
        def body(saga: Saga) -> Any:
            kept.append(saga)
            return (yield from saga.run(a, undo, 1))

        yield from ctx.saga(body)
        for call in (lambda: kept[-1].run(a, undo, 2), lambda: kept[-1].add(undo)):
            with pytest.raises(OrchestratorError, match="over"):
                call()
        return "refused"

    with of(code) as stage:
        stage.run()
        stage.run(done(1))
        assert stage.result() == "refused"


# ---- nested ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inner_fails", "is_caught", "outer_fails", "expected"),
    [
        (False, False, False, []),
        (False, False, True, ["after", "inner", "before"]),
        (True, False, False, ["inner", "before"]),
        (True, True, False, ["inner"]),
        (True, True, True, ["inner", "after", "before"]),
    ],
)
def test_what_a_saga_inside_has_done_is_undone_by_it_or_by_the_outer_one_and_once(
    inner_fails: bool, is_caught: bool, outer_fails: bool, expected: list[str]
) -> None:
    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        def inside(inner: Saga) -> Any:
            yield from inner.run(a, undo, "inner")
            if inner_fails:
                raise ValueError("inner")

        yield from saga.run(a, undo, "before")
        try:
            yield from ctx.saga(inside)
        except ValueError:
            if not is_caught:
                raise
        yield from saga.run(a, undo, "after")
        if outer_fails:
            raise ValueError("outer")

    with staged(body) as stage:
        stage.run()
        complete_all(stage)
        assert undone(stage) == expected


def test_a_saga_in_a_compensation_keeps_what_it_did_to_itself() -> None:
    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        def inside(inner: Saga) -> Any:
            yield from inner.run(a, undo, "of the compensation")

        def undo_by_saga() -> Any:
            yield from ctx.saga(inside)

        yield from saga.run(a, undo_by_saga, 1)
        raise ValueError

    with staged(body) as stage:
        stage.run()
        complete_all(stage)
        assert asked(stage) == [("a", 1), ("a", "of the compensation")]
        assert stage.instance.status is Status.FAILED


# ---- cancelling ------------------------------------------------------------------------------------------------


def cancel() -> ExecutionCancelRequested:
    return ExecutionCancelRequested(encoded("changed my mind"))


def test_a_cancelled_saga_undoes_and_ends_cancelled() -> None:
    with staged(steps(1, 2)) as stage:
        stage.run()
        stage.run(done(1))
        stage.run(cancel())
        assert undone(stage) == []  # action 2 is at work
        stage.run(failed(2))
        complete_all(stage)
        assert undone(stage) == [2, 1]
        assert stage.instance.status is Status.CANCELED


def test_requests_to_cancel_do_not_stop_the_undoing_and_are_heard_after_it() -> None:
    heard: list[str] = []

    def code(ctx: OrchestrationContext) -> Any:
        try:
            yield from ctx.saga(lambda saga: steps(1, 2)(ctx, saga))
        except ValueError:
            heard.append("the error")
        try:
            yield from ctx.wait_for_external_event("never")
        except OrchestrationCancelled as request:
            return [str(request), undone_before()]

    def undone_before() -> int:
        return len(undone(stage))

    with of(code) as stage:
        stage.run()
        stage.run(done(1))
        stage.run(done(2))
        for _ in range(3):
            stage.run(cancel())
            assert undone(stage) == [2]
        stage.run(done(3))
        assert not stage.instance.is_finished
        stage.run(done(4))
        assert stage.result()[0] == "changed my mind"
        assert undone(stage) == [2, 1]


def test_a_request_that_nobody_was_left_to_hear_goes_to_the_next_execution() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        try:
            yield from ctx.saga(lambda saga: steps(1)(ctx, saga))
        except ValueError:
            ctx.continue_as_new(save_events=False)

    with of(code) as stage:
        stage.run()
        stage.run(done(1))
        stage.run(cancel())
        stage.run(done(2))
        assert stage.instance.status is Status.CONTINUED_AS_NEW
        with successor(stage, always_cold=True) as heir:
            heir.run()
            heir.run(done(1))
            complete_all(heir)
            assert heir.instance.status is Status.CANCELED


def test_an_instance_that_is_terminated_undoes_nothing() -> None:
    with staged(steps(1, 2)) as stage:
        stage.run()
        stage.run(done(1))
        stage.run(ExecutionTerminated())
        assert stage.instance.status is Status.TERMINATED
        assert undone(stage) == []


# ---- continue_as_new -------------------------------------------------------------------------------------------


def test_continue_as_new_inside_a_saga_is_refused_and_outside_it_is_not() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        def body(saga: Saga) -> Any:
            yield from saga.run(a, undo, 1)
            ctx.continue_as_new()

        try:
            yield from ctx.saga(body)
        except OrchestratorError as error:
            ctx.continue_as_new(str(error))

    with of(code) as stage:
        stage.run()
        stage.run(done(1))
        assert undone(stage) == [1]
        stage.run(done(2))
        assert stage.instance.status is Status.CONTINUED_AS_NEW
        assert "inside a saga" in CODEC.decode(stage.instance.output)


def test_no_saga_begins_after_continue_as_new() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        ctx.continue_as_new()
        yield from ctx.saga(lambda saga: steps(1)(ctx, saga))

    with of(code) as stage:
        stage.run()
        assert stage.instance.failure is not None
        assert "after continue_as_new" in stage.instance.failure.message
        assert asked(stage) == []


# ---- compensations that fail -----------------------------------------------------------------------------------


def last_events(stage: Stage) -> list[HistoryEvent]:
    return stage.history()[-1][1:]


def test_a_compensation_is_retried_for_a_week_where_nobody_says_otherwise() -> None:
    with staged(steps(1)) as stage:
        stage.run()
        stage.run(done(1))
        begun, attempts = stage.now, 0
        while True:
            problem = stage.run(failed(2)).problem
            attempts += 1
            if problem is not None:
                break
            stage.now = next(alarm.at for alarm in stage.instance.alarms() if alarm.kind == TASK_RETRY)
        assert attempts == 1_000
        assert timedelta(days=5) < timedelta(microseconds=stage.now - begun) < timedelta(days=8)


def test_a_compensation_that_fails_for_good_is_never_told_to_the_code_and_is_still_open() -> None:
    with staged(steps(1, 2)) as stage:
        stage.run()
        stage.run(done(1))
        stage.run(done(2))
        parked = stage.run(failed(3, NonRetryableError("no refunds today")))
        assert parked.problem is not None
        assert "compensation 'undo'" in parked.problem
        assert "left to undo besides: undo" in parked.problem
        assert "no refunds today" in parked.problem
        assert [type(event) for event in last_events(stage)] == [CompensationFailed]
        assert list(stage.instance.tasks) == [3]
        assert stage.instance.wake_at() == 0  # the next worker looks at it in any case
        again = stage.run(failed(3, NonRetryableError("still none")))
        assert again.problem is not None
        assert stage.instance.attempts[3] == 2
        stage.run(done(3))
        assert undone(stage) == [2, 1]
        stage.run(done(4))
        assert stage.instance.status is Status.FAILED


def test_what_is_undone_in_parallel_is_parked_with_what_there_was_to_undo_at_the_same_time() -> None:
    with staged(steps(1, 2), parallel=True) as stage:
        stage.run()
        stage.run(done(1))
        stage.run(done(2))
        stage.run(done(3))
        parked = stage.run(failed(4, NonRetryableError("no refunds today")))
        assert parked.problem is not None
        assert "and this was to undo at the same time: undo" in parked.problem
        assert "left to undo" not in parked.problem, "the other is undone by now"


def test_a_compensation_that_cannot_read_what_it_is_given_parks_at_once() -> None:
    with staged(steps(1)) as stage:
        stage.run()
        stage.run(done(1))
        assert stage.run(failed(2, DecodeError("not what it takes"))).problem is not None


@pytest.mark.parametrize("where", ["call", "saga", "activity"])
def test_the_policy_is_the_calls_or_the_sagas_or_the_activitys_own(where: str) -> None:
    twice = RetryPolicy(max_attempts=2, first_interval=timedelta(seconds=1))

    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        yield from saga.run(a, "other", 1, undo_retry=twice if where == "call" else None)
        raise ValueError

    def code(ctx: OrchestrationContext) -> Any:
        yield from ctx.saga(lambda saga: body(ctx, saga), undo_retry=twice if where == "saga" else None)

    app = app_with(code, a)
    app.activity(name="other", retry=twice if where == "activity" else RetryPolicy(max_attempts=9))(undo)
    with Stage(app, always_cold=True) as stage:
        stage.run()
        stage.run(done(1))
        assert stage.run(failed(2)).problem is None
        assert stage.run(failed(2)).problem is not None


def a_generator_that_fails(ctx: OrchestrationContext, saga: Saga) -> Any:
    def unstable() -> Any:
        yield from ctx.call_activity(undo, "by a generator")

    yield from saga.run(a, undo, 1)
    policy = RetryPolicy(max_attempts=2, first_interval=timedelta(seconds=5))
    yield from saga.run(a, unstable, 2, undo_retry=policy)
    raise ValueError


def test_a_generator_is_tried_again_as_a_whole_and_then_waits_to_be_mended() -> None:
    with staged(a_generator_that_fails) as stage:
        stage.run()
        stage.run(done(1))
        stage.run(done(2))
        stage.run(failed(3))
        (alarm,) = stage.instance.alarms()
        assert alarm.at == stage.now + 5 * SECOND
        stage.now = alarm.at
        stage.run(events.TimerFired(4, alarm.at))
        stage.run(failed(5))
        assert asked(stage)[-1][0] == MENDING
        parked = stage.run(failed(6, NonRetryableError("twice")))
        assert parked.problem is not None
        assert "'unstable'" in parked.problem
        stage.run(done(6))
        stage.run(done(7))
        complete_all(stage)
        assert undone(stage) == ["by a generator"] * 3 + [1]
        assert stage.instance.status is Status.FAILED


def test_an_error_of_a_compensations_code_leaves_no_trace_and_mended_code_goes_on() -> None:
    is_wrong = True

    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        def wrong() -> Any:
            yield from ctx.call_activity(undo, "first")
            if is_wrong:
                raise KeyError("a typo")
            yield from ctx.call_activity(undo, "second")

        yield from saga.run(a, undo, 1)
        yield from saga.run(a, wrong, 2)
        raise ValueError

    with staged(body) as stage:
        stage.run()
        stage.run(done(1))
        stage.run(done(2))
        pieces = len(stage.pieces)
        with pytest.raises(CompensationError, match=r"'wrong'.*left to undo besides: undo.*a typo"):
            stage.run(done(3))
        assert len(stage.pieces) == pieces
        # What the engine does with it: the instance is forgotten, and read again with other code.
        is_wrong = False
        stage.instance.__init__()  # type: ignore[misc]
        for piece in stage.history():
            stage.instance.apply_all(piece)
        stage.run(done(3))
        complete_all(stage)
        assert undone(stage) == ["first", "second", 1]


@pytest.mark.parametrize("wrong", [lambda result: 1 / (result - result), lambda result: [object(), result]])
def test_an_input_that_cannot_be_made_of_the_result_is_an_error_of_the_code(wrong: Callable[[Any], Any]) -> None:
    def body(ctx: OrchestrationContext, saga: Saga) -> Any:
        yield from saga.run(a, undo, 1, undo_input=wrong)
        raise ValueError

    with staged(body) as stage:
        stage.run()
        with pytest.raises(CompensationError):
            stage.run(done(1, 1))


# ---- it replays ------------------------------------------------------------------------------------------------

Plan = list[Any]
actions: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(["run", "from result", "generator", "caught", "together", "fail"]),
)
bodies: st.SearchStrategy[Plan] = st.recursive(
    st.lists(actions, max_size=4), lambda inner: st.lists(st.one_of(actions, inner), max_size=4), max_leaves=8
)


def walk(ctx: OrchestrationContext, saga: Saga, plan: Plan, names: list[str]) -> Any:
    def name() -> str:
        names.append(f"s{len(names)}")
        return names[-1]

    for step in plan:
        if isinstance(step, list):
            yield from ctx.saga(lambda inner, step=step: walk(ctx, inner, step, names))  # type: ignore[misc]
            continue
        match step:
            case "run":
                yield from saga.run(a, undo, name())
            case "from result":
                known = name()
                yield from saga.run(a, undo, known, undo_input=lambda _, known=known: known)
            case "generator":
                known = name()

                def by_hand(known: str = known) -> Any:
                    yield from ctx.call_activity(undo, known)

                yield from saga.run(a, by_hand, known)
            case "caught":
                try:
                    yield from saga.run(a, undo, name())
                except ActivityError:
                    pass
            case "together":
                yield when_all([saga.run(a, undo, name()), saga.run(a, undo, name())], fail_fast=True)
            case _:
                raise ValueError("as planned")
    return "done"


@settings(max_examples=150, deadline=None)
@given(
    plan=bodies, parallel=st.booleans(), answers=st.lists(st.sampled_from("cccccfx"), max_size=40), pick=st.randoms()
)
def test_whatever_happens_all_that_began_is_undone_once_or_nothing_is(
    plan: Plan, parallel: bool, answers: list[str], pick: Any
) -> None:
    with staged(lambda ctx, saga: walk(ctx, saga, plan, []), parallel=parallel) as stage:
        stage.run()
        is_cancelled = False
        for answer in answers + ["c"] * 60:
            if stage.instance.is_finished:
                break
            id = pick.choice(open_ids(stage.replay))
            is_undo = stage.instance.tasks[id].name == "undo"
            if answer == "x":
                is_cancelled = True
                stage.run(cancel())
            elif answer == "f" and not is_undo:
                stage.run(failed(id))
            else:
                stage.run(done(id, id))
        assert stage.instance.is_finished
        began = [value for name, value in asked(stage) if name == "a"]
        if stage.instance.status is Status.COMPLETED:
            assert undone(stage) == []
        else:
            assert sorted(undone(stage)) == sorted(began)
            assert is_cancelled or stage.instance.status is Status.FAILED
            assert stage.instance.status is not Status.CANCELED or is_cancelled


def test_an_alarm_of_a_compensation_that_waits_to_be_mended_rings_no_more() -> None:
    with staged(steps(1), undo_retry=RetryPolicy(max_attempts=2)) as stage:
        stage.run()
        stage.run(done(1))
        stage.run(failed(2))
        (alarm,) = stage.instance.alarms()
        assert isinstance(alarm, Alarm)
        stage.run(failed(2), later=SECOND)
        assert not stage.instance.rings(alarm)
