"""Every law of this folder holds in memory and in SQLite, and some are tried with every payload kept out of line, or sealed, too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.semantics.kit import Place

# All of them hold so: $REPLAYFLOW_TESTS_PLACES="memory, out of line; sqlite, out of line; memory, sealed; sqlite, sealed" tries them.
_OUT_OF_LINE_TOO = ("test_children_and_ids", "test_external_events", "test_determinism", "test_entities", "test_sagas")
_SEALED_TOO = ("test_children_and_ids", "test_failures", "test_entities")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        module = metafunc.definition.path.stem
        kinds = ["memory", "sqlite"]
        if module in _OUT_OF_LINE_TOO:
            kinds.append("sqlite, out of line")
        if module in _SEALED_TOO:
            kinds.append("sqlite, sealed")
        asked = os.environ.get("REPLAYFLOW_TESTS_PLACES")
        metafunc.parametrize("place", asked.split("; ") if asked else kinds, indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path)
