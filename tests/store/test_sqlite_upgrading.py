"""A long migration and the others who open the hub meanwhile: they wait for as long as it goes on, and say whose it is where it does not."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from replayflow.errors import StoreBusyError
from replayflow.store import SqliteStore
from replayflow.store.sqlite import schema, upgrading

BUSY_SECONDS = 0.4
LIMIT = 20
COUNTS = (
    "WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted LIMIT 50000) SELECT max(n) FROM counted"
)


@pytest.fixture
def old(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub of the format before the last."""
    every = schema.migrations()
    with monkeypatch.context() as patch, closing(sqlite3.connect(path, isolation_level=None)) as connection:
        patch.setattr(schema, "migrations", lambda: every[:9])
        connection.execute("PRAGMA journal_mode = WAL")
        schema.migrate(connection, path)
    return path


class Migration:
    """The last migration, which goes on until it `may_end`; `is_at_work` decides whether SQLite has something to do meanwhile."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.is_at_work = True
        self.runs = 0

    def fill(self, connection: sqlite3.Connection) -> None:
        self.runs += 1
        self.has_begun.set()
        while not self.may_end.wait(0.001):
            if self.is_at_work:
                connection.execute(COUNTS).fetchone()


@pytest.fixture
def migration(monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    migration = Migration()
    monkeypatch.setitem(schema.FILLS, 10, migration.fill)
    monkeypatch.setattr(upgrading, "_SAID_EVERY_SECONDS", 0.02)
    yield migration
    migration.may_end.set()


async def opened_and_closed(store: SqliteStore) -> None:
    await store.open()
    await store.close()


async def begun(old: Path, migration: Migration) -> asyncio.Task[None]:
    """Somebody brings the hub up to date."""
    opening = asyncio.create_task(opened_and_closed(SqliteStore(old)))
    await asyncio.to_thread(migration.has_begun.wait, LIMIT)
    return opening


async def test_who_comes_meanwhile_waits_for_longer_than_for_a_write(
    old: Path, migration: Migration, caplog: pytest.LogCaptureFixture
) -> None:
    first = await begun(old, migration)
    other = SqliteStore(old, busy_seconds=BUSY_SECONDS)
    second = asyncio.create_task(other.open())
    done, _ = await asyncio.wait([first, second], timeout=3 * BUSY_SECONDS)
    assert not done
    migration.may_end.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(first, second)
    assert migration.runs == 1
    assert (await other.condition()).format == schema.migrations()[-1][0]
    [told] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"is being brought up to date by process {os.getpid()} on" in told
    assert not [file for file in old.parent.iterdir() if "upgrade" in file.name]
    await other.close()


async def test_one_that_stands_still_is_named(old: Path, migration: Migration) -> None:
    migration.is_at_work = False
    first = await begun(old, migration)
    with pytest.raises(
        StoreBusyError, match=rf"by process {os.getpid()} on .*has not moved for 0.4 s.*nothing is lost"
    ):
        await SqliteStore(old, busy_seconds=BUSY_SECONDS).open()
    migration.may_end.set()
    await first


async def test_who_writes_and_does_not_migrate_is_not_taken_for_a_migration(old: Path, migration: Migration) -> None:
    migration.may_end.set()
    with closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError, match=r"has to be brought up to date.*another process has been writing"):
            await SqliteStore(old, busy_seconds=BUSY_SECONDS).open()
        connection.execute("ROLLBACK")
    assert migration.runs == 0


@pytest.mark.parametrize("left", [b"10 7 4711 elsewhere", b"", b"\xff\x00 of something else"])
def test_what_a_crash_left_behind_holds_nobody_up(old: Path, migration: Migration, left: bytes) -> None:
    migration.may_end.set()
    note = Path(f"{old}-upgrade")
    note.write_bytes(left)
    asyncio.run(opened_and_closed(SqliteStore(old)))
    assert migration.runs == 1
    assert not note.exists()


async def test_one_that_nobody_waits_for_any_more_is_undone(old: Path, migration: Migration) -> None:
    """A person who interrupts it need not wait for its end."""
    first = await begun(old, migration)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    migration.has_begun.clear()
    second = await begun(old, migration)  # has got the lock, which the first has let go
    migration.may_end.set()
    await second
    assert migration.runs == 2


async def test_who_waits_may_be_called_off(old: Path, migration: Migration) -> None:
    first = await begun(old, migration)
    waits = asyncio.create_task(SqliteStore(old, busy_seconds=60).open())
    await asyncio.sleep(0)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    migration.may_end.set()
    await first
    await asyncio.get_running_loop().shutdown_default_executor()  # which waits for all who wait
