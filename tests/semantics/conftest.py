"""Every law of this folder holds in memory and in SQLite, and some are tried with every payload kept out of line, too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.semantics.kit import Place

# All of them hold so: $REPLAYFLOW_TESTS_OUT_OF_LINE=1 tries them.
_OUT_OF_LINE_TOO = ("test_children_and_ids", "test_external_events", "test_determinism", "test_entities", "test_sagas")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        kinds = ["memory", "sqlite"]
        if os.environ.get("REPLAYFLOW_TESTS_OUT_OF_LINE"):
            kinds = ["memory, out of line", "sqlite, out of line"]
        elif str(metafunc.definition.path.stem).endswith(_OUT_OF_LINE_TOO):
            kinds.append("sqlite, out of line")
        metafunc.parametrize("place", kinds, indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path)
