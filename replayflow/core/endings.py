"""The end of an execution: who is told, what is still owed, and what begins in its place."""

from __future__ import annotations

from typing import Any

from replayflow.core import events
from replayflow.core.actions import CompleteOrchestration
from replayflow.core.commit import Message, Start
from replayflow.core.departures import cancel, stop_map, told
from replayflow.core.entity.actions import releases
from replayflow.core.events import (
    CustomStatusSet,
    ExecutionReplaced,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    ParentInstance,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    TaskScheduled,
)
from replayflow.core.instance import CANCELED, CONTINUED_AS_NEW, TERMINATED, Instance, Status
from replayflow.core.map import children as map_children
from replayflow.core.outcome import Episode
from replayflow.errors import FailureDetails


def finish(instance: Instance, episode: Episode, chunk: list[HistoryEvent]) -> None:
    """Whoever waits for the execution is told, locks are given back, and what it had under way is stopped as its end wants it."""
    started = instance.started
    assert started is not None  # noqa: S101 - what ends has started
    parent = started.parent_instance
    if parent is not None and instance.status is not CONTINUED_AS_NEW:
        episode.messages.append(report(instance, started, parent))
    if instance.locks:
        episode.messages.extend(releases(instance.locks, started))
    if instance.status is TERMINATED:
        _terminate_children(instance, episode, chunk)
        episode.canceled.extend(instance.tasks)
    elif instance.status is CANCELED:
        for id in [*instance.children, *instance.maps]:
            cancel(instance, id, episode)
        last = {task.event_id for task in episode.scheduled}
        episode.canceled.extend(id for id in instance.tasks if id not in last)


def owed(instance: Instance, episode: Episode, execution_id: str) -> list[tuple[str, TaskScheduled]]:
    """Activities that were scheduled before the end, and still run (I4); a retry is owed to nobody any more.

    One that was cancelled is owed what its clean-up asked for last, one that was terminated nothing.
    """
    if not instance.tasks or instance.status is TERMINATED:
        return []
    tasks = episode.scheduled if instance.status is CANCELED else list(instance.tasks.values())
    open = (task for task in tasks if task.event_id in instance.tasks)
    return [(execution_id, task) for task in open if task.event_id not in instance.attempts]


def report(instance: Instance, started: ExecutionStarted, parent: ParentInstance) -> Message:
    """What the parent is told of the end."""
    if parent.event:
        return told(parent, started.instance_id, instance.status)
    told_of: HistoryEvent
    details: FailureDetails | None = None
    if instance.status is not Status.COMPLETED:
        details = instance.failure or FailureDetails(
            type="OrchestrationTerminated" if instance.status is TERMINATED else "OrchestrationCanceled",
            message=f"'{started.instance_id}' was {instance.status.lower()}",
            non_retryable=True,
        )
    if parent.number is not None:
        told_of = map_children.report(parent, instance.output, details)
    elif details is None:
        told_of = SubOrchestrationInstanceCompleted(parent.task_scheduled_id, instance.output)
    else:
        told_of = SubOrchestrationInstanceFailed(parent.task_scheduled_id, details)
    return Message(parent.instance_id, events.encode([told_of]), execution_id=parent.execution_id)


def tell_again(instance: Instance, episode: Episode) -> None:
    """The parent is told of an end that was before it went on in another execution."""
    started = instance.started
    if started is not None and started.parent_instance is not None and instance.status is not Status.CONTINUED_AS_NEW:
        episode.messages.append(report(instance, started, started.parent_instance))


def _terminate_children(instance: Instance, episode: Episode, chunk: list[HistoryEvent]) -> None:
    asked = next((event for event in chunk if isinstance(event, ExecutionTerminated | ExecutionReplaced)), None)
    if asked is None or (isinstance(asked, ExecutionTerminated) and not asked.recurse):
        return
    for child in instance.children.values():
        episode.messages.append(
            Message(
                child.instance_id,
                events.encode([ExecutionTerminated(asked.input)]),
                execution_id=child.execution_id,
                is_control=True,
            )
        )
    for open in instance.maps.values():
        stop_map(instance, open, episode, ExecutionTerminated(asked.input), is_control=True)


def continuation(
    instance: Instance, action: CompleteOrchestration, now: int, execution_id: str, chunk: list[HistoryEvent]
) -> Start:
    """The start of the execution that continues this one."""
    past = instance.started
    assert past is not None  # noqa: S101 - what continues has started
    started = ExecutionStarted(
        name=past.name,
        input=action.result,
        instance_id=past.instance_id,
        execution_id=execution_id,
        version=action.new_version,
        parent_instance=past.parent_instance,
        tags=past.tags,
        is_first=False,
    )
    carried: list[HistoryEvent] = [started]
    if instance.custom_status is not None:
        carried.append(CustomStatusSet(instance.custom_status))
    carried.extend(action.carryover_events)
    if instance.status is Status.SUSPENDED:  # since the code ended, in this episode
        carried.append(next(event for event in reversed(chunk) if type(event) is ExecutionSuspended))
    return Start(
        instance_id=past.instance_id,
        execution_id=execution_id,
        name=past.name,
        version=action.new_version,
        event=events.encode(carried),
        created_at=now,
        tags=past.tags,
    )


def replacement(replaced: ExecutionReplaced, now: int) -> Start:
    """The start of the execution that takes the place of this one."""
    started: Any = events.decode(replaced.start)[0]
    return Start(
        instance_id=started.instance_id,
        execution_id=started.execution_id,
        name=started.name,
        version=started.version,
        event=replaced.start,
        created_at=now,
        wake_at=started.scheduled_start_microseconds or 0,
        tags=started.tags,
    )
