"""Rewind: what failed runs again, what had completed stays, what was left behind is stopped; and where it is refused."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    ActivityContext,
    ActivityError,
    App,
    Client,
    EntityContext,
    ExecutionRewound,
    Instance,
    InstanceNotFoundError,
    InvalidArgumentError,
    Limits,
    OrchestrationContext,
    OrchestrationFailed,
    RetryPolicy,
    Saga,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TaskHub,
    TaskScheduled,
    when_all,
    when_any,
)
from replayflow.core.events import encode
from replayflow.errors import EntityError, InvalidStateError
from replayflow.store import MemoryStore
from replayflow.store.base import Owner, Transact
from tests.semantics.kit import LIMIT, Place, failure_of, history, kinds, until, until_recorded, until_status


class World:
    """What the activities of a test meet: names that fail, gates that are shut, and what has been run."""

    def __init__(self) -> None:
        self.app = App()
        self.broken: set[str] = set()
        self.shut: dict[str, asyncio.Event] = {}
        self.ran: Counter[str] = Counter()
        self.attempts: list[tuple[str, int, str]] = []

        @self.app.activity
        async def work(ctx: ActivityContext, name: str) -> str:
            self.ran[name] += 1
            self.attempts.append((name, ctx.attempt, ctx.idempotency_key))
            gate = self.shut.get(name)
            if gate is not None:
                await gate.wait()
            if name in self.broken:
                raise ValueError(f"{name} is broken")
            return name.upper()

        self.work = work

    def shut_gate(self, name: str) -> asyncio.Event:
        self.shut[name] = asyncio.Event()
        return self.shut[name]

    def forget(self) -> None:
        self.ran.clear()
        self.attempts.clear()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
def without_warnings_of_changes(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What was asked for before a cut is found as it was: no replay has anything to say about it."""
    with caplog.at_level(logging.WARNING, "replayflow"):
        yield
    assert not [record for record in caplog.records if "than now" in record.getMessage()]


async def failed(instance: Instance[Any]) -> None:
    await failure_of(instance)


async def test_what_failed_runs_again_and_what_had_completed_stays(place: Place, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        first = yield ctx.call_activity("work", "a")
        second = yield ctx.call_activity("work", "b")
        return [first, second, (yield ctx.call_activity("work", "c"))]

    world.broken.add("b")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main, instance_id="i", tags={"team": "x"})
        await failed(instance)
        before = await instance.status()
        past = await kinds(instance)
        world.broken.clear()
        await instance.rewind("mended")
        assert await instance.result(LIMIT) == ["A", "B", "C"]
        assert world.ran == {"a": 1, "b": 2, "c": 1}
        after = await instance.status()
        assert (after.created_at, after.tags, after.failure) == (before.created_at, before.tags, None)
        assert after.execution_id != before.execution_id
        # The execution that failed is as it was (I10), and the new one says where it comes from.
        assert await kinds(instance, before.execution_id) == past
        marks = [event for event in await history(instance) if isinstance(event, ExecutionRewound)]
        assert [(mark.reason, mark.execution_id) for mark in marks] == [("mended", before.execution_id)]
        assert past[marks[0].from_event - 1] == "OrchestratorStarted"
        assert past[marks[0].from_event] == "TaskFailed"


async def test_a_task_that_runs_again_keeps_its_key_and_has_all_its_attempts(place: Place, world: World) -> None:
    policy = RetryPolicy(max_attempts=2, first_interval=timedelta(milliseconds=1))

    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity("work", "a", retry=policy))

    world.broken.add("a")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main)
        await failed(instance)
        await instance.rewind()
        await failed(instance)
        world.broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == "A"
    assert [attempt for _, attempt, _ in world.attempts] == [1, 2, 1, 2, 1]
    assert len({key for _, _, key in world.attempts}) == 1


async def test_of_a_fan_out_all_that_failed_runs_again_and_nothing_else(place: Place, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield when_all([ctx.call_activity("work", name) for name in "abcd"]))

    world.broken.update("bd")
    last = world.shut_gate("d")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main)
        await until_recorded(instance, "TaskCompleted", 2)
        await until_recorded(instance, "TaskFailed")
        last.set()
        await failed(instance)
        world.broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == ["A", "B", "C", "D"]
    assert world.ran == {"a": 1, "b": 2, "c": 1, "d": 2}


