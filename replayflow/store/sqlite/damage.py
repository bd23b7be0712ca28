"""What is said of a file that does not read back as it was written."""

from __future__ import annotations

import sqlite3

from replayflow.errors import StoreCorruptError
from replayflow.store.sqlite.statements import SQL


class DamagedInstance(Exception):
    """An operation meets an instance that does not read back as it was written: it is refused alone, with the error."""

    def __init__(self, error: StoreCorruptError) -> None:
        super().__init__(str(error))
        self.error = error


def damaged(connection: sqlite3.Connection, what: str) -> StoreCorruptError:
    """The refusal of what is damaged, in the connection's file."""
    [[file]] = connection.execute(SQL["main_file"]).fetchall()
    return StoreCorruptError(f"{what} {of_file(file or ':memory:')}")


def of_file(file: object) -> str:
    """What is true of all that is damaged: where it is, and what to do."""
    return (
        f"does not read back as it was written: {file} is damaged; nothing was changed; keep a copy, look at it with "
        f"`replayflow doctor --integrity`, and restore the last good backup"
    )
