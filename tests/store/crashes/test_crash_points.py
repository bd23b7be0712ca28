"""Every durable operation, killed before each of its statements and after the last: what is left is what was committed, whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec.structs import fields

from replayflow.core.commit import Turn
from replayflow.store import MemoryStore
from replayflow.store.base import Create, OnExisting, Operation, Outcome
from tests.store.builders import OWNER
from tests.store.crashes.matrix import check_likeness, check_points, check_resumes, played
from tests.store.crashes.recording import FEW_PAGES
from tests.store.crashes.scenes import SCENES, Scene, Stage
from tests.store.crashes.world import LARGE_OVER_BYTES, build

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


async def test_every_kind_of_operation_has_its_scenes_and_each_of_its_fields() -> None:
    asked: list[Any] = []
    seen: list[Any] = []

    class Asked(MemoryStore):
        async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
            asked.extend(operations)
            return await super().write(operations, epoch)

    for scene in EVERY:
        if scene.is_in_memory and not scene.begins_empty:
            store = Asked(large_over_bytes=LARGE_OVER_BYTES)
            await store.open()
            await build(store)
            epoch = await store.acquire(OWNER)
            asked.clear()  # what the world is made of
            await scene.act(Stage(store, epoch))
            seen += asked
    assert {type(operation) for operation in seen} == {*get_args(Operation), Turn}
    for kind in get_args(Operation):
        for field in fields(kind):
            values = {repr(getattr(operation, field.name)) for operation in seen if isinstance(operation, kind)}
            assert len(values) > 1, f"{kind.__name__}.{field.name} is always {values}"
    assert {one.on_existing for one in seen if isinstance(one, Create)} == set(get_args(OnExisting))


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
