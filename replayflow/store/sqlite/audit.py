"""All of a hub held against its sums, and its tables against each other: what the thorough doctor reads.

1. Every flipped bit that changes anything that somebody can read is found, in whatever table or index it stands.
2. What cannot be read is a fault like others: one does not keep the rest from being looked at.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from replayflow.codec.reference import digest_of, reference_to
from replayflow.errors import StoreCorruptError
from replayflow.store.outgoing import references_in
from replayflow.store.sqlite import histories, hub, schema, sums
from replayflow.store.sqlite.connection import SQLITE_ERRORS
from replayflow.store.sqlite.records import fetched
from replayflow.store.sqlite.statements import SQL, WHOLE

_AT_ONCE = 500
_SOUND = "ok"
_IS_ENTITY, _START, _ID = -1, 5, 0


def faults(connection: sqlite3.Connection, limit: int = 20) -> tuple[str, ...]:
    """What is wrong with the hub, the first few of it."""
    found: list[str] = []
    used: set[tuple[int, bytes]] = set()
    looks: list[Callable[[], Iterable[str]]] = [
        lambda: _pages(connection),
        lambda: _schema(connection),
        lambda: _hub(connection),
        lambda: _instances(connection, used),
        lambda: _messages(connection, used),
        lambda: _lists(connection),
        lambda: _relations(connection),
        lambda: _contents(connection, used),
    ]
    for look in looks:
        try:
            for fault in look():
                found.append(fault)
                if len(found) >= limit:
                    return tuple(found)
        except SQLITE_ERRORS as error:
            name = (getattr(error, "sqlite_errorname", "") or "").split("_")[1:2]
            if name not in ([], ["CORRUPT"], ["ERROR"], ["NOTADB"]):  # the store's trouble, and no damage
                raise
            found.append(str(error))
        except StoreCorruptError as error:
            found.append(str(error))
    return tuple(found)


def _pages(connection: sqlite3.Connection) -> Iterator[str]:
    for (text,) in connection.execute(WHOLE["integrity_check"]):
        if text != _SOUND:
            yield str(text)


def _schema(connection: sqlite3.Connection) -> Iterator[str]:
    """Tables, indexes and triggers are those that this version makes; a program may have others beside them."""
    present = {name: rest for name, *rest in fetched(connection, WHOLE["schema"])}
    for name, rest in _made().items():
        if present.get(name) != rest:
            yield f"'{name}' of the schema is not what it was made as"


@cache
def _made() -> dict[str, list[Any]]:
    """What the migrations make, by name."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        schema.migrate(fresh, Path(":memory:"))
        return {name: rest for name, *rest in fresh.execute(WHOLE["schema"])}


def _hub(connection: sqlite3.Connection) -> Iterator[str]:
    hub.read(connection)
    yield from ()


def _instances(connection: sqlite3.Connection, used: set[tuple[int, bytes]]) -> Iterator[str]:
    after = -(2**63)
    while found := fetched(connection, WHOLE["all_instances"], (after, _AT_ONCE)):
        for row in found:
            for fault in _instance(connection, row, used):
                yield f"instance {row[_ID]!r:.300}: {fault}"
        after = found[-1][sums.KEY]


def _instance(connection: sqlite3.Connection, row: Sequence[Any], used: set[tuple[int, bytes]]) -> Iterator[str]:
    *row, is_entity = row
    fault = sums.fault_of(row)
    if fault is not None:
        yield f"{fault} does not read back as it was written"
    elif is_entity != int(row[_ID].startswith("@")):
        yield "whether it is an entity does not read back as it was written"
    else:
        yield from _history(connection, row, used)


def faults_of_one(connection: sqlite3.Connection, row: Sequence[Any]) -> Iterator[str]:
    """What is wrong with one instance, its inbox, and the large payloads that it refers to; the row has `is_entity` behind its other columns."""
    used: set[tuple[int, bytes]] = set()
    yield from _instance(connection, row, used)
    for *message, sum in fetched(connection, SQL["messages_of"], (row[sums.KEY],)):
        yield from _message(message, sum, used)
    for digest in {digest for _, digest in used}:
        found = fetched(connection, SQL["content"], (digest,))
        if not found:
            yield f"a payload that is kept out of line is missing (digest {digest.hex()})"
        elif not _is_whole(digest, found[0][0]):
            yield f"a payload that is kept out of line is damaged (digest {digest.hex()})"


