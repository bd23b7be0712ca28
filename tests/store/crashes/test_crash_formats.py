"""A file of any former format, as a killed process left it: wherever its migration is killed, it is the file that it was, or one of the present
format.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from replayflow.store.base import Served
from tests.store.crashes.contents import faults
from tests.store.crashes.files import laid
from tests.store.crashes.formats import FORMER, LATEST, SERVED, check_kept, filled, migrated, shown
from tests.store.crashes.matrix import check_cuts, check_points, check_resumes, on_file
from tests.store.crashes.recording import FEW_PAGES


@pytest.mark.parametrize("number", FORMER)
async def test_a_migration_killed_at_any_statement_has_happened_as_a_whole_or_not_at_all(
    number: int, tmp_path: Path
) -> None:
    old, present = await filled(number, tmp_path)
    move = await migrated(old, tmp_path, FEW_PAGES)
    check_points(move, tmp_path)
    before, after = move.recording.states
    assert (before[""][0][0], after[""][0][0]) == (number, LATEST)
    assert len(before["instance"][1]) == len(after["instance"][1]) > 10
    check_kept(before, after)
    assert faults(after) == []
    # Through the port it is what it would be if it had been written by the present code.
    wanted = await shown(present, tmp_path, is_versioned=number >= SERVED)
    for files in (move.before.files, move.told.files):
        assert await shown(files, tmp_path, is_versioned=number >= SERVED) == wanted


@pytest.mark.parametrize("number", [1, LATEST - 1])
async def test_a_loss_of_power_in_a_migration_loses_nothing(number: int, tmp_path: Path) -> None:
    old, _ = await filled(number, tmp_path)
    move = await migrated(old, tmp_path)
    assert check_cuts(move, tmp_path, is_thorough=False).cuts > 50
    await check_resumes(move.told.files, tmp_path)


async def test_what_was_known_of_code_before_versions_is_of_instances_without_one(tmp_path: Path) -> None:
    old, _ = await filled(SERVED - 1, tmp_path)
    with laid(old, tmp_path) as path:
        store = on_file(path)
        await store.open()
        assert await store.served() == [Served("chain", None, "other"), Served("order", None, "digest")]
        await store.close()
