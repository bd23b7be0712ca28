"""A file that was cut: it is refused, or served right, whatever its length. What it had is never made up.

`tests/store/test_sqlite_file.py` has what is no hub at all.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from replayflow import Client, SqliteStore
from replayflow.errors import NotAHubError, StoreCorruptError, StoreError
from tests.cli.terminal import refused as refused_by_command
from tests.store.builders import accepted, commit, create, everything

PAGE = 4096


async def a_closed_hub(path: Path) -> None:
    """With rows enough for pages of every kind: inner ones, leaves, and those that overflow."""
    store = SqliteStore(path)
    await store.open()
    ids = [f"instance-{n}" for n in range(120)]
    await accepted(store, *(create(id) for id in ids))
    await accepted(store, *(commit(id, chunk=b"c" * (9_000 if n % 40 == 0 else 90)) for n, id in enumerate(ids)))
    await store.close()
    assert not path.with_name(path.name + "-wal").exists()


async def read_all(path: Path) -> object:
    store = SqliteStore(path)
    try:
        await store.open()
        return await everything(store)
    finally:
        await store.close()


async def test_a_file_of_any_length_is_refused_or_served_right(tmp_path: Path) -> None:
    path, cut = tmp_path / "hub.db", tmp_path / "cut.db"
    await a_closed_hub(path)
    whole, content = await read_all(path), path.read_bytes()
    pages = len(content) // PAGE
    assert pages > 40
    inside_the_first = [1, 15, 16, 99, 100, 511, 512]
    lengths = inside_the_first + [n * PAGE + off for n in range(pages) for off in (0, 1 + 37 * n % (PAGE - 1))][1:]
    refusals: dict[type[StoreError], int] = {}
    for length in [*lengths, len(content) - 1]:
        cut.write_bytes(content[:length])
        with pytest.raises(StoreError) as caught:
            await read_all(cut)
        refusals[type(caught.value)] = refusals.get(type(caught.value), 0) + 1
        assert isinstance(caught.value, StoreCorruptError | NotAHubError), (length, caught.value)
        assert str(cut) in str(caught.value)
        assert cut.stat().st_size == length, "what is refused is left as it is"
        for side in ("-wal", "-shm", "-lock"):
            cut.with_name(cut.name + side).unlink(missing_ok=True)
    assert refusals[StoreCorruptError] >= 2 * pages - 2
    cut.write_bytes(content)
    assert await read_all(cut) == whole


def test_commands_say_so_in_words_and_with_their_exit_code(tmp_path: Path) -> None:
    path, cut = tmp_path / "hub.db", tmp_path / "cut.db"
    asyncio.run(a_closed_hub(path))
    for length, code in ((10, "RF306"), (3 * PAGE, "RF305"), (3 * PAGE + 700, "RF305")):
        shutil.copy(path, cut)
        os.truncate(cut, length)
        for command in (
            ("list",),
            ("show", "instance-3"),
            ("start", "x"),
            ("doctor",),
            ("worker", "tests.violence.app:app"),
        ):
            said = refused_by_command(3, *command, "--store", str(cut))
            assert f"error {code}: {cut} " in said, (command, said)


async def test_a_page_that_is_half_written_while_the_log_has_it_whole_is_no_damage(tmp_path: Path) -> None:
    """As a kill in the middle of a checkpoint leaves it, or a disk that is full."""
    path, copy = tmp_path / "hub.db", tmp_path / "copy.db"
    store = SqliteStore(path)
    await store.open()
    await accepted(store, *(create(f"i{n}") for n in range(50)))
    whole = await everything(store)
    for side in ("", "-wal"):
        shutil.copy(f"{path}{side}", f"{copy}{side}")
    await store.close()
    with copy.open("ab") as file:
        file.write(b"half" * 100)
    assert await read_all(copy) == whole
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert copy.stat().st_size % PAGE == 0


async def test_a_log_that_is_cut_under_an_open_hub_is_damage_and_no_passing_trouble(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with Client(path) as client:
        await client.start("chain", 1, instance_id="a")
        os.truncate(f"{path}-wal", 5_000)
        with pytest.raises(StoreCorruptError, match=r"shorter.*restore the last good backup"):
            await client.start("chain", 1, instance_id="b")
