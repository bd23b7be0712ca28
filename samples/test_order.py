"""How orchestrations are tested: a file to copy, with `samples/order_saga.py`. `pytest samples/test_order.py` runs it as it stands
(with pytest-asyncio in mode "auto").

What is tested is the saga of `samples/order_saga.py`, and an approval that may not come in time. docs/testing.md explains each kind of test.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    ActivityContext,
    App,
    NonDeterminismError,
    NonRetryableError,
    Orchestration,
    OrchestrationContext,
    OrchestrationFailed,
    RetryPolicy,
)
from replayflow.testing import VirtualHub, check_history, crash_everywhere, in_turn, save_history
from samples.order_saga import Order, Outcome, app, call_back, charge, order_saga, refund, release, reserve, ship

KITE = Order("o-1", "a kite", "Lisbon")
ATLANTIS = Order("o-2", "a harpoon", "Atlantis")

# ---- an orchestration of one's own, to have something with time in it

shop = App()


@shop.activity(retry=RetryPolicy(max_attempts=4, first_interval=timedelta(minutes=5)))
def pay(amount: int) -> str:
    raise NotImplementedError("talks to the bank: a test has to put something in its place")


@shop.orchestrator
def purchase(ctx: OrchestrationContext, amount: int) -> Orchestration[str]:
    """Waits three days for an approval, and pays."""
    try:
        approved = yield from ctx.wait_for_external_event("approved", type=bool, timeout=timedelta(days=3))
    except TimeoutError:
        return "nobody has answered"
    if not approved:
        return "refused"
    return (yield from ctx.call_activity(pay, amount))


# ---- straight through: activities are replaced, and what they were given is looked at


async def test_an_order_is_reserved_paid_and_shipped() -> None:
    fakes = {reserve: "r-1", charge: "p-1", ship: "parcel 7"}
    async with VirtualHub(app, fakes=fakes) as hub:
        outcome = await hub.run(order_saga, KITE)
        assert outcome == Outcome(shipped=True, message="parcel 7")
        assert [call.activity for call in hub.calls] == ["reserve", "charge", "ship"]
        assert hub.inputs_of(charge) == [KITE]


# ---- failures: a fake raises, and what was done is undone


async def test_what_cannot_be_shipped_is_paid_back_and_released() -> None:
    fakes = {ship: NonRetryableError("the sea is too deep"), call_back: None, refund: None, release: None}
    async with VirtualHub(app, fakes=fakes) as hub:
        outcome = await hub.run(order_saga, ATLANTIS)
        assert not outcome.shipped
        assert "the sea is too deep" in outcome.message
        assert [call.activity for call in hub.calls[3:]] == ["call_back", "refund", "release"]  # the last first


# ---- time: it stands still until the test waits for an end, and then jumps


async def test_an_approval_in_time_is_heard() -> None:
    async with VirtualHub(shop, fakes={pay: "receipt 1"}) as hub:
        instance = await hub.client.start(purchase, 100)
        await hub.advance(timedelta(days=2, hours=23))
        await instance.raise_event("approved", True)
        assert await instance.result() == "receipt 1"


async def test_three_days_without_an_answer_are_the_end() -> None:
    async with VirtualHub(shop) as hub:
        began = hub.now
        assert await hub.run(purchase, 100) == "nobody has answered"
        assert hub.now - began == timedelta(days=3)


async def test_a_bank_that_is_down_is_asked_again() -> None:
    down = ConnectionError("the bank is down")
    async with VirtualHub(shop, fakes={pay: in_turn(down, down, "receipt 1")}) as hub:
        instance = await hub.client.start(purchase, 100)
        await instance.raise_event("approved", True)
        assert await instance.result() == "receipt 1"
        assert hub.inputs_of(pay) == [100, 100, 100]


async def test_a_bank_that_stays_down_fails_the_purchase() -> None:
    def unreachable(ctx: ActivityContext, amount: int) -> str:
        raise ConnectionError(f"attempt {ctx.attempt} for {amount}")

    async with VirtualHub(shop, fakes={pay: unreachable}) as hub:
        instance = await hub.client.start(purchase, 100)
        await instance.raise_event("approved", True)
        with pytest.raises(OrchestrationFailed, match="attempt 4 for 100") as failed:
            await instance.result()
        assert failed.value.details.is_caused_by(ConnectionError)


# ---- crashes: the worker is killed at every point at which it can be


async def test_a_purchase_survives_every_crash() -> None:
    approval = ("approved", True, timedelta(days=1))
    report = await crash_everywhere(purchase, 100, fakes={pay: "receipt 1"}, events=[approval])
    assert report.result == "receipt 1"
    assert report.most_runs["pay"] == 2  # it can run again: the bank has to know the order by its idempotency key


async def test_an_order_is_undone_through_every_crash() -> None:
    report = await crash_everywhere(order_saga, ATLANTIS)
    assert not report.result.shipped


# ---- determinism: every step is replayed from the beginning


async def test_an_order_replays() -> None:
    async with VirtualHub(app, always_replay=True) as hub:
        assert (await hub.run(order_saga, KITE)).shipped


# ---- golden histories: what has happened once holds every later version of the code


@pytest.fixture
async def golden(tmp_path: Path) -> Path:
    """A history as it would be checked in; yours stands in a folder beside the tests, and was recorded once."""
    file = tmp_path / "purchase.jsonl"
    async with VirtualHub(shop, fakes={pay: "receipt 1"}) as hub:
        instance = await hub.client.start(purchase, 100)
        await instance.raise_event("approved", True)
        await instance.wait()
        await save_history(hub.client, instance, file)
    return file


def test_the_code_fits_what_it_has_done_before(golden: Path) -> None:
    assert check_history(shop, golden) == 1


def test_a_change_that_would_strand_running_purchases_is_found(golden: Path) -> None:
    changed = App()
    changed.activity(name="pay")(pay)

    @changed.orchestrator(name="purchase")
    def in_another_order(ctx: OrchestrationContext, amount: int) -> Orchestration[Any]:
        receipt = yield from ctx.call_activity("pay", amount)
        yield ctx.wait_for_external_event("approved")
        return receipt

    with pytest.raises(NonDeterminismError, match="the history has timer"):
        check_history(changed, golden)