def _history(connection: sqlite3.Connection, row: Sequence[Any], used: set[tuple[int, bytes]]) -> Iterator[str]:
    """What is wrong with all that the instance has lived through; the row itself is sound."""
    key, start_number = row[sums.KEY], row[6]
    pieces = fetched(connection, WHOLE["all_pieces"], (key,))
    past = fetched(connection, WHOLE["all_executions"], (key,))
    ends = [*(number for _, number, _ in past), start_number][1:]
    looked_at = 0
    try:
        for (execution_id, number, sum), end in zip(past, ends, strict=True):
            own = [(at, events, stored) for at, events, stored, _ in pieces if number <= at < end]
            histories.verified_past(own, key, execution_id, number, end, sum)
            looked_at += len(own)
        own = [(at, events, stored) for at, events, stored, _ in pieces if at > start_number]
        histories.verified([(start_number, row[_START], row[sums.START_SUM]), *own], row[sums.LAST])
        looked_at += len(own)
    except histories.Broken as broken:
        yield f"{broken} does not read back as it was written"
    except TypeError:
        yield "the numbers of its history do not read back as they were written"
    else:
        if looked_at != len(pieces):
            yield "pieces of its history belong to no execution"
    if any(type(at) is not int or at % sums.TIMES for *_, at in pieces):
        yield "the times of its history do not read back as they were written"
    stored = [*(events for _, events, *_ in pieces), row[_START], row[11], row[12], row[15]]
    used.update((key, digest_of(one)) for each in stored if type(each) is bytes for one in references_in(each))


def _messages(connection: sqlite3.Connection, used: set[tuple[int, bytes]]) -> Iterator[str]:
    after = -(2**63)
    while found := fetched(connection, WHOLE["all_messages"], (after, _AT_ONCE)):
        for *row, sum in found:
            yield from _message(row, sum, used)
        after = found[-1][0]


def _message(row: Sequence[Any], sum: object, used: set[tuple[int, bytes]]) -> Iterator[str]:
    if not sums.fits(row, sum):
        yield f"message {row[0]} does not read back as it was written"
    elif row[2] is not None:
        used.update((-row[0], digest_of(one)) for one in references_in(row[2]))


def _lists(connection: sqlite3.Connection) -> Iterator[str]:
    """Tables of rows that stand for themselves."""
    for what, statement in (
        ("a dedupe key", WHOLE["all_keys"]),
        ("the mark of a transactional activity", WHOLE["all_marks"]),
        ("what is held against an instance", SQL["suspicions"]),
        ("what is known of code", SQL["served"]),
        ("the count of what was purged", SQL["all_purged"]),
    ):
        for *row, sum in fetched(connection, statement):
            if not sums.fits(row, sum):
                yield f"{what} does not read back as it was written"


def _relations(connection: sqlite3.Connection) -> Iterator[str]:
    for table, key in connection.execute(WHOLE["nobodys"]):
        yield f"table {table} has rows of an instance that is not there ({key})"
    for (key,) in connection.execute(WHOLE["untagged"]):
        yield f"the table of tags has other tags than the row of instance {key}"


def _contents(connection: sqlite3.Connection, used: set[tuple[int, bytes]]) -> Iterator[str]:
    """A use that is noted and is none any more (of what an orphan was given, sealed, say) keeps a content for longer, and is no damage."""
    kept: set[bytes] = set()
    for digest, content in connection.execute(WHOLE["all_contents"]):
        kept.add(digest)
        if not _is_whole(digest, content):
            yield f"a payload that is kept out of line is damaged (digest {_hex(digest)})"
    uses = {(owner, digest) for owner, digest in connection.execute(WHOLE["all_uses"])}
    for owner, digest in used:
        if digest not in kept:
            yield f"a payload that is kept out of line is missing (digest {digest.hex()})"
        elif (owner, digest) not in uses:
            yield f"a payload that is kept out of line is used, and is not noted to be (digest {digest.hex()})"


def _is_whole(digest: object, content: object) -> bool:
    return type(content) is bytes and digest_of(reference_to(content)) == digest


def _hex(digest: object) -> str:
    return digest.hex() if type(digest) is bytes else ascii(digest)
