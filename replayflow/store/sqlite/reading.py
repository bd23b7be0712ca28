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
from replayflow.store.base import Delivery, InstanceFilter, InstanceRecord, Loaded, Page, Wake, position_of
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
    loaded = {row[-1]: Loaded(_record(row), b"", 0, []) for row in rows(connection, "records", (json.dumps(wanted),))}
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
    return {row[0]: incoming.row(_record(row)) for row in rows(connection, "records", (ids,))}


def page(
    connection: sqlite3.Connection, wanted: InstanceFilter, limit: int, cursor: str | None, cipher: Cipher | None
) -> Page:
    """The rows that fit, and where to read on."""
    after = 0 if cursor is None else position_of(cursor)
    if wanted == InstanceFilter(is_parked=True, is_entity=wanted.is_entity):
        found = rows(connection, "parked_page", (after, limit + 1, wanted.is_entity))
    else:
        found = rows(connection, "page", _bindings(wanted, after, limit + 1))
    shown = found[:limit]
    incoming = _incoming(connection, cipher)
    return Page([incoming.row(_record(row)) for row in shown], str(shown[-1][-1]) if len(found) > limit else None)


def history(
    connection: sqlite3.Connection, instance_id: str, execution_id: str | None, cipher: Cipher | None
) -> list[bytes]:
    """The pieces of the execution, its start first."""
    incoming = _incoming(connection, cipher)
    return [incoming.events(piece, instance_id) for piece in _stored_history(connection, instance_id, execution_id)]


def _stored_history(connection: sqlite3.Connection, instance_id: str, execution_id: str | None) -> list[bytes]:
    found = rows(connection, "record", (instance_id,))
    if not found:
        return []
    record, key = _record(found[0]), found[0][-1]
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
    found = rows(connection, "wakes", (*(after or (_SMALLEST, 0)), limit))
    return [Wake(at, id, (at, key)) for at, key, id in found]


def arrived(connection: sqlite3.Connection, after: int, limit: int, cipher: Cipher | None) -> list[Delivery]:
    """The messages behind that number."""
    found = [
        Delivery(number, id, event, execution_id, bool(is_control), bool(takes))
        for number, id, event, execution_id, is_control, takes in rows(connection, "arrived", (after, limit))
    ]
    incoming = _incoming(connection, cipher)
    return [incoming.arrival(delivery) for delivery in found]


def _pieces(connection: sqlite3.Connection, key: int, first: int, end: int) -> list[bytes]:
    return [piece for (piece,) in rows(connection, "pieces_between", (key, first, end))]


def _incoming(connection: sqlite3.Connection, cipher: Cipher | None) -> Incoming:
    return Incoming(partial(contents.fetch, connection), cipher)


def _record(row: Sequence[Any]) -> InstanceRecord:
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


def _bindings(wanted: InstanceFilter, after: int, limit: int) -> dict[str, object]:
    return {
        "after": after,
        "limit": limit,
        "statuses": None if wanted.statuses is None else json.dumps(sorted(wanted.statuses)),
        "name": wanted.name,
        "id_prefix": wanted.id_prefix,
        "created_from": wanted.created_from,
        "created_to": wanted.created_to,
        "is_parked": None if wanted.is_parked is None else int(wanted.is_parked),
        "is_entity": None if wanted.is_entity is None else int(wanted.is_entity),
        "tags": json.dumps([list(tag) for tag in wanted.tags]),
    }
