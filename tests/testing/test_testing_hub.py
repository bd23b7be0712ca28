"""The virtual hub: time passes only while somebody waits, fakes stand in, and what would wait for ever says so."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    ActivityContext,
    App,
    Client,
    InvalidArgumentError,
    LeaseLostError,
    MemoryStore,
    NonRetryableError,
    OrchestrationContext,
    OrchestrationFailed,
    RetryPolicy,
    SqliteStore,
    Transaction,
    when_any,
)
from replayflow.errors import StuckError
from replayflow.store.base import Owner
from replayflow.testing import VirtualHub, in_turn

app = App()


@dataclass
class Order:
    id: str
    total: int


@app.activity(retry=RetryPolicy(max_attempts=4, first_interval=timedelta(hours=1)))
def charge(order: Order) -> str:
    raise AssertionError("the real one must not run")


@app.activity
async def note(ctx: ActivityContext, text: str) -> str:
    return f"{text} #{ctx.attempt}"


@app.orchestrator
def approved(ctx: OrchestrationContext, order: Order) -> Any:
    approval = ctx.wait_for_external_event("approved", type=bool)
    deadline = ctx.create_timer(timedelta(days=3))
    winner = yield when_any([approval, deadline])
    if winner is deadline:
        return "too late"
    receipt = yield ctx.call_activity(charge, order)
    return receipt


@app.orchestrator
def years(ctx: OrchestrationContext, n: int) -> Any:
    began = ctx.current_utc_datetime
    for _ in range(n):
        yield ctx.create_timer(timedelta(days=1))
    return (ctx.current_utc_datetime - began).days


@app.orchestrator
def waits(ctx: OrchestrationContext) -> Any:
    return (yield ctx.wait_for_external_event("never"))


@app.orchestrator
def needs_more(ctx: OrchestrationContext) -> Any:
    yield ctx.call_activity("elsewhere")


@app.orchestrator
def fickle(ctx: OrchestrationContext) -> Any:
    """Does another thing whenever it is replayed: what must not be."""
    for n in range(3):
        yield ctx.call_activity(note, f"{n}") if ctx.is_replaying else ctx.create_timer(timedelta(1))


ORDER = Order("o-1", 5)


async def test_a_year_passes_at_once() -> None:
    began = time.monotonic()
    async with VirtualHub(app) as hub:
        before = hub.now
        assert await hub.run(years, 365) == 365
        assert hub.now - before == timedelta(days=365)
    assert time.monotonic() - began < 60


async def test_time_stands_still_until_somebody_waits() -> None:
    async with VirtualHub(app, fakes={charge: "receipt"}) as hub:
        order = await hub.client.start(approved, ORDER)
        await hub.settle()
        await order.raise_event("approved", True)
        assert await order.result() == "receipt"


async def test_a_deadline_passes_while_somebody_waits() -> None:
    async with VirtualHub(app) as hub:
        assert await hub.run(approved, ORDER) == "too late"
        assert hub.calls == []


async def test_time_moves_as_far_as_it_is_told() -> None:
    async with VirtualHub(app) as hub:
        order = await hub.client.start(approved, ORDER)
        await hub.advance(timedelta(days=3) - timedelta(microseconds=1))
        assert (await order.status()).status == "RUNNING"
        await hub.advance(timedelta(microseconds=1))
        assert (await order.status()).output == "too late"
        with pytest.raises(InvalidArgumentError, match="time does not go back"):
            await hub.advance(timedelta(-1))


async def test_what_is_due_on_the_way_happens_at_its_own_time() -> None:
    async with VirtualHub(app) as hub:
        begin = hub.now
        several = await hub.client.start(years, 3)
        await hub.advance(timedelta(days=30))
        state = await several.status()
        assert state.completed_at == begin + timedelta(days=3)
        assert hub.now == begin + timedelta(days=30)


async def test_retries_take_no_time() -> None:
    attempts: list[int] = []

    def flaky(ctx: ActivityContext, order: Order) -> str:
        attempts.append(ctx.attempt)
        if ctx.attempt < 4:
            raise ValueError("not yet")
        return f"receipt for {order.total}"

    async with VirtualHub(app, fakes={"charge": flaky}) as hub:
        order = await hub.client.start(approved, ORDER)
        await order.raise_event("approved", True)
        assert await order.result() == "receipt for 5"
        assert attempts == [1, 2, 3, 4]
        assert [(call.activity, call.input) for call in hub.calls] == [("charge", ORDER)] * 4


@pytest.mark.parametrize("error", [NonRetryableError("no card"), NonRetryableError])
async def test_a_fake_may_fail(error: Any) -> None:
    async with VirtualHub(app, fakes={charge: error}) as hub:
        order = await hub.client.start(approved, ORDER)
        await order.raise_event("approved", True)
        with pytest.raises(OrchestrationFailed, match="NonRetryableError"):
            await order.result()


async def test_a_transactional_activity_runs_on_a_hub_in_memory_and_may_be_faked() -> None:
    bank = App()

    @bank.activity(transactional=True)
    def deposit(tx: Transaction, amount: int) -> int:
        tx.execute("CREATE TABLE IF NOT EXISTS account (balance INTEGER NOT NULL)")
        tx.execute("INSERT INTO account VALUES (?)", (amount,))
        [(balance,)] = tx.execute("SELECT sum(balance) FROM account")
        return int(balance)

    @bank.orchestrator
    def saves(ctx: OrchestrationContext) -> Any:
        first = yield ctx.call_activity(deposit, 5)
        second = yield ctx.call_activity(deposit, 7)
        return [first, second]

    async with VirtualHub(bank) as hub:
        assert await hub.run(saves) == [5, 12]
        assert [(call.activity, call.input) for call in hub.calls] == [("deposit", 5), ("deposit", 7)]
    async with VirtualHub(bank, fakes={deposit: lambda amount: -amount}) as hub:
        assert await hub.run(saves) == [-5, -7]


async def test_attempts_come_to_this_and_then_to_that_and_what_they_were_given_is_known() -> None:
    down = ConnectionError("down")
    async with VirtualHub(app, fakes={charge: in_turn(down, ConnectionError, "receipt")}) as hub:
        for id in ("a", "b"):  # each call begins anew
            order = await hub.client.start(approved, Order(id, 1))
            await order.raise_event("approved", True)
            assert await order.result() == "receipt"
        assert hub.inputs_of(charge) == [Order("a", 1)] * 3 + [Order("b", 1)] * 3
        assert hub.inputs_of("note") == []
        with pytest.raises(InvalidArgumentError, match="inputs_of: the app has no activity 'chrage'"):
            hub.inputs_of("chrage")
    with pytest.raises(InvalidArgumentError, match="nothing"):
        in_turn()


async def test_what_a_fixed_fake_was_given_is_known_too() -> None:
    async with VirtualHub(app, fakes={charge: "receipt"}) as hub:
        order = await hub.client.start(approved, ORDER)
        await order.raise_event("approved", True)
        await order.result()
        assert hub.inputs_of(charge) == [ORDER]


async def test_a_fake_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="the app has no activity 'chrage'; it has: charge, note"):
        VirtualHub(app, fakes={"chrage": 1})


async def test_the_app_is_left_as_it_is() -> None:
    before = dict(app.activities)
    async with VirtualHub(app, fakes={charge: "receipt"}):
        pass
    assert app.activities == before


async def test_what_would_wait_for_ever_says_so_at_once() -> None:
    async with VirtualHub(app) as hub:
        with pytest.raises(StuckError, match="will never end: it is RUNNING"):
            await hub.run(waits)
        with pytest.raises(StuckError, match="parked: no activity 'elsewhere' is registered"):
            await hub.run(needs_more)


async def test_code_that_does_not_replay_shows_under_always_replay() -> None:
    async with VirtualHub(app) as hub:
        assert await hub.run(fickle) is None
    async with VirtualHub(app, always_replay=True) as hub:
        with pytest.raises(StuckError, match=r"parked: .* the history has timer"):
            await hub.run(fickle)


async def test_good_code_comes_to_the_same_under_always_replay() -> None:
    async with VirtualHub(app, always_replay=True, fakes={charge: lambda order: order.id}) as hub:
        assert await hub.run(years, 5) == 5
        order = await hub.client.start(approved, ORDER)
        await order.raise_event("approved", True)
        assert await order.result() == "o-1"


async def test_a_worker_that_is_killed_is_followed_by_another() -> None:
    async with VirtualHub(app) as hub:
        await hub.client.start(approved, ORDER, instance_id="o")
        await hub.settle()
        await hub.restart()
        assert await hub.client.get("o").result() == "too late"


async def test_a_closed_hub_says_so() -> None:
    hub = VirtualHub(app)
    with pytest.raises(InvalidArgumentError, match="the hub is not open"):
        _ = hub.client
    with pytest.raises(InvalidArgumentError, match="the hub is not open"):
        await hub.settle()


@pytest.mark.parametrize("always_replay", [False, True])
async def test_a_hub_in_a_file_has_the_virtual_time_too(tmp_path: Path, always_replay: bool) -> None:
    store = SqliteStore(tmp_path / "hub.db")
    async with VirtualHub(app, fakes={charge: "receipt"}, store=store, always_replay=always_replay) as hub:
        assert await hub.run(years, 5) == 5
        order = await hub.client.start(approved, ORDER)
        await hub.restart()
        await hub.advance(timedelta(days=3) - timedelta(microseconds=1))
        assert (await hub.client.get(order.id).status()).status == "RUNNING"
        assert await hub.client.get(order.id).result() == "too late"
        waiting = await hub.client.start(waits)
        with pytest.raises(StuckError):
            await waiting.result()
    async with Client(tmp_path / "hub.db") as client:
        assert (await client.get(order.id).status()).output == "too late"


async def test_a_hub_that_has_lost_its_store_says_so_where_it_would_never_be_quiet() -> None:
    store = MemoryStore()
    hub = await VirtualHub(app, store=store).__aenter__()
    await hub.client.start(waits, instance_id="i")
    await store.release()
    await store.acquire(Owner(1, "elsewhere", 0))
    with pytest.raises(LeaseLostError):
        await hub.client.get("i").raise_event("x")
    with pytest.raises(LeaseLostError):
        await hub.settle()
    with pytest.raises(LeaseLostError):
        await hub.advance(timedelta(days=1))
    with pytest.raises(LeaseLostError):
        await hub.__aexit__(None, None, None)
