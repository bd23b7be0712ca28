"""The workloads that everything is measured by, run on replayflow: each prints one JSON line, in the form of the yardstick's.

python -m benchmarks.workloads chain 1000      N orchestrations x 5 sequential activities, all started at once
python -m benchmarks.workloads fan 100000      one orchestration, N activities, fan-in
python -m benchmarks.workloads latency 200     N times: one orchestration x 5 activities, one after the other
python -m benchmarks.workloads long 10000      one orchestration, N sequential activities
python -m benchmarks.workloads recover 1000    N orchestrations with 20 results behind them, finished by an event after a restart
python -m benchmarks.workloads dormant 100000  start-up beside N sleeping instances, and beside none
python -m benchmarks.workloads signal-one 20000   N signals to one entity, from the worker's process
python -m benchmarks.workloads signal-many 20000  N signals to a thousand entities
python -m benchmarks.workloads call 5000          N calls of entities, one after the other in each of 100 orchestrations
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from replayflow import App, EntityContext, Orchestration, OrchestrationContext, TaskHub, when_all
from replayflow.client import Client

app = App()
Figures = dict[str, float]


@app.activity
async def add_one(x: int) -> int:
    return x + 1


@app.orchestrator
def chain(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
    for _ in range(5):
        x = yield ctx.call_activity(add_one, x)
    return x


@app.orchestrator
def long(ctx: OrchestrationContext, n: int) -> Orchestration[int]:
    x = 0
    for _ in range(n):
        x = yield ctx.call_activity(add_one, x)
    return x


@app.orchestrator
def fan(ctx: OrchestrationContext, n: int) -> Orchestration[int]:
    results: list[int] = yield when_all([ctx.call_activity(add_one, i) for i in range(n)])
    return sum(results)


@app.orchestrator
def wait(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
    for _ in range(20):
        x = yield ctx.call_activity(add_one, x)
    more: int = yield ctx.wait_for_external_event("go", type=int)
    return x + more


@app.orchestrator
def sleep(ctx: OrchestrationContext) -> Orchestration[None]:
    yield ctx.create_timer(timedelta(days=365))


@app.entity
def counter(ctx: EntityContext[int | None], amount: int) -> int:
    ctx.state = (ctx.state or 0) + amount
    return ctx.state


@app.orchestrator
def call(ctx: OrchestrationContext, asked: tuple[str, int]) -> Orchestration[int]:
    id, times = asked
    x = 0
    for _ in range(times):
        x = yield ctx.call_entity(id, "add", 1)
    return x


async def measure_signal_one(n: int, path: Path) -> Figures:
    return await _measure_signals(n, 1, path)


async def measure_signal_many(n: int, path: Path) -> Figures:
    return await _measure_signals(n, 1_000, path)


async def _measure_signals(n: int, entities: int, path: Path) -> Figures:
    """From the first signal until the last is performed and durable."""
    async with TaskHub(path, app) as hub:
        await hub.client.signal_entity("@counter@before", "add", 1)
        began = time.perf_counter()
        await asyncio.gather(*[hub.client.signal_entity(f"@counter@{i % entities}", "add", 1) for i in range(n)])
        accepted = time.perf_counter()
        while sum([e.state async for e in hub.client.list_entities(name="counter")]) != n + 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return {"accepted_per_s": n / (accepted - began), "signals_per_s": n / (time.perf_counter() - began)}


async def measure_call(n: int, path: Path) -> Figures:
    async with TaskHub(path, app) as hub:
        await (await hub.client.start(call, ("@counter@before", 1))).result()
        began = time.perf_counter()
        instances = await asyncio.gather(*[hub.client.start(call, (f"@counter@{i}", n // 100)) for i in range(100)])
        assert await asyncio.gather(*[i.result() for i in instances]) == [n // 100] * 100
        return {"calls_per_s": n / (time.perf_counter() - began)}


async def measure_chain(n: int, path: Path) -> Figures:
    async with TaskHub(path, app) as hub:
        await (await hub.client.start(chain, 0)).result()
        began = time.perf_counter()
        instances = await asyncio.gather(*[hub.client.start(chain, i) for i in range(n)])
        assert await asyncio.gather(*[i.result() for i in instances]) == [i + 5 for i in range(n)]
        return {"activities_per_s": 5 * n / (time.perf_counter() - began)}


async def measure_fan(n: int, path: Path) -> Figures:
    async with TaskHub(path, app) as hub:
        await (await hub.client.start(chain, 0)).result()
        began = time.perf_counter()
        assert await (await hub.client.start(fan, n)).result() == n * (n + 1) // 2
        return {"activities_per_s": n / (time.perf_counter() - began)}


async def measure_latency(n: int, path: Path) -> Figures:
    async with TaskHub(path, app) as hub:
        await (await hub.client.start(chain, 0)).result()
        times = []
        for i in range(n):
            began = time.perf_counter()
            assert await (await hub.client.start(chain, i)).result() == i + 5
            times.append(time.perf_counter() - began)
    times.sort()
    return {"p50_ms": times[n // 2] * 1e3, "p99_ms": times[n * 99 // 100] * 1e3}


async def measure_long(n: int, path: Path) -> Figures:
    async with TaskHub(path, app) as hub:
        await (await hub.client.start(chain, 0)).result()
        began = time.perf_counter()
        assert await (await hub.client.start(long, n)).result() == n
        return {"activities_per_s": n / (time.perf_counter() - began)}


async def measure_recover(n: int, path: Path) -> Figures:
    async with TaskHub(path, app) as hub:
        await asyncio.gather(*[hub.client.start(wait, i, instance_id=f"w{i}") for i in range(n)])
        while hub.is_worker and (await hub.client.list_page(status="RUNNING", limit=1)).states:
            states = [await hub.client.get(f"w{i}").status() for i in range(0, n, max(1, n // 20))]
            if all(state.updated_at != state.created_at for state in states) and await _all_wait(hub.client, n):
                break
            await asyncio.sleep(0.05)
    began = time.perf_counter()
    async with TaskHub(path, app) as hub:
        instances = [hub.client.get(f"w{i}") for i in range(n)]
        await asyncio.gather(*[instance.raise_event("go", 1000) for instance in instances])
        assert await asyncio.gather(*[i.result() for i in instances]) == [i + 1020 for i in range(n)]
        return {"recover_s": time.perf_counter() - began}


async def _all_wait(client: Client, n: int) -> bool:
    """Whether every instance has its 20 results behind it."""
    for i in range(n):
        count = 0
        async for event in client.get(f"w{i}").history():
            count += type(event).__name__ == "TaskCompleted"
        if count < 20:
            return False
    return True


async def measure_dormant(n: int, path: Path) -> Figures:
    figures: Figures = {}
    began = time.perf_counter()
    async with TaskHub(path.with_name("none.db"), app):
        figures["open_empty_s"] = time.perf_counter() - began
    before = _rss_mb()
    async with TaskHub(path, app) as hub:
        for first in range(0, n, 5_000):
            await asyncio.gather(*[hub.client.start(sleep) for _ in range(first, min(first + 5_000, n))])
    return figures | {"build_rss_mb": _rss_mb() - before}


def _rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure_open(_n: int, path: Path) -> Figures:
    """In a fresh process: what it costs to start beside what `dormant` has left."""
    before = _rss_mb()
    began = time.perf_counter()
    async with TaskHub(path, app) as hub:
        assert await (await hub.client.start(chain, 0)).result() == 5
        return {"first_result_s": time.perf_counter() - began, "more_rss_mb": _rss_mb() - before}


WORKLOADS: dict[str, Callable[[int, Path], Awaitable[Figures]]] = {
    "chain": measure_chain,
    "fan": measure_fan,
    "latency": measure_latency,
    "long": measure_long,
    "recover": measure_recover,
    "dormant": measure_dormant,
    "open": measure_open,
    "signal-one": measure_signal_one,
    "signal-many": measure_signal_many,
    "call": measure_call,
}


def main() -> None:
    workload, n = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        path = Path(sys.argv[3]) if len(sys.argv) > 3 else Path(folder) / "bench.db"
        began = time.perf_counter()
        figures = asyncio.run(WORKLOADS[workload](n, path))  # type: ignore[arg-type]
        figures["seconds"] = time.perf_counter() - began
        figures["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = {"system": "replayflow", "workload": workload, "n": n} | {k: round(v, 4) for k, v in figures.items()}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
