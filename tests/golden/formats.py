"""python -m tests.golden.formats: hubs of each format that there was, as SQL texts under `formats/`, small enough to be read.

A hub of format N is what the first N migrations make, with three instances in it: one that has ended, one that waits for an event and has had an
activity's result, and one that has just been started. Formats that are there already stay as they are.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from replayflow.codec import Codec
from replayflow.core.events import (
    EventRaised,
    ExecutionCompleted,
    ExecutionStarted,
    HistoryEvent,
    OrchestratorStarted,
    TaskCompleted,
    TaskScheduled,
    encode,
)
from replayflow.store.sqlite import schema

FORMATS = Path(__file__).parent / "formats"
AT = 1_767_225_600_000_000  # the first of January 2026
_LAST_WITHOUT_SUMS = 9
"""From the next format on rows bear sums: its migration gives them to those that are there."""
_codec = Codec()
_INSTANCE = (
    "INSERT INTO instance (key, id, execution_id, name, status, start, start_number, wake_at, created_at, completed_at, output, tags) "
    "VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?)"
)
_HISTORY = "INSERT INTO history (instance, number, at, events) VALUES (?, ?, ?, ?)"
_INBOX = "INSERT INTO inbox (number, instance, event, execution_id, is_control) VALUES (?, ?, ?, ?, 0)"


def make(connection: sqlite3.Connection, number: int) -> None:
    """The empty database is a hub of that format, with its three instances."""
    _bring_up(connection, 0, min(number, _LAST_WITHOUT_SUMS))
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    work = [TaskScheduled(1, "work", _codec.encode("before")), TaskCompleted(1, _codec.encode("BEFORE"))]
    then = TaskScheduled(2, "work", _codec.encode("then"))
    done = _codec.encode("BEFORETHEN")
    _add(connection, 1, "done", "works", "then", "COMPLETED", None, done, [work[0]], [work[1], then])
    end = ExecutionCompleted(3, "COMPLETED", done)
    connection.execute(_HISTORY, (1, 3, AT, encode([OrchestratorStarted(AT), TaskCompleted(2, b"\xa4THEN"), end])))
    round = TaskScheduled(1, "work", _codec.encode("round 2"))
    _add(connection, 2, "waits", "rounds", 2, "RUNNING", None, None, [round], [TaskCompleted(1, b"\xa7ROUND 2")])
    _add(connection, 3, "fresh", "works", "fresh", "PENDING", 0, None)
    connection.execute(_INBOX, (1, 2, encode([EventRaised("unheard", b"\x07")]), "x2"))
    connection.execute("INSERT INTO dedupe (instance, key) VALUES (2, 'once')")
    connection.execute("UPDATE hub SET next_key = 4, next_number = 2")
    _bring_up(connection, _LAST_WITHOUT_SUMS, number)


def _bring_up(connection: sqlite3.Connection, after: int, number: int) -> None:
    for each, script in schema.migrations()[after:number]:
        connection.executescript(script)
        fill = schema.FILLS.get(each)
        if fill is not None:
            fill(connection)
        connection.execute(f"PRAGMA user_version = {each}")


def _add(
    connection: sqlite3.Connection,
    key: int,
    id: str,
    name: str,
    input: object,
    status: str,
    wake_at: int | None,
    output: bytes | None,
    *pieces: list[HistoryEvent],
) -> None:
    start = encode([ExecutionStarted(name, _codec.encode(input), id, f"x{key}")])
    completed_at = None if output is None else AT
    tags = '{"team": "red"}' if id == "waits" else None
    row = (key, id, f"x{key}", name, status, start, wake_at, AT, completed_at, output, tags)
    connection.execute(_INSTANCE, row)
    for number, piece in enumerate(pieces, 1):
        connection.execute(_HISTORY, (key, number, AT, encode([OrchestratorStarted(AT), *piece])))


def dumped(number: int) -> str:
    """A hub of that format as SQL."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        make(connection, number)
        lines = list(connection.iterdump())
    pragmas = [f"PRAGMA user_version = {number};", f"PRAGMA application_id = {schema.APPLICATION_ID};"]
    return "\n".join([*lines, *pragmas]) + "\n"


def load(text: str, path: Path) -> None:
    """The file is the hub that the SQL describes."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(text)


def main() -> None:
    """Every format that is not there yet is written down."""
    FORMATS.mkdir(exist_ok=True)
    for number, _ in schema.migrations():
        path = FORMATS / f"{number:04}.sql"
        if not path.exists():
            path.write_text(dumped(number), "utf-8")
            sys.stdout.write(f"{path.name}  {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
