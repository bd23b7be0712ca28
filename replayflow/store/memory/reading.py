"""Reading what is kept: functions on all instances of the store, at one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from replayflow.core.instance import Status
from replayflow.store.incoming import Incoming
from replayflow.store.memory.kept import Kept
from replayflow.store.operations import Delivery
from replayflow.store.records import Finished, Footprint, InstanceRecord, Loaded, Waiting, Wake


def load(kept: Kept, incoming: Incoming, whole: bool) -> Loaded:
    """The instance with its present history and inbox."""
    numbers = sorted(number for number in kept.pieces if number > kept.record.start_number)
    loaded = Loaded(
        replace(kept.record),
        b"".join(kept.pieces[number] for number in numbers),
        len(numbers),
        [replace(kept.inbox[number], takes_messages=kept.takes_messages) for number in sorted(kept.inbox)],
    )
    incoming.loaded(loaded, whole)
    return loaded


def history(kept: Kept, execution_id: str | None) -> list[bytes]:
    """The pieces of the execution, its start first, as they are stored."""
    record = kept.record
    if execution_id is None or execution_id == record.execution_id:
        return [record.start, *(kept.pieces[n] for n in sorted(kept.pieces) if n > record.start_number)]
    first = kept.executions.get(execution_id)
    if first is None:
        return []
    end = min((n for n in kept.executions.values() if n > first), default=record.start_number)
    return [kept.pieces[n] for n in sorted(kept.pieces) if first <= n < end]


def waiting(instances: Iterable[Kept], incoming: Incoming, instance_id: str | None, limit: int) -> list[Waiting]:
    """The messages in one inbox, or in any, the oldest first."""
    found = [
        Waiting(
            number,
            kept.id,
            None if delivery.event is None else incoming.events(delivery.event, kept.id),
            kept.arrived.get(number),
            delivery.is_control,
            kept.takes_messages,
        )
        for kept in instances
        if instance_id in (None, kept.id)
        for number, delivery in kept.inbox.items()
    ]
    return sorted(found, key=lambda message: message.number)[:limit]


def arrived(instances: Iterable[Kept], incoming: Incoming, after: int, limit: int) -> list[Delivery]:
    """The messages behind that number."""
    found = [
        incoming.arrival(replace(delivery, takes_messages=kept.takes_messages))
        for kept in instances
        for number, delivery in kept.inbox.items()
        if number > after
    ]
    return sorted(found, key=lambda delivery: delivery.number)[:limit]


def wakes(instances: Iterable[Kept], after: tuple[int, int] | None, limit: int) -> list[Wake]:
    """The instances that want to be looked at, in order of time."""
    found = [
        Wake(kept.record.wake_at, kept.id, (kept.record.wake_at, kept.key))
        for kept in instances
        if kept.record.wake_at is not None
    ]
    return sorted((w for w in found if after is None or w.position > after), key=lambda w: w.position)[:limit]


def children(instances: Iterable[Kept], parent_ids: Sequence[str], limit: int) -> list[Finished]:
    """What these have started, and has finished."""
    eldest_first = sorted(instances, key=lambda kept: (kept.record.created_at, kept.key))
    found = [
        kept
        for parent_id in parent_ids
        for kept in eldest_first
        if kept.record.parent_id == parent_id and kept.is_purgeable
    ]
    return [Finished(kept.id, kept.record.execution_id) for kept in found[:limit]]


def ended(instances: Sequence[Kept], status: Status, before: int, limit: int) -> list[Finished]:
    """Those that finished before then, in the order in which they did."""
    parents = {kept.record.parent_id for kept in instances}
    found = sorted(
        (kept.record.completed_at, kept.key, kept)
        for kept in instances
        if kept.record.status is status
        and kept.is_purgeable
        and kept.id not in parents
        and kept.record.completed_at is not None
        and kept.record.completed_at < before
    )
    return [Finished(kept.id, kept.record.execution_id) for *_, kept in found[:limit]]


def long_pasts(instances: Iterable[Kept], keep: int, after: int, limit: int) -> tuple[list[str], int | None]:
    """The ids of those of the next that have more past executions than they keep, and where to read on."""
    having = sorted((kept for kept in instances if kept.executions and kept.key > after), key=lambda kept: kept.key)
    having = having[:limit]
    return [kept.id for kept in having if len(kept.executions) > keep], having[-1].key if len(having) == limit else None


def footprint(instances: Iterable[Kept], purged: int) -> Footprint:
    """How much has finished. Memory is not counted in bytes."""
    ended = [kept.record for kept in instances if kept.record.completed_at is not None]
    ended = [record for record in ended if record.status.is_finished]
    oldest = min((record.completed_at for record in ended if record.completed_at is not None), default=None)
    return Footprint(dict(Counter(record.status for record in ended)), oldest, purged, 0, 0)


def still_open(instances: Iterable[Kept]) -> Iterator[InstanceRecord]:
    """The rows of those that have not finished."""
    return (kept.record for kept in instances if not kept.record.status.is_finished)
