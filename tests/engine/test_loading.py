"""What is read from the store is used only if nothing has happened to the instance in memory since the reading began."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from replayflow import App, MemoryStore, Orchestration, OrchestrationContext, TaskHub
from replayflow.store.base import Loaded, Wake


class SlowReader(MemoryStore):
    """Answers questions about the past: what it says was true when it was asked, and is given when `answer` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = asyncio.Event()
        self.was_asked = asyncio.Event()

    async def wakes(self, after: tuple[int, int] | None, limit: int) -> list[Wake]:
        """The first worker that looks is told of an instance that begins in the same moment."""
        if not self.answer.is_set():
            return [Wake(0, "x", (0, 1))]
        return await super().wakes(after, limit)

    async def load(self, instance_ids: Sequence[str]) -> list[Loaded]:
        self.was_asked.set()
        found = await super().load(instance_ids)
        while not found and "x" in instance_ids:
            await asyncio.sleep(0)
            found = await super().load(instance_ids)
        await self.answer.wait()
        return found


async def test_an_old_reading_of_an_instance_that_has_ended_meanwhile_is_dropped() -> None:
    app = App()
    runs: list[int] = []

    @app.activity
    async def work(x: int) -> int:
        runs.append(x)
        return x

    @app.orchestrator
    def simple(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
        return (yield from ctx.call_activity(work, x))

    store = SlowReader()
    async with TaskHub(store, app) as hub:
        async with asyncio.timeout(5):
            await store.was_asked.wait()
            instance = await hub.client.start(simple, 7, instance_id="x")
            store.answer.set()
            assert await instance.result() == 7
            for _ in range(20):
                await asyncio.sleep(0)
        assert (await instance.status()).status == "COMPLETED"
        names = [type(event).__name__ async for event in instance.history()]
    assert runs == [7]
    assert names.count("TaskCompleted") == 1
    assert names[-1] == "ExecutionCompleted"
