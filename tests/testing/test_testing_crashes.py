"""Crashes at every point: right code comes to the same end wherever it is killed, and wrong code is found."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from replayflow import App, OrchestrationContext, RetryPolicy, Transaction, UnknownNameError, when_all
from replayflow.testing import crash_everywhere

app = App()
held: list[int] = []


@app.activity
async def double(x: int) -> int:
    return 2 * x


@app.activity(retry=RetryPolicy(max_attempts=3, first_interval=timedelta(minutes=1)))
async def broken(x: int) -> int:
    raise ValueError(f"no {x}")


@app.orchestrator
def child(ctx: OrchestrationContext, x: int) -> Any:
    return (yield ctx.call_activity(double, x))


@app.orchestrator
def everything(ctx: OrchestrationContext, n: int) -> Any:
    doubled = yield when_all([ctx.call_activity(double, i) for i in range(n)])
    yield ctx.create_timer(timedelta(days=7))
    below = yield ctx.call_sub_orchestrator(child, 21)
    mapped = yield ctx.map(double, range(5))
    name = yield ctx.wait_for_external_event("name")
    ctx.set_custom_status("nearly")
    return [doubled, below, mapped.results, name]


@app.orchestrator
def fails(ctx: OrchestrationContext) -> Any:
    yield ctx.call_activity(broken, 1)


@app.orchestrator
def remembers(ctx: OrchestrationContext) -> Any:
    """Keeps something outside of its history: what must not be."""
    held.append(1)  # replayflow: ignore[RFL10] - that is what is to be found
    yield ctx.call_activity(double, 1)
    return len(held)


@pytest.mark.parametrize("always_replay", [False, True])
async def test_right_code_comes_to_the_same_end_wherever_it_is_killed(always_replay: bool) -> None:
    report = await crash_everywhere(everything, 3, events=[("name", "Ada")], always_replay=always_replay)
    assert report.result == [[0, 2, 4], 42, [0, 2, 4, 6, 8], "Ada"]
    assert report.points >= 16
    assert report.status == "COMPLETED"


async def test_so_does_what_fails() -> None:
    report = await crash_everywhere(fails)
    assert report.status == "FAILED"
    assert report.failure is not None
    assert report.failure.is_caused_by(ValueError)
    assert report.most_runs["broken"] >= 3


async def test_an_activity_runs_again_where_its_result_was_not_durable() -> None:
    report = await crash_everywhere(child, 1, fakes={double: 7})
    assert report.result == 7
    assert report.most_runs["double"] == 2


async def test_a_transactional_activity_is_killed_before_and_after_its_commit_and_its_writes_count_once() -> None:
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
        return [first, (yield ctx.call_activity(deposit, 7))]

    report = await crash_everywhere(saves, app=bank)
    assert report.result == [5, 12]
    # Two deposits, which bring their results along, and the writes of the engine: the start with its first episode, and one for each result.
    assert report.points >= 2 * (2 + 3)
    assert report.most_runs == {"deposit": 2}  # one for each: none ran twice


async def test_wrong_code_is_found_with_the_point_at_which_it_shows() -> None:
    with pytest.raises(AssertionError, match=r"killed (before|after) commit \d+ of \d+, it ends otherwise: COMPLETED"):
        await crash_everywhere(remembers)


async def test_a_function_of_no_app_is_refused() -> None:
    def alone(ctx: OrchestrationContext) -> Any:
        yield ctx.create_timer(timedelta(1))

    with pytest.raises(UnknownNameError, match="'alone' is registered with no app"):
        await crash_everywhere(alone)
