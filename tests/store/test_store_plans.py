"""No statement reads a whole table of instances, history or messages: the cost of an event does not grow with the hub."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from replayflow.core.instance import Status
from replayflow.store.base import InstanceFilter
from replayflow.store.sqlite import finding, schema
from replayflow.store.sqlite.statements import ROWS, SQL

SCAN = re.compile(r"\bSCAN (instance|history|inbox|execution|dedupe|tag)\b")
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
        ("show_states x 250", "SEARCH instance USING INTEGER PRIMARY KEY (rowid=?)"),
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
        ("fitting", "SEARCH instance USING INTEGER PRIMARY KEY (rowid=?)"),
        ("count_fitting", "SEARCH instance USING INTEGER PRIMARY KEY (rowid=?)"),
        ("places", "SEARCH instance USING INTEGER PRIMARY KEY (rowid=?)"),
        ("count_statuses", "SEARCH instance USING COVERING INDEX instance_status (is_entity=?)"),
        ("count_names", "SEARCH instance USING COVERING INDEX instance_name (is_entity=?)"),
        ("waiting_since", "SEARCH inbox USING INTEGER PRIMARY KEY (rowid>?)"),
        ("waiting_for", "SEARCH inbox USING INDEX inbox_instance (instance=?)"),
        ("remove_history", "SEARCH history USING INDEX history_piece (instance=?)"),
        ("remove_messages", "SEARCH inbox USING COVERING INDEX inbox_instance (instance=?)"),
        ("remove_instances", "SEARCH instance USING INTEGER PRIMARY KEY (rowid=?)"),
        ("forget_pieces", "SEARCH history USING INDEX history_piece (instance=? AND number<?)"),
        ("forget_executions", "SEARCH execution USING COVERING INDEX execution_number (instance=? AND number<?)"),
        ("children", "SEARCH instance USING INDEX instance_parent (parent_id=?)"),
        ("ended", "SEARCH instance USING INDEX instance_ended (status=? AND completed_at>? AND completed_at<?)"),
        ("ended", "SEARCH child USING COVERING INDEX instance_parent (parent_id=?)"),
        ("ended_by_status", "SEARCH instance USING COVERING INDEX instance_ended (status=? AND completed_at>?)"),
        ("pasts", "SEARCH execution USING COVERING INDEX execution_number (instance>?)"),
        ("open_versions", "SEARCH instance USING INDEX instance_open (name>?)"),
        ("open_versions", "SEARCH instance USING INDEX instance_open (name=? AND <expr>>?)"),
        ("count_open", "SEARCH instance USING INDEX instance_open (name=? AND <expr>=?)"),
    ],
)
def test_what_a_statement_finds_its_rows_by(connection: sqlite3.Connection, name: str, found_by: str) -> None:
    found = plan(connection, STATEMENTS[name])
    # Newer SQLites know of more statements that they need nothing but the index.
    assert found_by in found or found_by.replace(" USING INDEX ", " USING COVERING INDEX ") in found


@pytest.mark.parametrize(
    "name",
    ["wakes", "arrived", "fitting", "waiting_since", "pieces_between", "record", "children", "ended", "pasts"],
)
def test_pages_come_in_the_order_of_an_index_and_are_not_sorted(connection: sqlite3.Connection, name: str) -> None:
    assert SORT not in plan(connection, STATEMENTS[name])


WALKS = {
    "created": "instance USING COVERING INDEX instance_created (is_entity=?",
    "named": "instance USING COVERING INDEX instance_name (is_entity=? AND name=?",
    "in_status": "instance USING COVERING INDEX instance_status (is_entity=? AND status=?",
    "parked": "instance USING INDEX instance_parked (is_entity=?",
    "of_parent": "instance USING COVERING INDEX instance_parent (parent_id=?",
    "tagged": "tag USING PRIMARY KEY (name=? AND value=?",
    "completed": "instance USING COVERING INDEX instance_ended (status=?",
    "by_id": "instance USING COVERING INDEX sqlite_autoindex_instance_1 (",
}


@pytest.mark.parametrize("way", ["forward", "back"])
@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_is_two_searches_of_its_index_that_are_merged_and_never_sorted(
    connection: sqlite3.Connection, walk: str, way: str
) -> None:
    found = plan(connection, SQL[f"{walk} {way}"])
    assert found.count(f"SEARCH {WALKS[walk]}") == 2
    assert found.startswith("MERGE (UNION ALL)")
    assert SORT not in found


FILTERS = [
    (InstanceFilter(), {"created"}),
    (InstanceFilter(statuses=frozenset({Status.FAILED})), {"in_status"}),
    (InstanceFilter(name="n"), {"named"}),
    (InstanceFilter(id_prefix="p"), {"by_id"}),
    (InstanceFilter(is_entity=True), {"by_id"}),
    (InstanceFilter(tags=(("k", "v"),)), {"tagged"}),
    (InstanceFilter(created_from=1), {"created"}),
    (InstanceFilter(created_to=1), {"created"}),
    (InstanceFilter(completed_from=1), {"completed"}),
    (InstanceFilter(completed_to=1), {"completed"}),
    (InstanceFilter(is_parked=True), {"parked"}),
    (InstanceFilter(parent_id="p"), {"of_parent"}),
    (InstanceFilter(name="n", id_prefix="p", tags=(("k", "v"),)), {"named", "by_id", "tagged"}),
    (InstanceFilter(statuses=frozenset({Status.FAILED}), completed_from=1), {"in_status", "completed"}),
    (InstanceFilter(name="n", created_from=1), {"named", "created"}),
]


@pytest.mark.parametrize(("wanted", "names"), FILTERS)
def test_every_filter_is_served_by_an_index_in_its_order_and_by_every_other_that_knows_a_part_of_it(
    wanted: InstanceFilter, names: set[str]
) -> None:
    walks = finding._walks(wanted)
    assert {walk.name for walk in walks} == names
    assert wanted.order in {walk.order for walk in walks} or wanted.order == "created"


def test_a_page_touches_few_rows_however_many_there_are(connection: sqlite3.Connection) -> None:
    """Not a time, but what SQLite does: the steps of its machine for a page of a hub are those for one of a hub four times as large."""
    steps = []
    for count in (5_000, 20_000):
        fill(connection, count)
        steps.append({wanted: steps_of(connection, wanted) for wanted, _ in FILTERS})
    for wanted, few in steps[0].items():
        assert steps[1][wanted] < 2 * few + 5_000, wanted


def fill(connection: sqlite3.Connection, count: int) -> None:
    connection.execute("DELETE FROM instance")
    connection.execute(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?) "
        "INSERT INTO instance (key, id, execution_id, name, status, start, start_number, created_at, completed_at) "
        "SELECT n, 'i' || n, 'x', 'order', 'COMPLETED', x'00', 0, n, n FROM n",
        (count,),
    )


def steps_of(connection: sqlite3.Connection, wanted: InstanceFilter) -> int:
    """How many hundred steps of SQLite's machine the page takes, times a hundred."""
    passed = 0

    def count() -> int:
        nonlocal passed
        passed += 100
        return 0

    connection.set_progress_handler(count, 100)
    finding.page(connection, wanted, 50, None, False)
    connection.set_progress_handler(None, 0)
    return passed
