"""What leaves an instance with a commit: executions that begin, and messages to others."""

from __future__ import annotations

from collections.abc import Callable

from replayflow.codec import Codec
from replayflow.core import events, ids
from replayflow.core.actions import StartInstance
from replayflow.core.commit import Message, Start
from replayflow.core.entity.actions import SendEntityMessage
from replayflow.core.events import (
    EventRaised,
    EventSent,
    ExecutionCancelRequested,
    ExecutionStarted,
    ExecutionTerminated,
    HistoryEvent,
    InstanceAsked,
    ParentInstance,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    SubOrchestrationRetried,
)
from replayflow.core.instance import Instance
from replayflow.core.map import children as map_children
from replayflow.core.map.mapping import OpenMap
from replayflow.core.outcome import Episode

_codec = Codec()


def retried(instance: Instance, task_id: int, new_execution_id: Callable[[], str]) -> SubOrchestrationRetried | None:
    """The event with which the next attempt of a sub-orchestration begins; None where it is no longer wanted."""
    child = instance.children.get(task_id)
    if child is None or task_id not in instance.retrying_children:
        return None
    attempt = child.attempt + 1
    return SubOrchestrationRetried(
        task_id, attempt, ids.attempt_id(child.base_id or child.created.instance_id, attempt), new_execution_id()
    )


def child_start(
    instance: Instance, created: SubOrchestrationInstanceCreated, instance_id: str, execution_id: str, now: int
) -> Start:
    """The start of a sub-orchestration; where its id is taken its parent is told so instead."""
    parent = instance.started
    assert parent is not None  # noqa: S101 - an execution that decides has started
    child = ExecutionStarted(
        name=created.name,
        input=created.input,
        instance_id=instance_id,
        execution_id=execution_id,
        version=created.version,
        parent_instance=ParentInstance(parent.instance_id, parent.execution_id, created.event_id, parent.name),
        tags=created.tags,
    )
    taken = map_children.id_is_taken(instance_id)
    return Start(
        instance_id=instance_id,
        execution_id=execution_id,
        name=created.name,
        version=created.version,
        event=events.encode([child]),
        decoded=[child],
        created_at=now,
        parent_id=parent.instance_id,
        tags=created.tags,
        if_taken=Message(
            parent.instance_id,
            events.encode([SubOrchestrationInstanceFailed(created.event_id, taken)]),
            execution_id=parent.execution_id,
        ),
    )


def detached_start(instance: Instance, action: StartInstance, now: int) -> Start:
    """The start of an instance that nobody waits for, as a schedule starts its runs."""
    starter = instance.started
    assert starter is not None  # noqa: S101 - an execution that decides has started
    whom = None
    if action.end_event:
        whom = ParentInstance(starter.instance_id, "", 0, starter.name, action.end_event)
    started = ExecutionStarted(
        name=action.name,
        input=action.input,
        instance_id=action.instance_id,
        execution_id=action.execution_id,
        version=action.version,
        parent_instance=whom,
        tags=action.tags,
    )
    return Start(
        instance_id=action.instance_id,
        execution_id=action.execution_id,
        name=action.name,
        version=action.version,
        event=events.encode([started]),
        decoded=[started],
        created_at=now,
        tags=action.tags,
        if_taken=None if whom is None else told(whom, action.instance_id, "TAKEN"),
    )


def told(whom: ParentInstance, instance_id: str, status: str) -> Message:
    """The event with which an instance that is told of ends and refusals learns of one."""
    payload = _codec.encode([instance_id, status])
    return Message(whom.instance_id, events.encode([EventRaised(whom.event, payload)]))


def ask(instance: Instance, event: InstanceAsked, episode: Episode) -> None:
    """The request to another instance is among the messages."""
    if event.task_scheduled_id:
        child = instance.children.get(event.task_scheduled_id)
        if child is None or event.task_scheduled_id in instance.retrying_children:
            return
        message = Message(
            child.instance_id, events.encode([ExecutionCancelRequested()]), execution_id=child.execution_id
        )
    elif event.request == "terminate":
        message = Message(event.instance_id, events.encode([ExecutionTerminated()]), is_control=True)
    else:
        message = Message(event.instance_id, events.encode([ExecutionCancelRequested()]))
    episode.messages.append(message)


def sent(event: EventSent) -> Message:
    """The event on its way to the other instance."""
    return Message(
        event.instance_id,
        events.encode([EventRaised(event.name, event.input)]),
        about=f"event '{event.name}', sent at {event.site}",
    )


def send_entity_message(
    instance: Instance, action: SendEntityMessage, episode: Episode, now: int, new_execution_id: Callable[[], str]
) -> None:
    """The call, signal or request for a lock is among the messages, where there is anybody to send it to."""
    sender = instance.started
    assert sender is not None  # noqa: S101 - an execution that decides has started
    message = action.message(sender, now, new_execution_id)
    if message is not None:
        episode.messages.append(message)


def cancel(instance: Instance, task_id: int, episode: Episode) -> None:
    """The open task is given up: an activity is cancelled, a child is asked to end itself."""
    child = instance.children.get(task_id)
    open = instance.maps.get(task_id)
    if open is not None:
        stop_map(instance, open, episode, ExecutionCancelRequested())
    elif child is None:
        episode.canceled.append(task_id)
    elif task_id not in instance.retrying_children:
        episode.messages.append(
            Message(
                child.instance_id,
                events.encode([ExecutionCancelRequested()]),
                execution_id=child.execution_id,
            )
        )


def stop_map(
    instance: Instance, open: OpenMap, episode: Episode, event: HistoryEvent, *, is_control: bool = False
) -> None:
    """The children of the map are asked to end."""
    parent = instance.started
    assert parent is not None  # noqa: S101 - what has a map has started
    episode.mapped.append(open)
    episode.messages.extend(map_children.stops(parent, open, event, is_control=is_control))


def follow_map(instance: Instance, open: OpenMap, episode: Episode, now: int) -> None:
    """Children of the map begin where there are places, or are stopped where it is over."""
    parent = instance.started
    assert parent is not None  # noqa: S101 - what has a map has started
    if open.is_closed:
        episode.messages.extend(map_children.stops(parent, open, ExecutionCancelRequested()))
    else:
        episode.starts.extend(map_children.starts(parent, open, now))
