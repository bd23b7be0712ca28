"""One store, hubs on it in turn, and a bounded wait for what has to come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from replayflow import App, FailureDetails, HistoryEvent, Instance, Limits, MemoryStore, OrchestrationFailed, TaskHub
from replayflow.codec import LARGE_OVER_BYTES
from replayflow.store import SqliteStore, Store
from tests.ciphers import ToyCipher

LIMIT = 20.0
"""Seconds after which a test gives up; nothing here comes near it."""


class Place:
    """Where a hub's state is: one that ends leaves it to the next."""

    def __init__(self, kind: str, path: Path) -> None:
        self.path = path / "hub.db"
        self.is_memory = kind.startswith("memory")
        self._large_over_bytes = 1 if kind.endswith("out of line") else LARGE_OVER_BYTES
        self._cipher = ToyCipher() if kind.endswith("sealed") else None
        self._memory = (
            MemoryStore(large_over_bytes=self._large_over_bytes, cipher=self._cipher) if self.is_memory else None
        )

    def store(self) -> Store:
        return self._memory or SqliteStore(self.path, large_over_bytes=self._large_over_bytes, cipher=self._cipher)

    def hub(self, app: App, **limits: Any) -> TaskHub:
        return TaskHub(self.store(), app, limits=Limits(**{"grace": timedelta(seconds=2), **limits}))


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """What the condition comes to, as soon as it is true."""
    async with asyncio.timeout(LIMIT):
        while not (value := await condition()):  # noqa: ASYNC110 - a store tells nobody of a change
            await asyncio.sleep(0.005)
        return value


async def until_status(instance: Instance[Any], status: str) -> None:
    async def has() -> bool:
        return (await instance.status()).status == status

    await until(has)


async def history(instance: Instance[Any], execution_id: str | None = None) -> list[HistoryEvent]:
    return [event async for event in instance.history(execution_id)]


async def kinds(instance: Instance[Any], execution_id: str | None = None) -> list[str]:
    return [type(event).__name__ for event in await history(instance, execution_id)]


async def until_recorded(instance: Instance[Any], kind: str, count: int = 1) -> None:
    """The instance's history has so many events of the kind."""

    async def has() -> bool:
        return (await kinds(instance)).count(kind) >= count

    await until(has)


async def failure_of(instance: Instance[Any]) -> FailureDetails:
    """How the orchestration failed."""
    try:
        await instance.result(LIMIT)
    except OrchestrationFailed as failed:
        return failed.details
    raise AssertionError("it completed")
