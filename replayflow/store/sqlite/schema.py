"""The file's format: numbered migrations, applied as a whole or not at all.

A hub bears our application id, and its `user_version` is the number of its last migration. A file that is neither empty nor a hub, or that
is newer than this code, is refused before anything is written to it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

from replayflow.errors import NewerSchemaError, NotAHubError
from replayflow.store.sqlite import filling
from replayflow.store.sqlite.connection import in_transaction
from replayflow.store.sqlite.statements import SQL
from replayflow.store.sqlite.upgrading import Upgrade

APPLICATION_ID = 0x52464C57  # "RFLW"


def migrations() -> list[tuple[int, str]]:
    """The numbered scripts, in order."""
    folder = files("replayflow.store.sqlite").joinpath("migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name[:4]), folder.joinpath(name).read_text("utf-8")) for name in names]


def check(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the hub in the file, 0 for an empty file.

    Raises:
        NotAHubError, NewerSchemaError: the file is not for this code.
    """
    # One statement, and so one moment: between two, another process may turn the empty file into a hub.
    version, application, tables = connection.execute(SQL["format"]).fetchone()
    latest = migrations()[-1][0]
    if application != APPLICATION_ID and (application or version or tables):
        raise NotAHubError(f"{path} is an SQLite database of something else, not a task hub; it was left as it is")
    if version > latest:
        raise NewerSchemaError(
            f"{path} was written by a newer replayflow: its format is {version}, this version knows up to {latest}; upgrade replayflow"
        )
    return int(version)


def migrate(
    connection: sqlite3.Connection, path: Path, busy_seconds: float = 10.0, unwanted: threading.Event | None = None
) -> None:
    """The file is a hub of the latest version. Where somebody else is bringing it up to date, that is waited for as long as it goes on.

    Raises:
        StoreBusyError: it has not gone on for `busy_seconds`; or the migration is `unwanted` by now, and was undone.
    """
    latest = migrations()[-1][0]
    found = check(connection, path)
    if found == latest:
        return

    def work(connection: sqlite3.Connection) -> None:
        present = check(connection, path)  # again, inside: another process may have been faster
        for number, script in migrations():
            if number > present:
                for statement in _statements(script):
                    connection.execute(statement)
                if number in FILLS:
                    FILLS[number](connection)
                connection.execute(_SET_VERSION[number])
        connection.execute(_SET_APPLICATION)

    if found == 0:
        in_transaction(connection, work)
    else:
        upgrade = Upgrade(connection, path, busy_seconds, unwanted or threading.Event())
        upgrade.run(work, lambda: check(connection, path) == latest, latest)


# A pragma takes no parameters; these are the only values that there are.
_SET_APPLICATION = f"PRAGMA application_id = {APPLICATION_ID}"
FILLS: dict[int, Callable[[sqlite3.Connection], None]] = {10: filling.fill}
"""What a script cannot say in SQL, by the number of the migration that it belongs to."""
_SET_VERSION = {number: f"PRAGMA user_version = {number}" for number, _ in migrations()}


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
