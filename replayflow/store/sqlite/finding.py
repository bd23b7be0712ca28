"""Finding instances: pages and counts of those that fit a filter, by indexes.

1. Nothing is sorted but what is few: a *walk* gives the places of candidates in order, by an index. Where several indexes serve the filter, each is
   asked how many it has, up to a bound: one that has few is walked alone, whatever its order. Else those in the right order are walked together:
   what lies between two places of one of them is passed over in the others.
2. What a walk gives is held against the whole filter (`fitting`): a walk may give too many, and never too few.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

from msgspec.structs import replace

from replayflow.core.instance import Status
from replayflow.store.base import (
    Grouping,
    InstanceFilter,
    Order,
    Page,
    Place,
    cursor_of,
    end_of_prefix,
    place_of,
)
from replayflow.store.sqlite.damage import damaged
from replayflow.store.sqlite.records import listed, rows

FEW = 1_000
MANY = 20_000
_COUNTED_TOGETHER = 5_000
_FIRST, _LAST = -(2**63), 2**63 - 1
_FIRST_ID = ""
_BEHIND_ALL = b""  # SQLite sorts every blob behind all texts and numbers
_ENTITY_IDS = ("@", "A")
_STATUSES = frozenset(Status)
_POSITIONS: dict[Order, int] = {"id": 0, "created": 1, "completed": 2}


class Walk(NamedTuple):
    """A way through the candidates: some searches, whose places are merged."""

    order: Order
    name: str
    searches: Sequence[Mapping[str, object]]


def page(
    connection: sqlite3.Connection, wanted: InstanceFilter, limit: int, cursor: str | None, latest_first: bool
) -> Page:
    """The rows that fit, and where to read on."""
    order = wanted.order
    after = None if cursor is None else place_of(cursor, order)
    if after is not None and order == "id":
        after = Place(after.at, _FIRST if latest_first else _LAST)
    if wanted.statuses is not None and not wanted.statuses:
        return Page([], None)
    search = _Search(connection, wanted, latest_first)
    found: list[tuple[Place, Any]] = []
    for places in search.candidates(order, after, limit + 1):
        found += search.fitting(places, limit + 1 - len(found))
        if len(found) > limit:
            break
    shown = found[:limit]
    records = [listed(connection, row) for _, row in shown]
    return Page(records, cursor_of(order, shown[-1][0]) if len(found) > limit else None)


def count(connection: sqlite3.Connection, wanted: InstanceFilter, by: Grouping | None) -> dict[str, int]:
    """How many fit, by group. What one index knows is counted in it; else every candidate is looked at."""
    if wanted.statuses is not None and not wanted.statuses:
        return {}
    rest = replace(wanted, created_from=None, created_to=None, is_entity=None)
    counted: Counter[str] = Counter()
    if by != "name" and replace(rest, statuses=None) == InstanceFilter():
        for status, number in _counts(connection, "count_statuses", wanted):
            if (wanted.statuses is None or status in wanted.statuses) and (not by or status in _STATUSES):
                counted[status if by else ""] += number
    elif by != "status" and replace(rest, name=None) == InstanceFilter():
        for name, number in _counts(connection, "count_names", wanted):
            if wanted.name is None or name == wanted.name:
                counted[name if by else ""] += number
    else:
        search = _Search(connection, wanted, latest_first=False)
        for places in search.candidates(wanted.order, None, _COUNTED_TOGETHER):
            for status, name, number in search.counted(places):
                if by != "status" or status in _STATUSES:  # a damaged one is no status, and has no group
                    counted[{"status": status, "name": name, None: ""}[by]] += number
    return dict(counted)


def _counts(connection: sqlite3.Connection, statement: str, wanted: InstanceFilter) -> Iterator[tuple[str, int]]:
    for is_entity in _entity_values(wanted):
        bounds = {
            "from": _FIRST if wanted.created_from is None else wanted.created_from,
            "to": _BEHIND_ALL if wanted.created_to is None else wanted.created_to,
        }
        yield from rows(connection, statement, {"is_entity": is_entity, **bounds})


class _Search:
    """One filter on one connection, at one moment of the file."""

    def __init__(self, connection: sqlite3.Connection, wanted: InstanceFilter, latest_first: bool) -> None:
        self._connection = connection
        self._wanted = wanted
        self._latest_first = latest_first
        self._bindings = _bindings(wanted)

    def candidates(self, order: Order, after: Place | None, at_once: int) -> Iterator[list[Place]]:
        """The places of all that may fit, in order, from behind the one given, some at a time."""
        walks = _walks(self._wanted)
        if len(walks) == 1:
            yield from self._walked(walks[0], after, at_once)
            return
        own = [walk for walk in walks if walk.order == order]
        others = [walk for walk in walks if walk.order != order]
        size, few = min(((self._size(walk, after, FEW), walk) for walk in own), key=itemgetter(0))
        if size < FEW:
            yield from self._walked(few, after, FEW)
            return
        for other in others:
            if self._size(other, None, MANY) < MANY:
                yield from _chunks(self._in_order(self._some(other, None, MANY), order, after))
                return
        yield from self._together(own, after)

    def fitting(self, places: list[Place], limit: int) -> list[tuple[Place, Any]]:
        """Of the candidates those that fit, in the same order, at most so many."""
        if not places:
            return []
        at = {place.key: place for place in places}
        found = rows(self._connection, "fitting", {**self._bindings, "keys": json.dumps(list(at)), "limit": limit})
        return [(at[row[-1]], row) for row in found]

    def counted(self, places: list[Place]) -> list[Any]:
        """Of the candidates those that fit, as counts by status and name."""
        keys = json.dumps([place.key for place in places])
        return rows(self._connection, "count_fitting", {**self._bindings, "keys": keys})

    def _walked(self, walk: Walk, after: Place | None, at_once: int) -> Iterator[list[Place]]:
        while True:
            places = self._some(walk, after, at_once)
            yield places
            if len(places) < at_once:
                return
            after, at_once = places[-1], FEW

    def _together(self, walks: list[Walk], after: Place | None) -> Iterator[list[Place]]:
        """The places that all the walks have, which have one order. What lies between two places of one of them is passed over in the others."""
        while True:
            found = [self._some(walk, after, FEW) for walk in walks]
            if not all(found):
                return
            latest = (min if self._latest_first else max)(places[0] for places in found)
            if any(self._is_behind(latest, places[-1]) for places in found):
                after = Place(latest.at, latest.key + (1 if self._latest_first else -1))
                continue
            shared = set(found[0]).intersection(*found[1:])
            yield [place for place in found[0] if place in shared]
            ends = [places[-1] for places in found if len(places) == FEW]
            if not ends:
                return
            after = (max if self._latest_first else min)(ends)

    def _is_behind(self, place: Place, other: Place) -> bool:
        return place < other if self._latest_first else place > other

    def _size(self, walk: Walk, after: Place | None, limit: int) -> int:
        """How many places the walk has, if they are no more than the limit."""
        statement = f"{walk.name} {'back' if self._latest_first else 'forward'} size"
        given = self._given(walk, after, limit)
        sizes = [rows(self._connection, statement, {**given, **search}) for search in walk.searches]
        return sum(found[0][0] for found in sizes if found)

    def _some(self, walk: Walk, after: Place | None, limit: int) -> list[Place]:
        statement = f"{walk.name} {'back' if self._latest_first else 'forward'}"
        given = self._given(walk, after, limit)
        found = [rows(self._connection, statement, {**given, **search}) for search in walk.searches]
        kind = str if walk.order == "id" else int
        if any(type(at) is not kind for each in found for at, _ in each):
            raise damaged(self._connection, "an index of instances")
        merged = found[0] if len(found) == 1 else heapq.merge(*found, reverse=self._latest_first)
        return [Place(*row) for row in islice(merged, limit)]

    def _given(self, walk: Walk, after: Place | None, limit: int) -> dict[str, object]:
        """What binds a walk to the filter's bounds, from behind the place."""
        back = self._latest_first
        start, end = _bounds(walk.order, self._wanted)
        if back and (after is None or not _is_before(after.at, end)):
            after = Place(end, _FIRST)
        elif after is None or (not back and _is_before(after.at, start)):
            after = Place(start, _FIRST)
        return {"at": after.at, "key": after.key, "start": start, "end": end, "limit": limit}

    def _in_order(self, places: list[Place], order: Order, after: Place | None) -> list[Place]:
        """The places of the same instances in another order; those that have no place in it are left out."""
        position = itemgetter(_POSITIONS[order])
        keys = json.dumps([place.key for place in places])
        found = [Place(position(row), row[-1]) for row in rows(self._connection, "places", (keys,))]
        kind = str if order == "id" else int
        found = sorted((place for place in found if type(place.at) is kind), reverse=self._latest_first)
        if after is None:
            return found
        return [place for place in found if (place < after if self._latest_first else place > after)]


