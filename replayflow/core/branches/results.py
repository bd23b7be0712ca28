"""What the tasks of a history came to, and other results in their place."""

from __future__ import annotations

from replayflow.core.branches.history import Cut, History
from replayflow.core.events import (
    EntityOperationCompleted,
    EntityOperationFailed,
    HistoryEvent,
    Payload,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
)
from replayflow.errors import InvalidArgumentError


def edited(cut: Cut, results: dict[int, Payload]) -> None:
    """The tasks have these results: in the place of what they came to, or, where they are open, as the first thing that is told.

    Raises:
        InvalidArgumentError: one of them is no task of the history that has a result.
    """
    missing = dict(results)
    for piece in [*cut.kept.pieces, cut.facts]:
        for index, event in enumerate(piece):
            id = answered(event)
            if id is not None and id in results:
                piece[index] = _answer_like(event, id, results[id])
                missing.pop(id, None)
    fold = cut.kept.fold()
    for id in list(missing):
        if id in fold.tasks:
            cut.facts.append(TaskCompleted(id, missing.pop(id)))
        elif id in fold.children:
            cut.facts.append(SubOrchestrationInstanceCompleted(id, missing.pop(id)))
            cut.calls = [call for call in cut.calls if call.task_id != id]
    if missing:
        raise InvalidArgumentError(
            f"task {min(missing)}: what is kept of the history of instance '{cut.kept.started.instance_id}' has no activity, sub-orchestration or "
            "operation with that id, whose result could be another; `replayflow history` shows the ids of tasks"
        )


def event_with_result(history: History, task_id: int) -> int | None:
    """The number of the event with which the task ended; None where none has."""
    for index, piece in enumerate(history.pieces):
        for place, event in enumerate(piece):
            if answered(event) == task_id:
                return history.number_of(index) + place + (0 if index else len(history.start))
    return None


def answered(event: HistoryEvent) -> int | None:
    """The id of the task that the event ends."""
    match event:
        case TaskCompleted() | TaskFailed() | SubOrchestrationInstanceCompleted() | SubOrchestrationInstanceFailed():
            return event.task_scheduled_id
        case EntityOperationCompleted() | EntityOperationFailed() if event.request_id.isdecimal():
            return int(event.request_id)
        case _:
            return None


def _answer_like(event: HistoryEvent, id: int, result: Payload) -> HistoryEvent:
    if isinstance(event, TaskCompleted | TaskFailed):
        return TaskCompleted(id, result)
    if isinstance(event, SubOrchestrationInstanceCompleted | SubOrchestrationInstanceFailed):
        return SubOrchestrationInstanceCompleted(id, result)
    return EntityOperationCompleted(str(id), result)
