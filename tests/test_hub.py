"""The front door: opening, closing, and what it says when it is not open."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import replayflow
from replayflow import App, Limits, MemoryStore, Orchestration, OrchestrationContext, TaskHub
from replayflow.errors import EncodeError, HubOwnedError, InvalidArgumentError, NotAHubError, StoreUnavailableError

app = App()


@app.activity
async def shout(text: str) -> str:
    return text.upper()


@app.orchestrator
def greet(ctx: OrchestrationContext, name: str) -> Orchestration[str]:
    return (yield from ctx.call_activity(shout, f"hello {name}"))


async def test_a_hub_runs_what_its_client_starts(tmp_path: Path) -> None:
    for address in (
        tmp_path / "a.db",
        str(tmp_path / "b.db"),
        f"sqlite:///{tmp_path / 'c.db'}",
        "memory://",
        MemoryStore(),
    ):
        async with TaskHub(address, app) as hub:
            assert hub.is_worker
            assert await (await hub.client.start(greet, "you")).result(5) == "HELLO YOU"
        assert not hub.is_worker


async def test_the_client_of_a_hub_that_is_not_open_says_what_to_do(tmp_path: Path) -> None:
    hub = TaskHub(tmp_path / "hub.db", app)
    with pytest.raises(InvalidArgumentError, match="async with TaskHub"):
        _ = hub.client
    async with hub:
        _ = hub.client
    with pytest.raises(InvalidArgumentError, match="async with TaskHub"):
        _ = hub.client


async def test_a_store_that_cannot_be_opened_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("not a database at all, but a text of some length")
    with pytest.raises(NotAHubError, match=r"other\.txt"):
        async with TaskHub(other, app):
            pass
    assert other.read_text().startswith("not a database")
    with pytest.raises(StoreUnavailableError, match="does not exist"):
        async with TaskHub(tmp_path / "nowhere" / "hub.db", app):
            pass
    with pytest.raises(StoreUnavailableError, match="no store is known"):
        TaskHub("mysql://somewhere", app)


async def test_what_the_block_raises_comes_out_and_the_hub_is_free(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with TaskHub(tmp_path / "hub.db", app):
            raise ZeroDivisionError
    async with TaskHub(tmp_path / "hub.db", app) as hub:
        assert hub.is_worker


async def test_a_hub_that_could_not_be_had_leaves_nothing_open(tmp_path: Path) -> None:
    async with TaskHub(tmp_path / "hub.db", app) as owner:
        for _ in range(3):
            with pytest.raises(HubOwnedError):
                await TaskHub(tmp_path / "hub.db", app).__aenter__()
        assert await (await owner.client.start(greet, "me")).result(5) == "HELLO ME"


async def test_serving_ends_with_its_task_and_not_the_worker(tmp_path: Path) -> None:
    async with TaskHub(tmp_path / "hub.db", app) as hub:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await hub.serve()
        assert await (await hub.client.start(greet, "still")).result(5) == "HELLO STILL"


@pytest.mark.parametrize("grace", [timedelta(seconds=-1)])
def test_a_negative_grace_is_refused(grace: timedelta) -> None:
    with pytest.raises(InvalidArgumentError, match="grace"):
        Limits(grace=grace)


def test_the_default_store_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAYFLOW_STORE", str(tmp_path / "named.db"))
    assert replayflow.run(greet, "there") == "HELLO THERE"
    assert (tmp_path / "named.db").exists()
    monkeypatch.delenv("REPLAYFLOW_STORE")
    monkeypatch.chdir(tmp_path)
    assert replayflow.run(greet, "here") == "HELLO HERE"
    assert (tmp_path / "replayflow.db").exists()


@pytest.mark.parametrize(("id", "given"), [("a/b", "you"), (7, "you"), ("a", object())])
def test_what_run_refuses_leaves_no_hub(tmp_path: Path, id: Any, given: object) -> None:
    with pytest.raises((InvalidArgumentError, EncodeError)):
        replayflow.run(greet, given, store=tmp_path / "hub.db", instance_id=id)
    assert list(tmp_path.iterdir()) == []
