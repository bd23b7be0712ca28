"""Entities: operations, locks and states. What is sent has the sender's action id and a target; what is received, -1 and none."""

from __future__ import annotations

from datetime import datetime

from replayflow.clock import to_datetime
from replayflow.core.events.base import Decided, Fact, Payload, Unnumbered
from replayflow.errors import FailureDetails


class EntityOperationSignaled(Decided, tag=23):
    """An operation was asked for, and nobody waits for its result. It is performed at `scheduled_time`, where it has one."""

    request_id: str
    operation: str
    scheduled_time_microseconds: int | None = None
    input: Payload = None
    target_instance_id: str | None = None
    site: str = ""

    @property
    def scheduled_time(self) -> datetime | None:
        return None if self.scheduled_time_microseconds is None else to_datetime(self.scheduled_time_microseconds)


class EntityOperationCalled(Decided, tag=24):
    """An operation was asked for, and the parent waits for its result under `request_id`."""

    request_id: str
    operation: str
    scheduled_time_microseconds: int | None = None
    input: Payload = None
    parent_instance_id: str | None = None
    parent_execution_id: str | None = None
    target_instance_id: str | None = None
    site: str = ""


class EntityOperationCompleted(Fact, tag=25):
    """An operation that was called has its result. `target_instance_id` and `target_execution_id` (ours) say whom the entity told."""

    request_id: str
    output: Payload = None
    target_instance_id: str | None = None
    target_execution_id: str | None = None


class EntityOperationFailed(Fact, tag=26):
    """An operation failed and changed nothing. Without a target it was a signal, whose failure nobody waits for; `operation` (ours) names it."""

    request_id: str
    failure_details: FailureDetails
    target_instance_id: str | None = None
    target_execution_id: str | None = None
    operation: str = ""


class EntityLockRequested(Decided, tag=27):
    """A critical section asked for the lock of `lock_set[position]`; all requests of a section have one `event_id`."""

    critical_section_id: str
    lock_set: list[str]
    position: int
    parent_instance_id: str | None = None
    parent_execution_id: str | None = None
    site: str = ""


class EntityLockGranted(Fact, tag=28):
    """The critical section has the lock of its entity at `position` (ours)."""

    critical_section_id: str
    position: int = 0
    target_instance_id: str | None = None
    target_execution_id: str | None = None


class EntityUnlockSent(Decided, tag=29):
    """A critical section gave up the lock, or its place in the line for it."""

    critical_section_id: str
    parent_instance_id: str | None = None
    target_instance_id: str | None = None
    site: str = ""


class EntityStateSet(Unnumbered, tag=120):
    """The state of an entity after the operations of an episode; None where it has none any more."""

    state: Payload = None


class EntityLocked(Fact, tag=121):
    """Who holds the entity, where its execution continues another."""

    critical_section_id: str
    parent_instance_id: str
    parent_execution_id: str


class EntityRemovalRequested(Fact, tag=122):
    """The entity is removed if it is empty: no state, no lock, nothing that waits."""


class EntityFoundEmpty(Unnumbered, tag=124):
    """The entity had nothing to lose when it was asked to go: it goes, unless a message has come for it meanwhile."""


class OrchestrationScheduled(Unnumbered, tag=123):
    """An operation of an entity started an orchestration, which has no parent."""

    instance_id: str
    name: str
    input: Payload = None
    execution_id: str = ""
    version: str | None = None
    tags: dict[str, str] | None = None
