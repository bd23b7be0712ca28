"""Wounds that others reported, and what holds here instead. Each law says where it was reported."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

import pytest

from replayflow import (
    ActivityContext,
    ActivityError,
    App,
    Client,
    Instance,
    Limits,
    MemoryStore,
    Orchestration,
    OrchestrationContext,
    OrchestrationFailed,
    RetryPolicy,
    TaskHub,
    race,
    when_all,
    when_any,
)
from replayflow.core import events
from replayflow.core.events import ExecutionCancelRequested, ExecutionTerminated, HistoryEvent
from replayflow.errors import LeaseLostError, RegistrationError, ReplayflowError
from replayflow.store.base import Delivery, Loaded, Operation, Outcome, Store
from replayflow.testing import VirtualHub, crash_everywhere
from tests.core.driver import SECOND, Stage, fired, raised
from tests.engine.kit import NO_GRACE, PATIENCE_SECONDS, TestClock, audit, until, until_running, until_state

app = App()


@app.activity
async def echoes(x: Any) -> Any:
    return x


@app.activity(concurrency=1)
async def one_by_one(x: Any) -> Any:
    return x


@app.entity
class Account:
    balance: int = 0

    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance


@app.orchestrator
def child(ctx: OrchestrationContext, x: Any) -> Orchestration[Any]:
    return (yield from ctx.wait_for_external_event("told", timeout=timedelta(hours=x), type=Any))


@app.orchestrator
def steps(ctx: OrchestrationContext, n: int) -> Orchestration[list[int]]:
    first = yield from ctx.call_activity(one_by_one, n)
    second = yield from ctx.call_activity(one_by_one, n + 1)
    both = yield from when_all([ctx.call_activity(echoes, n + 2), ctx.call_activity(echoes, n + 3)])
    yield ctx.create_timer(timedelta(0))
    return [first, second, *both]


# ---- restarts during recovery


class Frail(MemoryStore):
    """A store whose worker dies, in each of its lives, at the operation with a number: of all that it reads and writes."""

    def __init__(self, dies_at: int, is_written: bool) -> None:
        super().__init__()
        self.left = self.dies_at = dies_at
        self.is_written = is_written

    def live(self) -> None:
        self.left = self.dies_at
        self.dies_at += 1  # or a recovery that needs more than one operation would never come further

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        if epoch is None:
            return await super().write(operations, epoch)
        if self._dies() and not self.is_written:
            raise LeaseLostError("killed before")
        outcomes = await super().write(operations, epoch)
        if self.left < 0:
            raise LeaseLostError("killed after")
        return outcomes

    async def load(self, instance_ids: Sequence[str]) -> list[Loaded]:
        if self._dies():
            raise LeaseLostError("killed while reading")
        return await super().load(instance_ids)

    async def arrived(self, after: int, limit: int) -> list[Delivery]:
        if self.left < 0:
            raise LeaseLostError("killed while reading")
        return await super().arrived(after, limit)

    def _dies(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("is_written", [False, True], ids=["before its commit", "after its commit"])
@pytest.mark.parametrize("dies_at", [0, 1, 2, 3])
async def test_a_worker_that_is_killed_again_while_it_recovers_strands_nothing(dies_at: int, is_written: bool) -> None:
    """A workflow that was recovered stayed PENDING between two steps, and blocked its queue: dbos-inc/dbos-transact-py#805, #260.

    Here the worker dies in each of its lives, at a later point each time, from the first reading on.
    """
    store = Frail(dies_at, is_written)
    async with Client(store) as client:
        for n in range(4):
            await client.start("steps", n, instance_id=f"i{n}")
    results: list[Any] = []
    for life in itertools.count(1):
        assert life < 60
        store.live()
        with suppress(ReplayflowError):
            async with TaskHub(cast("Store", store), app, limits=NO_GRACE) as hub:
                results = [await hub.client.get(f"i{n}").result(PATIENCE_SECONDS) for n in range(4)]
                break
    assert results == [[n, n + 1, n + 2, n + 3] for n in range(4)]
    store.left = 10**9
    async with Client(store) as client:
        await audit(client)


async def test_a_lock_and_what_it_guards_survive_a_kill_at_every_point() -> None:
    """An entity that had forgotten a grant, or heard the request again, stayed locked: Azure/azure-functions-durable-extension#2228, #1325."""
    locking = App()
    locking.entity(Account)

    @locking.orchestrator
    def transfers(ctx: OrchestrationContext, _: None = None) -> Orchestration[list[int]]:
        balances = []
        for _round in range(2):  # the second has to wait for what the first gave back
            with (yield from ctx.lock_entities(["@account@a", "@account@b"])):
                balances.append((yield ctx.call_entity("@account@a", "add", 1)))
                balances.append((yield ctx.call_entity("@account@b", "add", 10)))
        return balances

    report = await crash_everywhere(transfers, app=locking)
    assert report.result == [1, 10, 2, 20]
    assert report.points > 10


