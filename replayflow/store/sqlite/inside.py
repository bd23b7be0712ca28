"""Writing in somebody else's transaction: an operation becomes part of what their connection has under way.

1. Nothing is written outside of a transaction, or into a file that is no hub of this version's format.
2. A refusal or an error leaves their transaction as it was before, open and usable: what we write stands behind a savepoint.
3. Numbers are read and counted on in their transaction, which writes only if what it has read is the newest.

Prose: docs/decisions/0022-start-in-a-transaction.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from replayflow.codec import LARGE_OVER_BYTES
from replayflow.encryption import cipher_of_environment
from replayflow.errors import (
    InvalidArgumentError,
    NewerSchemaError,
    NotAHubError,
    NoTransactionError,
    StoreBusyError,
    StoreUnavailableError,
)
from replayflow.store.base import Create, Outcome, Post
from replayflow.store.sqlite import schema
from replayflow.store.sqlite.connection import of_sqlite_error
from replayflow.store.sqlite.group import write_one_by_one
from replayflow.store.sqlite.statements import SQL

T = TypeVar("T")
_FORMAT = schema.migrations()[-1][0]


def write_inside(connection: sqlite3.Connection, operation: Create | Post) -> Outcome:
    """The operation is part of the connection's transaction, or refused with the outcome's error; nothing is committed here.

    Raises:
        InvalidArgumentError: it is no connection of the `sqlite3` module.
        NoTransactionError: it is in no transaction.
        NotAHubError, NewerSchemaError, StoreUnavailableError: its main file is no hub of the format that this version writes.
        StoreBusyError: somebody else has written since the transaction's first reading, or is writing now; it has to be begun again.
        StoreError: SQLite cannot write.
    """
    if not isinstance(connection, sqlite3.Connection):
        raise InvalidArgumentError(
            f"connection is {connection!r:.80}; it is a sqlite3.Connection, such as the one that a driver or an ORM has underneath"
        )
    if not connection.in_transaction:
        raise NoTransactionError(
            "the connection is in no transaction, so that this would be committed alone: execute BEGIN IMMEDIATE, or write your own rows, first"
        )
    with _as_we_read(connection) as plain:
        [[file]] = plain.execute(SQL["main_file"]).fetchall()
        path = Path(file or ":memory:")
        try:
            _check_format(plain, path)
            return _behind_a_savepoint(plain, lambda: _write(plain, operation, path))
        except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise  # closed, or of another thread: sqlite3 says it best
        except sqlite3.Error as error:
            raise _of_error(error, path) from error


class _Plain:
    """A connection whose rows are tuples, whatever its owner makes of theirs: a cursor of its own has no row factory."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    @property
    def text_factory(self) -> Any:
        """What text is made of: whoever reads what is damaged changes it for a moment."""
        return self._connection.text_factory

    @text_factory.setter
    def text_factory(self, factory: Any) -> None:
        self._connection.text_factory = factory

    def execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
        return sqlite3.Cursor(self._connection).execute(statement, parameters)

    def executemany(self, statement: str, parameters: Any) -> sqlite3.Cursor:
        return sqlite3.Cursor(self._connection).executemany(statement, parameters)


@contextmanager
def _as_we_read(connection: sqlite3.Connection) -> Iterator[_Plain]:
    """Text comes as `str` meanwhile."""
    before = connection.text_factory
    connection.text_factory = str
    try:
        yield _Plain(connection)
    finally:
        connection.text_factory = before


def _check_format(connection: _Plain, path: Path) -> None:
    version, application, _ = connection.execute(SQL["format"]).fetchone()
    if application != schema.APPLICATION_ID:
        raise NotAHubError(f"{path}, the main file of this connection, is no task hub: open it as one first")
    if version > _FORMAT:
        raise NewerSchemaError(
            f"{path} was written by a newer replayflow: its format is {version}, this version knows up to {_FORMAT}; upgrade replayflow"
        )
    if version < _FORMAT:
        raise StoreUnavailableError(
            f"{path} is of an older format ({version}, this version writes {_FORMAT}): a worker or a client that opens it brings it up to date"
        )
    hidden: Sequence[tuple[str]] = connection.execute(SQL["hidden_tables"]).fetchall()
    if hidden:
        raise InvalidArgumentError(
            f"a temporary table '{hidden[0][0]}' of this connection hides the hub's own: drop it"
        )


def _behind_a_savepoint(connection: _Plain, work: Callable[[], T]) -> T:
    connection.execute("SAVEPOINT replayflow")
    try:
        result = work()
    except BaseException:
        if connection.in_transaction:  # a full disk may have rolled back all of it
            connection.execute("ROLLBACK TO replayflow")
            connection.execute("RELEASE replayflow")
        raise
    connection.execute("RELEASE replayflow")
    return result


def _write(connection: _Plain, operation: Create | Post, path: Path) -> Outcome:
    [outcome] = write_one_by_one(
        cast("sqlite3.Connection", connection),
        [operation],
        None,
        f"sqlite:///{path}",
        LARGE_OVER_BYTES,
        cipher_of_environment(),
    )
    return outcome


def _of_error(error: sqlite3.Error, path: Path) -> Exception:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_BUSY"):
        return StoreBusyError(
            f"the transaction cannot write to {path}: somebody else is writing, or has written since it first read; roll it back and "
            "begin it with BEGIN IMMEDIATE, which waits its turn"
        )
    return of_sqlite_error(error, path)
