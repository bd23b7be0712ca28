"""Orchestrators whose results can be worked out beforehand."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from replayflow import (
    ActivityError,
    App,
    Orchestration,
    OrchestrationCancelled,
    OrchestrationContext,
    RetryPolicy,
    Saga,
    race,
    when_all,
    when_any,
)
from tests.simulation.code.measures import SOON


def add_orchestrators(app: App) -> None:
    """The app has those that are the same in every edition, and call activities alone."""
    _add_calls(app)
    _add_waits(app)
    _add_events(app)
    _add_maps(app)
    _add_effects(app)


def _add_calls(app: App) -> None:
    """Activities after one another, at once, again, against each other."""

    @app.orchestrator
    def chain(ctx: OrchestrationContext, given: tuple[int, int]) -> Orchestration[int]:
        x, length = given
        for _ in range(length):
            x = yield ctx.call_activity("narrow", x)
        return x

    @app.orchestrator
    def retries(ctx: OrchestrationContext, given: tuple[int, int, int]) -> Orchestration[Any]:
        x, fails, attempts = given
        policy = RetryPolicy(max_attempts=attempts, first_interval=SOON, backoff=1.5, jitter=0.5)
        try:
            x = yield ctx.call_activity("flaky", [x, fails], retry=policy)
        except ActivityError:
            return -1
        return x

    @app.orchestrator
    def fan(ctx: OrchestrationContext, width: int) -> Orchestration[int]:
        results = yield when_all([ctx.call_activity("double", i) for i in range(width)])
        return sum(results)

    @app.orchestrator
    def paced(ctx: OrchestrationContext, width: int) -> Orchestration[int]:
        results = yield when_all([ctx.call_activity("rated", i) for i in range(width)])
        return sum(results)

    @app.orchestrator
    def races(ctx: OrchestrationContext, x: int) -> Orchestration[list[Any]]:
        """The quicker of two, the first of three with the others left alive, and a time limit."""
        first = yield race([ctx.call_activity("slow", x), ctx.call_activity("echo", x + 1)])
        tasks = [ctx.call_activity("echo", x + i) for i in range(3)]
        winner = yield when_any(tasks)
        rest = yield when_all(tasks)
        try:
            timed = yield ctx.call_activity("slow", x, timeout=timedelta(seconds=5))
        except ActivityError:
            timed = x
        return [first - x in (0, 1), winner in tasks, sum(rest) - 3 * x, timed - x]


def _add_waits(app: App) -> None:
    """Timers, and what ends a wait."""

    @app.orchestrator
    def naps(ctx: OrchestrationContext, millis: list[int]) -> Orchestration[int]:
        for ms in millis:
            yield ctx.create_timer(timedelta(milliseconds=ms))
        unused = ctx.create_timer(timedelta(days=3))
        yield when_all([ctx.create_timer(timedelta(milliseconds=ms)) for ms in millis])
        unused.cancel()
        return len(millis)

    @app.orchestrator
    def deadline(ctx: OrchestrationContext, seconds: float) -> Orchestration[Any]:
        try:
            said = yield ctx.wait_for_external_event("go", type=str, timeout=timedelta(seconds=seconds))
        except TimeoutError:
            return "late"
        return said

    @app.orchestrator
    def waits_for_ever(ctx: OrchestrationContext) -> Orchestration[str]:
        ctx.call_activity("slow", 1)
        try:
            yield ctx.wait_for_external_event("never")
        except OrchestrationCancelled:
            yield ctx.call_activity("undo", 0)
            raise
        return ""


def _add_events(app: App) -> None:
    """Events, to them and from them, in one execution and in many."""

    @app.orchestrator
    def listens(ctx: OrchestrationContext, count: int) -> Orchestration[list[Any]]:
        heard: list[Any] = []
        for _ in range(count):
            heard.append((yield ctx.wait_for_external_event("go")))
            ctx.set_custom_status(len(heard))
        return heard

    @app.orchestrator
    def loops(ctx: OrchestrationContext, given: tuple[int, list[Any]]) -> Orchestration[Any]:
        """One event for each execution, and work beside it that nobody waits for."""
        left, heard = given
        ctx.call_activity("echo", left)
        said = yield ctx.wait_for_external_event("go")
        doubled = yield ctx.call_activity("double", left)
        heard = [*heard, [said, doubled]]
        if left == 1:
            return heard
        ctx.call_activity("echo", "on the way out")
        ctx.continue_as_new((left - 1, heard))
        return None

    @app.orchestrator
    def sends(ctx: OrchestrationContext, given: tuple[str, int]) -> Orchestration[int]:
        target, count = given
        for number in range(count):
            ctx.send_event(target, "Go", [ctx.instance_id, number])
            if number % 2:
                yield ctx.call_activity("echo", number)
        return count

    @app.orchestrator
    def carries(ctx: OrchestrationContext, given: tuple[str, int]) -> Orchestration[Any]:
        """Something large through an activity, an event, a custom status and a continue-as-new."""
        text, left = given
        text = yield ctx.call_activity("echo", text)
        said = yield ctx.wait_for_external_event("go", type=str)
        ctx.set_custom_status(said)
        if left:
            ctx.continue_as_new((text + said[:1], left - 1))
            return ""
        return text + said


def _add_maps(app: App) -> None:
    """A call for each of many items."""

    @app.orchestrator
    def maps(ctx: OrchestrationContext, width: int) -> Orchestration[dict[str, Any]]:
        again = RetryPolicy(max_attempts=3, first_interval=SOON)
        single = ctx.map("flaky", [[i, i % 3] for i in range(width)], concurrency=3, retry=again)
        children = ctx.map("child", range(3), concurrency=2)
        batches = ctx.map("all_doubled", list(range(width)), batch_size=4, concurrency=2)
        one, two, three = yield when_all([single, children, batches])
        return {"single": list(one.succeeded), "children": list(two.succeeded), "batches": list(three.succeeded)}

    @app.orchestrator
    def paged(ctx: OrchestrationContext) -> Orchestration[list[int]]:
        result = yield ctx.map(app.activities["double"].fn, app.activities["pages"].fn, concurrency=2)
        return list(result.succeeded)

    @app.orchestrator
    def tolerates(ctx: OrchestrationContext, width: int) -> Orchestration[list[int]]:
        """Every fifth call fails for good."""
        result = yield ctx.map(
            "flaky",
            [[i, 9 * (i % 5 == 0)] for i in range(width)],
            concurrency=2,
            tolerated_failures=1.0,
            on_item_error="collect",
        )
        return [len(result.succeeded), len(result.failures)]


def _add_effects(app: App) -> None:
    """What counts is what is left in the world: undone, saved, recorded, owed."""

    @app.orchestrator
    def undoes(ctx: OrchestrationContext, given: tuple[int, bool]) -> Orchestration[str]:
        parts, fails = given

        def body(saga: Saga) -> Orchestration[str]:
            for part in range(parts):
                yield from saga.run("do", "undo", part, undo_input=part)
            if fails:
                raise ValueError("not today")
            return "done"

        try:
            return (yield from ctx.saga(body))
        except ValueError:
            return "undone"

    @app.orchestrator
    def saves(ctx: OrchestrationContext, given: tuple[str, list[int]]) -> Orchestration[Any]:
        account, amounts = given
        yield when_all([ctx.call_activity("deposit", (account, amount)) for amount in amounts])
        found = yield ctx.call_activity("balance", account)
        ctx.call_activity("deposit", (account, 1_000))
        return found

    @app.orchestrator
    def audits(ctx: OrchestrationContext, account: str) -> Orchestration[Any]:
        return (yield ctx.call_activity("balance", account))

    @app.orchestrator
    def records(ctx: OrchestrationContext, length: int) -> Orchestration[bool]:
        """What was recorded stays as it is: the numbers that are drawn differ at every call."""
        drawn = [ctx.record(_draw) for _ in range(length)]
        uuids = [ctx.new_uuid() for _ in range(length)]
        chances = [ctx.random.random() for _ in range(length)]
        said = yield when_all([ctx.call_activity("echo", one) for one in [*drawn, *uuids, *chances]])
        return bool(said == [*drawn, *uuids, *chances])

    @app.orchestrator
    def leaves(ctx: OrchestrationContext, count: int) -> Orchestration[int]:
        """What is asked for last runs, though nobody waits for it."""
        yield ctx.call_activity("echo", 0)
        for number in range(count):
            ctx.call_activity("do", number)
        return count


def _draw() -> int:
    """Another number each time: what a second call of it would come to differs from what was recorded."""
    return int.from_bytes(os.urandom(4))