async def test_what_a_drained_worker_left_running_changes_nothing_when_the_worker_is_back() -> None:
    """A worker that came back under its name was given the results of its former self; here a hub is owned by epoch and not by name."""
    late, runs = threading.Event(), list[int]()
    drained = App()

    @drained.activity
    def slow(ctx: ActivityContext, x: Any) -> str:
        runs.append(ctx.attempt)
        if len(runs) == 1:
            late.wait(PATIENCE_SECONDS)
            return "of the former"
        return "of the present"

    @drained.orchestrator
    def asks(ctx: OrchestrationContext) -> Orchestration[str]:
        return (yield from ctx.call_activity(slow, None))

    store = MemoryStore()
    async with TaskHub(store, drained, limits=NO_GRACE) as hub:
        instance: Instance[Any] = await hub.client.start(asks, instance_id="i")
        await until(lambda: runs)
    async with TaskHub(store, drained, limits=NO_GRACE) as hub:
        instance = hub.client.get("i")
        assert await instance.result(PATIENCE_SECONDS) == "of the present"
        late.set()
        await asyncio.sleep(0)
        assert await instance.result(PATIENCE_SECONDS) == "of the present"
        await audit(hub.client)


# ---- one id, twice


async def test_nothing_of_a_purged_instance_reaches_the_next_of_its_id() -> None:
    """A purge raced with what was under way, which was tried for ever: dapr/dapr#8086. Keys were lost on a reset: temporalio/temporal#4028."""
    reused = App()

    @reused.orchestrator
    def waits(ctx: OrchestrationContext, hours: int) -> Orchestration[Any]:
        told = ctx.wait_for_external_event("told")
        timer = ctx.create_timer(timedelta(hours=hours))
        winner = yield from when_any([told, timer])
        return "the time" if winner is timer else told.result

    clock = TestClock()
    store = MemoryStore()
    async with TaskHub(store, reused, clock=clock, limits=NO_GRACE) as hub:
        former: Instance[Any] = await hub.client.start(waits, 1, instance_id="i")
        await until_running(former)
        await former.suspend()
        await former.raise_event("told", "the former", dedupe_key="k")
        await former.terminate()
        await former.wait(PATIENCE_SECONDS)
        assert await former.purge() == 1
        present: Instance[Any] = await hub.client.start(waits, 1_000, instance_id="i")
        await until_running(present)
        clock.advance(timedelta(hours=2))  # when the former's timer would ring
        await present.suspend()
        await present.resume()
        await until_running(present)
        assert (await present.status()).status == "RUNNING"
        await present.raise_event("told", "the present", dedupe_key="k")  # a key that the former has had
        assert await present.result(PATIENCE_SECONDS) == "the present"


# ---- races


@app.orchestrator(name="main")
def races(ctx: OrchestrationContext, _: Any) -> Orchestration[str]:
    told = ctx.wait_for_external_event("told")
    timer = ctx.create_timer(timedelta(seconds=5))
    winner = yield from race([told, timer])
    return f"won: {winner}"


RACERS = (raised("told", 1), fired(1), ExecutionCancelRequested(), ExecutionTerminated())


def parted(order: Sequence[HistoryEvent]) -> Iterator[list[list[HistoryEvent]]]:
    """The events, in this order, in all ways of coming together."""
    for cuts in itertools.product((False, True), repeat=len(order) - 1):
        parts = [[order[0]]]
        for cut, event in zip(cuts, order[1:], strict=True):
            if cut:
                parts.append([event])
            else:
                parts[-1].append(event)
        yield parts


