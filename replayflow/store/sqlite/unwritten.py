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
from replayflow.store.sqlite.known import Known, Remembered
from replayflow.store.sqlite.statements import NO_BLOB, NO_NUMBER, ROWS, SQL


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

    def _flush(self) -> None:
        """All of it is written."""
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

    def _shown(self, state: RowState, key: int, instance_id: str) -> tuple[object, ...]:
        """The state as a row of `show_states`, after the key."""
        outgoing = self._outgoing
        return (
            state.status.value,
            NO_NUMBER if state.wake_at is None else state.wake_at,
            as_blob(outgoing.payload(state.custom_status, key, instance_id)),
            as_blob(outgoing.payload(state.output, key, instance_id)),
            _events(outgoing, state.failure, key, instance_id),
            NO_NUMBER if state.completed_at is None else state.completed_at,
            _events(outgoing, state.orphans, key, instance_id),
            as_blob(state.progress),
        )


def _events(outgoing: Outgoing, encoded: bytes | None, key: int, instance_id: str) -> object:
    return NO_BLOB if encoded is None else bytearray(outgoing.events(encoded, key, instance_id))


def as_blob(payload: bytes | None) -> object:
    return NO_BLOB if payload is None else bytearray(payload)
