"""The stores that the contract is tested with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replayflow.store import MemoryStore, SqliteStore, Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Store]:
    store: Store = MemoryStore() if request.param == "memory" else SqliteStore(path)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def sqlite(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def other(sqlite: SqliteStore) -> AsyncIterator[SqliteStore]:
    """A client of the same file."""
    store = SqliteStore(sqlite.path)
    await store.open()
    yield store
    await store.close()
