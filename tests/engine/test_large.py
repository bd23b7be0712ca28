"""Large numbers: what grows with the work grows in proportion to it."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import App, MemoryStore, Orchestration, OrchestrationContext, SqliteStore, when_all
from tests.engine.kit import audit, hub_on, until_suspended

app = App()


@app.activity
async def double(x: int) -> int:
    return 2 * x


@app.orchestrator
def fan(ctx: OrchestrationContext, width: int) -> Orchestration[int]:
    return sum((yield from when_all([ctx.call_activity("double", i) for i in range(width)])))


@app.orchestrator
def chain(ctx: OrchestrationContext, length: int) -> Orchestration[int]:
    total = 0
    for i in range(length):
        total += yield from ctx.call_activity(double, i)
    return total


@app.orchestrator
def tree(ctx: OrchestrationContext, depth: int) -> Orchestration[int]:
    if depth == 0:
        return (yield from ctx.call_activity(double, 1)) - 1
    below = yield from when_all([ctx.call_sub_orchestrator(tree, depth - 1) for _ in range(10)])
    return 1 + sum(below)


@app.orchestrator
def collects(ctx: OrchestrationContext, count: int) -> Orchestration[int]:
    yield from ctx.wait_for_external_event("begin")
    total = 0
    for _ in range(count):
        total += yield from ctx.wait_for_external_event("item", type=int)
    return total


@app.orchestrator
def countdown(ctx: OrchestrationContext, left: int) -> str:
    if left:
        ctx.continue_as_new(left - 1)
    return "lift-off"


def store_of(kind: str, folder: Path) -> Any:
    return MemoryStore() if kind == "memory" else SqliteStore(folder / "hub.db", synchronous="NORMAL")


async def test_a_fan_out_of_twenty_thousand(tmp_path: Path) -> None:
    async with hub_on(store_of("sqlite", tmp_path), app) as hub:
        began = time.monotonic()
        assert await (await hub.client.start(fan, 20_000)).result(60) == 19_999 * 20_000
        print(f"20,000 activities at once: {time.monotonic() - began:.2f} s")
        await audit(hub.client)


async def test_two_thousand_activities_one_after_the_other(tmp_path: Path) -> None:
    async with hub_on(store_of("sqlite", tmp_path), app) as hub:
        began = time.monotonic()
        one = await hub.client.start(chain, 2_000, instance_id="chain")
        assert await one.result(60) == 1_999 * 2_000
        print(f"2,000 activities in a row: {time.monotonic() - began:.2f} s")
        await audit(hub.client)


async def test_a_tree_of_a_thousand_sub_orchestrations(tmp_path: Path) -> None:
    async with hub_on(store_of("sqlite", tmp_path), app) as hub:
        began = time.monotonic()
        assert await (await hub.client.start(tree, 3)).result(60) == 1_111
        print(f"a tree of 1,111 orchestrations: {time.monotonic() - began:.2f} s")
        assert sum([1 async for _ in hub.client.list()]) == 1_111
        await audit(hub.client)


async def test_a_thousand_executions_under_one_id_without_waiting(tmp_path: Path) -> None:
    async with hub_on(store_of("sqlite", tmp_path), app) as hub:
        began = time.monotonic()
        one = await hub.client.start(countdown, 1_000, instance_id="one")
        assert await one.result(60) == "lift-off"
        print(f"1,000 continue-as-new: {time.monotonic() - began:.2f} s")


async def _posted(hub: Any, id: str, count: int) -> float:
    """So many events are in the inbox; returns the processor's time for it, which others at work on the machine do not make longer."""
    began = time.process_time()
    one = hub.client.get(id)
    for first in range(0, count, 500):
        await asyncio.gather(*(one.raise_event("item", i) for i in range(first, first + 500)))
    return time.process_time() - began


@pytest.mark.parametrize("suspended", [False, True])
async def test_ten_thousand_buffered_events_cost_each_the_same(suspended: bool, tmp_path: Path) -> None:
    async with hub_on(store_of("sqlite", tmp_path), app) as hub:
        one = await hub.client.start(collects, 10_000, instance_id="one")
        if suspended:
            await one.suspend()
            await until_suspended(one)
        first = await _posted(hub, "one", 2_500)
        await _posted(hub, "one", 5_000)
        last = await _posted(hub, "one", 2_500)
        print(f"2,500 events: {first:.2f} s at first, {last:.2f} s after 7,500 others")
        assert last < 3 * first + 0.3
        if suspended:
            await one.resume()
        began = time.monotonic()
        await one.raise_event("begin")
        assert await one.result(30) == 2 * sum(range(2_500)) + sum(range(5_000))
        print(f"10,000 buffered events consumed in {time.monotonic() - began:.2f} s")
        await audit(hub.client)


async def test_recovery_of_many_reads_them_together(tmp_path: Path) -> None:
    never = asyncio.Event()
    stuck = App()

    @stuck.activity(name="double")
    async def hangs(x: int) -> int:
        await never.wait()
        return 2 * x

    stuck.orchestrator(name="fan")(fan)
    async with hub_on(store_of("sqlite", tmp_path), stuck) as hub:
        started = [await hub.client.start("fan", 3, instance_id=f"f{i}") for i in range(500)]
        await asyncio.sleep(0)
    began = time.monotonic()
    async with hub_on(store_of("sqlite", tmp_path), app) as hub:
        for one in started:
            assert await hub.client.get(one.id).result(20) == 6
        print(f"500 instances recovered and ended in {time.monotonic() - began:.2f} s")
        await audit(hub.client)


async def test_many_timers_of_one_instance_fire_each_once() -> None:
    many = App()

    @many.orchestrator
    def alarms(ctx: OrchestrationContext, count: int) -> Orchestration[int]:
        fired = yield from when_all([ctx.create_timer(timedelta(milliseconds=i % 50)) for i in range(count)])
        return len(fired)

    async with hub_on(MemoryStore(), many) as hub:
        assert await (await hub.client.start(alarms, 5_000)).result(20) == 5_000
        await audit(hub.client)
