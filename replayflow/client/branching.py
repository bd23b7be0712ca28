"""Executions that begin with a past: what rewind and fork have in common. They read, work out one `Branch`, and write that or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from replayflow.chance import new_execution_id
from replayflow.client.access import Access
from replayflow.core import departures, events, ids, rows
from replayflow.core.branches import Call, Cut, History
from replayflow.core.commit import Message, RowState, Start
from replayflow.core.entity.actions import SendEntityMessage
from replayflow.core.events import (
    ChildNow,
    CustomStatusSet,
    ExecutionForked,
    ExecutionRewound,
    ExecutionStarted,
    HistoryEvent,
    OrchestratorStarted,
    TaskScheduled,
)
from replayflow.core.instance import Instance as Fold
from replayflow.core.instance import Status
from replayflow.core.map import children as map_children
from replayflow.core.signatures import OWN_PREFIX
from replayflow.errors import InvalidArgumentError
from replayflow.store.base import Branch, Branched, Delivery, InstanceRecord, Seen

Orphan = tuple[str, TaskScheduled]


@dataclass(slots=True)
class Draft:
    """A `Branch` in the making."""

    executions: list[Branched] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)

    def operation(self) -> Branch:
        return Branch(self.executions, self.seen, self.starts, self.messages)


@dataclass(slots=True)
class Source:
    """An instance as it was read at one moment, with the history of one of its executions."""

    record: InstanceRecord
    history: History
    last: int
    """The number of its last piece."""
    came: Sequence[Delivery] = ()
    """What stands in its inbox."""


async def read(access: Access, instance_id: str, execution_id: str | None = None) -> Source:
    """The instance with the history of the execution, of the present one without an id.

    Raises:
        InstanceNotFoundError: there is no such instance, or no such execution.
        InvalidArgumentError: it is one of ours, a schedule.
        SealedError: a value of it is sealed, and the key is not at hand.
    """
    loaded = await access.store.load_whole(instance_id)
    if loaded is None:
        await access.record(instance_id)
        raise AssertionError("an instance that is there can be loaded")
    if loaded.problem is not None:
        raise loaded.problem
    record = loaded.record
    if record.name.startswith(OWN_PREFIX):
        raise InvalidArgumentError(f"'{instance_id}' is an orchestration of replayflow's own, and has verbs of its own")
    if execution_id is not None and execution_id != record.execution_id:
        start, *pieces = await access.pieces(instance_id, execution_id, is_opened=True)
        return Source(record, History(events.decode(start), [events.decode(piece) for piece in pieces]), 0)
    history = History(events.decode(record.start), events.decode_pieces(loaded.pieces, loaded.piece_count))
    return Source(record, history, record.start_number + loaded.piece_count, loaded.inbox)


class Beginning:
    """An execution that begins with what a cut has kept. `children` are noted while its sub-orchestrations are seen to."""

    def __init__(self, cut: Cut, started: ExecutionStarted, now: int) -> None:
        self.cut = cut
        self.started = started
        last = cut.kept.pieces[-1][0] if cut.kept.pieces else None
        # Later than all that is kept, whatever the clocks say: by its time an episode is told from those that were another's.
        self.now = max(now, last.now_microseconds + 1) if isinstance(last, OrchestratorStarted) else now
        self.fold: Fold = cut.kept.fold(started)
        self.children: list[ChildNow] = []

    def begin_anew(self, call: Call, instance_id: str, draft: Draft) -> None:
        """A child that has never been begins at the call."""
        if call.created is None:
            open = self.fold.maps[call.task_id]
            assert call.number is not None  # noqa: S101 - a call is one of a map, or has its record
            draft.starts.append(map_children.start(self.started, open, call.number, self.now))
            return
        execution_id = new_execution_id()
        draft.starts.append(departures.child_start(self.fold, call.created, instance_id, execution_id, self.now))
        self.children.append(ChildNow(call.task_id, instance_id, execution_id))

    def own_id(self, call: Call) -> str:
        """An id for a child at the call that no other has."""
        return ids.child_id(self.started.instance_id, self.started.execution_id, call.task_id, False)

    def add_to(
        self,
        draft: Draft,
        mark: ExecutionRewound | ExecutionForked,
        source: Source,
        replaces: str | None,
        orphans: list[Orphan],
    ) -> None:
        """The execution is part of the draft, with what it is told first. `mark` is the fact that it begins so."""
        started, pieces = self.started, [*self.cut.kept.pieces]
        start: list[HistoryEvent] = [
            started,
            *(e for e in self.cut.kept.start[1:] if not isinstance(e, ExecutionRewound | ExecutionForked)),
        ]
        if pieces:
            pieces.append([OrchestratorStarted(self.now), mark])
            self.fold.apply_all(pieces[-1])
        else:
            start.append(mark)
        owed = [
            (by, task)
            for by, task in orphans
            if by != source.record.execution_id or task.event_id not in self.fold.tasks
        ]
        custom_status = next((e.custom_status for e in start if isinstance(e, CustomStatusSet)), None)
        state = RowState(Status.PENDING, 0, custom_status, orphans=rows.encode_orphans(owed))
        if pieces:
            state = rows.changed(self.fold, state, self.now, owed) or state
        draft.executions.append(
            Branched(
                Start(
                    instance_id=started.instance_id,
                    execution_id=started.execution_id,
                    name=started.name,
                    version=started.version,
                    event=events.encode(start),
                    created_at=self.now,
                    parent_id=source.record.parent_id if replaces is not None else None,
                    tags=started.tags,
                ),
                [(_time_of(piece), events.encode(piece)) for piece in pieces],
                state,
                replaces,
                source.last,
                max((delivery.number for delivery in source.came), default=0),
            )
        )
        for called in self.cut.asks:
            asked = SendEntityMessage(called).message(started, self.now, new_execution_id)
            if asked is not None:
                draft.messages.append(asked)
        if self.cut.facts:
            told = events.encode(self.cut.facts)
            draft.messages.append(Message(started.instance_id, told, started.execution_id, is_control=True))


def _time_of(piece: list[HistoryEvent]) -> int:
    begins = piece[0]
    assert isinstance(begins, OrchestratorStarted)  # noqa: S101 - every piece begins with its time
    return begins.now_microseconds
