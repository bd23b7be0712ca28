"""A hub's files that are removed, replaced, moved or no files at all: nobody goes on with what no path leads to, and each is told why."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replayflow import Client, SqliteStore, TaskHub
from replayflow.errors import LeaseLostError, StoreCorruptError, StoreMovedError
from tests.cli.terminal import refused as refused_by_command
from tests.store.builders import accepted, all_ids, commit, create
from tests.violence.app import app
from tests.violence.violence import at_work, is_sound, refused, worker

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be removed there")
NOBODY = 65534
AS_NOBODY = f"uid={NOBODY}"
SIDES = ("", "-wal", "-shm", "-lock")


def side(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def removed(*suffixes: str) -> Callable[[Path], None]:
    def remove(path: Path) -> None:
        for suffix in suffixes:
            side(path, suffix).unlink()

    return remove


def replaced(path: Path) -> None:
    """As somebody does who restores a backup without asking."""
    shutil.copy(path, side(path, ".backup"))
    side(path, ".backup").replace(path)


def folder_removed(path: Path) -> None:
    shutil.rmtree(path.parent)


def folder_moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


async def counted_for_ever(client: Client) -> None:
    while True:
        await client.count()


@pytest.mark.parametrize(
    "lose",
    [
        pytest.param(removed(""), id="removed"),
        pytest.param(removed("-wal"), id="log removed"),
        pytest.param(removed("-shm"), id="shared memory removed"),
        replaced,
        folder_removed,
        folder_moved,
    ],
)
async def test_workers_and_clients_of_a_file_that_is_gone_end_and_say_so(
    tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    path = tmp_path / "folder" / "hub.db"
    path.parent.mkdir()

    async def work() -> None:
        async with TaskHub(path, app) as hub, Client(path) as client:
            assert await (await client.start("chain", 3)).result(10) == 3
            serving = asyncio.create_task(hub.serve())
            lose(path)
            async with asyncio.timeout(10):
                with pytest.raises(StoreMovedError, match=r"folder/hub\.db.* while it was open.*start again"):
                    await serving
                for _ in range(2):
                    with pytest.raises(StoreMovedError):
                        await client.start("chain", 1)  # never "accepted"
                with pytest.raises(StoreMovedError):
                    await counted_for_ever(client)  # reads look ten times a second

    with pytest.raises(StoreMovedError):
        await work()


async def test_a_new_hub_in_the_place_of_one_that_was_removed_is_not_harmed_by_the_end_of_the_old_ones_worker(
    tmp_path: Path,
) -> None:
    """SQLite's last connection to a file removes the log by its name, whoever's that is by now."""
    path = tmp_path / "hub.db"
    with at_work(path) as old:
        old.stop()  # so that it ends after the new one has begun
        removed(*SIDES)(path)
        async with TaskHub(path, app) as hub:
            log = side(path, "-wal").stat().st_ino
            for _ in range(3):
                assert await (await hub.client.start("chain", 3)).result(10) == 3
            old.go_on()
            assert f"{path} was replaced by another file" in refused(old, "RF310")
            assert side(path, "-wal").stat().st_ino == log
            assert await (await hub.client.start("chain", 3)).result(10) == 3
    assert is_sound(path)


async def test_what_was_accepted_is_there_when_the_file_that_was_moved_is_put_back(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "hub.db", tmp_path / "elsewhere.db"
    with at_work(path) as owner:
        async with Client(path) as client:
            await client.start("waits", instance_id="w")
        path.rename(elsewhere)
        refused(owner, "RF310")
    elsewhere.rename(path)
    async with TaskHub(path, app) as hub:
        await hub.client.get("w").raise_event("go", 1)
        assert await hub.client.get("w").result(10) == 2


async def test_whoever_removes_the_lock_lets_a_second_worker_in_and_the_first_one_ends(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with at_work(path) as first:
        side(path, "-lock").unlink()
        async with TaskHub(path, app) as hub:
            refused(first, "RF302")
            assert await (await hub.client.start("chain", 3)).result(10) == 3


async def test_after_a_kill_the_shared_memory_is_made_anew_and_without_the_log_there_is_an_older_hub_or_none(
    tmp_path: Path,
) -> None:
    path = tmp_path / "hub.db"
    store = SqliteStore(path)
    await store.open()
    for n in range(40):
        await accepted(store, create(f"i{n}"), commit(f"i{n}", chunk=b"c" * 3_000))
        if n == 20:
            await store._write(lambda c: c.execute("PRAGMA wal_checkpoint").fetchall())
    every = await all_ids(store)
    for name, lost in (("memory", ["-shm"]), ("log", ["-wal"]), ("both", ["-wal", "-shm"])):
        copy = tmp_path / name / "hub.db"
        copy.parent.mkdir()
        for suffix in ("", "-wal", "-shm"):
            if suffix not in lost:
                shutil.copy(side(path, suffix), side(copy, suffix))
        survivor = SqliteStore(copy)
        try:
            await survivor.open()
            found = await all_ids(survivor)
        except StoreCorruptError:
            assert "-wal" in lost
            continue
        finally:
            await survivor.close()
        assert found == (every if "-wal" not in lost else every[: len(found)])
        assert len(found) >= 21
    await store.close()


def test_what_is_no_file_is_refused_in_words_by_every_command(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    for path, code in (
        (tmp_path / "folder", "RF306"),
        (tmp_path / "pipe", "RF306"),
        (tmp_path / "loop", "RF309"),
        (Path("/dev/null"), "RF306"),
        (tmp_path / "file" / "hub.db", "RF309"),
        (tmp_path / "none" / "hub.db", "RF309"),
    ):
        for command in (("list",), ("doctor",), ("start", "x"), ("worker", "tests.violence.app:app")):
            makes_one = command[0] in ("start", "worker")
            is_missing = not path.exists() and not path.is_symlink()
            said = refused_by_command(4 if is_missing and not makes_one else 3, *command, "--store", str(path))
            assert f"error {code}: " in said, (path, command, said)
            assert str(path) in said


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that any user can reach, with one in it that is nobody's."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    folder = Path(tempfile.mkdtemp(prefix="replayflow-"))
    folder.chmod(0o755)
    (folder / "hub").mkdir()
    os.chown(folder / "hub", NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


async def test_a_worker_whose_folder_is_closed_under_it_goes_on_and_the_next_one_is_told(public: Path) -> None:
    folder = public
    hub = folder / "hub"
    path = hub / "hub.db"
    with at_work(path, under=AS_NOBODY, folder=folder) as owner:
        async with Client(path) as client:
            hub.chmod(0o000)
            assert await (await client.start("chain", 3)).result(10) == 3
            with worker(path, under=AS_NOBODY, folder=folder) as second:
                assert str(path) in refused(second, "RF309")
            owner.send(signal.SIGTERM)
            assert owner.ended() == 0, owner.said
            hub.chmod(0o500)
            path.chmod(0o400)
            with worker(path, under=AS_NOBODY, folder=folder) as third:
                assert "permissions" in refused(third, "RF304")


async def test_an_ousted_worker_is_not_told_of_a_file_that_is_gone(tmp_path: Path) -> None:
    """Who has lost its hub hears that, as long as the file is there."""
    path = tmp_path / "hub.db"
    first, second = TaskHub(path, app), TaskHub(path, app, when_owned="take_over")
    await first.__aenter__()
    async with second:
        with pytest.raises(LeaseLostError):
            await first.serve()
        with pytest.raises(LeaseLostError):
            await first.__aexit__(None, None, None)
