"""An instance that cannot be read any more, beside a worker: it shows why, its neighbours go on, and it goes when it is asked to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from replayflow import App, Client, InstanceNotFoundError, InvalidStateError, OrchestrationContext, TaskHub
from replayflow.core import events
from replayflow.core.events import ExecutionCompleted, OrchestratorStarted
from tests.engine.kit import until_state
from tests.semantics.kit import until

app = App()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


@app.orchestrator
def waits(ctx: OrchestrationContext) -> Any:
    return (yield ctx.wait_for_external_event("go"))


@app.orchestrator
def parent(ctx: OrchestrationContext) -> Any:
    return (yield ctx.call_sub_orchestrator(waits, instance_id="kid"))


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        for statement in statements:
            connection.execute(statement)


def contradict(path: Path) -> None:
    """A piece that no execution can have had, with sums that fit: as from a fault of our own, and not of a disk."""
    piece = events.encode([OrchestratorStarted(1), ExecutionCompleted(2, "ENDED")])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        key, last, sum = connection.execute(
            "SELECT instance, max(number), sum + 2147483648 FROM history WHERE instance = (SELECT key FROM instance WHERE id = 'a')"
        ).fetchone()
        row = (key, last + 1, 31, piece, crc32(piece, sum) - 2147483648)
        connection.execute("INSERT INTO history (instance, number, at, events, sum) VALUES (?, ?, ?, ?, ?)", row)


OF_A = "(SELECT key FROM instance WHERE id = 'a')"
UNREADABLE: dict[str, Callable[[Path], None]] = {
    "its row": lambda path: change(path, "UPDATE instance SET custom_status = x'00' WHERE id = 'a'"),
    "its history": lambda path: change(path, f"UPDATE history SET events = x'00' WHERE instance = {OF_A}"),
    "its inbox": lambda path: change(path, f"UPDATE inbox SET event = x'00' WHERE instance = {OF_A}"),
    "what it means": contradict,
}


async def begun(path: Path) -> None:
    """Two instances wait, and nobody serves them."""
    async with TaskHub(path, app) as hub:
        for id in "ab":
            await until_state(await hub.client.start(waits, instance_id=id), lambda state: state.status == "RUNNING")


@pytest.mark.parametrize("what", UNREADABLE)
async def test_what_a_worker_cannot_read_shows_why_and_goes(path: Path, what: str) -> None:
    await begun(path)
    if what == "its inbox":
        async with Client(path) as client:
            await client.get("a").raise_event("go", 1)
    UNREADABLE[what](path)
    async with TaskHub(path, app) as hub, Client(path) as client:
        await hub.client.get("b").raise_event("go", 1)
        assert await hub.client.get("b").result(10) == 1
        if what in ("its history", "what it means"):
            await hub.client.get("a").raise_event("go", 1)

        async def problem() -> str | None:
            [shown] = [state async for state in client.list() if state.id == "a"]
            return shown.problem

        assert await until(problem)
        found = [one for one in (await client.examine()).findings if one.topic == "damage"]
        assert ("a",) in [one.examples for one in found]
        assert all("purge ID --damaged" in one.advice for one in found)
        with pytest.raises(InvalidStateError, match="reads back"):
            await client.get("b").purge_damaged()
        lost = await client.get("a").purge_damaged()
        assert lost.faults
        assert lost.messages == (what != "its row")
        assert (lost.name, lost.status, lost.children) == ("waits", "RUNNING", 0)
        with pytest.raises(InstanceNotFoundError):
            await hub.client.get("a").status()
        again = await client.start(waits, instance_id="a")
        await again.raise_event("go", 2)
        assert await hub.client.get("a").result(10) == 2
        assert (await client.examine(is_thorough=True)).condition.faults == ()


async def test_one_that_is_at_work_goes_under_the_worker(path: Path) -> None:
    """The worker has it in memory, and may not have noticed the damage: what it has of it is nobody's."""
    async with TaskHub(path, app) as hub, Client(path) as other:
        for client in (hub.client, other):
            running = await hub.client.start(parent, instance_id="p")
            kid = hub.client.get("kid")
            await until(partial(is_running, kid))
            change(path, "UPDATE instance SET custom_status = x'00' WHERE id = 'kid'")
            lost = await client.get("kid").purge_damaged()
            assert (lost.parent_id, lost.messages) == ("p", 0)
            assert (await running.status()).status == "RUNNING"
            with pytest.raises(InstanceNotFoundError):
                await kid.raise_event("go", 1)
            again = await client.start(waits, instance_id="kid")
            await again.raise_event("go", 3)
            assert await again.result(10) == 3
            await running.terminate()
            await running.wait(10)
            await again.purge()
            await running.purge()


async def is_running(instance: Any) -> bool:
    try:
        return bool((await instance.status()).status == "RUNNING")
    except InstanceNotFoundError:
        return False
