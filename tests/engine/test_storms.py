"""Requests that race with each other and with what they ask about: whatever comes first, each is answered, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    Codec,
    InstanceExistsError,
    InstanceFinishedError,
    Limits,
    MemoryStore,
    Orchestration,
    OrchestrationCancelled,
    OrchestrationContext,
    OrchestrationTerminated,
    SqliteStore,
    SubOrchestrationError,
    when_all,
)
from replayflow.core import events
from replayflow.errors import InvalidStateError, PayloadTooLargeError
from replayflow.store.base import OnExisting
from tests.engine.kit import (
    Counted,
    ToldStore,
    audit,
    history_of,
    hub_on,
    turns,
    until,
    until_empty,
    until_state,
    until_there,
)

app = App()


@app.activity
async def double(x: int) -> int:
    await asyncio.sleep(0.001 * (x % 4))
    return 2 * x


@app.orchestrator
def waits(ctx: OrchestrationContext) -> Orchestration[Any]:
    return (yield from ctx.wait_for_external_event("go"))


@app.orchestrator
def fan(ctx: OrchestrationContext, width: int) -> Orchestration[int]:
    yield from ctx.create_timer(timedelta(milliseconds=2))
    return sum((yield from when_all([ctx.call_activity(double, i) for i in range(width)])))


@app.orchestrator
def counts(ctx: OrchestrationContext, so_far: list[int]) -> Orchestration[list[int]]:
    """Takes one item, then begins a new execution; a negative item ends it."""
    item = yield from ctx.wait_for_external_event("item", type=int)
    if item < 0:
        return so_far
    ctx.continue_as_new([*so_far, item])
    return []


@app.orchestrator
def parent(ctx: OrchestrationContext, child: str) -> Orchestration[str]:
    try:
        return str((yield from ctx.call_sub_orchestrator("waits", instance_id=child)))
    except SubOrchestrationError as error:
        return f"child: {error.details.type}"


@app.orchestrator
def careless_parent(ctx: OrchestrationContext, child: str) -> str:
    ctx.call_sub_orchestrator("waits", instance_id=child)
    return "gone"


@app.orchestrator
def compensates(ctx: OrchestrationContext) -> Orchestration[str]:
    undone = 0
    while True:
        try:
            yield from ctx.wait_for_external_event("never")
        except OrchestrationCancelled:
            undone += yield from ctx.call_activity(double, 1)
            if undone >= 4:
                raise


def store_of(kind: str, folder: Path) -> Any:
    return MemoryStore() if kind == "memory" else SqliteStore(folder / "hub.db")


@pytest.mark.parametrize("choice", ["error", "return", "replace_finished", "terminate_and_replace"])
@pytest.mark.parametrize("warm", [1, 1_000])
async def test_clients_that_race_for_one_id_get_one_instance(choice: OnExisting, warm: int, tmp_path: Path) -> None:
    chance = Random(f"{choice} {warm}")
    async with (
        hub_on(tmp_path / "hub.db", app, Limits(warm_instances=warm)) as hub,
        Client(tmp_path / "hub.db", app) as foreign,
    ):
        for round in range(6):
            id = f"i{round % 3}"

            async def attempt(client: Client, id: str = id) -> Any:
                await asyncio.sleep(chance.random() / 200)
                return await client.start("waits", instance_id=id, on_existing=choice)

            clients = [hub.client, foreign] * 5
            outcomes = await asyncio.gather(*map(attempt, clients), return_exceptions=True)
            refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            assert all(isinstance(outcome, InstanceExistsError) for outcome in refused)
            match choice:
                case "error":
                    assert len(refused) == (9 if round < 3 else 10)
                case "replace_finished":
                    assert len(refused) == 9
                case _:
                    assert not refused
            one = hub.client.get(id)
            await until_empty(hub._store)
            try:
                await one.raise_event("go", round)
            except InstanceFinishedError:
                assert choice in ("error", "return")
            else:
                assert await one.result(5) == round
        await audit(hub.client)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_terminate_racing_with_the_end_is_one_or_the_other(kind: str, tmp_path: Path) -> None:
    chance = Random(7)
    seen: Counted[str] = Counted()
    async with hub_on(store_of(kind, tmp_path), app) as hub:

        async def one_race(i: int) -> None:
            one = await hub.client.start("waits", instance_id=f"r{i}")

            async def end() -> None:
                await asyncio.sleep(chance.random() / 500)
                try:
                    await one.raise_event("go", i)
                except InstanceFinishedError:
                    seen("event refused")

            async def terminate() -> None:
                await asyncio.sleep(chance.random() / 500)
                try:
                    await one.terminate("raced")
                except (InvalidStateError, InstanceFinishedError):
                    seen("terminate refused")

            await asyncio.gather(end(), terminate())
            state = await one.wait(5)
            seen(state.status)
            ends = [e for e in await history_of(hub.client, one.id) if isinstance(e, events.ExecutionCompleted)]
            assert len(ends) == 1

        await asyncio.gather(*(one_race(i) for i in range(200)))
        assert seen.calls["COMPLETED"] + seen.calls["TERMINATED"] == 200
        await until_empty(hub._store)
        await audit(hub.client)


@pytest.mark.parametrize("warm", [1, 3, 1_000])
@pytest.mark.parametrize("foreign", [False, True])
async def test_a_storm_of_suspensions_loses_nothing(warm: int, foreign: bool, tmp_path: Path) -> None:
    chance = Random(warm)
    path = tmp_path / "hub.db"
    async with hub_on(path, app, Limits(warm_instances=warm)) as hub, Client(path, app) as client:
        asking = client if foreign else hub.client

        async def storm(id: str) -> None:
            one = asking.get(id)
            for _ in range(8):
                verb = chance.choice([one.suspend, one.resume])
                try:
                    await verb()
                except InvalidStateError:
                    pass
                await asyncio.sleep(chance.random() / 300)
            for _ in range(200):
                try:
                    await one.resume()
                except InvalidStateError:
                    if (await one.status()).status != "SUSPENDED":
                        return
                await asyncio.sleep(0.005)

        started = [await asking.start("fan", 12, instance_id=f"s{i}") for i in range(10)]
        await asyncio.gather(*(storm(one.id) for one in started))
        assert [await one.result(20) for one in started] == [132] * 10
        await until_empty(hub._store)
        await audit(hub.client)


@pytest.mark.parametrize("warm", [1, 1_000])
@pytest.mark.parametrize("restarts", [0, 4])
async def test_events_to_one_that_continues_as_new_arrive_once_and_in_order(
    warm: int, restarts: int, tmp_path: Path
) -> None:
    path, count = tmp_path / "hub.db", 120
    chance = Random(warm + restarts)

    async def post(client: Client) -> None:
        one = client.get("one")
        for item in range(count):
            await one.raise_event("item", item)
            if item % 7 == 0:
                await asyncio.sleep(chance.random() / 200)
        await one.raise_event("item", -1)

    async with Client(path, app) as client:
        await client.start("counts", [], instance_id="one")
        posting = asyncio.create_task(post(client))
        for _ in range(restarts):
            async with hub_on(path, app, Limits(warm_instances=warm, grace=timedelta(0))) as hub:
                await asyncio.sleep(0.02)
        async with hub_on(path, app, Limits(warm_instances=warm)) as hub:
            await hub.client.start("waits", instance_id="other")
            await posting
            assert await hub.client.get("one").result(20) == list(range(count))
            await until_empty(hub._store)


async def test_events_within_the_commit_of_a_continue_as_new_reach_the_next_execution() -> None:
    store = ToldStore()
    async with hub_on(store, app) as hub:
        one = await hub.client.start("counts", [], instance_id="one")
        with store.holding():
            attempts = store.attempts
            first = asyncio.create_task(one.raise_event("item", 1))
            await until(lambda: store.attempts > attempts)
            rest = [asyncio.create_task(one.raise_event("item", item)) for item in (2, 3, -1)]
            await turns()
        await asyncio.gather(first, *rest)
        assert await one.result(5) == [1, 2, 3]
        await audit(hub.client)


async def test_a_parent_that_ends_before_its_child_leaves_it_alone() -> None:
    store = MemoryStore()
    async with hub_on(store, app) as hub:
        assert await (await hub.client.start("careless_parent", "kid", instance_id="p")).result(5) == "gone"
        kid = hub.client.get("kid")
        await kid.raise_event("go", "grown")
        assert await kid.result(5) == "grown"
        await until_empty(store)
    async with hub_on(store, app):
        await turns(50)
        assert await store.arrived(0, 10) == []


@pytest.mark.parametrize("warm", [1, 100])
async def test_a_child_that_is_ended_from_outside_is_reported_to_its_parent(warm: int) -> None:
    async with hub_on(MemoryStore(), app, Limits(warm_instances=warm)) as hub:
        asking = [await hub.client.start("parent", f"kid{i}", instance_id=f"p{i}") for i in range(4)]
        for i in range(4):
            kid = hub.client.get(f"kid{i}")
            await until_there(hub._store, kid.id)
            await (kid.terminate("from outside") if i % 2 else kid.cancel("from outside"))
        results = [await one.result(5) for one in asking]
        assert results == ["child: OrchestrationCanceled", "child: OrchestrationTerminated"] * 2 or all(
            result.startswith("child: Orchestration") for result in results
        )
        await audit(hub.client)


async def test_replacing_a_parent_ends_its_children_and_the_new_one_has_its_own() -> None:
    async with hub_on(MemoryStore(), app) as hub:
        await hub.client.start("parent", "kid", instance_id="p")
        await until_there(hub._store, "kid")
        again = await hub.client.start("parent", "kid2", instance_id="p", on_existing="terminate_and_replace")
        assert (await hub.client.get("kid").wait(5)).status == "TERMINATED"
        await until_there(hub._store, "kid2")
        await hub.client.get("kid2").raise_event("go", "new")
        assert await again.result(5) == "new"
        await until_empty(hub._store)


@pytest.mark.parametrize("foreign", [False, True])
async def test_a_storm_of_replacements_ends_with_the_last_one(foreign: bool, tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with hub_on(path, app) as hub, Client(path, app) as client:
        asking = client if foreign else hub.client
        for i in range(30):
            await asking.start(
                "parent", f"kid{i}", instance_id="p", tags={"lap": str(i)}, on_existing="terminate_and_replace"
            )
        await until_state(client.get("p"), lambda state: state.tags == {"lap": "29"})
        await until_there(hub._store, "kid29")
        await client.get("kid29").raise_event("go", "last")
        assert await client.get("p").result(5) == "last"
        await until_empty(hub._store)


async def test_every_request_to_cancel_is_raised_once() -> None:
    async with hub_on(MemoryStore(), app) as hub:
        one = await hub.client.start("compensates")
        await one.cancel("first")
        await turns(20)
        await one.cancel("second")
        assert (await one.wait(5)).status == "CANCELED"
        await audit(hub.client)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_payloads_up_to_the_limit_travel_and_larger_ones_are_refused_before_anything_is_written(
    kind: str, tmp_path: Path
) -> None:
    local = App()

    @local.activity
    async def echo(data: bytes) -> bytes:
        return data

    @local.orchestrator
    def echoes(ctx: OrchestrationContext, data: bytes) -> Orchestration[bytes]:
        event = yield from ctx.wait_for_external_event("data", type=bytes)
        return (yield from ctx.call_activity(echo, data + event))

    store = store_of(kind, tmp_path)
    async with hub_on(store, local, codec=Codec(payload_bytes_max=4_000_000)) as hub:
        data = bytes(range(256)) * 7_000
        one = await hub.client.start(echoes, data, instance_id="one")
        with pytest.raises(PayloadTooLargeError):
            await one.raise_event("data", data * 3)
        await one.raise_event("data", data)
        assert await one.result(10) == data + data
        with pytest.raises(PayloadTooLargeError):
            await hub.client.start(echoes, data * 3, instance_id="two")
        assert await store.get("two") is None
    async with hub_on(store, local) as hub:
        assert await hub.client.get("one").result(10) == data + data


async def test_everything_at_once_on_a_small_cache_with_restarts(tmp_path: Path) -> None:
    """Random verbs from two clients at many instances, on a worker that restarts without grace."""
    path, chance = tmp_path / "hub.db", Random(11)
    ids = [f"x{i}" for i in range(12)]

    async def verbs(client: Client, rounds: int) -> None:
        for _ in range(rounds):
            one = client.get(chance.choice(ids))
            try:
                match chance.randrange(7):
                    case 0:
                        await client.start("fan", 5, instance_id=one.id, on_existing="terminate_and_replace")
                    case 1:
                        await client.start(
                            "parent", f"{one.id}-kid", instance_id=one.id, on_existing="replace_finished"
                        )
                    case 2:
                        await one.suspend()
                    case 3:
                        await one.resume()
                    case 4:
                        await one.raise_event("go", 1)
                    case 5:
                        await one.cancel()
                    case _:
                        await client.start("counts", [], instance_id=one.id, on_existing="replace_finished")
            except (InstanceExistsError, InvalidStateError, InstanceFinishedError):
                pass
            await asyncio.sleep(chance.random() / 300)

    async with Client(path, app) as client:
        for id in ids:
            await client.start("waits", instance_id=id)
        storming = [asyncio.create_task(verbs(client, 120)) for _ in range(2)]
        while not all(task.done() for task in storming):
            async with hub_on(path, app, Limits(warm_instances=2, grace=timedelta(0))) as hub:
                await asyncio.gather(verbs(hub.client, 30))
        await asyncio.gather(*storming)
        async with hub_on(path, app, Limits(warm_instances=2)) as hub:
            async for state in hub.client.list():
                if not state.status.is_finished:
                    try:
                        await hub.client.get(state.id).terminate()
                    except (InvalidStateError, InstanceFinishedError):
                        continue
                    with pytest.raises(OrchestrationTerminated):
                        await hub.client.get(state.id).result(5)
            await until_empty(hub._store)
            async for state in hub.client.list():
                assert state.status.is_finished, state.id
                assert state.problem is None
            await audit(hub.client)
