"""A user's statements inside a transaction of ours: what they may do, and for how long.

1. While they run SQLite asks our authorizer; afterwards it does not, whatever happened. What is not allowed here by name is denied.
2. Once the transaction is gone (a conflict clause can end it without asking) no statement runs any more: it would commit by itself.
3. Time is limited: within a statement by SQLite's progress handler, between statements by the clock.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from replayflow.core.transaction import Parameters, Statements
from replayflow.errors import ForbiddenStatementError, TransactionTimeoutError
from replayflow.store.base import Raised
from replayflow.store.sqlite import schema
from replayflow.store.sqlite.connection import in_transaction
from replayflow.store.sqlite.statements import SQL

T = TypeVar("T")
_INSTRUCTIONS_PER_LOOK = 1000
_PRAGMAS = frozenset(
    {"foreign_key_check", "foreign_key_list", "index_info", "index_list", "index_xinfo"}
    | {"table_info", "table_list", "table_xinfo"}
)
_FREE = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE})
_OF_FIRST = frozenset(  # the table, or the view, is the first of what the authorizer is told
    {sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_VIEW, sqlite3.SQLITE_DROP_TABLE, sqlite3.SQLITE_DROP_VIEW}
    | {sqlite3.SQLITE_READ, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE}
)
_OF_SECOND = frozenset(  # the table is the second, after the index or the trigger, or after the database
    {sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_DROP_INDEX, sqlite3.SQLITE_CREATE_TRIGGER}
    | {sqlite3.SQLITE_DROP_TRIGGER, sqlite3.SQLITE_ALTER_TABLE}
)
_MAKES_KEYS = frozenset({sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_ALTER_TABLE})
# SQLite's own tables that reach below the tables, where a build has them.
_DEEP = frozenset({"sqlite_dbpage", "dbstat", "sqlite_stmt", "bytecode", "tables_used"})
# Not the user's fault, and gone in a while: the store's to deal with.
_STORE_TROUBLE = frozenset({"BUSY", "LOCKED", "FULL", "IOERR", "READONLY", "CANTOPEN", "CORRUPT", "NOTADB"})


@cache
def engine_names() -> frozenset[str]:
    """The names of the engine's tables and indexes, in lower case."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.migrate(connection, Path(":memory:"))
        return frozenset(name.lower() for (name,) in connection.execute(SQL["schema_names"]))


