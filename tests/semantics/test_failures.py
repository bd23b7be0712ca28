"""Retries and failures, end to end: what activities see, what orchestrators catch, what clients read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from replayflow import (
    ActivityContext,
    ActivityError,
    App,
    Codec,
    NonRetryableError,
    OrchestrationContext,
    OrchestrationFailed,
    RetryAfter,
    RetryPolicy,
    SubOrchestrationError,
    TaskHub,
)
from replayflow.core.events import TaskAttemptFailed
from tests.semantics.kit import LIMIT, Place, failure_of, history, kinds

SOON = timedelta(milliseconds=5)


class Flaky(Exception):
    """Of this module alone: it is matched by qualified name."""


class VeryFlaky(Flaky): ...


def flaky_app(raises: Sequence[Exception | None], policy: RetryPolicy | None) -> tuple[App, list[tuple[int, str]]]:
    """An activity that fails as it is told, attempt by attempt; and what it saw."""
    app, seen = App(), []

    @app.activity
    async def work(ctx: ActivityContext) -> int:
        seen.append((ctx.attempt, ctx.idempotency_key))
        error = raises[len(seen) - 1]
        if error is not None:
            raise error
        return ctx.attempt

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity(work, retry=policy))

    return app, seen


async def test_attempts_count_from_one_and_share_one_idempotency_key(place: Place) -> None:
    policy = RetryPolicy(max_attempts=3, first_interval=SOON)
    app, seen = flaky_app([Flaky(), Flaky(), None], policy)
    async with place.hub(app) as hub:
        instance = await hub.client.start("main", instance_id="i")
        assert await instance.result(LIMIT) == 3
        execution = (await instance.status()).execution_id
        assert seen == [(n, f"i/{execution}/1") for n in (1, 2, 3)]
        recorded = await history(instance)
        attempts = [e for e in recorded if isinstance(e, TaskAttemptFailed)]
        assert [e.attempt for e in attempts] == [1, 2]
        assert all(e.failure_details.type == "Flaky" and e.retry_at > e.timestamp for e in attempts)
        assert [type(e).__name__ for e in recorded].count("TaskScheduled") == 1


@pytest.mark.parametrize(
    ("options", "raises", "attempts"),
    [
        pytest.param({"max_attempts": 2}, [Flaky()] * 3, 2, id="attempts run out"),
        pytest.param({}, [NonRetryableError("stop")], 1, id="NonRetryableError"),
        pytest.param({"non_retryable": Flaky}, [VeryFlaky()], 1, id="a class that never is, by its base"),
        pytest.param({"retry_on": OSError}, [Flaky()], 1, id="a class that is not among those that are"),
        pytest.param({"retry_on": Flaky}, [VeryFlaky(), ValueError()], 2, id="a class that is, by its base"),
        pytest.param(
            {"retry_on": lambda failure: failure.type == "Flaky"}, [Flaky(), VeryFlaky()], 2, id="a predicate"
        ),
        pytest.param({"timeout": timedelta(0)}, [Flaky()], 1, id="no time left"),
    ],
)
async def test_a_policy_says_which_failures_are_tried_again(
    place: Place, options: dict[str, Any], raises: list[Any], attempts: int
) -> None:
    app, seen = flaky_app(raises, RetryPolicy(**{"max_attempts": 5, "first_interval": SOON, **options}))
    async with place.hub(app) as hub:
        details = await failure_of(await hub.client.start("main"))
        assert len(seen) == attempts
        assert details.is_caused_by(type(raises[attempts - 1]))


async def test_retry_after_takes_the_place_of_the_policy_s_wait(place: Place) -> None:
    app, seen = flaky_app([RetryAfter(0.005), None], RetryPolicy(first_interval=timedelta(days=1)))
    async with place.hub(app) as hub:
        assert await (await hub.client.start("main")).result(LIMIT) == 2
        assert len(seen) == 2


async def test_without_a_policy_nothing_is_tried_again(place: Place) -> None:
    app, seen = flaky_app([RetryAfter(0.005)], None)
    async with place.hub(app) as hub:
        await failure_of(await hub.client.start("main"))
        assert len(seen) == 1


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1, 1e300])
async def test_a_senseless_retry_after_is_a_failure_like_any_other(place: Place, seconds: float) -> None:
    app = App()

    @app.activity
    async def work() -> None:
        raise RetryAfter(seconds)

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(work)

    async with place.hub(app) as hub:
        assert "seconds is" in (await failure_of(await hub.client.start(main))).inner.message  # type: ignore[union-attr]


async def test_the_policy_of_the_registration_holds_where_the_call_has_none(place: Place) -> None:
    app, attempts = App(), []

    @app.activity(retry=RetryPolicy(max_attempts=2, first_interval=SOON))
    def work() -> None:
        attempts.append(1)
        raise Flaky

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(work)

    async with place.hub(app) as hub:
        await failure_of(await hub.client.start(main))
        assert len(attempts) == 2


async def test_a_retry_survives_the_worker_and_keeps_count_and_key(place: Place) -> None:
    app, seen = flaky_app([Flaky(), None], RetryPolicy(first_interval=timedelta(milliseconds=300)))
    async with place.hub(app) as hub:
        instance = await hub.client.start("main", instance_id="i")
        async with asyncio.timeout(LIMIT):
            while "TaskAttemptFailed" not in await kinds(instance):  # noqa: ASYNC110 - the store tells nobody
                await asyncio.sleep(0.005)
    async with place.hub(app) as hub:
        assert await hub.client.get("i").result(LIMIT) == 2
        assert [attempt for attempt, _ in seen] == [1, 2]
        assert len({key for _, key in seen}) == 1


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_timeout_ends_an_attempt(place: Place, is_async: bool) -> None:
    app = App()

    @app.activity(name="work")
    async def in_loop() -> None:
        await asyncio.Event().wait()

    threads = App()

    @threads.activity(name="work")
    def in_thread(ctx: ActivityContext) -> None:
        while not ctx.cancelled:
            pass

    served = app if is_async else threads

    @served.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity("work", timeout=timedelta(milliseconds=30))

    async with place.hub(served) as hub:
        details = await failure_of(await hub.client.start(main))
        assert details.is_caused_by(TimeoutError)
        assert "longer than its timeout of 0.03 s" in str(details)


# ---- failures ------------------------------------------------------------------------------------------------


def nested_app() -> App:
    app = App()

    @app.activity
    async def break_down(text: str) -> None:
        try:
            raise KeyError("inner " + text)
        except KeyError as error:
            raise VeryFlaky("outer " + text) from error

    @app.orchestrator
    def grandchild(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(break_down, "text")

    @app.orchestrator
    def child(ctx: OrchestrationContext) -> Any:
        yield ctx.call_sub_orchestrator(grandchild)

    @app.orchestrator
    def parent(ctx: OrchestrationContext) -> Any:
        yield ctx.call_sub_orchestrator(child)

    @app.orchestrator
    def catcher(ctx: OrchestrationContext) -> Any:
        caught: list[Any] = []
        try:
            yield ctx.call_activity(break_down, "text")
        except ActivityError as error:
            caught += [error.details.type, error.details.message, error.is_caused_by(Flaky, OSError)]
            caught.append("break_down" in error.details.stack)
        try:
            yield ctx.call_sub_orchestrator(parent)
        except SubOrchestrationError as error:
            caught += [error.is_caused_by(LookupError), error.is_caused_by(OSError)]
        return caught

    return app


async def test_a_failure_keeps_type_message_stack_and_causes_through_activities_and_children(place: Place) -> None:
    async with place.hub(nested_app()) as hub:
        instance = await hub.client.start("parent")
        with pytest.raises(OrchestrationFailed, match="outer text") as caught:
            await instance.result(LIMIT)
        error = caught.value
        assert error.is_caused_by(Flaky)
        assert error.is_caused_by(LookupError)
        assert error.is_caused_by(ActivityError)
        assert not error.is_caused_by(OSError)
        chain = [details.type for details in error.details.chain()]
        assert chain[-2:] == ["VeryFlaky", "KeyError"]
        assert any("break_down" in details.stack for details in error.details.chain())
        assert (await instance.status()).failure == error.details


async def test_an_orchestrator_catches_what_failed_with_all_of_it(place: Place) -> None:
    async with place.hub(nested_app()) as hub:
        caught = await (await hub.client.start("catcher")).result(LIMIT)
        assert caught == ["VeryFlaky", "outer text", True, True, True, False]


async def test_nothing_is_imported_to_read_a_failure(place: Place) -> None:
    async with place.hub(nested_app()) as hub:
        instance = await hub.client.start("parent")
        await instance.wait(LIMIT)
    async with place.hub(App()) as hub:
        namesake = type("Flaky", (Exception,), {"__module__": Flaky.__module__})
        assert (await failure_of(hub.client.get(instance.id))).is_caused_by(namesake)


@pytest.mark.parametrize("is_async", [True, False])
async def test_an_unencodable_result_fails_the_activity_with_its_path(place: Place, is_async: bool) -> None:
    app = App()
    bad = {"items": [1, {"photo": object()}]}

    @app.activity(name="work") if is_async else App().activity
    async def in_loop() -> Any:
        return bad

    @app.activity(name="work") if not is_async else App().activity
    def in_thread() -> Any:
        return bad

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity("work")

    async with place.hub(app) as hub:
        details = await failure_of(await hub.client.start(main))
        assert "photo" in str(details)
        assert "items" in str(details)
        assert "work" in str(details)


async def test_a_payload_over_the_limit_fails_and_is_never_tried_again(place: Place) -> None:
    app, attempts = App(), []

    @app.activity
    async def work() -> bytes:
        attempts.append(1)
        return bytes(5_000)

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(work, retry=RetryPolicy(max_attempts=5, first_interval=SOON))

    async with TaskHub(place.store(), app, codec=Codec(payload_bytes_max=2_000)) as hub:
        details = await failure_of(await hub.client.start(main))
        assert any(d.type == "PayloadTooLargeError" for d in details.chain())
        assert len(attempts) == 1


@pytest.mark.parametrize("error", [SystemExit(2), asyncio.CancelledError(), GeneratorExit()], ids=repr)
@pytest.mark.parametrize("where", ["activity", "thread", "orchestrator"])
async def test_whatever_user_code_raises_fails_it_and_the_worker_goes_on(
    place: Place, error: BaseException, where: str
) -> None:
    app = App()

    @app.activity
    async def in_loop() -> None:
        raise error

    @app.activity
    def in_thread() -> None:
        raise error

    @app.orchestrator
    def main(ctx: OrchestrationContext, where: str) -> Any:
        if where == "orchestrator":
            raise error
        if where != "nowhere":
            yield ctx.call_activity(in_loop if where == "activity" else in_thread)
        return "fine"

    async with place.hub(app) as hub:
        details = await failure_of(await hub.client.start(main, where))
        assert type(error).__name__ in str(details)
        assert await (await hub.client.start(main, "nowhere")).result(LIMIT) == "fine"


async def test_what_the_caller_of_a_start_is_handling_is_no_cause_of_a_failure(place: Place) -> None:
    """An orchestration's first step may be made where it is asked for: in the client's own stack."""
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> None:
        raise ValueError("no")

    async with place.hub(app) as hub:
        try:
            raise KeyError("the caller's own")
        except KeyError:
            instance = await hub.client.start(main)
            details = await failure_of(instance)
    assert (details.type, details.inner) == ("ValueError", None)
