"""What a transaction has not written yet: rows, collected until a few statements of many rows write them all.

1. The order of writing (contents, removals, instances, history, states, inbox) lets an instance begin, move and end within one group.
2. Whoever reads, or changes a row by a statement of its own, has what concerns it written first (`_flush`).
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from replayflow.codec.cipher import Cipher
from replayflow.core.commit import RowState
from replayflow.store.operations import Operation
from replayflow.store.outgoing import Outgoing
from replayflow.store.sqlite import contents
from replayflow.store.sqlite.damage import damaged
from replayflow.store.sqlite.known import Known, Remembered
from replayflow.store.sqlite.statements import NO_BLOB, NO_NUMBER, NO_TEXT, ROWS, SQL
from replayflow.store.sqlite.sums import fits, of_row, of_shown


class Unwritten:
    """The rows of one transaction, as far as they are not written, and what it knows of the instances.

    What builds on this inherits it, floor by floor up to `Group`: a thousand operations go through in a transaction, and a hop from part to part
    would be paid for with each.
    """

    _connection: sqlite3.Connection

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
        self._instances: list[list[Any]] = []
        self._added: list[Known] = []
        self._damaged: set[str] = set()
        self._pieces: list[tuple[object, ...]] = []
        self._states: dict[int, tuple[object, ...]] = {}
        self._consumed: list[int] = []
        self._messages: list[tuple[int, int, bytes | None, str | None, int]] = []
        self._removed: list[int] = []
        self._purged: Counter[tuple[int, str]] = Counter()
        self._outgoing = Outgoing(large_over_bytes, cipher)
        self._cipher = cipher
        self._untouched_bytes = self._outgoing.untouched_bytes
        self._next_key = self._next_number = 0

    def _flush(self) -> None:
        """All of it is written."""
        connection = self._connection
        if self._outgoing.uses or self._outgoing.key_ids:
            # First: a use that goes below must not take a content with it that is used anew.
            contents.keep(connection, self._outgoing)
        if self._removed:
            self._remove_all()
        if self._instances:
            for known, row in zip(self._added, self._instances, strict=True):
                row[21] = of_shown(known.start_sum, *row[21])  # by now it is known what it shows
                known.row = None
            ROWS["add_instances"].run(connection, self._instances)
            self._instances, self._added = [], []
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
            ROWS["add_messages"].run(connection, [message_row(*message, at) for message in self._messages])
            self._messages = []

    def _remove_all(self) -> None:
        """All that is kept of the removed instances, in whatever table, is gone."""
        remove_all(self._connection, self._removed)
        self._removed = []
        for (day, cause), instances in self._purged.items():
            count_purged(self._connection, day, cause, instances)
        self._purged.clear()

    def _show(self, known: Known, state: RowState, instance_id: str) -> None:
        """The instance's row shows the state, as of the last piece."""
        outgoing, key, last, row = self._outgoing, known.key, known.last_number, known.row
        status, wake_at, completed_at, progress = state.status.value, state.wake_at, state.completed_at, state.progress
        if (
            self._cipher is not None
            and row is None
            and any(outgoing.seals_anew(one, instance_id) for one in (state.custom_status, state.output, state.orphans))
        ):
            contents.recall(self._connection, outgoing, key, instance_id)
        custom_status = outgoing.payload(state.custom_status, key, instance_id)
        output = outgoing.payload(state.output, key, instance_id)
        failure = None if state.failure is None else outgoing.events(state.failure, key, instance_id)
        orphans = None if state.orphans is None else outgoing.events(state.orphans, key, instance_id)
        if row is None:
            self._states[key] = (
                key,
                status,
                NO_NUMBER if wake_at is None else wake_at,
                as_blob(custom_status),
                as_blob(output),
                as_blob(failure),
                NO_NUMBER if completed_at is None else completed_at,
                as_blob(orphans),
                as_blob(progress),
                last,
                of_shown(
                    known.start_sum,
                    status,
                    wake_at,
                    custom_status,
                    output,
                    failure,
                    completed_at,
                    orphans,
                    progress,
                    last,
                ),
            )
        else:
            row[5] = status
            row[8] = NO_NUMBER if wake_at is None else wake_at
            row[10] = NO_NUMBER if completed_at is None else completed_at
            row[11:15] = as_blob(custom_status), as_blob(output), as_blob(failure), as_blob(orphans)
            row[17], row[19] = as_blob(progress), last
            row[21] = (status, wake_at, custom_status, output, failure, completed_at, orphans, progress, last)


def remove_all(connection: sqlite3.Connection, keys: Sequence[int]) -> None:
    """All that is kept of the instances with these keys, in whatever table, is gone."""
    encoded = json.dumps(keys)
    for statement in (
        "remove_messages",
        "remove_keys",
        "remove_transacted",
        "remove_history",
        "remove_executions",
        "remove_instances",
    ):
        connection.execute(SQL[statement], (encoded,))


def count_purged(connection: sqlite3.Connection, day: int, cause: str, instances: int) -> None:
    """So many more are counted as purged on that day.

    Raises:
        StoreCorruptError: the count does not read back as it was written.
    """
    for *row, sum in connection.execute(SQL["purged_on"], (day, cause)).fetchall():
        if not fits(row, sum):
            raise damaged(connection, "the count of what was purged")
        instances += row[-1]
    connection.execute(SQL["count_purged"], (day, cause, instances, of_row(day, cause, instances)))


def message_row(
    number: int, key: int, event: bytes | None, execution_id: str | None, is_control: int, at: int
) -> tuple[object, ...]:
    """The message as a row of `add_messages`."""
    sum = of_row(number, key, event, execution_id, is_control, at)
    return number, key, as_blob(event), NO_TEXT if execution_id is None else execution_id, is_control, at, sum


def as_blob(payload: bytes | None) -> object:
    return NO_BLOB if payload is None else bytearray(payload)
