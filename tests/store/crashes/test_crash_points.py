"""Every durable operation, killed before each of its statements and after the last: what is left is what was committed, whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.crashes.matrix import check_likeness, check_points, check_resumes, played
from tests.store.crashes.recording import FEW_PAGES
from tests.store.crashes.scenes import SCENES, Scene

EVERY = list(SCENES.values())


@pytest.mark.parametrize("scene", EVERY, ids=str)
async def test_killed_at_any_statement_it_has_happened_as_a_whole_or_not_at_all(scene: Scene, tmp_path: Path) -> None:
    """With so small a cache SQLite writes into the log before the commit. What a store shows of it is what the memory store comes to."""
    play = await played(scene, tmp_path, pages=FEW_PAGES)
    assert check_points(play, tmp_path).points > 2 * play.recording.transactions
    await check_likeness(scene, play, tmp_path)


@pytest.mark.parametrize("scene", EVERY[::7], ids=str)
async def test_sealed_it_is_so_too(scene: Scene, tmp_path: Path) -> None:
    play = await played(scene, tmp_path, is_sealed=True)
    check_points(play, tmp_path)
    await check_likeness(scene, play, tmp_path, is_sealed=True)


@pytest.mark.parametrize("scene", EVERY[::4], ids=str)
async def test_a_worker_goes_on_from_there(scene: Scene, tmp_path: Path) -> None:
    play = await played(scene, tmp_path)
    await check_resumes(play.told.files, tmp_path)


async def test_a_worker_goes_on_from_before(tmp_path: Path) -> None:
    """Which is the same for all that is done to the same hub."""
    play = await played(SCENES["create"], tmp_path)
    await check_resumes(play.before.files, tmp_path)


async def test_an_import_that_is_killed_leaves_whole_instances(tmp_path: Path) -> None:
    play = await played(SCENES["import"], tmp_path)
    columns, whole = play.recording.states[-1]["instance"]
    counts = []
    for state in play.recording.states:
        _, rows = state.get("instance", (columns, []))
        assert set(rows) <= set(whole)
        counts.append(len(rows))
    assert counts == sorted(counts)
    assert len(set(counts)) > 3
