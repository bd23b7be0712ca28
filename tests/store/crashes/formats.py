"""Files of former formats, with all in them that the format can hold, and left behind by a process that was killed.

The world is written with the present code; what an old format has tables and columns for is then written into a file that its own scripts have made.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

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
    for table, (columns, rows) in contents.items():
        if not table or table in _DERIVED:
            continue
        there = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
        if not there:
            continue
        connection.execute(f'DELETE FROM "{table}"')
        common = [column for column in columns if column in there]
        places = [columns.index(column) for column in common]
        statement = f'INSERT INTO "{table}" ({", ".join(common)}) VALUES ({", ".join("?" * len(common))})'
        connection.executemany(statement, [[row[place] for place in places] for row in rows])
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
    for table, (columns, rows) in old.items():
        if not table or table == "code":
            continue
        now, then = new[table]
        places = [now.index(column) for column in columns]
        assert [tuple(row[place] for place in places) for row in then] == rows, table


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