async def test_twin_failures_of_one_wait_run_both_again(place: Place) -> None:
    app, gates, broken = App(), [asyncio.Event(), asyncio.Event()], [True]
    ran: Counter[int] = Counter()

    @app.activity
    async def twin(number: int) -> int:
        ran[number] += 1
        await gates[number].wait()
        if broken[0]:
            raise ValueError("the same")
        return number

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield when_all([ctx.call_activity(twin, 0), ctx.call_activity(twin, 1)]))

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        gates[0].set()
        await until_recorded(instance, "TaskFailed")
        gates[1].set()
        await failed(instance)
        broken[0] = False
        await instance.rewind()
        assert await instance.result(LIMIT) == [0, 1]
    assert ran == {0: 2, 1: 2}


async def test_a_failure_that_the_code_dealt_with_stays(place: Place, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity("work", "a")
        except ActivityError:
            yield ctx.call_activity("work", "instead")
        return (yield ctx.call_activity("work", "b"))

    world.broken.update("ab")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main)
        await failed(instance)
        world.broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == "B"
    assert world.ran == {"a": 1, "instead": 1, "b": 2}


async def test_what_was_scheduled_after_the_failure_is_left_behind(place: Place, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity("work", "a")
        except ActivityError as error:
            yield ctx.call_activity("work", "report")
            raise RuntimeError("told") from error
        return "done"

    world.broken.add("a")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main)
        await failed(instance)
        world.broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == "done"
        assert [e.name for e in await history(instance) if isinstance(e, TaskScheduled)] == ["work"]
    assert world.ran == {"a": 2, "report": 1}


async def test_code_that_failed_by_itself_is_replaced_and_goes_on(place: Place, world: World) -> None:
    def broken(ctx: OrchestrationContext) -> Any:
        first = yield ctx.call_activity("work", "a")
        second = yield ctx.wait_for_external_event("go")
        return {}[first + second]

    def mended(ctx: OrchestrationContext) -> Any:
        first = yield ctx.call_activity("work", "a")
        second = yield ctx.wait_for_external_event("go")
        return [first, second, (yield ctx.call_activity("work", "b"))]

    world.app.orchestrator(name="main")(broken)
    async with place.hub(world.app) as hub:
        instance = await hub.client.start("main", instance_id="i")
        await until_recorded(instance, "TaskCompleted")
        await instance.raise_event("go", "now")
        await failed(instance)
    other = World()
    other.app.orchestrator(name="main")(mended)
    async with place.hub(other.app) as hub:
        instance = hub.client.get("i")
        await instance.rewind()
        assert await instance.result(LIMIT) == ["A", "now", "B"]
    assert (world.ran, other.ran) == ({"a": 1}, {"b": 1})


async def test_code_that_fails_in_its_first_episode_begins_anew(place: Place, world: World) -> None:
    faulty = [True]

    @world.app.orchestrator
    def main(ctx: OrchestrationContext, order: str) -> Any:
        if faulty[0]:
            raise ValueError("at once")
        return order + (yield ctx.call_activity("work", "a"))

    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main, "o")
        await failed(instance)
        faulty[0] = False
        await instance.rewind()
        assert await instance.result(LIMIT) == "oA"


async def test_events_that_came_with_or_after_the_failure_are_not_lost(place: Place, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity("work", "a")
        except ActivityError:
            yield ctx.wait_for_external_event("seen")
            raise
        return [(yield ctx.wait_for_external_event("seen"))]

    world.broken.add("a")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main)
        await until_recorded(instance, "TaskFailed")
        await instance.raise_event("seen", "late", dedupe_key="k")
        await failed(instance)
        world.broken.clear()
        await instance.rewind()
        await instance.raise_event("seen", "again", dedupe_key="k")  # its keys are kept, too
        assert await instance.result(LIMIT) == ["late"]
        assert (await kinds(instance)).count("EventRaised") == 1


