"""Rows of the file as records, held against their sums.

A row that does not fit its sum is refused where it is asked for, and marked where it is one of a listing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from replayflow.core.instance import PENDING, Status
from replayflow.store.records import InstanceRecord
from replayflow.store.sqlite import sums
from replayflow.store.sqlite.damage import damaged
from replayflow.store.sqlite.statements import SQL

_STATUSES: dict[str, Status] = {status.value: status for status in Status}


def rows(connection: sqlite3.Connection, name: str, parameters: Any = ()) -> list[Any]:
    """All rows of the statement with that name."""
    try:
        return fetched(connection, SQL[name], parameters)
    except UnicodeEncodeError:
        return []  # no row has what cannot be stored


def fetched(connection: sqlite3.Connection, statement: str, parameters: Any = ()) -> list[Any]:
    """All rows of the statement. Text that is damaged so that it is no UTF-8 any more has surrogates, and fits no sum."""
    try:
        return connection.execute(statement, parameters).fetchall()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorname", None) is not None or "decode" not in str(error):
            raise
    before = connection.text_factory
    connection.text_factory = _decoded
    try:
        return connection.execute(statement, parameters).fetchall()
    finally:
        connection.text_factory = before


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def verified(connection: sqlite3.Connection, row: Sequence[Any]) -> InstanceRecord:
    """The row of a statement that has all columns of an instance.

    Raises:
        StoreCorruptError: it does not read back as it was written.
    """
    fault = sums.fault_of(row)
    if fault is not None:
        raise damaged(connection, f"instance {row[0]!r:.300}: {fault}")
    return as_stored(row)


def listed(connection: sqlite3.Connection, row: Sequence[Any]) -> InstanceRecord:
    """The row as one of many: damaged, it is there without its values, and says so."""
    fault = sums.fault_of(row)
    return as_stored(row) if fault is None else _marked(row, str(damaged(connection, fault)))


def as_stored(row: Sequence[Any]) -> InstanceRecord:
    """The row, which fits its sums, as a record."""
    at = row[9]
    return InstanceRecord(
        instance_id=row[0],
        execution_id=row[1],
        name=row[2],
        version=row[3],
        status=_STATUSES[row[4]],
        start=row[5],
        start_number=row[6],
        wake_at=row[7],
        created_at=row[8],
        updated_at=row[8] if at is None else max(row[8], at // sums.TIMES),
        completed_at=row[10],
        custom_status=row[11],
        output=row[12],
        failure=row[13],
        problem=row[14],
        orphans=row[15],
        parent_id=row[16],
        tags=sums.tags_of(row[17]),
        progress=row[18],
    )


def _marked(row: Sequence[Any], damage: str) -> InstanceRecord:
    """What is damaged, in a listing. None of it can be believed but that it is there."""
    return InstanceRecord(
        instance_id=as_text(row[0]),
        execution_id=as_text(row[1]),
        name=as_text(row[2]),
        version=None,
        status=_STATUSES.get(row[4], PENDING),
        start=b"",
        start_number=0,
        wake_at=None,
        created_at=_number(row[8]),
        updated_at=_number(row[8]),
        completed_at=None,
        damage=damage,
    )


def as_text(value: object) -> str:
    """What a listing shows of a text that may be none."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else ascii(value)


def _number(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < _LATEST else 0


_LATEST = 253_402_300_799_000_000  # the last second of the year 9999, in microseconds
