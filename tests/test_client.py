"""The client: what it starts, refuses, finds and tells; inside a hub and alone on the file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFoundError,
    Orchestration,
    OrchestrationCanceled,
    OrchestrationContext,
    OrchestrationFailed,
    OrchestrationTerminated,
    Status,
    TaskHub,
)
from replayflow.core import events
from replayflow.errors import (
    EncodeError,
    InvalidArgumentError,
    InvalidStateError,
    StoreUnavailableError,
    UnknownNameError,
)
from tests.engine.kit import until_running, until_state, until_suspended

app = App()


@dataclass
class Order:
    id: str
    amount: int


@app.orchestrator
def checkout(ctx: OrchestrationContext, order: Order) -> Orchestration[Order]:
    ctx.set_custom_status({"stage": "waiting"})
    added = yield from ctx.wait_for_external_event("add", type=int)
    return Order(order.id, order.amount + added)


@app.orchestrator(version="2")
def instant(ctx: OrchestrationContext, x: int) -> int:
    return x


@app.orchestrator
def fails(ctx: OrchestrationContext) -> None:
    raise ValueError("as it should")


@app.orchestrator
def again(ctx: OrchestrationContext, left: int) -> str:
    if left:
        ctx.continue_as_new(left - 1)
    return "end"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


@pytest.fixture
async def hub(path: Path) -> AsyncIterator[TaskHub]:
    async with TaskHub(path, app) as hub:
        yield hub


@pytest.fixture(params=["hub", "alone", "alone without an app"])
async def client(request: pytest.FixtureRequest, hub: TaskHub, path: Path) -> AsyncIterator[Client]:
    if request.param == "hub":
        yield hub.client
    else:
        async with Client(path, app if request.param == "alone" else None) as alone:
            yield alone


async def test_values_come_back_as_the_types_that_the_app_knows(hub: TaskHub, path: Path) -> None:
    one = await hub.client.start(checkout, Order("o", 5), instance_id="o")
    await one.raise_event("ADD", 3)
    assert await one.result(5) == Order("o", 8)
    state = await one.status()
    assert (state.input, state.output, state.custom_status) == (Order("o", 5), Order("o", 8), {"stage": "waiting"})
    async with Client(path, app) as knows, Client(path) as knows_not:
        assert await knows.get("o").result(5) == Order("o", 8)
        assert await knows_not.get("o").result(5) == {"id": "o", "amount": 8}


async def test_a_state_tells_all_about_an_instance(client: Client) -> None:
    began = datetime.now(UTC) - timedelta(seconds=1)
    one = await client.start("instant", 7, tags={"team": "a"}, version=None)
    state = await one.wait(5)
    assert (state.id, state.name, state.status, state.tags) == (one.id, "instant", Status.COMPLETED, {"team": "a"})
    assert (state.input, state.output, state.failure, state.problem, state.parent_instance_id) == (
        7,
        7,
        None,
        None,
        None,
    )
    assert state.completed_at is not None
    assert began < state.created_at <= state.updated_at <= datetime.now(UTC)
    assert state.created_at <= state.completed_at
    assert state.version in ("2", None)


async def test_each_way_to_end_has_its_error(client: Client) -> None:
    failed = await client.start("fails")
    with pytest.raises(OrchestrationFailed, match="ValueError: as it should") as caught:
        await failed.result(5)
    assert caught.value.details.is_caused_by(ValueError)
    assert (await failed.status()).failure == caught.value.details
    terminated = await client.start("checkout", {"id": "o", "amount": 1})
    await terminated.terminate("too late")
    with pytest.raises(OrchestrationTerminated, match="too late"):
        await terminated.result(5)
    cancelled = await client.start("checkout", {"id": "o", "amount": 1})
    await cancelled.cancel("not wanted")
    with pytest.raises(OrchestrationCanceled, match="not wanted"):
        await cancelled.result(5)
    open_one = await client.start("checkout", {"id": "o", "amount": 1})
    await until_running(open_one)
    with pytest.raises(TimeoutError, match=r"has not finished within 0.05 s: it is RUNNING"):
        await open_one.result(timedelta(milliseconds=50))
    with pytest.raises(TimeoutError):
        await open_one.wait(0.01)


async def test_an_unknown_id_is_found_out_when_the_handle_is_used(client: Client) -> None:
    nobody = client.get("nobody")
    for attempt in (
        nobody.status(),
        nobody.result(1),
        nobody.wait(1),
        nobody.raise_event("x"),
        nobody.suspend(),
        nobody.resume(),
        nobody.terminate(),
        nobody.cancel(),
        anext(aiter(nobody.history())),
    ):
        with pytest.raises(InstanceNotFoundError, match="'nobody'"):
            await attempt


async def test_a_finished_instance_refuses_every_verb_with_its_state(client: Client) -> None:
    one = await client.start("instant", 1)
    await one.wait(5)
    for verb in (one.suspend(), one.resume(), one.terminate(), one.cancel()):
        with pytest.raises(InvalidStateError, match="COMPLETED"):
            await verb
    with pytest.raises(InstanceFinishedError, match="COMPLETED"):
        await one.raise_event("x")


async def test_a_verb_that_loses_the_race_with_the_end_says_so_as_ever(path: Path) -> None:
    async with TaskHub(path, app) as hub, Client(path, app) as late:
        for verb in ("suspend", "resume", "terminate", "cancel"):
            one = await hub.client.start(checkout, Order("o", 1))
            handle = late.get(one.id)
            record = await late._access.record(one.id)
            if verb == "resume":
                record.status = Status.SUSPENDED
            await one.raise_event("add", 1)
            await one.result(5)

            async def as_it_was(_: str, record: Any = record) -> Any:
                return record

            handle._open = as_it_was  # type: ignore[method-assign,assignment]
            with pytest.raises(InvalidStateError, match=f"COMPLETED.*nothing to {verb}"):
                await getattr(handle, verb)()


async def test_suspending_twice_and_resuming_what_runs_are_refused(client: Client) -> None:
    one = await client.start("checkout", {"id": "o", "amount": 1})
    await until_running(one)
    with pytest.raises(InvalidStateError, match="only a suspended instance"):
        await one.resume()
    await one.suspend("a pause")
    await until_suspended(one)
    with pytest.raises(InvalidStateError, match="suspended already"):
        await one.suspend()
    await one.resume()
    await one.raise_event("add", 1)
    await one.wait(5)


async def test_a_suspension_can_be_taken_back_before_anybody_has_seen_it(path: Path) -> None:
    async with Client(path, app) as client:
        one = await client.start(checkout, Order("o", 1))
        await one.suspend()
        await one.resume()
        await one.raise_event("add", 1)
        async with TaskHub(path, app):
            assert await one.result(5) == Order("o", 2)


async def test_the_dedupe_key_makes_a_second_try_harmless_also_after_the_end(client: Client) -> None:
    one = await client.start("checkout", {"id": "o", "amount": 1}, instance_id="o")
    for _ in range(3):
        await one.raise_event("add", 4, dedupe_key="once")
    await one.wait(5)
    await one.raise_event("add", 4, dedupe_key="once")
    history = [event async for event in one.history()]
    assert sum(isinstance(event, events.EventRaised) for event in history) == 1
    with pytest.raises(InstanceFinishedError):
        await one.raise_event("add", 4, dedupe_key="another")


async def test_bad_input_is_refused_before_anything_is_written(client: Client) -> None:
    one = await client.start("checkout", {"id": "o", "amount": 1}, instance_id="o")
    await asyncio.sleep(0)
    refused: list[tuple[type[Exception], Any]] = [
        (InvalidArgumentError, client.start("instant", 1, instance_id="")),
        (InvalidArgumentError, client.start("instant", 1, instance_id="a/b")),
        (InvalidArgumentError, client.start("instant", 1, instance_id="@entity")),
        (InvalidArgumentError, client.start("instant", 1, instance_id="x" * 257)),
        (InvalidArgumentError, client.start("instant", 1, instance_id="bell\x07")),
        (InvalidArgumentError, client.start("instant", 1, instance_id="half \ud800")),
        (InvalidArgumentError, client.start("instant", 1, instance_id=7)),  # type: ignore[call-overload]
        (InvalidArgumentError, client.start("instant", 1, tags={"a": 1})),  # type: ignore[dict-item]
        (InvalidArgumentError, client.start("instant", 1, tags={"half": "\ud800"})),
        (InvalidArgumentError, client.start("instant", 1, version="\ud800")),
        (InvalidArgumentError, client.start("instant", 1, start_at=datetime(2030, 1, 1))),  # noqa: DTZ001
        (InvalidArgumentError, client.start("instant", 1, start_at=timedelta.max)),
        (InvalidArgumentError, client.start("instant", 1, start_at=timedelta.min)),
        (InvalidArgumentError, client.start("instant", 1, start_at="tomorrow")),  # type: ignore[call-overload]
        (InvalidArgumentError, client.start("instant", 1, on_existing="whatever")),  # type: ignore[call-overload]
        (EncodeError, client.start("instant", object())),
        (EncodeError, one.raise_event("add", object())),
        (InvalidArgumentError, one.raise_event("", 1)),
        (InvalidArgumentError, one.raise_event("x" * 257, 1)),
        (InvalidArgumentError, one.raise_event("add", 1, dedupe_key="")),
        (InvalidArgumentError, one.raise_event("add", 1, dedupe_key="\ud800")),
        (InvalidArgumentError, client.list_page(limit=0)),
        (InvalidArgumentError, client.list_page(cursor="not one")),
        (InvalidArgumentError, client.list_page(status="ASLEEP")),
        (InvalidArgumentError, client.list_page(created_from=datetime(2030, 1, 1))),  # noqa: DTZ001
    ]
    for error, attempt in refused:
        with pytest.raises(error):
            await attempt
    assert [state.id async for state in client.list()] == ["o"]
    await one.raise_event("add", 1)
    assert (await one.wait(5)).status == "COMPLETED"


async def test_names_are_refused_where_the_app_is_known_and_taken_where_it_is_not(hub: TaskHub, path: Path) -> None:
    async with Client(path, app) as knows, Client(path) as knows_not:
        for client in (hub.client, knows):
            with pytest.raises(UnknownNameError, match="nothing_like_it"):
                await client.start("nothing_like_it", 1)
            with pytest.raises(UnknownNameError):
                await client.start(len)
        one = await knows_not.start("nothing_like_it", 1)
        await until_state(one, lambda state: state.problem is not None)
        await one.terminate()
        assert (await one.wait(5)).status == "TERMINATED"
        with pytest.raises(InvalidArgumentError):
            await knows_not.start("")
        with pytest.raises(InvalidArgumentError):
            await knows_not.start(5)  # type: ignore[call-overload]


async def test_on_existing_decides_what_becomes_of_a_taken_id(client: Client) -> None:
    first = await client.start("checkout", {"id": "o", "amount": 1}, instance_id="x")
    execution = (await first.status()).execution_id
    with pytest.raises(InstanceExistsError, match="'x' exists already"):
        await client.start("instant", 1, instance_id="x")
    assert (
        await (await client.start("instant", 1, instance_id="x", on_existing="return")).status()
    ).execution_id == execution
    with pytest.raises(InstanceExistsError):
        await client.start("instant", 1, instance_id="x", on_existing="replace_finished")
    replaced = await client.start("instant", 2, instance_id="x", on_existing="terminate_and_replace")
    await until_state(replaced, lambda state: state.execution_id != execution)
    assert await replaced.result(5) == 2
    assert await (await client.start("instant", 3, instance_id="x", on_existing="replace_finished")).result(5) == 3
    assert await (await client.start("instant", 4, instance_id="x", on_existing="return")).result(5) == 3
    past = [event async for event in first.history(execution)]
    assert isinstance(past[-1], events.ExecutionCompleted)
    assert past[-1].orchestration_status == "TERMINATED"


async def test_a_history_begins_with_its_start_and_past_executions_can_be_read(client: Client) -> None:
    one = await client.start("again", 2, instance_id="one")
    assert await one.result(5) == "end"
    history = [event async for event in one.history()]
    assert [type(event).__name__ for event in history] == [
        "OrchestratorStarted",
        "ExecutionStarted",
        "ExecutionCompleted",
    ]
    assert all(event.timestamp is not None for event in history)
    with pytest.raises(InstanceNotFoundError, match="no execution 'never'"):
        _ = [event async for event in one.history("never")]


async def test_a_history_can_be_read_before_its_first_episode(path: Path) -> None:
    async with Client(path, app) as client:
        one = await client.start(instant, 1)
        assert [type(event).__name__ async for event in one.history()] == ["ExecutionStarted"]


async def test_listing_finds_what_fits_page_by_page(client: Client) -> None:
    for i in range(25):
        await client.start("instant", i, instance_id=f"i-{i:02}", tags={"parity": str(i % 2), "all": "yes"})
    waiting = await client.start("checkout", {"id": "o", "amount": 1}, instance_id="w")
    for i in range(25):
        await client.get(f"i-{i:02}").wait(5)
    await until_running(waiting)

    async def ids(**wanted: Any) -> list[str]:
        return [state.id async for state in client.list(**wanted)]

    assert await ids() == [*(f"i-{i:02}" for i in range(25)), "w"]
    assert await ids(status="running") == ["w"]
    assert await ids(status=[Status.RUNNING, "COMPLETED"], name="checkout") == ["w"]
    assert await ids(id_prefix="i-1") == [f"i-1{i}" for i in range(10)]
    assert await ids(id_prefix="i_1") == []
    assert await ids(tags={"parity": "1"}) == [f"i-{i:02}" for i in range(1, 25, 2)]
    assert await ids(tags={"parity": "1", "all": "no"}) == []
    assert await ids(created_from=datetime.now(UTC) + timedelta(hours=1)) == []
    assert len(await ids(created_to=datetime.now(UTC) + timedelta(hours=1))) == 26
    assert await ids(parked=True) == []
    seen: list[str] = []
    cursor: str | None = None
    pages = 0
    while True:
        page = await client.list_page(limit=10, cursor=cursor)
        seen += [state.id for state in page.states]
        pages, cursor = pages + 1, page.cursor
        if cursor is None:
            break
    assert (pages, len(set(seen))) == (3, 26)


async def test_a_client_of_a_closed_store_says_so(path: Path) -> None:
    async with Client(path) as client:
        await client.start("instant", 1, instance_id="x")
    for attempt in (client.start("instant", 1), client.get("x").status(), client.get("x").result(1)):
        with pytest.raises(StoreUnavailableError, match="not open"):
            await attempt


async def test_many_wait_for_one_end(client: Client) -> None:
    one = await client.start("checkout", {"id": "o", "amount": 1})
    waiting = [asyncio.create_task(one.wait(10)) for _ in range(200)]
    await asyncio.sleep(0.02)
    for task in waiting[::2]:
        task.cancel()
    await one.raise_event("add", 1)
    assert {(await task).status for task in waiting[1::2]} == {Status.COMPLETED}