async def test_a_timer_that_was_open_fires_at_once_where_its_time_is_past(place: Place, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        timer = ctx.create_timer(timedelta(milliseconds=20))
        later = ctx.create_timer(timedelta(days=1))
        yield ctx.call_activity("work", "a")
        return (yield when_any([later, timer])) is timer

    world.broken.add("a")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main)
        await failed(instance)
        due = datetime.now(UTC) + timedelta(milliseconds=20)

        async def is_past() -> bool:
            return datetime.now(UTC) > due

        await until(is_past)  # nobody is there while the time of the first timer passes
        world.broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) is True


async def test_random_numbers_and_uuids_of_the_past_stay(place: Place, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        made = [ctx.new_uuid(), ctx.random.random()]
        told = yield ctx.call_activity("work", f"{made}")
        yield ctx.call_activity("work", "b")
        return [told == f"{made}".upper(), ctx.new_uuid() not in made, ctx.random.random() not in made]

    world.broken.add("b")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main)
        for _ in range(2):
            await failed(instance)
            await instance.rewind()
        await failed(instance)
        world.broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == [True, True, True]


async def test_a_rewound_instance_outlives_the_worker(place: Place, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        first = yield ctx.call_activity("work", "a")
        second = yield ctx.call_activity("work", "b")
        return [first, second, (yield ctx.wait_for_external_event("end"))]

    world.broken.add("b")
    async with place.hub(world.app) as hub:
        await failed(await hub.client.start(main, instance_id="i"))
    world.broken.clear()
    async with Client(place.store()) as client:  # nobody is there to do it
        await client.get("i").rewind()
        assert (await client.get("i").status()).status == "RUNNING"
    async with place.hub(world.app) as hub:
        await until_recorded(hub.client.get("i"), "TaskCompleted", 2)
    async with place.hub(world.app) as hub:
        await hub.client.get("i").raise_event("end", "now")
        assert await hub.client.get("i").result(LIMIT) == ["A", "B", "now"]
    assert world.ran == {"a": 1, "b": 2}


async def test_an_activity_at_work_when_its_instance_failed_goes_on_for_the_rewound_one(
    place: Place, world: World
) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield when_all([ctx.call_activity("work", "slow"), ctx.call_activity("work", "a")], fail_fast=True))

    world.broken.add("a")
    slow = world.shut_gate("slow")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main)
        await failed(instance)
        world.broken.clear()
        await instance.rewind()
        await until_recorded(instance, "TaskCompleted")
        slow.set()
        assert await instance.result(LIMIT) == ["SLOW", "A"]
    assert world.ran == {"slow": 1, "a": 2}


async def test_another_process_may_rewind_what_the_worker_is_still_busy_with(tmp_path: Path, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        both = when_all([ctx.call_activity("work", "slow"), ctx.call_activity("work", "a")], fail_fast=True)
        return [(yield both), (yield ctx.call_activity("work", "c"))]

    world.broken.add("a")
    slow = world.shut_gate("slow")
    place = Place("sqlite", tmp_path)
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await failed(instance)
        world.broken.clear()
        async with Client(place.store()) as client:  # its writes come to the worker as anybody's
            await client.get("i").rewind()
        await until_recorded(instance, "TaskCompleted")
        slow.set()
        assert await instance.result(LIMIT) == [["SLOW", "A"], "C"]
    assert world.ran == {"slow": 1, "a": 2, "c": 1}


async def test_with_at_it_goes_back_to_before_an_event(place: Place, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        first = yield ctx.call_activity("work", "a")
        second = yield ctx.call_activity("work", "b")
        return [first, second, (yield ctx.call_activity("work", "c"))]

    world.broken.add("c")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main)
        await failed(instance)
        world.broken.clear()
        told = [n for n, e in enumerate(await kinds(instance), 1) if e == "TaskCompleted"]
        await instance.rewind(at=told[1])
        assert await instance.result(LIMIT) == ["A", "B", "C"]
    # The result of b stays, because b was scheduled before; c was not, and is asked for anew.
    assert world.ran == {"a": 1, "b": 1, "c": 2}


# ---- children --------------------------------------------------------------------------------------------------


async def test_children_that_failed_are_rewound_and_answer_their_rewound_parent(place: Place, world: World) -> None:
    @world.app.orchestrator
    def leaf(ctx: OrchestrationContext, name: str) -> Any:
        first = yield ctx.call_activity("work", f"before {name}")
        return [first, (yield ctx.call_activity("work", name))]

    @world.app.orchestrator
    def middle(ctx: OrchestrationContext, name: str) -> Any:
        return (yield ctx.call_sub_orchestrator(leaf, name))

    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield when_all([ctx.call_sub_orchestrator(middle, name) for name in "ab"]))

    world.broken.add("b")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await failed(instance)
        ids = [state.id async for state in hub.client.list()]
        world.broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == [["BEFORE A", "A"], ["BEFORE B", "B"]]
        assert sorted(ids) == sorted([state.id async for state in hub.client.list()])
        assert [state.status async for state in hub.client.list()] == ["COMPLETED"] * 5
        assert (await hub.client.get("i:0002:0001").status()).parent_instance_id == "i:0002"
    assert world.ran == {"before a": 1, "a": 1, "before b": 1, "b": 2}


