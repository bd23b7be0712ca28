"""`ctx.map`, end to end: results and failures, batches, pages, children, and every way in which a map can end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from replayflow import (
    ActivityContext,
    App,
    Client,
    MapError,
    MapProgress,
    MapResult,
    MapScheduled,
    MapState,
    NonRetryableError,
    OrchestrationContext,
    OrchestrationTerminated,
    OrchestratorError,
    OrchestratorStarted,
    PayloadTooLargeError,
    RetryAfter,
    RetryPolicy,
    TaskCanceledError,
    TaskHub,
    race,
    when_all,
)
from replayflow.codec import Codec
from replayflow.errors import EncodeError, InvalidArgumentError, OrchestrationCanceled, UnknownNameError
from tests.semantics.kit import LIMIT, Place, failure_of, history, kinds, until, until_recorded, until_status

QUICK = RetryPolicy(max_attempts=3, first_interval=timedelta(milliseconds=5))


@dataclass
class Point:
    x: int
    y: int


class Told:
    """An app whose activity fails for some items as often as it is told, and counts its runs; it waits for those that are held back."""

    def __init__(self, **fails: int) -> None:
        self.app = App()
        self.runs: Counter[int] = Counter()
        self.fails = {int(item[1:]): times for item, times in fails.items()}
        self.held: dict[int, asyncio.Event] = {}
        self.most = 0
        self.now = 0
        self.cancelled: list[int] = []
        self.app.activity(name="double")(self.double)
        self.app.orchestrator(name="turn")(lambda _: None)

    async def double(self, x: int) -> int:
        self.runs[x] += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if x in self.held:
                await self.held[x].wait()
            else:
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled.append(x)
            raise
        finally:
            self.now -= 1
        if self.runs[x] <= self.fails.get(x, 0):
            raise ValueError(f"bad {x}")
        return 2 * x

    async def turns(self, hub: TaskHub) -> None:
        """The worker has made whole rounds, from mailbox to disk: what was due to begin has begun."""
        for _ in range(5):
            await (await hub.client.start("turn")).result(LIMIT)

    def hold(self, *items: int) -> None:
        self.held.update({item: asyncio.Event() for item in items})

    def let_go(self) -> None:
        for event in self.held.values():
            event.set()


def shown(result: MapResult[Any]) -> dict[str, Any]:
    """A result as a value that travels."""
    return {
        "results": result.results,
        "failures": [[failure.index, failure.details.message, failure.attempts] for failure in result.failures],
        "unfinished": result.unfinished,
    }


async def test_results_come_in_the_order_of_the_items(place: Place) -> None:
    told = Told()
    told.hold(0, 3)

    @told.app.orchestrator
    def main(ctx: OrchestrationContext, n: int) -> Any:
        result = yield ctx.map(told.double, range(n), concurrency=4)
        return [result.results, result.succeeded == result.results, result.failures]

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main, 50)
        await until_recorded(instance, "MapProgress")
        told.let_go()
        assert await instance.result(LIMIT) == [[2 * i for i in range(50)], True, []]
        assert told.most == 4
        assert told.runs == dict.fromkeys(range(50), 1)


async def test_a_map_has_one_event_for_its_items_and_one_an_episode_for_its_results(place: Place) -> None:
    told = Told()

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map(told.double, range(1_000))).succeeded

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main)
        await instance.result(LIMIT)
        past = await history(instance)
        scheduled = [event for event in past if isinstance(event, MapScheduled)]
        progress = [event for event in past if isinstance(event, MapProgress)]
        assert [(event.event_id, event.name, event.count) for event in scheduled] == [(1, "double", 1_000)]
        assert scheduled[0].items == list(range(1_000))
        numbers = [number for event in progress for number in event.numbers]
        assert sorted(numbers) == list(range(1_000))
        assert [r for event in progress for r in event.results] == [2 * n for n in numbers]
        assert all(event.task_scheduled_id == 1 for event in progress)
        episodes = [event for event in past if isinstance(event, OrchestratorStarted)]
        assert len(progress) < len(episodes), "one event for all that an episode took in"


@pytest.mark.parametrize("items", [[], (), iter([])])
async def test_a_map_of_nothing_completes_at_once(place: Place, items: Any) -> None:
    told = Told()

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        task = ctx.map(told.double, items)
        return [task.is_complete, (yield task).results]

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main)
        assert await instance.result(LIMIT) == [True, []]
        assert (await kinds(instance)).count("MapScheduled") == 1
        assert "MapProgress" not in await kinds(instance)


async def test_items_and_results_are_rebuilt_from_annotations(place: Place) -> None:
    app = App()

    @app.activity
    def turn(point: Point) -> Point:
        return Point(-point.y, point.x)

    @app.orchestrator
    def main(ctx: OrchestrationContext, points: list[Point]) -> Any:
        result = yield from ctx.map(turn, points)
        return [point.x for point in result.succeeded]

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, [Point(i, i + 1) for i in range(5)])
        assert await instance.result(LIMIT) == [-1, -2, -3, -4, -5]


@pytest.mark.parametrize("n", [9, 10, 11, 1])
async def test_a_batch_is_one_call_and_each_item_has_its_result(place: Place, n: int) -> None:
    app, calls = App(), []

    @app.activity
    async def double_all(batch: list[int]) -> list[int]:
        calls.append(batch)
        return [2 * x for x in batch]

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield from ctx.map(double_all, list(range(n)), batch_size=5)).succeeded

    async with place.hub(app) as hub:
        assert await (await hub.client.start(main)).result(LIMIT) == [2 * i for i in range(n)]
        assert sorted(calls) == [list(range(i, min(i + 5, n))) for i in range(0, n, 5)]


@pytest.mark.parametrize(("gives", "says"), [([1], "returned 1 results for a batch of 3"), (7, "returned no list")])
async def test_a_batch_that_returns_no_result_for_each_item_has_failed(place: Place, gives: Any, says: str) -> None:
    app = App()

    @app.activity
    async def wrong(batch: list[int]) -> Any:
        return gives if 4 in batch else batch

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        result = yield ctx.map(wrong, list(range(7)), batch_size=3, tolerated_failures=3, retry=QUICK)
        return shown(result)

    async with place.hub(app) as hub:
        said = await (await hub.client.start(main)).result(LIMIT)
        assert said["results"] == [0, 1, 2, None, None, None, 6]
        assert [failure[0] for failure in said["failures"]] == [3, 4, 5]
        assert says in said["failures"][0][1]
        assert said["failures"][0][2] == 1, "it is not tried again"


@pytest.mark.parametrize(("tolerated", "fails"), [(2, False), (1, True), (0.2, False), (0.19, True), (1.0, False)])
async def test_more_failures_than_tolerated_fail_the_map(place: Place, tolerated: float, fails: bool) -> None:
    told = Told(x3=9, x7=9)

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            result = yield ctx.map(told.double, range(10), tolerated_failures=tolerated, on_item_error="collect")
        except MapError as error:
            return ["failed" if error.is_caused_by(ValueError) else "otherwise", str(error), shown(error.result)]
        return ["completed", "", shown(result)]

    async with place.hub(told.app) as hub:
        how, text, result = await (await hub.client.start(main)).result(LIMIT)
        assert how == ("failed" if fails else "completed")
        assert result["results"] == [None if i in (3, 7) else 2 * i for i in range(10)]
        assert result["failures"] == [[3, "bad 3", 1], [7, "bad 7", 1]]
        assert result["unfinished"] == []
        if fails:
            assert "2 of 10 items failed, 1 are tolerated: item 3 (ValueError: bad 3), item 7" in text


async def test_a_map_that_fails_fast_cancels_what_is_under_way_and_starts_nothing_else(place: Place) -> None:
    told = Told(x1=9)
    told.hold(0)

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.map(told.double, range(20_000), concurrency=2)
        except MapError as error:
            return shown(error.result)

    async with place.hub(told.app) as hub:
        result = await (await hub.client.start(main)).result(LIMIT)
        assert [failure[:2] for failure in result["failures"]] == [[1, "bad 1"]]
        assert 0 in result["unfinished"]
        assert 19_999 in result["unfinished"]
        assert 0 in told.cancelled
        runs = sum(told.runs.values())
        assert runs < 19_000
        await told.turns(hub)
        assert (sum(told.runs.values()), told.now) == (runs, 0)


async def test_an_uncaught_map_error_fails_the_orchestration_with_its_cause(place: Place) -> None:
    told = Told(x1=9)

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.map(told.double, range(3))

    async with place.hub(told.app) as hub:
        details = await failure_of(await hub.client.start(main))
        assert details.type == "MapError"
        assert details.is_caused_by(ValueError)
        assert "item 1 (ValueError: bad 1)" in details.message


async def test_a_failed_item_is_tried_again_alone(place: Place) -> None:
    told = Told(x1=2, x2=3)

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return shown((yield ctx.map(told.double, range(4), retry=QUICK, tolerated_failures=1)))

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main)
        result = await instance.result(LIMIT)
        assert result == {"results": [0, 2, None, 6], "failures": [[2, "bad 2", 3]], "unfinished": []}
        assert told.runs == {0: 1, 1: 3, 2: 3, 3: 1}
        failures = [f for event in await history(instance) if isinstance(event, MapProgress) for f in event.failures]
        assert sorted((f.number, f.attempt, f.retry_at_microseconds is None) for f in failures) == [
            (1, 1, False),
            (1, 2, False),
            (2, 1, False),
            (2, 2, False),
            (2, 3, True),
        ]


async def test_an_item_may_say_itself_when_or_that_it_is_not_to_be_tried_again(place: Place) -> None:
    app, attempts = App(), Counter[int]()

    @app.activity
    async def picky(ctx: ActivityContext, x: int) -> int:
        attempts[x] += 1
        if x == 1:
            raise NonRetryableError("never")
        if x == 2 and ctx.attempt == 1:
            raise RetryAfter(0.01)
        return ctx.attempt

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        slow = RetryPolicy(max_attempts=5, first_interval=timedelta(days=1))
        return (yield ctx.map(picky, range(3), retry=slow, tolerated_failures=1)).results

    async with place.hub(app) as hub:
        assert await (await hub.client.start(main)).result(LIMIT) == [1, None, 2]
        assert attempts == {0: 1, 1: 1, 2: 2}


async def test_a_call_has_a_key_of_its_own_over_all_attempts(place: Place) -> None:
    app, keys = App(), []

    @app.activity
    async def keyed(ctx: ActivityContext, x: int) -> int:
        keys.append((x, ctx.attempt, ctx.task_id, ctx.idempotency_key))
        if ctx.attempt == 1:
            raise ValueError
        return x

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.map(keyed, range(2), retry=QUICK)
        return ctx.execution_id

    async with place.hub(app) as hub:
        execution = await (await hub.client.start(main, instance_id="i")).result(LIMIT)
        assert sorted(keys) == [(x, attempt, 1, f"i/{execution}/1/{x}") for x in range(2) for attempt in (1, 2)]


async def test_a_call_that_takes_too_long_has_failed(place: Place) -> None:
    told = Told()
    told.hold(1)

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        result = yield ctx.map("double", range(3), timeout=timedelta(milliseconds=20), tolerated_failures=1)
        return shown(result)

    async with place.hub(told.app) as hub:
        result = await (await hub.client.start(main)).result(LIMIT)
        assert result["results"] == [0, None, 4]
        assert "longer than its timeout" in result["failures"][0][1]


async def test_retry_failed_runs_what_has_no_result_and_gives_all_results_together(place: Place) -> None:
    told = Told(x1=1, x3=2, x4=3)

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        first = yield from ctx.map(told.double, range(6), tolerated_failures=1.0)
        second = yield from first.retry_failed(ctx)
        third = yield from second.retry_failed(ctx)
        try:
            yield from third.retry_failed(ctx, tolerated_failures=0, retry=RetryPolicy(max_attempts=1))
        except MapError:
            return "never"
        fourth = yield from third.retry_failed(ctx)
        return [shown(result) for result in (first, second, third, fourth)]

    async with place.hub(told.app) as hub:
        first, second, third, fourth = await (await hub.client.start(main)).result(LIMIT)
        assert [failure[0] for failure in first["failures"]] == [1, 3, 4]
        assert second["results"] == [0, 2, 4, None, None, 10]
        assert third == {"results": [0, 2, 4, 6, None, 10], "failures": [[4, "bad 4", 1]], "unfinished": []}
        assert fourth["results"] == [0, 2, 4, 6, 8, 10]


async def test_retry_failed_goes_on_from_an_error_with_what_never_ran(place: Place) -> None:
    told = Told(x2=1)

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            result = yield from ctx.map(told.double, range(300), concurrency=3)
        except MapError as error:
            result = yield from error.result.retry_failed(ctx, concurrency=50)
        return shown(result)

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main)
        assert (await instance.result(LIMIT))["results"] == [2 * i for i in range(300)]
        assert [e.concurrency for e in await history(instance) if isinstance(e, MapScheduled)] == [3, 50]


async def test_retry_failed_says_which_items_of_the_first_map_failed_again(place: Place) -> None:
    told = Told(x5=9)

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        result = yield from ctx.map(told.double, range(7), tolerated_failures=1)
        try:
            yield from result.retry_failed(ctx, tolerated_failures=0)
        except MapError as error:
            return [str(error), shown(error.result)]

    async with place.hub(told.app) as hub:
        text, result = await (await hub.client.start(main)).result(LIMIT)
        assert "1 of 1 items failed, 0 are tolerated: item 5 (ValueError: bad 5)" in text
        assert result == {
            "results": [None if i == 5 else 2 * i for i in range(7)],
            "failures": [[5, "bad 5", 1]],
            "unfinished": [],
        }


async def test_retry_failed_of_batches_runs_whole_batches(place: Place) -> None:
    app, calls = App(), Counter[str]()

    @app.activity
    async def once(batch: list[int]) -> list[int]:
        calls[str(batch)] += 1
        if (3 in batch or 7 in batch) and calls[str(batch)] == 1:
            raise ValueError
        return batch

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        result = yield from ctx.map(once, list(range(8)), batch_size=3, tolerated_failures=8)
        again = yield from result.retry_failed(ctx)
        return [result.results, again.results]

    async with place.hub(app) as hub:
        first, second = await (await hub.client.start(main)).result(LIMIT)
        assert first == [0, 1, 2, None, None, None, None, None]
        assert second == list(range(8))
        assert calls == {"[0, 1, 2]": 1, "[3, 4, 5]": 2, "[6, 7]": 2}


async def test_a_result_that_came_as_a_payload_does_not_know_its_items(place: Place) -> None:
    told = Told(x1=9)

    @told.app.orchestrator
    def inner(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map(told.double, range(3), tolerated_failures=1))

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        result = yield ctx.call_sub_orchestrator("inner", result_type=MapResult[int])
        assert result.results == [0, None, 4]
        assert result.failures[0].details.message == "bad 1"
        try:
            yield from result.retry_failed(ctx)
        except OrchestratorError as error:
            return str(error)

    async with place.hub(told.app) as hub:
        assert "does not know its items" in await (await hub.client.start(main)).result(LIMIT)


# ---- pages


def paged(told: Told, size: int, count: int, asked: list[int | None]) -> None:
    @told.app.activity
    async def numbers(cursor: int | None) -> tuple[list[int], int | None]:
        asked.append(cursor)
        first = cursor or 0
        return list(range(first, min(first + size, count))), first + size if first + size < count else None


@pytest.mark.parametrize(("size", "count"), [(10, 95), (10, 100), (1, 5), (3, 0)])
async def test_items_may_come_page_by_page(place: Place, size: int, count: int) -> None:
    told, asked = Told(), list[int | None]()
    paged(told, size, count, asked)

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map(told.double, told.app.activities["numbers"].fn, concurrency=7)).succeeded

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main)
        assert await instance.result(LIMIT) == [2 * i for i in range(count)]
        assert asked == [None, *range(size, count, size)]
        assert told.runs == dict.fromkeys(range(count), 1)
        assert (await kinds(instance)).count("MapPage") == max(1, -(-count // size))


async def test_the_next_page_is_asked_for_when_the_window_runs_short(place: Place) -> None:
    told, asked = Told(), list[int | None]()
    paged(told, 10, 1_000, asked)
    told.hold(*range(1_000))

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return len((yield ctx.map(told.double, told.app.activities["numbers"].fn, concurrency=4)).succeeded)

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main)

        async def runs() -> bool:
            return told.now == 4

        await until(runs)
        assert asked == [None]
        told.let_go()
        assert await instance.result(LIMIT) == 1_000


async def test_pages_may_be_batched_and_failures_have_the_index_over_all_pages(place: Place) -> None:
    app = App()

    @app.activity
    async def numbers(cursor: int | None) -> tuple[list[int], int | None]:
        first = cursor or 0
        return list(range(first, first + 5)), first + 5 if first < 10 else None

    @app.activity
    async def pairs(batch: list[int]) -> list[int]:
        if 8 in batch:
            raise ValueError("eight")
        return batch

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        result = yield from ctx.map(pairs, numbers, batch_size=2, tolerated_failures=0.5)
        again = yield from result.retry_failed(ctx)
        return [shown(result), again.results]

    async with place.hub(app) as hub:
        result, again = await (await hub.client.start(main)).result(LIMIT)
        expected = [None if i in (7, 8) else i for i in range(15)]
        assert result["results"] == expected
        assert [failure[0] for failure in result["failures"]] == [7, 8]
        assert again == expected


@pytest.mark.parametrize("batched", [False, True])
async def test_retry_failed_goes_on_with_pages_that_had_not_come(place: Place, batched: bool) -> None:
    app, asked = App(), list[int | None]()
    is_mended = False

    @app.activity
    async def numbers(cursor: int | None) -> tuple[list[int], int | None]:
        asked.append(cursor)
        if cursor == 20 and asked.count(20) == 1:
            raise OSError("the list is gone")
        first = cursor or 0
        return list(range(first, first + 10)), first + 10 if first < 40 else None

    @app.activity
    async def work(x: Any) -> Any:
        if not is_mended and x in (3, [3, 4, 5]):
            raise ValueError("three")
        return x

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        nonlocal is_mended
        options: dict[str, Any] = {"batch_size": 3} if batched else {}
        errors = []
        result: MapResult[Any] = MapResult([], [])
        try:
            yield ctx.map("work", numbers, concurrency=2, on_item_error="collect", **options)
        except MapError as error:
            result = error.result
            errors.append(str(error))
        for tolerated in (0, 5):
            is_mended = tolerated == 5
            try:
                result = yield from result.retry_failed(ctx, tolerated_failures=tolerated, on_item_error="fail_fast")
            except MapError as error:
                result = error.result
                errors.append(str(error))
        return [errors, result.results, (yield from result.retry_failed(ctx)) is result]

    async with place.hub(app) as hub:
        errors, results, is_same = await (await hub.client.start(main)).result(LIMIT)
        assert "'numbers' did not give the next page of items: OSError" in errors[0]
        assert "item 3 (ValueError: three)" in errors[1]
        assert len(errors) == 2
        assert results == list(range(50))
        assert is_same


@pytest.mark.parametrize("gives", ["no page", [1, 2], [[1], 2, 3], [5, None]])
async def test_an_activity_that_gives_no_page_fails_the_map(place: Place, gives: Any) -> None:
    told = Told()

    @told.app.activity
    async def numbers(cursor: Any) -> Any:
        return gives

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.map(told.double, numbers, tolerated_failures=1.0)
        except MapError as error:
            return str(error)

    async with place.hub(told.app) as hub:
        said = await (await hub.client.start(main)).result(LIMIT)
        assert "activity 'numbers' did not give the next page of items: DecodeError: page of activity 'numbers'" in said


async def test_a_page_is_tried_again_by_the_policy_of_its_activity(place: Place) -> None:
    told, asked = Told(), list[int]()

    @told.app.activity(retry=QUICK)
    async def numbers(ctx: ActivityContext, cursor: int | None) -> tuple[list[int], int | None]:
        asked.append(ctx.attempt)
        if ctx.attempt < 3:
            raise ValueError
        return [cursor or 0], None if cursor else 1

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map(told.double, numbers)).succeeded

    async with place.hub(told.app) as hub:
        assert await (await hub.client.start(main)).result(LIMIT) == [0, 2]
        assert asked == [1, 2, 3, 1, 2, 3]


# ---- children


def with_children(**fails: int) -> Told:
    told = Told(**fails)

    @told.app.orchestrator
    def child(ctx: OrchestrationContext, x: int) -> Any:
        return (yield ctx.call_activity("double", x)) + 1

    return told


async def test_an_orchestrator_runs_for_each_item_as_a_child(place: Place) -> None:
    told = with_children()

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map("child", range(30), concurrency=4)).succeeded

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main, instance_id="p")
        assert await instance.result(LIMIT) == [2 * i + 1 for i in range(30)]
        children = {state.id: state async for state in hub.client.list(name="child")}
        assert set(children) == {f"p:0001:{i}" for i in range(30)}
        assert {state.parent_instance_id for state in children.values()} == {"p"}
        assert told.most <= 4
        assert "SubOrchestrationInstanceCompleted" not in await kinds(instance)


async def test_children_that_fail_are_tried_again_under_ids_of_their_own(place: Place) -> None:
    told = with_children(x1=1, x2=9)

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        result = yield ctx.map("child", range(4), concurrency=2, retry=QUICK, tolerated_failures=1)
        return [result.results, [[f.index, f.attempts] for f in result.failures]]

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main, instance_id="p")
        assert await instance.result(LIMIT) == [[1, 3, None, 7], [[2, 3]]]
        ids = [state.id async for state in hub.client.list(name="child")]
        expected = ["p:0001:0", "p:0001:1", "p:0001:1:2", "p:0001:2", "p:0001:2:2", "p:0001:2:3", "p:0001:3"]
        assert sorted(ids) == expected
        assert "MapRetried" in await kinds(instance)


async def test_children_may_work_on_batches(place: Place) -> None:
    told = with_children()

    @told.app.orchestrator
    def batch(ctx: OrchestrationContext, items: list[int]) -> Any:
        return (yield ctx.map("double", items)).succeeded

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map("batch", range(10), batch_size=4)).succeeded

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main, instance_id="p")
        assert await instance.result(LIMIT) == [2 * i for i in range(10)]
        assert {state.id async for state in hub.client.list(id_prefix="p:")} == {f"p:0001:{i}" for i in range(3)}


@pytest.mark.parametrize("size", [3, 10])
async def test_children_may_be_fed_by_pages(place: Place, size: int) -> None:
    told, asked = with_children(), list[int | None]()
    paged(told, size, 25, asked)

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map("child", told.app.activities["numbers"].fn, concurrency=4)).succeeded

    async with place.hub(told.app) as hub:
        assert await (await hub.client.start(main)).result(LIMIT) == [2 * i + 1 for i in range(25)]
        assert asked == [None, *range(size, 25, size)]


async def test_a_child_whose_id_is_taken_has_failed(place: Place) -> None:
    told = with_children()

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return shown((yield ctx.map("child", range(3), tolerated_failures=1)))

    async with place.hub(told.app) as hub:
        await (await hub.client.start("child", 9, instance_id="p:0001:1")).result(LIMIT)
        result = await (await hub.client.start(main, instance_id="p")).result(LIMIT)
        assert result["results"] == [1, None, 5]
        assert "'p:0001:1' is taken" in result["failures"][0][1]


@pytest.mark.parametrize("verb", ["terminate", "cancel", "race", "fail fast"])
async def test_children_end_with_their_map(place: Place, verb: str) -> None:
    told = with_children()
    told.fails[0] = 9

    @told.app.orchestrator
    def waits(ctx: OrchestrationContext, x: int) -> Any:
        if x:
            yield ctx.wait_for_external_event("never")
        if verb == "fail fast":
            yield ctx.call_activity("double", x)
        yield ctx.wait_for_external_event("go")

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        task = ctx.map("waits", range(10), concurrency=3)
        go = ctx.wait_for_external_event("go")
        try:
            yield race([task, go])
        except MapError:
            pass
        return "over"

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main, instance_id="p")
        children = [hub.client.get(f"p:0001:{i}") for i in range(3)]

        async def there() -> bool:
            return len([state async for state in hub.client.list(id_prefix="p:", status="RUNNING")]) == 3

        if verb != "fail fast":
            await until(there)
        if verb in ("terminate", "cancel"):
            await getattr(instance, verb)("enough")
            with pytest.raises((OrchestrationTerminated, OrchestrationCanceled)):
                await instance.result(LIMIT)
        else:
            if verb == "race":
                await instance.raise_event("go")
            assert await instance.result(LIMIT) == "over"
        for i, one in enumerate(children):
            ended = "FAILED" if verb == "fail fast" and i == 0 else "TERMINATED" if verb == "terminate" else "CANCELED"
            assert (await one.wait(LIMIT)).status == ended
        assert len([state async for state in hub.client.list(id_prefix="p:")]) == 3, "no other began"


# ---- how a map ends, and what happens meanwhile


@pytest.mark.parametrize("how", ["cancel", "race", "return", "continue", "terminate", "cancel instance"])
async def test_a_map_that_is_not_wanted_any_more_stops(place: Place, how: str) -> None:
    told = Told()
    told.hold(*range(3))

    @told.app.orchestrator
    def main(ctx: OrchestrationContext, is_first: bool) -> Any:
        if not is_first:
            return "continued"
        task = ctx.map(told.double, range(100), concurrency=3)
        go = ctx.wait_for_external_event("go")
        if how == "race":
            yield race([task, go])
            try:
                return task.result
            except TaskCanceledError:
                return "cancelled"
        yield go
        if how == "cancel":
            assert task.cancel()
        if how == "continue":
            ctx.continue_as_new(False)
        if how.startswith(("term", "cancel i")):
            yield task
        return "done"

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main, True)

        async def runs() -> bool:
            return told.now == 3

        await until(runs)
        if how == "terminate":
            await instance.terminate()
        elif how == "cancel instance":
            await instance.cancel()
        else:
            await instance.raise_event("go")
        await instance.wait(LIMIT)

        async def stopped() -> bool:
            return sorted(told.cancelled) == [0, 1, 2]

        await until(stopped)
        assert sum(told.runs.values()) == 3


async def test_a_suspended_instance_starts_no_call_and_loses_no_result(place: Place) -> None:
    told = Told()
    told.hold(*range(4))

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map(told.double, range(20), concurrency=4)).succeeded

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main)

        async def runs() -> bool:
            return told.now == 4

        await until(runs)
        await instance.suspend()
        await until_status(instance, "SUSPENDED")
        told.let_go()

        async def idle() -> bool:
            return told.now == 0

        await until(idle)
        await told.turns(hub)
        assert sum(told.runs.values()) == 4
        assert "MapProgress" not in await kinds(instance)
        await instance.resume()
        assert await instance.result(LIMIT) == [2 * i for i in range(20)]
        assert told.runs == dict.fromkeys(range(20), 1)


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("what", ["double", "child", "page"])
async def test_a_retry_that_falls_due_while_suspended_is_made_when_resumed(
    place: Place, what: str, restarts: bool
) -> None:
    told = with_children(x1=1)
    told.hold(1)
    later = RetryPolicy(max_attempts=2, first_interval=timedelta(milliseconds=150))
    asked = []

    @told.app.activity(retry=later)
    async def page(ctx: ActivityContext, cursor: int | None) -> tuple[list[int], int | None]:
        asked.append(ctx.attempt)
        if len(asked) == 1:
            await told.held[1].wait()
            raise ValueError("no page")
        return [0, 2], None

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        if what == "page":
            return (yield ctx.map("double", page)).succeeded
        return (yield ctx.map(what, range(3), retry=later)).succeeded

    expected = {"double": [0, 2, 4], "child": [1, 3, 5], "page": [0, 4]}[what]

    async def failed_once() -> bool:
        past = await history(instance)
        return any(event.failures for event in past if isinstance(event, MapProgress))

    async def is_due() -> bool:
        failures = [
            one for event in await history(instance) if isinstance(event, MapProgress) for one in event.failures
        ]
        return all((one.retry_at_microseconds or 0) < time.time_ns() // 1000 for one in failures)

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main, instance_id="i")

        async def stuck() -> bool:
            return bool(told.now or asked)

        await until(stuck)
        told.let_go()
        await until(failed_once)
        await instance.suspend()
        await until_status(instance, "SUSPENDED")
        await until(is_due)
        if not restarts:
            await instance.resume()
            assert await instance.result(LIMIT) == expected
            return
    async with place.hub(told.app) as hub:
        instance = hub.client.get("i")
        await instance.resume()
        assert await instance.result(LIMIT) == expected


async def test_an_instance_that_is_evicted_while_its_map_waits_for_a_retry_goes_on(place: Place) -> None:
    app, attempts = App(), Counter[tuple[int, int]]()

    @app.activity
    async def at_last(ctx: ActivityContext, x: int) -> int:
        attempts[x, ctx.attempt] += 1
        if ctx.attempt == 1 and x == 1:
            raise ValueError
        return x

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        later = RetryPolicy(max_attempts=2, first_interval=timedelta(milliseconds=150))
        return (yield ctx.map(at_last, range(3), retry=later)).succeeded

    async with place.hub(app, warm_instances=1) as hub:
        some = [await hub.client.start(main) for _ in range(4)]
        assert [await one.result(LIMIT) for one in some] == [[0, 1, 2]] * 4
        assert attempts == {(0, 1): 4, (1, 1): 4, (1, 2): 4, (2, 1): 4}


async def test_maps_stand_beside_each_other_and_beside_other_tasks(place: Place) -> None:
    told = with_children()

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        tasks = [ctx.map("double", range(20)), ctx.map("child", range(5)), ctx.call_activity("double", 100)]
        one, two, three = yield when_all(tasks)
        return [sum(one.succeeded), sum(two.succeeded), three]

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main)
        assert await instance.result(LIMIT) == [380, 25, 200]
        ids = [event.event_id for event in await history(instance) if event.event_id > 0]
        assert ids == [1, 2, 3, 4]


async def test_plain_functions_and_processes_do_the_work_of_a_map(place: Place) -> None:
    from tests.engine.process_activities import app as of_processes

    app = App()
    app.include(of_processes)

    @app.activity
    def in_thread(x: int) -> int:
        return x + 1

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        threads = yield ctx.map(in_thread, range(100))
        return sum(threads.succeeded)

    async with place.hub(app) as hub:
        assert await (await hub.client.start(main)).result(LIMIT) == 5050


# ---- over restarts


async def test_after_a_restart_only_what_was_under_way_runs_again(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(x2=1)
    told.hold(*range(10, 14))

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map(told.double, range(30), concurrency=4, retry=QUICK)).succeeded

    async def ready() -> bool:
        return told.now == 4

    async with place.hub(told.app, grace=timedelta(0)) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await until(ready)

        async def durable() -> bool:
            past = await history(instance)
            return sum(len(event.numbers) for event in past if isinstance(event, MapProgress)) == 9

        await until(durable)
    told.let_go()
    async with place.hub(told.app) as hub:
        instance = hub.client.get("i")
        assert await instance.result(LIMIT) == [2 * i for i in range(30)]
        assert {x: n for x, n in told.runs.items() if n != 1} == {2: 2, 10: 2, 11: 2, 12: 2, 13: 2}
        numbers = [n for event in await history(instance) if isinstance(event, MapProgress) for n in event.numbers]
        assert sorted(numbers) == list(range(30))
    assert "another input" not in caplog.text


async def test_a_retry_is_kept_over_a_restart(place: Place) -> None:
    told = Told(x1=1)
    later = RetryPolicy(max_attempts=2, first_interval=timedelta(milliseconds=300))

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map(told.double, range(3), retry=later)).succeeded

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main, instance_id="i")

        async def failed_once() -> bool:
            past = await history(instance)
            return any(event.failures for event in past if isinstance(event, MapProgress))

        await until(failed_once)
    async with place.hub(told.app) as hub:
        assert await hub.client.get("i").result(LIMIT) == [0, 2, 4]
        assert told.runs == {0: 1, 1: 2, 2: 1}


async def test_a_cold_generator_goes_on_with_its_map(place: Place) -> None:
    told = Told()
    told.hold(5)

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return sum((yield ctx.map(told.double, range(50), concurrency=5)).succeeded)

    async with place.hub(told.app, warm_instances=1) as hub:
        some = [await hub.client.start(main) for _ in range(5)]

        async def stuck() -> bool:
            return told.now == 5

        await until(stuck)
        told.let_go()
        assert [await one.result(LIMIT) for one in some] == [2450] * 5
        assert set(told.runs.values()) == {5}


@pytest.mark.parametrize("change", ["name", "kind"])
async def test_a_map_of_another_name_is_a_mismatch(place: Place, change: str) -> None:
    told = Told()
    told.hold(1)
    told.app.activity(name="other")(told.double)
    called = "double"

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        if called == "call":
            return (yield ctx.call_activity("double", 1))
        return (yield ctx.map(called, range(3))).succeeded

    async def ready() -> bool:
        return told.now == 1

    async with place.hub(told.app, grace=timedelta(0)) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await until(ready)
    called = "other" if change == "name" else "call"
    async with place.hub(told.app) as hub:
        instance = hub.client.get("i")

        async def parked() -> Any:
            return (await instance.status()).problem

        problem = await until(parked)
        assert "the history has map of 'double' (task 1)" in problem
        assert ("map of 'other'" if change == "name" else "activity 'double'") in problem
    called = "double"
    told.let_go()
    async with place.hub(told.app) as hub:
        assert await hub.client.get("i").result(LIMIT) == [0, 2, 4]


async def test_what_was_recorded_of_a_map_counts_when_the_code_asks_for_other_items(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    told.hold(1)
    count, tolerated = 3, 0

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map("double", range(count), tolerated_failures=tolerated)).succeeded

    async def ready() -> bool:
        return told.now == 1

    async with place.hub(told.app, grace=timedelta(0)) as hub:
        await hub.client.start(main, instance_id="i")
        await until(ready)
    count = 500
    told.let_go()
    async with place.hub(told.app) as hub:
        assert await hub.client.get("i").result(LIMIT) == [0, 2, 4]
    assert "map of 'double' (task 1) was asked for with another input" in caplog.text


async def test_an_activity_that_no_worker_knows_parks_the_instance(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map("missing", range(3))).succeeded

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, instance_id="i")

        async def parked() -> Any:
            return (await instance.status()).problem

        assert "no activity 'missing'" in await until(parked)
    app.activity(name="missing")(abs)
    async with place.hub(app) as hub:
        assert await hub.client.get("i").result(LIMIT) == [0, 1, 2]


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concurrency": 0}, "concurrency is 0"),
        ({"concurrency": 1.5}, "concurrency is 1.5"),
        ({"concurrency": True}, "concurrency is True"),
        ({"concurrency": 2**63}, "concurrency is 9223372036854775808"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 10**30}, "batch_size is 1000000"),
        ({"tolerated_failures": 10**30}, "tolerated_failures is 1000000"),
        ({"tolerated_failures": -1}, "tolerated_failures is -1"),
        ({"tolerated_failures": 1.5}, "a share of the items"),
        ({"tolerated_failures": float("nan")}, "tolerated_failures is nan"),
        ({"tolerated_failures": True}, "tolerated_failures is True"),
        ({"on_item_error": "perhaps"}, "'fail_fast' or 'collect'"),
        ({"timeout": timedelta(0)}, "longer than nothing"),
        ({"items": "text"}, "items is 'text'"),
        ({"items": {"a": 1}}, "items is {'a': 1}"),
        ({"items": 5}, "items is 5"),
        ({"fn": "main", "timeout": timedelta(1)}, "timeout is for attempts of activities"),
    ],
)
async def test_an_option_outside_its_range_is_refused(place: Place, options: dict[str, Any], says: str) -> None:
    told = Told()
    given: dict[str, Any] = {"fn": "double", "items": [1], **options}

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        with pytest.raises(InvalidArgumentError, match=r".") as refused:
            ctx.map(**given)
        timer = ctx.create_timer(timedelta(0))
        yield timer
        return [str(refused.value), timer.id]

    async with place.hub(told.app) as hub:
        text, id = await (await hub.client.start(main)).result(LIMIT)
        assert says in text
        assert id == 1, "no id was taken"


async def test_an_item_that_cannot_travel_is_named(place: Place) -> None:
    told = Told()

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            ctx.map("double", [1, {"a": object()}])
        except EncodeError as error:
            return str(error)
        yield ctx.create_timer(timedelta(0))

    async with place.hub(told.app) as hub:
        assert "item 1 of map of 'double'" in await (await hub.client.start(main)).result(LIMIT)


async def test_items_that_are_too_large_together_are_refused_and_pages_are_advised(place: Place) -> None:
    told = Told()

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            ctx.map("double", [b"x" * 1_000] * 20)
        except PayloadTooLargeError as error:
            return str(error)
        yield ctx.create_timer(timedelta(0))

    async with TaskHub(place.store(), told.app, codec=Codec(payload_bytes_max=10_000)) as hub:
        said = await (await hub.client.start(main)).result(LIMIT)
        assert "the items of map of 'double' are more than 10,000 bytes together" in said
        assert "page by page" in said


async def test_a_function_that_is_not_registered_is_refused(place: Place) -> None:
    told = Told()

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        said = []
        given: list[tuple[Any, Any]] = [(abs, [1]), (told.double, abs)]
        for fn, items in given:
            try:
                ctx.map(fn, items)
            except UnknownNameError as error:
                said.append(str(error))
        yield ctx.create_timer(timedelta(0))
        return said

    async with place.hub(told.app) as hub:
        said = await (await hub.client.start(main)).result(LIMIT)
        assert len(said) == 2
        assert all("'abs' is not registered as an activity" in text for text in said)


async def test_a_result_that_does_not_fit_its_annotation_fails_the_map_with_its_index(place: Place) -> None:
    app = App()

    @app.activity
    async def odd(x: int) -> int:
        return "text" if x == 2 else x  # type: ignore[return-value]

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield from ctx.map(odd, range(4))

    async with place.hub(app) as hub:
        details = await failure_of(await hub.client.start(main))
        assert details.type == "DecodeError"
        assert "result of item 2 of map of 'odd'" in details.message


@pytest.mark.parametrize("has_custom_status", [False, True])
async def test_the_status_says_how_far_the_maps_are_that_are_under_way(place: Place, has_custom_status: bool) -> None:
    """Without the history, also for a listing, for who has no app, and after a restart; and no longer once they are over."""
    told = Told()
    told.hold(3, 7)
    told.fails = {5: 1}

    @told.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        if has_custom_status:
            ctx.set_custom_status("counting")
        yield ctx.map(told.double, range(3, 5), concurrency=1)
        result = yield ctx.map(told.double, range(10), concurrency=4, tolerated_failures=1)
        ctx.wait_for_external_event("never")
        yield ctx.wait_for_external_event("go")
        return result.succeeded

    async with place.hub(told.app) as hub:
        instance = await hub.client.start(main, instance_id="i")

        async def is_first() -> bool:
            return [one.total for one in (await instance.status()).maps] == [2]

        await until(is_first)
        told.held[3].set()

        async def is_nearly_done() -> bool:
            return [one.done for one in (await instance.status()).maps] == [8]

        await until(is_nearly_done)
        expected = MapState(task_id=2, name="double", total=10, done=8, failed=1, is_whole=True, is_over=False)
        assert (await instance.status()).maps == (expected,)
        assert (await instance.maps())[1] == expected
        bare = Client(hub.client._store)
        assert [state.maps async for state in bare.list()] == [(expected,)]
    async with place.hub(told.app) as hub:
        instance = hub.client.get("i")
        assert (await instance.status()).maps == (expected,)
        told.let_go()

        async def is_over() -> bool:
            return (await instance.status()).maps == ()

        await until(is_over)
        assert (await instance.status()).status == "RUNNING"
        assert (await instance.maps())[1].is_over
        await instance.raise_event("go")
        assert len(await instance.result(LIMIT)) == 9
        assert (await instance.status()).maps == ()
