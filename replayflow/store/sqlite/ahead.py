"""A group of operations that is worked out before its transaction begins, by whoever hands it in.

What a busy hub writes touches instances that the transactions before have touched, so that nothing need be read: the statements, with all
that they bind, can be known beforehand. The writing thread then has nothing to do but to give them to SQLite, which needs no
lock of the interpreter's, and the values are worked on where they were made, in the caches of the same processor.

1. What the transaction finds must be what was taken for granted: the hub's row, and SQLite's count of the changes by others, are read in it first.
   Where either is another, nothing is written and the group is worked out anew, in the transaction.
2. Whoever works out a group ahead changes what is remembered of the instances. It is his until that group is written: another group that comes to the
   thread meanwhile finds the memory of no use, and forgets it.

Prose: docs/decisions/0032-worked-out-ahead.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NoReturn, cast

from replayflow.codec.cipher import Cipher
from replayflow.store.operations import Operation, Outcome
from replayflow.store.sqlite import hub
from replayflow.store.sqlite.connection import in_transaction
from replayflow.store.sqlite.group import UNSTORABLE, Group
from replayflow.store.sqlite.known import REMEMBERED_MAX, Remembered

_SHUNNED_GROUPS = 100
"""So many groups are not worked out ahead after one that was in vain: whoever has large payloads, or a neighbour who writes, has more of them."""


class Outdated(Exception):
    """The hub is not as it was taken to be. Nothing was written."""


class _MustRead(Exception):
    """The group cannot be worked out without the file."""


class _Script:
    """Stands in for a connection: keeps what it is given, and knows nothing."""

    def __init__(self) -> None:
        self.statements: list[tuple[str, Sequence[Any]]] = []

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> _Script:
        self.statements.append((statement, parameters))
        return self

    def executemany(self, *_: object) -> NoReturn:
        raise _MustRead

    def fetchone(self) -> NoReturn:
        raise _MustRead

    def fetchall(self) -> NoReturn:
        raise _MustRead


class Ahead:
    """A group as it was worked out, to be written in a transaction: `ahead.write(connection)` between BEGIN and COMMIT."""

    def __init__(
        self, script: _Script, outcomes: list[Outcome], own: hub.Hub, version: int, left: hub.Hub, url: str
    ) -> None:
        self.left = left
        self._script = script
        self._outcomes = outcomes
        self._own = own
        self._version = version
        self._url = url

    def write(self, connection: sqlite3.Connection) -> list[Outcome]:
        """The outcomes, with all that was accepted written.

        Raises:
            LeaseLostError: the hub's epoch is another.
            Outdated: the hub is another than it was.
        """
        if hub.read_as_owner(connection, self._own.epoch, self._url) != (self._own, self._version):
            raise Outdated
        for statement, parameters in self._script.statements:
            connection.execute(statement, parameters)
        return self._outcomes


def work_out(
    operations: Sequence[Operation],
    epoch: int,
    url: str,
    remembered: Remembered,
    large_over_bytes: int,
    cipher: Cipher | None,
) -> Ahead | None:
    """The group, if it can be known without the file. For whoever knows that nobody else is at work with what is remembered."""
    own, version = remembered.hub, remembered.version
    if own is None or version is None or own.epoch != epoch or cipher is not None:
        return None
    if remembered.ahead is not None or len(remembered.instances) > REMEMBERED_MAX:
        return None
    if remembered.shunned:
        remembered.shunned -= 1
        return None
    try:
        group = Group(operations, epoch, url, large_over_bytes, cipher, remembered)
        unknown, is_simple = group.unknown()
        if unknown or not is_simple:
            return None
        script = _Script()
        remembered.ahead = script  # before anything changes: from here on memory is ahead of the file, whatever happens
        outcomes = group.work_out(cast("sqlite3.Connection", script), own)
        ahead = remembered.ahead = Ahead(script, outcomes, own, version, group.left, url)
    except BaseException as error:
        remembered.forget()
        remembered.shunned = _SHUNNED_GROUPS
        if not isinstance(error, Exception):
            raise
        return None  # the transaction meets what was wrong, and says so
    return ahead


def write_ahead(connection: sqlite3.Connection, ahead: Ahead, remembered: Remembered) -> list[Outcome] | None:
    """The group is one transaction; None, and nothing is written or remembered, where it has to be worked out in its transaction after all.

    Raises:
        LeaseLostError: the hub's epoch is another; nothing was written.
    """
    try:
        outcomes = in_transaction(connection, ahead.write)
    except (Outdated, *UNSTORABLE):
        remembered.forget()
        remembered.shunned = _SHUNNED_GROUPS
        return None
    except BaseException:
        remembered.forget()
        raise
    remembered.left(ahead.left)
    return outcomes