def parent_of_one_that_waits(app: App) -> Any:
    """An orchestrator that starts a child, which waits for the event `go`, and runs `work` before it asks for the child's result."""

    @app.orchestrator
    def leaf(ctx: OrchestrationContext) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        child = ctx.call_sub_orchestrator(leaf)
        first = yield ctx.call_activity("work", "a")
        return [first, (yield child)]

    return main


async def test_a_child_that_still_runs_answers_the_rewound_parent(place: Place, world: World) -> None:
    main = parent_of_one_that_waits(world.app)
    world.broken.add("a")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await failed(instance)
        world.broken.clear()
        await instance.rewind()
        await until_recorded(hub.client.get("i:0001"), "ParentRewound")
    async with place.hub(world.app) as hub:  # what it was told is history, also of a child that sleeps
        await hub.client.get("i:0001").raise_event("go", "from the child")
        assert await hub.client.get("i").result(LIMIT) == ["A", "from the child"]


async def test_a_child_that_completed_while_its_parent_had_failed_is_not_run_again(place: Place, world: World) -> None:
    main = parent_of_one_that_waits(world.app)
    world.broken.add("a")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await failed(instance)
        child = hub.client.get("i:0001")
        await child.raise_event("go", 7)
        assert await child.result(LIMIT) == 7
        execution_id = (await child.status()).execution_id
        world.broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == ["A", 7]
        assert (await child.status()).execution_id == execution_id


async def test_a_child_that_was_mended_by_itself_gives_its_parent_the_result(place: Place, world: World) -> None:
    @world.app.orchestrator
    def leaf(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity("work", "a"))

    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_sub_orchestrator(leaf))

    world.broken.add("a")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await failed(instance)
        world.broken.clear()
        await hub.client.get("i:0001").rewind()
        assert await hub.client.get("i:0001").result(LIMIT) == "A"
        assert (await instance.status()).status == "FAILED"
        await instance.rewind()
        assert await instance.result(LIMIT) == "A"
    assert world.ran == {"a": 2}


async def test_a_child_that_was_terminated_begins_anew_under_an_id_of_its_own(place: Place, world: World) -> None:
    patient = [False]

    @world.app.orchestrator
    def leaf(ctx: OrchestrationContext) -> Any:
        if not patient[0]:
            yield ctx.wait_for_external_event("never")
        return (yield ctx.call_activity("work", "a"))

    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_sub_orchestrator(leaf))

    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        child = hub.client.get("i:0001")
        await until(lambda: hub.client._store.get("i:0001"))
        await child.terminate()
        await failed(instance)
        patient[0] = True
        await instance.rewind()
        assert await instance.result(LIMIT) == "A"
        statuses = {state.id: state.status async for state in hub.client.list(id_prefix="i:")}
        assert statuses.pop("i:0001") == "TERMINATED"
        assert list(statuses.values()) == ["COMPLETED"]


