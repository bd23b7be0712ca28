"""Orchestrations with every kind of effect, killed between a commit and what follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.crashes import stories

SHARES = 3


@pytest.mark.parametrize("share", range(SHARES))
async def test_killed_between_a_commit_and_its_effects_it_comes_to_the_same_end(share: int, tmp_path: Path) -> None:
    """One life is as good as another: each of these takes its own share of its own story's transactions."""
    story = await stories.told(tmp_path)
    assert stories.check_effects(story, tmp_path) > 30
    every = stories.lives(story)
    assert len(every) > 40
    for files in every[share :: 3 * SHARES]:
        await stories.check_ends(files, tmp_path)
