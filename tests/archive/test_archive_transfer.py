"""Out of one hub and into another: all that an instance is goes along, and it goes on from there."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    EntityContext,
    Limits,
    OrchestrationContext,
    TaskCompleted,
    TaskHub,
    Transaction,
    when_all,
)
from replayflow.core.events import encode
from replayflow.errors import HubOwnedError, InstanceNotFoundError, InvalidArgumentError
from replayflow.store import MemoryStore, SqliteStore, Store
from replayflow.store.base import Owner, Transact
from tests.semantics.kit import LIMIT, until

app = App()


@app.activity
async def double(x: int) -> int:
    return 2 * x


@app.activity
async def broken(_: int) -> int:
    raise ValueError("no")


@app.orchestrator
def rounds(ctx: OrchestrationContext, n: int) -> Any:
    """Three executions, then a wait."""
    doubled = yield when_all([ctx.call_activity(double, i) for i in range(3)])
    ctx.set_custom_status({"round": n})
    if n < 2:
        ctx.continue_as_new(n + 1)
        return None
    got = yield ctx.wait_for_external_event("go")
    return [doubled, got]


@app.orchestrator
def child(ctx: OrchestrationContext, n: int) -> Any:
    mapped = yield ctx.map(double, range(n))
    return sum(mapped.results)


@app.orchestrator
def parent(ctx: OrchestrationContext) -> Any:
    total = yield ctx.call_sub_orchestrator(child, 5)
    ctx.signal_entity("@counter@all", "add", total)
    return total


@app.orchestrator
def failing(ctx: OrchestrationContext) -> Any:
    yield ctx.call_activity(broken, 1)


@app.orchestrator
def later(ctx: OrchestrationContext) -> Any:
    yield ctx.create_timer(timedelta(days=300))


@app.entity
def counter(ctx: EntityContext[int | None], n: int) -> None:
    ctx.state = (ctx.state or 0) + n


@pytest.fixture(params=["memory", "sqlite"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Store]:
    if request.param == "memory":
        return MemoryStore(), MemoryStore()
    return SqliteStore(tmp_path / "from.db"), SqliteStore(tmp_path / "to.db")


async def states(client: Client) -> list[Any]:
    return [state async for state in client.list(include_entities=True)]


async def lines(client: Client, *arguments: Any, **options: Any) -> list[str]:
    return [line async for line in client.export(*arguments, **options)]


async def until_shown(client: Client, id: str, **shown: Any) -> None:
    async def is_shown() -> bool:
        state = await client.get(id).status()
        return all(getattr(state, name) == value for name, value in shown.items())

    await until(is_shown)


async def filled(store: Store) -> None:
    """The hub has an instance of every kind."""
    async with TaskHub(store, app) as hub:
        client = hub.client
        await client.start(rounds, 0, instance_id="waits", tags={"kind": "open", "ü": "ß"})
        done = await client.start(rounds, 0, instance_id="done")
        await done.raise_event("go", {"by": "me"})
        above = await client.start(parent, instance_id="parent")
        wrong = await client.start(failing, instance_id="failed")
        await client.start(later, instance_id="later")
        await client.start(later, instance_id="not yet", start_at=timedelta(days=100))
        killed = await client.start(later, instance_id="killed")
        again = await client.start(child, 3, instance_id="again")
        await client.signal_entity("@counter@all", "add", 3)
        for instance in (done, above, wrong, again):
            await instance.wait(LIMIT)
        await killed.terminate("enough")
        await killed.wait(LIMIT)
        await client.start(child, 4, instance_id="again", on_existing="replace_finished")
        await client.get("again").wait(LIMIT)
        await until_shown(client, "waits", custom_status={"round": 2})
        suspended = await client.start(later, instance_id="suspended")
        await suspended.suspend("a while")
        await until_shown(client, "suspended", status="SUSPENDED")
        await until_shown(client, "@counter@all", status="RUNNING")
    async with Client(store) as client:
        await client.start("unknown", instance_id="unknown")
    async with TaskHub(store, app) as hub:

        async def is_parked() -> bool:
            return (await hub.client.get("unknown").status()).problem is not None

        await until(is_parked)
    async with Client(store) as client:
        await client.get("suspended").raise_event("while away", 1)


async def test_what_is_exported_and_imported_is_the_same_in_every_way(stores: tuple[Store, Store]) -> None:
    here, there = stores
    await filled(here)
    async with Client(here, app) as client:
        exported = await lines(client)
        shown = await states(client)
    async with Client(there, app) as client:
        imported = await client.import_history(exported)
        assert (imported.instances, imported.unfinished) == (12, 6)
        assert await states(client) == shown
        assert (await lines(client))[1:] == exported[1:]
        assert [i.id for i in shown] == [
            json.loads(line)["instance"] for line in exported if "instance" in json.loads(line)
        ]


async def test_an_imported_hub_goes_on(stores: tuple[Store, Store]) -> None:
    here, there = stores
    await filled(here)
    async with Client(here) as client:
        exported = await lines(client)
    async with Client(there) as client:
        await client.import_history(exported)
    async with TaskHub(there, app) as hub:
        await hub.client.get("waits").raise_event("go", [1])
        assert await hub.client.get("waits").result(LIMIT) == [[0, 2, 4], [1]]
        assert await hub.client.get("done").result(LIMIT) == [[0, 2, 4], {"by": "me"}]
        assert await hub.client.read_entity("@counter@all") == 23
        suspended = hub.client.get("suspended")
        await suspended.resume()
        await suspended.cancel()
        assert (await suspended.wait(LIMIT)).status == "CANCELED"
        early = hub.client.get("not yet")
        assert (await early.status()).status == "PENDING"


async def test_one_execution_alone_becomes_the_present_one(stores: tuple[Store, Store]) -> None:
    here, there = stores
    await filled(here)
    async with Client(here) as client:
        executions = [
            json.loads(line)["execution"] for line in await lines(client, ["done"]) if "execution" in json.loads(line)
        ]
        assert len(executions) == 3
        alone = await lines(client, ["done"], execution_id=executions[0])
        with pytest.raises(InstanceNotFoundError, match="has no execution 'x'; it has"):
            await lines(client, ["done"], execution_id="x")
    async with Client(there) as client:
        await client.import_history(alone)
        (state,) = await states(client)
        assert (state.execution_id, state.status, state.input) == (executions[0], "CONTINUED_AS_NEW", 0)


async def test_a_filter_says_what_is_exported(stores: tuple[Store, Store]) -> None:
    await filled(stores[0])
    async with Client(stores[0]) as client:
        some = await lines(client, client.list(status="COMPLETED", name="rounds"))
        assert [json.loads(line)["instance"] for line in some if "instance" in json.loads(line)] == ["done"]
        assert len(await lines(client, client.list(name="nobody"))) == 1
        with pytest.raises(InstanceNotFoundError, match="no instance 'nobody'"):
            await lines(client, ["nobody"])


async def test_a_hub_that_is_not_empty_takes_nothing_in(stores: tuple[Store, Store]) -> None:
    here, there = stores
    await filled(here)
    async with Client(here) as client:
        exported = await lines(client)
    async with Client(there) as client:
        await client.start("something", instance_id="was here")
        with pytest.raises(InvalidArgumentError, match="is not empty"):
            await client.import_history(exported)
        assert [state.id for state in await states(client)] == ["was here"]
    async with TaskHub(there, app) as hub:
        with pytest.raises(HubOwnedError):
            await hub.client.import_history(exported)


async def test_a_file_that_is_wrong_anywhere_leaves_the_hub_empty(stores: tuple[Store, Store], tmp_path: Path) -> None:
    here, there = stores
    await filled(here)
    async with Client(here) as client:
        exported = await lines(client)
    async with Client(there) as client:
        for wrong in (exported[:-1], exported[1:], [*exported, "{"], [], [*exported, *exported[1:]]):
            with pytest.raises(InvalidArgumentError):
                await client.import_history(wrong)
        file = tmp_path / "cut.jsonl"
        file.write_text("".join(exported)[:-30], "utf-8")
        with pytest.raises(InvalidArgumentError, match=r"cut\.jsonl"):
            await client.import_history(file)
        file.write_bytes(b"\xff")
        with pytest.raises(InvalidArgumentError, match="not UTF-8"):
            await client.import_history(file)
        with pytest.raises(InvalidArgumentError, match="cannot be read"):
            await client.import_history(tmp_path / "nothing")
        assert await states(client) == []
        file.write_text("".join(exported), "utf-8")
        assert (await client.import_history(file)).instances == 12


async def test_what_an_instance_that_has_not_begun_still_owes_goes_along(stores: tuple[Store, Store]) -> None:
    ran: list[int] = []
    gate = asyncio.Event()
    app = App()

    @app.activity
    async def slow(n: int) -> None:
        await gate.wait()
        ran.append(n)

    @app.orchestrator(version="1")
    def hands_over(ctx: OrchestrationContext) -> None:
        ctx.set_custom_status("handed over")
        ctx.call_activity(slow, 1)
        ctx.continue_as_new(version="2")  # nobody here has its code

    there, here = stores
    async with TaskHub(there, app, limits=Limits(grace=timedelta(0))) as hub:
        await hub.client.start(hands_over, instance_id="i")

        async def is_parked() -> bool:
            return (await hub.client.get("i").status()).problem is not None

        await until(is_parked)
        before = await hub.client.get("i").status()
        exported = await lines(hub.client)
    async with Client(here) as client:
        await client.import_history(exported)
        assert await client.get("i").status() == before
        assert (await lines(client))[1:] == exported[1:]

    @app.orchestrator(name="hands_over", version="2")
    def takes_over(ctx: OrchestrationContext) -> None:
        pass

    gate.set()
    async with TaskHub(here, app):

        async def has_run() -> bool:
            return ran == [1]

        await until(has_run)


async def test_a_message_that_a_finished_instance_has_not_taken_in_goes_along(stores: tuple[Store, Store]) -> None:
    """Such as the result of a transactional activity, whose worker died before it was written down."""
    there, here = stores
    app = App()

    @app.activity(transactional=True)
    def breaks(tx: Transaction) -> None:
        raise ValueError("no")

    @app.activity
    async def never(_: int) -> None:
        await asyncio.Event().wait()

    @app.orchestrator
    def fails(ctx: OrchestrationContext) -> Any:
        ctx.call_activity(never, 1)
        yield ctx.call_activity(breaks)

    async with TaskHub(there, app, limits=Limits(grace=timedelta(0))) as hub:
        await (await hub.client.start(fails, instance_id="i")).wait(LIMIT)
    async with Client(there) as client:
        epoch = await there.acquire(Owner(1, "here", 0))
        execution = (await client.get("i").status()).execution_id
        result = encode([TaskCompleted(1, None)])
        assert await there.transact(Transact("i", execution, 1, lambda _: result, 1.0), epoch) is not None
        await there.release()
        exported = await lines(client)
    async with Client(here) as client:
        await client.import_history(exported)
        assert (await lines(client))[1:] == exported[1:]
    async with TaskHub(there, app, limits=Limits(grace=timedelta(0))) as hub:  # the mark is there: nothing runs
        instance = hub.client.get("i")

        async def is_written_down() -> bool:
            events = [type(event) async for event in instance.history()]
            return events[-1] is TaskCompleted

        await until(is_written_down)
