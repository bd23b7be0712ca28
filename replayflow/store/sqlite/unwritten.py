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

from replayflow.codec.cipher import Cipher
from replayflow.core.commit import RowState
from replayflow.store.operations import Operation
from replayflow.store.outgoing import Outgoing
from replayflow.store.sqlite import contents
from replayflow.store.sqlite.damage import damaged
from replayflow.store.sqlite.known import Known, Remembered, Shown
from replayflow.store.sqlite.statements import NO_BLOB, NO_NUMBER, NO_TEXT, ROWS, SQL
from replayflow.store.sqlite.sums import fits, of_row, of_shown

_NO_MORE = (None, None, None)
_NOTHING_SHOWN = (None,) * 6
_NO_MORE_SHOWN = (None,) * 5


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
        self._added: list[Known] = []
        self._damaged: set[str] = set()
        self._pieces: list[tuple[object, ...]] = []
        self._states: dict[int, tuple[int, Shown]] = {}
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
        if self._added:
            self._add_all()
        if self._pieces:
            ROWS["add_pieces"].run(connection, self._pieces)
            self._pieces = []
        if self._states:
            self._show_all()
        if self._consumed:
            connection.execute(SQL["consume"], (json.dumps(self._consumed),))
            self._consumed = []
        if self._messages:
            at = time.time_ns() // 1_000
            ROWS["add_messages"].run(connection, [message_row(*message, at) for message in self._messages])
            self._messages = []

    def _add_all(self) -> None:
        """The instances that the transaction adds are in the file. Most have few of the columns that a row may have."""
        plain: list[tuple[object, ...]] = []
        rich: list[tuple[object, ...]] = []
        for known in self._added:
            assert known.row is not None  # noqa: S101 - it is what was added
            always, at_times, shows = known.row
            start_sum = known.start_sum
            known.row = None  # what is remembered of it has no values
            row = (
                *always,
                shows[0],
                NO_NUMBER if shows[1] is None else shows[1],
                shows[8],
                start_sum,
                of_shown(start_sum, *shows),
            )
            if at_times == _NO_MORE and shows[2:8] == _NOTHING_SHOWN:
                plain.append(row)
            else:
                rich.append((*row, *map(_as_text, at_times), *map(as_blob, shows[2:8])))
        self._added = []
        ROWS["add_instances"].run(self._connection, plain)
        ROWS["add_rich_instances"].run(self._connection, rich)

    def _show_all(self) -> None:
        """The rows show the states. What nearly every row shows last is an end with an output, and nothing else."""
        ends: list[tuple[object, ...]] = []
        states: list[tuple[object, ...]] = []
        for key, (start_sum, shows) in self._states.items():
            status, wake_at, custom_status, output, failure, completed_at, orphans, progress, last = shows
            sum = of_shown(start_sum, *shows)
            if output is not None and (wake_at, custom_status, failure, orphans, progress) == _NO_MORE_SHOWN:
                ends.append((key, status, bytearray(output), completed_at, last, sum))
            else:
                states.append((key, status, *map(as_blob, shows[1:8]), last, sum))
        self._states = {}
        ROWS["show_ends"].run(self._connection, ends)
        ROWS["show_states"].run(self._connection, states)

    def _remove_all(self) -> None:
        """All that is kept of the removed instances, in whatever table, is gone."""
        remove_all(self._connection, self._removed)
        self._removed = []
        for (day, cause), instances in self._purged.items():
            count_purged(self._connection, day, cause, instances)
        self._purged.clear()

    def _show(self, known: Known, state: RowState, instance_id: str) -> None:
        """The instance's row shows the state, as of the last piece."""
        outgoing, key = self._outgoing, known.key
        custom_status, output, failure, orphans = state.custom_status, state.output, state.failure, state.orphans
        if (
            self._cipher is not None
            and known.row is None
            and any(outgoing.seals_anew(one, instance_id) for one in (custom_status, output, orphans))
        ):
            contents.recall(self._connection, outgoing, key, instance_id)
        shows = (
            state.status.text,
            state.wake_at,
            None if custom_status is None else outgoing.payload(custom_status, key, instance_id),
            None if output is None else outgoing.payload(output, key, instance_id),
            None if failure is None else outgoing.events(failure, key, instance_id),
            state.completed_at,
            None if orphans is None else outgoing.events(orphans, key, instance_id),
            state.progress,
            known.last_number,
        )
        if known.row is not None:
            known.row = (*known.row[:2], shows)
        else:
            self._states[key] = (known.start_sum, shows)


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


def as_blob(value: bytes | int | None) -> object:
    """The value of a column that has bytes or a number, as a statement of many rows takes it."""
    if value is None:
        return NO_BLOB
    return bytearray(value) if type(value) is bytes else value


def _as_text(value: str | None) -> object:
    return NO_TEXT if value is None else value
