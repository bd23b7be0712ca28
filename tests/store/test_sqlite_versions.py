"""A hub from before versions keeps what it knew of its code, and the pairs of a large hub are found by jumps."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from replayflow.store import SqliteStore
from replayflow.store.base import Served
from replayflow.store.sqlite import schema
from replayflow.store.sqlite.statements import SQL


async def test_digests_from_before_versions_are_those_of_instances_without_one(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for number, script in schema.migrations():
            if number <= 2:
                connection.executescript(script)
        connection.execute("INSERT INTO code (name, digest) VALUES ('main', 'abc'), ('other', 'def')")
        connection.execute("PRAGMA user_version = 2")
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    store = SqliteStore(path)
    await store.open()
    try:
        assert await store.served() == [Served("main", None, "abc"), Served("other", None, "def")]
        assert await store.open_versions() == []
    finally:
        await store.close()


async def test_what_pairs_cost_does_not_grow_with_the_instances(tmp_path: Path) -> None:
    """Counted in the steps of SQLite's machine."""
    store = SqliteStore(tmp_path / "hub.db")
    await store.open()
    await store.close()

    def steps(count: int) -> int:
        with closing(sqlite3.connect(tmp_path / "hub.db", isolation_level=None)) as connection:
            connection.execute("BEGIN")
            connection.execute("DELETE FROM instance")
            connection.executemany(
                "INSERT INTO instance (id, execution_id, name, version, status, start, start_number, created_at) "
                "VALUES (?, 'e', ?, ?, 'RUNNING', x'', 1, 1)",
                ((f"i{n}", f"name{n % 3}", str(n % 2) if n % 5 else None) for n in range(count)),
            )
            connection.execute("COMMIT")
            taken = 0

            def step() -> int:
                nonlocal taken
                taken += 1
                return 0

            connection.set_progress_handler(step, 1)
            found = connection.execute(SQL["open_versions"]).fetchall()
            assert len(found) == 9
            return taken

    assert steps(20_000) == steps(200)
