"""Groups: what comes together is written together, and nobody waits for what is not about to come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from replayflow import MemoryStore
from replayflow.engine.committer import OPERATIONS_PER_GROUP_MAX, Committer
from replayflow.errors import ReplayflowError
from replayflow.store.base import ACCEPTED, Operation, Outcome, Purge


class Groups(MemoryStore):
    """Takes everything, and notes how many came at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        self.sizes.append(len(operations))
        return [ACCEPTED] * len(operations)


def unheard(_: ReplayflowError) -> None:
    raise AssertionError("no group fails here")


@asynccontextmanager
async def running(store: Groups, patience: Callable[[], float]) -> AsyncIterator[Committer]:
    committer = Committer(store, 1, unheard, lambda: None)
    committer.gather(patience)
    task = asyncio.create_task(committer.run())
    try:
        yield committer
    finally:
        task.cancel()


def add(committer: Committer) -> None:
    committer.add(Purge("x", None, 0, "asked"), lambda *_: None)


async def test_a_group_waits_for_what_is_about_to_come() -> None:
    store, left = Groups(), 20
    async with running(store, lambda: 10.0 if left else 0.0) as committer:
        while left:
            left -= 1
            add(committer)
            await asyncio.sleep(0)
        await committer.drain()
    assert store.sizes == [20]


async def test_what_comes_alone_is_written_alone() -> None:
    store = Groups()
    async with running(store, lambda: 0.0) as committer:
        for _ in range(5):
            add(committer)
            await committer.drain()
    assert store.sizes == [1] * 5


async def test_a_full_group_waits_for_nothing() -> None:
    store = Groups()
    async with running(store, lambda: 10.0) as committer:
        for _ in range(3 * OPERATIONS_PER_GROUP_MAX):
            add(committer)
        await committer.drain()
    assert store.sizes == [OPERATIONS_PER_GROUP_MAX] * 3


async def test_a_group_is_written_also_where_more_is_always_about_to_come() -> None:
    store = Groups()
    async with running(store, lambda: 0.01) as committer, asyncio.timeout(10):
        add(committer)
        await committer.drain()
    assert store.sizes == [1]
