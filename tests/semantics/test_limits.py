"""Limits of activities: how many at a time and how often, for each activity and for each key, and in which order."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from replayflow import (
    App,
    Orchestration,
    OrchestrationContext,
    OrchestrationTerminated,
    Quota,
    Rate,
    RetryPolicy,
    TaskHub,
    race,
    when_all,
)
from tests.engine import process_activities
from tests.semantics.kit import LIMIT, Place, failure_of, history, kinds, until, until_status

FOR_EVER = timedelta(minutes=10)


@dataclass
class Order:
    customer: str
    number: int


class Inside:
    """Who is at work, by key; and who holds them there."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.order: list[Any] = []
        self.times: list[float] = []
        self._lock = threading.Lock()

    def enter(self, key: str, what: Any = None) -> None:
        with self._lock:
            self.now[key] += 1
            self.most[key] = max(self.most[key], self.now[key])
            self.order.append(what)
            self.times.append(time.monotonic())

    def leave(self, key: str) -> None:
        with self._lock:
            self.now[key] -= 1


def fans(app: App) -> App:
    @app.orchestrator
    def fan(ctx: OrchestrationContext, call: list[Any]) -> Orchestration[Any]:
        name, inputs = call
        return (yield from when_all([ctx.call_activity(name, input) for input in inputs]))

    @app.orchestrator
    def maps(ctx: OrchestrationContext, call: list[Any]) -> Orchestration[Any]:
        name, items = call
        return (yield from ctx.map(name, items, concurrency=50)).results

    return app