async def test_a_child_of_which_nothing_is_left_begins_anew(world: World, tmp_path: Path) -> None:
    @world.app.orchestrator
    def leaf(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity("work", "a"))

    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_sub_orchestrator(leaf))

    world.broken.add("a")
    place = Place("memory", tmp_path)
    store = place.store()
    assert isinstance(store, MemoryStore)
    async with place.hub(world.app) as hub:
        await failed(await hub.client.start(main, instance_id="i"))
    del store._instances["i:0001"]
    world.broken.clear()
    async with place.hub(world.app) as hub:
        await hub.client.get("i").rewind()
        assert await hub.client.get("i").result(LIMIT) == "A"


async def test_an_explicit_id_that_was_taken_is_tried_again(place: Place, world: World) -> None:
    wanted = ["taken"]

    @world.app.orchestrator
    def leaf(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity("work", "a"))

    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_sub_orchestrator(leaf, instance_id=wanted[0]))

    async with place.hub(world.app) as hub:
        other = await hub.client.start(leaf, instance_id="taken")
        await other.result(LIMIT)
        instance = await hub.client.start(main)
        assert "is taken" in (await failure_of(instance)).message
        await instance.rewind()
        assert "is taken" in (await failure_of(instance)).message
        assert await other.result(LIMIT) == "A"


async def test_children_that_were_begun_after_the_failure_are_asked_to_end_and_others_take_their_place(
    place: Place, world: World
) -> None:
    @world.app.orchestrator
    def leaf(ctx: OrchestrationContext) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity("work", "a")
        except ActivityError:
            ctx.call_sub_orchestrator(leaf)
            yield ctx.call_activity("work", "b")
            raise
        return (yield ctx.call_sub_orchestrator(leaf))

    world.broken.add("a")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await failed(instance)
        world.broken.clear()
        await instance.rewind()
        await until_status(hub.client.get("i:0002"), "CANCELED")

        async def second() -> Any:
            return [state.id async for state in hub.client.list(id_prefix="i:0002:", status="RUNNING")]

        [id] = await until(second)
        await hub.client.get(id).raise_event("go", 1)
        assert await instance.result(LIMIT) == 1


async def test_a_child_with_retries_is_tried_as_often_again(place: Place, world: World) -> None:
    policy = RetryPolicy(max_attempts=2, first_interval=timedelta(milliseconds=1))

    @world.app.orchestrator
    def leaf(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity("work", "a"))

    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_sub_orchestrator(leaf, retry=policy))

    world.broken.add("a")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await failed(instance)
        assert world.ran["a"] == 2
        await instance.rewind()
        await failed(instance)
        assert world.ran["a"] == 4
        world.broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == "A"
    assert world.ran["a"] == 5


async def test_a_parent_that_had_dealt_with_the_failure_is_not_disturbed_by_its_rewound_child(
    place: Place, world: World
) -> None:
    @world.app.orchestrator
    def leaf(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity("work", "a"))

    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_sub_orchestrator(leaf)
        except Exception:
            return (yield ctx.wait_for_external_event("go"))

    world.broken.add("a")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await until_recorded(instance, "SubOrchestrationInstanceFailed")
        world.broken.clear()
        await hub.client.get("i:0001").rewind()
        assert await hub.client.get("i:0001").result(LIMIT) == "A"
        await instance.raise_event("go", "on")
        assert await instance.result(LIMIT) == "on"


# ---- maps, sagas, entities -------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_item_error", ["fail_fast", "collect"])
async def test_of_a_map_the_items_that_failed_run_again(place: Place, on_item_error: Any) -> None:
    app, broken = App(), {3, 7}
    ran: Counter[int] = Counter()

    @app.activity
    async def work(x: int) -> int:
        ran[x] += 1
        if x in broken:
            raise ValueError(f"{x} is broken")
        return 2 * x

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        result = yield ctx.map(work, range(10), concurrency=2, on_item_error=on_item_error)
        return result.succeeded

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        await failed(instance)
        broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == [2 * x for x in range(10)]
    again = {x for x, count in ran.items() if count > 1}
    assert 3 in again
    assert again <= {3, 4, 5, 6, 7}, "what had completed ran again"


