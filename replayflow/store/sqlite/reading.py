"""Reading a hub: functions on a connection that cannot write, each one hop to the reader's thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from replayflow.codec.cipher import Cipher
from replayflow.core.ids import is_unicode
from replayflow.core.instance import Status
from replayflow.store.base import (
    Delivery,
    Finished,
    Footprint,
    InstanceRecord,
    Loaded,
    Page,
    Served,
    Waiting,
    Wake,
)
from replayflow.store.incoming import Incoming
from replayflow.store.sqlite import contents
from replayflow.store.sqlite.statements import SQL

T = TypeVar("T")
_SMALLEST = -(2**62)


def in_snapshot(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """What the work returns; all its statements see one moment of the file."""
    connection.execute("BEGIN")
    try:
        return work(connection)
    finally:
        if connection.in_transaction:  # an error may have ended it
            connection.execute("ROLLBACK")


def rows(connection: sqlite3.Connection, name: str, parameters: Any = ()) -> list[Any]:
    """All rows of the statement with that name."""
    try:
        return connection.execute(SQL[name], parameters).fetchall()
    except UnicodeEncodeError:
        return []  # no row has what cannot be stored


def load(
    connection: sqlite3.Connection, instance_ids: Sequence[str], cipher: Cipher | None, whole: bool
) -> list[Loaded]:
    """The instances with their present history and inbox."""
    # SQLite ends a JSON text at a NUL character; an id that is cut off there is another's.
    wanted = [id for id in dict.fromkeys(instance_ids) if "\0" not in id]
    loaded = {row[-1]: Loaded(as_record(row), b"", 0, []) for row in rows(connection, "records", (json.dumps(wanted),))}
    starts = json.dumps([[key, one.record.start_number] for key, one in loaded.items()])
    for key, count, pieces in rows(connection, "pieces", (starts,)):
        loaded[key].pieces, loaded[key].piece_count = pieces, count
    keys = json.dumps(list(loaded))
    for number, key, event, execution_id, is_control in rows(connection, "inboxes", (keys,)):
        record = loaded[key].record
        takes = record.problem is None and record.status is not Status.SUSPENDED
        loaded[key].inbox.append(Delivery(number, record.instance_id, event, execution_id, bool(is_control), takes))
    if loaded and not contents.are_plain(connection):
        for one in loaded.values():
            _incoming(connection, cipher).loaded(one, whole)
    found = {one.record.instance_id: one for one in loaded.values()}
    return [found[id] for id in wanted if id in found]


def records(
    connection: sqlite3.Connection, instance_ids: Sequence[str], cipher: Cipher | None
) -> dict[str, InstanceRecord]:
    """The rows of those that exist, by id."""
    ids = json.dumps([id for id in instance_ids if "\0" not in id and is_unicode(id)])
    incoming = _incoming(connection, cipher)
    return {row[0]: incoming.row(as_record(row)) for row in rows(connection, "records", (ids,))}


def history(
    connection: sqlite3.Connection, instance_id: str, execution_id: str | None, cipher: Cipher | None, is_opened: bool
) -> list[bytes]:
    """The pieces of the execution, its start first."""
    stored = _stored_history(connection, instance_id, execution_id)
    return _incoming(connection, cipher).pieces(stored, instance_id, is_opened)


def _stored_history(connection: sqlite3.Connection, instance_id: str, execution_id: str | None) -> list[bytes]:
    found = rows(connection, "record", (instance_id,))
    if not found:
        return []
    record, key = as_record(found[0]), found[0][-1]
    if execution_id is None or execution_id == record.execution_id:
        return [record.start, *_pieces(connection, key, record.start_number + 1, 2**62)]
    for first, following in rows(connection, "past_execution", (key, execution_id)):
        return _pieces(connection, key, first, record.start_number if following is None else following)
    return []


def fetch(connection: sqlite3.Connection, references: Sequence[bytes], cipher: Cipher | None) -> list[bytes]:
    """What the references stand for."""
    return _incoming(connection, cipher).contents(references)


def wakes(connection: sqlite3.Connection, after: tuple[int, int] | None, limit: int) -> list[Wake]:
    """The instances that want to be looked at, in order of time."""
    at, key = after or (_SMALLEST, 0)
    found = rows(connection, "wakes", {"at": at, "key": key, "limit": limit})
    return [Wake(at, id, (at, key)) for at, key, id in found]


def arrived(connection: sqlite3.Connection, after: int, limit: int, cipher: Cipher | None) -> list[Delivery]:
    """The messages behind that number."""
    found = [
        Delivery(number, id, event, execution_id, bool(is_control), bool(takes))
        for number, id, event, execution_id, is_control, takes in rows(connection, "arrived", (after, limit))
    ]
    incoming = _incoming(connection, cipher)
    return [incoming.arrival(delivery) for delivery in found]


def shown(connection: sqlite3.Connection, page: Page, cipher: Cipher | None) -> Page:
    """The page with its rows as readers see them."""
    incoming = _incoming(connection, cipher)
    page.records = [incoming.row(record) for record in page.records]
    return page


def waiting(
    connection: sqlite3.Connection, instance_id: str | None, limit: int, cipher: Cipher | None
) -> list[Waiting]:
    """The messages in one inbox, or in any, the oldest first."""
    statement, whose = ("waiting_since", 0) if instance_id is None else ("waiting_for", instance_id)
    incoming = _incoming(connection, cipher)
    return [
        Waiting(number, id, None if event is None else incoming.events(event, id), at, bool(is_control), bool(takes))
        for number, id, event, at, is_control, takes in rows(connection, statement, (whose, limit))
    ]


def children(connection: sqlite3.Connection, parent_ids: Sequence[str], limit: int) -> list[Finished]:
    """What these have started, and has finished. One parent after the other: for many at once SQLite would sort all that they have."""
    found: list[Finished] = []
    for parent_id in parent_ids:
        found += [Finished(*row) for row in rows(connection, "children", (parent_id, limit - len(found)))]
        if len(found) >= limit:
            break
    return found


def ended(connection: sqlite3.Connection, status: Status, before: int, limit: int) -> list[Finished]:
    """Those that finished before then, in the order in which they did."""
    return [Finished(*row) for row in rows(connection, "ended", (status.value, before, limit))]


def long_pasts(connection: sqlite3.Connection, keep: int, after: int, limit: int) -> tuple[list[str], int | None]:
    """The ids of those of the next that have more past executions than they keep, and where to read on."""
    found = rows(connection, "pasts", (after, limit))
    return [id for _, executions, id in found if executions > keep], found[-1][0] if len(found) == limit else None


def footprint(connection: sqlite3.Connection) -> Footprint:
    """How large the hub is."""
    by_status = rows(connection, "ended_by_status")
    [(total_bytes, free_bytes)] = rows(connection, "size")
    [(purged,)] = rows(connection, "all_purged")
    return Footprint(
        {Status(status): count for status, count, _ in by_status},
        min((oldest for *_, oldest in by_status), default=None),
        purged,
        total_bytes,
        free_bytes,
    )


def served(connection: sqlite3.Connection) -> list[Served]:
    """What was kept of the code that workers serve."""
    return [
        Served(name, version or None, digest, bool(is_default))
        for name, version, digest, is_default in rows(connection, "served")
    ]


def open_versions(connection: sqlite3.Connection) -> list[tuple[str, str | None]]:
    """The names and versions of what is open."""
    return [(name, version or None) for name, version in rows(connection, "open_versions")]


def count_open(connection: sqlite3.Connection, name: str, version: str | None) -> int:
    """How many of them there are."""
    found = rows(connection, "count_open", (name, version or ""))
    return int(found[0][0]) if found else 0


def _pieces(connection: sqlite3.Connection, key: int, first: int, end: int) -> list[bytes]:
    return [piece for (piece,) in rows(connection, "pieces_between", (key, first, end))]


def _incoming(connection: sqlite3.Connection, cipher: Cipher | None) -> Incoming:
    return Incoming(partial(contents.fetch, connection), cipher)


def as_record(row: Sequence[Any]) -> InstanceRecord:
    """The row of a statement that has all columns of an instance, as it is stored."""
    return InstanceRecord(
        instance_id=row[0],
        execution_id=row[1],
        name=row[2],
        version=row[3],
        status=Status(row[4]),
        start=row[5],
        start_number=row[6],
        wake_at=row[7],
        created_at=row[8],
        updated_at=row[9],
        completed_at=row[10],
        custom_status=row[11],
        output=row[12],
        failure=row[13],
        problem=row[14],
        orphans=row[15],
        parent_id=row[16],
        tags=None if row[17] is None else json.loads(row[17]),
        progress=row[18],
    )
