"""The program that the crash tests kill: it serves a hub until it dies. Run as `python -m tests.engine.crash_app PATH WHEN_OWNED`."""

from __future__ import annotations

import asyncio
import random
import sys
from datetime import timedelta
from pathlib import Path
from typing import cast

from replayflow import (
    ActivityContext,
    App,
    EntityContext,
    Limits,
    Orchestration,
    OrchestrationContext,
    Quota,
    Retention,
    RetryPolicy,
    Saga,
    SqliteStore,
    TaskHub,
    Transaction,
    when_all,
)
from replayflow.core.entity import entity
from replayflow.errors import LeaseLostError, StoreBusyError
from replayflow.hub import WhenOwned
from tests.engine.crash_hands import CANNOT_TAKE, OUSTED

app = App()


@app.activity(concurrency=8, quota=Quota(concurrency=12))
async def double(x: int) -> int:
    await asyncio.sleep(0.001 * (x % 7))
    return 2 * x


@app.activity(transactional=True, timeout=timedelta(seconds=10))  # longer than any stop
def deposit(tx: Transaction, amount: int) -> int:
    """Adds to the one account, and says what is in it then."""
    tx.execute(
        "CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, balance INTEGER NOT NULL, deposits INTEGER NOT NULL)"
    )
    statement = (
        "INSERT INTO account VALUES ('all', ?, 1) ON CONFLICT DO UPDATE SET balance = balance + excluded.balance, deposits = deposits + 1 "
        "RETURNING deposits"
    )
    [(deposits,)] = tx.execute(statement, (amount,))
    return int(deposits)


@app.activity
def in_thread(ctx: ActivityContext, x: int) -> str:
    return f"{ctx.instance_id}:{x}"


@app.entity
def counter(ctx: EntityContext[int | None], amount: int = 0) -> int:
    now = ctx.state or 0
    match ctx.operation:
        case "add":
            ctx.state = now + amount
            ctx.signal_entity("@total@all", "add", amount)
        case "set":
            ctx.signal_entity("@total@all", "add", amount - now)
            ctx.state = amount
        case "spoil":
            ctx.state = -1_000_000
            ctx.signal_entity("@total@all", "add", -1_000_000)
            raise ValueError("spoilt")
    return ctx.state or 0


@app.entity
def total(ctx: EntityContext[int | None], amount: int = 0) -> None:
    ctx.state = (ctx.state or 0) + amount


@app.orchestrator
def count(ctx: OrchestrationContext, ids: list[str]) -> Orchestration[int]:
    """Adds one to each of the counters in each of three ways, and one more by a delayed signal."""
    for id in ids:
        ctx.signal_entity(id, "add", 1)
        ctx.signal_entity(id, "spoil")
        ctx.signal_entity(id, "add", 1, delay=timedelta(milliseconds=50))
        yield ctx.call_entity(id, "add", 1)
    with (yield ctx.lock_entities(ids)):
        for id in ids:
            before = yield from ctx.call_entity(id, "get", result_type=int)
            doubled = yield from ctx.call_activity(double, before)
            yield ctx.call_entity(id, "set", doubled - before + 1)
    return 4 * len(ids)


@app.orchestrator
def saves(ctx: OrchestrationContext, amounts: list[int]) -> Orchestration[list[int]]:
    """The last deposit is left for when it is over."""
    done = yield from when_all([ctx.call_activity(deposit, amount) for amount in amounts[:-1]])
    ctx.call_activity(deposit, amounts[-1])
    return done


