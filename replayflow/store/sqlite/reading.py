"""Reading a hub: functions on a connection that cannot write, each one hop to the reader's thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from replayflow.codec.cipher import Cipher
from replayflow.core.ids import is_unicode
from replayflow.core.instance import Status
from replayflow.errors import StoreCorruptError
from replayflow.store.base import (
    Delivery,
    Finished,
    Footprint,
    InstanceRecord,
    Loaded,
    Page,
    Served,
    Waiting,
    Wake,
)
from replayflow.store.incoming import Incoming
from replayflow.store.sqlite import contents, histories, sums
from replayflow.store.sqlite.damage import damaged
from replayflow.store.sqlite.records import rows, verified

T = TypeVar("T")
_SMALLEST = -(2**62)
_STATUSES = frozenset(Status)


def in_snapshot(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """What the work returns; all its statements see one moment of the file."""
    connection.execute("BEGIN")
    try:
        return work(connection)
    finally:
        if connection.in_transaction:  # an error may have ended it
            connection.execute("ROLLBACK")


def load(
    connection: sqlite3.Connection, instance_ids: Sequence[str], cipher: Cipher | None, whole: bool
) -> list[Loaded]:
    """The instances with their present history and inbox."""
    # SQLite ends a JSON text at a NUL character; an id that is cut off there is another's.
    wanted = [id for id in dict.fromkeys(instance_ids) if "\0" not in id]
    found_rows = {row[-1]: row for row in rows(connection, "records", (json.dumps(wanted),))}
    loaded = {key: Loaded(verified(connection, row), b"", 0, []) for key, row in found_rows.items()}
    keys = json.dumps(list(loaded))
    for key, pieces, last in rows(connection, "pieces", (keys,)):
        if pieces is None:
            continue  # nothing has happened since its start
        one = loaded[key]
        number, sum = divmod(last, 2**32) if type(last) is int else (0, None)
        one.pieces, one.piece_count = pieces, number - one.record.start_number
        if sums.of_pieces(pieces, found_rows[key][sums.START_SUM]) != sum:
            raise damaged(connection, f"instance '{one.record.instance_id}': its history")
    for key, row in found_rows.items():
        if loaded[key].record.start_number + loaded[key].piece_count < row[sums.LAST]:
            raise damaged(
                connection, f"instance '{loaded[key].record.instance_id}': its history, which has lost its end,"
            )
    for number, key, event, execution_id, is_control, at, sum in rows(connection, "inboxes", (keys,)):
        if key not in loaded or not sums.fits((number, key, event, execution_id, is_control, at), sum):
            whose = " or ".join(f"'{one.record.instance_id}'" for one in loaded.values())
            raise damaged(connection, f"instance {whose:.300}: message {number} in its inbox")
        record = loaded[key].record
        takes = record.problem is None and record.status is not Status.SUSPENDED
        loaded[key].inbox.append(Delivery(number, record.instance_id, event, execution_id, bool(is_control), takes))
    if loaded and not contents.are_plain(connection):
        for one in loaded.values():
            _incoming(connection, cipher).loaded(one, whole)
    found = {one.record.instance_id: one for one in loaded.values()}
    return [found[id] for id in wanted if id in found]


def records(
    connection: sqlite3.Connection, instance_ids: Sequence[str], cipher: Cipher | None
) -> dict[str, InstanceRecord | StoreCorruptError]:
    """The rows of those that exist, by id; of one that is damaged, the error."""
    asked = [id for id in instance_ids if "\0" not in id and is_unicode(id)]
    incoming = _incoming(connection, cipher)
    found: dict[str, InstanceRecord | StoreCorruptError] = {}
    for row in rows(connection, "records", (json.dumps(asked),)):
        try:
            found[row[0]] = incoming.row(verified(connection, row))
        except StoreCorruptError as error:
            found[row[0]] = error
    return found


def history(
    connection: sqlite3.Connection, instance_id: str, execution_id: str | None, cipher: Cipher | None, is_opened: bool
) -> list[bytes]:
    """The pieces of the execution, its start first."""
    stored = _stored_history(connection, instance_id, execution_id)
    return _incoming(connection, cipher).pieces(stored, instance_id, is_opened)


def _stored_history(connection: sqlite3.Connection, instance_id: str, execution_id: str | None) -> list[bytes]:
    for row in rows(connection, "record", (instance_id,)):
        record, key = verified(connection, row), row[sums.KEY]
        try:
            if execution_id is None or execution_id == record.execution_id:
                begun = [(record.start_number, record.start, row[sums.START_SUM])]
                return histories.verified(
                    [*begun, *_pieces(connection, key, record.start_number + 1, 2**62)], row[sums.LAST]
                )
            for first, following, sum in rows(connection, "past_execution", (key, execution_id)):
                end = record.start_number if following is None else following
                pieces = _pieces(connection, key, first, end)
                return histories.verified_past(pieces, key, execution_id, first, end, sum)
        except histories.Broken as fault:
            raise damaged(connection, f"instance '{instance_id}': {fault}") from None
    return []


def executions(connection: sqlite3.Connection, instance_id: str) -> list[str]:
    """The ids of the executions, the oldest first."""
    for row in rows(connection, "record", (instance_id,)):
        record, key = verified(connection, row), row[sums.KEY]
        past = rows(connection, "past_executions", (key,))
        ends = [*(number for _, number, *_ in past), record.start_number][1:]
        for (execution_id, number, sum, start, start_sum), end in zip(past, ends, strict=True):
            if not histories.is_past(key, execution_id, number, end, start_sum, start, sum):
                raise damaged(connection, f"instance '{instance_id}': its past execution '{execution_id}'")
        return [*(execution_id for execution_id, *_ in past), record.execution_id]
    return []


def fetch(connection: sqlite3.Connection, references: Sequence[bytes], cipher: Cipher | None) -> list[bytes]:
    """What the references stand for."""
    return _incoming(connection, cipher).contents(references)


def wakes(connection: sqlite3.Connection, after: tuple[int, int] | None, limit: int) -> list[Wake]:
    """The instances that want to be looked at, in order of time."""
    at, key = after or (_SMALLEST, 0)
    found = rows(connection, "wakes", {"at": at, "key": key, "limit": limit})
    # Where the index and the row differ, one of them is damaged: the earlier counts, or now, and whoever loads it sees which.
    return [
        Wake(at if at == own else min((time for time in (at, own) if type(time) is int), default=0), id, (at, key))
        for at, key, id, own in found
    ]


def arrived(connection: sqlite3.Connection, after: int, limit: int, cipher: Cipher | None) -> list[Delivery]:
    """The messages behind that number."""
    incoming = _incoming(connection, cipher)
    found: list[Delivery] = []
    for number, key, event, execution_id, is_control, at, sum, id, own, takes in rows(
        connection, "arrived", (after, limit)
    ):
        delivery = Delivery(number, id, event, execution_id, bool(is_control), bool(takes))
        if own == key and sums.fits((number, key, event, execution_id, is_control, at), sum):
            found.append(incoming.arrival(delivery))
        else:  # whoever loads its receiver sees that it is damaged
            found.append(Delivery(number, id, None, is_control=True, is_sealed=True))
    return found


def shown(connection: sqlite3.Connection, page: Page, cipher: Cipher | None) -> Page:
    """The page with its rows as readers see them."""
    incoming = _incoming(connection, cipher)
    page.records = [incoming.row(record) for record in page.records]
    return page


def waiting(
    connection: sqlite3.Connection, instance_id: str | None, limit: int, cipher: Cipher | None
) -> list[Waiting]:
    """The messages in one inbox, or in any, the oldest first."""
    statement, whose = ("waiting_since", 0) if instance_id is None else ("waiting_for", instance_id)
    incoming = _incoming(connection, cipher)
    found: list[Waiting] = []
    for number, key, event, execution_id, is_control, at, sum, id, own, takes in rows(
        connection, statement, (whose, limit)
    ):
        if own != key or not sums.fits((number, key, event, execution_id, is_control, at), sum):
            raise damaged(connection, f"instance '{id}': message {number} in its inbox")
        whole = None if event is None else incoming.events(event, id)
        found.append(Waiting(number, id, whole, at, bool(is_control), bool(takes)))
    return found


def children(connection: sqlite3.Connection, parent_ids: Sequence[str], limit: int) -> list[Finished]:
    """What these have started, and has finished. One parent after the other: for many at once SQLite would sort all that they have."""
    found: list[Finished] = []
    for parent_id in parent_ids:
        found += [Finished(*row) for row in rows(connection, "children", (parent_id, limit - len(found)))]
        if len(found) >= limit:
            break
    return found


def ended(connection: sqlite3.Connection, status: Status, before: int, limit: int) -> list[Finished]:
    """Those that finished before then, in the order in which they did."""
    return [Finished(*row) for row in rows(connection, "ended", (status.value, before, limit))]


def long_pasts(connection: sqlite3.Connection, keep: int, after: int, limit: int) -> tuple[list[str], int | None]:
    """The ids of those of the next that have more past executions than they keep, and where to read on."""
    found = rows(connection, "pasts", (after, limit))
    return [id for _, executions, id in found if executions > keep], found[-1][0] if len(found) == limit else None


def footprint(connection: sqlite3.Connection) -> Footprint:
    """How large the hub is."""
    by_status = rows(connection, "ended_by_status")
    [(total_bytes, free_bytes)] = rows(connection, "size")
    purged = 0
    for *row, sum in rows(connection, "all_purged"):
        if not sums.fits(row, sum):
            raise damaged(connection, "the count of what was purged")
        purged += row[-1]
    return Footprint(
        {Status(status): count for status, count, _ in by_status if status in _STATUSES},
        min((oldest for *_, oldest in by_status if type(oldest) is int), default=None),
        purged,
        total_bytes,
        free_bytes,
    )


def served(connection: sqlite3.Connection) -> list[Served]:
    """What was kept of the code that workers serve."""
    found: list[Served] = []
    for name, version, digest, is_default, sum in rows(connection, "served"):
        if not sums.fits((name, version, digest, is_default), sum):
            raise damaged(connection, f"what is known of the code of {name!r:.300}")
        found.append(Served(name, version or None, digest, bool(is_default)))
    return found


def open_versions(connection: sqlite3.Connection) -> list[tuple[str, str | None]]:
    """The names and versions of what is open."""
    found: list[tuple[str, str | None]] = []
    for name, version in rows(connection, "open_versions"):
        # They come from an index: a row has to bear them, too.
        if any(
            (row[2], row[3] or "") == (name, version) and sums.fault_of(row) is None
            for row in rows(connection, "some_open", (name, version))
        ):
            found.append((name, version or None))
    return found


def count_open(connection: sqlite3.Connection, name: str, version: str | None) -> int:
    """How many of them there are."""
    found = rows(connection, "count_open", (name, version or ""))
    return int(found[0][0]) if found else 0


def _pieces(connection: sqlite3.Connection, key: int, first: int, end: int) -> list[histories.Piece]:
    return rows(connection, "pieces_between", (key, first, end))


def _incoming(connection: sqlite3.Connection, cipher: Cipher | None) -> Incoming:
    return Incoming(partial(contents.fetch, connection), cipher)