def keep_to_rate(times: list[float], since: float, count: int, per: float) -> bool:
    """Whether of all that have begun since then none did before it may at the earliest. How late one is says nothing: the machine may be busy."""
    return all(begun > since + number // count * per - 0.01 for number, begun in enumerate(times))


@pytest.mark.parametrize("how", ["fan", "maps"])
@pytest.mark.parametrize("executor", ["async", "thread"])
async def test_no_more_are_at_work_than_the_activity_allows_over_all_instances(
    place: Place, how: str, executor: str
) -> None:
    app, inside = fans(App()), Inside()

    if executor == "async":

        @app.activity(name="work", concurrency=3)
        async def in_loop(x: int) -> int:
            inside.enter("")
            await asyncio.sleep(0.002)
            inside.leave("")
            return x
    else:

        @app.activity(name="work", concurrency=3)
        def in_thread(x: int) -> int:
            inside.enter("")
            time.sleep(0.002)
            inside.leave("")
            return x

    async with place.hub(app) as hub:
        instances = [await hub.client.start(how, ["work", [*range(20)]]) for _ in range(3)]
        for instance in instances:
            assert await instance.result(LIMIT) == [*range(20)]
    assert inside.most[""] == 3
    assert len(inside.order) == 60


async def test_processes_have_limits_like_all_others(place: Place) -> None:
    app = fans(App())
    app.activity(executor="process", concurrency=1)(process_activities.whereabouts)
    async with place.hub(app, process_activities=4) as hub:
        pids = await (await hub.client.start("fan", ["whereabouts", [1, 2, 3]])).result(LIMIT)
        assert len(set(pids)) == 1  # one at a time needs one process


async def test_of_each_key_so_many_are_at_work_and_no_key_waits_for_another(place: Place) -> None:
    app, inside, may_end = fans(App()), Inside(), asyncio.Event()

    @app.activity(concurrency=1, key=lambda order: order.customer)
    async def ship(order: Order) -> int:
        inside.enter(order.customer, order.number)
        if order.customer == "slow":
            await may_end.wait()
        inside.leave(order.customer)
        return order.number

    async with place.hub(app) as hub:
        slow = await hub.client.start("fan", ["ship", [Order("slow", n) for n in range(50)]])
        quick = await hub.client.start("fan", ["ship", [Order(f"c{n % 4}", 100 + n) for n in range(40)]])
        assert await quick.result(LIMIT) == [*range(100, 140)]
        may_end.set()
        assert await slow.result(LIMIT) == [*range(50)]
    assert set(inside.most.values()) == {1}
    assert [n for n in inside.order if n < 100] == [*range(50)]  # first come, first served
    for customer in range(4):
        assert [n for n in inside.order if n >= 100 and n % 4 == customer] == [*range(100 + customer, 140, 4)]


async def test_an_activity_at_its_limit_stands_in_nobody_s_way(place: Place) -> None:
    app, may_end = fans(App()), asyncio.Event()

    @app.activity(concurrency=1)
    async def narrow(x: int) -> int:
        await may_end.wait()
        return x

    @app.activity
    async def wide(x: int) -> int:
        return x

    async with place.hub(app, async_activities=2) as hub:
        waiting = await hub.client.start("fan", ["narrow", [*range(10)]])
        assert await (await hub.client.start("fan", ["wide", [*range(100)]])).result(LIMIT) == [*range(100)]
        may_end.set()
        assert await waiting.result(LIMIT) == [*range(10)]


async def test_a_gate_waits_for_a_place_with_the_worker_like_everybody_else(place: Place) -> None:
    app, inside = fans(App()), Inside()

    @app.activity(concurrency=5)
    async def narrow(x: int) -> int:
        inside.enter("all", "narrow")
        await asyncio.sleep(0)
        inside.leave("all")
        return x

    @app.activity
    async def wide(x: int) -> int:
        inside.enter("all", "wide")
        await asyncio.sleep(0)
        inside.leave("all")
        return x

    async with place.hub(app, async_activities=2) as hub:
        one = await hub.client.start("fan", ["wide", [*range(50)]])
        other = await hub.client.start("fan", ["narrow", [*range(50)]])
        assert await other.result(LIMIT) == [*range(50)]
        assert await one.result(LIMIT) == [*range(50)]
    assert inside.most["all"] == 2


@pytest.mark.parametrize("how", ["fan", "maps"])
async def test_within_no_period_do_more_begin_than_the_rate_says(place: Place, how: str) -> None:
    app, inside, per = fans(App()), Inside(), 0.2

    @app.activity(rate=Rate(5, timedelta(seconds=per)))
    async def call(x: int) -> int:
        inside.enter("")
        return x

    async with place.hub(app) as hub:
        opened = time.monotonic()
        assert await (await hub.client.start(how, ["call", [*range(12)]])).result(LIMIT) == [*range(12)]
    assert len(inside.times) == 12
    assert keep_to_rate(inside.times, opened, 5, per)


async def test_each_key_has_a_rate_of_its_own(place: Place) -> None:
    app, began = fans(App()), defaultdict[str, list[int]](list)

    @app.activity(rate=Rate(1, FOR_EVER), key=lambda pair: pair[0])
    async def call(pair: tuple[str, int]) -> int:
        began[pair[0]].append(pair[1])
        return pair[1]

    async with place.hub(app) as hub:  # which never had a worker that could have used up anything
        blocked = await hub.client.start("fan", ["call", [("a", 1), ("a", 2), ("b", 3), ("c", 4)]])

        async def three() -> bool:
            return (await kinds(blocked)).count("TaskCompleted") == 3

        await until(three)
        assert await (await hub.client.start("fan", ["call", [("d", 5)]])).result(LIMIT) == [5]
        assert began == {"a": [1], "b": [3], "c": [4], "d": [5]}


async def test_a_quota_is_one_for_all_activities_that_share_it_and_all_their_keys(place: Place) -> None:
    app, inside = fans(App()), Inside()
    api = Quota(concurrency=3)

    @app.activity(quota=api)
    async def read(x: int) -> int:
        inside.enter("api", "read")
        await asyncio.sleep(0.002)
        inside.leave("api")
        return x

    @app.activity(quota=api, concurrency=1, key=lambda order: order.customer)
    def write(order: Order) -> int:
        inside.enter("api", "write")
        inside.enter(order.customer)
        time.sleep(0.002)
        inside.leave(order.customer)
        inside.leave("api")
        return order.number

    @app.activity
    async def free(x: int) -> int:
        return x

    async with place.hub(app) as hub:
        reading = await hub.client.start("fan", ["read", [*range(40)]])
        writing = await hub.client.start("fan", ["write", [Order(f"c{n % 8}", n) for n in range(40)]])
        assert await (await hub.client.start("fan", ["free", [1, 2]])).result(LIMIT) == [1, 2]
        assert await writing.result(LIMIT) == [*range(40)]
        assert await reading.result(LIMIT) == [*range(40)]
    assert inside.most.pop("api") == 3
    assert set(inside.most.values()) == {1}
    done = [what for what in inside.order if what]
    assert {"read", "write"} == set(done[:20])  # neither waits for the other's line to end
    assert len(done) == 80


async def test_of_a_quota_no_more_begin_within_a_period_than_its_rate_says(place: Place) -> None:
    app, inside, per = fans(App()), Inside(), 0.2
    api = Quota(rate=Rate(5, timedelta(seconds=per)))

    @app.activity(quota=api)
    async def one(x: int) -> int:
        inside.enter("")
        return x

    @app.activity(quota=api, key=lambda x: x % 2, concurrency=1)
    async def other(x: int) -> int:
        inside.enter("")
        return x

    async with place.hub(app) as hub:
        opened = time.monotonic()
        instances = [await hub.client.start("fan", [name, [*range(6)]]) for name in ("one", "other")]
        for instance in instances:
            assert await instance.result(LIMIT) == [*range(6)]
    assert len(inside.times) == 12
    assert keep_to_rate(inside.times, opened, 5, per)


async def test_a_new_worker_counts_the_rate_as_used_up_until_a_period_has_passed(place: Place) -> None:
    app, began, per = fans(App()), list[float](), 0.3

    @app.activity(rate=Rate(3, timedelta(seconds=per)))
    async def call(x: int) -> int:
        began.append(time.monotonic())
        return x

    async with place.hub(app) as hub:
        assert await (await hub.client.start("fan", ["call", [1, 2, 3]])).result(LIMIT) == [1, 2, 3]
    opened = time.monotonic()
    async with place.hub(app) as hub:
        assert await (await hub.client.start("fan", ["call", [1, 2, 3]])).result(LIMIT) == [1, 2, 3]
    assert len(began) == 6
    assert keep_to_rate(began[3:], opened + per, 3, per)


async def test_the_limit_holds_for_what_a_worker_finds_when_it_starts(place: Place) -> None:
    app, inside, may_end = fans(App()), Inside(), asyncio.Event()

    @app.activity(concurrency=2)
    async def work(x: int) -> int:
        inside.enter("")
        try:
            await may_end.wait()
            await asyncio.sleep(0.002)
        finally:
            inside.leave("")
        return x

    async with place.hub(app, grace=timedelta(0)) as hub:
        for number in range(10):
            await hub.client.start("fan", ["work", [number, number]], instance_id=f"i{number}")
        await until(_true(lambda: inside.now[""] == 2))
    may_end.set()
    async with place.hub(app) as hub:
        for number in range(10):
            assert await hub.client.get(f"i{number}").result(LIMIT) == [number, number]
    assert inside.most[""] == 2


def one_at_a_time() -> tuple[App, Inside, asyncio.Event]:
    """An app whose `work` runs one at a time and ends once the event is set, and who is inside of it."""
    app, inside, may_end = fans(App()), Inside(), asyncio.Event()

    @app.activity(concurrency=1)
    async def work(x: int) -> int:
        inside.enter("", x)
        await may_end.wait()
        inside.leave("")
        return x

    return app, inside, may_end


@pytest.mark.parametrize("how", ["fan", "maps"])
async def test_who_waits_for_a_terminated_instance_leaves_the_line(place: Place, how: str) -> None:
    app, inside, may_end = one_at_a_time()

    async with place.hub(app) as hub:
        first = await hub.client.start("fan", ["work", [0]])
        await until(_true(lambda: inside.order == [0]))
        doomed = await hub.client.start(how, ["work", [*range(1, 100)]])
        last = await hub.client.start("fan", ["work", [100]])
        await doomed.terminate()
        with pytest.raises(OrchestrationTerminated):
            await doomed.result(LIMIT)
        may_end.set()
        assert await first.result(LIMIT) == [0]
        assert await last.result(LIMIT) == [100]
    assert inside.order == [0, 100]


@pytest.mark.parametrize("how", ["fan", "maps"])
@pytest.mark.parametrize("restarts", [False, True])
async def test_who_waits_for_a_suspended_instance_lets_others_pass_until_it_is_resumed(
    place: Place, how: str, restarts: bool
) -> None:
    app, inside, may_end = one_at_a_time()

    async def others(hub: TaskHub) -> None:
        may_end.set()
        assert await (await hub.client.start("fan", ["work", [7]])).result(LIMIT) == [7]
        assert 1 not in inside.order

    async with place.hub(app, grace=timedelta(0)) as hub:
        await hub.client.start("fan", ["work", [0]])
        await until(_true(lambda: inside.order == [0]))
        suspended = await hub.client.start(how, ["work", [1, 2, 3]], instance_id="s")
        await suspended.suspend()
        await until_status(suspended, "SUSPENDED")
        if not restarts:
            await others(hub)
            await suspended.resume()
            assert await suspended.result(LIMIT) == [1, 2, 3]
            return
    async with place.hub(app) as hub:
        await others(hub)
        suspended = hub.client.get("s")
        await suspended.resume()
        assert await suspended.result(LIMIT) == [1, 2, 3]


async def test_a_suspended_instance_that_is_terminated_leaves_the_line_for_good(place: Place) -> None:
    app, inside, may_end = one_at_a_time()

    async with place.hub(app) as hub:
        await hub.client.start("fan", ["work", [0]])
        await until(_true(lambda: inside.order == [0]))
        doomed = await hub.client.start("fan", ["work", [1, 2, 3]])
        await doomed.suspend()
        await until_status(doomed, "SUSPENDED")
        may_end.set()
        assert await (await hub.client.start("fan", ["work", [7]])).result(LIMIT) == [7]
        await doomed.terminate()
        await until_status(doomed, "TERMINATED")
        assert await (await hub.client.start("fan", ["work", [8]])).result(LIMIT) == [8]
    assert inside.order == [0, 7, 8]


async def test_the_loser_of_a_race_gives_its_place_to_the_next(place: Place) -> None:
    app, cancelled = App(), list[int]()

    @app.activity(concurrency=1)
    async def work(x: int) -> int:
        if x == 0:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(x)
        return x

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Orchestration[int]:
        yield race([ctx.call_activity(work, 0), ctx.create_timer(timedelta(milliseconds=30))])
        return (yield from ctx.call_activity(work, 5))

    async with place.hub(app) as hub:
        assert await (await hub.client.start(main)).result(LIMIT) == 5
    assert cancelled == [0]


async def test_a_thread_that_is_over_its_time_keeps_its_place_until_it_ends(place: Place) -> None:
    app, inside, may_end = App(), Inside(), threading.Event()

    @app.activity(concurrency=1, timeout=timedelta(milliseconds=30), retry=RetryPolicy(first_interval=timedelta(0)))
    def stubborn(x: int) -> int:
        inside.enter("")
        if len(inside.order) == 1:
            may_end.wait(LIMIT)
        inside.leave("")
        return x

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Orchestration[int]:
        return (yield from ctx.call_activity(stubborn, 3))

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)

        async def has_failed() -> bool:
            return "TaskAttemptFailed" in await kinds(instance)

        await until(has_failed)
        may_end.set()
        assert await instance.result(LIMIT) == 3
    assert inside.most[""] == 1


