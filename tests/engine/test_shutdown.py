"""Stopping: what can end within the grace is recorded, the rest is done again some day, and nothing of the hub is left in the process."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

import replayflow
from replayflow import (
    ActivityContext,
    App,
    Limits,
    MemoryStore,
    Orchestration,
    OrchestrationContext,
    OrchestrationFailed,
    TaskHub,
    when_all,
)
from replayflow.errors import UnknownNameError
from tests.engine import process_activities
from tests.engine.kit import Counted, ToldStore, audit, hub_on, until
from tests.engine.worker_app import app as worker_app
from tests.engine.workers import Worker

SOON_SECONDS = 8.0
"""What could keep a hub from closing here goes on for longer than that, or for ever; one that does not wait for it takes a second at rest."""


class Bench:
    def __init__(self) -> None:
        self.app = App()
        self.app.include(process_activities.app)
        self.keys: Counted[str] = Counted()
        self.go = asyncio.Event()
        self.thread_go = threading.Event()

        @self.app.activity
        async def slow(ctx: ActivityContext, x: int) -> int:
            self.keys(ctx.idempotency_key)
            await self.go.wait()
            return x

        @self.app.activity
        def slow_thread(ctx: ActivityContext, x: int) -> int:
            self.keys(ctx.idempotency_key)
            self.thread_go.wait(10)
            return x

        @self.app.orchestrator
        def fan(ctx: OrchestrationContext, call: list[Any]) -> Orchestration[int]:
            name, width = call
            return sum((yield from when_all([ctx.call_activity(name, i) for i in range(width)])))

        @self.app.orchestrator
        def waits(ctx: OrchestrationContext) -> Orchestration[int]:
            return (yield from ctx.wait_for_external_event("go", type=int))


@pytest.fixture
async def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("name", ["slow", "slow_thread"])
async def test_what_ends_within_the_grace_is_recorded(bench: Bench, name: str) -> None:
    store = MemoryStore()
    async with hub_on(store, bench.app, Limits(grace=timedelta(seconds=10))) as hub:
        one = await hub.client.start("fan", [name, 5], instance_id="one")
        await until(lambda: len(bench.keys.calls) == 5)

        def let_go() -> None:
            bench.go.set()
            bench.thread_go.set()

        asyncio.get_running_loop().call_later(0.05, let_go)
    async with hub_on(store, bench.app) as hub:
        assert await hub.client.get(one.id).result(5) == 10
        await audit(hub.client)
    assert set(bench.keys.calls.values()) == {1}


@pytest.mark.parametrize("name", ["slow", "slow_thread"])
async def test_what_is_over_the_grace_runs_again_with_the_same_key(bench: Bench, name: str) -> None:
    store = ToldStore()
    async with hub_on(store, bench.app, Limits(grace=timedelta(milliseconds=20))) as hub:
        await hub.client.start("fan", [name, 5], instance_id="one")
        await until(lambda: len(bench.keys.calls) == 5)
        began = time.monotonic()
    assert time.monotonic() - began < SOON_SECONDS
    bench.go.set()
    bench.thread_go.set()
    async with hub_on(store, bench.app) as hub:
        assert await hub.client.get("one").result(5) == 10
        await audit(hub.client)
    assert list(bench.keys.calls.values()) == [2] * 5


async def test_a_hub_closes_in_time_while_a_thousand_activities_run(bench: Bench, tmp_path: Path) -> None:
    async with hub_on(tmp_path / "hub.db", bench.app, Limits(grace=timedelta(milliseconds=50))) as hub:
        await hub.client.start("fan", ["slow", 1_500], instance_id="one")
        await until(lambda: len(bench.keys.calls) == 1_000)
        began = time.monotonic()
    assert time.monotonic() - began < SOON_SECONDS
    bench.go.set()
    async with hub_on(tmp_path / "hub.db", bench.app) as hub:
        assert await hub.client.get("one").result(20) == sum(range(1_500))
        await audit(hub.client)


async def test_an_activity_that_takes_no_notice_does_not_keep_a_hub_from_closing(bench: Bench) -> None:
    may_end = asyncio.Event()

    @bench.app.activity
    async def stubborn() -> None:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                pass

    @bench.app.orchestrator
    def calls(ctx: OrchestrationContext) -> Orchestration[None]:
        yield from ctx.call_activity(stubborn)

    async with hub_on("memory://", bench.app) as hub:
        await hub.client.start(calls)
        await asyncio.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < SOON_SECONDS
    may_end.set()
    await asyncio.sleep(0.01)


# ---- the whole process ends


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_a_process_that_is_ended_by_a_signal_leaves_a_file_to_go_on_from(
    how: signal.Signals, tmp_path: Path
) -> None:
    path, file = tmp_path / "hub.db", tmp_path / "notes"
    with Worker(path) as worker:
        await worker.line()
        async with replayflow.Client(path) as client:
            await client.start("slow", str(file), instance_id="slow")
            await client.start("waits", instance_id="waits")
            await client.start("leaves", str(file), instance_id="leaves")
            await until(lambda: file.exists() and len(file.read_text().splitlines()) == 2)
        code = await worker.ended(how)
        if how is signal.SIGINT:
            assert code == 0
            assert await worker.line() == "interrupted"
            assert worker.errors() == ""
        elif how is signal.SIGTERM:
            assert code == 0
            assert worker.errors() == ""
        else:
            assert code == -how
    (tmp_path / "notes.go").touch()
    async with TaskHub(path, worker_app) as hub:
        assert await hub.client.get("slow").result(5) == os.getpid()
        assert await hub.client.get("leaves").result(5) == "done"
        await hub.client.get("waits").raise_event("go", 1)
        assert await hub.client.get("waits").result(5) == 2
        await until(lambda: len(file.read_text().splitlines()) == 4)
    keys = file.read_text().splitlines()
    assert sorted(keys[:2]) == sorted(keys[2:])


async def test_an_orchestrator_that_raises_keyboard_interrupt_ends_the_program_and_not_the_file(tmp_path: Path) -> None:
    app = App()
    interrupts = True

    @app.orchestrator
    def interrupted(ctx: OrchestrationContext) -> Orchestration[str]:
        yield from ctx.wait_for_external_event("go")
        if interrupts:
            raise KeyboardInterrupt
        return "went on"

    async def main() -> None:
        async with TaskHub(tmp_path / "hub.db", app) as hub:
            one = await hub.client.start(interrupted, instance_id="one")
            await one.raise_event("go")
            await one.result(10)

    def blocking() -> float:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
        return time.monotonic() - began

    assert await asyncio.to_thread(blocking) < SOON_SECONDS
    interrupts = False
    async with TaskHub(tmp_path / "hub.db", app) as hub:
        assert await hub.client.get("one").result(5) == "went on"


# ---- one blocking call


def test_run_returns_the_result_and_the_second_call_at_once(tmp_path: Path) -> None:
    app = App()
    ran: Counted[str] = Counted()

    @app.activity
    async def work(x: int) -> int:
        ran("work")
        return x + 1

    @app.orchestrator
    def flow(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
        return (yield from ctx.call_activity(work, x))

    @app.orchestrator
    def fails(ctx: OrchestrationContext) -> int:
        raise ValueError("as it should")

    @app.orchestrator
    def hangs(ctx: OrchestrationContext) -> Orchestration[int]:
        return (yield from ctx.wait_for_external_event("go", type=int))

    path = tmp_path / "hub.db"
    for _ in range(2):
        assert replayflow.run(flow, 1, store=path) == 2
    assert ran.calls["work"] == 1
    assert replayflow.run(flow, 2, store=path) == 3
    assert ran.calls["work"] == 2
    for _ in range(2):
        with pytest.raises(OrchestrationFailed, match="as it should"):
            replayflow.run(fails, store=path)
        with pytest.raises(TimeoutError, match=r"has not finished within 0\.05 s"):
            replayflow.run(hangs, store=path, instance_id="hangs", timeout=0.05)
    with pytest.raises(UnknownNameError, match="registered with no app"):
        replayflow.run(len, store=path)


async def test_run_goes_on_after_a_kill(tmp_path: Path) -> None:
    path, file = tmp_path / "hub.db", tmp_path / "notes"
    with Worker("--run", path, file) as first:
        await until(lambda: file.exists() and file.read_text().endswith("\n"))
        await first.ended(signal.SIGKILL)
    (tmp_path / "notes.go").touch()
    with Worker("--run", path, file) as second:
        assert await second.line() == f"result {second.process.pid}"
        assert await second.ended() == 0
    keys = file.read_text().splitlines()
    assert len(keys) == 2
    assert len(set(keys)) == 1


# ---- callers that give up


async def test_callers_that_give_up_in_the_middle_do_no_harm(bench: Bench) -> None:
    store = ToldStore()
    async with hub_on(store, bench.app) as hub:
        with store.holding():
            attempts = [asyncio.create_task(hub.client.start("waits", instance_id=f"w{i}")) for i in range(20)]
            await until(lambda: store.attempts)
            for attempt in attempts[::2]:
                attempt.cancel()
            await asyncio.sleep(0)
        done = await asyncio.gather(*attempts, return_exceptions=True)
        assert sum(isinstance(outcome, asyncio.CancelledError) for outcome in done) == 10
        for i in range(20):  # what was on its way to the disk is there, whether anybody waits for it or not
            one = hub.client.get(f"w{i}")
            result = asyncio.create_task(one.result())
            await asyncio.sleep(0)
            result.cancel()
            with store.holding():
                raising = asyncio.create_task(one.raise_event("go", i))
                await asyncio.sleep(0)
                if i % 3 == 0:
                    raising.cancel()
            await asyncio.gather(raising, return_exceptions=True)
            assert await one.result(5) == i
        await audit(hub.client)


# ---- nothing is left


def own_threads() -> int:
    """The threads but for those of asyncio's own pool, which live as long as the event loop."""
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count of names, no paths