@pytest.mark.parametrize("on_item_error", ["fail_fast", "collect"])
async def test_of_a_map_the_children_that_failed_are_rewound(place: Place, on_item_error: Any) -> None:
    app, broken = App(), {3, 7}
    ran: Counter[int] = Counter()

    @app.activity
    async def work(x: int) -> int:
        ran[x] += 1
        if x in broken:
            raise ValueError(f"{x} is broken")
        return 2 * x

    @app.orchestrator
    def leaf(ctx: OrchestrationContext, x: int) -> Any:
        return (yield ctx.call_activity(work, x))

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        result = yield ctx.map(leaf, range(10), concurrency=2, on_item_error=on_item_error)
        return result.succeeded

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await failed(instance)
        broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == [2 * x for x in range(10)]
    assert ran[3] == 2
    assert all(ran[x] == 1 for x in range(3))


async def test_a_saga_that_was_undone_runs_again_as_a_whole(place: Place, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity("work", "before")

        def body(saga: Saga) -> Any:
            yield from saga.run("work", "work", "reserve", undo_input="release")
            yield from saga.run("work", "work", "charge", undo_input="refund")
            return (yield from saga.run("work", "work", "ship", undo_input="call back"))

        return (yield from ctx.saga(body))

    world.broken.add("ship")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main)
        await failed(instance)
        assert world.ran["refund"] == world.ran["release"] == 1
        numbers = [n for n, e in enumerate(await history(instance), 1) if isinstance(e, TaskFailed)]
        with pytest.raises(InvalidStateError, match="a saga that was undone later, which began with event 4"):
            await instance.rewind(at=numbers[0])
        world.broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == "SHIP"
    assert world.ran == {"before": 1, "reserve": 2, "charge": 2, "ship": 2, "release": 1, "refund": 1, "call back": 1}


def app_of_counters(world: World) -> App:
    app = world.app

    @app.entity
    def counter(ctx: EntityContext[int | None], amount: int = 0) -> int:
        if ctx.operation == "add":
            if "counter" in world.broken:
                raise ValueError("the counter is broken")
            ctx.state = (ctx.state or 0) + amount
        return ctx.state or 0

    return app


async def test_operations_of_entities_are_not_repeated_but_those_that_failed(place: Place, world: World) -> None:
    app = app_of_counters(world)

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        ctx.signal_entity("@counter@s", "add", 1)
        first = yield ctx.call_entity("@counter@a", "add", 1)
        yield ctx.call_activity("work", "break")
        return [first, (yield ctx.call_entity("@counter@a", "add", 1))]

    async with place.hub(app) as hub:
        world.shut_gate("break")
        instance = await hub.client.start(main)
        await until_recorded(instance, "EntityOperationCompleted")
        world.broken.add("counter")
        world.shut["break"].set()
        with pytest.raises(OrchestrationFailed) as caught:
            await instance.result(LIMIT)
        assert caught.value.is_caused_by(EntityError)
        world.broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == [1, 2]
        assert await hub.client.read_entity("@counter@s") == 1


async def test_inside_a_critical_section_it_is_refused_and_before_it_the_section_happens_again(
    place: Place, world: World
) -> None:
    app = app_of_counters(world)

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity("work", "a")
        with (yield ctx.lock_entities(["@counter@a"])):
            yield ctx.call_activity("work", "b")
            return (yield ctx.call_entity("@counter@a", "add", 1))

    world.broken.add("b")
    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        await failed(instance)
        before = await kinds(instance)
        world.broken.clear()
        with pytest.raises(
            InvalidStateError, match=r"inside the critical section.*@counter@a.*event 4 is the last before it"
        ):
            await instance.rewind()
        assert await kinds(instance) == before
        await instance.rewind(at=4)
        assert await instance.result(LIMIT) == 1

        async def is_free() -> bool:
            return not [entity.id async for entity in hub.client.list_entities() if entity.locked_by]

        await until(is_free)
    assert world.ran == {"a": 1, "b": 2}


async def test_a_section_that_was_left_before_the_failure_is_no_obstacle(place: Place, world: World) -> None:
    app = app_of_counters(world)

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        with (yield ctx.lock_entities(["@counter@a", "@counter@b"])):
            first = yield ctx.call_entity("@counter@a", "add", 1)
        yield ctx.call_activity("work", "b")
        with (yield ctx.lock_entities(["@counter@a"])):
            return [first, (yield ctx.call_entity("@counter@a", "add", 1))]

    world.broken.add("b")
    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        await failed(instance)
        world.broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == [1, 2]


