"""Orchestrations with every kind of effect, killed between a commit and what follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.crashes import stories

SHARES = 4


@pytest.mark.parametrize("share", range(2))
async def test_killed_between_a_commit_and_its_effects_it_comes_to_the_same_end(share: int, tmp_path: Path) -> None:
    """No two stories are told in the same way: each of these takes its share of its own one's transactions."""
    story = await stories.told(tmp_path)
    assert stories.check_effects(story, tmp_path) > 30
    every = stories.lives(story)
    assert len(every) > 40
    for files in every[share::SHARES]:
        await stories.check_ends(files, tmp_path)


async def test_a_disk_that_is_not_waited_for_loses_whole_commits_and_the_last_ones(tmp_path: Path) -> None:
    assert stories.check_log(await stories.told(tmp_path), tmp_path, one_of=29).cuts > 15