def _chunks(places: list[Place]) -> Iterator[list[Place]]:
    """The places, some at a time: who has found enough reads no further."""
    for start in range(0, len(places), FEW):
        yield places[start : start + FEW]


def _is_before(at: Any, other: Any) -> bool:
    """Whether the position comes before the other one, which may be the one behind all."""
    return isinstance(other, bytes) or bool(at < other)


def _walks(wanted: InstanceFilter) -> list[Walk]:
    """All indexes that serve the filter; at least one of them in its order."""
    kinds: list[dict[str, object]] = [{"is_entity": value} for value in _entity_values(wanted)]
    order = wanted.order
    walks: list[Walk] = []
    if order == "completed":
        ends = sorted(status for status in wanted.statuses or Status if status.is_finished)
        walks.append(Walk("completed", "completed", [{"status": status.value} for status in ends]))
    if wanted.id_prefix or wanted.is_entity:
        walks.append(Walk("id", "by_id", [{}]))
    for tag, value in wanted.tags:
        walks.append(Walk("created", "tagged", [{"tag": tag, "value": value}]))
    if wanted.parent_id is not None:
        walks.append(Walk("created", "of_parent", [{"parent_id": wanted.parent_id}]))
    if wanted.is_parked:
        walks.append(Walk("created", "parked", [*kinds]))
    if wanted.statuses is not None:
        several = [{**kind, "status": status.value} for kind in kinds for status in sorted(wanted.statuses)]
        walks.append(Walk("created", "in_status", several))
    if wanted.name is not None:
        walks.append(Walk("created", "named", [{**kind, "name": wanted.name} for kind in kinds]))
    if (
        not any(walk.order == order for walk in walks)
        or wanted.created_from is not None
        or wanted.created_to is not None
    ):
        walks.append(Walk("created", "created", [*kinds]))
    return walks


