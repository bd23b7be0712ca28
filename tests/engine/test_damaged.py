"""One damaged instance stops neither the worker nor its neighbours, and everybody is told of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from replayflow import App, Client, OrchestrationContext, TaskHub
from replayflow.errors import StoreCorruptError
from tests.engine.kit import until_running

app = App()


@app.orchestrator
def listens(ctx: OrchestrationContext) -> Any:
    return (yield ctx.wait_for_external_event("go"))


def damage(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute(statement).rowcount == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE instance SET status = 'RUNNINF' WHERE id = 'bad'",
        "UPDATE instance SET created_at = created_at + 64 WHERE id = 'bad'",
        "UPDATE inbox SET event = x'00' WHERE instance = (SELECT key FROM instance WHERE id = 'bad')",
        "UPDATE history SET events = x'00' WHERE instance = (SELECT key FROM instance WHERE id = 'bad') AND number = 1",
    ],
)
async def test_a_damaged_instance_is_left_as_it_is_and_the_others_go_on(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "hub.db"
    async with TaskHub(path, app) as hub:
        for id in ("bad", "good"):
            await hub.client.start("listens", instance_id=id)
        for id in ("bad", "good"):
            await until_running(hub.client.get(id))
    async with Client(path, app) as client:
        for id in ("bad", "good"):
            await client.get(id).raise_event("go", id)
    damage(path, statement)
    async with TaskHub(path, app) as hub:
        assert await hub.client.get("good").result(timeout=10) == "good"
        states = {state.id: state async for state in hub.client.list()}
        assert states["good"].damage is None
        if "UPDATE instance" in statement:
            assert "does not read back as it was written" in (states["bad"].damage or "")
            with pytest.raises(StoreCorruptError, match="instance 'bad'"):
                await hub.client.get("bad").status()
        found = await hub.client.examine(is_thorough=True)
        assert [finding for finding in found.findings if finding.topic == "damage" and finding.is_problem]
