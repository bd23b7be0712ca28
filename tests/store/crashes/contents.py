"""All that a hub's file holds, whatever its format, and what must hold of it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from replayflow.codec.reference import digest_of
from replayflow.store.outgoing import references_in
from tests.store.crashes.files import Files, laid

Contents: TypeAlias = dict[str, Any]
"""Of every table, by its name, the columns and the rows; and under the empty name the format and the schema."""
Rows: TypeAlias = dict[str, list[dict[str, Any]]]

# What is held against an instance may outlive it until the hub is next acquired: no later instance has its key.
_MAY_BE_STRAY = {"suspect"}


def contents_in(connection: sqlite3.Connection) -> Contents:
    """What others can see now: one moment."""
    connection.execute("BEGIN")
    try:
        schema = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
        found: Contents = {name: _rows(connection, name) for kind, name, _ in schema if kind == "table"}
        numbers = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")]
        found[""] = (numbers, schema)
    finally:
        connection.execute("COMMIT")
    return found


def contents_now(path: Path) -> Contents:
    """What is committed in a hub that is open elsewhere in this process."""
    if not path.exists():
        return EMPTY
    with closing(_looking_at(path)) as connection:
        return contents_in(connection)


def recovered(files: Files, folder: Path) -> Contents:
    """What SQLite makes of the files, and finds nothing wrong with.

    Raises:
        AssertionError: it finds something.
    """
    # A rollback journal has to be played back, which takes more than looking.
    connect = _looking_at if files.journal is None else _opening
    with laid(files, folder) as path, closing(connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return contents_in(connection)


def _opening(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def _looking_at(path: Path) -> sqlite3.Connection:
    """A connection that recovers the log, as every first one does, and leaves the files as they are when it goes."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _rows(connection: sqlite3.Connection, table: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """In the order of their keys, as a walk over the table gives them."""
    cursor = connection.execute(f'SELECT * FROM "{table}"')
    return [column[0] for column in cursor.description], cursor.fetchall()


EMPTY: Contents = {"": ([0, 0], [])}


def faults(found: Contents) -> list[str]:
    """What is wrong with the bookkeeping, in words. What the format does not have yet cannot be wrong."""
    if "instance" not in found:
        return [] if found == EMPTY else ["there are tables, and none of instances"]
    return _faults(
        {
            name: [dict(zip(columns, row, strict=True)) for row in rows]
            for name, (columns, rows) in found.items()
            if name
        }
    )


def _faults(found: Rows) -> list[str]:
    wrong: list[str] = []
    instances = {row["key"]: row for row in found["instance"]}
    for table, rows in found.items():
        if table not in _MAY_BE_STRAY and rows and "instance" in rows[0]:
            wrong += [f"{table} has {row} of no instance" for row in rows if row["instance"] not in instances]
    [hub] = found["hub"]
    if instances and hub["next_key"] <= max(instances):
        wrong.append(f"the next instance would have the key {hub['next_key']}, which is taken")
    if found["inbox"] and hub["next_number"] <= max(row["number"] for row in found["inbox"]):
        wrong.append(f"the next message would have the number {hub['next_number']}, which is taken")
    return wrong + _faults_of_histories(found, instances) + _faults_of_tags(found) + _faults_of_payloads(found)


def _faults_of_histories(found: Rows, instances: dict[int, Any]) -> list[str]:
    """An instance's pieces are numbered without a gap, its present start among them; past executions begin at pieces that are there."""
    wrong: list[str] = []
    numbers: dict[int, list[int]] = {key: [row["start_number"]] for key, row in instances.items()}
    for row in found["history"]:
        numbers[row["instance"]].append(row["number"])
    for key, each in numbers.items():
        if sorted(each) != list(range(min(each), min(each) + len(each))):
            wrong.append(f"the history of instance {key} has the numbers {sorted(each)}")
    begun = {(row["instance"], row["number"]) for row in found["execution"]}
    there = {(row["instance"], row["number"]) for row in found["history"]}
    return wrong + [f"a past execution begins at {place}, where nothing is" for place in begun - there]


def _faults_of_tags(found: Rows) -> list[str]:
    if "tag" not in found:
        return []
    there = {(row["instance"], row["created_at"], row["name"], row["value"]) for row in found["tag"]}
    due = {
        (row["key"], row["created_at"], name, value)
        for row in found["instance"]
        for name, value in json.loads(row["tags"] or "{}").items()
    }
    return [f"of tags there is and should not be, or the reverse: {each}" for each in there ^ due]


def _faults_of_payloads(found: Rows) -> list[str]:
    """What is kept out of line is what something refers to, and who refers to it is written down; its digest is that of its bytes."""
    if "payload" not in found:
        return []
    due = set()
    for table, owner in (("instance", "key"), ("history", "instance"), ("inbox", "number")):
        for row in found[table]:
            stored = [value for value in row.values() if isinstance(value, bytes)]
            due |= {
                (-row[owner] if table == "inbox" else row[owner], digest_of(reference))
                for one in stored
                for reference in references_in(one)
            }
    used = {(row["owner"], row["digest"]) for row in found["payload_use"]}
    kept = {row["digest"]: row["content"] for row in found["payload"]}
    wrong = [f"a use of a payload is written down and not there, or the reverse: {each}" for each in used ^ due]
    wrong += [
        f"a payload is kept and not used, or the reverse: {each!r}" for each in kept.keys() ^ {d for _, d in used}
    ]
    if not found.get("sealing_key"):
        wrong += [f"a payload's bytes are not its digest's: {each!r}" for each, c in kept.items() if not _fits(each, c)]
    return wrong


def _fits(digest: bytes, content: bytes) -> bool:
    return sha256(content).digest() == digest