async def test_a_retry_waits_in_line_again_and_the_wait_is_not_counted_as_its_time(place: Place) -> None:
    app, attempts = fans(App()), Counter[int]()

    @app.activity(
        concurrency=1, timeout=timedelta(seconds=2), retry=RetryPolicy(first_interval=timedelta(milliseconds=1))
    )
    async def flaky(x: int) -> int:
        attempts[x] += 1
        await asyncio.sleep(0.002)
        if attempts[x] == 1:
            raise ValueError("the first time")
        return x

    async with place.hub(app) as hub:
        assert await (await hub.client.start("fan", ["flaky", [*range(10)]])).result(LIMIT) == [*range(10)]
    assert set(attempts.values()) == {2}


async def test_orphans_keep_to_their_time(place: Place) -> None:
    app, order = App(), list[str]()

    @app.activity(concurrency=1, timeout=timedelta(milliseconds=30))
    async def work(what: str) -> None:
        order.append(what)
        if what == "hangs":
            await asyncio.Event().wait()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> str:
        ctx.call_activity(work, "hangs")
        ctx.call_activity(work, "goes on")
        return "ended"

    async with place.hub(app) as hub:
        assert await (await hub.client.start(main)).result(LIMIT) == "ended"
        await until(_true(lambda: order == ["hangs", "goes on"]))


