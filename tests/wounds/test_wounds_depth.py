"""Depth: how deep things are nested has a bound that says so, or none.

Recursion over what users nest has ended workers elsewhere: PrefectHQ/prefect#1827 (loops), #8825 (waits), dask/distributed#4684 (messages).
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    FailureDetails,
    Instance,
    MemoryStore,
    Orchestration,
    OrchestrationContext,
    OrchestrationFailed,
    SubOrchestrationError,
    Task,
    TaskHub,
    when_all,
    when_any,
)
from replayflow.client import InstanceTree
from replayflow.core import events, rows
from replayflow.core.commit import Start
from replayflow.core.events import ExecutionStarted, encode
from replayflow.errors import CAUSE_DEPTH_MAX, MESSAGE_CHARS_MAX, NESTED_CHARS_MAX
from replayflow.store import SqliteStore
from replayflow.store.base import Create
from tests.cli.terminal import accepted, invoke, refused
from tests.engine.kit import PATIENCE_SECONDS

GENERATIONS = 200
app = App()


@app.orchestrator
def falls(ctx: OrchestrationContext, left: int) -> Orchestration[None]:
    if not left:
        raise LookupError("at the very bottom")
    yield ctx.call_sub_orchestrator(falls, left - 1)


@app.orchestrator
def composes(ctx: OrchestrationContext, layers: int) -> Orchestration[str]:
    task: Task[Any] = ctx.wait_for_external_event("end", type=str)
    for layer in range(layers):
        task = when_any([task]) if layer % 2 else when_all([task])
    assert repr(task)
    yield task
    return repr(task)


@app.orchestrator
def nests(ctx: OrchestrationContext, layers: int) -> Any:
    value: list[Any] = []
    for _ in range(layers):
        value = [value]
    ctx.set_custom_status(value)
    return value


async def test_a_thousand_layers_of_composites_are_waited_for_and_shown() -> None:
    async with TaskHub(MemoryStore(), app) as hub:
        instance: Instance[Any] = await hub.client.start(composes, 1_000, instance_id="i")
        await instance.raise_event("end", "done")
        assert await instance.result(PATIENCE_SECONDS) == "<WhenAny complete>"


async def written(path: Path, generations: int) -> None:
    """A hub with a line of instances, each the parent of the next."""
    ids = [f"i{number:04}" for number in range(generations)]
    starts = [
        Start(id, "x", "down", None, encode([ExecutionStarted("down", None, id, "x")]), at, 0, parent_id=parent)
        for at, (parent, id) in enumerate(zip([None, *ids], ids, strict=False))
    ]
    store = SqliteStore(path)
    await store.open()
    try:
        assert all(outcome.error is None for outcome in await store.write([Create(start) for start in starts]))
    finally:
        await store.close()


def test_a_line_of_a_thousand_generations_is_shown_whole(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"

    async def tree() -> InstanceTree:
        await written(path, 1_000)
        async with Client(path) as client:
            return (await client.get("i0000").tree(depth=1_000)).tree

    found = asyncio.run(tree())
    assert repr(found) == "<InstanceTree 'i0000' PENDING, 1 children shown>"
    ids = [found.state.id]
    while found.children:
        [found] = found.children
        ids.append(found.state.id)
    assert ids == [f"i{number:04}" for number in range(1_000)]
    store = ("--store", str(path))
    assert accepted("tree", "i0000", "--depth", "200", "--json", *store)["tree"]["id"] == "i0000"
    assert "i0020" in invoke("tree", "i0000", "--depth", "200", *store).stdout
    assert accepted("tree", "i0500", "--json", *store)["ancestors"][-1]["id"] == "i0499"
    assert "201 is not in the range 0<=x<=200" in refused(2, "tree", "i0000", "--depth", "201", *store)


async def test_a_failure_far_below_reaches_the_top_in_a_bounded_text_that_names_it() -> None:
    """Each generation used to tell all that those below it had told: their cost was the cube of their number."""
    async with TaskHub(MemoryStore(), app) as hub:
        instance: Instance[Any] = await hub.client.start(falls, GENERATIONS, instance_id="first")
        with pytest.raises(OrchestrationFailed) as failed:
            await instance.result(PATIENCE_SECONDS)
        details = failed.value.details
        assert failed.value.is_caused_by(LookupError)
        assert str(details).endswith("LookupError: at the very bottom")
        assert len(str(details)) <= NESTED_CHARS_MAX + 10
        assert len([*details.chain()]) == CAUSE_DEPTH_MAX


def test_a_chain_keeps_its_newest_and_its_oldest() -> None:
    details = FailureDetails.of(LookupError("root"))
    for level in range(1_000):
        error = SubOrchestrationError(f"level {level} failed: {details}", details)
        details = FailureDetails.of(error)
    chain = [*details.chain()]
    assert len(chain) == CAUSE_DEPTH_MAX
    assert chain[-1].message == "root"
    assert [each.message.partition(" failed")[0] for each in chain[:3]] == ["level 999", "level 998", "level 997"]
    assert [each.message.partition(" failed")[0] for each in chain[-3:-1]] == ["level 1", "level 0"]
    assert all(len(each.message) < 2 * NESTED_CHARS_MAX for each in chain)
    assert rows.decode_failure(rows.encode_failure(details)) == details
    assert str(details).count("root") == 1


def test_the_text_of_one_error_is_not_cut_for_others_sake() -> None:
    text = "x" * (MESSAGE_CHARS_MAX - 100)
    details = FailureDetails.of(ValueError(text))
    assert str(details) == f"ValueError: {text}"
    assert events.decode(events.encode([events.TaskFailed(1, details)]))


@pytest.mark.parametrize("layers", [100, 480, 900, 1_000])
def test_what_is_nested_deep_is_shown_by_every_command(tmp_path: Path, layers: int) -> None:
    path = tmp_path / "hub.db"

    async def run() -> None:
        async with TaskHub(path, app) as hub:
            assert (await (await hub.client.start(nests, layers, instance_id="i")).wait(PATIENCE_SECONDS)).output

    asyncio.run(run())
    store = ("--store", str(path))
    for command in (("show", "i"), ("history", "i"), ("result", "i"), ("list",), ("tree", "i"), ("doctor",)):
        for options in ((), ("--json",)):
            result = invoke(*command, *options, *store)
            assert result.exit_code == 0, (command, options, result.output[-300:])
    assert json.loads(invoke("export", *store).stdout.splitlines()[-1]) == {"end": "i"}
