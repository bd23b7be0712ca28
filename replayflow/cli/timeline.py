"""A history for people: what each event is about, in a few words, the line of code that decided it, and its value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from replayflow.cli import values
from replayflow.core import events
from replayflow.core.events import HistoryEvent
from replayflow.core.map.mapping import NEVER

_SHOWN_MAX = 5


def task_of(event: HistoryEvent) -> str:
    """The id of the task that the event begins or ends; nothing where it is about none."""
    id = getattr(event, "task_scheduled_id", getattr(event, "timer_id", event.event_id))
    return str(id) if id > 0 else ""


def about(event: HistoryEvent, scheduled: Mapping[int, HistoryEvent]) -> tuple[str, str, str]:
    """What the event is about, the source line, and its value in one line."""
    return _subject(event, scheduled), _line(event), _value(event)


def _subject(event: HistoryEvent, scheduled: Mapping[int, HistoryEvent]) -> str:
    match event:
        case events.ExecutionCompleted():
            return event.orchestration_status
        case events.ExecutionRewound():
            return f"to before event {event.from_event} of execution {event.execution_id[:8]}"
        case events.ExecutionForked():
            return f"from event {event.to_event} of {event.instance_id}, execution {event.execution_id[:8]}"
        case events.ParentRewound():
            return f"{event.instance_id}, now execution {event.execution_id[:8]}"
        case events.SagaUndone():
            return f"what was asked for since task {event.first_id}"
        case events.TaskAttemptFailed() | events.CompensationFailed() | events.SubOrchestrationAttemptFailed():
            return f"{_name(event.task_scheduled_id, scheduled)}, attempt {event.attempt}"
        case events.HeartbeatRecorded():
            call = "" if event.call is None else f", call {event.call}"
            return f"{_name(event.task_scheduled_id, scheduled)}{call}, attempt {event.attempt}"
        case events.SubOrchestrationRetried():
            return f"{_name(event.task_scheduled_id, scheduled)}, attempt {event.attempt}: {event.instance_id}"
        case events.MapScheduled():
            return f"{event.name}, {f'pages of {event.pages}' if event.pages else f'{event.count:,} items'}"
        case events.MapProgress():
            return f"{_name(event.task_scheduled_id, scheduled)}: {_came_to(event)}"
        case events.MapPage():
            return f"{_name(event.task_scheduled_id, scheduled)}: page {event.number}, {event.count:,} items"
        case events.MapRetried():
            return f"{_name(event.task_scheduled_id, scheduled)}: {len(event.numbers):,} tried again"
        case events.SubOrchestrationInstanceCreated() | events.EventSent():
            return f"{event.name}: {event.instance_id}"
        case events.EntityOperationSignaled() | events.EntityOperationCalled():
            return f"{event.operation}: {event.target_instance_id}" if event.target_instance_id else event.operation
        case events.EntityLockRequested():
            return event.lock_set[event.position]
        case events.EntityUnlockSent() if event.target_instance_id:
            return event.target_instance_id
        case events.EntityOperationCompleted() | events.EntityOperationFailed() if event.request_id.isdecimal():
            return event.target_instance_id or _asked(int(event.request_id), scheduled)
    name = getattr(event, "name", None)
    if isinstance(name, str):
        return name
    return _name(getattr(event, "task_scheduled_id", -1), scheduled)


def _name(task_id: int, scheduled: Mapping[int, HistoryEvent]) -> str:
    return str(getattr(scheduled.get(task_id), "name", ""))


def _came_to(event: events.MapProgress) -> str:
    """How many calls of a map ended in which way."""
    given_up = sum(failure.retry_at_microseconds == NEVER for failure in event.failures)
    waiting = sum(failure.retry_at_microseconds is not None for failure in event.failures) - given_up
    counts = {
        "done": len(event.numbers),
        "to be tried again": waiting,
        "given up": given_up,
        "failed": len(event.failures) - waiting - given_up,
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def _asked(task_id: int, scheduled: Mapping[int, HistoryEvent]) -> str:
    return str(getattr(scheduled.get(task_id), "operation", ""))


def _line(event: HistoryEvent) -> str:
    return str(getattr(event, "site", "")).rpartition("/")[2]


def _value(event: HistoryEvent) -> str:
    failure = getattr(event, "failure_details", None)
    if failure is not None:
        return values.one_line(str(failure))
    if isinstance(event, events.ExecutionRewound | events.ExecutionForked):
        return values.one_line(event.reason)
    if isinstance(event, events.MapProgress):
        first = next(iter(event.failures), None)
        return _first(event.results) if first is None else values.one_line(str(first.failure_details))
    if isinstance(event, events.MapScheduled | events.MapPage):
        return _first(event.items)
    if isinstance(event, events.TimerCreated | events.TimerFired):
        return f"{values.moment(event.fire_at)} UTC"
    for field in ("input", "result", "custom_status", "output", "state", "value", "detail"):
        if getattr(event, field, None) is not None:
            return values.one_line(values.text_of(getattr(event, field)))
    return ""


def _first(several: Sequence[object]) -> str:
    """The first few of the values: there may be a million."""
    shown = values.one_line(values.plain(list(several[:_SHOWN_MAX])))
    return shown if len(several) <= _SHOWN_MAX else f"{shown[:-1]}, ...]"
