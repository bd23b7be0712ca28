"""A purge that is killed leaves whole instances, and the next one goes on."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from replayflow import Client, SqliteStore, StoreFullError
from replayflow.core.commit import Commit, RowState
from replayflow.core.instance import Status
from replayflow.store.base import Create, Operation, Post
from tests.store.builders import message, start
from tests.store.children import ROOT

TREES, CHILDREN, PIECES = 40, 4, 3


async def grow(path: Path) -> None:
    """Trees of finished instances, each with a history, a key and a message that came too late to be read."""
    store = SqliteStore(path)
    await store.open()
    for number in range(TREES):
        names = [f"p{number}", *(f"p{number}:{child}" for child in range(CHILDREN))]
        group: list[Operation] = []
        for name in names:
            group.append(Create(start(name, "x1", parent=None if name == names[0] else names[0])))
            group.append(Post(message(name), f"key of {name}"))
            group += [Commit(name, "x1", piece, 2, b"chunk") for piece in range(1, PIECES)]
            group.append(Commit(name, "x1", PIECES, 3, b"end", RowState(Status.COMPLETED, None, completed_at=3)))
        await store.write(group)
    await store.close()


def left(path: Path) -> set[str]:
    """The instances that are there; nothing is kept of any other, and all of these."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for table in ("history", "inbox", "dedupe", "execution"):
            strays = f"SELECT count(*) FROM {table} WHERE instance NOT IN (SELECT key FROM instance)"
            assert connection.execute(strays).fetchone() == (0,), table
        rows = connection.execute(
            "SELECT id, (SELECT count(*) FROM history WHERE instance = instance.key), (SELECT count(*) FROM inbox WHERE instance = instance.key), "
            "(SELECT count(*) FROM dedupe WHERE instance = instance.key) FROM instance"
        ).fetchall()
    assert {row[1:] for row in rows} <= {(PIECES, 2, 1)}
    return {row[0] for row in rows}


def purge_until_killed(path: Path, batches: int) -> None:
    command = [sys.executable, "-m", "tests.store.purger", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as purger:
        assert purger.stdout is not None
        for _ in range(batches):
            assert purger.stdout.readline() == "batch\n"
        purger.kill()


@pytest.mark.parametrize("seed", range(3))
async def test_a_killed_purge_leaves_whole_instances_and_the_next_goes_on(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "hub.db"
    await grow(path)
    assert len(left(path)) == TREES * (1 + CHILDREN)
    await asyncio.to_thread(purge_until_killed, path, random.Random(seed).randint(1, 12))
    some = left(path)
    assert 0 < len(some) < TREES * (1 + CHILDREN)
    async with Client(path) as client:
        assert await client.purge(dry_run=True) == len(some)
        assert await client.purge() == len(some)
        assert (await client._store.footprint()).purged == TREES * (1 + CHILDREN)
    assert left(path) == set()


async def test_by_its_id_a_tree_goes_leaves_first_so_that_the_same_call_finds_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    await grow(path)

    class Dying(SqliteStore):
        writes = 0

        async def write(self, operations, epoch=None):  # type: ignore[no-untyped-def]
            self.writes += 1
            if self.writes == 2:
                raise StoreFullError("full")
            return await super().write(operations, epoch)

    client = Client(Dying(path))
    with pytest.raises(StoreFullError):
        async with client:
            await client.get("p7").purge()
    assert {id for id in left(path) if id.startswith("p7")} == {"p7"}
    async with Client(path) as client:
        assert await client.get("p7").purge() == 1
