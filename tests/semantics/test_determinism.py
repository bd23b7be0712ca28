"""Determinism, and instances that are parked because the code is another: nothing fails, nothing is lost.

An instance that sleeps is looked at when something comes for it, and so is parked then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any

import pytest

from replayflow import App, Instance, InvalidArgumentError, OrchestrationContext, TaskHub
from replayflow.core.events import OrchestratorStarted
from tests.semantics.kit import LIMIT, Place, failure_of, history, until


def with_code(code: Callable[..., Any]) -> App:
    app = App()

    @app.activity
    async def first(x: int) -> int:
        return x + 1

    @app.activity
    async def second(x: int) -> int:
        return x + 2

    app.orchestrator(name="main")(code)
    return app


def right(ctx: OrchestrationContext) -> Any:
    one = yield ctx.call_activity("first", 1)
    go = yield ctx.wait_for_external_event("go")
    return [one, go, (yield ctx.call_activity("second", 1))]


def swapped(ctx: OrchestrationContext) -> Any:
    one = yield ctx.call_activity("second", 1)
    go = yield ctx.wait_for_external_event("go")
    return [one, go, (yield ctx.call_activity("first", 1))]


def one_more(ctx: OrchestrationContext) -> Any:
    ctx.create_timer(timedelta(days=1))
    return (yield from right(ctx))


def ends_early(ctx: OrchestrationContext) -> Any:
    return (yield ctx.call_activity("first", 1))


def other_input(ctx: OrchestrationContext) -> Any:
    one = yield ctx.call_activity("first", 7)
    go = yield ctx.wait_for_external_event("go")
    return [one, go, (yield ctx.call_activity("second", 1))]


async def begun(hub: TaskHub) -> Instance[Any]:
    """An instance that has done its first activity and waits."""
    instance = await hub.client.start("main", instance_id="i")

    async def has_result() -> bool:
        return any(type(event).__name__ == "TaskCompleted" for event in await history(instance))

    await until(has_result)
    return instance


async def until_parked(instance: Instance[Any]) -> str:
    async def problem() -> str | None:
        return (await instance.status()).problem

    found: str = await until(problem)
    return found


async def test_a_sleeping_instance_is_tried_when_a_worker_starts_with_changed_code(place: Place) -> None:
    async with place.hub(with_code(right)) as hub:
        await begun(hub)
    async with place.hub(with_code(swapped)) as hub:
        assert "activity 'first' (task 1)" in await until_parked(hub.client.get("i"))
    async with place.hub(with_code(right)) as hub:
        instance = hub.client.get("i")
        await until_freed(instance)
        await instance.raise_event("go", "kept")
        assert await instance.result(LIMIT) == [2, "kept", 3]


async def test_a_sleeping_instance_is_tried_where_the_last_worker_ended_before_it_had_said_which_code_it_had(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def does_not_come_to_it(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr("replayflow.engine.engine.meet_what_is_open", does_not_come_to_it)
        async with place.hub(with_code(right)) as hub:
            await begun(hub)
    async with place.hub(with_code(swapped)) as hub:
        assert "activity 'first' (task 1)" in await until_parked(hub.client.get("i"))


async def test_a_mismatch_fails_the_instance_where_that_is_asked_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLAYFLOW_ON_MISMATCH", "fail")
    async with place.hub(with_code(right)) as hub:
        await begun(hub)
    async with place.hub(with_code(swapped)) as hub:
        details = await failure_of(hub.client.get("i"))
    assert details.type == "NonDeterminismError"
    assert "activity 'first' (task 1)" in details.message


async def test_a_parked_instance_that_fails_after_all_is_parked_no_more(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.hub(with_code(right)) as hub:
        await begun(hub)
    async with place.hub(with_code(swapped)) as hub:
        await until_parked(hub.client.get("i"))
    monkeypatch.setenv("REPLAYFLOW_ON_MISMATCH", "fail")
    async with place.hub(with_code(swapped)) as hub:
        assert (await failure_of(hub.client.get("i"))).type == "NonDeterminismError"
        assert (await hub.client.get("i").status()).problem is None


async def test_an_unknown_choice_for_mismatches_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAYFLOW_ON_MISMATCH", "explode")
    with pytest.raises(InvalidArgumentError, match="'explode'; it is 'park' or 'fail'"):
        await place.hub(with_code(right)).__aenter__()


async def until_freed(instance: Instance[Any]) -> None:
    async def is_free() -> bool:
        return (await instance.status()).problem is None

    await until(is_free)


@pytest.mark.parametrize("code", [swapped, one_more, ends_early])
async def test_code_that_no_longer_fits_parks_the_instance_and_right_code_frees_it(
    place: Place, code: Callable[..., Any]
) -> None:
    async with place.hub(with_code(right)) as hub:
        await begun(hub)
    async with place.hub(with_code(code)) as hub:
        instance = hub.client.get("i")
        await instance.raise_event("go", "kept")
        problem = await until_parked(instance)
        assert (await instance.status()).status == "RUNNING"
        assert problem.count("test_determinism.py:") >= 2, problem
        with pytest.raises(TimeoutError, match="parked"):
            await instance.result(0.05)
        assert [state.id async for state in hub.client.list(parked=True)] == ["i"]
    async with place.hub(with_code(right)) as hub:
        assert await hub.client.get("i").result(LIMIT) == [2, "kept", 3]
        assert (await hub.client.get("i").status()).problem is None


async def test_a_parked_instance_can_be_terminated_once_its_code_is_right(place: Place) -> None:
    async with place.hub(with_code(right)) as hub:
        await begun(hub)
    async with place.hub(with_code(swapped)) as hub:
        await hub.client.get("i").raise_event("something", None)
        await until_parked(hub.client.get("i"))
    async with place.hub(with_code(right)) as hub:
        instance = hub.client.get("i")
        await until_freed(instance)
        await instance.terminate()
        assert (await instance.wait(LIMIT)).status == "TERMINATED"


async def test_an_orchestrator_that_no_worker_knows_parks_the_instance(place: Place) -> None:
    async with place.hub(with_code(right)) as hub:
        await begun(hub)
    async with place.hub(App()) as hub:
        await hub.client.get("i").raise_event("something", None)
        problem = await until_parked(hub.client.get("i"))
        assert "no orchestrator 'main'" in problem
    async with place.hub(with_code(right)) as hub:
        instance = hub.client.get("i")
        await instance.raise_event("go", 1)
        assert await instance.result(LIMIT) == [2, 1, 3]


async def test_an_activity_that_no_worker_knows_parks_the_instance(place: Place) -> None:
    lacking = App()
    lacking.orchestrator(name="main")(right)
    async with place.hub(lacking) as hub:
        instance = await hub.client.start("main", instance_id="i")
        assert "no activity 'first'" in await until_parked(instance)
        assert (await instance.status()).status in ("PENDING", "RUNNING")
        await instance.raise_event("go", 1)
    async with place.hub(with_code(right)) as hub:
        assert await hub.client.get("i").result(LIMIT) == [2, 1, 3]


async def test_a_parked_instance_does_not_hinder_others(place: Place) -> None:
    async with place.hub(with_code(right)) as hub:
        await begun(hub)
    async with place.hub(with_code(swapped)) as hub:
        await hub.client.get("i").raise_event("something", None)
        await until_parked(hub.client.get("i"))
        other = await hub.client.start("main", instance_id="other")
        await other.raise_event("go", 1)
        assert await other.result(LIMIT) == [3, 1, 2]


async def test_a_changed_input_only_warns(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async with place.hub(with_code(right)) as hub:
        await begun(hub)
    async with place.hub(with_code(other_input)) as hub:
        instance = hub.client.get("i")
        await instance.raise_event("go", 1)
        assert await instance.result(LIMIT) == [2, 1, 3]
        assert "another input" in caplog.text


# ---- time, chance, logging -----------------------------------------------------------------------------------


def observing(seen: list[Any]) -> App:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        for _ in range(3):
            seen.append(
                (ctx.is_replaying, ctx.current_utc_datetime, ctx.new_uuid(), ctx.random.random(), ctx.execution_id)
            )
            ctx.logger.info("step")
            yield ctx.wait_for_external_event("go")
        return "end"

    return app


async def test_time_uuids_and_chance_are_the_same_after_a_restart_and_the_logger_is_silent(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "replayflow.orchestrator")
    before: list[Any] = []
    after: list[Any] = []
    async with place.hub(observing(before)) as hub:
        instance = await hub.client.start("main", instance_id="i")
        await instance.raise_event("go")

        async def is_on() -> bool:
            return len(before) == 2

        await until(is_on)

        async def is_written() -> bool:
            return sum(isinstance(e, OrchestratorStarted) for e in await history(instance)) == 2

        await until(is_written)
        times = [e.timestamp for e in await history(instance) if isinstance(e, OrchestratorStarted)]
    assert [row[1] for row in before] == times
    assert all(row[1].tzinfo is UTC for row in before)
    assert len(caplog.records) == 2
    async with place.hub(observing(after)) as hub:
        instance = hub.client.get("i")
        await instance.raise_event("go")
        await instance.raise_event("go")
        assert await instance.result(LIMIT) == "end"
    assert [row[1:] for row in after[:2]] == [row[1:] for row in before]
    assert [row[0] for row in before + after] == [False, False, True, True, False]
    assert len({row[2] for row in after}) == len({row[3] for row in after}) == 3
    assert [record.getMessage() for record in caplog.records if record.name.endswith("main")] == ["step"] * 3


async def test_generators_that_are_dropped_for_room_replay_to_where_they_were(place: Place) -> None:
    app = with_code(right)
    async with place.hub(app, warm_instances=2) as hub:
        instances = [await hub.client.start("main") for _ in range(20)]
        for n, instance in enumerate(instances):
            await instance.raise_event("go", n)
        async with asyncio.timeout(LIMIT):
            assert [await instance.result() for instance in instances] == [[2, n, 3] for n in range(20)]


async def test_two_executions_of_an_instance_have_chances_of_their_own(place: Place) -> None:
    app, seen = App(), []

    @app.orchestrator
    def main(ctx: OrchestrationContext, round: int) -> Any:
        seen.append(ctx.random.random())
        if round < 3:
            ctx.continue_as_new(round + 1)
        return None

    async with place.hub(app) as hub:
        await (await hub.client.start(main, 1)).result(LIMIT)
        assert len(set(seen)) == 3
