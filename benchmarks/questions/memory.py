"""What a live instance takes in memory: one whose generator is there, waiting for an event."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.process import rss_bytes, until_quiet
from benchmarks.question import Bar, Figure, Figures, Question
from replayflow import App, Client, Instance, Limits, Orchestration, OrchestrationContext, TaskHub

app = App()
_WARM_UP = 1_000
_STARTED_TOGETHER = 500
_begun: list[int] = []
"""The input of each generator that was begun, in order."""


@app.orchestrator
def wait(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
    _begun.append(x)  # replayflow: ignore[RFL10] - it counts generators, replayed ones, too
    more: int = yield ctx.wait_for_external_event("go", type=int)
    return x + more


async def measure(n: int, folder: Path) -> Figures:
    async with TaskHub(folder / "memory.db", app, limits=Limits(warm_instances=2 * (n + _WARM_UP))) as hub:
        _begun.clear()
        await _start(hub.client, _WARM_UP)
        await until_quiet()
        before = rss_bytes()
        sample = await _start(hub.client, n)
        await until_quiet()
        after = rss_bytes()
        for instance in sample:
            await instance.raise_event("go", 1)
            assert await instance.result() > 0
        assert len(_begun) == _WARM_UP + n, "an instance was replayed: it was not live"
    return {"bytes_per_live": (after - before) / n}


async def _start(client: Client, n: int) -> list[Instance[int]]:
    """So many instances wait; these are the first few of them."""
    sample: list[Instance[int]] = []
    for first in range(0, n, _STARTED_TOGETHER):
        numbers = range(first, min(first + _STARTED_TOGETHER, n))
        started = await asyncio.gather(*[client.start(wait, i) for i in numbers])
        sample = sample or started[:20]
    return sample


QUESTION = Question(
    "memory",
    "n live instances that wait for an event: what each takes in memory, its generator and its values (small numbers) included",
    measure,
    figures=(Figure("bytes_per_live", "each", "bytes", bar=Bar(3_000, n_from=1_000)),),
    sizes=(20_000,),
    short_sizes=(10_000,),
)
