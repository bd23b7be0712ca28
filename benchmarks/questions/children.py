"""Orchestrations that start orchestrations."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.flows import app as flows
from benchmarks.flows import warm_up
from benchmarks.question import PEAK, Figures, Question, rate
from replayflow import App, Orchestration, OrchestrationContext, TaskHub, when_all

app = App()
app.include(flows)
_BRANCHES_MAX = 10


@app.orchestrator
def tree(ctx: OrchestrationContext, n: int) -> Orchestration[int]:
    """A tree of n orchestrations, this one among them; its result is how many there were."""
    below = n - 1
    branches = min(_BRANCHES_MAX, below)
    sizes = [below // branches + (i < below % branches) for i in range(branches)]
    grown: list[int] = yield when_all([ctx.call_sub_orchestrator(tree, size) for size in sizes])
    return 1 + sum(grown)


async def measure(n: int, folder: Path) -> Figures:
    async with TaskHub(folder / "children.db", app) as hub:
        await warm_up(hub)
        began = time.perf_counter()
        assert await (await hub.client.start(tree, n)).result() == n
        return {"instances_per_s": n / (time.perf_counter() - began)}


QUESTION = Question(
    "children",
    "a tree of n sub-orchestrations, ten below each",
    measure,
    figures=(rate("instances_per_s", "instances"), PEAK),
    sizes=(10_000,),
    short_sizes=(10_000,),
)
