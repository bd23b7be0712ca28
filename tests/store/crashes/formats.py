"""Files of former formats, with all in them that the format can hold, and left behind by a process that was killed.

The world is written with the present code; what an old format has tables and columns for is then written into a file that its own scripts have made.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from replayflow.store.sqlite import schema
from tests.store.builders import everything
from tests.store.crashes.contents import Contents, contents_in
from tests.store.crashes.files import Files, Reader, laid
from tests.store.crashes.matrix import Played, on_file, world
from tests.store.crashes.recording import Recording

LATEST = schema.migrations()[-1][0]
FORMER = range(1, LATEST)
OUT_OF_LINE = 7
"""The first format that keeps large payloads out of line."""
SERVED = 6
"""The first that knows of versions of code."""
_DERIVED = {"tag"}


class Change(NamedTuple):
    """A column that a format has otherwise than those before it: under another name, or so many times as large."""

    since: int
    table: str
    column: str
    name: str
    times: int = 1


CHANGES = [
    Change(10, "history", "at", "at", 31),
]


def _changes(number: int, table: str) -> dict[str, Change]:
    """Between the format and the present one."""
    return {each.column: each for each in CHANGES if each.table == table and number < each.since <= LATEST}


def _name_since(number: int, table: str, column: str) -> str:
    change = _changes(number, table).get(column)
    return column if change is None else change.name


def _as_formerly(number: int, contents: Contents, table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows of a table, as the format had them, in these of its columns."""
    now, rows = contents[table]
    changes = _changes(number, table)
    places = [
        (now.index(_name_since(number, table, each)), changes[each].times if each in changes else 1) for each in columns
    ]
    return [tuple(row[place] if times == 1 else row[place] // times for place, times in places) for row in rows]


async def filled(number: int, folder: Path) -> tuple[Files, Files]:
    """A file of the format, its last transaction still in the log; and one of the present format with the same in it."""
    present = await world(is_apart=number >= OUT_OF_LINE)
    with laid(present, folder) as path, closing(sqlite3.connect(path, isolation_level=None)) as connection:
        contents = contents_in(connection)
    with laid(Files(b""), folder) as path:
        reader = Reader(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            _write(connection, number, contents)
            files = reader.copy()
        reader.close()
    return files, present


def _write(connection: sqlite3.Connection, number: int, contents: Contents) -> None:
    for each, script in schema.migrations():
        if each <= number:
            connection.executescript(script)
    connection.execute(f"PRAGMA user_version = {number}")
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("BEGIN")
    for table, (columns, _) in contents.items():
        if not table or table in _DERIVED:
            continue
        there = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
        if not there:
            continue
        connection.execute(f'DELETE FROM "{table}"')
        known = [column for column in there if _name_since(number, table, column) in columns]
        statement = f'INSERT INTO "{table}" ({", ".join(known)}) VALUES ({", ".join("?" * len(known))})'
        connection.executemany(statement, _as_formerly(number, contents, table, known))
    if number < SERVED:
        connection.execute("INSERT INTO code (name, digest) VALUES ('order', 'digest'), ('chain', 'other')")
    connection.execute("COMMIT")


async def migrated(files: Files, folder: Path, pages: int | None = None) -> Played:
    """The file is opened by the present code, and closed."""
    with laid(files, folder) as path:
        recording = Recording(path, pages)
        with recording.running():
            store = on_file(path)
            before = recording.passed("the migration")
            await store.open()
            told = recording.passed("told")
            await store.close()
    return Played(recording, before, told)


def check_kept(old: Contents, new: Contents) -> None:
    """All that a file held is in the one that it became.

    Raises:
        AssertionError: something is not.
    """
    number = old[""][0][0]
    for table, (columns, rows) in old.items():
        if table and table != "code":
            assert _as_formerly(number, new, table, columns) == rows, table


async def shown(files: Files, folder: Path, *, is_versioned: bool) -> Any:
    """What the port shows of the file, once it is open; of the code that is served only where the format knew of versions."""
    with laid(files, folder) as path:
        store = on_file(path)
        await store.open()
        try:
            assert (await store.condition(is_thorough=True)).faults == ()
            return await everything(store), await store.served() if is_versioned else None
        finally:
            await store.close()
