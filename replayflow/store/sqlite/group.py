"""One group of operations as one SQLite transaction.

What the operations touch is read with one statement; the operations are then applied in order to what was read, as the memory store does
it; what they come to is written with a few statements of many rows. The order of writing (instances, history, states, inbox) lets an
instance begin, move and end within one group.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from replayflow.codec.cipher import Cipher
from replayflow.codec.reference import may_refer
from replayflow.core.commit import Commit, Message, RowState, Start, Turn
from replayflow.core.instance import CONTINUED_AS_NEW, PENDING, SUSPENDED, Status
from replayflow.errors import (
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    InvalidStateError,
    LeaseLostError,
    PayloadTooLargeError,
    ReplayflowError,
)
from replayflow.store.base import (
    ACCEPTED,
    EXECUTIONS_PER_TRIM,
    MICROSECONDS_PER_DAY,
    Branch,
    Branched,
    Create,
    Delivery,
    Operation,
    Outcome,
    Park,
    Post,
    Purge,
    Trim,
    id_taken,
    moved_on,
    why_it_stays,
)
from replayflow.store.incoming import Incoming
from replayflow.store.outgoing import GONE, Outgoing, passed_on_in
from replayflow.store.sqlite import contents
from replayflow.store.sqlite.connection import in_transaction
from replayflow.store.sqlite.statements import NO_BLOB, NO_NUMBER, NO_TEXT, ROWS, SQL

_PENDING = Status.PENDING.value
_REMEMBERED_MAX = 50_000
_STATUSES: dict[str, Status] = {status.value: status for status in Status}
# Text that is no Unicode or has a NUL where it must not, a number beyond 64 bits, a value beyond SQLite's limit.
_UNSTORABLE = (ValueError, OverflowError, sqlite3.DataError)


@dataclass(slots=True)
class Known:
    """An instance as the transaction has it so far."""

    key: int
    execution_id: str
    status: Status
    start_number: int
    is_parked: bool
    last_number: int
    row: list[object] | None = None
    """Its row, where the transaction itself adds it and has not written it yet."""

    @property
    def takes_messages(self) -> bool:
        return self.status is not SUSPENDED and not self.is_parked


class Remembered:
    """What the last transactions left of the instances that they touched, so that the next need not read it again.

    It holds as long as nobody else has written: SQLite tells, and then, or when a transaction fails, all of it is forgotten.
    """

    def __init__(self) -> None:
        self.instances: dict[str, Known] = {}
        self._version: int | None = None

    def check(self, version: int | None) -> None:
        """`version` is SQLite's count of the changes by others, read inside the transaction, when nobody else can write any more."""
        if version is None or version != self._version or len(self.instances) > _REMEMBERED_MAX:
            self._version = version
            self.instances.clear()

    def forget(self) -> None:
        """Nothing is known any more."""
        self.instances.clear()


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
    try:
        return in_transaction(connection, Group(operations, epoch, url, large_over_bytes, cipher, remembered).write)
    except BaseException as error:
        remembered.forget()
        if not isinstance(error, _UNSTORABLE):
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
        except _UNSTORABLE as error:
            connection.execute("ROLLBACK TO operation")
            id = next(_touched(operation))
            kind = PayloadTooLargeError if isinstance(error, sqlite3.DataError) else InvalidArgumentError
            outcomes.append(Outcome(error=kind(f"instance {id!a:.300}: SQLite cannot store what came for it: {error}")))
        connection.execute("RELEASE operation")
    return outcomes


