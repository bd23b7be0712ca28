"""What comes again where a history was cut: what came from outside since, and is still wanted."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from replayflow.core import events
from replayflow.core.branches.calls import open_calls
from replayflow.core.branches.history import Cut
from replayflow.core.branches.results import answered
from replayflow.core.events import (
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EventRaised,
    ExecutionCancelRequested,
    ExecutionResumed,
    HistoryEvent,
    MapPage,
    MapProgress,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TimerFired,
    describe,
)
from replayflow.core.instance import Instance, Status
from replayflow.errors import InvalidStateError


def tell(cut: Cut, fold: Instance, rest: Sequence[HistoryEvent], *, keeps_failures: bool) -> None:
    _refuse_open_section(cut, fold)
    asked = _open_operations(cut)
    if fold.status is Status.SUSPENDED and not keeps_failures:
        cut.facts.append(ExecutionResumed())
    for event in rest:
        match event:
            case TaskCompleted() if event.task_scheduled_id in fold.tasks:
                cut.facts.append(event)
            case SubOrchestrationInstanceCompleted() if event.task_scheduled_id in fold.children:
                cut.facts.append(event)
            case TaskFailed() if keeps_failures and event.task_scheduled_id in fold.tasks:
                cut.facts.append(event)
            case SubOrchestrationInstanceFailed() if keeps_failures and event.task_scheduled_id in fold.children:
                cut.facts.append(event)
            case MapProgress() if event.task_scheduled_id in fold.maps:
                failures = event.failures if keeps_failures else []
                if event.numbers or failures:
                    cut.facts.append(replace(event, failures=failures))
            case MapPage() if event.task_scheduled_id in fold.maps:
                cut.facts.append(event)
            case TimerFired() if event.timer_id in fold.timers:
                cut.facts.append(event)
            case EntityOperationCompleted() if event.request_id in asked:
                cut.facts.append(event)
            case EntityOperationFailed() if event.request_id in asked:
                if keeps_failures:
                    cut.facts.append(event)
                else:
                    cut.asks.append(asked[event.request_id])
            case EventRaised() | ExecutionCancelRequested():
                cut.facts.append(event)
            case _:
                pass
    cut.calls = list(open_calls(fold, cut.facts))


def _refuse_open_section(cut: Cut, fold: Instance) -> None:
    for section in fold.locks or {}:
        held = (fold.locks or {})[section]
        if held:
            first = next(
                e.site
                for piece in cut.kept.pieces
                for e in piece
                if isinstance(e, events.EntityLockRequested) and e.critical_section_id == section
            )
            begun = next(
                i
                for i, piece in enumerate(cut.kept.pieces)
                if any(isinstance(e, events.EntityLockRequested) and e.critical_section_id == section for e in piece)
            )
            raise InvalidStateError(
                f"instance '{cut.kept.started.instance_id}', event {cut.event}: it lies inside the critical section that was begun at {first}, whose "
                f"locks of {', '.join(held)} were given back when the instance ended; event {cut.kept.number_of(begun)} is the last before it: "
                "from there the section happens again as a whole, with what it asks of its entities"
            )


def _open_operations(cut: Cut) -> dict[str, EntityOperationCalled]:
    """The operations of entities that have no answer in what is kept, by request."""
    asked: dict[str, EntityOperationCalled] = {}
    for piece in cut.kept.pieces:
        for event in piece:
            if isinstance(event, EntityOperationCalled) and event.event_id > 0:
                asked[event.request_id] = event
            elif isinstance(event, EntityOperationCompleted | EntityOperationFailed):
                asked.pop(event.request_id, None)
    return asked


def answer_operations(cut: Cut, later: Sequence[HistoryEvent]) -> None:
    """Operations of entities are not asked for twice: those that are open where the history is cut have their answers from its rest.

    Raises:
        InvalidStateError: there is none, so that nobody knows whether the operation was performed.
    """
    told = {answered(event) for event in cut.facts} | {called.event_id for called in cut.asks}
    answers = {
        answered(event): event for event in later if isinstance(event, EntityOperationCompleted | EntityOperationFailed)
    }
    for called in _open_operations(cut).values():
        if called.event_id in told:
            continue
        if called.event_id not in answers:
            raise InvalidStateError(
                f"instance '{cut.kept.started.instance_id}': {describe(called)}, asked for at {called.site}, has no answer in the history, so that "
                "nobody knows whether it was performed: name an event before it"
            )
        cut.facts.append(answers[called.event_id])
