"""Who an activity is: its attempt and its key, wherever it runs and however often; and what it says about being tried again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    ActivityContext,
    ActivityError,
    App,
    NonRetryableError,
    Orchestration,
    OrchestrationContext,
    RetryAfter,
    RetryPolicy,
)
from tests.engine import process_activities
from tests.semantics.kit import LIMIT, Place, failure_of, kinds, until

PATIENT = RetryPolicy(max_attempts=5, first_interval=timedelta(hours=1))
AT_ONCE = RetryPolicy(max_attempts=5, first_interval=timedelta(milliseconds=1))


def app_calling(*activities: Any) -> App:
    app = App()
    app.include(process_activities.app)
    for activity in activities:
        app.activity(activity)

    @app.orchestrator
    def main(ctx: OrchestrationContext, call: list[Any]) -> Orchestration[Any]:
        name, input = call
        return (yield from ctx.call_activity(name, input, retry=AT_ONCE))

    @app.orchestrator
    def patient(ctx: OrchestrationContext, call: list[Any]) -> Orchestration[Any]:
        name, input = call
        return (yield from ctx.call_activity(name, input, retry=PATIENT))

    return app


async def test_an_activity_in_a_process_knows_as_much_of_itself_as_any_other(place: Place) -> None:
    def in_thread(ctx: ActivityContext, x: int) -> list[object]:
        return [ctx.instance_id, ctx.task_id, ctx.attempt, ctx.idempotency_key, ctx.cancelled, x]

    async with place.hub(app_calling(in_thread)) as hub:
        here = await hub.client.start("main", ["in_thread", 7], instance_id="here")
        there = await hub.client.start("main", ["introduces_itself", 7], instance_id="there")
        execution_id = (await there.status()).execution_id
        assert await there.result(LIMIT) == [
            "there",
            1,
            1,
            f"there/{execution_id}/1",
            "introduces_itself",
            False,
            7,
        ]
        execution_id = (await here.status()).execution_id
        assert await here.result(LIMIT) == ["here", 1, 1, f"here/{execution_id}/1", False, 7]


async def test_a_process_counts_attempts_under_one_key(place: Place) -> None:
    async with place.hub(app_calling()) as hub:
        instance = await hub.client.start("main", ["counts_up", "x"], instance_id="i")
        execution_id = (await instance.status()).execution_id
        assert await instance.result(LIMIT) == [2, {"done": 999}, f"i/{execution_id}/1"]


async def test_what_runs_again_in_another_worker_has_the_same_key_and_attempt(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "keys"

    async def in_loop(ctx: ActivityContext, path: str) -> str:
        with file.open("a") as out:
            out.write(f"{ctx.attempt} {ctx.idempotency_key}\n")
        while not Path(f"{path}.go").exists():  # noqa: ASYNC110, ASYNC240 - the other half of a pair that runs in processes
            await asyncio.sleep(0.005)
        return ctx.idempotency_key

    def noted(times: int) -> Any:
        async def is_noted() -> bool:
            return file.exists() and len(file.read_text().splitlines()) >= times

        return is_noted

    app = app_calling(in_loop)
    keys = []
    for name in ("in_loop", "notes_its_key"):
        async with place.hub(app, grace=timedelta(0)) as hub:
            await hub.client.start("main", [name, str(file)], instance_id=name)
            await until(noted(1))
        async with place.hub(app) as hub:
            await until(noted(2))
            file.with_name("keys.go").touch()
            keys.append(await hub.client.get(name).result(LIMIT))
        assert file.read_text().splitlines() == [f"1 {keys[-1]}"] * 2
        file.unlink()
        file.with_name("keys.go").unlink()
    assert len(set(keys)) == 2


async def test_each_execution_has_keys_of_its_own(place: Place) -> None:
    app, keys = App(), list[str]()

    @app.activity
    async def note(ctx: ActivityContext, round: int) -> int:
        keys.append(ctx.idempotency_key)
        return round

    @app.orchestrator
    def main(ctx: OrchestrationContext, round: int) -> Orchestration[int]:
        yield ctx.call_activity(note, round)
        if round < 3:
            ctx.continue_as_new(round + 1)
        return round

    async with place.hub(app) as hub:
        assert await (await hub.client.start(main, 0)).result(LIMIT) == 3
    assert len(set(keys)) == 4


@pytest.mark.parametrize("name", ["here", "fails_for_good"])
async def test_what_is_not_to_be_tried_again_is_not(place: Place, name: str) -> None:
    async def here(x: int) -> None:
        raise NonRetryableError("never")

    async with place.hub(app_calling(here)) as hub:
        instance = await hub.client.start("main", [name, 1])
        details = await failure_of(instance)
        assert details.is_caused_by(ActivityError)
        assert details.is_caused_by(NonRetryableError)
        assert "TaskAttemptFailed" not in await kinds(instance)


@pytest.mark.parametrize("name", ["here", "asks_for_time"])
async def test_the_time_that_an_activity_asks_for_takes_the_place_of_the_policy_s(place: Place, name: str) -> None:
    async def here(ctx: ActivityContext, x: int) -> int:
        if ctx.attempt == 1:
            raise RetryAfter(0.001)
        return ctx.attempt

    async with place.hub(app_calling(here)) as hub:
        assert await (await hub.client.start("patient", [name, 1])).result(LIMIT) == 2
