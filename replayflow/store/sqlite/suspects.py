"""What is held against instances after a worker's death: functions on the writing thread's connection, inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from replayflow.core import suspicion
from replayflow.core.suspicion import Suspicion
from replayflow.store.base import Suspect
from replayflow.store.sqlite.statements import ROWS, SQL


def conclude(connection: sqlite3.Connection, now: int, may_have_died: bool = True) -> None:
    """The hub is being taken: where its last owner died, what is in flight is under one more suspicion; what has progressed is under none."""
    died = may_have_died and connection.execute(SQL["owner"]).fetchone()[0] is not None
    before = {key: _suspicion(row) for key, *row in connection.execute(SQL["suspicions"])}
    if not died and not before:
        return
    in_flight: dict[int, int] = dict(connection.execute(SQL["in_flight"], (now,)).fetchall())
    after = suspicion.after(before, in_flight, died)
    if after != before:
        connection.execute(SQL["forget_suspicions"])
        rows = [(key, *_row(one)) for key, one in after.items()]
        ROWS["add_suspicions"].run(connection, rows)


def held(connection: sqlite3.Connection) -> list[Suspect]:
    """Those that do not run with the others."""
    return [Suspect(id, _suspicion(row)) for id, *row in connection.execute(SQL["held"])]


def suspect(connection: sqlite3.Connection, found: Mapping[str, Suspicion | None]) -> None:
    """That is what is held against these; None is nothing any more."""
    connection.executemany(SQL["forget_suspicion"], [(id,) for id, one in found.items() if one is None])
    connection.executemany(SQL["change_suspicion"], [(*_row(one), id) for id, one in found.items() if one is not None])


def _suspicion(row: Sequence[int]) -> Suspicion:
    piece, is_held, is_watched, party, strikes, releases, alibis = row
    return Suspicion(piece, bool(is_held), bool(is_watched), party, strikes, releases, alibis)


def _row(one: Suspicion) -> tuple[int, ...]:
    return one.piece, int(one.is_held), int(one.is_watched), one.party, one.strikes, one.releases, one.alibis