def commit_together(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """`in_transaction`, on a connection that users' statements run on: a constraint of theirs that is deferred speaks at the end.

    Raises:
        Raised: it did; nothing was written.
    """
    try:
        return in_transaction(connection, work)
    except sqlite3.IntegrityError as error:
        raise Raised(error) from error


def prepare(connection: sqlite3.Connection) -> sqlite3.Connection:
    """The connection, ready for users' statements: foreign keys hold, which nobody can ask for inside a transaction."""
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def perform(connection: sqlite3.Connection, work: Callable[[Statements], T], seconds_max: float) -> T:
    """What the work comes to, with its statements run inside the transaction that is open.

    Raises:
        Raised: the work has failed; the error is its cause. The caller rolls back.
        sqlite3.Error: the store has.
    """
    statements = Guarded(connection, time.monotonic() + seconds_max, seconds_max)
    try:
        with _guarding(connection, statements):
            result = work(statements)
        statements.check()
        statements.check_keys()
    except BaseException as error:
        if statements.trouble is not None:
            raise statements.trouble from None
        raise Raised(error) from error
    finally:
        statements.is_over = True
    return result


class Guarded:
    """Statements of a user's, as long as they may run."""

    def __init__(self, connection: sqlite3.Connection, deadline: float, seconds_max: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._seconds_max = seconds_max
        self.is_over = False
        self.trouble: sqlite3.Error | None = None
        self.denied: str | None = None
        self._may_refer = False

    def execute(self, statement: str, parameters: Parameters) -> tuple[list[tuple[Any, ...]], int]:
        with self._explained(statement):
            cursor = self._connection.execute(statement, parameters)
            return cursor.fetchall(), max(cursor.rowcount, 0)

    def execute_many(self, statement: str, rows: Iterable[Parameters]) -> int:
        with self._explained(statement):
            return max(self._connection.executemany(statement, rows).rowcount, 0)

    def is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def check(self) -> None:
        """The transaction is there, and has time left.

        Raises:
            ForbiddenStatementError, TransactionTimeoutError: it is not, or has not.
        """
        if self.is_late():
            raise TransactionTimeoutError(
                f"the transaction took longer than its {self._seconds_max:g} s, in which the hub cannot write; it was rolled back"
            )
        if self.is_over:
            raise ForbiddenStatementError(
                "the activity that had this transaction is over: use it inside the activity only"
            )
        if not self._connection.in_transaction:
            raise ForbiddenStatementError(
                "the transaction is gone: a statement, or a conflict clause such as INSERT OR ROLLBACK, has rolled it back as a whole"
            )

    def check_keys(self) -> None:
        """No foreign key of a table that was made or changed here refers to a table of the engine's.

        The authorizer is not asked about them, and with one SQLite looks into the program's tables whenever the engine writes to its own.

        Raises:
            ForbiddenStatementError: one does.
        """
        if not self._may_refer:
            return
        for table, referred in self._connection.execute(SQL["foreign_keys"]):
            if referred.lower() in engine_names():
                raise ForbiddenStatementError(
                    f"a foreign key of table '{table}' refers to the engine's table '{referred}'; leave it out: a transactional activity has "
                    "the instance's id in `Transaction.instance_id`"
                )

    @contextmanager
    def _explained(self, statement: str) -> Iterator[None]:
        if self.is_over:
            raise ForbiddenStatementError(
                "the activity that had this transaction is over: use it inside the activity only"
            )
        self.check()
        self.denied = None
        try:
            yield
        except sqlite3.Error as error:
            if self.denied is not None:
                raise ForbiddenStatementError(
                    f"{statement.strip()!r:.200}: {self.denied} is not for a transactional activity; it may use tables of the program's own, "
                    "and leaves the transaction, the engine's tables, other databases and settings alone"
                ) from None
            primary = (getattr(error, "sqlite_errorname", None) or "").split("_")[1:2]
            if primary and primary[0] in _STORE_TROUBLE:
                self.trouble = error
            if self.is_late():
                self.check()
            raise

    def authorize(
        self,
        action: int,
        first: str | None,
        second: str | None,
        _database: str | None,
        _source: str | None,
    ) -> int:
        denied = _denied(action, first or "", second or "")
        if denied is None:
            self._may_refer = self._may_refer or action in _MAKES_KEYS
            return sqlite3.SQLITE_OK
        self.denied = denied
        return sqlite3.SQLITE_DENY


@contextmanager
def _guarding(connection: sqlite3.Connection, statements: Guarded) -> Iterator[None]:
    # Setting an authorizer makes SQLite prepare every statement of the connection anew: none that is cached comes past it.
    connection.set_authorizer(statements.authorize)
    connection.set_progress_handler(statements.is_late, _INSTRUCTIONS_PER_LOOK)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)
        connection.set_authorizer(None)


def _denied(action: int, first: str, second: str) -> str | None:
    """What is wrong with the action; None where it is allowed."""
    if action in _FREE:
        return None
    if action in _OF_FIRST:
        return _denied_table(first)
    if action in _OF_SECOND:
        return _denied_table(second)
    if action == sqlite3.SQLITE_REINDEX:  # which making an index does, too
        return "REINDEX of the engine's" if first.lower() in engine_names() else None
    if action == sqlite3.SQLITE_FUNCTION:
        return "load_extension" if second.lower() == "load_extension" else None
    if action == sqlite3.SQLITE_PRAGMA:
        return None if first.lower() in _PRAGMAS else f"PRAGMA {first}"
    return _NAMES.get(action, f"action {action} of SQLite")


def _denied_table(name: str) -> str | None:
    if name.lower() in engine_names():
        return f"the engine's table '{name}'"
    return f"SQLite's table '{name}'" if name.lower() in _DEEP else None


_NAMES = {
    sqlite3.SQLITE_TRANSACTION: "transaction control",
    sqlite3.SQLITE_SAVEPOINT: "a savepoint",
    sqlite3.SQLITE_ATTACH: "ATTACH",
    sqlite3.SQLITE_DETACH: "DETACH",
    sqlite3.SQLITE_ANALYZE: "ANALYZE",
    sqlite3.SQLITE_CREATE_VTABLE: "a virtual table",
    sqlite3.SQLITE_DROP_VTABLE: "a virtual table",
    sqlite3.SQLITE_CREATE_TEMP_INDEX: "a temporary index",
    sqlite3.SQLITE_CREATE_TEMP_TABLE: "a temporary table",
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER: "a temporary trigger",
    sqlite3.SQLITE_CREATE_TEMP_VIEW: "a temporary view",
}
