"""The instance: one table of statuses, and a fold that says the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from replayflow.core import events
from replayflow.core.events import KINDS, ExecutionCompleted, ExecutionStarted, HistoryEvent
from replayflow.core.instance import TASK_RETRY, TIMER, TRANSITIONS, Alarm, Instance, Status
from replayflow.errors import FailureDetails
from replayflow.retry import RetryPolicy
from tests.core.driver import BEGIN, SECOND, folded

ENDS = (Status.COMPLETED, Status.FAILED, Status.TERMINATED, Status.CANCELED, Status.CONTINUED_AS_NEW)
OPEN = (Status.PENDING, Status.RUNNING, Status.SUSPENDED)
DETAILS = FailureDetails("E", "m")
RETRY = RetryPolicy(max_attempts=5).values()
# What the table says, written down a second time by hand.
EXPECTED = {
    (Status.PENDING, "ExecutionStarted"): Status.RUNNING,
    (Status.RUNNING, "ExecutionSuspended"): Status.SUSPENDED,
    (Status.SUSPENDED, "ExecutionResumed"): Status.RUNNING,
}


def sample(kind: type[HistoryEvent]) -> HistoryEvent:
    values: dict[str, object] = {
        "failure_details": DETAILS,
        "orchestration_status": "COMPLETED",
        "start": b"",
        "lock_set": ["x", "y"],
        "fire_at_microseconds": 5,
        "retry_at_microseconds": 5,
        **dict.fromkeys(("items", "numbers", "results", "failures"), ()),
    }
    given = {}
    for field in fields(kind):
        if field.required:
            given[field.name] = values.get(field.name, 1 if field.type is int else "x")
    return kind(**given)


OTHERS = [kind for kind in KINDS.values() if kind is not ExecutionCompleted]


@pytest.mark.parametrize(
    ("status", "kind"), list(product(Status, OTHERS)), ids=lambda value: getattr(value, "__name__", value)
)
def test_what_has_no_row_in_the_table_changes_no_status(status: Status, kind: type[HistoryEvent]) -> None:
    instance = Instance()
    instance.status = status
    instance.apply(sample(kind))
    assert instance.status is EXPECTED.get((status, kind.__name__), status)


@pytest.mark.parametrize(("status", "end"), list(product(Status, ENDS)))
def test_an_end_ends_what_is_open_and_a_terminal_status_has_no_way_out(status: Status, end: Status) -> None:
    instance = Instance()
    instance.status = status
    instance.apply(ExecutionCompleted(1, end))
    assert instance.status is (end if status in OPEN else status)


def test_the_table_has_no_row_for_a_terminal_status() -> None:
    assert not {status for status, _, _ in TRANSITIONS} & set(ENDS)
    assert all(status.is_finished == (status in ENDS) for status in Status)


def test_a_suspension_is_over_with_the_first_resumption() -> None:
    instance = Instance().apply_all([ExecutionStarted("a", None, "i", "e"), events.ExecutionSuspended()])
    instance.apply_all([events.ExecutionSuspended(), events.ExecutionResumed()])
    assert instance.status is Status.RUNNING


def long_history() -> list[HistoryEvent]:
    return [
        events.OrchestratorStarted(BEGIN),
        ExecutionStarted("a", None, "i", "e"),
        events.TaskScheduled(1, "a", None),
        events.TaskScheduled(2, "b", None, retry=RETRY),
        events.TimerCreated(3, BEGIN + SECOND),
        events.TimerCreated(4, BEGIN + 2 * SECOND),
        events.SubOrchestrationInstanceCreated(5, "i:0005", "c", None, "x", retry=RETRY),
        events.SubOrchestrationInstanceCreated(6, "i:0006", "c", None, "y"),
        events.CustomStatusSet(b"s"),
        events.OrchestratorStarted(BEGIN + SECOND),
        events.TaskAttemptFailed(2, 1, DETAILS, BEGIN + 3 * SECOND),
        events.SubOrchestrationAttemptFailed(5, 1, DETAILS, BEGIN + 4 * SECOND),
        events.TimerFired(3, BEGIN + SECOND),
        events.TaskCompleted(1),
        events.OrchestratorStarted(BEGIN + 5 * SECOND),
        events.SubOrchestrationRetried(5, 2, "i:0005:2", "z"),
        events.SubOrchestrationInstanceCompleted(6),
        events.TimerCanceled(4),
        events.ExecutionSuspended(),
    ]


def test_folding_a_history_twice_gives_the_same_instance() -> None:
    once, twice = (Instance().apply_all(events.decode(events.encode(long_history()))) for _ in range(2))
    assert folded(once) == folded(twice)
    assert (sorted(once.tasks), once.timers, sorted(once.children)) == ([2], {}, [5])
    assert (once.status, once.custom_status, once.now) == (Status.SUSPENDED, b"s", BEGIN + 5 * SECOND)
    assert (once.children[5].instance_id, once.children[5].attempt) == ("i:0005:2", 2)


def test_folding_piece_by_piece_is_folding_at_once() -> None:
    history = long_history()
    for cut in range(len(history)):
        assert folded(Instance().apply_all(history[:cut]).apply_all(history[cut:])) == folded(
            Instance().apply_all(history)
        )


def test_what_is_due_next_is_the_earliest_that_is_still_open() -> None:
    instance = Instance().apply_all(long_history()[:9])
    assert instance.next_due() == BEGIN + SECOND
    instance.apply(events.TimerFired(3, BEGIN + SECOND))
    assert instance.next_due() == BEGIN + 2 * SECOND
    instance.apply(events.TimerCanceled(4))
    assert instance.next_due() is None
    instance.apply(events.TaskAttemptFailed(2, 1, DETAILS, BEGIN + 9))
    instance.apply(events.TaskAttemptFailed(2, 2, DETAILS, BEGIN + 19))
    assert instance.next_due() == BEGIN + 19
    assert instance.rings(Alarm(BEGIN + 19, TASK_RETRY, 2))
    assert not instance.rings(Alarm(BEGIN + 9, TASK_RETRY, 2))
    assert not instance.rings(Alarm(BEGIN + SECOND, TIMER, 3))


@pytest.mark.parametrize(
    ("after", "wake_at"),
    [
        pytest.param([], 0, id="pending: at once"),
        pytest.param([ExecutionStarted("a", None, "i", "e")], None, id="waiting for messages alone: never"),
        pytest.param(
            [ExecutionStarted("a", None, "i", "e"), events.TaskScheduled(1, "a", None)], 0, id="an activity: at once"
        ),
        pytest.param(
            [ExecutionStarted("a", None, "i", "e"), events.TimerCreated(1, 77)], 77, id="a timer: at its time"
        ),
        pytest.param(
            [ExecutionStarted("a", None, "i", "e"), events.TimerCreated(1, 77), events.ExecutionSuspended()],
            None,
            id="a timer of a suspended instance: never",
        ),
        pytest.param(
            [
                ExecutionStarted("a", None, "i", "e"),
                events.TaskScheduled(1, "a", None, retry=RETRY),
                events.TaskAttemptFailed(1, 1, DETAILS, 88),
            ],
            88,
            id="a retry: at its time",
        ),
        pytest.param(
            [ExecutionStarted("a", None, "i", "e"), events.TimerCreated(1, 77), ExecutionCompleted(2, "COMPLETED")],
            None,
            id="ended: never",
        ),
    ],
)
def test_an_instance_says_when_a_worker_has_to_look_at_it(after: list[HistoryEvent], wake_at: int | None) -> None:
    assert Instance().apply_all(after).wake_at() == wake_at


@given(st.data())
def test_folding_piece_by_piece_is_folding_event_by_event(data: st.DataObject) -> None:
    """Also where a piece looks like one activity after another: results of tasks that are not open, tasks with a policy."""
    event = st.one_of(
        st.builds(events.TaskCompleted, st.integers(1, 4)),
        st.builds(events.TaskScheduled, st.integers(1, 4), st.just("a"), st.none(), retry=st.none() | st.just(RETRY)),
    )
    begins = st.builds(events.OrchestratorStarted, st.integers(0, 99))
    piece = st.tuples(begins, st.lists(event, max_size=3)).map(lambda drawn: [drawn[0], *drawn[1]])
    pieces: Sequence[Sequence[HistoryEvent]] = data.draw(st.lists(piece, max_size=6))
    once, twice = Instance(), Instance()
    once.apply_pieces(pieces)
    for each in pieces:
        for one in each:
            twice.apply(one)
    assert folded(once) == folded(twice)