def _bounds(order: Order, wanted: InstanceFilter) -> tuple[Any, Any]:
    """Of the positions that a walk of that order has, the first that may fit, and the first behind them that may not."""
    if order == "id":
        return _id_bounds(wanted)
    first, last = (
        (wanted.created_from, wanted.created_to) if order == "created" else (wanted.completed_from, wanted.completed_to)
    )
    return _FIRST if first is None else first, _BEHIND_ALL if last is None else last


def _id_bounds(wanted: InstanceFilter) -> tuple[str, str | bytes]:
    if wanted.id_prefix:
        return wanted.id_prefix, end_of_prefix(wanted.id_prefix) or _BEHIND_ALL
    return _ENTITY_IDS if wanted.is_entity else (_FIRST_ID, _BEHIND_ALL)


def _entity_values(wanted: InstanceFilter) -> tuple[int, ...]:
    return (0, 1) if wanted.is_entity is None else (int(wanted.is_entity),)


def _bindings(wanted: InstanceFilter) -> dict[str, object]:
    id_from, id_to = _id_bounds(wanted)
    return {
        "statuses": None if wanted.statuses is None else json.dumps(sorted(wanted.statuses)),
        "name": wanted.name,
        "id_from": id_from,
        "id_to": id_to,
        "created_from": wanted.created_from,
        "created_to": wanted.created_to,
        "completed_from": wanted.completed_from,
        "completed_to": wanted.completed_to,
        "is_parked": None if wanted.is_parked is None else int(wanted.is_parked),
        "is_entity": None if wanted.is_entity is None else int(wanted.is_entity),
        "parent_id": wanted.parent_id,
        "tags": json.dumps([list(tag) for tag in wanted.tags]),
    }
