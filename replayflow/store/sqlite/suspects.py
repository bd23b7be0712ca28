"""What is held against instances after a worker's death: functions on the writing thread's connection, inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from replayflow.core import suspicion
from replayflow.core.ids import is_unicode
from replayflow.core.suspicion import Suspicion
from replayflow.store.base import Suspect
from replayflow.store.sqlite import hub
from replayflow.store.sqlite.damage import damaged
from replayflow.store.sqlite.records import fetched
from replayflow.store.sqlite.statements import ROWS, SQL
from replayflow.store.sqlite.sums import fits, of_row


def conclude(connection: sqlite3.Connection, now: int, may_have_died: bool = True) -> None:
    """The hub is being taken: where its last owner died, what is in flight is under one more suspicion; what has progressed is under none."""
    died = may_have_died and hub.read(connection)[0].owner is not None
    before = {key: _suspicion(row) for key, *row in _sound(connection, connection.execute(SQL["suspicions"]))}
    if not died and not before:
        return
    in_flight: dict[int, int] = dict(connection.execute(SQL["in_flight"], (now,)).fetchall())
    after = suspicion.after(before, in_flight, died)
    if after != before:
        connection.execute(SQL["forget_suspicions"])
        rows = [(key, *_row(one)) for key, one in after.items()]
        ROWS["add_suspicions"].run(connection, [(*row, of_row(*row)) for row in rows])


def held(connection: sqlite3.Connection) -> list[Suspect]:
    """Those that do not run with the others."""
    found = fetched(connection, SQL["held"])
    rows = _sound(connection, [row for _, *row in found])
    # An id that is damaged is another's, who must not be held for it; whoever loads the instance itself sees that it is damaged.
    keys = [
        fetched(connection, SQL["key_of"], (id if isinstance(id, str) and is_unicode(id) else "",)) for id, *_ in found
    ]
    return [
        Suspect(id, _suspicion(row))
        for (id, *_), (key, *row), own in zip(found, rows, keys, strict=True)
        if own == [(key,)]
    ]


def suspect(connection: sqlite3.Connection, found: Mapping[str, Suspicion | None]) -> None:
    """That is what is held against these; None is nothing any more."""
    connection.executemany(SQL["forget_suspicion"], [(id,) for id, one in found.items() if one is None])
    for id, one in found.items():
        if one is not None:
            for (key,) in connection.execute(SQL["key_of"], (id,)).fetchall():
                connection.execute(SQL["change_suspicion"], (*_row(one), of_row(key, *_row(one)), key))


def _sound(connection: sqlite3.Connection, rows: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    """The rows without their sums, which fit them."""
    found: list[Sequence[Any]] = []
    for *row, sum in rows:
        if not fits(row, sum):
            raise damaged(connection, "what is held against an instance")
        found.append(row)
    return found


def _suspicion(row: Sequence[int]) -> Suspicion:
    piece, is_held, is_watched, party, strikes, releases, alibis = row
    return Suspicion(piece, bool(is_held), bool(is_watched), party, strikes, releases, alibis)


def _row(one: Suspicion) -> tuple[int, ...]:
    return one.piece, int(one.is_held), int(one.is_watched), one.party, one.strikes, one.releases, one.alibis
