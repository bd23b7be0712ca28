"""Durable first, visible after: nothing that an episode decided can be seen before its commit is on disk, and what failed never happened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replayflow import (
    ActivityError,
    App,
    InstanceExistsError,
    Limits,
    Orchestration,
    OrchestrationContext,
    RetryPolicy,
    TaskHub,
    when_all,
)
from replayflow.core import events
from replayflow.core.activity_context import ActivityContext
from replayflow.core.commit import Commit
from replayflow.engine import patience
from replayflow.errors import LeaseLostError, ReplayflowError, StoreBusyError, StoreError, StoreFullError
from replayflow.store.base import Operation, Outcome
from tests.engine.kit import Counted, ToldStore, audit, history_of, hub_on, turns, until, until_state, within

FULL = StoreFullError("the disk is full")
BUSY = StoreBusyError("somebody holds it")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_SECONDS", 0.002)
    monkeypatch.setattr(patience, "_LAST_SECONDS", 0.01)


class Bench:
    """An app whose calls are counted, on a store that does as it is told."""

    def __init__(self) -> None:
        self.store = ToldStore()
        self.app = App()
        self.ran: Counted[Any] = Counted()
        self.go = asyncio.Event()
        self.go.set()

        @self.app.activity
        async def double(ctx: ActivityContext, x: int) -> int:
            self.ran(f"{ctx.instance_id}/{x}")
            await self.go.wait()
            return 2 * x

        @self.app.orchestrator
        def one(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
            return (yield from ctx.call_activity(double, x))

        @self.app.orchestrator
        def chain(ctx: OrchestrationContext, length: int) -> Orchestration[int]:
            total = 0
            for x in range(length):
                total += yield from ctx.call_activity(double, x)
            return total

        @self.app.orchestrator
        def waits(ctx: OrchestrationContext) -> Orchestration[int]:
            return (yield from ctx.wait_for_external_event("go", type=int))

        @self.app.orchestrator
        def sends(ctx: OrchestrationContext, to: str) -> Orchestration[None]:
            ctx.send_event(to, "go", 7)
            yield from ctx.wait_for_external_event("end")

        @self.app.orchestrator
        def parent(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
            return (yield from ctx.call_sub_orchestrator(one, x, instance_id="child"))

        @self.app.orchestrator
        def mixed(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
            first = yield from when_all([ctx.call_activity(double, i) for i in range(x)])
            yield from ctx.create_timer(timedelta(milliseconds=1))
            child = yield from ctx.call_sub_orchestrator(one, x)
            added = yield from ctx.wait_for_external_event("go", type=int)
            return sum(first) + child + added

        @self.app.orchestrator
        def instant(ctx: OrchestrationContext, x: int) -> int:
            return x

    def hub(self, **options: Any) -> TaskHub:
        return hub_on(self.store, self.app, **options)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_no_activity_starts_before_the_commit_that_scheduled_it(bench: Bench) -> None:
    async with bench.hub() as hub:
        with bench.store.holding():
            starting = asyncio.create_task(hub.client.start("one", 1, instance_id="a"))
            await until(lambda: bench.store.attempts)
            await turns()
            assert not bench.ran.calls
            assert not starting.done()
        assert await (await starting).result(5) == 2


async def test_no_message_and_no_child_is_seen_before_the_commit_that_sent_it(bench: Bench) -> None:
    async with bench.hub() as hub:
        receiver = await hub.client.start("waits", instance_id="receiver")
        with bench.store.holding():
            attempts = bench.store.attempts
            sending = [
                asyncio.create_task(hub.client.start("sends", "receiver", instance_id="sender")),
                asyncio.create_task(hub.client.start("parent", 4, instance_id="parent")),
            ]
            await until(lambda: bench.store.attempts > attempts)
            await turns()
            assert (await receiver.status()).status == "RUNNING"
            assert await bench.store.get("child") is None
            assert not bench.ran.calls
        assert await receiver.result(5) == 7
        assert await (await sending[1]).result(5) == 8
        await (await sending[0]).raise_event("end")


async def test_nobody_who_waits_wakes_before_the_end_is_durable(bench: Bench) -> None:
    async with bench.hub() as hub:
        waiting = await hub.client.start("waits")
        result = asyncio.create_task(waiting.result())
        await waiting.raise_event("go", 3)
        with bench.store.holding():
            pass
        assert await within(5, result) == 3

        second = await hub.client.start("one", 5, instance_id="second")
        bench.go.clear()
        result = asyncio.create_task(second.result())
        with bench.store.holding():
            bench.go.set()
            attempts = bench.store.attempts
            await until(lambda: bench.store.attempts > attempts or result.done())
            await turns()
            assert not result.done()
        assert await within(5, result) == 10


async def test_a_failed_group_is_decided_again_when_the_store_works_and_no_activity_runs_twice(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.hub() as hub:
        bench.go.clear()
        started = [await hub.client.start("chain", 3, instance_id=f"c{i}") for i in range(20)]
        bench.store.fail_always(FULL)
        bench.go.set()
        attempts = bench.store.attempts
        await until(lambda: bench.store.attempts > attempts + 5, "several attempts")
        bench.store.work()
        assert [await one.result(10) for one in started] == [6] * 20
        assert set(bench.ran.calls.values()) == {1}
        await audit(hub.client)
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == 1, "once per streak"
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "the store works again"
    ]


async def test_clients_in_flight_get_the_error_and_nothing_of_theirs_is_written(bench: Bench) -> None:
    async with bench.hub() as hub:
        waiting = await hub.client.start("waits", instance_id="w")
        bench.store.fail_always(BUSY)
        for attempt in (
            hub.client.start("instant", 1, instance_id="x"),
            waiting.raise_event("go", 1),
            waiting.terminate(),
        ):
            with pytest.raises(StoreBusyError):
                await attempt
        bench.store.work()
        assert await bench.store.get("x") is None
        assert await bench.store.arrived(0, 10) == []
        assert await (await hub.client.start("instant", 2, instance_id="x")).result(5) == 2
        await waiting.raise_event("go", 9)
        assert await waiting.result(5) == 9


async def test_after_a_failure_that_only_a_client_met_the_worker_still_settles_down_at_its_end(bench: Bench) -> None:
    async with bench.hub(limits=Limits(grace=timedelta(seconds=5))) as hub:
        bench.go.clear()
        slow = await hub.client.start("one", 3, instance_id="slow")
        await until(lambda: bench.ran.calls)
        bench.store.fail_with(BUSY)
        with pytest.raises(StoreBusyError):
            await hub.client.start("instant", 1)
        asyncio.get_running_loop().call_later(0.02, bench.go.set)
    async with bench.hub() as hub:
        assert await hub.client.get(slow.id).result(5) == 6
    assert set(bench.ran.calls.values()) == {1}


async def test_many_failures_that_come_together_do_not_make_the_pause_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_SECONDS", 30.0)
    monkeypatch.setattr(patience, "_LAST_SECONDS", 3_000.0)
    backoff = patience.Backoff()
    for _ in range(5):
        backoff.failed(FULL)
    assert backoff.seconds == 30.0
    backoff.succeeded()
    assert backoff.seconds == 0


async def test_a_refused_commit_reloads_its_instance_alone(bench: Bench) -> None:
    async with bench.hub() as hub:
        bench.go.clear()
        started = [await hub.client.start("chain", 2, instance_id=f"c{i}") for i in range(5)]
        await until(lambda: len(bench.ran.calls) == 5)
        refused: list[str] = []

        def refuse_once(commit: Commit) -> bool:
            if commit.instance_id == "c3" and not refused:
                refused.append(commit.instance_id)
                return True
            return False

        bench.store.refuses = refuse_once
        bench.store.loads.clear()
        bench.go.set()
        assert [await one.result(5) for one in started] == [2] * 5
        assert refused == ["c3"]
        assert bench.store.loads == ["c3"]
        assert set(bench.ran.calls.values()) == {1}
        await audit(hub.client)


async def test_a_refused_end_loses_no_result_and_runs_nothing_again(bench: Bench) -> None:
    ran: Counted[str] = Counted()
    slow_may_go, fast_may_go = asyncio.Event(), asyncio.Event()

    @bench.app.activity
    async def slow() -> str:
        ran("slow")
        await slow_may_go.wait()
        return "slow"

    @bench.app.activity
    async def fast() -> str:
        ran("fast")
        await fast_may_go.wait()
        return "fast"

    @bench.app.orchestrator
    def leaves_one(ctx: OrchestrationContext) -> Orchestration[str]:
        ctx.call_activity(slow)
        return (yield from ctx.call_activity(fast))

    async with bench.hub() as hub:
        left = await hub.client.start(leaves_one)
        await until(lambda: ran.calls.total() == 2)
        bench.store.fail_with(BUSY)
        with bench.store.holding():
            attempts = bench.store.attempts
            fast_may_go.set()
            await until(lambda: bench.store.attempts > attempts)
            slow_may_go.set()  # it ends while the end of its orchestration is on its way to the disk, and never gets there
            await turns()
        assert await left.result(5) == "fast"
        await turns()
    assert ran.calls == {"slow": 1, "fast": 1}


async def test_an_attempt_whose_failure_could_not_be_written_at_once_counts_once_and_is_not_made_again(
    bench: Bench,
) -> None:
    """The second attempt has failed, the commit that says so does not go through, and the instance is read again: its retry is set, and over."""
    attempts: list[int] = []

    @bench.app.activity
    async def fails(ctx: ActivityContext) -> None:
        attempts.append(ctx.attempt)
        if len(attempts) == 2:
            bench.store.fail_with(BUSY)
        raise ValueError(f"attempt {ctx.attempt}")

    @bench.app.orchestrator
    def tries(ctx: OrchestrationContext) -> Orchestration[str]:
        try:
            yield ctx.call_activity(fails, retry=RetryPolicy(max_attempts=4, first_interval=timedelta(0)))
        except ActivityError as error:
            return str(error.details.message)
        return "done"

    async with hub_on(bench.store, bench.app) as hub:
        instance = await hub.client.start(tries)
        assert await instance.result(timeout=10) == "attempt 4"
        assert attempts == [1, 2, 3, 4]
        history = await history_of(hub.client, instance.id)
    assert [event.attempt for event in history if isinstance(event, events.TaskAttemptFailed)] == [1, 2, 3]


@pytest.mark.parametrize("turns_between", range(12))
async def test_an_attempt_that_ends_while_its_instance_is_read_again_is_not_made_again(
    bench: Bench, turns_between: int
) -> None:
    """Whoever reads an instance sets the alarm of a retry that is under way. It may end before that rings, and before its end is written."""
    attempts: list[int] = []
    may_end = asyncio.Event()

    @bench.app.activity
    async def fails_once(ctx: ActivityContext) -> int:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            raise ValueError("not yet")
        await may_end.wait()
        return ctx.attempt

    @bench.app.orchestrator
    def tries(ctx: OrchestrationContext) -> Orchestration[list[Any]]:
        retry = RetryPolicy(max_attempts=3, first_interval=timedelta(0))
        return (
            yield from when_all(
                [ctx.call_activity(fails_once, retry=retry), ctx.wait_for_external_event("go", type=int)]
            )
        )

    async with bench.hub() as hub:
        assert hub._engine is not None
        instance = await hub.client.start(tries)
        await until(lambda: attempts == [1, 2], "the second attempt is under way")
        bench.store.loading.clear()
        hub._engine.cool_all()
        await instance.raise_event("go", 7)  # it is read again for this
        await until(lambda: instance.id in bench.store.loads, "it is read again")
        bench.store.loading.set()
        await turns(turns_between)
        may_end.set()
        assert await instance.result(timeout=5) == [2, 7]
        assert attempts == [1, 2]


async def test_a_suspension_that_the_next_execution_has_not_begun_with_can_be_taken_back(bench: Bench) -> None:
    """It is in no inbox any more, and the row says PENDING: it stands in the start of the execution that comes next."""

    @bench.app.orchestrator
    def loops(ctx: OrchestrationContext, left: int) -> Orchestration[int]:
        if not left:
            return 7
        yield from ctx.wait_for_external_event("go")
        ctx.continue_as_new(left - 1)
        return 0

    bench.store.failing = lambda operations: (
        BUSY if any(isinstance(o, Commit) and o.next_start is None and o.sequence > 2 for o in operations) else None
    )
    async with bench.hub() as hub:
        instance = await hub.client.start(loops, 1)
        with bench.store.holding():
            asked = asyncio.gather(instance.raise_event("go"), instance.suspend())
            await turns()
        await asked
        await until_state(instance, lambda state: state.status == "PENDING")
        resumed = asyncio.create_task(instance.resume())
        await turns()
        bench.store.work()
        await resumed
        assert await instance.result(timeout=5) == 7


async def test_a_message_that_is_loaded_with_its_receiver_before_its_sender_hears_of_it_is_taken_once(
    bench: Bench,
) -> None:
    """What is loaded stands on the whole inbox, also on what the commit under way has put there."""
    told = asyncio.Event()
    told.set()

    class Late(ToldStore):
        async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
            outcomes = await super().write(operations, epoch)
            await told.wait()
            return outcomes

    store = bench.store = Late()

    @bench.app.orchestrator
    def listens(ctx: OrchestrationContext) -> Orchestration[list[int]]:
        heard = yield from ctx.wait_for_external_event("go", type=int)
        return [heard, (yield from ctx.wait_for_external_event("go", type=int))]

    async with bench.hub() as hub:
        assert hub._engine is not None
        listener = await hub.client.start(listens, instance_id="listener")
        await until(lambda: hub._engine is not None and hub._engine.is_idle, "it listens")
        hub._engine.cool_all()
        told.clear()
        store.reading.clear()
        sending = asyncio.create_task(hub.client.start("sends", "listener"))
        await until(lambda: any(isinstance(o, Commit) and o.messages for o in store.written), "the message is written")
        hub._engine._residents.look_at("listener")
        await until(lambda: "listener" in store.loads, "it is loaded")
        await turns()
        told.set()
        await sending
        store.reading.set()
        await listener.raise_event("go", 8)
        assert await listener.result(timeout=5) == [7, 8]


async def test_an_owed_activity_that_ends_while_its_instance_is_read_again_keeps_nobody_from_going_on(
    bench: Bench,
) -> None:
    """An execution that has given way owes the run of an activity. What the next one decides is not written at first, and while that is read again
    the activity ends."""
    bench.go.clear()
    refused: list[Commit] = []

    @bench.app.orchestrator
    def hands_over(ctx: OrchestrationContext, left: int) -> Orchestration[str]:
        if left:
            ctx.call_activity("double", 1)
            ctx.continue_as_new(left - 1)
            return ""
        yield from ctx.call_activity("double", 2)
        return "done"

    def fails_once(operations: Sequence[Operation]) -> ReplayflowError | None:
        second = [o for o in operations if isinstance(o, Commit) and o.next_start is None and o.chunk is not None]
        if refused or not second:
            return None
        refused.extend(second)
        bench.store.loading.clear()
        return BUSY

    bench.store.failing = fails_once
    async with bench.hub() as hub:
        instance = await hub.client.start(hands_over, 1)
        await until(lambda: instance.id in bench.store.loads, "it is read again")
        with bench.store.holding():
            bench.go.set()
            await turns()
            bench.store.loading.set()
            await turns()
        assert await instance.result(timeout=5) == "done"
    assert bench.ran.calls == {f"{instance.id}/1": 1, f"{instance.id}/2": 1}


async def test_a_lost_lease_stops_the_worker_and_everybody_is_told(bench: Bench) -> None:
    async def work() -> None:
        async with bench.hub() as hub:
            waiting = await hub.client.start("waits")
            result = asyncio.create_task(waiting.result())
            serving = asyncio.create_task(hub.serve())
            await turns()
            bench.store._epoch += 1  # another worker has it
            in_flight = [asyncio.create_task(hub.client.start("instant", i)) for i in range(3)]
            for task in (*in_flight, result, serving):
                with pytest.raises(LeaseLostError):
                    await within(5, task)
            with pytest.raises(LeaseLostError):
                await hub.client.start("instant", 5)
            with pytest.raises(LeaseLostError):
                await waiting.result(5)

    with pytest.raises(LeaseLostError):
        await work()


async def test_requests_that_wait_in_line_behind_a_lost_lease_get_the_error(bench: Bench) -> None:
    async def work() -> None:
        async with bench.hub() as hub:
            bench.store.gate.clear()
            first = asyncio.create_task(hub.client.start("waits"))
            await until(lambda: bench.store.attempts)
            behind = [asyncio.create_task(hub.client.start("waits")) for _ in range(2_500)]  # several groups
            await turns()
            bench.store._epoch += 1
            bench.store.gate.set()
            for task in (first, *behind):
                with pytest.raises(LeaseLostError):
                    await within(5, task)

    with pytest.raises(LeaseLostError):
        await work()


async def test_an_error_inside_the_block_is_not_hidden_by_a_lost_lease(bench: Bench) -> None:
    async def work() -> None:
        async with bench.hub() as hub:
            bench.store._epoch += 1
            with suppress(LeaseLostError):
                await hub.client.start("instant", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()


async def test_an_unexpected_error_of_the_store_stops_the_worker_loudly(bench: Bench) -> None:
    class Broken(ToldStore):
        is_broken = False

        async def load(self, instance_ids: Any) -> Any:
            if self.is_broken:
                raise ZeroDivisionError
            return await super().load(instance_ids)

    store = bench.store = Broken()

    async def work() -> None:
        async with bench.hub(limits=Limits(warm_instances=1)) as hub:
            waiting = [await hub.client.start("waits") for _ in range(3)]
            store.is_broken = True
            await waiting[0].raise_event("go", 1)  # it has to be loaded for that
            with pytest.raises(ReplayflowError, match="ZeroDivisionError"):
                await within(5, waiting[0].result())
            with pytest.raises(ReplayflowError, match="ZeroDivisionError"):
                await within(5, hub.client.start("instant", 1))

    with pytest.raises(ReplayflowError, match="ZeroDivisionError"):
        await work()


async def test_a_hub_that_closes_tells_those_who_still_wait(bench: Bench) -> None:
    async with bench.hub() as hub:
        client = hub.client
        waiting = await client.start("waits")
        result = asyncio.create_task(waiting.result())
        await turns()
    with pytest.raises(StoreError, match="closed"):
        await within(5, result)
    for late in (client.start("instant", 1), waiting.raise_event("go"), waiting.result()):
        with pytest.raises(StoreError, match="not open"):
            await within(5, late)
    async with bench.hub() as hub:
        await hub.client.get(waiting.id).raise_event("go", 1)
        assert await hub.client.get(waiting.id).result(5) == 1


async def test_a_hub_that_never_got_to_run_tells_late_clients_so(bench: Bench) -> None:
    async with bench.hub() as hub:
        client = hub.client
    with pytest.raises(StoreError):
        await within(5, client.start("instant", 1))


async def test_what_cannot_be_stored_parks_its_instance_and_is_not_tried_for_ever(bench: Bench) -> None:
    @bench.app.orchestrator
    def unstorable(ctx: OrchestrationContext) -> Orchestration[Any]:
        yield from ctx.wait_for_external_event("go")
        return (yield from ctx.call_sub_orchestrator("\ud800", 1))

    async with bench.hub() as hub:
        bad = await hub.client.start(unstorable)
        good = await hub.client.start("waits")
        await bad.raise_event("go")
        await good.raise_event("go", 1)
        assert await good.result(5) == 1
        await until_state(bad, lambda state: "no Unicode text" in (state.problem or ""))
        attempts = bench.store.attempts
        await turns(200)
        assert bench.store.attempts <= attempts + 1
        await bad.terminate()
        assert (await bad.wait(5)).status == "TERMINATED"


async def test_a_replacement_of_a_finished_instance_is_no_conflict(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.hub() as hub:
        assert await (await hub.client.start("instant", 1, instance_id="x")).result(5) == 1
        again = await hub.client.start("instant", 2, instance_id="x", on_existing="replace_finished")
        await until(lambda: len(bench.store.written) >= 4)
        assert await again.result(5) == 2
    assert not caplog.records


async def test_a_message_that_was_read_while_it_was_consumed_is_delivered_once(bench: Bench) -> None:
    """A foreign write makes the worker read; what it reads it may have consumed by the time that the reading returns."""
    got: list[int] = []

    @bench.app.orchestrator
    def collects(ctx: OrchestrationContext) -> Orchestration[list[int]]:
        while (item := (yield from ctx.wait_for_external_event("item", type=int))) >= 0:
            got.append(item)
        return got

    async with bench.hub() as hub:
        one = await hub.client.start(collects, instance_id="one")
        await turns(100)
        bench.store.reading.clear()
        with bench.store.holding():
            posting = asyncio.create_task(one.raise_event("item", 1))
            await turns()
        await posting  # the write has called the reader, which has read the message and returns later
        await until(lambda: any(isinstance(op, Commit) and list(op.consumed) for op in bench.store.written))
        await turns(100)
        bench.store.reading.set()
        await turns(100)
        await one.raise_event("item", -1)
        assert await one.result(5) == [1]
        await audit(hub.client)


async def test_a_message_that_comes_while_its_instance_is_loaded_is_delivered_once_and_in_order(bench: Bench) -> None:
    """It is routed by who wrote it, and found again by who reads on from the last number seen."""

    @bench.app.orchestrator
    def collects(ctx: OrchestrationContext) -> Orchestration[list[int]]:
        got: list[int] = []
        while (item := (yield from ctx.wait_for_external_event("item", type=int))) >= 0:
            got.append(item)
        return got

    async with bench.hub(limits=Limits(warm_instances=1)) as hub:
        one = await hub.client.start(collects, instance_id="one")
        await hub.client.start(collects, instance_id="other")
        await turns(100)
        bench.store.loading.clear()
        for item in range(3):
            await one.raise_event("item", item)
            await until(lambda: "one" in bench.store.loads)
            await turns(100)
        bench.store.loading.set()
        await one.raise_event("item", -1)
        assert await one.result(5) == [0, 1, 2]
        await audit(hub.client)


# ---- any pattern of failures


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.3, 0.6]), st.sampled_from([1, 3, 1_000]))
def test_whatever_writes_fail_results_and_histories_are_right(seed: int, share: float, warm: int) -> None:
    asyncio.run(_campaign(seed, share, warm))


async def _campaign(seed: int, share: float, warm: int) -> None:
    chance = Random(seed)
    bench = Bench()
    lost: set[str] = set()

    def fail(operations: Any) -> ReplayflowError | None:
        return chance.choice([FULL, BUSY]) if chance.random() < share else None

    def refuse(commit: Commit) -> bool:
        return chance.random() < share / 3

    async def insist(attempt: Any) -> Any:
        for _ in range(1_000):
            try:
                return await attempt()
            except (StoreFullError, StoreBusyError):
                await asyncio.sleep(0.001)
        raise AssertionError("the store never worked")

    async with bench.hub(limits=Limits(warm_instances=warm)) as hub:
        bench.store.failing, bench.store.refuses = fail, refuse
        started = []
        for i in range(8):
            id = f"m{i}"

            async def start(id: str = id, i: int = i) -> Any:
                return await hub.client.start("mixed", i, instance_id=id)

            started.append(await insist(start))
        for i, one in enumerate(started):

            async def signal(one: Any = one, i: int = i) -> Any:
                return await one.raise_event("go", i, dedupe_key="once")

            await insist(signal)
        results = [await one.result(20) for one in started]
        assert results == [2 * sum(range(i)) + 2 * i + i for i in range(8)], f"seed {seed}, {lost}"
        await until(lambda: all(not kept.inbox for kept in bench.store._instances.values()))
        bench.store.work()
        bench.store.refuses = lambda _: False
        await audit(hub.client)
        for one in started:
            assert sum(isinstance(e, events.EventRaised) for e in await history_of(hub.client, one.id)) == 1
    assert set(bench.ran.calls.values()) == {1}, f"seed {seed}: {bench.ran.calls}"


async def test_two_that_begin_with_one_id_at_the_same_time_are_one(bench: Bench) -> None:
    async with bench.hub() as hub:
        bench.go.clear()
        attempts = await asyncio.gather(
            *(hub.client.start("one", i, instance_id="same") for i in range(10)), return_exceptions=True
        )
        assert sum(isinstance(outcome, InstanceExistsError) for outcome in attempts) == 9
        bench.go.set()
        await hub.client.get("same").result(5)
        assert bench.ran.calls.total() == 1
        await audit(hub.client)
