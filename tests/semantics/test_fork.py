"""Fork and restart: a new instance with a past, or with the input alone; what it shares with its source, and what not."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from replayflow import (
    ActivityContext,
    App,
    Client,
    EntityContext,
    ExecutionForked,
    InstanceExistsError,
    InstanceNotFoundError,
    InvalidArgumentError,
    OrchestrationContext,
    when_all,
)
from replayflow.errors import EncodeError, InvalidStateError
from tests.semantics.kit import LIMIT, Place, failure_of, history, kinds, until, until_recorded, until_status


def app_of_work() -> tuple[App, Counter[Any], dict[str, asyncio.Event]]:
    """An app with an activity that says what it was given, after its gate has opened where it has one."""
    app, gates = App(), dict[str, asyncio.Event]()
    ran: Counter[Any] = Counter()

    @app.activity
    async def work(ctx: ActivityContext, name: str) -> str:
        ran[name] += 1
        ran[ctx.idempotency_key] += 1
        if name in gates:
            await gates[name].wait()
        return name.upper()

    @app.orchestrator
    def three(ctx: OrchestrationContext, end: str) -> Any:
        first = yield ctx.call_activity(work, "a")
        second = yield ctx.call_activity(work, f"{first}-b")
        third = yield ctx.wait_for_external_event("go", type=str)
        return [first, second, third, end]

    return app, ran, gates


async def test_a_fork_has_the_past_of_its_source_and_goes_on_by_itself(place: Place) -> None:
    app, ran, _ = app_of_work()
    async with place.hub(app) as hub:
        source = await hub.client.start("three", "end", instance_id="s", tags={"team": "x"}, version="7")
        await until_recorded(source, "TaskCompleted", 2)
        fork = await source.fork(instance_id="f", reason="to see")
        await fork.raise_event("go", "fork")
        assert await fork.result(LIMIT) == ["A", "A-B", "fork", "end"]
        assert (await source.status()).status == "RUNNING"
        await source.raise_event("go", "source")
        assert await source.result(LIMIT) == ["A", "A-B", "source", "end"]
        state = await fork.status()
        assert (state.tags, state.version, state.name) == ({"team": "x"}, "7", "three")
        [mark] = [event for event in await history(fork) if isinstance(event, ExecutionForked)]
        assert (mark.instance_id, mark.execution_id, mark.reason) == (
            "s",
            (await source.status()).execution_id,
            "to see",
        )
    assert (ran["a"], ran["A-b"]) == (1, 1)


async def test_a_fork_outlives_the_worker_and_can_be_made_without_one(place: Place) -> None:
    app, ran, _ = app_of_work()
    async with place.hub(app) as hub:
        source = await hub.client.start("three", "end", instance_id="s")
        await until_recorded(source, "TaskCompleted", 2)
    async with Client(place.store()) as client:
        await client.get("s").fork(instance_id="f")
        await client.get("f").raise_event("go", "fork")
    async with place.hub(app) as hub:
        assert await hub.client.get("f").result(LIMIT) == ["A", "A-B", "fork", "end"]
    assert (ran["a"], ran["A-b"]) == (1, 1)


async def test_from_every_point_nothing_edited_comes_to_the_same_end(place: Place) -> None:
    app, ran, _ = app_of_work()
    async with place.hub(app) as hub:
        source = await hub.client.start("three", "end", instance_id="s")
        await source.raise_event("go", "on")
        end = await source.result(LIMIT)
        past = await kinds(source)
        for at in [*range(1, len(past) + 1), None]:
            fork = await source.fork(at=at)
            if "EventRaised" not in past[:at]:  # without `at` all of it
                await fork.raise_event("go", "on")
            assert await fork.result(LIMIT) == end, at
    assert ran["a"] > 1


async def test_what_was_under_way_runs_in_the_fork_under_keys_of_its_own(place: Place) -> None:
    app, ran, gates = app_of_work()
    gates["A-b"] = asyncio.Event()
    async with place.hub(app) as hub:
        source = await hub.client.start("three", "end", instance_id="s")
        await until_recorded(source, "TaskScheduled", 2)
        fork = await source.fork(instance_id="f")

        async def both() -> bool:
            return ran["A-b"] == 2

        await until(both)
        gates["A-b"].set()
        for instance in (source, fork):
            await instance.raise_event("go", "on")
            assert await instance.result(LIMIT) == ["A", "A-B", "on", "end"]
    assert sum(key.endswith("/2") for key in ran) == 2


async def test_edited_results_take_the_place_of_what_was(place: Place) -> None:
    app, ran, _ = app_of_work()
    async with place.hub(app) as hub:
        source = await hub.client.start("three", "end", instance_id="s")
        await source.raise_event("go", "on")
        await source.result(LIMIT)
        fork = await source.fork(results={1: "OTHER"})  # all that was decided from it is decided anew
        await fork.raise_event("go", "on")
        assert await fork.result(LIMIT) == ["OTHER", "OTHER-B", "on", "end"]
        fork = await source.fork(results={2: "OTHER"})
        await fork.raise_event("go", "on")
        assert await fork.result(LIMIT) == ["A", "OTHER", "on", "end"]
    assert ran["A-b"] == 1


async def test_a_task_that_is_open_can_be_given_its_result(place: Place) -> None:
    app, _, gates = app_of_work()
    gates["A-b"] = asyncio.Event()
    async with place.hub(app) as hub:
        source = await hub.client.start("three", "end", instance_id="s")
        await until_recorded(source, "TaskScheduled", 2)
        fork = await source.fork(results={2: "GIVEN"})
        await fork.raise_event("go", "on")
        assert await fork.result(LIMIT) == ["A", "GIVEN", "on", "end"]
        await source.terminate()


async def test_a_failure_can_be_edited_away(place: Place) -> None:
    app = App()

    @app.activity
    async def charge(amount: int) -> str:
        raise ValueError("declined")

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity(charge, 5))

    async with place.hub(app) as hub:
        source = await hub.client.start(main)
        assert "declined" in str(await failure_of(source))
        fork = await source.fork(results={1: "paid in cash"})
        assert await fork.result(LIMIT) == "paid in cash"
        assert "declined" in str(await failure_of(await source.fork()))


async def test_another_input_is_what_the_code_goes_on_with(place: Place) -> None:
    app, ran, _ = app_of_work()
    async with place.hub(app) as hub:
        source = await hub.client.start("three", "end", instance_id="s")
        await until_recorded(source, "TaskCompleted", 2)
        with pytest.raises(InvalidArgumentError, match="a fork with another input needs `at`"):
            await source.fork(input="other")
        fork = await source.fork(input="other", at=len(await history(source)))
        await fork.raise_event("go", "on")
        assert await fork.result(LIMIT) == ["A", "A-B", "on", "other"]
        assert (await fork.status()).input == "other"
    assert ran["a"] == 1


async def test_children_at_work_begin_anew_under_the_forks_own_ids_and_ended_ones_do_not(place: Place) -> None:
    app, _, _ = app_of_work()

    @app.orchestrator
    def leaf(ctx: OrchestrationContext, name: str) -> Any:
        told = yield ctx.wait_for_external_event("go", type=str)
        return f"{name} {told}"

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        first = yield ctx.call_sub_orchestrator(leaf, "first")
        named = ctx.call_sub_orchestrator(leaf, "named", instance_id="explicit")
        mapped = ctx.map(leaf, ["x", "y", "z"], concurrency=2)
        second, third = yield when_all([named, mapped])
        return [first, second, third.succeeded]

    async def open_children(prefix: str) -> list[str]:
        return [
            state.id async for state in hub.client.list(id_prefix=prefix, name="leaf", status=["PENDING", "RUNNING"])
        ]

    async with place.hub(app) as hub:
        source = await hub.client.start(main, instance_id="s")
        await until(lambda: hub.client._store.get("s:0001"))
        await hub.client.get("s:0001").raise_event("go", "source")
        await until_recorded(source, "MapScheduled")
        fork = await source.fork(instance_id="f")

        told: set[str] = set()

        async def three() -> bool:
            for id in set(await open_children("f:")) - told:
                told.add(id)
                await hub.client.get(id).raise_event("go", "fork")
            return len(told) == 4

        await until(three)
        assert await fork.result(LIMIT) == ["first source", "named fork", ["x fork", "y fork", "z fork"]]
        assert len(await open_children("s:")) == 2
        assert (await source.status()).status == "RUNNING"
        assert await open_children("explicit") == ["explicit"]


async def test_a_fork_that_is_rewound_to_before_the_failure_of_its_sources_child_has_one_of_its_own(
    place: Place,
) -> None:
    """What failed for the source is the source's, and its id is taken: the fork's rewind has neither to wait for it nor to be refused by it."""
    app, _, _ = app_of_work()
    is_broken = True

    @app.orchestrator
    def leaf(ctx: OrchestrationContext, name: str) -> Any:
        if name == "waits":
            return (yield ctx.wait_for_external_event("go", type=str))
        if is_broken:
            raise ValueError("broken")
        return name

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield when_all([ctx.call_sub_orchestrator(leaf, "fails"), ctx.call_sub_orchestrator(leaf, "waits")]))

    async with place.hub(app) as hub:
        source = await hub.client.start(main, instance_id="s")
        await until_recorded(source, "SubOrchestrationInstanceFailed")
        fork = await source.fork(instance_id="f")
        [waits] = [state.id async for state in hub.client.list(id_prefix="f:")]
        await hub.client.get(waits).raise_event("go", "went")
        await until_status(fork, "FAILED")
        is_broken = False
        await fork.rewind()
        assert await fork.result(LIMIT) == ["fails", "went"]
        assert (await hub.client.get("s:0001").status()).status == "FAILED"
        await hub.client.get("s:0002").raise_event("go", "went, too")
        await until_status(source, "FAILED")
        await source.rewind()
        assert await source.result(LIMIT) == ["fails", "went, too"]


async def test_operations_of_entities_are_not_repeated(place: Place) -> None:
    app = App()

    @app.entity
    def counter(ctx: EntityContext[int | None], amount: int = 0) -> int:
        now = (ctx.state or 0) + amount
        ctx.state = now
        return now

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        ctx.signal_entity("@counter@s", "add", 1)
        first = yield ctx.call_entity("@counter@a", "add", 1)
        with (yield ctx.lock_entities(["@counter@a"])):
            second = yield ctx.call_entity("@counter@a", "add", 1)
        return [first, second, (yield ctx.wait_for_external_event("go"))]

    async with place.hub(app) as hub:
        source = await hub.client.start(main)
        await until_recorded(source, "EntityUnlockSent")
        names = await kinds(source)
        fork = await source.fork()
        await fork.raise_event("go", 0)
        assert await fork.result(LIMIT) == [1, 2, 0]
        called = names.index("EntityOperationCalled") + 1
        fork = await source.fork(at=called)  # the answer came later, and is the source's: it is not asked for twice
        await fork.raise_event("go", 0)
        assert await fork.result(LIMIT) == [1, 3, 0]
        with pytest.raises(InvalidStateError, match="inside the critical section"):
            await source.fork(at=len(names) - names[::-1].index("EntityOperationCalled"))
        assert await hub.client.read_entity("@counter@s") == 1


async def test_the_fork_of_a_child_is_nobodys_child(place: Place) -> None:
    app, _, _ = app_of_work()

    @app.orchestrator
    def leaf(ctx: OrchestrationContext) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_sub_orchestrator(leaf))

    async with place.hub(app) as hub:
        source = await hub.client.start(main, instance_id="s")
        child = hub.client.get("s:0001")
        await until(lambda: hub.client._store.get("s:0001"))
        await until_status(child, "RUNNING")
        fork = await child.fork()
        assert (await fork.status()).parent_instance_id is None
        await fork.raise_event("go", "fork")
        assert await fork.result(LIMIT) == "fork"
        await child.raise_event("go", "child")
        assert await source.result(LIMIT) == "child"


async def test_a_past_execution_can_be_forked_and_a_fork_rewound_and_forked(place: Place) -> None:
    app, broken, keys = App(), [True], list[str]()

    @app.activity
    async def work(ctx: ActivityContext, name: str) -> str:
        keys.append(ctx.idempotency_key)
        if broken[0] and name.startswith("b"):
            raise ValueError("broken")
        return name.upper()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        made = f"{ctx.new_uuid()} {ctx.random.random()}"
        first = yield ctx.call_activity(work, f"a {made}")
        second = yield ctx.call_activity(work, f"b {made}")
        return [first == f"a {made}".upper(), second == f"b {made}".upper(), (yield ctx.wait_for_external_event("go"))]

    async with place.hub(app) as hub:
        source = await hub.client.start(main, instance_id="s")
        await failure_of(source)
        past = (await source.status()).execution_id
        fork = await source.fork(instance_id="f", at=5)
        await failure_of(fork)
        broken[0] = False
        await fork.rewind()
        await source.rewind()
        await until_recorded(fork, "TaskCompleted", 2)
        again = await fork.fork(instance_id="ff")
        for instance in (source, fork, again):
            await instance.raise_event("go", 1)
            assert await instance.result(LIMIT) == [True, True, 1]
        assert "broken" in str(await failure_of(await source.fork(execution_id=past)))
        with pytest.raises(InstanceNotFoundError, match="no execution 'none'"):
            await source.fork(execution_id="none")
    # Tried again in the fork, the task keeps the key that it had there; and that is another than in the source.
    assert len({key for key in keys if key.startswith("f/")}) == 1


async def test_the_fork_of_a_suspended_instance_is_suspended(place: Place) -> None:
    app, _, _ = app_of_work()
    async with place.hub(app) as hub:
        source = await hub.client.start("three", "end")
        await until_recorded(source, "TaskCompleted", 2)
        await source.suspend()
        await until_status(source, "SUSPENDED")
        fork = await source.fork()
        await fork.raise_event("go", "on")
        assert (await fork.status()).status == "SUSPENDED"
        await fork.resume()
        assert await fork.result(LIMIT) == ["A", "A-B", "on", "end"]


# ---- dry runs --------------------------------------------------------------------------------------------------


async def test_a_dry_run_says_where_the_code_at_hand_parts_from_the_history_and_writes_nothing(place: Place) -> None:
    app, _, _ = app_of_work()
    async with place.hub(app) as hub:
        source = await hub.client.start("three", "end", instance_id="s")
        await until_recorded(source, "TaskCompleted", 2)
        fits = await source.fork(dry_run=True)
        assert (fits.fits, fits.kept, fits.difference) == (True, len(await history(source)), None)
    other = App()

    @other.activity
    async def work(name: str) -> str:
        return name

    @other.orchestrator(name="three")
    def changed(ctx: OrchestrationContext, end: str) -> Any:
        yield ctx.call_activity(work, "a")
        yield ctx.create_timer(timedelta(1))

    async with Client(place.store(), other) as client:
        check = await client.get("s").fork(dry_run=True)
        assert not check.fits
        assert check.event == 4
        assert check.difference is not None
        assert "the history has activity 'work' (task 2), asked for at semantics/test_fork.py:" in check.difference
        assert "the code now asks for timer (task 2) at semantics/test_fork.py:" in check.difference
        assert (await client.get("s").fork(dry_run=True, at=3)).fits  # up to there it does the same
        with pytest.raises(Exception, match="no orchestrator 'three'"):
            async with Client(place.store(), App()) as bare:
                await bare.get("s").fork(dry_run=True)
    async with Client(place.store()) as client:
        with pytest.raises(InvalidArgumentError, match="a dry run needs the code"):
            await client.get("s").fork(dry_run=True)
        assert [state.id async for state in client.list()] == ["s"]


async def test_a_fork_that_does_not_fit_is_parked_with_the_difference(place: Place) -> None:
    app = App()

    @app.activity
    async def choose() -> str:
        return "left"

    @app.activity
    async def left() -> int:
        return 1

    @app.activity
    async def right() -> int:
        return 2

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        way = yield ctx.call_activity(choose)
        yield ctx.call_activity(left if way == "left" else right)
        return (yield ctx.wait_for_external_event("go"))

    async with place.hub(app) as hub:
        source = await hub.client.start(main)
        await until_recorded(source, "TaskCompleted", 2)
        count = len(await history(source))
        check = await source.fork(results={1: "right"}, at=count, dry_run=True)
        assert not check.fits
        fork = await source.fork(results={1: "right"}, at=count)

        async def problem() -> str | None:
            return (await fork.status()).problem

        assert "activity 'left'" in await until(problem)
        fork = await source.fork(results={1: "right"})
        await until_recorded(fork, "TaskCompleted", 2)


# ---- refusals --------------------------------------------------------------------------------------------------


@dataclass
class NoPayload:
    stream: object


async def test_a_fork_that_makes_no_sense_writes_nothing(place: Place) -> None:
    app, _, _ = app_of_work()
    async with place.hub(app) as hub:
        source = await hub.client.start("three", "end", instance_id="s")
        await until_recorded(source, "TaskCompleted", 2)
        with pytest.raises(InstanceExistsError, match="'s' exists already"):
            await source.fork(instance_id="s")
        with pytest.raises(InvalidArgumentError, match="event 99: the history of instance 's' has events 1 to"):
            await source.fork(at=99)
        with pytest.raises(InvalidArgumentError, match="task 9: what is kept"):
            await source.fork(results={9: 1})
        with pytest.raises(InvalidArgumentError, match="'x' is no task id"):
            await source.fork(results={"x": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
        with pytest.raises(EncodeError, match="result of task 1"):
            await source.fork(results={1: NoPayload(object())})
        with pytest.raises(InvalidArgumentError, match="instance_id"):
            await source.fork(instance_id="a/b")
        with pytest.raises(InvalidArgumentError, match="version"):
            await source.fork(version=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        with pytest.raises(InstanceNotFoundError):
            await hub.client.get("nobody").fork()
        with pytest.raises(InvalidArgumentError, match="is an entity"):
            await hub.client.get("@counter@a").fork()
        assert [state.id async for state in hub.client.list()] == ["s"]


# ---- restart ---------------------------------------------------------------------------------------------------


async def test_a_restart_begins_anew_with_the_same_input_under_the_same_id(place: Place) -> None:
    app, ran, _ = app_of_work()
    async with place.hub(app) as hub:
        source = await hub.client.start("three", "end", instance_id="s", tags={"a": "b"}, version="7")
        await source.raise_event("go", "on")
        await source.result(LIMIT)
        first = await source.status()
        again = await source.restart()
        assert again.id == "s"
        await again.raise_event("go", "again")
        assert await again.result(LIMIT) == ["A", "A-B", "again", "end"]
        state = await again.status()
        assert (state.tags, state.version, state.input) == ({"a": "b"}, "7", "end")
        assert state.execution_id != first.execution_id
        assert "EventRaised" in await kinds(again, first.execution_id)
    assert ran["a"] == 2


async def test_a_restart_may_have_another_id_input_tags_and_version(place: Place) -> None:
    app, _, _ = app_of_work()
    async with place.hub(app) as hub:
        source = await hub.client.start("three", "end", instance_id="s", tags={"a": "b"})
        await until_status(source, "RUNNING")  # it need not have finished
        again = await source.restart(instance_id="t", input="other", tags={}, version="8")
        await again.raise_event("go", "on")
        assert await again.result(LIMIT) == ["A", "A-B", "on", "other"]
        state = await again.status()
        assert (state.tags, state.version) == ({}, "8")
        assert (await source.status()).status == "RUNNING"
        none = await source.restart(instance_id="n", input=None)
        assert (await none.status()).input is None


async def test_a_restart_that_makes_no_sense_writes_nothing(place: Place) -> None:
    app, _, _ = app_of_work()
    async with place.hub(app) as hub:
        source = await hub.client.start("three", "end", instance_id="s")
        await hub.client.start("three", "end", instance_id="t")
        await until_status(source, "RUNNING")
        with pytest.raises(
            InvalidStateError, match="'s' is RUNNING: under its own id it can be restarted when it has finished"
        ):
            await source.restart()
        with pytest.raises(InstanceExistsError, match="'t' exists already"):
            await source.restart(instance_id="t")
        with pytest.raises(EncodeError, match="input of orchestrator 'three'"):
            await source.restart(instance_id="u", input=NoPayload(object()))
        with pytest.raises(InstanceNotFoundError):
            await hub.client.get("nobody").restart()
        with pytest.raises(InvalidArgumentError, match="is an entity"):
            await hub.client.get("@counter@a").restart()
        assert [state.id async for state in hub.client.list()] == ["s", "t"]


async def test_a_schedule_has_verbs_of_its_own(place: Place) -> None:
    app, _, _ = app_of_work()
    async with place.hub(app) as hub:
        schedule = await hub.client.create_schedule("daily", "three", "end", every=timedelta(days=1))
        for verb in ("rewind", "restart", "fork"):
            with pytest.raises(InvalidArgumentError, match="has verbs of its own"):
                await getattr(hub.client.get(schedule.instance_id), verb)()