@pytest.mark.parametrize("always_cold", [False, True], ids=["warm", "cold"])
def test_of_an_event_a_timer_a_cancellation_and_a_termination_the_first_to_come_decides(always_cold: bool) -> None:
    """Orchestrations ended in two ways, or in none, where an end raced with a timer: Azure/azure-functions-durable-python#354, #348."""
    ends = {0: "COMPLETED", 1: "COMPLETED", 2: "CANCELED", 3: "TERMINATED"}
    tried = 0
    for order in itertools.permutations(range(len(RACERS))):
        for parts in parted([RACERS[number] for number in order]):
            with Stage(app, always_cold=always_cold) as stage:
                stage.run()
                for part in parts:
                    if not stage.instance.is_finished:
                        stage.run(*part, later=6 * SECOND)
                assert stage.instance.status in set(ends.values())
                if len(parts[0]) == 1:
                    assert stage.instance.status == ends[order[0]]
                history = [event for piece in stage.pieces for event in events.decode(piece)]
                assert sum(isinstance(event, events.ExecutionCompleted) for event in history) == 1
                tried += 1
    assert tried == 24 * 8


@app.orchestrator
def asks_twice(ctx: OrchestrationContext, _: Any) -> Orchestration[list[Any]]:
    first = ctx.wait_for_external_event("first")
    timer = ctx.create_timer(timedelta(seconds=5))
    winner = yield from when_any([first, timer])
    second = yield ctx.wait_for_external_event("second")
    return [winner is first, second]


@pytest.mark.parametrize("always_cold", [False, True], ids=["warm", "cold"])
@pytest.mark.parametrize("timer_first", [False, True])
def test_a_loser_that_completes_later_wins_no_replay(always_cold: bool, timer_first: bool) -> None:
    """The timer that had lost won when the history was replayed, and the code went another way: Azure/azure-functions-durable-extension#680."""
    with Stage(app, name="asks_twice", always_cold=always_cold) as stage:
        stage.run()
        came = [raised("first", 1), fired(1)]
        for event in reversed(came) if timer_first else came:
            stage.run(event, later=6 * SECOND)
        stage.run(raised("second", 2))
        assert stage.instance.output == stage.environment.codec.encode([not timer_first, 2])


async def test_after_a_retry_new_tasks_in_the_same_wait_are_answered() -> None:
    """Once a call had been tried again, the next fan-out was never woken: Azure/azure-functions-durable-python#603."""
    fails_once = App()

    @fails_once.activity
    async def flaky(x: int) -> int:
        raise NotImplementedError

    @fails_once.orchestrator
    def gathers(ctx: OrchestrationContext) -> Orchestration[list[Any]]:
        policy = RetryPolicy(max_attempts=3, first_interval=timedelta(seconds=30))
        gate = yield from ctx.call_activity(flaky, 0, retry=policy)
        handles = [ctx.call_activity(flaky, n, retry=policy) for n in (1, 2, 3)]
        flush = ctx.create_timer(timedelta(hours=1))
        for _ in range(2):
            yield when_any([*handles, flush])
        rest = yield from when_all([ctx.call_activity(flaky, n, retry=policy) for n in (4, 5)])
        handled = yield from when_all(handles)
        return [gate, handled, rest]

    attempts: dict[int, int] = {}

    def once(x: int) -> int:
        attempts[x] = attempts.get(x, 0) + 1
        if attempts[x] % 2:
            raise TimeoutError(x)
        return x

    for always_replay in (False, True):
        async with VirtualHub(fails_once, fakes={flaky: once}, always_replay=always_replay) as hub:
            assert await (await hub.client.start(gathers)).result() == [0, [1, 2, 3], [4, 5]]


async def test_a_child_that_gave_up_waiting_ends_and_so_does_its_parent() -> None:
    """Both stayed Running after the time-out: Azure/azure-functions-durable-python#348."""
    waiting = App()
    waiting.orchestrator(child)

    @waiting.orchestrator
    def parent(ctx: OrchestrationContext) -> Orchestration[str]:
        try:
            yield ctx.call_sub_orchestrator(child, 1)
        except ReplayflowError:
            return "timed out"
        return "told"

    async with VirtualHub(waiting) as hub:
        assert await (await hub.client.start(parent, instance_id="p")).result() == "timed out"
        assert (await hub.client.get("p:0001").status()).status == "FAILED"


async def test_events_that_came_before_the_wait_are_all_there_and_in_order() -> None:
    """What came early was answered late, once, or by the last: Azure/azure-functions-durable-js#558, azure-functions-durable-python#308."""
    early = App()

    @early.orchestrator
    def takes(ctx: OrchestrationContext) -> Orchestration[list[Any]]:
        yield ctx.create_timer(timedelta(hours=1))
        first = yield from ctx.wait_for_external_event("told", type=int)
        second = yield from ctx.wait_for_external_event("told", type=int)
        return [first, second, (yield from ctx.wait_for_external_event("told", type=int))]

    async with VirtualHub(early) as hub:
        instance: Instance[Any] = await hub.client.start(takes)
        for n, name in enumerate(("told", "TOLD", "Told")):
            await instance.raise_event(name, n)
        assert await instance.result() == [0, 1, 2]


