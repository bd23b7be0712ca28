"""One worker owns a file; anybody may be a client of it, from any process, and is served soon. An idle worker writes nothing."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from replayflow import (
    App,
    Client,
    Orchestration,
    OrchestrationContext,
    OrchestrationTerminated,
    SqliteStore,
    TaskHub,
)
from replayflow.errors import HubOwnedError, InvalidArgumentError, LeaseLostError
from replayflow.store.sqlite import hub as hub_row
from tests.engine.kit import audit, until, until_running, until_suspended
from tests.engine.worker_app import app
from tests.engine.workers import Worker, stamp

SOON_SECONDS = 8.0
"""What takes a fraction of a second where nobody else is at work: no lease has to run out for it, and nobody has to look by chance."""


async def test_a_second_worker_is_told_who_owns_the_hub(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with Worker(path) as owner:
        assert await owner.line() == f"serving {owner.process.pid}"
        with pytest.raises(HubOwnedError, match=f"process {owner.process.pid} on "):
            async with TaskHub(path, app):
                pass
        with Worker(path) as second:
            assert await second.ended() != 0
            assert f"process {owner.process.pid} on " in second.errors()
        async with Client(path) as client:
            assert (await client.start("waits", instance_id="fine")).id == "fine"


async def test_one_that_waits_takes_over_soon_after_its_owner_was_killed(tmp_path: Path) -> None:
    path, file = tmp_path / "hub.db", tmp_path / "notes"
    with Worker(path) as owner:
        assert await owner.line() == f"serving {owner.process.pid}"
        with Worker(path, "wait") as heir:
            assert await heir.line() == "waiting"
            async with Client(path) as client:
                slow = await client.start("slow", str(file), instance_id="slow")
                await until(lambda: file.exists() and file.read_text().endswith("\n"))
                began = time.monotonic()
                await owner.ended(signal.SIGKILL)
                assert await heir.line() == f"serving {heir.process.pid}"
                taken = time.monotonic() - began
                await until(lambda: len(file.read_text().splitlines()) == 2)
                (tmp_path / "notes.go").touch()
                assert await slow.result(20) == heir.process.pid
        first, second = file.read_text().splitlines()
        assert first == second, "one idempotency key, whoever runs it"
    print(f"taken over after {taken * 1000:.0f} ms")
    assert taken < SOON_SECONDS


async def test_one_that_would_rather_be_a_client_works_as_one(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with Worker(path) as owner:
        await owner.line()
        async with TaskHub(path, app, when_owned="client") as hub:
            assert not hub.is_worker
            waiting = await hub.client.start("waits", instance_id="w")
            await waiting.raise_event("go", 4)
            assert await waiting.result(5) == 5
            serving = asyncio.create_task(hub.serve())
            await asyncio.sleep(0)
            serving.cancel()
    async with TaskHub(path, app, when_owned="client") as hub:
        assert hub.is_worker


def test_a_choice_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="when_owned is 'never'"):
        TaskHub("memory://", when_owned="never")  # type: ignore[arg-type]


async def test_two_hubs_of_one_process_exclude_each_other_on_one_file(tmp_path: Path) -> None:
    async with TaskHub(tmp_path / "hub.db", app):
        with pytest.raises(HubOwnedError):
            async with TaskHub(tmp_path / "hub.db", app):
                pass
        waiting = TaskHub(tmp_path / "hub.db", app, when_owned="wait")
        entering = asyncio.create_task(waiting.__aenter__())
        await asyncio.sleep(0.15)
        assert not entering.done()
    hub = await asyncio.wait_for(entering, 5)
    assert hub.is_worker
    await hub.__aexit__(None, None, None)


async def test_waiting_for_a_hub_can_be_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with TaskHub(path, app) as owner:
        waiting = asyncio.create_task(TaskHub(path, app, when_owned="wait").__aenter__())
        await asyncio.sleep(0.15)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await (await owner.client.start("sleeps", 0.0)).result(5) == "slept"
    async with TaskHub(path, app) as owner:
        assert owner.is_worker


async def test_several_hubs_on_different_files_live_in_one_process(tmp_path: Path) -> None:
    async with (
        TaskHub(tmp_path / "a.db", app) as a,
        TaskHub(tmp_path / "b.db", app) as b,
        TaskHub("memory://", app) as c,
    ):
        for number, hub in enumerate((a, b, c)):
            one = await hub.client.start("waits", instance_id="same")
            await one.raise_event("go", number)
            assert await one.result(5) == number + 1


def test_several_threads_have_hubs_of_their_own(tmp_path: Path) -> None:
    results: dict[int, list[int]] = {}

    async def work(number: int) -> None:
        async with TaskHub(tmp_path / f"{number}.db", app) as hub:
            started = [await hub.client.start("waits") for _ in range(20)]
            for i, one in enumerate(started):
                await one.raise_event("go", i)
            results[number] = [await one.result(10) for one in started]

    threads = [threading.Thread(target=lambda n=n: asyncio.run(work(n))) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {n: list(range(1, 21)) for n in range(3)}


async def test_a_client_in_another_process_is_served_soon(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with Worker(path) as owner:
        await owner.line()
        async with Client(path) as client:
            slowest = 0.0
            for i in range(10):
                began = time.monotonic()
                one = await client.start("waits", instance_id=f"w{i}")
                await one.raise_event("go", i)
                assert await one.result(20) == i + 1
                slowest = max(slowest, time.monotonic() - began)
            print(f"start, event and result from another process: {slowest * 1000:.0f} ms at the most")
            assert slowest < SOON_SECONDS
            one = await client.start("waits", instance_id="ends")
            began = time.monotonic()
            await one.terminate("enough")
            with pytest.raises(OrchestrationTerminated, match="enough"):
                await one.result(20)
            assert time.monotonic() - began < SOON_SECONDS
            one = await client.start("waits", instance_id="suspended")
            await one.suspend()
            await until_suspended(one)
            await one.raise_event("go", 1)
            with pytest.raises(TimeoutError, match="SUSPENDED"):
                await one.result(0.1)
            await one.resume()
            assert await one.result(5) == 2
            assert [state.status async for state in client.list(id_prefix="w")] == ["COMPLETED"] * 10
            await audit(client)


async def test_five_hundred_instances_get_their_events_from_another_process(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with Worker(path) as owner:
        await owner.line()
        async with Client(path) as client:
            started = [await client.start("sums", 4, instance_id=f"s{i}") for i in range(500)]
            await asyncio.gather(*(one.raise_event("item", i) for i, one in enumerate(started) for _ in range(4)))
            for i, one in enumerate(started):
                assert await one.result(20) == 4 * i
            await audit(client)


async def test_an_idle_worker_writes_nothing_and_hardly_works(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with Worker(path) as owner:
        await owner.line()
        async with Client(path) as client:
            await client.start("waits", instance_id="w")
            await client.start("sleeps", 3600.0, instance_id="s")
            for id in ("w", "s"):
                await until_running(client.get(id))
        before = None
        async with asyncio.timeout(30):
            while before != (before := stamp(path)):  # noqa: ASYNC110 - until what it does at its start is done
                await asyncio.sleep(0.5)
        written, cpu = owner.usage.io_counters().write_bytes, owner.usage.cpu_times()
        await asyncio.sleep(2)
        spent = owner.usage.cpu_times().user + owner.usage.cpu_times().system - cpu.user - cpu.system
        assert stamp(path) == before
        assert owner.usage.io_counters().write_bytes == written
        print(f"idle for 2 s: {spent * 1000:.0f} ms of the processor")
        assert spent < 0.2


def move_on(connection: sqlite3.Connection) -> None:
    """The hub has another owner."""
    own, _ = hub_row.read(connection)
    hub_row.change(connection, own._replace(epoch=own.epoch + 1))


async def test_a_worker_that_lost_its_file_to_another_stops(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    store = SqliteStore(path)

    async def work() -> None:
        async with TaskHub(store, app) as hub:
            await hub.client.start("waits", instance_id="w")
            assert store._writer is not None
            await store._writer.run(move_on)
            with pytest.raises(LeaseLostError):
                await hub.client.start("waits")
            await hub.serve()

    with pytest.raises(LeaseLostError):
        await work()


async def test_instances_of_any_name_are_found_again(tmp_path: Path) -> None:
    names = [
        "größe",
        "注文-1",
        "🦆" * 60,
        "a b",
        "x" * 256,
        "'; DROP TABLE instance; --",
        "%_",
        "e\u0301",
        "é",
        "ID",
        "id",
    ]
    local = App()

    @local.orchestrator
    def tells(ctx: OrchestrationContext) -> Orchestration[str]:
        yield from ctx.wait_for_external_event("gó 🦆")
        return ctx.instance_id

    async with TaskHub(tmp_path / "hub.db", local) as hub:
        for name in names:
            await hub.client.start(tells, instance_id=name)
    async with TaskHub(tmp_path / "hub.db", local) as hub:
        for name in names:
            one = hub.client.get(name)
            await one.raise_event("GÓ 🦆", name)
            assert await one.result(5) == name
        assert [state.id async for state in hub.client.list()] == names
