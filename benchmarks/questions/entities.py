"""Signals to one entity and to a thousand, sent by the worker's own process, until the last is performed and durable; and calls by orchestrations."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks.flows import app as flows
from benchmarks.flows import warm_up
from benchmarks.question import PEAK, Figures, Question, rate
from replayflow import App, EntityContext, Orchestration, OrchestrationContext, TaskHub, when_all

app = App()
app.include(flows)
_MANY = 1_000
_CALLERS = 100
_LOOK_SECONDS = 0.02


@app.entity
def counter(ctx: EntityContext[int | None], amount: int) -> int:
    now = (ctx.state or 0) + amount
    ctx.state = now
    return now


@app.orchestrator
def caller(ctx: OrchestrationContext, asked: tuple[str, int]) -> Orchestration[int]:
    id, times = asked
    last = 0
    for _ in range(times):
        last = yield ctx.call_entity(id, "add", 1)
    return last


@app.orchestrator
def callers(ctx: OrchestrationContext, n: int) -> Orchestration[int]:
    """So many orchestrations, n calls in all, each of an entity of its own."""
    shares = [n // _CALLERS + (i < n % _CALLERS) for i in range(min(n, _CALLERS))]
    results: list[int] = yield when_all(
        [ctx.call_sub_orchestrator(caller, (f"@counter@called-{i}", share)) for i, share in enumerate(shares)]
    )
    return sum(results)


async def measure(n: int, folder: Path) -> Figures:
    async with TaskHub(folder / "entities.db", app) as hub:
        await warm_up(hub)
        one = await _signals(hub, n, 1, "one")
        many = await _signals(hub, n, _MANY, "many")
        began = time.perf_counter()
        assert await (await hub.client.start(callers, n)).result() == n
        calls = n / (time.perf_counter() - began)
    return {"signals_to_one_per_s": one, "signals_to_many_per_s": many, "calls_per_s": calls}


async def _signals(hub: TaskHub, n: int, entities: int, prefix: str) -> float:
    client = hub.client
    began = time.perf_counter()
    await asyncio.gather(*[client.signal_entity(f"@counter@{prefix}-{i % entities}", "add", 1) for i in range(n)])
    while await _sum(hub, prefix) != n:  # noqa: ASYNC110 - a store tells nobody of a change
        await asyncio.sleep(_LOOK_SECONDS)
    return n / (time.perf_counter() - began)


async def _sum(hub: TaskHub, prefix: str) -> int:
    return sum([entity.state async for entity in hub.client.list_entities(name="counter", key_prefix=f"{prefix}-")])


QUESTION = Question(
    "entities",
    "n signals to one entity, n to a thousand, and n calls by a hundred orchestrations",
    measure,
    figures=(
        rate("signals_to_one_per_s", "signals to one"),
        rate("signals_to_many_per_s", "signals to many"),
        rate("calls_per_s", "calls"),
        PEAK,
    ),
    sizes=(20_000,),
    short_sizes=(20_000,),
)