async def settled(count: Any, expected: int) -> int:
    for _ in range(500):
        if count() <= expected:
            break
        await asyncio.sleep(0.01)
    return int(count())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts the entries of /proc/self/fd")
async def test_nothing_of_a_hub_is_left_when_it_has_closed(bench: Bench, tmp_path: Path) -> None:
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    bench.go.set()
    bench.thread_go.set()

    async def once(number: int) -> None:
        async with hub_on(tmp_path / "hub.db", bench.app) as hub:
            await (await hub.client.start("fan", ["slow", 3], instance_id=f"a{number}")).result(5)
            await (await hub.client.start("fan", ["slow_thread", 3], instance_id=f"t{number}")).result(5)
            await hub.client.start("waits", instance_id=f"w{number}")
        async with replayflow.Client(tmp_path / "hub.db") as client:
            await client.get(f"a{number}").result(5)

    await once(0)
    files, threads, tasks = open_files(), own_threads(), len(asyncio.all_tasks())
    for number in range(1, 51):
        await once(number)
    assert len(asyncio.all_tasks()) == tasks
    assert await settled(own_threads, threads) <= threads
    assert await settled(open_files, files) <= files
    gc.collect()
    assert not errors


async def test_no_process_is_left_when_a_hub_has_closed(bench: Bench, tmp_path: Path) -> None:
    @bench.app.orchestrator
    def calls(ctx: OrchestrationContext) -> Orchestration[Any]:
        return (yield from ctx.call_activity("waits_for_file", str(tmp_path / "never")))

    def workers() -> list[psutil.Process]:
        # The tracker of shared resources is Python's own, one for the life of the process.
        return [
            child
            for child in psutil.Process().children(recursive=True)
            if "resource_tracker" not in " ".join(child.cmdline())
        ]

    before, threads = len(workers()), own_threads()
    async with hub_on("memory://", bench.app) as hub:
        assert await (await hub.client.start("fan", ["square", 3])).result(10) == 5
        await hub.client.start(calls)
        await until(lambda: len(workers()) > before)
        began = time.monotonic()
    assert time.monotonic() - began < SOON_SECONDS
    assert len(workers()) == before
    assert await settled(own_threads, threads) <= threads


async def test_errors_of_a_hub_that_ends_badly_are_not_left_to_the_garbage_collector(bench: Bench) -> None:
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    store = ToldStore()

    async def work() -> None:
        async with hub_on(store, bench.app) as hub:
            one = await hub.client.start("waits")
            results = [asyncio.create_task(one.result()) for _ in range(3)]
            await asyncio.sleep(0)
            results[0].cancel()
            store._epoch += 1
            for attempt in [asyncio.create_task(hub.client.start("waits")) for _ in range(3)]:
                with pytest.raises(replayflow.ReplayflowError):
                    await attempt
            await asyncio.gather(*results, return_exceptions=True)

    with pytest.raises(replayflow.ReplayflowError):
        await work()
    gc.collect()
    await asyncio.sleep(0)
    assert not errors


async def test_a_hub_can_be_opened_again_after_it_closed(bench: Bench, tmp_path: Path) -> None:
    hub = TaskHub(tmp_path / "hub.db", bench.app)
    for number in range(3):
        async with hub:
            one = await hub.client.start("waits", instance_id=f"w{number}")
            await one.raise_event("go", number)
            assert await one.result(5) == number
        with pytest.raises(replayflow.ReplayflowError, match="not open"):
            _ = hub.client
