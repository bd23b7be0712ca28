"""Instances from a store into an archive, and from an archive into an empty store.

1. What is exported of an instance was so at one moment, whatever its worker does meanwhile.
2. What is imported is written as it was written first: an execution's start, then one commit for each episode, with its time. The rows are not
   copied but follow from the histories (I1), so that they cannot contradict them.
3. Each instance is imported in one transaction. An import that is killed leaves whole instances, and a hub that is not empty: the next refuses it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from replayflow.archive.lines import Archived, ArchivedExecution, ArchivedMessage, whole_pieces
from replayflow.clock import Clock, to_datetime
from replayflow.core import events, rows
from replayflow.core.commit import Commit, Message, RowState, Start
from replayflow.core.events import CustomStatusSet, HistoryEvent, OrchestratorStarted, TaskScheduled
from replayflow.core.folding import folded
from replayflow.core.instance import Status
from replayflow.errors import InstanceNotFoundError, InvalidArgumentError, StoreCorruptError
from replayflow.store import Store
from replayflow.store.base import Create, InstanceFilter, Loaded, Operation, Owner, Park, Post

_OPERATIONS_PER_GROUP = 2_000


async def exported(store: Store, instance_id: str, execution_id: str | None = None) -> Archived | None:
    """The instance as it is now, with all its executions or, where one is named, with that alone; None where there is no such instance.

    Raises:
        InvalidArgumentError: it has no such execution.
        SealedError: it is encrypted, and the key is not at hand.
    """
    loaded = await store.load_whole(instance_id)
    if loaded is None:
        return None
    if loaded.problem is not None:
        raise loaded.problem
    record = loaded.record
    present = record.execution_id
    ids = [id for id in await store.executions(instance_id) if id != present]
    ids.append(present)  # even where another has followed since
    if execution_id is not None:
        check_execution(instance_id, execution_id, ids)
        ids = [execution_id]
    executions = []
    for id in ids:
        if id == present:
            executions.append(_execution_of(loaded))
        elif pieces := await store.history(instance_id, id, is_opened=True):
            executions.append(ArchivedExecution(id, events.decode(pieces[0]), [events.decode(p) for p in pieces[1:]]))
    is_now = ids[-1] == present
    return Archived(
        instance_id,
        record.created_at,
        executions,
        about={
            "name": record.name,
            **({} if record.version is None else {"version": record.version}),
            "status": str(record.status) if is_now else str(Status.CONTINUED_AS_NEW),
            **({} if record.completed_at is None else {"completed_at": to_datetime(record.completed_at).isoformat()}),
        },
        parent_id=record.parent_id,
        tags=record.tags,
        problem=None if record.problem is None or not is_now else record.problem.decode(),
        orphans=[] if record.orphans is None or not is_now else [*rows.decode_orphans(record.orphans)],
        messages=[
            ArchivedMessage(events.decode(delivery.event), delivery.execution_id, delivery.is_control)
            for delivery in (loaded.inbox if is_now else [])
            if delivery.event is not None
        ],
    )


def check_execution(instance_id: str, execution_id: str, present: Sequence[str]) -> None:
    """Returns where the execution is among those that the instance has.

    Raises:
        InstanceNotFoundError: it is not.
    """
    if execution_id not in present:
        raise InstanceNotFoundError(
            f"instance '{instance_id}' has no execution '{execution_id}'; it has {', '.join(present)}"
        )


def _execution_of(loaded: Loaded) -> ArchivedExecution:
    pieces = events.decode_pieces(loaded.pieces, loaded.piece_count)
    return ArchivedExecution(loaded.record.execution_id, events.decode(loaded.record.start), pieces)


def check(archived: Archived) -> None:
    """Returns where the instance can be imported.

    Raises:
        InvalidArgumentError: it contradicts itself.
    """
    _operations(archived)


async def imported(store: Store, archive: Iterable[Archived], clock: Clock) -> tuple[int, int]:
    """All instances of the archive are in the store, which was empty; returns how many, and how many of them have not finished.

    Raises:
        InvalidArgumentError: the store is not empty, and nothing was written; or an instance of the archive contradicts itself, and those before
            it may be written.
        HubOwnedError: a worker owns the hub.
    """
    epoch = await store.acquire(Owner(os.getpid(), socket.gethostname(), clock.now()))
    try:
        if (await store.page(InstanceFilter(), 1)).records:
            raise InvalidArgumentError(f"the hub {store.url} is not empty: import into a new file")
        count = unfinished = 0
        waiting: list[tuple[Archived, list[Operation]]] = []
        for archived in archive:
            operations, is_finished = _operations(archived)
            waiting.append((archived, operations))
            count += 1
            unfinished += not is_finished
            if sum(len(each) for _, each in waiting) >= _OPERATIONS_PER_GROUP:
                await _write(store, waiting, epoch)
                waiting = []
        await _write(store, waiting, epoch)
        return count, unfinished
    finally:
        await store.release()


async def _write(store: Store, instances: list[tuple[Archived, list[Operation]]], epoch: int) -> None:
    outcomes = iter(await store.write([operation for _, each in instances for operation in each], epoch))
    for archived, each in instances:
        for _ in each:
            error = next(outcomes).error
            if error is not None:
                raise InvalidArgumentError(f"instance '{archived.id}' cannot be imported: {error}")


def _operations(archived: Archived) -> tuple[list[Operation], bool]:
    """What writes the instance into a store that does not have it, and whether it has finished."""
    starts = [_start(archived, execution) for execution in archived.executions]
    operations: list[Operation] = [Create(starts[0])]
    sequence = 0
    row = RowState(Status.PENDING, starts[0].wake_at)
    for i, execution in enumerate(archived.executions):
        commits, row = _commits(archived, execution, sequence, is_present=execution is archived.present)
        if i + 1 < len(starts):
            if not commits or not (row.status.is_finished or row.status is Status.CONTINUED_AS_NEW):
                raise InvalidArgumentError(
                    f"instance '{archived.id}': execution '{execution.id}' has not ended, and another follows it"
                )
            commits[-1].next_start = starts[i + 1]
        operations += commits
        sequence += len(commits) + 1
    posts = [
        Post(Message(archived.id, events.encode(message.events), message.execution_id, message.is_control))
        for message in archived.messages
    ]
    # Who has finished takes no messages: what stands in its inbox came before the row showed the end.
    place = len(operations) - 1 if row.status.is_finished else len(operations)
    operations[place:place] = posts
    if archived.problem is not None:
        operations.append(Park(archived.id, archived.present.id, archived.problem.encode()))
    return operations, row.status.is_finished


def _start(archived: Archived, execution: ArchivedExecution) -> Start:
    started = execution.started
    return Start(
        instance_id=archived.id,
        execution_id=execution.id,
        name=started.name,
        version=started.version,
        event=events.encode(execution.start),
        created_at=archived.created_at,
        wake_at=started.scheduled_start_microseconds or 0,
        parent_id=archived.parent_id,
        tags=archived.tags,
    )


def _commits(
    archived: Archived, execution: ArchivedExecution, sequence: int, *, is_present: bool
) -> tuple[list[Commit], RowState]:
    """One commit for each episode, the last of which shows the row; and that row."""
    commits = [
        Commit(archived.id, execution.id, sequence + number, _time(piece), events.encode(piece))
        for number, piece in enumerate(execution.pieces, 1)
    ]
    row = RowState(Status.PENDING, execution.started.scheduled_start_microseconds or 0)
    orphans = [(owner, task) for owner, task in archived.orphans if is_present and isinstance(task, TaskScheduled)]
    if commits:
        try:
            instance = folded(whole_pieces(execution))
        except StoreCorruptError as error:
            raise InvalidArgumentError(f"instance '{archived.id}', execution '{execution.id}': {error}") from None
        changed = rows.changed(instance, row, commits[-1].at, orphans)
        row = changed or row
        commits[-1].state = row
    elif is_present:
        # It has not begun: its row shows what it was given to go on with, and what the execution before it still owes.
        status = next((e.custom_status for e in execution.start if isinstance(e, CustomStatusSet)), None)
        if orphans or status is not None:
            row = replace(row, custom_status=status, orphans=rows.encode_orphans(orphans))
            commits = [Commit(archived.id, execution.id, sequence + 1, archived.created_at, None, row)]
    return commits, row


def _time(piece: list[HistoryEvent]) -> int:
    first = piece[0]
    assert isinstance(first, OrchestratorStarted)  # noqa: S101 - by this event the pieces were parted
    return first.now_microseconds
