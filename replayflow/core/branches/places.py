"""Where a history may be cut: before a failure, or before an event that somebody names."""

from __future__ import annotations

from replayflow.core.branches.history import History, Piece
from replayflow.core.events import (
    Decided,
    EntityOperationFailed,
    ExecutionCompleted,
    ExecutionForked,
    ExecutionRewound,
    MapProgress,
    SagaUndone,
    SubOrchestrationInstanceFailed,
    TaskCanceled,
    TaskFailed,
    TimerCanceled,
)
from replayflow.errors import FailureDetails, InvalidStateError

_FAILURES = (TaskFailed, SubOrchestrationInstanceFailed, EntityOperationFailed)
_MARKS = (ExecutionRewound, ExecutionForked)
_CLEARING = (TimerCanceled, TaskCanceled)


def before_failure(history: History) -> int:
    """The piece in which the failure was delivered that ended the execution; of failures that came while the code waited, the first."""
    end, details = _end_of(history)
    chain = list(details.chain())
    causes = [i for i in range(end + 1) if any(d in chain for d in _failures(history.pieces[i]))]
    piece = causes[-1] if causes else end
    earlier = piece - 1
    while earlier >= 0 and _is_quiet(history.pieces[earlier]):
        if _failures(history.pieces[earlier]):
            piece = earlier
        earlier -= 1
    return _before_undone(history, piece)


def before_event(history: History, number: int) -> int:
    """The piece that has the event.

    Raises:
        InvalidArgumentError: there is no such event.
        InvalidStateError: it lies inside a saga that has been undone since.
    """
    end, _ = _end_of(history)
    piece = min(history.place_of(number)[0], end)
    before = _before_undone(history, piece)
    if before != piece:
        raise InvalidStateError(
            f"instance '{history.started.instance_id}', event {number}: it lies inside a saga that was undone later, which began with event "
            f"{history.number_of(before)}: name that or an earlier one"
        )
    return piece


def _end_of(history: History) -> tuple[int, FailureDetails]:
    for index in reversed(range(len(history.pieces))):
        for event in history.pieces[index]:
            if isinstance(event, ExecutionCompleted) and event.failure_details is not None:
                return index, event.failure_details
    raise InvalidStateError(f"instance '{history.started.instance_id}' has no failure in its history")


def _failures(piece: Piece) -> list[FailureDetails]:
    """The failures, for good, that the episode took in."""
    found: list[FailureDetails] = []
    for event in piece:
        if isinstance(event, _FAILURES):
            found.append(event.failure_details)
        elif isinstance(event, MapProgress):
            found += [one.failure_details for one in event.failures if one.retry_at_microseconds is None]
    return found


def _is_quiet(piece: Piece) -> bool:
    """Whether the code went on waiting in the episode: it decided nothing, but that what it waited for in vain was cleared away."""
    return not any(
        (event.is_decision and not isinstance(event, _CLEARING)) or isinstance(event, _MARKS) for event in piece
    )


def _before_undone(history: History, piece: int) -> int:
    """The piece, or the first of a saga that was undone after it: what a saga did is there as a whole, or not at all."""
    while True:
        undone = [e.first_id for later in history.pieces[piece:] for e in later if isinstance(e, SagaUndone)]
        first = min(undone, default=None)
        begun = next(
            (i for i, p in enumerate(history.pieces) if first is not None and _has_asked_since(p, first)), piece
        )
        if begun >= piece:
            return piece
        piece = begun


def _has_asked_since(piece: Piece, first_id: int) -> bool:
    return any(isinstance(event, Decided) and event.event_id >= first_id for event in piece)
