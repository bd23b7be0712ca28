"""What happens to instances within a transaction: they begin, succeed one another, get messages, and are removed."""

from __future__ import annotations

import json
from collections.abc import Iterable

from replayflow.codec.reference import may_refer
from replayflow.core.commit import Message, Start
from replayflow.core.instance import CONTINUED_AS_NEW, PENDING
from replayflow.errors import InvalidArgumentError
from replayflow.store.incoming import Incoming
from replayflow.store.operations import EXECUTIONS_PER_TRIM, Delivery, Operation, Outcome
from replayflow.store.outgoing import GONE, passed_on_in
from replayflow.store.sqlite import contents, sums
from replayflow.store.sqlite.damage import DamagedInstance, damaged
from replayflow.store.sqlite.known import NOTHING_YET, Known
from replayflow.store.sqlite.records import as_stored, rows
from replayflow.store.sqlite.statements import SQL
from replayflow.store.sqlite.sums import of_shown, of_start
from replayflow.store.sqlite.unwritten import Unwritten


class Instances(Unwritten):
    """What operations are made of."""

    def _begin(self, start: Start, outcome: Outcome) -> Known:
        if "\0" in start.instance_id:
            raise ValueError("a NUL character in an id")
        key = self._next_key
        self._next_key = key + 1
        id, execution_id, name, version = start.instance_id, start.execution_id, start.name, start.version
        parent_id, created_at, wake_at = start.parent_id, start.created_at, start.wake_at
        tags = None if start.tags is None else _tags(start.tags)
        event = start.event
        if len(event) > self._untouched_bytes or may_refer(event):
            event, start = self._kept_start(start, key)
        start_sum = of_start(event, key, id, execution_id, name, version, created_at, parent_id, tags, 0)
        row = (
            (key, id, execution_id, name, bytearray(event), created_at, 1 if id[0] == "@" else 0),
            (version, parent_id, tags),
            NOTHING_YET if wake_at == 0 else (PENDING.text, wake_at, *NOTHING_YET[2:]),
        )
        known = self._known[id] = Known(key, execution_id, PENDING, 0, False, 0, start_sum, start_sum, row)
        self._added.append(known)
        outcome.started.append(start)
        return known

    def _succeed(self, known: Known, start: Start, past_kept: int | None = None, *, continues: bool = False) -> None:
        """The next execution begins under the same id; the last one's start takes its place in the history.

        Raises:
            DamagedInstance: the row, of which a part stays, does not read back as it was written.
        """
        self._flush()
        connection, id, key, number = self._connection, start.instance_id, known.key, known.last_number + 1
        [row] = rows(connection, "record", (id,))
        fault = sums.fault_of(row)
        if fault is not None:
            raise DamagedInstance(damaged(connection, f"instance '{id}': {fault}"))
        before = as_stored(row)
        self._become_past(known, before.start, before.created_at, number)
        tags = None if start.tags is None else _tags(start.tags)
        event, _ = self._kept_start(start, key)
        continues = continues or known.status is CONTINUED_AS_NEW
        custom_status = before.custom_status if continues else None
        created_at, parent_id = (
            (before.created_at, before.parent_id) if continues else (start.created_at, start.parent_id)
        )
        start_sum = of_start(
            event, key, id, start.execution_id, start.name, start.version, created_at, parent_id, tags, number
        )
        shows = (PENDING.text, start.wake_at, custom_status, None, None, None, before.orphans, None, number)
        sum = of_shown(start_sum, *shows)
        shown = (
            start.execution_id,
            start.name,
            start.version,
            event,
            number,
            start.wake_at,
            tags,
            number,
            start_sum,
            sum,
        )
        if continues:
            connection.execute(SQL["begin_continued"], (*shown, key))
        else:
            connection.execute(SQL["begin_replacing"], (*shown, created_at, parent_id, key))
            connection.execute(SQL["forget_keys"], (key,))
        known.execution_id, known.status, known.is_parked = start.execution_id, PENDING, False
        known.start_number = known.last_number = number
        known.start_sum = known.sum = start_sum
        if past_kept is not None:
            self._forget_executions(known, past_kept)

    def _become_past(self, known: Known, start: bytes, created_at: int, end: int) -> None:
        """The present execution's start stands in the history, before its pieces, and its place is noted."""
        number, execution_id = known.start_number, known.execution_id
        sum = sums.of_past(start, known.key, execution_id, number, end, known.start_sum)
        self._pieces.append((known.key, number, created_at, bytearray(start), known.start_sum))
        self._flush()
        self._connection.execute(SQL["note_past_execution"], (known.key, execution_id, number, sum))

    def _kept_start(self, start: Start, key: int) -> tuple[bytes, Start]:
        """The start's events as they are stored, and the start as it is told of: whole."""
        event = start.event
        if len(event) > self._untouched_bytes or may_refer(event):
            return self._outgoing.events(event, key, start.instance_id), self._incoming().start(start)
        return event, start

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

    def _nudge(self, known: Known, instance_id: str, outcome: Outcome) -> None:
        if self._epoch is None:
            self._deliver(known, Delivery(0, instance_id, None, is_control=True), outcome)

    def _deliver(self, known: Known, delivery: Delivery, outcome: Outcome) -> None:
        delivery.number = self._next_number
        self._next_number += 1
        event = delivery.event
        if event is not None and (len(event) > self._untouched_bytes or may_refer(event)):
            event = self._outgoing.events(event, -delivery.number, delivery.instance_id)
            if may_refer(event):
                self._incoming().delivery(delivery)
        delivery.takes_messages = known.takes_messages
        self._messages.append((delivery.number, known.key, event, delivery.execution_id, int(delivery.is_control)))
        outcome.deliveries.append(delivery)

    def _remove_if_empty(self, instance_id: str, known: Known) -> None:
        """The instance is no more, if nothing is left in its inbox."""
        self._flush()
        if self._connection.execute(SQL["has_messages"], (known.key,)).fetchone() is None:
            self._remove(instance_id, known)

    def _remove(self, instance_id: str, known: Known) -> None:
        """The instance is no more. Its rows go with those of others, when the group is written; what the group has of it so far goes first."""
        if self._added or self._pieces or self._states or self._consumed or self._messages:
            self._flush()
        self._removed.append(known.key)
        del self._known[instance_id]

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

    def _lacks(self, operation: Operation) -> Outcome | None:
        """The refusal of an operation that passes on a reference to what is not there."""
        digests = passed_on_in(operation)
        return None if not digests or self._incoming().has(digests) else Outcome(InvalidArgumentError(GONE))

    def _incoming(self) -> Incoming:
        """Made where it is needed: kept here it would keep the group alive in a circle, one for every transaction."""
        return Incoming(self._passed_on, self._cipher)

    def _passed_on(self, digests: Iterable[bytes]) -> dict[bytes, bytes]:
        """The contents of references that somebody passes on, as far as they are there."""
        wanted = set(digests)
        found = {digest: content for digest, content in self._outgoing.contents.items() if digest in wanted}
        return found | contents.fetch(self._connection, wanted - found.keys())


def _tags(tags: dict[str, str]) -> str:
    if any("\0" in text for tag in tags.items() for text in tag):
        raise ValueError("a NUL character in a tag")
    return json.dumps(tags, ensure_ascii=False)
