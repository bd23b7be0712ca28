"""Sagas that work with entities: operations are undone by operations, and what a saga undoes neither loses a lock nor waits for one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from replayflow import (
    App,
    EntityContext,
    Instance,
    Orchestration,
    OrchestrationCanceled,
    OrchestrationContext,
    Saga,
    TaskHub,
    race,
    when_all,
)
from tests.semantics.kit import LIMIT, Place, failure_of, kinds, until, until_recorded

app = App()
A, B, C = "@account@a", "@account@b", "@account@c"


@app.entity
def account(ctx: EntityContext[int | None], amount: int) -> int:
    balance = ctx.state = (ctx.state or 0) + amount
    return balance


@app.orchestrator
def hold(ctx: OrchestrationContext, ids: list[str]) -> Orchestration[None]:
    with (yield ctx.lock_entities(ids)):
        ctx.set_custom_status("holding")
        yield ctx.wait_for_external_event("go")


@app.orchestrator
def pay(ctx: OrchestrationContext) -> Orchestration[None]:
    def pay_back() -> Orchestration[None]:
        with (yield ctx.lock_entities([A, B])):
            yield ctx.call_entity(A, "add", 5)
            yield ctx.call_entity(B, "add", -5)

    def body(saga: Saga) -> Orchestration[None]:
        yield from saga.run(ctx.call_entity(A, "add", -5), pay_back)
        yield ctx.call_entity(B, "add", 5)
        raise ValueError("changed my mind")

    try:
        yield from ctx.saga(body)
    except ValueError:
        ctx.set_custom_status("paid back")
        yield ctx.wait_for_external_event("never")


@app.orchestrator
def hasty(ctx: OrchestrationContext) -> Orchestration[None]:
    def note() -> Orchestration[None]:
        yield ctx.call_entity(C, "add", 1)

    def body(saga: Saga) -> Orchestration[None]:
        saga.run(ctx.lock_entities([A, B]), note)
        yield ctx.create_timer(timedelta(0))
        raise ValueError("in line, and gone")

    yield from ctx.saga(body)


@app.activity
async def refuse() -> None:
    raise ValueError("refused")


@app.activity
async def nothing() -> None: ...


@app.orchestrator
def torn(ctx: OrchestrationContext) -> Orchestration[None]:
    def pay_back() -> Orchestration[None]:
        with (yield ctx.lock_entities([A])):
            yield ctx.call_entity(A, "add", 1)

    def body(saga: Saga) -> Orchestration[None]:
        yield from saga.run(nothing, pay_back)
        yield when_all([ctx.lock_entities([A, B]), ctx.call_activity(refuse)], fail_fast=True)

    yield from ctx.saga(body)


@app.orchestrator
def patient(ctx: OrchestrationContext) -> Orchestration[None]:
    def pay_back() -> Orchestration[None]:
        with (yield ctx.lock_entities([A])):
            yield ctx.call_entity(A, "add", 1)

    def body(saga: Saga) -> Orchestration[None]:
        yield from saga.run(nothing, pay_back)
        yield race([ctx.lock_entities([A, B]), ctx.create_timer(timedelta(days=1))])

    yield from ctx.saga(body)


async def until_holding(hub: TaskHub) -> Instance[Any]:
    holder = await hub.client.start(hold, [B])

    async def is_holding() -> bool:
        return bool((await holder.status()).custom_status == "holding")

    await until(is_holding)
    return holder


async def until_read(hub: TaskHub, expected: dict[str, int]) -> None:
    """The entities have these states, and nobody holds one or waits for it."""

    async def is_so() -> bool:
        found = [shown async for shown in hub.client.list_entities()]
        return {shown.id: shown.state for shown in found} == expected and not any(
            shown.locked_by or shown.backlog for shown in found
        )

    await until(is_so)


@pytest.mark.parametrize("warm_instances", [1, 1000])
async def test_a_compensation_keeps_its_place_in_line_when_a_request_to_cancel_comes(
    place: Place, warm_instances: int
) -> None:
    async with place.hub(app, warm_instances=warm_instances) as hub:
        await hub.client.signal_entity(A, "add", 100)
        holder = await until_holding(hub)
        instance = await hub.client.start("pay")
        await hub.client.signal_entity(C, "add", 1)
        # The call of B stands in line: the body ends, and its compensation stands there behind it.
        await instance.cancel("first")
        await until_recorded(instance, "EntityLockRequested", 2)
        await instance.cancel("second")
        await until_recorded(instance, "ExecutionCancelRequested", 2)
        await holder.raise_event("go")
        with pytest.raises(OrchestrationCanceled, match="first"):
            await instance.result(LIMIT)
        assert (await kinds(instance)).count("EntityLockRequested") == 2
        await until_read(hub, {A: 100, B: 0, C: 1})


async def test_a_request_to_cancel_is_heard_when_the_section_of_a_compensation_has_ended(place: Place) -> None:
    async with place.hub(app) as hub:
        instance = await hub.client.start("pay")
        await until_recorded(instance, "EntityUnlockSent", 2)
        await instance.cancel("late")
        with pytest.raises(OrchestrationCanceled, match="late"):
            await instance.result(LIMIT)
        await until_read(hub, {A: 0, B: 0})


async def test_a_saga_that_undoes_waits_for_no_lock_and_is_in_no_section(place: Place) -> None:
    async with place.hub(app) as hub:
        holder = await until_holding(hub)
        instance = await hub.client.start("hasty")
        assert (await failure_of(instance)).message == "in line, and gone"
        assert "EntityLockRequested" in await kinds(instance)
        assert await hub.client.read_entity(C) == 1
        await holder.raise_event("go")
        await until_read(hub, {C: 1})


@pytest.mark.parametrize("warm_instances", [1, 1000])
async def test_a_saga_that_undoes_has_left_the_line_that_its_body_stood_in(place: Place, warm_instances: int) -> None:
    async with place.hub(app, warm_instances=warm_instances) as hub:
        holder = await until_holding(hub)
        instance = await hub.client.start("torn")
        assert "refused" in (await failure_of(instance)).message
        assert await hub.client.read_entity(A) == 1
        await holder.raise_event("go")
        await until_read(hub, {A: 1})


@pytest.mark.parametrize("warm_instances", [1, 1000])
async def test_a_saga_that_is_cancelled_while_it_races_for_a_lock_undoes(place: Place, warm_instances: int) -> None:
    async with place.hub(app, warm_instances=warm_instances) as hub:
        holder = await until_holding(hub)
        instance = await hub.client.start("patient")
        await until_recorded(instance, "EntityLockRequested", 2)
        await instance.cancel("enough")
        with pytest.raises(OrchestrationCanceled, match="enough"):
            await instance.result(LIMIT)
        assert await hub.client.read_entity(A) == 1
        await holder.raise_event("go")
        await until_read(hub, {A: 1})
