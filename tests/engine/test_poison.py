"""What kills its worker is parked, and everybody else gets on: with workers in processes of their own, which really die."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from replayflow import ActivityContext, App, Client, Instance, Limits, Orchestration, OrchestrationContext, TaskHub
from replayflow.cli import main
from replayflow.errors import OrchestrationTerminated
from replayflow.store import SqliteStore

DEATHS_MAX = 20
PATIENCE_SECONDS = 30


@contextmanager
def worker(path: Path, *options: str, deaths_alone: int = 3) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.engine.poison_app", str(path), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"REST": "5", "DEATHS": str(deaths_alone), "PYTHONFAULTHANDLER": ""},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def crash_loop(path: Path, client: Client, parked: set[str], deaths_alone: int = 3) -> int:
    """A supervisor: starts the worker anew whenever it dies, until these, and no others, are parked; returns how often it died."""
    unheard = count_requests(path)
    for deaths in range(DEATHS_MAX):
        with worker(path, deaths_alone=deaths_alone) as process:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while process.poll() is None:
                problems = {state.id: state.problem async for state in client.list(parked=True, include_entities=True)}
                assert problems.keys() <= parked
                if problems.keys() == parked and (not unheard or not count_requests(path)):
                    assert all(problem is not None and problem.startswith("RF134: ") for problem in problems.values())
                    return deaths
                assert time.monotonic() < deadline, f"the worker lives, and {problems} are all that is parked"
                await asyncio.sleep(0.005)
    raise AssertionError(f"{DEATHS_MAX} workers died, and {parked} are not parked")


def count_requests(path: Path) -> int:
    """How many requests wait in inboxes."""
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM inbox WHERE is_control AND event IS NOT NULL").fetchone()[
            0
        ]
    return count


async def problem_of(client: Client, id: str) -> str:
    problem = (await client.get(id).status()).problem
    assert problem is not None
    return problem


async def test_what_kills_its_worker_is_parked_with_its_reason_and_the_rest_finishes(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with Client(path) as client:
        poison = await client.start("calls", ("deadly", "exit"), instance_id="poison")
        deep: Instance[Any] = await client.start("kills", instance_id="deep")
        others = [await client.start("healthy", 30, instance_id=f"healthy-{number}") for number in range(20)]
        assert await crash_loop(path, client, {"poison", "deep"}) >= 2 + 3 + 3
        reason = await problem_of(client, "poison")
        assert "3 workers died" in reason
        assert "activity 'deadly' (task 1), or its orchestrator 'calls'" in reason
        assert "replayflow resume poison" in reason
        assert "orchestrator 'kills'" in await problem_of(client, "deep")
        findings = [finding for finding in (await client.examine()).findings if finding.topic == "parked"]
        assert [finding.advice.count("its start alone tries none of them again") for finding in findings] == [1, 1]
        with worker(path):  # a start alone does not try them again
            for other in others:
                assert await other.result(PATIENCE_SECONDS) == 30
        listed = await asyncio.to_thread(CliRunner().invoke, main, ["list", "--parked", "--json", "--store", str(path)])
        assert {shown["id"] for shown in json.loads(listed.output)["instances"]} == {"poison", "deep"}
        with worker(path, "mended") as process:
            for id in ("poison", "deep"):
                resumed = await asyncio.to_thread(CliRunner().invoke, main, ["resume", id, "--store", str(path)])
                assert resumed.exit_code == 0, resumed.output
            assert await poison.result(PATIENCE_SECONDS) == "survived exit"
            assert await deep.result(PATIENCE_SECONDS) == "survived"
            assert process.poll() is None


async def test_every_kind_of_poison_is_named(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with Client(path) as client:
        # One after the other: where one death alone is enough, a poison that nobody suspects yet would have another blamed for it.
        await client.start("maps", [1, 2, 3, -1], instance_id="map")
        await crash_loop(path, client, {"map"}, deaths_alone=1)
        await client.start("leaves", "segfault", instance_id="leaver")
        await crash_loop(path, client, {"map", "leaver"}, deaths_alone=1)
        await client.signal_entity("@grave@a", "dig", "exit")
        await crash_loop(path, client, {"map", "leaver", "@grave@a"}, deaths_alone=1)
        assert "1 worker died" in await problem_of(client, "map")
        assert "map of 'add' (task 1)" in await problem_of(client, "map")
        assert "activity 'deadly' (of execution" in await problem_of(client, "leaver")
        assert "its entity '@grave@a', which had nothing else under way" in await problem_of(client, "@grave@a")
        assert await client.get("leaver").result(1) == "left"
        with worker(path, deaths_alone=1) as process:  # to be ended it needs none of its code
            await client.get("map").terminate("it was poison")
            assert (await client.get("map").wait(PATIENCE_SECONDS)).status == "TERMINATED"
            assert process.poll() is None


async def test_one_that_is_resumed_unmended_takes_all_those_deaths_again(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with Client(path) as client:
        await client.start("calls", ("deadly", "exit"), instance_id="poison")
        assert await crash_loop(path, client, {"poison"}, deaths_alone=1) >= 3
        await client.get("poison").resume()
        with worker(path, deaths_alone=1) as process:
            assert process.wait(PATIENCE_SECONDS) == 7
        assert await crash_loop(path, client, {"poison"}, deaths_alone=1) >= 1
        await client.get("poison").terminate()
        with worker(path), pytest.raises(OrchestrationTerminated):
            await client.get("poison").result(PATIENCE_SECONDS)


# ---- deaths in this process: the hub is left without a word, as a killed worker leaves it


def an_app() -> App:
    app = App()

    @app.activity
    async def hangs(ctx: ActivityContext) -> None:
        await asyncio.Event().wait()

    @app.activity
    async def add(x: int) -> int:
        return x + 1

    @app.orchestrator
    def long(ctx: OrchestrationContext) -> Orchestration[None]:
        yield from ctx.call_activity(hangs)

    @app.orchestrator
    def healthy(ctx: OrchestrationContext, count: int) -> Orchestration[int]:
        total = 0
        for _ in range(count):
            total = yield from ctx.call_activity(add, total)
        return total

    return app


async def test_thirty_kills_from_outside_park_nothing_however_long_an_activity_takes(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    app = an_app()
    limits = Limits(grace=timedelta(0), rest=timedelta(milliseconds=60))
    chance = random.Random(os.urandom(8).hex())
    for number in range(30):
        store = SqliteStore(path)
        async with TaskHub(store, app, limits=limits) as hub:
            await hub.client.start("long", instance_id=f"long-{number % 3}", on_existing="return")
            await hub.client.start("healthy", 20, instance_id=f"healthy-{number}")
            await asyncio.sleep(chance.uniform(0, 0.12))
            store._epoch = None
            store._lock.release()
        await store.close()
    async with TaskHub(path, app, limits=limits) as hub:
        for number in range(30):
            assert await hub.client.get(f"healthy-{number}").result(PATIENCE_SECONDS) == 20
        states = [state async for state in hub.client.list()]
        assert not [state for state in states if state.problem is not None]
        assert sorted(state.id for state in states if state.status == "RUNNING") == ["long-0", "long-1", "long-2"]
