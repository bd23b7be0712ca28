"""No statement reads a whole table of instances, history or messages: the cost of an event does not grow with the hub."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from replayflow.store.sqlite import schema
from replayflow.store.sqlite.statements import ROWS, SQL

SCAN = re.compile(r"\bSCAN (instance|history|inbox|execution|dedupe)\b")
SORT = "USE TEMP B-TREE"
STATEMENTS = {
    **SQL,
    **{f"{name} x {count}": text for name, rows in ROWS.items() for count, text in rows._by_count.items()},
}
EXPLAINED = sorted(name for name in STATEMENTS if name not in ("database_changes", "format"))


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "hub.db", isolation_level=None)
    schema.migrate(connection, tmp_path / "hub.db")
    yield connection
    connection.close()


def plan(connection: sqlite3.Connection, statement: str) -> str:
    names = re.findall(r":(\w+)", statement)
    places = len(set(re.findall(r"\?\d", statement))) or statement.count("?")
    bindings: object = dict.fromkeys(names, "[]") if names else ["[]"] * places
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", bindings)  # type: ignore[arg-type]
    return "\n".join(row[3] for row in rows)


@pytest.mark.parametrize("name", EXPLAINED)
def test_no_statement_scans_a_table_that_grows(connection: sqlite3.Connection, name: str) -> None:
    assert not SCAN.search(plan(connection, STATEMENTS[name])), name


def test_a_scan_would_be_seen(connection: sqlite3.Connection) -> None:
    assert SCAN.search(plan(connection, "SELECT * FROM instance WHERE name = ?"))
    assert SCAN.search(plan(connection, "DELETE FROM inbox WHERE event = ?"))


@pytest.mark.parametrize(
    ("name", "found_by"),
    [
        ("known", "SEARCH instance USING INDEX sqlite_autoindex_instance_1 (id=?)"),
        ("known", "SEARCH history USING COVERING INDEX history_piece (instance=?)"),
        ("consume", "SEARCH inbox USING INTEGER PRIMARY KEY (rowid=?)"),
        ("show_states x 100", "SEARCH instance USING INTEGER PRIMARY KEY (rowid=?)"),
        ("records", "SEARCH instance USING INDEX sqlite_autoindex_instance_1 (id=?)"),
        ("records", "SEARCH history USING INDEX history_piece (instance=?)"),
        ("record", "SEARCH instance USING INDEX sqlite_autoindex_instance_1 (id=?)"),
        ("pieces", "SEARCH history USING INDEX history_piece (instance=? AND number>?)"),
        ("pieces_between", "SEARCH history USING INDEX history_piece (instance=? AND number>? AND number<?)"),
        ("inboxes", "SEARCH inbox USING INDEX inbox_instance (instance=?)"),
        ("wakes", "SEARCH instance USING INDEX instance_wake (wake_at=? AND key>?)"),
        ("wakes", "SEARCH instance USING INDEX instance_wake (wake_at>?)"),
        ("arrived", "SEARCH inbox USING INTEGER PRIMARY KEY (rowid>?)"),
        ("arrived", "SEARCH instance USING INTEGER PRIMARY KEY (rowid=?)"),
        ("is_repeated", "SEARCH dedupe USING PRIMARY KEY (instance=? AND key=?)"),
        ("page", "SEARCH instance USING INTEGER PRIMARY KEY (rowid>?)"),
        ("remove_history", "SEARCH history USING INDEX history_piece (instance=?)"),
        ("remove_messages", "SEARCH inbox USING INDEX inbox_instance (instance=?)"),
        ("remove_instances", "SEARCH instance USING INTEGER PRIMARY KEY (rowid=?)"),
        ("forget_pieces", "SEARCH history USING INDEX history_piece (instance=? AND number<?)"),
        ("forget_executions", "SEARCH execution USING COVERING INDEX execution_number (instance=? AND number<?)"),
        ("children", "SEARCH instance USING INDEX instance_parent (parent_id=?)"),
        ("ended", "SEARCH instance USING INDEX instance_ended (status=? AND completed_at>? AND completed_at<?)"),
        ("ended", "SEARCH child USING COVERING INDEX instance_parent (parent_id=?)"),
        ("ended_by_status", "SEARCH instance USING COVERING INDEX instance_ended (status=? AND completed_at>?)"),
        ("pasts", "SEARCH execution USING COVERING INDEX execution_number (instance>?)"),
        ("parked_page", "SEARCH instance USING INDEX instance_parked (key>?)"),
    ],
)
def test_what_a_statement_finds_its_rows_by(connection: sqlite3.Connection, name: str, found_by: str) -> None:
    assert found_by in plan(connection, STATEMENTS[name])


@pytest.mark.parametrize(
    "name", ["wakes", "arrived", "page", "parked_page", "pieces_between", "record", "children", "ended", "pasts"]
)
def test_pages_come_in_the_order_of_an_index_and_are_not_sorted(connection: sqlite3.Connection, name: str) -> None:
    assert SORT not in plan(connection, STATEMENTS[name])
