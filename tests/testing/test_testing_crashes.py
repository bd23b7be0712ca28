"""Crashes at every point: right code comes to the same end wherever it is killed, and wrong code is found."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from replayflow import (
    App,
    InvalidArgumentError,
    OrchestrationContext,
    RetryPolicy,
    Transaction,
    UnknownNameError,
    when_all,
)
from replayflow.testing import crash_everywhere, in_turn

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


async def test_a_failure_names_what_was_written_and_its_point_can_be_tried_alone() -> None:
    with pytest.raises(AssertionError) as caught:
        await crash_everywhere(remembers)
    said = str(caught.value)
    assert "\nthe commit has: the start of 'remembers', activity 'double' (task 1)\n" in said
    assert said.endswith("this point alone: crash_everywhere(..., only=(1, 'before'))")
    with pytest.raises(AssertionError, match="killed after commit 2 of 2"):
        await crash_everywhere(remembers, only=(2, "after"))
    report = await crash_everywhere(child, 1, only=(1, "before"))
    assert (report.points, report.result) == (1, 2)
    with pytest.raises(InvalidArgumentError, match="numbers 1 to 2, each 'before' and 'after'"):
        await crash_everywhere(child, 1, only=(3, "before"))


async def test_what_does_not_end_after_a_kill_says_at_which_point() -> None:
    fickle = App()
    fickle.activity(name="double")(double)

    @fickle.orchestrator
    def changes(ctx: OrchestrationContext) -> Any:
        yield ctx.create_timer(timedelta(1)) if ctx.is_replaying else ctx.call_activity("double", 1)

    with pytest.raises(
        AssertionError, match=r"(?s)killed after commit 1 of 2, it does not end: .*the history has activity 'double'"
    ):
        await crash_everywhere(changes)


async def test_events_may_come_later() -> None:
    both = App()

    @both.orchestrator
    def waits_twice(ctx: OrchestrationContext) -> Any:
        began = ctx.current_utc_datetime
        found = []
        for name in ("first", "second"):
            try:
                value = yield ctx.wait_for_external_event(name, timeout=timedelta(hours=2))
            except TimeoutError:
                value = "nothing"
            found.append([value, round((ctx.current_utc_datetime - began) / timedelta(hours=1))])
        return found

    hours = [timedelta(hours=1), timedelta(hours=4)]
    report = await crash_everywhere(waits_twice, events=[("first", "a", hours[0]), ("second", "b", hours[1])])
    assert report.result == [["a", 1], ["nothing", 3]]
    report = await crash_everywhere(waits_twice, events=[("second", "early"), ("first", "a", hours[0])])
    assert report.result == [["a", 1], ["early", 1]]


async def test_attempts_that_come_to_this_and_then_to_that_do_so_through_every_crash() -> None:
    flaky = App()
    flaky.activity(name="double", retry=RetryPolicy(max_attempts=3, first_interval=timedelta(1)))(double)

    @flaky.orchestrator
    def persists(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity("double", 1))

    report = await crash_everywhere(persists, fakes={"double": in_turn(OSError("down"), OSError, 7)})
    assert report.result == 7


async def test_a_function_of_no_app_is_refused() -> None:
    def alone(ctx: OrchestrationContext) -> Any:
        yield ctx.create_timer(timedelta(1))

    with pytest.raises(UnknownNameError, match="'alone' is registered with no app"):
        await crash_everywhere(alone)
