"""A restart among live orchestrations: they are replayed and go on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks.process import in_fresh_process
from benchmarks.question import PEAK, Figure, Figures, Question
from replayflow import App, Orchestration, OrchestrationContext, TaskHub

app = App()
_RESULTS = 20


class _Activities:
    """How often the activity has run in this process; `all_ran` is set when it has run `expected` times."""

    def __init__(self) -> None:
        self.runs = 0
        self.expected = 0
        self.all_ran = asyncio.Event()


_activities = _Activities()


@app.activity
async def add_one(x: int) -> int:
    _activities.runs += 1
    if _activities.runs == _activities.expected:
        _activities.all_ran.set()
    return x + 1


@app.orchestrator
def wait(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
    for _ in range(_RESULTS):
        x = yield ctx.call_activity(add_one, x)
    more: int = yield ctx.wait_for_external_event("go", type=int)
    return x + more


async def measure(n: int, folder: Path) -> Figures:
    path = folder / "recover.db"
    await in_fresh_process(leave_waiting, n, path)
    began = time.perf_counter()
    async with TaskHub(path, app) as hub:
        instances = [hub.client.get(f"w{i}") for i in range(n)]
        await hub.client.raise_event_to_many(instances, "go", 1_000)
        results = await hub.client.results(instances)
        seconds = time.perf_counter() - began
    assert results == [i + _RESULTS + 1_000 for i in range(n)]
    assert _activities.runs == 0, "what had its result ran again"
    return {"recover_s": seconds, "instances_per_s": n / seconds}


def leave_waiting(n: int, path: Path) -> None:
    """The hub at the path has n instances that have their results and wait for the event. The worker that ran them has ended."""

    async def run() -> None:
        _activities.expected = n * _RESULTS
        async with TaskHub(path, app) as hub:
            await asyncio.gather(*[hub.client.start(wait, i, instance_id=f"w{i}") for i in range(n)])
            await _activities.all_ran.wait()  # the hub's orderly end writes what they came to

    asyncio.run(run())


QUESTION = Question(
    "recover",
    "n orchestrations with 20 results behind them, finished by an event each after a restart: from opening the hub to the last result",
    measure,
    figures=(
        # The floor's "recover_s" is its replay alone; its "seconds" go to the last result, as ours do.
        Figure("recover_s", "all finished in", "s", floor_key="seconds", at_least=(("floor", 0.5), ("restate", 1))),
        Figure("instances_per_s", "instances", "/s", more_is_better=True),
        PEAK,
    ),
    sizes=(1_000,),
    short_sizes=(1_000,),
)
