"""The crash campaign, in small: the large one is `python -m tests.engine.crash_campaign`."""

from __future__ import annotations

import random
from pathlib import Path

from tests.engine.crash_campaign import campaign


async def test_nothing_is_lost_and_nothing_doubled_by_kills_at_any_moment(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    figures = await campaign(tmp_path / "crash.db", kills=4, batches=8, seed=seed)
    assert figures["kills"] == 4
    assert figures["instances"] >= 12
    assert figures["activities"] >= 12 * 67
    assert figures["purged"] > 0
    assert figures["calls"] == figures["maps"] * (400 + 6 + 18)
    assert figures["rewound"] >= 1
