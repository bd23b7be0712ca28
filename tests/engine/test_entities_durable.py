"""Entities and a store that holds, fails and refuses: what was not written did not happen, what was written happened once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from replayflow import App, EntityContext, Limits, Orchestration, OrchestrationContext
from replayflow.core.commit import Commit
from replayflow.core.events import EventRaised
from replayflow.errors import StoreBusyError
from replayflow.store.base import Operation, Outcome, Post
from tests.engine.kit import ToldStore, history_of, hub_on, turns, until, until_empty, within

app = App()
ran: Counter[str] = Counter()


@app.entity
def counter(ctx: EntityContext[int | None], amount: int = 0) -> int:
    ran[ctx.operation] += 1
    ctx.state = (ctx.state or 0) + amount
    ctx.signal_entity("@echo@all", "hear", amount)
    return ctx.state or 0


@app.entity
def echo(ctx: EntityContext[list[int] | None], amount: int) -> None:
    ctx.state = [*(ctx.state or []), amount]


@app.orchestrator
def add(ctx: OrchestrationContext, amount: int) -> Orchestration[int]:
    with (yield ctx.lock_entities(["@counter@a", "@counter@b"])):
        yield ctx.call_entity("@counter@b", "add", amount)
        return (yield from ctx.call_entity("@counter@a", "add", amount, result_type=int))


class LateStore(ToldStore):
    """Tells its writer late what it has written: a reader of arrivals knows before."""

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        outcomes = await super().write(operations, epoch)
        await turns()
        return outcomes


def is_of(id: str) -> Any:
    return lambda operation: isinstance(operation, Commit) and operation.instance_id == id


async def until_heard(store: ToldStore, client: Any, heard: list[int]) -> None:
    async with asyncio.timeout(15):
        while await client.read_entity("@echo@all") != heard:  # noqa: ASYNC110 - a store tells nobody
            await asyncio.sleep(0.002)
    await until_empty(store)


async def test_a_refused_commit_of_an_entity_never_happened_and_is_done_again() -> None:
    ran.clear()
    store = ToldStore()
    refused = iter([True, True])
    store.refuses = lambda commit: commit.instance_id == "@counter@a" and next(refused, False)
    async with hub_on(store, app) as hub:
        for n in (1, 2, 3):
            await hub.client.signal_entity("@counter@a", "add", n)
        await until_heard(store, hub.client, [1, 2, 3])
        assert await hub.client.read_entity("@counter@a") == 6
        assert ran["add"] > 3  # they ran more often than they count


async def test_a_group_that_fails_is_done_again_and_counts_once() -> None:
    store = ToldStore()
    async with hub_on(store, app) as hub:
        left = [StoreBusyError("busy")] * 3
        store.failing = lambda group: left.pop() if left and any(map(is_of("@counter@a"), group)) else None
        started = [hub.client.start(add, n) for n in (1, 10, 100)]
        for starting in started:
            await within(15, (await starting).result())
        assert not left
        assert [await hub.client.read_entity(f"@counter@{key}") for key in "ab"] == [111, 111]
        async with asyncio.timeout(15):
            while any([e.locked_by async for e in hub.client.list_entities()]):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.002)
    await store.open()
    assert await store.arrived(0, 100) == []


async def test_no_answer_leaves_before_the_state_is_durable() -> None:
    store = ToldStore()
    async with hub_on(store, app) as hub:
        instance = await hub.client.start(add, 5)
        await within(15, instance.result())
    order = [operation for operation in store.written if isinstance(operation, Commit)]
    answers = [commit for commit in order if is_of("@counter@a")(commit) and commit.messages]
    for commit in answers:
        assert commit.chunk is not None  # the answer and the piece that says why are one commit


async def test_a_message_that_is_read_before_its_sender_hears_of_its_commit_is_taken_once() -> None:
    listening = App()
    listening.include(app)

    @listening.orchestrator
    def listen(ctx: OrchestrationContext) -> Orchestration[None]:
        yield ctx.wait_for_external_event("end")

    @listening.orchestrator
    def tell(ctx: OrchestrationContext) -> Orchestration[int]:
        ctx.send_event("listener", "word")
        ctx.signal_entity("@echo@all", "hear", 1)
        return (yield from ctx.call_entity("@counter@a", "add", 1, result_type=int))

    store = LateStore()
    async with hub_on(store, listening) as hub:
        listener = await hub.client.start(listen, instance_id="listener")
        tellers = [await hub.client.start(tell) for _ in range(5)]
        assert sorted([await within(15, teller.result()) for teller in tellers]) == [1, 2, 3, 4, 5]
        await until_heard(store, hub.client, [1] * 10)  # by each teller, and by the counter for each
        words = [event for event in await history_of(hub.client, listener.id) if isinstance(event, EventRaised)]
        assert len(words) == 5


async def test_what_came_together_is_performed_in_one_episode() -> None:
    store = ToldStore()
    async with hub_on(store, app) as hub:
        await hub.client.signal_entity("@echo@all", "hear", -1)
        await until_heard(store, hub.client, [-1])
        before, attempts = len(store.written), store.attempts
        with store.holding():
            sending = [asyncio.create_task(hub.client.signal_entity("@echo@all", "hear", n)) for n in range(200)]
            await until(lambda: store.attempts > attempts, "the first group")
        await asyncio.gather(*sending)
        await until_heard(store, hub.client, [-1, *range(200)])
        commits = [operation for operation in store.written[before:] if is_of("@echo@all")(operation)]
        assert len(commits) <= 5
        assert sum(isinstance(operation, Post) for operation in store.written[before:]) == 200


async def test_sleeping_entities_cost_no_memory() -> None:
    store = ToldStore()
    async with hub_on(store, app, Limits(warm_instances=4, grace=timedelta(0))) as hub:
        for n in range(40):
            await hub.client.signal_entity(f"@counter@{n}", "add", n)
        async with asyncio.timeout(15):
            while len([e async for e in hub.client.list_entities(name="counter")]) < 40:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.002)
        await until(lambda: len(hub._engine._residents._lives) <= 6, "leaving the memory")  # type: ignore[union-attr]
