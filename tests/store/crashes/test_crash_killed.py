"""Processes that SIGKILL ends at a statement: the same is left as was foretold from copies of the files; and who has the hub open reads on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.builders import EVERYTHING, accepted, post
from tests.store.crashes.contents import contents_now, faults
from tests.store.crashes.files import Files, laid
from tests.store.crashes.killed import Executioner, check_kill, executioner
from tests.store.crashes.matrix import on_file, played, world
from tests.store.crashes.scenes import SCENES

SAMPLE = [
    "create with tags and a large input",
    "commit all at once",
    "purge a tree",
    "rewind",
    "transact",
    "group of all kinds",
]
POINTS = 3


@pytest.fixture(scope="module")
def kills() -> Iterator[Executioner]:
    with executioner() as kills:
        yield kills


@pytest.mark.parametrize("name", [*SAMPLE, "make the hub"])
async def test_what_a_killed_process_leaves_is_what_its_files_were(
    name: str, kills: Executioner, tmp_path: Path
) -> None:
    scene = SCENES[name]
    recording = (await played(scene, tmp_path)).recording
    files = Files(b"") if scene.begins_empty else await world()
    for number in range(len(recording.points) - 2, 0, -(len(recording.points) // POINTS)):
        await asyncio.to_thread(check_kill, kills, scene, recording, number, files, tmp_path)


@pytest.mark.parametrize("name", SAMPLE[:2])
async def test_who_has_the_hub_open_reads_on_and_writes(name: str, kills: Executioner, tmp_path: Path) -> None:
    """Nobody recovers the log then: what the dead one left in it, and in the memory that they share, is passed over."""
    recording = (await played(SCENES[name], tmp_path)).recording
    points = recording.points
    inside = [n for n, point in enumerate(points, 1) if point.before.startswith("COMMIT")]
    for number in (*inside[1:], len(points) - 3):
        with laid(await world(), tmp_path) as path:
            bystander = on_file(path)
            await bystander.open()
            try:
                before = (await bystander.page(EVERYTHING, 100)).records
                assert await asyncio.to_thread(kills.kill, name, number, path) == signal.SIGKILL
                state = recording.states[points[number - 1].state]
                assert contents_now(path) == state
                assert await bystander.owner() is None
                await accepted(bystander, post("open", b"\x90"))
                assert len((await bystander.page(EVERYTHING, 100)).records) >= len(before)
            finally:
                await bystander.close()
            assert faults(contents_now(path)) == []