async def test_an_execution_that_continued_another_is_rewound_to_within_itself(place: Place, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext, round: int) -> Any:
        ctx.set_custom_status(f"round {round}")
        yield ctx.call_activity("work", f"r{round}")
        if round < 3:
            ctx.continue_as_new(round + 1)
            return None
        return ctx.execution_id

    world.broken.add("r3")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main, 1)
        await failed(instance)
        world.broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == (await instance.status()).execution_id
        assert (await instance.status()).custom_status == "round 3"
    assert world.ran == {"r1": 1, "r2": 1, "r3": 2}


# ---- refusals --------------------------------------------------------------------------------------------------


async def test_only_what_has_failed_can_be_rewound(place: Place, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await until_status(instance, "RUNNING")
        with pytest.raises(
            InvalidStateError, match=r"'i' is RUNNING: only an instance that has failed can be rewound$"
        ):
            await instance.rewind()
        await instance.raise_event("go")
        await instance.result(LIMIT)
        with pytest.raises(InvalidStateError, match=r"'i' is COMPLETED.*; restart it, or fork it"):
            await instance.rewind()
        with pytest.raises(InstanceNotFoundError):
            await hub.client.get("nobody").rewind()
        with pytest.raises(InvalidArgumentError, match="is an entity"):
            await hub.client.get("@counter@a").rewind()


async def test_an_event_that_is_none_is_refused(place: Place, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity("work", "a")

    world.broken.add("a")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main)
        await failed(instance)
        before = (await instance.status()).execution_id
        for at in (0, -1, 1000):
            with pytest.raises(InvalidArgumentError, match=f"event {at}: the history .* has events 1 to 6"):
                await instance.rewind(at=at)
        for nonsense in ("3", 1.5, True):
            with pytest.raises(InvalidArgumentError, match="it is the number of an event"):
                await instance.rewind(at=nonsense)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert (await instance.status()).execution_id == before


async def test_of_two_at_the_same_time_one_is_refused(place: Place, world: World) -> None:
    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity("work", "a"))

    world.broken.add("a")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main)
        await failed(instance)
        world.broken.clear()
        outcomes = await asyncio.gather(instance.rewind(), instance.rewind(), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["InvalidStateError", "NoneType"]
        assert await instance.result(LIMIT) == "A"
    assert world.ran == {"a": 2}


async def test_a_failed_child_in_the_history_names_the_task(place: Place, world: World) -> None:
    """The failure that is dropped is the child's, and nothing of it is left in the parent's new history."""

    @world.app.orchestrator
    def leaf(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity("work", "a"))

    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_sub_orchestrator(leaf))

    world.broken.add("a")
    async with place.hub(world.app) as hub:
        instance = await hub.client.start(main)
        await failed(instance)
        world.broken.clear()
        await instance.rewind()
        await instance.result(LIMIT)
        assert not [e for e in await history(instance) if isinstance(e, SubOrchestrationInstanceFailed)]


async def test_a_result_that_no_history_has_taken_in_yet_is_told(place: Place, world: World) -> None:
    """A worker that dies at the wrong moment leaves it in the inbox, for the execution that has failed."""

    @world.app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield from when_all([ctx.call_activity("work", "a"), ctx.call_activity("work", "b")], fail_fast=True))

    world.broken.add("a")
    world.shut_gate("b")
    store = place.store()
    async with TaskHub(store, world.app, limits=Limits(grace=timedelta(0))) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await failed(instance)
    async with Client(store) as client:
        record = await store.get("i")
        assert record is not None
        # Nobody can post to what has finished, and so the message is put there by the store alone, as a transactional activity's is.
        epoch = await store.acquire(Owner(1, "here", 0))
        result = encode([TaskCompleted(2, b"\xa3two")])
        assert await store.transact(Transact("i", record.execution_id, 2, lambda _: result, 1.0), epoch) is not None
        await store.release()
        await client.get("i").rewind()
    world.broken.clear()
    async with place.hub(world.app) as hub:
        assert await hub.client.get("i").result(LIMIT) == ["A", "two"]
        assert world.ran["b"] == 1
