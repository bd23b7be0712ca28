"""What clients in the worker's process start begins in its turn, or whoever asked is told why not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from replayflow import App, MemoryStore, Orchestration, OrchestrationContext, ReplayflowError, TaskHub
from replayflow.engine.episodes import Episodes


def app_of_echo() -> App:
    app = App()

    @app.orchestrator
    def echo(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
        if x < 0:
            yield ctx.wait_for_external_event("never")
        return x

    return app


async def test_a_fault_in_a_first_step_ends_the_worker_and_nobody_in_line_waits_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = 0
    episode = Episodes.episode

    def faulty(self: Episodes, live: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 150:
            raise RuntimeError("a fault of ours")
        return episode(self, live)

    async def start_a_crowd() -> None:
        async with TaskHub(MemoryStore(), app_of_echo()) as hub, asyncio.timeout(10):
            ends = await asyncio.gather(*[hub.client.start("echo", x) for x in range(300)], return_exceptions=True)
            refused = [end for end in ends if isinstance(end, BaseException)]
            assert len(refused) >= 151
            assert all(isinstance(end, ReplayflowError) and "a fault of ours" in str(end) for end in refused)
            with pytest.raises(ReplayflowError, match="a fault of ours"):
                await hub.client.start("echo", 1)

    monkeypatch.setattr(Episodes, "episode", faulty)
    with pytest.raises(ReplayflowError, match="a fault of ours"):
        await start_a_crowd()


def test_an_interrupt_in_a_first_step_leaves_the_program() -> None:
    app = App()

    @app.orchestrator
    def interrupted(ctx: OrchestrationContext) -> Orchestration[None]:
        if not ctx.is_replaying:
            raise KeyboardInterrupt
        yield ctx.wait_for_external_event("never")

    async def run() -> None:
        async with TaskHub(MemoryStore(), app) as hub:
            await hub.client.start(interrupted)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(asyncio.wait_for(run(), 10))


async def test_all_of_a_crowd_begin_each_in_the_order_in_which_it_was_started() -> None:
    begun: list[int] = []
    app = App()

    @app.orchestrator
    def notes(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
        begun.append(x)
        if x < 0:
            yield ctx.wait_for_external_event("never")
        return x

    async with TaskHub(MemoryStore(), app) as hub:
        batch = await hub.client.start_many(notes, range(333))
        assert await hub.client.results(batch, timeout=10) == list(range(333))
    assert begun == list(range(333))
