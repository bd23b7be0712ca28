"""Disks that are full, hang, fail, or may not be written: what was accepted is there, the rest not, and a worker goes on by itself where it can."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from replayflow import Client, InstanceNotFoundError, TaskHub
from replayflow.errors import StoreFullError, StoreReadOnlyError, StoreUnavailableError
from tests.cli.terminal import accepted as accepted_by_command
from tests.cli.terminal import refused as refused_by_command
from tests.engine.kit import until as soon
from tests.violence.app import WEIGHT, app
from tests.violence.disks import disk_on, image, small_disk
from tests.violence.violence import TRACE, Command, at_work, is_sound, state_of, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and disks of another kind")


class Room:
    """Where a hub is, and how the room for it ends and comes back."""

    def __init__(self, path: Path, end: Callable[[Command], None], make: Callable[[Command], None]) -> None:
        self.path = path
        self.end = end
        self.make = make


@contextmanager
def on_a_small_disk(folder: Path) -> Iterator[Room]:
    with small_disk(folder) as disk:
        yield Room(disk.path / "hub.db", lambda _: disk.fill(), lambda _: disk.make_room())


@contextmanager
def under_a_limit(folder: Path) -> Iterator[Room]:
    """The worker's files may not grow, as under a quota; those of its clients may."""
    path = folder / "hub.db"

    def limit(owner: Command) -> None:
        resource.prlimit(owner.id, resource.RLIMIT_FSIZE, (path.stat().st_size, resource.RLIM_INFINITY))

    def lift(owner: Command) -> None:
        resource.prlimit(owner.id, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    yield Room(path, limit, lift)


@pytest.mark.parametrize("room_for", [on_a_small_disk, under_a_limit])
async def test_a_worker_without_room_refuses_waits_and_goes_on_by_itself_when_there_is_room(
    tmp_path: Path, room_for: Callable[[Path], AbstractContextManager[Room]]
) -> None:
    with room_for(tmp_path) as room, at_work(room.path, folder=tmp_path) as owner:
        async with Client(room.path) as client:
            weighs = await client.start("weighs", str(tmp_path), instance_id="weighs")
            until(lambda: (tmp_path / "held").exists())
            room.end(owner)
            started: dict[str, bool] = {}
            for n in range(300):
                id = f"f{n}"
                try:
                    fills = await client.start("fills", 1, instance_id=id)
                    started[id] = False
                    await fills.raise_event("more", os.urandom(9_000), dedupe_key="once")
                    started[id] = True
                except StoreFullError:
                    break
            (tmp_path / "go").touch()
            owner.says("the store refuses, and is tried again until it does not: ")
            assert (await weighs.status()).status == "RUNNING"
            before = len(owner.said)

            room.make(owner)
            owner.says("the store works again")
            assert await weighs.result(20) == WEIGHT
            for id, was_accepted in started.items():
                if not was_accepted:
                    await client.get(id).raise_event("more", bytes(9_000), dedupe_key="once")
                assert await client.get(id).result(20) == 9_000
            with pytest.raises(InstanceNotFoundError):
                await client.get(f"f{len(started)}").status()
            owner.send(signal.SIGTERM)
            assert owner.ended() == 0, owner.said
            said = owner.said
            assert TRACE not in said
            assert said[before:].count("the store refuses") <= 1, "it says it once"
        assert is_sound(room.path)


async def test_a_worker_on_a_full_disk_does_not_begin_and_says_why(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        path = disk.path / "hub.db"
        disk.fill()
        for command in (("start", "chain"), ("worker", "tests.violence.app:app")):
            said = await asyncio.to_thread(refused_by_command, 3, *command, "--store", str(path))
            assert "error RF303: " in said
            assert "make room" in said
        disk.make_room()
        async with TaskHub(path, app) as hub:
            assert await (await hub.client.start("chain", 2)).result(10) == 2
        disk.fill()
        said = await asyncio.to_thread(refused_by_command, 3, "list", "--store", str(path))
        assert "error RF303: " in said  # whoever comes first makes files beside it


async def test_a_disk_that_hangs_delays_and_one_that_fails_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    with image(tmp_path) as file:
        with disk_on(file) as disk:
            path = disk.path / "hub.db"
            with at_work(path, folder=tmp_path) as owner:
                async with Client(path) as client:
                    waits = await client.start("waits", instance_id="waits")
                    disk.freeze()
                    try:
                        asked = asyncio.create_task(client.start("chain", 3, instance_id="frozen"))
                        await soon(lambda: is_hanging(os.getpid()) or is_hanging(owner.id), "that somebody hangs")
                        assert not asked.done()
                    finally:
                        disk.thaw()
                    assert await (await asked).result(20) == 3
                    disk.remount("abort")  # as the kernel does at an error of the disk: it is read-only from now on
                    with pytest.raises((StoreUnavailableError, StoreReadOnlyError), match="check the disk"):
                        await waits.raise_event("go", 1)
                    assert (await waits.status()).status in ("PENDING", "RUNNING")
                    assert owner.process.poll() is None
                    owner.send(signal.SIGTERM)
                    assert owner.ended() == 0, owner.said
                    assert TRACE not in owner.said
        with disk_on(file) as disk:
            async with TaskHub(disk.path / "hub.db", app) as hub:
                assert await hub.client.get("frozen").result(10) == 3
                await hub.client.get("waits").raise_event("go", 1)
                assert await hub.client.get("waits").result(10) == 2


def is_hanging(process_id: int) -> bool:
    """Whether one of its threads waits in the kernel, and nobody can wake it."""
    return any(state_of(int(thread.name)) == "D" for thread in Path(f"/proc/{process_id}/task").iterdir())


async def test_a_hub_on_a_disk_that_may_not_be_written_is_refused_as_such(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        path = disk.path / "hub.db"
        async with TaskHub(path, app) as hub:
            await hub.client.start("waits", instance_id="waits")
        disk.remount("ro")
        for command in (("start", "chain"), ("worker", "tests.violence.app:app"), ("list",)):
            said = await asyncio.to_thread(refused_by_command, 3, *command, "--store", str(path))
            assert "error RF304: " in said, (command, said)
            assert str(path) in said
        disk.remount("rw")
        [waiting] = (await asyncio.to_thread(accepted_by_command, "list", "--store", str(path), "--json"))["instances"]
        assert waiting["id"] == "waits"
