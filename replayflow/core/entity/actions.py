"""What entities and their callers decide: messages to each other, and orchestrations that an entity starts.

One action has all messages, as in the Durable Task protocol (`SendEntityMessageAction`): it is the event that the sender's history records, and
knows the message that goes to the receiver. What is for an entity carries the entity's start, for the case that it is not there yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from replayflow.codec import Payload
from replayflow.core import events
from replayflow.core.commit import Message, Start
from replayflow.core.entity.ids import entity_name_of
from replayflow.core.events import (
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EntityOperationSignaled,
    EntityUnlockSent,
    ExecutionStarted,
    HistoryEvent,
)

EntityMessage: TypeAlias = (
    EntityOperationSignaled
    | EntityOperationCalled
    | EntityLockRequested
    | EntityUnlockSent
    | EntityOperationCompleted
    | EntityOperationFailed
    | EntityLockGranted
)


@dataclass(slots=True)
class SendEntityMessage:
    """The event is recorded, and goes to the entity or the orchestration that it is for."""

    event: EntityMessage

    @property
    def site(self) -> str:
        return getattr(self.event, "site", "")

    def record(self) -> EntityMessage:
        return self.event

    def fits(self, event: HistoryEvent) -> bool:
        return type(event) is type(self.event) and _what_is_asked(event) == _what_is_asked(self.event)

    def message(self, sender: ExecutionStarted, now: int, new_execution_id: Callable[[], str]) -> Message | None:
        """What goes to the receiver; None for the failure of a signal, which is for nobody."""
        event = self.event
        match event:
            case EntityOperationSignaled():
                assert event.target_instance_id is not None  # noqa: S101 - what is sent has a receiver
                return signal(
                    event.target_instance_id,
                    event.operation,
                    event.input,
                    event.scheduled_time_microseconds,
                    now,
                    new_execution_id(),
                    event.request_id,
                )
            case EntityOperationCalled():
                assert event.target_instance_id is not None  # noqa: S101 - as above
                received: EntityMessage = EntityOperationCalled(
                    -1,
                    event.request_id,
                    event.operation,
                    None,
                    event.input,
                    sender.instance_id,
                    sender.execution_id,
                )
                return _to_entity(event.target_instance_id, received, now, new_execution_id())
            case EntityLockRequested():
                received = EntityLockRequested(
                    -1,
                    event.critical_section_id,
                    event.lock_set,
                    event.position,
                    sender.instance_id,
                    sender.execution_id,
                )
                return _to_entity(event.lock_set[event.position], received, now, new_execution_id())
            case EntityUnlockSent():
                assert event.target_instance_id is not None  # noqa: S101 - as above
                return _release(event.target_instance_id, event.critical_section_id, sender)
            case EntityOperationCompleted():
                answer: EntityMessage = EntityOperationCompleted(event.request_id, event.output)
            case EntityOperationFailed():
                answer = EntityOperationFailed(event.request_id, event.failure_details)
            case EntityLockGranted():
                answer = EntityLockGranted(event.critical_section_id, event.position)
        if event.target_instance_id is None:
            return None
        return Message(event.target_instance_id, events.encode([answer]), execution_id=event.target_execution_id)


@dataclass(slots=True)
class SetEntityState:
    """The entity's state is the payload."""

    state: Payload

    def record(self) -> events.EntityStateSet:
        return events.EntityStateSet(self.state)


@dataclass(slots=True)
class ScheduleOrchestration:
    """An orchestration of its own begins; where the id is taken, nothing does."""

    instance_id: str
    name: str
    input: Payload
    version: str | None = None
    tags: dict[str, str] | None = None
    execution_id: str = ""

    def record(self) -> events.OrchestrationScheduled:
        return events.OrchestrationScheduled(
            self.instance_id, self.name, self.input, self.execution_id, self.version, self.tags
        )

    def start(self, now: int) -> Start:
        """The orchestration's first execution."""
        started = ExecutionStarted(
            name=self.name,
            input=self.input,
            instance_id=self.instance_id,
            execution_id=self.execution_id,
            version=self.version,
            tags=self.tags,
        )
        return Start(
            instance_id=self.instance_id,
            execution_id=self.execution_id,
            name=self.name,
            version=self.version,
            event=events.encode([started]),
            decoded=[started],
            created_at=now,
            tags=self.tags,
        )


@dataclass(slots=True)
class RemoveEntity:
    """The entity goes, with all that the store has of it, unless more has come for it."""

    def record(self) -> events.EntityFoundEmpty:
        return events.EntityFoundEmpty()


EntityAction: TypeAlias = SendEntityMessage | SetEntityState | ScheduleOrchestration | RemoveEntity


def signal(
    entity_id: str,
    operation: str,
    input: Payload,
    at: int | None,
    now: int,
    execution_id: str,
    request_id: str = "",
) -> Message:
    """A signal on its way to the entity; `execution_id` is that of the entity, where this is its first message."""
    return _to_entity(entity_id, EntityOperationSignaled(-1, request_id, operation, at, input), now, execution_id)


def releases(locks: dict[str, list[str]], holder: ExecutionStarted) -> Iterable[Message]:
    """What gives back all that an execution has of entities when it ends: locks that it holds, and places in line."""
    return [_release(entity_id, section, holder) for section, held in locks.items() for entity_id in held]


def _release(entity_id: str, section: str, holder: ExecutionStarted) -> Message:
    return Message(entity_id, events.encode([EntityUnlockSent(-1, section, holder.instance_id)]))


def _to_entity(entity_id: str, event: EntityMessage, now: int, execution_id: str) -> Message:
    name = f"@{entity_name_of(entity_id)}"
    started = ExecutionStarted(name=name, input=None, instance_id=entity_id, execution_id=execution_id)
    start = Start(
        instance_id=entity_id,
        execution_id=execution_id,
        name=name,
        version=None,
        event=events.encode([started]),
        decoded=[started],
        created_at=now,
    )
    return Message(entity_id, events.encode([event]), start=start)


def _what_is_asked(event: HistoryEvent) -> tuple[object, ...]:
    match event:
        case EntityOperationCalled() | EntityOperationSignaled():
            return event.event_id, event.operation
        case EntityLockRequested():  # what is locked has to be what is released: another list is another decision
            return event.event_id, event.position, event.lock_set
        case EntityUnlockSent():
            return event.event_id, event.target_instance_id
        case _:
            return (event.event_id,)
