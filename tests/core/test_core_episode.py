"""Episodes: what is admitted, what is decided once, what is held back, and what follows from an end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from replayflow import NonRetryableError, OrchestrationContext, RetryPolicy
from replayflow.core import departures, events, rows
from replayflow.core.events import (
    ExecutionCancelRequested,
    ExecutionReplaced,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    OrchestratorStarted,
    ParentInstance,
    SubOrchestrationAttemptFailed,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    TaskAttemptFailed,
)
from replayflow.core.instance import CHILD_RETRY, TASK_RETRY, TIMER, Alarm, Instance, Status
from tests.core.driver import (
    BEGIN,
    SECOND,
    Stage,
    app_with,
    child_done,
    child_failed,
    done,
    encoded,
    failed,
    fired,
    folded,
    raised,
    successor,
)

Code = Callable[[OrchestrationContext], Any]


def a(x: int) -> Any:
    return x


def staged(code: Code, **options: Any) -> Stage:
    return Stage(app_with(code, a), **options)


def calling(**options: Any) -> Code:
    def code(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity(a, 1, **options))

    return code


def calling_child(**options: Any) -> Code:
    def code(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_sub_orchestrator("child", 1, **options))

    return code


def waiting(ctx: OrchestrationContext) -> Any:
    yield ctx.wait_for_external_event("never")


def decoded(message: bytes) -> HistoryEvent:
    (event,) = events.decode(message)
    return event


# ---- admission -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "late",
    [done(1, "x"), failed(1), fired(2), done(99), failed(99), fired(99), fired(1), done(2)],
    ids=lambda event: repr(event)[:40],
)
def test_a_late_doubled_or_unasked_completion_leaves_no_trace(late: HistoryEvent) -> None:
    def code(ctx: OrchestrationContext) -> Any:
        task, timer = ctx.call_activity(a, 1), ctx.create_timer(timedelta(1))
        yield task
        yield timer
        yield ctx.wait_for_external_event("never")

    stage = staged(code)
    stage.run()
    stage.run(done(1), fired(2))
    before = folded(stage.instance)
    assert stage.run(late).commit is None
    assert folded(stage.instance) == before
    stage.run(raised("e"), late)
    assert stage.kinds() == ["EventRaised"]


def test_of_two_completions_in_one_inbox_the_first_counts() -> None:
    stage = staged(calling())
    stage.run()
    stage.run(done(1, "first"), done(1, "second"), failed(1))
    assert stage.result() == "first"
    assert stage.kinds() == ["TaskCompleted", "ExecutionCompleted"]


def test_the_result_of_a_cancelled_task_is_dropped() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        task = ctx.call_activity(a, 1)
        yield ctx.wait_for_external_event("e")
        task.cancel()
        yield ctx.wait_for_external_event("never")

    stage = staged(code)
    stage.run()
    episode = stage.run(raised("e"))
    assert episode.canceled == [1]
    assert stage.run(done(1)).commit is None


def test_an_empty_inbox_commits_nothing() -> None:
    stage = staged(waiting)
    stage.run()
    assert stage.run().commit is None


def test_time_never_runs_backwards() -> None:
    stage = staged(waiting)
    stage.run()
    stage.run(raised("e"), later=-SECOND)
    assert [piece[0] for piece in stage.history()] == [OrchestratorStarted(BEGIN), OrchestratorStarted(BEGIN)]


def test_a_piece_is_the_time_then_what_came_in_then_what_was_decided() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(a, 1)
        yield ctx.call_activity(a, 2)

    stage = staged(code)
    stage.run()
    stage.run(raised("e"), done(1), later=5)
    piece = [type(event).__name__ for event in stage.history()[1]]
    assert piece == ["OrchestratorStarted", "EventRaised", "TaskCompleted", "TaskScheduled"]


def test_a_commit_continues_its_execution_by_number() -> None:
    stage = staged(waiting)
    stage.run()
    stage.run(raised("e"))
    assert [(c.instance_id, c.execution_id, c.sequence) for c in stage.commits] == [("i", "e0", 1), ("i", "e0", 2)]


# ---- retries -------------------------------------------------------------------------------------------------


def policy(**options: Any) -> RetryPolicy:
    return RetryPolicy(**{"max_attempts": 4, "first_interval": timedelta(seconds=1), **options})


def waits_of(stage: Stage, *failures: HistoryEvent) -> list[float | None]:
    """How long each failure makes the task wait, in seconds; None where it fails for good."""
    waits: list[float | None] = []
    for failure in failures:
        done = stage.run(failure)
        if not done.alarms:
            waits.append(None)
            break
        (alarm,) = done.alarms
        waits.append((alarm.at - stage.now) / SECOND)
        stage.now = alarm.at
    return waits


@pytest.mark.parametrize(
    ("options", "failures", "waits"),
    [
        pytest.param({}, [failed(1)] * 4, [1, 2, 4, None], id="backoff doubles; the last attempt fails"),
        pytest.param({"backoff": 1}, [failed(1)] * 4, [1, 1, 1, None], id="no backoff"),
        pytest.param({"max_interval": timedelta(seconds=1.5)}, [failed(1)] * 4, [1, 1.5, 1.5, None], id="bound"),
        pytest.param({"max_attempts": 1}, [failed(1)], [None], id="one attempt is no retry"),
        pytest.param({"timeout": timedelta(seconds=3)}, [failed(1)] * 4, [1, 2, None], id="budget"),
        pytest.param({}, [failed(1, after=9 * SECOND), failed(1)], [9, 2], id="RetryAfter takes the policy's place"),
        pytest.param(
            {"timeout": timedelta(seconds=8)}, [failed(1, after=9 * SECOND)], [None], id="RetryAfter over the budget"
        ),
        pytest.param({}, [failed(1, NonRetryableError("no"))], [None], id="NonRetryableError"),
        pytest.param({"non_retryable": LookupError}, [failed(1, KeyError())], [None], id="a base class, never"),
        pytest.param({"retry_on": LookupError}, [failed(1, KeyError()), failed(1)], [1, None], id="a base class, only"),
        pytest.param({"retry_on": (OSError, ValueError)}, [failed(1)], [1], id="one of several classes"),
        pytest.param(
            {"retry_on": lambda failure: "again" in failure.message},
            [failed(1, ValueError("again")), failed(1, ValueError("enough"))],
            [1, None],
            id="a predicate",
        ),
        pytest.param({"retry_on": lambda _: 1 / 0}, [failed(1)], [None], id="a predicate that raises says no"),
    ],
)
def test_a_failed_attempt_is_retried_as_the_policy_says(
    options: dict[str, Any], failures: list[HistoryEvent], waits: list[float | None]
) -> None:
    stage = staged(calling(retry=policy(**options)))
    stage.run()
    assert waits_of(stage, *failures) == waits
    assert stage.instance.status is (Status.FAILED if waits[-1] is None else Status.RUNNING)


def caused(error: Exception, cause: Exception) -> Exception:
    try:
        raise error from cause
    except Exception as raised:
        return raised


def test_classes_match_by_qualified_name_along_the_chain_of_causes() -> None:
    stage = staged(calling(retry=policy(non_retryable=LookupError)))
    stage.run()
    assert waits_of(stage, failed(1, caused(ValueError("outer"), KeyError("inner")))) == [None]
    namesake = type("LookupError", (Exception,), {"__module__": "elsewhere"})
    stage = staged(calling(retry=policy(non_retryable=LookupError)))
    stage.run()
    assert waits_of(stage, failed(1, namesake())) == [1]


def test_jitter_is_decided_once_by_the_random_that_is_handed_in() -> None:
    stage = staged(calling(retry=policy(jitter=0.5)), random=Random(3))
    stage.run()
    (wait,) = waits_of(stage, failed(1))
    assert wait is not None
    assert wait == int(SECOND * (1 - 0.5 * Random(3).random())) / SECOND
    (event,) = (event for event in stage.history()[1] if isinstance(event, TaskAttemptFailed))
    assert event.retry_at_microseconds == BEGIN + int(wait * SECOND)
    assert stage.replayed().decisions.open.keys() == {1}


def test_an_attempt_that_failed_is_one_event_with_its_error_and_the_next_time() -> None:
    stage = staged(calling(retry=policy()))
    stage.run()
    done = stage.run(failed(1, ValueError("no luck")))
    (event,) = stage.history()[1][1:]
    assert isinstance(event, TaskAttemptFailed)
    assert (event.attempt, event.failure_details.message) == (1, "no luck")
    assert done.alarms == [Alarm(BEGIN + SECOND, TASK_RETRY, 1)]
    assert stage.instance.attempts == {1: 1}


def test_attempts_share_one_task_which_completes_once() -> None:
    stage = staged(calling(retry=policy()))
    stage.run()
    stage.run(failed(1))
    stage.run(done(1, "at last"))
    assert stage.result() == "at last"
    assert not stage.instance.attempts


def test_an_edited_policy_changes_nothing_of_a_scheduled_task() -> None:
    stage = staged(calling(retry=policy(max_attempts=2)))
    stage.run()
    edited = staged(calling(retry=policy(max_attempts=9)))
    stage.app, stage.environment, stage.always_cold = edited.app, edited.environment, True
    assert waits_of(stage, failed(1), failed(1)) == [1, None]


def test_without_a_policy_there_is_no_retry() -> None:
    stage = staged(calling())
    stage.run()
    assert waits_of(stage, failed(1, after=SECOND)) == [None]


def test_a_policy_without_a_wait_does_not_wait_however_often_it_tries() -> None:
    stage = staged(calling(retry=policy(max_attempts=2_000, first_interval=timedelta(0))))
    stage.run()
    stage.instance.attempts[1] = 1_500
    assert waits_of(stage, failed(1)) == [0]


def test_a_child_is_retried_under_an_id_of_its_own() -> None:
    stage = staged(calling_child(retry=policy(max_attempts=2)))
    stage.run()
    done = stage.run(child_failed(1))
    assert stage.kinds() == ["SubOrchestrationAttemptFailed"]
    assert done.alarms == [Alarm(BEGIN + SECOND, CHILD_RETRY, 1)]
    again = departures.retried(stage.instance, 1, lambda: "new")
    assert again is not None
    done = stage.run(again)
    assert done.commit is not None
    (start,) = done.commit.starts
    assert (start.instance_id, start.execution_id, start.parent_id) == ("i:0001:2", "new", "i")
    assert departures.retried(stage.instance, 1, lambda: "x") is None
    assert stage.run(again).commit is None, "a second beginning of one attempt is dropped"
    stage.run(child_failed(1, ValueError("again")))
    assert stage.instance.status is Status.FAILED


# ---- suspend, resume -----------------------------------------------------------------------------------------


def test_a_suspended_instance_holds_what_comes_and_resume_releases_it_in_order() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        first = yield ctx.wait_for_external_event("e")
        return [first, (yield ctx.wait_for_external_event("e"))]

    stage = staged(code)
    stage.run()
    one, two, result = raised("e", 1), raised("e", 2), done(7)
    held = stage.run(ExecutionSuspended(), one, result, two)
    assert held.held == [one, result, two]
    assert stage.kinds() == ["ExecutionSuspended"]
    assert stage.instance.status is Status.SUSPENDED
    again = stage.run(one, two)
    assert (again.commit, again.held) == (None, [one, two])
    stage.run(one, ExecutionResumed(), two)
    assert stage.kinds() == ["ExecutionResumed", "EventRaised", "EventRaised", "ExecutionCompleted"]
    assert stage.result() == [1, 2]


def test_a_request_to_cancel_waits_for_the_resumption() -> None:
    stage = staged(waiting)
    stage.run()
    request = ExecutionCancelRequested()
    assert stage.run(ExecutionSuspended(), request).held == [request]
    stage.run(request, ExecutionResumed())
    assert stage.instance.status is Status.CANCELED


def test_a_suspension_that_comes_with_a_continue_as_new_holds_the_next_execution() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        yield ctx.wait_for_external_event("e")
        ctx.continue_as_new()

    stage = staged(code)
    stage.run()
    assert stage.run(raised("e"), ExecutionSuspended()).commit is not None
    assert stage.instance.status is Status.CONTINUED_AS_NEW
    second = successor(stage)
    event = raised("e")
    assert second.run(event).held == [event]
    assert second.instance.status is Status.SUSPENDED
    assert folded(Instance().apply_all(e for piece in second.history() for e in piece)) == folded(second.instance)
    second.run(event, ExecutionResumed())
    assert second.commits[-1].next_start is not None


# ---- terminate, replace, cancel ------------------------------------------------------------------------------


def with_everything_open(ctx: OrchestrationContext) -> Any:
    ctx.call_activity(a, 1)
    ctx.call_sub_orchestrator("child")
    ctx.create_timer(timedelta(1))
    yield ctx.wait_for_external_event("end")


def test_a_request_to_terminate_comes_first_and_what_came_before_decides_nothing() -> None:
    stage = staged(with_everything_open)
    stage.run()
    stage.run(raised("end"), done(1), child_done(2), ExecutionTerminated(encoded("enough")))
    assert stage.instance.status is Status.TERMINATED
    assert stage.kinds() == [
        "ExecutionTerminated",
        "ExecutionCompleted",
        "EventRaised",
        "SubOrchestrationInstanceCompleted",
    ]
    assert stage.row.output == encoded("enough")


@pytest.mark.parametrize("recurse", [True, False])
def test_termination_cancels_activities_and_recurses_into_children_unless_told_not_to(recurse: bool) -> None:
    stage = staged(with_everything_open)
    stage.run()
    done = stage.run(ExecutionTerminated(None, recurse))
    assert done.canceled == [1]
    assert done.commit is not None
    told = [(m.instance_id, type(decoded(m.event)).__name__, m.is_control) for m in done.commit.messages]
    assert told == ([("i:0002", "ExecutionTerminated", True)] if recurse else [])
    assert stage.row.wake_at is None
    assert stage.row.orphans is None


def test_a_first_episode_that_is_terminated_never_runs_the_code() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        raise AssertionError

    stage = staged(code)
    stage.run(ExecutionTerminated())
    assert stage.instance.status is Status.TERMINATED


def test_a_suspended_instance_can_be_terminated_and_what_was_held_is_appended() -> None:
    stage = staged(with_everything_open)
    stage.run()
    stage.run(ExecutionSuspended())
    done = stage.run(raised("x"), ExecutionTerminated())
    assert stage.kinds() == ["ExecutionTerminated", "ExecutionCompleted", "EventRaised"]
    assert done.held == []


def test_cancellation_recurses_into_children_and_cancels_activities() -> None:
    stage = staged(with_everything_open)
    stage.run()
    done = stage.run(ExecutionCancelRequested())
    assert stage.instance.status is Status.CANCELED
    assert done.canceled == [1]
    assert done.commit is not None
    assert [(m.instance_id, decoded(m.event)) for m in done.commit.messages] == [("i:0002", ExecutionCancelRequested())]


def test_what_a_cancelled_orchestration_asked_for_last_still_runs() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity(a, 1)
        finally:
            ctx.call_activity(a, 2)

    stage = staged(code)
    stage.run()
    done = stage.run(ExecutionCancelRequested())
    assert stage.instance.status is Status.CANCELED
    assert done.canceled == [1]
    assert stage.row.orphans is not None
    assert [task.event_id for _, task in rows.decode_orphans(stage.row.orphans)] == [2]
    assert stage.row.wake_at == 0


def replacement(execution_id: str = "e9") -> ExecutionReplaced:
    return ExecutionReplaced(events.encode([ExecutionStarted("main", None, "i", execution_id, is_first=False)]))


def test_a_replacement_ends_the_execution_and_begins_the_next() -> None:
    stage = staged(with_everything_open)
    stage.run()
    stage.run(raised("end"), replacement())
    assert stage.instance.status is Status.TERMINATED
    assert successor(stage).started.execution_id == "e9"


@pytest.mark.parametrize(
    "end", [raised("end"), ExecutionTerminated(), ExecutionCancelRequested()], ids=lambda event: type(event).__name__
)
def test_a_replacement_that_finds_the_execution_ended_begins_the_next_all_the_same(end: HistoryEvent) -> None:
    stage = staged(with_everything_open)
    stage.run()
    stage.run(end)
    ended = stage.instance.status
    told = stage.run(replacement())
    assert stage.instance.status is ended
    assert told.commit is not None
    assert told.commit.messages == []
    assert successor(stage).started.execution_id == "e9"


def test_a_termination_and_a_replacement_in_one_inbox_both_happen() -> None:
    stage = staged(with_everything_open)
    stage.run()
    stage.run(ExecutionTerminated(), replacement())
    assert successor(stage).started.execution_id == "e9"


def test_what_comes_after_the_end_is_appended_and_changes_nothing_that_shows() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        ctx.call_activity(a, 1)
        yield ctx.wait_for_external_event("end")
        return "output"

    stage = staged(code)
    stage.run()
    stage.run(raised("end"))
    before = stage.row
    assert before.orphans is not None
    stage.orphans = []  # it has run meanwhile
    stage.run(raised("late"), ExecutionSuspended(), later=SECOND)
    assert stage.kinds() == ["EventRaised", "ExecutionSuspended"]
    assert (stage.row.status, stage.row.output, stage.row.completed_at) == (
        Status.COMPLETED,
        before.output,
        before.completed_at,
    )
    assert stage.row.orphans is None, "what has run is not owed a second time"


# ---- children ------------------------------------------------------------------------------------------------


def test_a_child_starts_with_all_that_it_was_called_with() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        yield ctx.call_sub_orchestrator("child", {"x": 1}, version="2", tags={"a": "b"})

    stage = staged(code)
    done = stage.run()
    assert done.commit is not None
    (start,) = done.commit.starts
    started = decoded(start.event)
    assert isinstance(started, ExecutionStarted)
    assert (start.instance_id, start.name, start.version, start.tags) == ("i:0001", "child", "2", {"a": "b"})
    assert started.parent_instance == ParentInstance("i", "e0", 1, "main")
    assert started.execution_id == start.execution_id
    assert start.if_taken is not None
    taken = decoded(start.if_taken.event)
    assert isinstance(taken, SubOrchestrationInstanceFailed)
    assert taken.failure_details.non_retryable


PARENT = ParentInstance("p", "pe", 4, "parent")


@pytest.mark.parametrize("how", ["completed", "failed", "terminated", "canceled"])
def test_a_child_reports_its_end_once_to_the_execution_that_called_it(how: str) -> None:
    def code(ctx: OrchestrationContext) -> Any:
        yield ctx.wait_for_external_event("end")
        if how == "failed":
            raise ValueError("bad")
        return "good"

    stage = staged(code, parent=PARENT)
    stage.run()
    ends: dict[str, HistoryEvent] = {"terminated": ExecutionTerminated(), "canceled": ExecutionCancelRequested()}
    done = stage.run(ends.get(how, raised("end")))
    assert done.commit is not None
    (message,) = done.commit.messages
    assert (message.instance_id, message.execution_id) == ("p", "pe")
    report = decoded(message.event)
    if how == "completed":
        assert report == SubOrchestrationInstanceCompleted(4, encoded("good"))
    else:
        assert isinstance(report, SubOrchestrationInstanceFailed)
        assert (how == "failed") == ("bad" in report.failure_details.message)
    late = stage.run(raised("late"))
    assert late.commit is not None
    assert late.commit.messages == []


def test_a_child_that_continues_as_new_reports_nothing_yet() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        ctx.continue_as_new()
        return

    stage = staged(code, parent=PARENT)
    done = stage.run()
    assert done.commit is not None
    assert done.commit.messages == []
    assert successor(stage).started.parent_instance == PARENT


def test_a_cancelled_child_is_asked_to_cancel() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        ctx.call_sub_orchestrator("child").cancel()
        yield ctx.wait_for_external_event("never")

    stage = staged(code)
    done = stage.run()
    assert done.commit is not None
    (message,) = done.commit.messages
    assert message.instance_id == "i:0001"
    assert decoded(message.event) == ExecutionCancelRequested()
    assert stage.instance.children == {}


def test_children_of_later_executions_have_other_ids() -> None:
    def code(ctx: OrchestrationContext, round: int) -> Any:
        yield ctx.call_sub_orchestrator("child")
        if round == 1:
            ctx.continue_as_new(2)

    stage = Stage(app_with(code), input=1)
    stage.run()
    stage.run(child_done(1))
    second = successor(stage)
    done = second.run()
    assert done.commit is not None
    assert stage.commits[0].starts[0].instance_id == "i:0001"
    assert done.commit.starts[0].instance_id.startswith("i:0001:")


# ---- events and continue as new ------------------------------------------------------------------------------


def test_an_event_is_sent_as_a_message_that_says_where_it_came_from() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        ctx.send_event("other", "hello", 5)
        yield ctx.wait_for_external_event("never")

    done = staged(code).run()
    assert done.commit is not None
    (message,) = done.commit.messages
    assert (message.instance_id, message.execution_id) == ("other", None)
    assert decoded(message.event) == raised("hello", 5)
    assert "test_core_episode.py:" in message.about


def test_continue_as_new_starts_the_next_execution_with_its_input_version_and_tags() -> None:
    def code(ctx: OrchestrationContext, round: int) -> Any:
        ctx.continue_as_new(round + 1, version="v2")

    start = ExecutionStarted("main", encoded(1), "i", "e0", version="v1", tags={"k": "v"})
    stage = Stage(app_with(code), start=[start])
    stage.run()
    next_one = successor(stage).started
    assert (next_one.input, next_one.version, next_one.tags, next_one.is_first) == (encoded(2), "v2", {"k": "v"}, False)
    assert next_one.execution_id != "e0"


# ---- the row -------------------------------------------------------------------------------------------------


def test_the_row_is_written_where_it_changes_and_only_there() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        yield ctx.wait_for_external_event("e")
        ctx.set_custom_status("half")
        yield ctx.wait_for_external_event("e")
        yield ctx.create_timer(timedelta(seconds=1))
        return "end"

    stage = staged(code)
    shown = []
    for inbox in ([], [raised("x")], [raised("e")], [raised("e")], [fired(1)]):
        done = stage.run(*inbox, later=SECOND)
        assert done.commit is not None
        state = done.commit.state
        shown.append(None if state is None else (state.status, state.wake_at, state.custom_status, state.output))
    timer_at = BEGIN + 5 * SECOND
    assert shown == [
        (Status.RUNNING, None, None, None),
        None,
        (Status.RUNNING, None, encoded("half"), None),
        (Status.RUNNING, timer_at, encoded("half"), None),
        (Status.COMPLETED, None, encoded("half"), encoded("end")),
    ]
    assert stage.row.completed_at == BEGIN + 5 * SECOND


def test_a_timer_that_is_open_at_the_end_is_dropped() -> None:
    def code(ctx: OrchestrationContext) -> Any:
        ctx.create_timer(timedelta(days=9))
        return "done"

    stage = staged(code)
    done = stage.run()
    assert stage.row.wake_at is None
    assert done.alarms == [Alarm(BEGIN + 9 * 86_400 * SECOND, TIMER, 1)]
    assert stage.instance.wake_at() is None


@pytest.mark.parametrize("how", ["completed", "failed", "continued"])
def test_activities_that_were_never_yielded_are_owed_a_run_after_the_end(how: str) -> None:
    def code(ctx: OrchestrationContext) -> Any:
        ctx.call_activity(a, 1)
        ctx.call_activity(a, 2, retry=policy())
        yield ctx.wait_for_external_event("end")
        if how == "failed":
            raise ValueError
        if how == "continued":
            ctx.continue_as_new()

    stage = staged(code)
    stage.run()
    stage.run(failed(2))
    stage.run(raised("end"))
    assert stage.row.orphans is not None
    owed = rows.decode_orphans(stage.row.orphans)
    assert [(execution_id, task.event_id) for execution_id, task in owed] == [("e0", 1)], "a retry is owed to nobody"
    assert stage.row.wake_at == 0


def test_a_child_attempt_is_decided_once() -> None:
    stage = staged(calling_child(retry=policy(jitter=1.0)), random=Random(5))
    stage.run()
    stage.run(child_failed(1))
    (event,) = (event for event in stage.history()[1] if isinstance(event, SubOrchestrationAttemptFailed))
    assert BEGIN <= event.retry_at_microseconds <= BEGIN + SECOND
    assert stage.instance.retrying_children == {1: event.retry_at_microseconds}
