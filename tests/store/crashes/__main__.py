"""All of the crash matrix: `python -m tests.store.crashes`, or a part of it, `python -m tests.store.crashes points cuts`.

Says how much was tried, or what was found.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.store.crashes import formats, stories
from tests.store.crashes.files import Files
from tests.store.crashes.killed import check_kill, executioner
from tests.store.crashes.matrix import Tally, check_cuts, check_likeness, check_points, check_resumes, played, world
from tests.store.crashes.recording import FEW_PAGES
from tests.store.crashes.scenes import SCENES

STORIES = 5


async def points(folder: Path) -> Tally:
    """Every scene at every statement, with a cache that holds all and one that does not, plain and sealed."""
    tally = Tally()
    for scene in SCENES.values():
        for is_sealed in (False, True):
            for pages in (None, FEW_PAGES):
                play = await played(scene, folder, pages=pages, is_sealed=is_sealed)
                tally += check_points(play, folder)
                await check_likeness(scene, play, folder, is_sealed=is_sealed)
    tally.scenes = len(SCENES)
    return tally


async def cuts(folder: Path) -> Tally:
    """Every scene's log and checkpoint cut at every place."""
    tally = Tally()
    for scene in SCENES.values():
        tally += check_cuts(await played(scene, folder), folder, is_thorough=True)
    return tally


async def resumptions(folder: Path) -> Tally:
    """A worker goes on from every file that differs."""
    tally = Tally()
    for scene in SCENES.values():
        play = await played(scene, folder, pages=FEW_PAGES)
        for files in dict.fromkeys(point.files for point in play.recording.points):
            tally += await check_resumes(files, folder)
    return tally


async def migrations(folder: Path) -> Tally:
    """Every former format, killed at every statement of its migration, cut at every place, and gone on with."""
    tally = Tally()
    for number in formats.FORMER:
        old, present = await formats.filled(number, folder)
        is_versioned = number >= formats.SERVED
        wanted = await formats.shown(present, folder, is_versioned=is_versioned)
        for pages in (None, FEW_PAGES):
            move = await formats.migrated(old, folder, pages)
            tally += check_points(move, folder)
            tally += check_cuts(move, folder, is_thorough=pages is None)
            for files in dict.fromkeys(point.files for point in move.recording.points):
                assert await formats.shown(files, folder, is_versioned=is_versioned) == wanted, number
                tally += await check_resumes(files, folder)
    return tally


async def kills(folder: Path) -> Tally:
    """A process for every statement of every scene, which SIGKILL ends there."""
    tally = Tally()
    with executioner() as by:
        for scene in SCENES.values():
            recording = (await played(scene, folder)).recording
            files = Files(b"") if scene.begins_empty else await world()
            for number in range(1, len(recording.points) + 1):
                check_kill(by, scene, recording, number, files, folder)
            tally += Tally(kills=len(recording.points))
    return tally


async def effects(folder: Path) -> Tally:
    """Stories, with a new life from every one of their transactions."""
    tally = Tally()
    for _ in range(STORIES):
        story = await stories.told(folder)
        tally += Tally(transactions=story.recording.transactions, effects=stories.check_effects(story, folder))
        tally += stories.check_log(story, folder)
        for files in stories.lives(story):
            tally += await stories.check_ends(files, folder)
    return tally


PARTS: dict[str, Callable[[Path], Awaitable[Tally]]] = {
    part.__name__: part for part in (points, cuts, resumptions, migrations, kills, effects)
}


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.store.crashes", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all of them, if none is named")
    logging.disable()
    for name in parser.parse_args().parts or PARTS:
        begun = time.monotonic()
        with TemporaryDirectory(prefix="replayflow-") as folder:
            tally = await PARTS[name](Path(folder))
        sys.stdout.write(f"{name}: {tally} ({time.monotonic() - begun:.0f} s)\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
