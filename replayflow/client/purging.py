"""Purging from the client's side: batch by batch, the leaves of a tree before its trunk (docs/decisions/0013-purge-and-retention.md).

1. No more than a page for each level of a tree is in memory.
2. A parent goes after the finished instances that it started: after a crash in the middle the same call finds the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from msgspec.structs import replace

from replayflow.client.access import Access
from replayflow.client.waits import past_of
from replayflow.core import events, rows
from replayflow.core.folding import folded
from replayflow.core.instance import Status
from replayflow.errors import StateError, StoreCorruptError
from replayflow.store.base import Finished, InstanceFilter, Lost, Purge, Unread, why_it_stays

PURGED_TOGETHER = 200
_FINISHED = frozenset(status for status in Status if status.is_finished)


async def purge_one(access: Access, instance_id: str, now: int, *, recursive: bool) -> int:
    """The instance has gone, with what it started and has finished, too, where that is wanted; returns how many went.

    Raises:
        InstanceNotFoundError: there is none.
        InvalidStateError: it has not finished, or owes the run of an activity; nothing was changed.
    """
    record = await access.record(instance_id)
    refusal = why_it_stays(instance_id, record.status, owes=record.orphans is not None)
    if refusal is not None:
        raise refusal
    trunk = Finished(instance_id, record.execution_id)
    gone = 0
    if recursive:
        gone = await _purge_below(access, [trunk], now)
    outcome = await access.submit(Purge(instance_id, record.execution_id, now))
    if outcome.error is not None:
        raise outcome.error
    return gone + 1


async def purge_damaged(access: Access, instance_id: str, now: int) -> Lost:
    """The damaged instance has gone, whatever its status was; returns what went with it.

    Raises:
        InstanceNotFoundError: there is none.
        InvalidStateError: it can be read.
    """
    return await access.store.remove_damaged(instance_id, now, await _unread(access, instance_id))


async def _unread(access: Access, instance_id: str) -> Unread | None:
    """The instance as something that nobody can make sense of, though it reads back as it was written; None where that is not so."""
    try:
        loaded = await access.store.load_whole(instance_id)
    except StoreCorruptError:
        return None  # it does not read back so, which the store sees for itself
    if loaded is None:
        return None
    record = loaded.record
    try:
        events.decode(record.start)
        folded(past_of(loaded))
        if record.orphans is not None:
            rows.decode_orphans(record.orphans)
        for delivery in loaded.inbox:
            if delivery.event is not None:
                events.decode(delivery.event)
    except StoreCorruptError as error:
        return Unread(record.execution_id, loaded.piece_count, str(error))
    return None


async def purge_every(access: Access, wanted: InstanceFilter, now: int, *, recursive: bool) -> int:
    """What fits and had finished by now has gone; returns how many went. What cannot go is passed over."""
    gone = 0
    async for batch in finished_batches(access, wanted, now):
        if recursive:
            gone += await _purge_below(access, batch, now)
        gone += len(await _purge_batch(access, batch, now))
    return gone


async def finished_batches(access: Access, wanted: InstanceFilter, now: int) -> AsyncIterator[list[Finished]]:
    """The instances that fit and may be purged, a page at a time. One that finishes only later does not count, or a busy hub would never end."""
    before = now + 1 if wanted.completed_to is None else min(now + 1, wanted.completed_to)
    statuses = _FINISHED if wanted.statuses is None else wanted.statuses & _FINISHED
    wanted = replace(wanted, statuses=statuses, completed_to=before)
    cursor: str | None = None
    while True:
        page = await access.store.page(wanted, PURGED_TOGETHER, cursor)
        batch = [
            Finished(record.instance_id, record.execution_id)
            for record in page.records
            if record.orphans is None and record.damage is None
        ]
        if batch:
            yield batch
        cursor = page.cursor
        if cursor is None:
            return


async def _purge_below(access: Access, trunks: Sequence[Finished], now: int) -> int:
    """What these have started, and what that has started, has gone as far as it has finished; returns how many went."""
    levels = [trunks]
    staying: set[str] = set()
    gone = 0
    while True:
        met = staying.union(*((each.instance_id for each in level) for level in levels))
        found = await access.store.children([each.instance_id for each in levels[-1]], PURGED_TOGETHER)
        children = [child for child in found if child.instance_id not in met]
        if children:
            levels.append(children)
        elif len(levels) == 1:
            return gone
        else:
            level = levels.pop()
            purged = await _purge_batch(access, level, now)
            gone += len(purged)
            staying.update(each.instance_id for each in level if each.instance_id not in purged)


async def _purge_batch(access: Access, batch: Sequence[Finished], now: int) -> set[str]:
    """The ids of those that have gone; one that has changed since it was found stays."""
    outcomes = await asyncio.gather(*(access.submit(Purge(each.instance_id, each.execution_id, now)) for each in batch))
    for outcome in outcomes:
        if outcome.error is not None and not isinstance(outcome.error, StateError):
            raise outcome.error
    return {each.instance_id for each, outcome in zip(batch, outcomes, strict=True) if outcome.error is None}