@app.orchestrator
def child(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
    first = yield from ctx.call_activity(double, x)
    yield from ctx.create_timer(timedelta(milliseconds=5))
    second = yield from ctx.call_activity(double, first)
    return second


@app.orchestrator
def family(ctx: OrchestrationContext, size: int) -> Orchestration[int]:
    results = yield from when_all([ctx.call_sub_orchestrator(child, i) for i in range(size)])
    return sum(results)


@app.orchestrator
def batch(ctx: OrchestrationContext, width: int) -> Orchestration[dict[str, int | str]]:
    chance = ctx.record(random.randrange, 1000)
    results = yield from when_all([ctx.call_activity(double, i) for i in range(width)])
    children = yield from when_all([ctx.call_sub_orchestrator(child, i) for i in range(3)])
    yield from ctx.create_timer(timedelta(milliseconds=20))
    said = yield from ctx.call_activity(in_thread, width)
    more = yield from ctx.wait_for_external_event("more", type=int)
    if (yield from ctx.call_activity(double, chance)) != 2 * chance:
        raise AssertionError("what was recorded has changed")
    return {"sum": sum(results), "children": sum(children), "more": more, "said": said}


@app.activity
async def flaky(ctx: ActivityContext, x: int) -> int:
    await asyncio.sleep(0.001 * (x % 5))
    if ctx.attempt > 1 and ctx.last_heartbeat != x:
        raise AssertionError(f"{x} told, and heard {ctx.last_heartbeat}")
    ctx.heartbeat(-x - 1)
    ctx.heartbeat(x)
    if ctx.attempt == 1 and x % 13 == 0:
        raise ValueError(f"{x}, at first")
    return 2 * x


@app.activity
async def pages(cursor: int | None) -> tuple[list[int], int | None]:
    first = cursor or 0
    return list(range(first, first + 40)), first + 40 if first < 80 else None


@app.activity
async def double_all(batch: list[int]) -> list[int]:
    await asyncio.sleep(0.002)
    return [2 * x for x in batch]


@app.orchestrator
def mapped(ctx: OrchestrationContext, width: int) -> Orchestration[dict[str, int]]:
    again = RetryPolicy(max_attempts=2, first_interval=timedelta(milliseconds=5))
    single = ctx.map(flaky, range(width), concurrency=20, retry=again)
    children = ctx.map(child, range(6), concurrency=2)
    batches = ctx.map(double_all, pages, batch_size=7, concurrency=3)
    results = yield from when_all([single, children, batches])
    first, second, third = (sum(result.succeeded) for result in results)
    return {"single": first, "children": second, "batches": third}


@app.activity
async def undo(x: int) -> None:
    await asyncio.sleep(0.002)


@app.activity
async def careful(given: tuple[int, str]) -> int:
    """The double, where nothing is broken."""
    number, broken = given
    await asyncio.sleep(0.001 * (number % 3))
    if await asyncio.to_thread(Path(broken).exists):
        raise ValueError(f"{number} is broken")
    return 2 * number


@app.orchestrator
def brittle(ctx: OrchestrationContext, given: tuple[int, str]) -> Orchestration[list[int]]:
    number, broken = given
    first = yield from ctx.call_activity(double, number)
    second = yield from ctx.call_activity(careful, (first, broken))
    return [first, second]


@app.orchestrator
def repaired(ctx: OrchestrationContext, broken: str) -> Orchestration[list[object]]:
    """Fails in one of its own activities or in its children, as long as their file is there."""
    first = yield from when_all(
        [ctx.call_activity(double, 0), ctx.call_activity(careful, (1, f"{broken}.own")), ctx.call_activity(double, 2)]
    )
    again = RetryPolicy(max_attempts=2, first_interval=timedelta(milliseconds=2))
    children = yield from when_all(
        [
            ctx.call_sub_orchestrator(brittle, (3, f"{broken}.child")),
            ctx.call_sub_orchestrator(brittle, (4, f"{broken}.child"), retry=again),
        ]
    )
    return [first, children]


@app.orchestrator
def guarded(ctx: OrchestrationContext, parts: int) -> Orchestration[str]:
    """Parts that are all undone where their number is odd."""

    def body(saga: Saga) -> Orchestration[str]:
        for part in range(parts):
            yield from saga.run(double, undo, part)
        if parts % 2:
            raise ValueError("odd")
        return "done"

    try:
        return (yield from ctx.saga(body))
    except ValueError:
        return "undone"


@app.orchestrator
def told(ctx: OrchestrationContext, times: int) -> Orchestration[int]:
    """The sum of what it is told, doubled."""
    total = 0
    for _ in range(times):
        item = yield from ctx.wait_for_external_event("item", type=int)
        total += yield from ctx.call_activity(double, item)
    return total


async def main(path: str, when_owned: WhenOwned) -> None:
    entity.SNAPSHOT_AFTER_PIECES = 10
    limits = Limits(grace=timedelta(seconds=1))
    kept = Retention(terminated=timedelta(0), executions=2, every=timedelta(milliseconds=20))
    store = SqliteStore(path, busy_seconds=2)  # a client that is stopped in its write does not keep it for longer
    async with TaskHub(store, app, when_owned=when_owned, limits=limits, retention=kept) as hub:
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        await hub.serve()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], cast("WhenOwned", sys.argv[2])))
    except LeaseLostError:
        sys.exit(OUSTED)
    except StoreBusyError:
        sys.exit(CANNOT_TAKE)