# ---- places that leak


async def test_a_bound_has_all_its_places_again_whatever_became_of_those_who_had_them() -> None:
    """Slots stayed taken after a cancellation, a deletion, a crash: PrefectHQ/prefect#8566, #7753, #17563; temporalio/sdk-python#784."""
    bounded = App()
    at_work, most, release = 0, 0, asyncio.Event()

    @bounded.activity(concurrency=2)
    async def works(x: Any) -> Any:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        try:
            if x == "held":
                await release.wait()
            if x == "fails":
                raise ValueError(x)
            return x
        finally:
            at_work -= 1

    @bounded.orchestrator
    def asks(ctx: OrchestrationContext, x: Any) -> Orchestration[Any]:
        return (yield ctx.call_activity(works, x))

    @bounded.orchestrator
    def first_of(ctx: OrchestrationContext, _: Any) -> Orchestration[Any]:
        return (yield from race([ctx.call_activity(works, "held"), ctx.create_timer(timedelta(0))]))

    @bounded.orchestrator
    def maps(ctx: OrchestrationContext, _: Any) -> Orchestration[Any]:
        yield from ctx.map(works, ["held"] * 5, concurrency=2)

    store = MemoryStore()
    async with TaskHub(store, bounded, limits=Limits(grace=timedelta(0), async_activities=8)) as hub:
        client = hub.client
        ids = itertools.count()

        async def begun(orchestrator: Any, x: Any = None) -> Instance[Any]:
            started: Instance[Any] = await client.start(orchestrator, x, instance_id=f"i{next(ids)}")
            return started

        for verb in ("terminate", "cancel"):
            held = [await begun(asks, "held") for _ in range(4)]
            await until(lambda: at_work == 2)
            for instance in held:
                await getattr(instance, verb)()
            for instance in held:
                await instance.wait(PATIENCE_SECONDS)
            await until(lambda: at_work == 0)
        for orchestrator in (first_of, maps):
            instance = await begun(orchestrator)
            if orchestrator is maps:
                await until(lambda: at_work == 2)
                await instance.suspend()
                await until_state(instance, lambda state: state.status == "SUSPENDED")
                await instance.terminate()
            await instance.wait(PATIENCE_SECONDS)
            await until(lambda: at_work == 0)
        failed = await begun(asks, "fails")
        await failed.wait(PATIENCE_SECONDS)
        await failed.rewind()
        await until_state(failed, lambda state: state.status == "FAILED")
        last = [await begun(asks, "held") for _ in range(2)]
        await until(lambda: at_work == 2)  # both places are there, and were never more
    async with TaskHub(store, bounded, limits=NO_GRACE) as hub:  # after a crash, too
        await until(lambda: at_work == 2)
        release.set()
        for instance in last:
            assert await hub.client.get(instance.id).result(PATIENCE_SECONDS) == "held"
    assert most == 2


# ---- code that does what it should not


async def _coroutine() -> None: ...


async def _async_generator() -> AsyncIterator[int]:
    yield 1


def _generator() -> Iterator[int]:
    yield 1


STRAY = [
    _generator,
    _async_generator,
    lambda: _generator,
    lambda: map(str, [1]),
    lambda: threading.Lock(),
]


@pytest.mark.parametrize("make", STRAY)
async def test_what_an_activity_or_an_orchestrator_returns_by_mistake_fails_it_in_words(make: Any) -> None:
    """Results that could not be stored left workflows PENDING for ever: dbos-inc/dbos-transact-py#111, #744."""
    strays = App()

    @strays.activity
    async def returns() -> Any:
        made = make()
        if hasattr(made, "close"):
            made.close() if not hasattr(made, "aclose") else None
        return made

    @strays.orchestrator
    def asks(ctx: OrchestrationContext) -> Orchestration[Any]:
        return (yield ctx.call_activity(returns, retry=RetryPolicy(max_attempts=1)))

    @strays.orchestrator
    def ends(ctx: OrchestrationContext) -> Orchestration[Any]:
        yield ctx.create_timer(timedelta(0))
        made = make()
        if hasattr(made, "close"):
            made.close()
        return made

    async with TaskHub(MemoryStore(), strays) as hub:
        for orchestrator in (asks, ends):
            instance: Instance[Any] = await hub.client.start(orchestrator)
            with pytest.raises(OrchestrationFailed, match="EncodeError: result of"):
                await instance.result(PATIENCE_SECONDS)