class Group:
    """The transaction's work: `Group(...).write(connection)` between BEGIN and COMMIT."""

    def __init__(
        self,
        operations: Sequence[Operation],
        epoch: int | None,
        url: str,
        large_over_bytes: int,
        cipher: Cipher | None,
        remembered: Remembered | None = None,
    ) -> None:
        self._remembered = remembered or Remembered()
        self._operations = operations
        self._epoch = epoch
        self._url = url
        self._known = self._remembered.instances
        self._instances: list[list[object]] = []
        self._added: list[Known] = []
        self._pieces: list[tuple[object, ...]] = []
        self._states: dict[int, tuple[object, ...]] = {}
        self._consumed: list[int] = []
        self._messages: list[tuple[object, ...]] = []
        self._removed: list[int] = []
        self._purged: Counter[tuple[int, str]] = Counter()
        self._outgoing = Outgoing(large_over_bytes, cipher)
        self._cipher = cipher
        self._untouched_bytes = self._outgoing.untouched_bytes
        self._next_key = self._next_number = 0

    def write(self, connection: sqlite3.Connection) -> list[Outcome]:
        """The outcomes, with all that was accepted written.

        Raises:
            LeaseLostError: the hub's epoch is another.
        """
        self._connection = connection
        epoch, self._next_key, self._next_number, version = connection.execute(SQL["hub"]).fetchone()
        if self._epoch is not None and epoch != self._epoch:
            raise LeaseLostError(
                f"the hub {self._url} has another owner by now (epoch {epoch}, ours was {self._epoch}): nothing was written"
            )
        self._remembered.check(version)
        before = (self._next_key, self._next_number)
        self._read_known()
        outcomes = [_WORK[type(operation)](self, operation) for operation in self._operations]
        self._flush()
        if before != (self._next_key, self._next_number):
            connection.execute(SQL["count_on"], (self._next_key, self._next_number))
        return outcomes

    def _read_known(self) -> None:
        known = self._known
        wanted: set[str] = set()
        new: set[str] = set()
        for operation in self._operations:
            kind = type(operation)
            if kind is Turn or (kind is Commit and not operation.starts and not operation.messages):  # type: ignore[union-attr]
                id: str = operation.instance_id  # type: ignore[union-attr]  # nearly every one
                if id not in known and id not in new:
                    wanted.add(id)
            elif kind is Create and operation.has_new_id:  # type: ignore[union-attr]
                new.add(operation.start.instance_id)  # type: ignore[union-attr]
            else:
                wanted.update(id for id in _touched(operation) if id not in known)
        if not wanted:
            return
        ids = json.dumps(list(wanted))
        for id, key, execution_id, status, start_number, parked, last in self._connection.execute(SQL["known"], (ids,)):
            self._known[id] = Known(
                key, execution_id, _STATUSES[status], start_number, bool(parked), max(start_number, last or 0)
            )

    def _flush(self) -> None:
        connection = self._connection
        if self._outgoing.uses or self._outgoing.key_ids:
            # First: a use that goes below must not take a content with it that is used anew.
            contents.keep(connection, self._outgoing)
        if self._removed:
            self._remove_all()
        if self._instances:
            ROWS["add_instances"].run(connection, self._instances)
            self._instances = []
            for known in self._added:
                known.row = None
            self._added = []
        if self._pieces:
            ROWS["add_pieces"].run(connection, self._pieces)
            self._pieces = []
        if self._states:
            ROWS["show_states"].run(connection, list(self._states.values()))
            self._states = {}
        if self._consumed:
            connection.execute(SQL["consume"], (json.dumps(self._consumed),))
            self._consumed = []
        if self._messages:
            at = time.time_ns() // 1_000
            ROWS["add_messages"].run(connection, [(*message, at) for message in self._messages])
            self._messages = []

    # ---- operations

    def _turn(self, turn: Turn) -> Outcome:
        """`_commit` for what nearly every commit is: a piece of history, and nothing else."""
        known = self._known.get(turn.instance_id)
        chunk = turn.chunk
        if (
            known is None
            or known.execution_id != turn.execution_id
            or turn.sequence != known.last_number + 1
            or chunk is None
            or len(chunk) > self._untouched_bytes
        ):
            return self._commit(turn)
        self._pieces.append((known.key, turn.sequence, turn.at, bytearray(chunk)))
        known.last_number = turn.sequence
        return ACCEPTED

    def _commit(self, commit: Commit) -> Outcome:
        if commit.messages or commit.starts or commit.next_start is not None:
            refused = self._lacks(commit)
            if refused is not None:
                return refused
        known = self._known.get(commit.instance_id)
        if known is None or known.execution_id != commit.execution_id or commit.sequence != known.last_number + 1:
            return Outcome(
                LeaseLostError(
                    f"instance '{commit.instance_id}' has moved on: piece {commit.sequence} of execution {commit.execution_id} does not continue it"
                )
            )
        if commit.chunk is not None:
            chunk = commit.chunk
            if len(chunk) > self._untouched_bytes:
                chunk = self._outgoing.events(chunk, known.key, commit.instance_id)
            self._pieces.append((known.key, commit.sequence, commit.at, bytearray(chunk)))
            known.last_number = commit.sequence
        state = commit.state
        if state is not None:
            known.status = state.status
            shown = self._shown(state, known.key, commit.instance_id)
            if known.row is None:
                self._states[known.key] = (known.key, *shown)
            else:
                known.row[5], known.row[8] = shown[:2]
                known.row[10:15] = (shown[5], *shown[2:5], shown[6])
                known.row[17] = shown[7]
        if commit.consumed:
            self._consumed += commit.consumed
        if commit.next_start is not None:
            self._succeed(known, commit.next_start, commit.past_kept)
        if not commit.starts and not commit.messages and not commit.removes:
            return ACCEPTED
        outcome = Outcome()
        for start in commit.starts:
            if start.instance_id not in self._known:
                self._begin(start, outcome)
            elif start.if_taken is not None:
                self._send(start.if_taken, outcome)
        for message in commit.messages:
            self._send(message, outcome)
        if commit.removes:
            self._remove_if_empty(commit.instance_id, known)
        return outcome

    def _create(self, create: Create) -> Outcome:
        refused = self._lacks(create)
        if refused is not None:
            return refused
        start = create.start
        outcome = Outcome()
        known = self._known.get(start.instance_id)
        if known is None:
            self._nudge(self._begin(start, outcome), start.instance_id, outcome)
            return outcome
        finished = known.status.is_finished
        if create.on_existing == "return":
            outcome.has_existed = True
        elif create.on_existing == "error" or (create.on_existing == "replace_finished" and not finished):
            outcome.error = id_taken(start.instance_id, known.status)
        elif finished:
            self._succeed(known, start)
            outcome.started.append(start)
            self._nudge(known, start.instance_id, outcome)
        else:
            assert create.replacement is not None  # noqa: S101 - the client sends one with this choice
            self._send(create.replacement, outcome)
        return outcome

    def _post(self, post: Post) -> Outcome:
        refused = self._lacks(post)
        if refused is not None:
            return refused
        outcome = Outcome()
        message = post.message
        known = self._known.get(message.instance_id)
        if known is None and message.start is not None:
            known = self._begin(message.start, outcome)
        if known is None:
            outcome.error = InstanceNotFoundError(f"no instance '{message.instance_id}' is in the hub {self._url}")
        elif post.dedupe_key is not None and self._is_repeated(known, post.dedupe_key):
            pass
        elif known.status.is_finished and not (post.replaces_finished and message.start is not None):
            outcome.error = InstanceFinishedError(
                f"instance '{message.instance_id}' has finished, with status {known.status}, and takes no messages"
            )
        else:
            if known.status.is_finished and message.start is not None:
                self._succeed(known, message.start)
                outcome.started.append(message.start)
            if post.dedupe_key is not None:
                self._connection.execute(SQL["remember"], (known.key, post.dedupe_key))
            self._send(message, outcome)
        return outcome

    def _park(self, park: Park) -> Outcome:
        refused = self._lacks(park)
        if refused is not None:
            return refused
        outcome = Outcome()
        known = self._known.get(park.instance_id)
        if known is None or known.execution_id != park.execution_id:
            outcome.error = LeaseLostError(f"instance '{park.instance_id}' has moved on")
            return outcome
        self._flush()
        problem = self._outgoing.text(park.problem, park.instance_id)
        self._connection.execute(SQL["park"], (problem, known.key))
        known.is_parked = park.problem is not None
        if known.is_parked:
            self._connection.execute(SQL["forget_suspicion"], (park.instance_id,))
        for message in park.messages:
            self._send(message, outcome)
        return outcome

    def _purge(self, purge: Purge) -> Outcome:
        known = self._known.get(purge.instance_id)
        if known is None:
            return Outcome(InstanceNotFoundError(f"no instance '{purge.instance_id}' is in the hub {self._url}"))
        if self._instances or self._states:
            self._flush()  # what it owes may be said there
        owes = self._connection.execute(SQL["owes"], (known.key,)).fetchone() is not None
        refusal = why_it_stays(purge.instance_id, known.status, owes=owes)
        if refusal is not None:
            return Outcome(refusal)
        if purge.execution_id is not None and purge.execution_id != known.execution_id:
            return Outcome(InvalidStateError(f"instance '{purge.instance_id}' is in another execution by now"))
        self._remove(purge.instance_id, known)
        self._purged[purge.at // MICROSECONDS_PER_DAY, purge.cause] += 1
        return Outcome()

    def _trim(self, trim: Trim) -> Outcome:
        known = self._known.get(trim.instance_id)
        if known is None:
            return Outcome(InstanceNotFoundError(f"no instance '{trim.instance_id}' is in the hub {self._url}"))
        self._flush()
        self._forget_executions(known, trim.keep)
        return Outcome()

    def _branch(self, branch: Branch) -> Outcome:
        refused = self._lacks(branch)
        if refused is not None:
            return refused
        outcome = Outcome(self._unfit(branch))
        if outcome.error is not None:
            return outcome
        for one in branch.executions:
            start = one.start
            known = self._known.get(start.instance_id)
            if known is None:
                known = self._begin(start, outcome)
                self._flush()
            else:
                self._succeed(known, start, continues=True)
                outcome.started.append(start)
            for at, piece in one.pieces:
                known.last_number += 1
                stored = self._outgoing.events(piece, known.key, start.instance_id)
                self._pieces.append((known.key, known.last_number, at, bytearray(stored)))
            known.status = one.state.status
            self._states[known.key] = (known.key, *self._shown(one.state, known.key, start.instance_id))
            self._nudge(known, start.instance_id, outcome)
        for start in branch.starts:
            if start.instance_id not in self._known:
                self._nudge(self._begin(start, outcome), start.instance_id, outcome)
            elif start.if_taken is not None:
                self._send(start.if_taken, outcome)
        for message in branch.messages:
            self._send(message, outcome)
        return outcome

    def _unfit(self, branch: Branch) -> ReplayflowError | None:
        for one in branch.executions:
            known = self._known.get(one.start.instance_id)
            if one.replaces is None and known is not None:
                return id_taken(one.start.instance_id, known.status)
            if one.replaces is not None and (
                known is None
                or (known.execution_id, known.last_number) != (one.replaces, one.last)
                or not known.status.is_finished
                or self._has_come_since(known, one)
            ):
                return moved_on(one.start.instance_id)
        for seen in branch.seen:
            known = self._known.get(seen.instance_id)
            if known is None or known.status.is_finished == (seen.execution_id is None):
                return moved_on(seen.instance_id)
            if seen.execution_id is not None and seen.execution_id != known.execution_id:
                return moved_on(seen.instance_id)
        return None

    def _has_come_since(self, known: Known, one: Branched) -> bool:
        if self._messages:
            self._flush()
        place = (known.key, one.last_message, one.replaces)
        return self._connection.execute(SQL["has_come_since"], place).fetchone() is not None

    # ---- what they are made of

    def _shown(self, state: RowState, key: int, instance_id: str) -> tuple[object, ...]:
        """The state as a row of `show_states`, after the key."""
        outgoing = self._outgoing
        return (
            state.status.value,
            NO_NUMBER if state.wake_at is None else state.wake_at,
            _blob(outgoing.payload(state.custom_status, key, instance_id)),
            _blob(outgoing.payload(state.output, key, instance_id)),
            _events(outgoing, state.failure, key, instance_id),
            NO_NUMBER if state.completed_at is None else state.completed_at,
            _events(outgoing, state.orphans, key, instance_id),
            _blob(state.progress),
        )

    def _is_repeated(self, known: Known, dedupe_key: str) -> bool:
        return self._connection.execute(SQL["is_repeated"], (known.key, dedupe_key)).fetchone() is not None

    def _begin(self, start: Start, outcome: Outcome) -> Known:
        if "\0" in start.instance_id:
            raise ValueError("a NUL character in an id")
        key = self._next_key
        self._next_key = key + 1
        version = NO_TEXT if start.version is None else start.version
        parent_id = NO_TEXT if start.parent_id is None else start.parent_id
        tags = NO_TEXT if start.tags is None else _tags(start.tags)
        event, start = self._kept_start(start, key)
        row: list[object] = [
            *(key, start.instance_id, start.execution_id, start.name, version, _PENDING, bytearray(event), 0),
            *(start.wake_at, start.created_at, NO_NUMBER, NO_BLOB, NO_BLOB, NO_BLOB, NO_BLOB, parent_id, tags, NO_BLOB),
            1 if start.instance_id[0] == "@" else 0,
        ]
        self._instances.append(row)
        known = self._known[start.instance_id] = Known(key, start.execution_id, PENDING, 0, False, 0, row)
        self._added.append(known)
        outcome.started.append(start)
        return known

    def _remove_if_empty(self, instance_id: str, known: Known) -> None:
        """The instance is no more, if nothing is left in its inbox."""
        self._flush()
        if self._connection.execute(SQL["has_messages"], (known.key,)).fetchone() is None:
            self._remove(instance_id, known)

    def _remove(self, instance_id: str, known: Known) -> None:
        """The instance is no more. Its rows go with those of others, when the group is written; what the group has of it so far goes first."""
        if self._instances or self._pieces or self._states or self._consumed or self._messages:
            self._flush()
        self._removed.append(known.key)
        del self._known[instance_id]

    def _remove_all(self) -> None:
        """All that is kept of the removed instances, in whatever table, is gone."""
        connection = self._connection
        keys = json.dumps(self._removed)
        for statement in (
            "remove_messages",
            "remove_keys",
            "remove_transacted",
            "remove_history",
            "remove_executions",
            "remove_instances",
        ):
            connection.execute(SQL[statement], (keys,))
        self._removed = []
        for (day, cause), instances in self._purged.items():
            connection.execute(SQL["count_purged"], (day, cause, instances))
        self._purged.clear()

    def _forget_executions(self, known: Known, keep: int) -> None:
        """Of the past executions the last `keep` stay, or more, where too many would go at once. Executions go as a whole."""
        connection = self._connection
        first_kept = known.start_number
        if keep:
            kept = connection.execute(SQL["newest_execution"], (known.key, keep - 1)).fetchone()
            if kept is None:
                return
            (first_kept,) = kept
        for (after_most,) in connection.execute(SQL["oldest_execution"], (known.key, EXECUTIONS_PER_TRIM)).fetchall():
            first_kept = min(first_kept, after_most)
        connection.execute(SQL["forget_pieces"], (known.key, first_kept))
        connection.execute(SQL["forget_executions"], (known.key, first_kept))
        contents.recount(connection, known.key)

    def _succeed(self, known: Known, start: Start, past_kept: int | None = None, *, continues: bool = False) -> None:
        """The next execution begins under the same id; the last one's start takes its place in the history."""
        self._flush()
        connection = self._connection
        connection.execute(SQL["move_start_into_history"], (known.key,))
        connection.execute(SQL["note_past_execution"], (known.key,))
        number = known.last_number + 1
        tags = None if start.tags is None else _tags(start.tags)
        event, _ = self._kept_start(start, known.key)
        shown = (start.execution_id, start.name, start.version, event, number, start.wake_at, tags)
        if continues or known.status is CONTINUED_AS_NEW:
            connection.execute(SQL["begin_continued"], (*shown, known.key))
        else:
            connection.execute(SQL["begin_replacing"], (*shown, start.created_at, start.parent_id, known.key))
            connection.execute(SQL["forget_keys"], (known.key,))
        known.execution_id, known.status, known.is_parked = start.execution_id, PENDING, False
        known.start_number = known.last_number = number
        if past_kept is not None:
            self._forget_executions(known, past_kept)

    def _kept_start(self, start: Start, key: int) -> tuple[bytes, Start]:
        """The start's events as they are stored, and the start as it is told of: whole."""
        event = start.event
        if len(event) > self._untouched_bytes or may_refer(event):
            return self._outgoing.events(event, key, start.instance_id), self._incoming().start(start)
        return event, start

    def _incoming(self) -> Incoming:
        """Made where it is needed: kept here it would keep the group alive in a circle, one for every transaction."""
        return Incoming(self._passed_on, self._cipher)

    def _passed_on(self, digests: Iterable[bytes]) -> dict[bytes, bytes]:
        """The contents of references that somebody passes on, as far as they are there."""
        wanted = set(digests)
        found = {digest: content for digest, content in self._outgoing.contents.items() if digest in wanted}
        return found | contents.fetch(self._connection, wanted - found.keys())

    def _lacks(self, operation: Operation) -> Outcome | None:
        """The refusal of an operation that passes on a reference to what is not there."""
        digests = passed_on_in(operation)
        return None if not digests or self._incoming().has(digests) else Outcome(InvalidArgumentError(GONE))

    def _nudge(self, known: Known, instance_id: str, outcome: Outcome) -> None:
        if self._epoch is None:
            self._deliver(known, Delivery(0, instance_id, None, is_control=True), outcome)

    def _send(self, message: Message, outcome: Outcome) -> None:
        known = self._known.get(message.instance_id)
        if known is None and message.start is not None:
            known = self._begin(message.start, outcome)
        if (
            known is None
            or known.status.is_finished
            or (message.execution_id is not None and message.execution_id != known.execution_id)
        ):
            outcome.dropped.append(message)
        else:
            self._deliver(
                known,
                Delivery(0, message.instance_id, message.event, message.execution_id, message.is_control),
                outcome,
            )

    def _deliver(self, known: Known, delivery: Delivery, outcome: Outcome) -> None:
        delivery.number = self._next_number
        self._next_number += 1
        event = delivery.event
        if event is not None and (len(event) > self._untouched_bytes or may_refer(event)):
            event = self._outgoing.events(event, -delivery.number, delivery.instance_id)
            if may_refer(event):
                self._incoming().delivery(delivery)
        delivery.takes_messages = known.takes_messages
        execution_id = NO_TEXT if delivery.execution_id is None else delivery.execution_id
        self._messages.append((delivery.number, known.key, _blob(event), execution_id, int(delivery.is_control)))
        outcome.deliveries.append(delivery)


def _events(outgoing: Outgoing, encoded: bytes | None, key: int, instance_id: str) -> object:
    return NO_BLOB if encoded is None else bytearray(outgoing.events(encoded, key, instance_id))


def _blob(payload: bytes | None) -> object:
    return NO_BLOB if payload is None else bytearray(payload)


def _tags(tags: dict[str, str]) -> str:
    if any("\0" in text for tag in tags.items() for text in tag):
        raise ValueError("a NUL character in a tag")
    return json.dumps(tags, ensure_ascii=False)


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
