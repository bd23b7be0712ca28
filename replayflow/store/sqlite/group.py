"""One group of operations as one SQLite transaction.

What the operations touch is read with one statement; the operations are then applied in order to what was read, as the memory store does
it; what they come to is written with a few statements of many rows. From the ground up: `unwritten.py` has the rows, `instances.py`
what happens to an instance, `branching.py` and `applying.py` the operations.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from replayflow.codec.cipher import Cipher
from replayflow.core.commit import Commit, Turn
from replayflow.core.instance import RUNNING, Status
from replayflow.errors import (
    InvalidArgumentError,
    PayloadTooLargeError,
)
from replayflow.store.operations import (
    Branch,
    Create,
    Operation,
    Outcome,
    Park,
    Post,
    Purge,
    Trim,
)
from replayflow.store.sqlite import hub
from replayflow.store.sqlite.applying import Applying
from replayflow.store.sqlite.connection import in_transaction
from replayflow.store.sqlite.damage import DamagedInstance, damaged
from replayflow.store.sqlite.known import Known, Remembered
from replayflow.store.sqlite.records import rows

_STATUSES: dict[str, Status] = {status.value: status for status in Status}
UNSTORABLE = (ValueError, OverflowError, sqlite3.DataError)
"""Text that is no Unicode or has a NUL where it must not, a number beyond 64 bits, a value beyond SQLite's limit."""
_OF_ONE = (*UNSTORABLE, DamagedInstance)


def write_group(
    connection: sqlite3.Connection,
    operations: Sequence[Operation],
    epoch: int | None,
    url: str,
    remembered: Remembered,
    large_over_bytes: int,
    cipher: Cipher | None,
) -> list[Outcome]:
    """The operations as one transaction; an outcome for each. Payloads of more than `large_over_bytes` are kept out of line; a cipher seals all.

    Raises:
        LeaseLostError: the hub's epoch is another; nothing was written.
    """
    if remembered.ahead is not None:
        remembered.forget()  # it is of a group that was worked out, and never written
    try:
        group = Group(operations, epoch, url, large_over_bytes, cipher, remembered)
        outcomes = in_transaction(connection, group.write)
        remembered.left(group.left)
        return outcomes
    except BaseException as error:
        remembered.forget()
        if not isinstance(error, _OF_ONE):
            raise
        # Nothing was written. SQLite does not say whose value it was: again, so that only the operation that has it is refused.
        return in_transaction(
            connection,
            lambda connection: write_one_by_one(connection, operations, epoch, url, large_over_bytes, cipher),
        )


def write_one_by_one(
    connection: sqlite3.Connection,
    operations: Sequence[Operation],
    epoch: int | None,
    url: str,
    large_over_bytes: int,
    cipher: Cipher | None,
) -> list[Outcome]:
    """The operations in the transaction that the connection is in, each behind a savepoint; an outcome for each."""
    outcomes: list[Outcome] = []
    for operation in operations:
        connection.execute("SAVEPOINT operation")
        try:
            outcomes += Group([operation], epoch, url, large_over_bytes, cipher).write(connection)
        except UNSTORABLE as error:
            connection.execute("ROLLBACK TO operation")
            id = next(_touched(operation))
            kind = PayloadTooLargeError if isinstance(error, sqlite3.DataError) else InvalidArgumentError
            outcomes.append(Outcome(error=kind(f"instance {id!a:.300}: SQLite cannot store what came for it: {error}")))
        except DamagedInstance as damage:
            connection.execute("ROLLBACK TO operation")
            outcomes.append(Outcome(error=damage.error))
        connection.execute("RELEASE operation")
    return outcomes


