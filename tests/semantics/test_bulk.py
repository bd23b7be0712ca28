"""Verbs for many: everybody who fits is asked, and nobody's refusal keeps another from it."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    EncodeError,
    InvalidArgumentError,
    OrchestrationContext,
    SqliteStore,
    SubOrchestrationError,
    TaskHub,
)
from replayflow.client import bulk
from tests.semantics.kit import LIMIT, Place, until, until_status


def app_of_many() -> App:
    app = App()

    @app.orchestrator
    def waits(ctx: OrchestrationContext) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    @app.orchestrator
    def other(ctx: OrchestrationContext) -> Any:
        yield ctx.wait_for_external_event("go")

    return app


async def start_many(hub: TaskHub, count: int = 7) -> None:
    for number in range(count):
        name = "waits" if number % 2 else "other"
        await hub.client.start(name, instance_id=f"i-{number}", tags={"parity": str(number % 2)})


async def until_statuses(client: Client, expected: dict[str, int]) -> None:
    async def are_so() -> bool:
        return Counter([str(state.status) async for state in client.list()]) == expected

    await until(are_so)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "ASKED_TOGETHER", 2)


async def test_suspend_resume_and_terminate_reach_everybody_who_fits(place: Place) -> None:
    async with place.hub(app_of_many()) as hub:
        await start_many(hub)
        client = hub.client
        assert (await client.suspend_all(name="waits", dry_run=True)).found == 3
        outcome = await client.suspend_all(name="waits", reason="a break")
        assert (outcome.found, outcome.done, outcome.refused) == (3, 3, 0)
        await until_statuses(client, {"SUSPENDED": 3, "RUNNING": 4})
        assert (await client.suspend_all(tags={"parity": "0"})).done == 4
        await until_statuses(client, {"SUSPENDED": 7})
        assert (await client.resume_all(id_prefix="i-1")).done == 1
        await until_statuses(client, {"SUSPENDED": 6, "RUNNING": 1})
        assert (await client.resume_all()).done == 6
        await until_statuses(client, {"RUNNING": 7})
        assert (await client.terminate_all(name="other", reason="enough")).done == 4
        await until_statuses(client, {"RUNNING": 3, "TERMINATED": 4})
        assert (await client.cancel_all()).done == 3
        await until_statuses(client, {"CANCELED": 3, "TERMINATED": 4})
        assert (await client.terminate_all()).found == 0


async def test_who_refuses_is_counted_with_the_reason_and_stops_nobody(place: Place) -> None:
    async with place.hub(app_of_many()) as hub:
        await start_many(hub)
        await hub.client.suspend_all(name="waits")
        await until_statuses(hub.client, {"SUSPENDED": 3, "RUNNING": 4})
        outcome = await hub.client.suspend_all(status=["RUNNING", "SUSPENDED"])
        assert (outcome.found, outcome.done, outcome.refused) == (7, 4, 3)
        assert outcome.reasons == {"it is suspended already": 3}
        await until_statuses(hub.client, {"SUSPENDED": 7})
        await hub.client.terminate_all()
        await until_statuses(hub.client, {"TERMINATED": 7})
        outcome = await hub.client.terminate_all(status="TERMINATED")
        assert outcome.reasons == {"it has finished, with status TERMINATED: there is nothing to terminate": 7}


async def test_those_that_failed_are_rewound_or_restarted_and_children_go_with_their_parents(place: Place) -> None:
    app = app_of_many()
    ran: Counter[str] = Counter()
    is_open = False

    @app.activity
    def charge(order: str) -> str:
        ran[order] += 1
        if not is_open:
            raise ConnectionError("the bank is closed")
        return f"paid {order}"

    @app.orchestrator
    def pays(ctx: OrchestrationContext, order: str) -> Any:
        return (yield ctx.call_activity(charge, order))

    @app.orchestrator
    def orders(ctx: OrchestrationContext, order: str) -> Any:
        return (yield ctx.call_sub_orchestrator(pays, order))

    @app.orchestrator
    def lenient(ctx: OrchestrationContext, order: str) -> Any:
        try:
            yield ctx.call_sub_orchestrator(pays, order)
        except SubOrchestrationError:
            return "done without"

    async with place.hub(app) as hub:
        client = hub.client
        for id in ("a", "b"):
            await client.start(orders, id, instance_id=id)
        await client.start(lenient, "c", instance_id="c")
        await until_statuses(client, {"FAILED": 5, "COMPLETED": 1})
        is_open = True
        outcome = await client.rewind_all(reason="it is open")
        assert (outcome.found, outcome.done) == (5, 2)
        assert outcome.reasons == {"it is a sub-orchestration: rewind its parent, or it alone by its id": 3}
        assert [await client.get(id).result(LIMIT) for id in ("a", "b", "c")] == ["paid a", "paid b", "done without"]
        await until_statuses(client, {"FAILED": 1, "COMPLETED": 5})
        assert ran == {"a": 2, "b": 2, "c": 1}, "nobody does again what a parent has seen to"
        assert (await client.rewind_all(id_prefix="a")).found == 0
        assert (await client.restart_all(dry_run=True)).found == 1
        assert (await client.restart_all()).reasons == {
            "it is a sub-orchestration: restart its parent, or it alone by its id": 1
        }
        assert (await client.restart_all(status="COMPLETED", name="orders")).done == 2
        await until_statuses(client, {"FAILED": 1, "COMPLETED": 7})
        assert ran == {"a": 3, "b": 3, "c": 1}


async def test_an_event_for_all_is_taken_once_by_each(place: Place) -> None:
    async with place.hub(app_of_many()) as hub:
        await start_many(hub)
        for _ in range(2):
            outcome = await hub.client.raise_event_to_all("go", [1], dedupe_key="once", name="waits", status="RUNNING")
        for number in range(1, 7, 2):
            assert await hub.client.get(f"i-{number}").result(LIMIT) == [1]
        outcome = await hub.client.raise_event_to_all("go", dedupe_key="once", name="waits", status="COMPLETED")
        assert (outcome.done, outcome.refused) == (3, 0), "a repeated key succeeds silently, also after the end"
        outcome = await hub.client.raise_event_to_all("go", name="waits", status="COMPLETED")
        assert (outcome.done, outcome.refused) == (0, 3)


async def test_parked_instances_are_tried_again_where_they_are_meant(place: Place) -> None:
    app = app_of_many()

    @app.orchestrator
    def asks(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity("that nobody has")

    async with place.hub(app) as hub:
        for number in range(3):
            await hub.client.start(asks, instance_id=f"parked-{number}")
        await start_many(hub, 2)

        async def are_parked() -> bool:
            return len([state async for state in hub.client.list(parked=True)]) == 3

        await until(are_parked)
        assert (await hub.client.resume_all()).found == 0
        outcome = await hub.client.resume_all(parked=True)
        assert (outcome.found, outcome.done) == (3, 3)


async def test_what_cannot_be_sent_to_one_is_sent_to_nobody(place: Place) -> None:
    async with place.hub(app_of_many()) as hub:
        await start_many(hub, 1)
        with pytest.raises(InvalidArgumentError):
            await hub.client.raise_event_to_all("")
        with pytest.raises(EncodeError):
            await hub.client.raise_event_to_all("go", object(), name="nobody")
        with pytest.raises(InvalidArgumentError, match="there is no filter 'statuses'"):
            await hub.client.terminate_all(statuses="RUNNING")  # type: ignore[call-arg]
        assert (await hub.client.raise_event_to_all("go")).done == 1


async def test_those_that_begin_later_are_not_asked(place: Place) -> None:
    async with place.hub(app_of_many()) as hub:
        await start_many(hub, 3)
        soon = datetime.now(UTC) + timedelta(hours=1)
        assert (await hub.client.terminate_all(created_from=soon)).found == 0
        assert (await hub.client.terminate_all(created_to=soon)).found == 3


async def test_a_client_of_its_own_asks_thousands_in_a_few_transactions(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "ASKED_TOGETHER", 500)
    if not isinstance(place.store(), SqliteStore):
        pytest.skip("a client in memory has no file to write to")
    writes: list[int] = []

    class Counting(SqliteStore):
        async def write(self, operations: Any, epoch: int | None = None) -> Any:
            writes.append(len(operations))
            return await super().write(operations, epoch)

    async with Client(Counting(place.path)) as client:
        await asyncio.gather(*(client.start("waits", instance_id=f"i-{n}") for n in range(2_000)))
        assert len(writes) < 200  # how many depends on how quick the disk is
        writes.clear()
        outcome = await client.terminate_all()
        assert (outcome.done, sum(writes)) == (2_000, 2_000)
        assert len(writes) < 200  # how many depends on how quick the disk is


async def test_a_schedule_is_asked_only_by_its_name(place: Place) -> None:
    app = App()

    @app.orchestrator
    def report(ctx: OrchestrationContext) -> Any:
        yield ctx.wait_for_external_event("never")

    async with place.hub(app) as hub:
        await hub.client.create_schedule("nightly", report, every=timedelta(days=1))
        await hub.client.start(report, instance_id="by hand")
        assert (await hub.client.terminate_all(dry_run=True)).found == 1
        assert (await hub.client.terminate_all()).done == 1
        await until_status(hub.client.get("by hand"), "TERMINATED")
        assert (await hub.client.get("schedule:nightly").status()).status == "RUNNING"
        assert (await hub.client.terminate_all(name="replayflow.schedule")).done == 1
        await until_status(hub.client.get("schedule:nightly"), "TERMINATED")
