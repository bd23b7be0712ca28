"""A damaged instance goes, whatever it was doing: the remedy where no backup is to be had.

1. It goes only where it is damaged, which is looked at in the same transaction.
2. Rows are found by its key, and nothing of what they say is believed: no trigger reads them, and they are counted, not decoded.
3. Where an index has another value than the row, SQLite cannot take the row out. The indexes are made anew then, but only where all other rows are
   sound: so none is found by another id than before.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from itertools import islice
from typing import Any

from replayflow.store.operations import MICROSECONDS_PER_DAY, not_damaged, not_there
from replayflow.store.records import Lost, Unread
from replayflow.store.sqlite import audit, sums
from replayflow.store.sqlite.connection import in_transaction
from replayflow.store.sqlite.damage import damaged
from replayflow.store.sqlite.records import as_text, fetched, rows
from replayflow.store.sqlite.statements import SQL, WHOLE
from replayflow.store.sqlite.unwritten import count_purged, remove_all

_FAULTS_MAX = 5
_IDS_AT_ONCE = 10_000
_ROWS_AT_ONCE = 500
_ID, _EXECUTION_ID, _NAME, _STATUS, _START_NUMBER, _PARENT_ID = 0, 1, 2, 4, 6, 16


def remove_damaged(connection: sqlite3.Connection, instance_id: str, at: int, url: str, unread: Unread | None) -> Lost:
    """The damaged instance is no more; returns what went.

    Raises:
        InstanceNotFoundError, InvalidStateError, StoreCorruptError: as the port has it; nothing was changed.
    """

    def remove(connection: sqlite3.Connection) -> Lost:
        return _remove(connection, _key_of(connection, instance_id, url), instance_id, at, unread)

    def remove_with_new_indexes(connection: sqlite3.Connection) -> Lost:
        key = _key_of(connection, instance_id, url)
        _check_others(connection, key, instance_id)
        connection.execute(SQL["reindex_instances"])
        return _remove(connection, key, instance_id, at, unread)

    try:
        return in_transaction(connection, remove)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", None) != "SQLITE_CORRUPT_INDEX":
            raise
    return in_transaction(connection, remove_with_new_indexes)


def _remove(connection: sqlite3.Connection, key: int, instance_id: str, at: int, unread: Unread | None) -> Lost:
    [row] = rows(connection, "row_of_key", (key,))
    pieces = fetched(connection, WHOLE["all_pieces"], (key,))
    messages = rows(connection, "messages_of", (key,))
    faults = tuple(islice(audit.faults_of_one(connection, row), _FAULTS_MAX))
    if not faults and unread is not None:
        present = sum(number > row[_START_NUMBER] for number, *_ in pieces)
        if (unread.execution_id, unread.pieces) == (row[_EXECUTION_ID], present):
            faults = (unread.why,)
    if not faults:
        raise not_damaged(instance_id)
    parent_id = row[_PARENT_ID]
    [(children,)] = rows(connection, "count_children", (instance_id,))
    lost = Lost(
        faults,
        as_text(row[_NAME]),
        as_text(row[_STATUS]),
        len(pieces),
        sum(event is not None for _, _, event, *_ in messages),
        None if parent_id is None else as_text(parent_id),
        children,
    )
    connection.execute(SQL["blank"], (key, os.urandom(16).hex()))
    connection.execute(WHOLE["remove_tags"], (key,))
    connection.execute(SQL["remove_suspicion"], (key,))
    connection.execute(SQL["remove_uses_of_messages"], (key,))
    remove_all(connection, [key])
    count_purged(connection, at // MICROSECONDS_PER_DAY, "asked", 1)
    return lost


def _key_of(connection: sqlite3.Connection, instance_id: str, url: str) -> int:
    """The key of the instance that is found by the id; where the index has none, of the one whose row shows that id in a listing.

    Raises:
        InstanceNotFoundError: there is neither.
    """
    for (key,) in rows(connection, "key_of", (instance_id,)):
        return int(key)
    after = -(2**63)
    while found := fetched(connection, WHOLE["all_ids"], (after, _IDS_AT_ONCE)):
        for key, id in found:
            if as_text(id) == instance_id:
                return int(key)
        after = found[-1][0]
    raise not_there(instance_id, url)


def _check_others(connection: sqlite3.Connection, key: int, instance_id: str) -> None:
    """All rows of instances but that one are sound.

    Raises:
        StoreCorruptError: another one is damaged, too.
    """
    after = -(2**63)
    while found := fetched(connection, WHOLE["all_instances"], (after, _ROWS_AT_ONCE)):
        for row in found:
            if row[sums.KEY] != key and _is_damaged(row):
                what = f"instance '{instance_id}' cannot be taken out while another is damaged, too: instance {row[_ID]!r:.300}"
                raise damaged(connection, what)
        after = found[-1][sums.KEY]


def _is_damaged(row: Sequence[Any]) -> bool:
    return sums.fault_of(row) is not None or row[-1] != int(row[_ID].startswith("@"))