class Group(Applying):
    """The transaction's work: `Group(...).write(connection)` between BEGIN and COMMIT. `left` is how it leaves the hub's row."""

    left: hub.Hub

    def write(self, connection: sqlite3.Connection) -> list[Outcome]:
        """The outcomes, with all that was accepted written.

        Raises:
            LeaseLostError: the hub's epoch is another.
        """
        own, version = hub.read_as_owner(connection, self._epoch, self._url)
        self._remembered.check(version)
        unknown, _ = self.unknown()
        if unknown:
            self._read_known(connection, unknown)
        return self.work_out(connection, own)

    def work_out(self, connection: sqlite3.Connection, own: hub.Hub) -> list[Outcome]:
        """As `write`, where `own` is the hub's row, and what the operations touch is known."""
        self._connection = connection
        self._next_key, self._next_number = own.next_key, own.next_number
        if self._damaged:
            outcomes = [self._refused(operation) or self._work(operation) for operation in self._operations]
            for id in self._damaged:
                self._known.pop(id, None)  # the next group is not to take it for what it is
        else:
            outcomes = [_WORK[type(operation)](self, operation) for operation in self._operations]
        self._flush()
        self.left = own
        if (own.next_key, own.next_number) != (self._next_key, self._next_number):
            self.left = own._replace(next_key=self._next_key, next_number=self._next_number)
            hub.change(connection, self.left)
        return outcomes

    def unknown(self) -> tuple[set[str], bool]:
        """Whom the operations touch that is not known, and whether that is all that has to be read."""
        known = self._known
        wanted: set[str] = set()
        new: set[str] = set()
        is_simple = True
        for operation in self._operations:
            kind = type(operation)
            if kind is Turn or (kind is Commit and not operation.starts and not operation.messages):  # type: ignore[union-attr]
                id: str = operation.instance_id  # type: ignore[union-attr]  # nearly every one
                if id not in known and id not in new:
                    wanted.add(id)
                if kind is Commit and (operation.next_start is not None or operation.removes):  # type: ignore[union-attr]
                    is_simple = False
            elif kind is Create and operation.has_new_id:  # type: ignore[union-attr]
                new.add(operation.start.instance_id)  # type: ignore[union-attr]
            elif kind is Post:
                is_simple = False
                id = operation.message.instance_id  # type: ignore[union-attr]
                if id not in known:
                    wanted.add(id)
            else:
                is_simple = False
                wanted.update(id for id in _touched(operation) if id not in known)
        return wanted, is_simple

    def _read_known(self, connection: sqlite3.Connection, wanted: set[str]) -> None:
        ids = json.dumps(list(wanted))
        for id, *row in rows(connection, "known", (ids,)):
            key, execution_id, status, start_number, is_parked, start_sum, last, sum = row
            if last is None or last <= start_number:
                last, sum = start_number, start_sum
            if status not in _STATUSES or type(start_sum) is not int or type(sum) is not int:
                self._damaged.add(id)
                status, start_sum, sum = RUNNING, 0, 0  # messages for it are kept; nothing else is written
            self._known[id] = Known(
                key,
                execution_id,
                _STATUSES[status],
                start_number,
                bool(is_parked),
                last,
                start_sum,
                sum,
            )

    def _work(self, operation: Operation) -> Outcome:
        return _WORK[type(operation)](self, operation)

    def _refused(self, operation: Operation) -> Outcome | None:
        """The refusal of an operation on an instance that is damaged. What others send to it goes into its inbox."""
        id = next(_touched(operation))
        return Outcome(damaged(self._connection, f"instance '{id}'")) if id in self._damaged else None


def _touched(operation: Operation) -> Iterator[str]:
    """The ids of all instances that the operation names."""
    match operation:
        case Post():
            yield operation.message.instance_id
        case Create():
            yield operation.start.instance_id
        case Commit():
            yield operation.instance_id
            for start in operation.starts:
                yield start.instance_id
                if start.if_taken is not None:
                    yield start.if_taken.instance_id
            for message in operation.messages:
                yield message.instance_id
        case Park():
            yield operation.instance_id
            for message in operation.messages:
                yield message.instance_id
        case Purge() | Trim():
            yield operation.instance_id
        case Branch():
            for one in operation.executions:
                yield one.start.instance_id
            for seen in operation.seen:
                yield seen.instance_id
            for start in operation.starts:
                yield start.instance_id
                if start.if_taken is not None:
                    yield start.if_taken.instance_id
            for message in operation.messages:
                yield message.instance_id


# By exact type: a thousand operations are asked what they are in every transaction.
_WORK: dict[type[Operation], Callable[[Group, Any], Outcome]] = {
    Turn: Group._turn,
    Commit: Group._commit,
    Create: Group._create,
    Post: Group._post,
    Park: Group._park,
    Purge: Group._purge,
    Trim: Group._trim,
    Branch: Group._branch,
}
