"""Large payloads where they are used: values everywhere, bytes on the disk once, and nothing read that nobody wants."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    EntityContext,
    LargeValue,
    Orchestration,
    OrchestrationContext,
    RetryPolicy,
    TaskHub,
    when_all,
)
from replayflow.core.events import TaskCompleted, TaskScheduled
from replayflow.errors import SealedError
from replayflow.store import SqliteStore
from tests.ciphers import ToyCipher
from tests.engine.kit import NO_GRACE, until, until_running, until_state
from tests.engine.process_activities import app as process_app
from tests.engine.process_activities import size_in_process

MEGABYTE = 2**20
LARGE = Random(4711).randbytes(MEGABYTE)
app = App()
app.include(process_app)


@app.activity
def length(value: bytes) -> int:
    return len(value)


@app.activity
async def same(value: bytes) -> bytes:
    return value


@app.activity
async def noise(seed: int) -> bytes:
    return Random(seed).randbytes(MEGABYTE)


@app.orchestrator
def child(ctx: OrchestrationContext, value: bytes) -> Orchestration[bytes]:
    return (yield from ctx.call_activity(same, value))


@app.orchestrator
def family(ctx: OrchestrationContext, value: bytes) -> Orchestration[bytes]:
    grown = yield from when_all([ctx.call_sub_orchestrator(child, value) for _ in range(10)])
    ctx.set_custom_status(grown[0])
    return grown[-1]


@app.orchestrator
def waits(ctx: OrchestrationContext, value: bytes) -> Orchestration[list[int]]:
    before = yield from ctx.call_activity(length, value)
    event = yield from ctx.wait_for_external_event("go", type=bytes)
    after = yield from ctx.call_activity(length, event)
    return [len(value), before, after]


@app.orchestrator
def asks_entity(ctx: OrchestrationContext, value: bytes) -> Orchestration[int]:
    count: int = yield from ctx.call_entity("@notes@a", "add", value)
    return count


@app.entity
def notes(ctx: EntityContext[list[bytes]], added: bytes) -> int:
    state: list[bytes] = ctx.get_state(list[bytes], default=[])
    ctx.set_state([*state, added])
    return len(state) + 1


_tries = 0


@app.orchestrator
def fails_once(ctx: OrchestrationContext, value: bytes) -> Orchestration[int]:
    global _tries  # replayflow: ignore[RFL10] - it fails once, whatever its history says
    yield from ctx.create_timer(timedelta(0))
    if not ctx.is_replaying:
        _tries += 1  # replayflow: ignore[RFL10] - it fails once, whatever its history says
    if _tries == 1:
        raise ValueError("the first time")
    return len(value)


@app.orchestrator
def tries_again(ctx: OrchestrationContext, value: bytes) -> Orchestration[int]:
    retry = RetryPolicy(max_attempts=3, first_interval=timedelta(milliseconds=300))
    return (yield from ctx.call_sub_orchestrator(fails_once, value, retry=retry))


@app.orchestrator
def gathers_noise(ctx: OrchestrationContext, count: int) -> Orchestration[list[int]]:
    results = yield from ctx.map(noise, range(count), concurrency=2)
    return [len(result) for result in results.succeeded]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


@pytest.fixture
async def hub(path: Path) -> AsyncIterator[TaskHub]:
    async with TaskHub(path, app, limits=NO_GRACE) as hub:
        yield hub


def kept_bytes(path: Path) -> int:
    """How much the hub takes on the disk, its log included."""
    return sum(file.stat().st_size for file in path.parent.glob("hub.db*"))


async def contents(path: Path) -> int:
    async with Client(path) as client:
        store: Any = client._store
        found: int = await store._read(lambda c: c.execute("SELECT count(*) FROM payload").fetchone()[0])
        return found


async def test_what_a_family_passes_around_is_on_the_disk_once(path: Path) -> None:
    async with TaskHub(path, app) as hub:
        instance = await hub.client.start(family, LARGE)
        assert await instance.result(20) == LARGE
    assert await contents(path) == 1
    # Inputs, messages, results, status and output of eleven instances mention the megabyte more than thirty times.
    assert kept_bytes(path) < 2 * MEGABYTE


async def test_values_are_there_after_a_restart(path: Path) -> None:
    async with TaskHub(path, app, limits=NO_GRACE) as hub:
        instance = await hub.client.start(waits, LARGE, instance_id="w")
        await until_state(instance, lambda state: state.status == "RUNNING")
    async with TaskHub(path, app) as hub:
        await hub.client.get("w").raise_event("go", LARGE[:-1])
        assert await hub.client.get("w").result(20) == [MEGABYTE, MEGABYTE, MEGABYTE - 1]


async def test_a_client_of_another_connection_sends_and_reads_large_values(hub: TaskHub, path: Path) -> None:
    async with Client(path, app) as client:
        instance = await client.start(waits, LARGE, instance_id="w")
        await instance.raise_event("go", LARGE[:-1])
        assert await instance.result(20) == [MEGABYTE, MEGABYTE, MEGABYTE - 1]
        assert (await instance.status()).input == LARGE


async def test_a_large_input_that_is_the_same_as_recorded_is_no_change(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with TaskHub(path, app, limits=NO_GRACE) as hub:
        instance = await hub.client.start(waits, LARGE, instance_id="w")
        await until_running(instance)
        while "TaskCompleted" not in [type(event).__name__ async for event in instance.history()]:
            pass
    with caplog.at_level(logging.WARNING, "replayflow"):
        async with TaskHub(path, app) as hub:
            await hub.client.get("w").raise_event("go", b"")
            await hub.client.get("w").result(20)
    assert "was asked for with another input" not in caplog.text


async def test_a_child_that_is_tried_again_after_a_restart_gets_its_input(path: Path) -> None:
    global _tries
    _tries = 0
    async with TaskHub(path, app, limits=NO_GRACE) as hub:
        instance = await hub.client.start(tries_again, LARGE, instance_id="p")
        while "SubOrchestrationAttemptFailed" not in [type(event).__name__ async for event in instance.history()]:
            pass
    async with TaskHub(path, app) as hub:
        assert await hub.client.get("p").result(20) == MEGABYTE


async def test_entities_have_large_states(path: Path) -> None:
    for round in (1, 2, 3):
        async with TaskHub(path, app) as hub:
            asked = await hub.client.start(asks_entity, LARGE)
            assert await asked.result(20) == round
            assert await hub.client.read_entity("@notes@a") == [LARGE] * round


async def test_results_of_maps_are_kept_out_of_line(path: Path) -> None:
    async with TaskHub(path, app) as hub:
        instance = await hub.client.start(gathers_noise, 5, instance_id="m")
        assert await instance.result(20) == [MEGABYTE] * 5
    assert await contents(path) == 5
    assert 5 * MEGABYTE < kept_bytes(path) < 7 * MEGABYTE


async def test_a_process_gets_a_large_input(hub: TaskHub) -> None:
    @app.orchestrator(name="in a process")
    def orchestrator(ctx: OrchestrationContext, value: bytes) -> Orchestration[int]:
        return (yield from ctx.call_activity(size_in_process, value))

    assert await (await hub.client.start(orchestrator, LARGE)).result(30) == MEGABYTE


async def test_a_listing_does_not_read_large_values(hub: TaskHub) -> None:
    instance = await hub.client.start(child, LARGE, instance_id="c")
    await instance.result(20)
    [listed] = [state async for state in hub.client.list()]
    assert isinstance(listed.input, LargeValue)
    assert isinstance(listed.output, LargeValue)
    assert listed.input.size_bytes == listed.output.size_bytes > MEGABYTE
    assert str(listed.input) == "(1,048,581 bytes, not read)"
    [whole] = [state async for state in hub.client.list(large=True)]
    assert (whole.input, whole.output) == (LARGE, LARGE)
    assert (await instance.status()).output == LARGE


async def test_a_listing_costs_no_memory_for_large_values(path: Path) -> None:
    store = SqliteStore(path, synchronous="NORMAL")
    async with Client(store) as client:
        for number in range(60):
            await client.start("somebody's", LARGE, instance_id=f"i{number}")
        tracemalloc.start()
        try:
            states = [state async for state in client.list()]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(states) == 60
    assert peak < MEGABYTE  # of sixty that they mention
    assert kept_bytes(path) < 6 * MEGABYTE


async def test_history_shows_values(hub: TaskHub) -> None:
    instance = await hub.client.start(child, LARGE)
    await instance.result(20)
    events = [event async for event in instance.history()]
    assert [event.input for event in events if isinstance(event, TaskScheduled)] == [LARGE]
    assert [event.result for event in events if isinstance(event, TaskCompleted)] == [LARGE]


async def test_the_limit_is_an_option_of_the_hub(path: Path) -> None:
    async with TaskHub(path, app, large_over_bytes=10) as hub:
        instance = await hub.client.start(child, b"longer than ten bytes")
        assert await instance.result(20) == b"longer than ten bytes"
    assert await contents(path) == 1


@pytest.mark.parametrize("cipher", [None, ToyCipher()], ids=["plain", "sealed"])
async def test_what_is_exported_has_all_values(path: Path, tmp_path: Path, cipher: ToyCipher | None) -> None:
    async with TaskHub(path, app, cipher=cipher) as hub:
        instance = await hub.client.start(child, LARGE, instance_id="c")
        assert await instance.result(20) == LARGE
        lines = [line async for line in hub.client.export()]
    async with Client(tmp_path / "other.db", app) as client:
        await client.import_history(lines)
        state = await client.get("c").status()
        assert (state.input, state.output) == (LARGE, LARGE)


async def test_what_is_encrypted_is_not_exported_without_the_key(path: Path) -> None:
    async with TaskHub(path, app, cipher=ToyCipher()) as hub:
        await (await hub.client.start(child, LARGE)).result(20)
    async with Client(path, app) as client:
        with pytest.raises(SealedError, match="key 'k1'"):
            _ = [line async for line in client.export()]


async def test_a_worker_that_has_nothing_to_do_keeps_no_values(path: Path) -> None:
    async with TaskHub(SqliteStore(path, synchronous="NORMAL"), app) as hub:
        await (await hub.client.start(child, b"small")).result(20)
        tracemalloc.start()
        try:
            await (await hub.client.start(child, LARGE)).result(20)
            await hub.client.list().__anext__()  # the reading thread, too, has done something else since
            # The writing thread tells what it has written before it lets go of it: it may be some steps from rest.
            await until(lambda: tracemalloc.get_traced_memory()[0] < MEGABYTE, "that nothing is kept")
        finally:
            tracemalloc.stop()
