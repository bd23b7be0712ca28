"""The children of a map over an orchestrator: who they are, how they begin, what they tell their parent, how they are stopped.

Nothing is stored for each: ids follow from parent, map and number.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from replayflow.core import events, ids
from replayflow.core.commit import Message, Start
from replayflow.core.events import ExecutionStarted, HistoryEvent, MapItemFailed, MapProgress, ParentInstance
from replayflow.core.map.mapping import OpenMap
from replayflow.errors import FailureDetails


def starts(parent: ExecutionStarted, open: OpenMap, now: int) -> Iterator[Start]:
    """The children that begin with the event that was applied last."""
    for number in open.just_begun:
        yield start(parent, open, number, now)


def stops(
    parent: ExecutionStarted, open: OpenMap, event: HistoryEvent, *, is_control: bool = False
) -> Iterator[Message]:
    """The event, for every child that is at work."""
    encoded = events.encode([event])
    for number in sorted(open.at_work):
        instance_id, execution_id = identity(parent, open, number)
        yield Message(instance_id, encoded, execution_id=execution_id, is_control=is_control)


def report(parent: ParentInstance, output: events.Payload, failure: FailureDetails | None) -> MapProgress:
    """What a child tells its parent at its end."""
    number = parent.number or 0
    if failure is None:
        return MapProgress(parent.task_scheduled_id, [number], [output], [])
    return MapProgress(parent.task_scheduled_id, [], [], [MapItemFailed(number, 0, failure)])


def id_is_taken(instance_id: str) -> FailureDetails:
    """The failure of a child whose id another instance has."""
    return FailureDetails(
        type="InstanceExistsError",
        message=f"the id '{instance_id}' is taken by another instance: choose another, or leave it out",
        non_retryable=True,
        bases=("replayflow.errors.InstanceExistsError", "replayflow.errors.StateError"),
    )


def start(parent: ExecutionStarted, open: OpenMap, number: int, now: int) -> Start:
    """The start of the call's child; where its id is taken the parent is told so instead."""
    instance_id, execution_id = identity(parent, open, number)
    scheduled = open.scheduled
    whose = ParentInstance(parent.instance_id, parent.execution_id, open.id, parent.name, number=number)
    child = ExecutionStarted(
        name=scheduled.name,
        input=open.tally.calls.payload(number),
        instance_id=instance_id,
        execution_id=execution_id,
        version=scheduled.version,
        parent_instance=whose,
    )
    taken = report(whose, None, id_is_taken(instance_id))
    return Start(
        instance_id=instance_id,
        execution_id=execution_id,
        name=scheduled.name,
        version=scheduled.version,
        event=events.encode([child]),
        decoded=[child],
        created_at=now,
        parent_id=parent.instance_id,
        if_taken=Message(parent.instance_id, events.encode([taken]), execution_id=parent.execution_id),
    )


def identity(parent: ExecutionStarted, open: OpenMap, number: int) -> tuple[str, str]:
    """The instance and execution id of the child's present attempt."""
    if number in open.reassigned:
        return open.reassigned[number]
    attempt = open.attempts.get(number, 0) + 1
    of_map = ids.child_id(parent.instance_id, parent.execution_id, open.id, parent.is_first)
    instance_id = ids.attempt_id(of_map, number)
    if attempt > 1:
        instance_id = ids.attempt_id(instance_id, attempt)
    seed = f"{parent.execution_id}/{open.id}/{number}/{attempt}"
    return instance_id, sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()[:32]
