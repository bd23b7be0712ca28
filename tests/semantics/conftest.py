"""Every law of this folder holds in memory and in SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.semantics.kit import Place


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path)
