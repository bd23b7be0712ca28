"""Golden histories: what has happened once holds every later version of the code to it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    InvalidArgumentError,
    NonDeterminismError,
    OrchestrationContext,
    UnknownNameError,
)
from replayflow.core.events import EventRaised, ExecutionCompleted
from replayflow.errors import InstanceNotFoundError
from replayflow.testing import VirtualHub, check_history, save_history
from tests.engine.kit import ToldStore, until, until_empty


def app_of(*waits: int, name: str = "flow") -> App:
    """An app whose orchestrator works, waits, and begins anew once."""
    app = App()

    @app.activity
    async def work(n: int) -> int:
        return n

    @app.orchestrator(name=name)
    def flow(ctx: OrchestrationContext, n: int) -> Any:
        yield ctx.call_activity(work, n)
        for days in waits:
            yield ctx.create_timer(timedelta(days=days))
        if n < 1:
            ctx.continue_as_new(n + 1)
        return n

    return app


@pytest.fixture
async def golden(tmp_path: Path) -> Path:
    """A history of two executions."""
    file = tmp_path / "flow.jsonl"
    async with VirtualHub(app_of(1)) as hub:
        instance = await hub.client.start("flow", 0)
        assert await instance.result() == 1
        await save_history(hub.client, instance, file)
        with pytest.raises(InstanceNotFoundError):
            await save_history(hub.client, "nobody", file)
    return file


def test_the_code_that_made_a_history_fits_it_in_every_execution(golden: Path) -> None:
    assert check_history(app_of(1), golden) == 2
    assert check_history(app_of(1), str(golden)) == 2
    assert check_history(app_of(1), golden.read_text("utf-8").splitlines()) == 2


def test_code_that_has_left_a_history_is_named_with_both_lines(golden: Path) -> None:
    with pytest.raises(NonDeterminismError, match=r"test_testing_golden\.py:\d+.*test_testing_golden\.py:\d+"):
        check_history(app_of(1, 2), golden)
    with pytest.raises(NonDeterminismError, match="timer"):
        check_history(app_of(), golden)


def test_an_app_without_the_orchestrator_says_so(golden: Path) -> None:
    with pytest.raises(UnknownNameError, match="the app has no orchestrator 'flow'"):
        check_history(app_of(1, name="other"), golden)


def test_a_file_that_has_nothing_to_check_is_no_golden_history(golden: Path) -> None:
    head = golden.read_text("utf-8").splitlines()[0]
    assert "format" in json.loads(head)
    with pytest.raises(InvalidArgumentError, match="has no execution to check"):
        check_history(app_of(1), [head])
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        check_history(app_of(1), golden.with_name("nothing.jsonl"))


def test_no_activity_runs_and_the_app_is_left_as_it_is(golden: Path) -> None:
    app = app_of(1)
    before = dict(app.activities), dict(app.orchestrators)
    check_history(app, golden)
    assert (dict(app.activities), dict(app.orchestrators)) == before


async def test_what_came_when_all_was_over_is_no_difference() -> None:
    """A message that was accepted before the end is durable, and read after it, stands behind it in the history, where no code looks."""
    store, app = ToldStore(), app_of()
    async with VirtualHub(app, store=store) as hub:
        instance = await hub.client.start("flow", 1)
        with store.holding():
            await until(lambda: store.attempts >= 2)  # the end is on its way
            await Client(store).get(instance.id).raise_event("late", 1)
        assert await instance.result() == 1
        await until_empty(store)
        history = [event async for event in instance.history()]
        assert isinstance(history[-1], EventRaised)
        assert isinstance(history[-3], ExecutionCompleted)
        assert check_history(app, [line async for line in hub.client.export([instance.id])]) == 1