def test_an_orchestrator_that_is_a_coroutine_is_refused_where_it_is_registered() -> None:
    for fn in (_coroutine, _async_generator):
        with pytest.raises(RegistrationError):
            App().orchestrator(cast("Any", fn))


class SaysNothing(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    def __repr__(self) -> str:
        return "mute"


class TakesTwo(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize("executor", ["loop", "thread"])
@pytest.mark.parametrize(
    "error",
    [SaysNothing(), TakesTwo(1, 2), ExceptionGroup("g", [ValueError(1), SaysNothing()])],
    ids=["mute", "two", "group"],
)
async def test_an_error_that_cannot_be_copied_or_read_fails_its_activity_alone(error: Exception, executor: str) -> None:
    """Errors that could not be unpickled ended the worker: celery/celery#6990, #6185, #2943; dbos-inc/dbos-transact-py#371, #730."""
    raising = App()

    async def in_loop() -> None:
        raise error

    def in_thread() -> None:
        raise error

    raising.activity(name="raises")(in_loop if executor == "loop" else in_thread)

    @raising.orchestrator
    def asks(ctx: OrchestrationContext) -> Orchestration[str]:
        try:
            yield ctx.call_activity("raises")
        except ActivityError as failed:
            return failed.details.type
        return "nothing"

    async with TaskHub(MemoryStore(), raising) as hub:
        instance: Instance[Any] = await hub.client.start(asks)
        assert await instance.result(PATIENCE_SECONDS) == type(error).__name__


async def test_a_great_fan_out_of_failures_is_told_once_each() -> None:
    """Thousands of failures in one wait, each with all the others in it, would be told a million times."""
    fan = App()

    @fan.activity
    async def fails(x: int) -> None:
        raise LookupError(f"number {x}")

    @fan.orchestrator
    def asks(ctx: OrchestrationContext, n: int) -> Orchestration[Any]:
        yield when_all([ctx.call_activity(fails, i) for i in range(n)])

    async with TaskHub(MemoryStore(), fan) as hub:
        began = time.monotonic()
        instance: Instance[Any] = await hub.client.start(asks, 1_000)
        with pytest.raises(OrchestrationFailed, match="number 0") as failed:
            await instance.result(PATIENCE_SECONDS)
        assert len(str(failed.value)) < 10_000
        assert time.monotonic() - began < PATIENCE_SECONDS


async def test_a_clean_up_that_returns_or_raises_ends_its_orchestration_and_no_other() -> None:
    """A generator that swallows its own end, or fails in it, took the worker's loop along: temporalio/sdk-python#325, #494."""
    cleans = App()

    @cleans.orchestrator
    def swallows(ctx: OrchestrationContext) -> Orchestration[Any]:
        try:
            yield ctx.wait_for_external_event("never")
        finally:
            return "swallowed"  # noqa: B012 - the mistake

    @cleans.orchestrator
    def raises(ctx: OrchestrationContext) -> Orchestration[Any]:
        try:
            yield ctx.wait_for_external_event("never")
        finally:
            raise OSError("in the clean-up")

    @cleans.orchestrator
    def insists(ctx: OrchestrationContext) -> Orchestration[Any]:
        with suppress(BaseException):
            yield ctx.create_timer(timedelta(hours=1))
        return "insisted"

    async with TaskHub(MemoryStore(), cleans) as hub:
        client = hub.client
        cancelled: dict[str, Instance[Any]] = {}
        for orchestrator in (swallows, raises, insists):
            instance: Instance[Any] = await client.start(orchestrator, instance_id=orchestrator.__name__)
            await until_running(instance)
            await instance.cancel()
            cancelled[orchestrator.__name__] = instance
        found = {name: (await instance.wait(PATIENCE_SECONDS)).status for name, instance in cancelled.items()}
        assert found == {"swallows": "COMPLETED", "raises": "FAILED", "insists": "COMPLETED"}
        for orchestrator in (swallows, raises):
            instance = await client.start(orchestrator, instance_id=f"{orchestrator.__name__} again")
            await until_running(instance)
            await instance.terminate()
            assert (await instance.wait(PATIENCE_SECONDS)).status == "TERMINATED"
