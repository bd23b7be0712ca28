"""Events in a few words."""

from __future__ import annotations

from replayflow.core.events.base import HistoryEvent
from replayflow.core.events.entities import (
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationSignaled,
    EntityUnlockSent,
)
from replayflow.core.events.executions import ExecutionCompleted, PatchMarked
from replayflow.core.events.maps import MapScheduled, MapStopped
from replayflow.core.events.messages import EventSent, InstanceAsked, InstanceStarted
from replayflow.core.events.tasks import (
    SubOrchestrationInstanceCreated,
    TaskCanceled,
    TaskScheduled,
    TimerCanceled,
    TimerCreated,
    ValueRecorded,
)


def describe(event: HistoryEvent) -> str:
    """The event as an error message or a history listing names it: what it is about, in a few words."""
    match event:
        case TaskScheduled():
            return f"activity '{event.name}' (task {event.event_id})"
        case SubOrchestrationInstanceCreated():
            return f"sub-orchestration '{event.name}' (task {event.event_id})"
        case MapScheduled():
            return f"map of '{event.name}' (task {event.event_id})"
        case TimerCreated():
            return f"timer (task {event.event_id})"
        case EventSent():
            return f"event '{event.name}' sent (task {event.event_id})"
        case TimerCanceled():
            return f"cancelling timer {event.timer_id}"
        case MapStopped():
            return f"stopping the map of task {event.task_scheduled_id}"
        case InstanceStarted():
            return f"instance '{event.instance_id}' of '{event.name}'"
        case InstanceAsked():
            whom = f"task {event.task_scheduled_id}" if event.task_scheduled_id else f"instance '{event.instance_id}'"
            return f"asking {whom} to {event.request}"
        case EntityOperationCalled():
            return f"operation '{event.operation}' of entity '{event.target_instance_id}' (task {event.event_id})"
        case EntityOperationSignaled():
            return f"signal '{event.operation}' to entity '{event.target_instance_id}' (task {event.event_id})"
        case EntityLockRequested():
            return f"lock of entity '{event.lock_set[event.position]}' (task {event.event_id})"
        case EntityUnlockSent():
            return f"release of entity '{event.target_instance_id}' (task {event.event_id})"
        case TaskCanceled():
            return f"cancelling task {event.task_scheduled_id}"
        case ValueRecorded():
            return f"recorded value '{event.name}' (task {event.event_id})"
        case PatchMarked():
            return f"patch '{event.name}'"
        case ExecutionCompleted():
            return f"the end, {event.orchestration_status}"
        case _:
            return type(event).__name__
