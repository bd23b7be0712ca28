"""Rewind: a failed instance goes on from before its failure, and with it the children that made it fail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from msgspec.structs import replace

from replayflow.chance import new_execution_id
from replayflow.client.access import Access
from replayflow.client.branching import Beginning, Draft, Source, read
from replayflow.codec.sealed import is_sealed, sealed_error
from replayflow.core import branches, events, rows
from replayflow.core.branches import Call
from replayflow.core.commit import Message
from replayflow.core.events import (
    ChildNow,
    ExecutionCancelRequested,
    ExecutionRewound,
    ExecutionStarted,
    ParentInstance,
    ParentRewound,
    TaskCompleted,
)
from replayflow.core.instance import Status
from replayflow.errors import InvalidStateError, ReplayflowError
from replayflow.store.base import InstanceRecord, Seen

_READINGS_MAX = 20
_PAUSE_SECONDS_MAX = 0.5


async def rewind(access: Access, instance_id: str, reason: str, at: int | None) -> None:
    """The instance goes on from before its failure, or from before the event; see `Instance.rewind`."""
    refused: ReplayflowError | None = None
    for reading in range(_READINGS_MAX):  # each time on what is there now: a worker may be at it
        rewinding = _Rewinding(access, reason)
        await rewinding.add(instance_id, at, new_execution_id(), None)
        refused = (await access.submit(rewinding.draft.operation())).error
        if refused is None:
            return
        if not isinstance(refused, InvalidStateError):
            break
        await asyncio.sleep(min(0.001 * 2**reading, _PAUSE_SECONDS_MAX))  # results of what it owes may come one by one
    assert refused is not None  # noqa: S101 - it was refused each time
    raise refused


class _Rewinding:
    """All the instances that one rewind is about, the parents before their children."""

    def __init__(self, access: Access, reason: str) -> None:
        self._access = access
        self._reason = reason
        self.draft = Draft()

    async def add(self, instance_id: str, at: int | None, execution_id: str, parent_execution_id: str | None) -> None:
        """The instance is rewound, under the execution id; its parent goes on under the other, where it is rewound, too."""
        source = await read(self._access, instance_id)
        record, history = source.record, source.history
        if record.status is not Status.FAILED:
            raise InvalidStateError(
                f"instance '{instance_id}' is {record.status}: only an instance that has failed can be rewound"
                f"{'; restart it, or fork it' if record.status.is_finished else ''}"
            )
        piece = branches.before_failure(history) if at is None else branches.before_event(history, at)
        cut = branches.rewound(history, piece, list(_results_for(source)))
        past = history.fold().started or history.started
        started = replace(
            past,
            execution_id=execution_id,
            parent_instance=_told(past.parent_instance, parent_execution_id),
            scheduled_start_microseconds=None,
            is_first=False,
            origins=cut.origins(history.started),
        )
        beginning = Beginning(cut, started, self._access.clock.now())
        for call in cut.calls:
            await self._see_to(call, beginning)
        self._give_up_others(source, cut.calls)
        mark = ExecutionRewound(self._reason, record.execution_id, cut.event, beginning.children)
        orphans = [] if record.orphans is None else rows.decode_orphans(record.orphans)
        beginning.add_to(self.draft, mark, source, record.execution_id, orphans)

    async def _see_to(self, call: Call, parent: Beginning) -> None:
        """The child goes on for the parent's new execution: as it is, rewound as well, or from its beginning where nothing is left of it."""
        record = await self._access.store.get(call.instance_id)
        is_child = record is not None and call.is_at(_started(record), parent.started.instance_id)
        if not call.had_its_turn and not (record and is_child and record.status in (Status.FAILED, Status.COMPLETED)):
            return
        if record is None or not is_child or (call.is_stopped and not record.status.is_finished):
            # An id that the source of a fork has called under is the source's: its child has it, or may get it back.
            id = parent.own_id(call) if _is_inherited(call, parent.started) else call.instance_id
            parent.begin_anew(call, id, self.draft)
        elif not record.status.is_finished:
            request = events.encode([ParentRewound(parent.started.instance_id, parent.started.execution_id)])
            self.draft.messages.append(Message(record.instance_id, request))
            self.draft.seen.append(Seen(record.instance_id))
            parent.children.append(ChildNow(call.task_id, record.instance_id, record.execution_id, call.number))
        elif record.status is Status.COMPLETED:
            if is_sealed(record.output):
                raise sealed_error(record.output or b"", f"result of instance '{record.instance_id}'")
            parent.cut.facts.append(call.answer(record.output))
            self.draft.seen.append(Seen(record.instance_id, record.execution_id))
        elif record.status is Status.FAILED:
            execution_id = new_execution_id()
            await self.add(record.instance_id, None, execution_id, parent.started.execution_id)
            parent.children.append(ChildNow(call.task_id, record.instance_id, execution_id, call.number))
        else:
            parent.begin_anew(call, parent.own_id(call), self.draft)

    def _give_up_others(self, source: Source, kept: list[Call]) -> None:
        """Children that were begun after the cut, and still run, are asked to end: what they do is done again."""
        ids = {call.instance_id for call in kept}
        for call in branches.running_calls(source.history):
            if call.instance_id not in ids:
                request = events.encode([ExecutionCancelRequested()])
                self.draft.messages.append(Message(call.instance_id, request, call.execution_id))


def _results_for(source: Source) -> Iterator[TaskCompleted]:
    """Results that came for the execution, and that its history has not taken in yet."""
    for delivery in source.came:
        if delivery.event is not None and delivery.execution_id == source.record.execution_id:
            yield from (event for event in events.decode(delivery.event) if isinstance(event, TaskCompleted))


def _started(record: InstanceRecord) -> ExecutionStarted:
    first = events.decode(record.start)[0]
    assert isinstance(first, ExecutionStarted)  # noqa: S101 - every execution begins with it
    return first


def _is_inherited(call: Call, started: ExecutionStarted) -> bool:
    """Whether the call was made by another instance, of which this one is a fork."""
    return any(
        origin.instance_id != started.instance_id and call.task_id <= origin.last_id for origin in started.origins or ()
    )


def _told(parent: ParentInstance | None, execution_id: str | None) -> ParentInstance | None:
    return parent if parent is None or execution_id is None else replace(parent, execution_id=execution_id)
