"""A transactional activity's one run, on the writing thread: its writes, its result and the mark that it has run are one transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from functools import partial

from replayflow.codec.cipher import Cipher
from replayflow.core import rows
from replayflow.core.instance import Status
from replayflow.store.base import Delivery, Transact
from replayflow.store.incoming import Incoming
from replayflow.store.outgoing import Outgoing
from replayflow.store.sqlite import contents, hub, records
from replayflow.store.sqlite.guard import commit_together, perform
from replayflow.store.sqlite.statements import ROWS, SQL
from replayflow.store.sqlite.sums import of_row
from replayflow.store.sqlite.unwritten import message_row


def transact(
    connection: sqlite3.Connection,
    wanted: Transact,
    epoch: int,
    url: str,
    large_over_bytes: int,
    cipher: Cipher | None,
) -> Delivery | None:
    """The run is durable, with its result in the inbox where its execution is open; None where nobody waits, or it was not wanted and has not run.

    Raises:
        LeaseLostError: the hub's epoch is another.
        Raised: the activity has failed, and its writes are rolled back.
    """
    outgoing = Outgoing(large_over_bytes, cipher)
    return commit_together(connection, lambda c: _transact(c, wanted, epoch, url, outgoing, cipher))


def _transact(
    connection: sqlite3.Connection,
    wanted: Transact,
    epoch: int,
    url: str,
    outgoing: Outgoing,
    cipher: Cipher | None,
) -> Delivery | None:
    own, _ = hub.read_as_owner(connection, epoch, url)
    number = own.next_number
    place = {"id": wanted.instance_id, "execution_id": wanted.execution_id, "task": wanted.task_id}
    found = connection.execute(SQL["receiver"], place).fetchone()
    if found is None:
        return None
    key, execution_id, status, orphans, is_parked, has_run = found
    for row in records.rows(connection, "record", (wanted.instance_id,)):
        records.verified(connection, row)
    owed: set[tuple[str, int]] = set()
    if orphans:
        opened = Incoming(partial(contents.fetch, connection), cipher).events(orphans, wanted.instance_id)
        owed = {(owner, task.event_id) for owner, task in rows.decode_orphans(opened)}
    is_open = execution_id == wanted.execution_id and not Status(status).is_finished
    if has_run or not (is_open or (wanted.execution_id, wanted.task_id) in owed):
        return None
    event = perform(connection, wanted.run, wanted.seconds_max)
    mark = (key, wanted.execution_id, wanted.task_id)
    connection.execute(SQL["mark_transacted"], (*mark, of_row(*mark)))
    alive = {execution_id, wanted.execution_id, *(owner for owner, _ in owed)}
    connection.execute(SQL["sweep_transacted"], (key, json.dumps(sorted(alive))))
    if not is_open and not (execution_id == wanted.execution_id and status == Status.FAILED.value):
        return None
    stored = outgoing.events(event, -number, wanted.instance_id)
    contents.keep(connection, outgoing)
    message = message_row(number, key, stored, execution_id, 0, time.time_ns() // 1_000)
    ROWS["add_messages"].run(connection, [message])
    hub.change(connection, own._replace(next_number=number + 1))
    takes = not is_parked and status != Status.SUSPENDED.value
    return Delivery(number, wanted.instance_id, event, execution_id, takes_messages=takes)