async def test_orphans_keep_to_the_limit(place: Place) -> None:
    app, inside = App(), Inside()

    @app.activity(concurrency=1)
    async def work(x: int) -> None:
        inside.enter("", x)
        await asyncio.sleep(0.002)
        inside.leave("")

    @app.orchestrator
    def main(ctx: OrchestrationContext, rounds: int) -> None:
        for number in range(3):
            ctx.call_activity(work, number)
        if rounds:
            ctx.continue_as_new(rounds - 1)

    async with place.hub(app) as hub:
        await (await hub.client.start(main, 3)).result(LIMIT)
        await until(_true(lambda: len(inside.order) == 12 and not inside.now[""]))
    assert inside.most[""] == 1


@pytest.mark.parametrize(
    "key", [lambda x: x["missing"], lambda x: [x], lambda x: 1 // (x - x)], ids=["raises", "list", "0"]
)
async def test_a_key_that_is_none_fails_the_attempt(place: Place, key: Any) -> None:
    app, ran = fans(App()), list[int]()

    @app.activity(concurrency=1, key=key)
    async def work(x: Any) -> None:
        ran.append(x)

    @app.activity
    async def other(x: int) -> int:
        return x

    async with place.hub(app) as hub:
        for how in ("fan", "maps"):
            details = await failure_of(await hub.client.start(how, ["work", [5]]))
            assert details.is_caused_by(TypeError, ZeroDivisionError)
        assert await (await hub.client.start("fan", ["other", [1]])).result(LIMIT) == [1]
    assert ran == []


async def test_a_hub_closes_while_many_wait_behind_a_gate_and_the_next_one_runs_them(place: Place) -> None:
    app, inside, may_end = fans(App()), Inside(), asyncio.Event()

    @app.activity(concurrency=1, rate=Rate(1_000))
    async def work(x: int) -> int:
        inside.enter("", x)
        await may_end.wait()
        return x

    async with place.hub(app, grace=timedelta(0)) as hub:
        instance = await hub.client.start("fan", ["work", [*range(100)]], instance_id="i")
        await until(_true(lambda: len(inside.order) == 1))
    assert len(inside.order) == 1
    may_end.set()
    async with place.hub(app) as hub:
        instance = hub.client.get("i")
        assert await instance.result(LIMIT) == [*range(100)]
        assert Counter(type(event).__name__ for event in await history(instance))["TaskCompleted"] == 100


def _true(condition: Any) -> Any:
    async def holds() -> bool:
        return bool(condition())

    return holds
