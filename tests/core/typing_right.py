"""Uses that type checkers have to understand: each `assert_type` is checked by mypy and by pyright; nothing here is run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type
from uuid import UUID, uuid4

from replayflow import (
    ActivityContext,
    App,
    Client,
    EntityContext,
    EntityInstanceId,
    EntityLock,
    EntityState,
    Instance,
    MapFailure,
    MapResult,
    Orchestration,
    OrchestrationContext,
    Rate,
    RetryPolicy,
    Saga,
    Schedule,
    ScheduleState,
    Task,
    race,
    run,
    when_all,
    when_any,
)

app = App()


@dataclass
class Order:
    id: str


@app.activity
async def in_loop(order: Order) -> int:
    return len(order.id)


@app.activity(name="plain", retry=RetryPolicy(max_attempts=2), timeout=timedelta(seconds=1))
def in_thread(order: Order) -> str:
    return order.id


@app.activity(concurrency=1, rate=Rate(10, per=timedelta(minutes=1)), key=lambda order: order.id)
async def limited(ctx: ActivityContext, order: Order) -> bytes:
    ctx.heartbeat({"done": 5})
    ctx.raise_if_cancelled()
    assert_type(ctx.cancelled, bool)
    assert_type(ctx.last_heartbeat, Any)
    return order.id.encode()


def region(of: str, number: int) -> Order:
    return Order(f"{of}-{number}")


@app.activity
def with_context(ctx: ActivityContext, order: Order) -> bytes:
    return order.id.encode()


@app.activity
async def with_context_in_loop(ctx: ActivityContext, order: Order) -> float:
    return ctx.attempt / 2


@app.activity
def without_input() -> list[int]:
    return []


@app.activity
async def without_input_in_loop() -> set[int]:
    return set()


@app.activity
def context_alone(ctx: ActivityContext) -> bool:
    return ctx.cancelled


@app.activity
async def context_alone_in_loop(ctx: ActivityContext) -> Order:
    return Order(ctx.instance_id)


@app.orchestrator
def child(ctx: OrchestrationContext, order: Order) -> Orchestration[dict[str, int]]:
    number = yield from ctx.call_activity(in_loop, order)
    return {order.id: number}


@app.orchestrator(name="no input", version="2")
def child_without_input(ctx: OrchestrationContext) -> Orchestration[int]:
    yield ctx.create_timer(timedelta(1))
    return 1


@app.activity
async def batch_in_loop(orders: list[Order]) -> list[int]:
    return [len(order.id) for order in orders]


@app.activity
def batch_with_context(ctx: ActivityContext, orders: list[Order]) -> list[str]:
    return [order.id for order in orders]


@app.activity
async def pages(cursor: int | None) -> tuple[list[Order], int | None]:
    return [], cursor


@app.activity
def pages_in_thread(cursor: str | None) -> tuple[list[Order], str | None]:
    return [], cursor


@app.orchestrator
def batch_child(ctx: OrchestrationContext, orders: list[Order]) -> Orchestration[list[float]]:
    yield ctx.create_timer(timedelta(1))
    return [1.0 for _ in orders]


@app.orchestrator
def mapping(ctx: OrchestrationContext, orders: list[Order]) -> Orchestration[MapResult[int]]:
    assert_type(ctx.map(in_loop, orders), Task[MapResult[int]])
    assert_type((yield from ctx.map(in_loop, orders)), MapResult[int])
    assert_type((yield from ctx.map(in_thread, iter(orders), concurrency=3)), MapResult[str])
    assert_type((yield from ctx.map(with_context, tuple(orders), tolerated_failures=0.1)), MapResult[bytes])
    assert_type((yield from ctx.map(with_context_in_loop, orders, on_item_error="collect")), MapResult[float])
    assert_type((yield from ctx.map(child, orders, retry=RetryPolicy())), MapResult[dict[str, int]])
    assert_type((yield from ctx.map(batch_in_loop, orders, batch_size=10)), MapResult[int])
    assert_type((yield from ctx.map(batch_with_context, orders, batch_size=10)), MapResult[str])
    assert_type((yield from ctx.map(batch_child, orders, batch_size=10)), MapResult[float])
    assert_type((yield from ctx.map(in_loop, pages)), MapResult[int])
    assert_type((yield from ctx.map(in_loop, pages_in_thread)), MapResult[int])
    assert_type((yield from ctx.map(batch_in_loop, pages, batch_size=10)), MapResult[int])
    assert_type((yield from ctx.map("by name", orders, result_type=int)), MapResult[int])
    assert_type((yield from ctx.map("by name", orders)), MapResult[Any])
    result = yield from ctx.map(in_loop, orders)
    assert_type(result.results, list[int | None])
    assert_type(result.succeeded, list[int])
    assert_type(result.failures, list[MapFailure])
    assert_type((yield from result.retry_failed(ctx)), MapResult[int])
    return result


@app.orchestrator
def parent(ctx: OrchestrationContext, order: Order) -> Orchestration[str]:
    assert_type(ctx.record(uuid4), UUID)
    assert_type(ctx.record(region, "eu", 3), Order)
    assert_type(ctx.record(lambda: [1]), list[int])
    assert_type(ctx.record(lambda: object(), type=Order, name="order"), Order)
    assert_type((yield from ctx.call_activity(limited, order)), bytes)
    assert_type(ctx.call_activity(in_loop, order), Task[int])
    assert_type((yield from ctx.call_activity(in_loop, order)), int)
    assert_type((yield from ctx.call_activity(in_thread, order, retry=RetryPolicy())), str)
    assert_type((yield from ctx.call_activity(with_context, order, timeout=timedelta(1))), bytes)
    assert_type((yield from ctx.call_activity(with_context_in_loop, order, tags={"a": "b"})), float)
    assert_type((yield from ctx.call_activity(without_input)), list[int])
    assert_type((yield from ctx.call_activity(without_input_in_loop)), set[int])
    assert_type((yield from ctx.call_activity(context_alone)), bool)
    assert_type((yield from ctx.call_activity(context_alone_in_loop)), Order)
    assert_type((yield from ctx.call_activity("by name", order, result_type=int)), int)
    assert_type((yield from ctx.call_activity("by name", order)), Any)
    assert_type((yield from ctx.call_sub_orchestrator(child, order)), dict[str, int])
    assert_type((yield from ctx.call_sub_orchestrator(child_without_input)), int)
    assert_type((yield from ctx.call_sub_orchestrator("by name", order)), Any)
    assert_type((yield from ctx.create_timer(timedelta(1))), None)
    assert_type((yield from ctx.wait_for_external_event("e", type=int, timeout=timedelta(1))), int)
    assert_type((yield from ctx.wait_for_external_event("e")), Any)
    numbers = [ctx.call_activity(in_loop, order)]
    assert_type((yield from when_all(numbers)), list[int])
    assert_type((yield from when_any(numbers)), Task[int])
    assert_type((yield from race(numbers)), int)
    assert_type(numbers[0].result, int)
    assert_type(numbers[0].exception, BaseException | None)
    assert_type(numbers[0].cancel(), bool)
    return order.id


@app.orchestrator
def with_saga(ctx: OrchestrationContext, order: Order) -> Orchestration[float]:
    def by_generator() -> Orchestration[int]:
        return (yield from ctx.call_activity(in_loop, order))

    def body(saga: Saga) -> Orchestration[float]:
        assert_type((yield from saga.run(in_loop, in_thread, order)), int)
        assert_type((yield from saga.run(in_thread, "by name", order, undo_input=lambda result: result)), str)
        assert_type((yield from saga.run(with_context, in_loop, order, undo_input=order)), bytes)
        assert_type((yield from saga.run(without_input, without_input)), list[int])
        assert_type((yield from saga.run(without_input_in_loop, without_input)), set[int])
        assert_type((yield from saga.run(context_alone, without_input, undo_retry=RetryPolicy())), bool)
        assert_type((yield from saga.run("by name", in_loop, order, result_type=int)), int)
        assert_type((yield from saga.run("by name", in_loop, order)), Any)
        assert_type((yield from saga.run(in_loop, by_generator, order)), int)
        saga.add(by_generator, undo_retry=RetryPolicy())
        assert_type((yield from saga.run(ctx.call_sub_orchestrator(child, order), in_loop)), dict[str, int])
        assert_type((yield from when_all([saga.run(in_loop, in_loop, order)])), list[int])
        return (yield from saga.run(with_context_in_loop, in_loop, order, timeout=timedelta(1)))

    assert_type((yield from ctx.saga(body)), float)
    return (yield from ctx.saga(body, parallel=True, undo_retry=RetryPolicy(max_attempts=5)))


@app.entity
def counter(ctx: EntityContext[int | None], amount: int) -> int:
    assert_type(ctx.state, int | None)
    assert_type(ctx.get_state(int), int | None)
    assert_type(ctx.get_state(int, 0), int)
    assert_type(ctx.get_state(), Any)
    assert_type(ctx.start_orchestration(child_without_input), str)
    ctx.state = 5
    ctx.set_state(None)
    ctx.signal_entity("@counter@a", "add", 1, delay=timedelta(1))
    return 1


@app.entity(name="order")
@dataclass
class OrderEntity:
    total: int = 0

    def add(self, ctx: EntityContext[Any], amount: int) -> None:
        self.total += amount


@app.orchestrator
def with_entities(ctx: OrchestrationContext) -> Orchestration[int]:
    id = EntityInstanceId("order", "a")
    assert_type(ctx.call_entity(id, "add", 1), Task[Any])
    assert_type((yield from ctx.call_entity("@order@a", "get", result_type=int)), int)
    assert_type((yield from ctx.lock_entities([id, "@order@b"])), EntityLock)
    with (yield ctx.lock_entities([])):
        return OrderEntity().total


async def entity_calls(client: Client) -> None:
    await client.signal_entity("@order@a", "add", 1, delay=timedelta(1), dedupe_key="k")
    assert_type(await client.read_entity("@order@a", type=int), Any)
    assert_type(await client.get_entity("@order@a"), EntityState | None)
    assert_type([e async for e in client.list_entities(name="order")], list[EntityState])
    assert_type(await client.clean_entities(), int)


async def client_calls(client: Client, order: Order) -> None:
    started = await client.start(parent, order, instance_id="x", on_existing="return")
    assert_type(started, Instance[str])
    assert_type(await started.result(timeout=1), str)
    assert_type(await client.start(child_without_input), Instance[int])
    assert_type(await client.start("by name", {"any": 1}), Instance[Any])
    assert_type(client.get("x"), Instance[Any])
    schedule = await client.create_schedule(
        "s", parent, order, every=timedelta(1), overlap="skip", on_existing="update"
    )
    assert_type(schedule, Schedule)
    assert_type(await schedule.status(), ScheduleState)
    assert_type(await schedule.backfill(datetime.now(UTC), datetime.now(UTC)), int)
    assert_type([state async for state in client.list_schedules()], list[ScheduleState])


def blocking_calls(order: Order) -> None:
    assert_type(run(parent, order), str)
    assert_type(run(child_without_input, store="x.db"), int)
