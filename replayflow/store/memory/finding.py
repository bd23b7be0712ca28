"""Finding instances: every one is held against the filter, and those that fit are sorted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from operator import itemgetter

from msgspec.structs import replace

from replayflow.store.filters import Grouping, InstanceFilter, Order, Page, Place, cursor_of, place_of
from replayflow.store.incoming import Incoming
from replayflow.store.memory.kept import Kept
from replayflow.store.records import InstanceRecord


def page(
    instances: Iterable[Kept],
    incoming: Incoming,
    wanted: InstanceFilter,
    limit: int,
    cursor: str | None,
    latest_first: bool,
) -> Page:
    """The rows that fit, and where to read on."""
    order = wanted.order
    after = None if cursor is None else place_of(cursor, order)
    fitting = sorted(
        ((_place(kept, order), kept) for kept in instances if _fits(kept.record, wanted)),
        key=itemgetter(0),
        reverse=latest_first,
    )
    if after is not None:
        if order == "id":
            after = Place(after.at, -1 if latest_first else 2**62)
        fitting = [one for one in fitting if (one[0] < after if latest_first else one[0] > after)]
    shown = fitting[:limit]
    more = cursor_of(order, shown[-1][0]) if len(fitting) > limit else None
    return Page([incoming.row(replace(kept.record)) for _, kept in shown], more)


def count(instances: Iterable[Kept], wanted: InstanceFilter, by: Grouping | None) -> dict[str, int]:
    """How many fit, by group."""
    records = [kept.record for kept in instances if _fits(kept.record, wanted)]
    return dict(Counter("" if by is None else str(getattr(record, by)) for record in records))


def _place(kept: Kept, order: Order) -> Place:
    record = kept.record
    at: int | str | None = record.instance_id
    if order != "id":
        at = record.created_at if order == "created" else record.completed_at
    assert at is not None  # noqa: S101 - what fits a filter by the end has ended
    return Place(at, kept.key)


def _fits(record: InstanceRecord, wanted: InstanceFilter) -> bool:
    tags = record.tags or {}
    return (
        (wanted.statuses is None or record.status in wanted.statuses)
        and (wanted.name is None or record.name == wanted.name)
        and (wanted.id_prefix is None or record.instance_id.startswith(wanted.id_prefix))
        and all(tags.get(key) == value for key, value in wanted.tags)
        and (wanted.created_from is None or record.created_at >= wanted.created_from)
        and (wanted.created_to is None or record.created_at < wanted.created_to)
        and (wanted.is_parked is None or (record.problem is not None) == wanted.is_parked)
        and (wanted.is_entity is None or record.instance_id.startswith("@") == wanted.is_entity)
        and (wanted.parent_id is None or record.parent_id == wanted.parent_id)
        and ((wanted.completed_from, wanted.completed_to) == (None, None) or record.completed_at is not None)
        and (wanted.completed_from is None or (record.completed_at or 0) >= wanted.completed_from)
        and (wanted.completed_to is None or (record.completed_at or 0) < wanted.completed_to)
    )
