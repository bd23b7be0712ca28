"""The code that golden histories and hubs were recorded with, and have to fit for ever. It is only ever added to: to edit it would be to forge them.

What activities meet is `world`: while something is recorded, names in `broken` fail and names in `shut` do not end.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

from replayflow import (
    ActivityContext,
    ActivityError,
    App,
    EntityContext,
    EntityError,
    NonRetryableError,
    Orchestration,
    OrchestrationContext,
    RetryPolicy,
    Saga,
    SubOrchestrationError,
    Transaction,
    race,
    when_all,
    when_any,
)

HOUR = timedelta(hours=1)
common = App()


@dataclass
class World:
    broken: set[str] = field(default_factory=set)
    shut: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    """What is at work behind a shut gate."""

    def clear(self) -> None:
        self.broken.clear()
        self.shut.clear()
        self.begun.clear()


world = World()


@dataclass
class Order:
    id: str
    skus: list[str]
    total: Decimal


@common.activity
async def work(name: str) -> str:
    if name in world.shut:
        world.begun.add(name)
        await asyncio.Event().wait()
    if name in world.broken:
        raise ValueError(f"{name} is broken")
    return name.upper()


@common.activity
async def refuse(name: str) -> str:
    raise NonRetryableError(f"{name} is not wanted") from KeyError(name)


@common.activity(retry=RetryPolicy(max_attempts=5, first_interval=HOUR))
async def patient(ctx: ActivityContext, name: str) -> str:
    """Gets through in its third attempt, which the second has told how far it was; in the second, where the world is whole."""
    if ctx.attempt < 3 and name not in world.broken and name.endswith("?"):
        ctx.heartbeat({"attempt": ctx.attempt})
        raise ConnectionError(f"{name}, for the {ctx.attempt}. time")
    if name in world.broken:
        raise ConnectionError(f"{name} is broken")
    return f"{name} after {ctx.last_heartbeat}"


@common.activity
async def double(x: int) -> int:
    if "double" in world.shut and x > 1:
        world.begun.add("double")
        await asyncio.Event().wait()
    if x == 13:
        raise ValueError("unlucky")
    return 2 * x


@common.activity
async def pages(cursor: int | None) -> tuple[list[int], int | None]:
    first = cursor or 0
    return list(range(first, first + 3)), first + 3 if first < 3 else None


@common.activity(transactional=True)
def deposit(tx: Transaction, amount: int) -> int:
    """Adds to the one account; returns what is in it then."""
    tx.execute("CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, balance INTEGER NOT NULL)")
    tx.execute("INSERT INTO account VALUES ('all', 0) ON CONFLICT DO NOTHING")
    [(balance,)] = tx.execute("UPDATE account SET balance = balance + ? RETURNING balance", (amount,))
    return int(balance)


# ---- one execution


@common.orchestrator
def order(ctx: OrchestrationContext, given: Order) -> Orchestration[dict[str, Any]]:
    """Activities, one after another and at once; retries, failures, time, events, and all that is recorded in passing."""
    ctx.set_custom_status({"stage": "reserving", "for": given.id})
    holds = yield from when_all([ctx.call_activity(work, sku) for sku in given.skus])
    patience = yield from ctx.call_activity(patient, "charge?")
    refused = ""
    try:
        yield ctx.call_activity(refuse, given.id, retry=RetryPolicy(max_attempts=3, first_interval=HOUR))
    except ActivityError as error:
        refused = str(error.details.type)
    yield ctx.create_timer(HOUR)
    winner = yield from race([ctx.call_activity(work, "quick"), ctx.create_timer(timedelta(days=1))])
    loser = ctx.call_activity(patient, "never" if "never" in world.broken else "late?")
    yield when_any([loser, ctx.create_timer(timedelta(minutes=1))])
    loser.cancel()
    dice = ctx.record(lambda: 4, name="dice")
    gift = ctx.patched("gift-paper")
    first = yield from ctx.wait_for_external_event("Approved", type=bool)
    try:
        yield ctx.wait_for_external_event("never", timeout=HOUR)
    except TimeoutError:
        ctx.set_custom_status({"stage": "done"})
    ctx.send_event("listener", "go", {"order": given.id})
    ctx.call_activity(work, "left for last")
    return {
        "holds": holds,
        "patience": patience,
        "refused": refused,
        "winner": winner,
        "recorded": [dice, gift],
        "approved": first,
        "chance": [ctx.random.randrange(100) >= 0, len(ctx.new_uuid())],
        "total": given.total,
    }


@common.orchestrator
def listens(ctx: OrchestrationContext, name: str) -> Orchestration[Any]:
    return (yield from ctx.wait_for_external_event(name))


@common.orchestrator
def sleeps(ctx: OrchestrationContext, hours: int) -> Orchestration[str]:
    yield ctx.create_timer(hours * HOUR)
    return f"slept {hours} hours"


@common.orchestrator
def works(ctx: OrchestrationContext, name: str) -> Orchestration[str]:
    first = yield from ctx.call_activity(work, "before")
    return first + (yield from ctx.call_activity(work, name))


@common.orchestrator
def tries(ctx: OrchestrationContext, name: str) -> Orchestration[str]:
    return (yield from ctx.call_activity(patient, name))


@common.orchestrator
def rounds(ctx: OrchestrationContext, n: int) -> Orchestration[list[Any]]:
    """Three executions; an event that comes early is had by the last."""
    yield ctx.call_activity(work, f"round {n}")
    ctx.set_custom_status(n)
    if n < 2:
        ctx.continue_as_new(n + 1)
        return []
    return [n, (yield from ctx.wait_for_external_event("go"))]


@common.orchestrator
def cleans_up(ctx: OrchestrationContext) -> Orchestration[None]:
    """Waits, and does something more where it is cancelled."""
    try:
        yield ctx.wait_for_external_event("never")
    finally:
        yield ctx.call_activity(work, "cleaning up")


@common.orchestrator
def saves(ctx: OrchestrationContext, amounts: list[int]) -> Orchestration[list[int]]:
    done = []
    for amount in amounts:
        balance = yield from ctx.call_activity(deposit, amount)
        done.append(balance)
    yield ctx.wait_for_external_event("go")
    return done


# ---- several


@common.orchestrator
def child(ctx: OrchestrationContext, name: str) -> Orchestration[str]:
    """Fails as long as its name is broken; a name that begins with a small w waits first."""
    if name.startswith("w"):
        yield ctx.wait_for_external_event("go")
    return (yield from ctx.call_activity(work, name))


@common.orchestrator
def family(ctx: OrchestrationContext, names: list[str]) -> Orchestration[list[Any]]:
    """Children, of which one fails for good and one is tried again."""
    again = RetryPolicy(max_attempts=3, first_interval=HOUR)
    found: list[Any] = yield from when_all([ctx.call_sub_orchestrator(child, name) for name in names])
    try:
        yield ctx.call_sub_orchestrator(child, "black sheep", retry=again, instance_id=f"{ctx.instance_id}-sheep")
    except SubOrchestrationError as error:
        found.append(error.details.type)
    return found


@common.orchestrator
def wage(ctx: OrchestrationContext, n: int) -> Orchestration[int]:
    """Fails in its first attempt, where it is odd."""
    if n % 2 and not ctx.instance_id.endswith("2"):
        raise ValueError("odd")
    return (yield from ctx.call_activity(double, n))


@common.orchestrator
def batch(ctx: OrchestrationContext, width: int) -> Orchestration[list[Any]]:
    """Maps: over items, over pages, over children that are tried again, and with failures."""
    items = yield from ctx.map(double, range(width), concurrency=2)
    paged = yield from ctx.map(double, pages, concurrency=2)
    again = RetryPolicy(max_attempts=3, first_interval=HOUR)
    children = yield from ctx.map(wage, range(3), concurrency=2, retry=again)
    mixed = yield from ctx.map(double, [1, 13, 2], tolerated_failures=1)
    return [items.results, paged.results, children.results, mixed.succeeded, len(mixed.failures)]


@common.orchestrator
def trip(ctx: OrchestrationContext, n: int) -> Orchestration[str]:
    """A saga that comes to nothing: what was done is undone, children and a map that are under way are stopped first."""

    def body(saga: Saga) -> Orchestration[None]:
        yield from saga.run(work, work, f"flight {n}")
        saga.run(ctx.call_sub_orchestrator(child, f"wait {n}"), work, undo_input="undo child")
        saga.run(ctx.map(child, [f"w{i}" for i in range(4)], concurrency=2), work, undo_input="undo map")
        yield ctx.create_timer(HOUR)
        raise ValueError("no hotel")

    try:
        yield from ctx.saga(body, undo_retry=RetryPolicy(max_attempts=2, first_interval=HOUR))
    except ValueError as error:
        return f"undone: {error}"
    return "done"


@common.orchestrator
def fragile(ctx: OrchestrationContext, name: str) -> Orchestration[list[Any]]:
    """Fails in an activity of its own and in a child, as long as those are broken."""
    first = yield from ctx.call_activity(work, "kept")
    open_child = ctx.call_sub_orchestrator(child, f"w {name}")
    found = yield from when_all([ctx.call_activity(work, name), ctx.call_sub_orchestrator(child, f"{name} below")])
    last = yield from open_child
    return [first, *found, last]


# ---- entities


@common.entity
def tally(ctx: EntityContext[int | None], amount: int = 0) -> int:
    match ctx.operation:
        case "add":
            ctx.state = (ctx.state or 0) + amount
            if ctx.state == 100:
                ctx.start_orchestration("sleeps", 1, instance_id="party")
        case "pass":
            ctx.signal_entity("@tally@other", "add", amount)
        case "spoil":
            ctx.state = -1
            raise ValueError("spoilt")
        case "delete":
            ctx.state = None
    return ctx.state or 0


@common.orchestrator
def counts(ctx: OrchestrationContext, key: str) -> Orchestration[list[Any]]:
    """Signals, calls, failures, and a critical section in which the entity is asked so often that its history begins anew."""
    id = f"@tally@{key}"
    ctx.signal_entity(id, "add", 1)
    ctx.signal_entity(id, "add", 10, delay=HOUR)
    ctx.signal_entity(id, "pass", 5)
    found: list[Any] = [(yield from ctx.call_entity(id, "add", 2, result_type=int))]
    try:
        yield ctx.call_entity(id, "spoil")
    except EntityError as error:
        found.append(error.details.type)
    with (yield ctx.lock_entities([id, "@tally@other"])):
        for _ in range(8):
            counted = yield from ctx.call_entity(id, "add", 1, result_type=int)
            found.append(counted)
        yield ctx.create_timer(2 * HOUR)
    return found


@common.orchestrator
def holds(ctx: OrchestrationContext, key: str) -> Orchestration[int]:
    """Holds a lock until it is told to go on."""
    with (yield ctx.lock_entities([f"@tally@{key}"])):
        yield ctx.wait_for_external_event("go")
        return (yield from ctx.call_entity(f"@tally@{key}", "add", 1, result_type=int))


@common.orchestrator
def asks(ctx: OrchestrationContext, key: str) -> Orchestration[int]:
    return (yield from ctx.call_entity(f"@tally@{key}", "add", 1000, result_type=int))


# ---- versions: what was recorded under the first runs its code for ever


@common.orchestrator(name="changing", version="1")
def changing_at_first(ctx: OrchestrationContext) -> Orchestration[str]:
    yield ctx.call_activity(work, "first")
    yield ctx.wait_for_external_event("go")
    return "first"


@common.orchestrator(name="changing", version="2")
def changing_since(ctx: OrchestrationContext) -> Orchestration[str]:
    yield ctx.wait_for_external_event("go")
    return "second"


# ---- code that was wrong for a while: an instance that met it is parked, and goes on with the right one

app = App()
app.include(common)
wrong = App()
wrong.include(common)


@app.orchestrator
def moved(ctx: OrchestrationContext) -> Orchestration[Any]:
    return (yield from ctx.wait_for_external_event("go"))


@wrong.orchestrator(name="moved")
def moved_wrongly(ctx: OrchestrationContext) -> Orchestration[None]:
    yield ctx.create_timer(HOUR)
