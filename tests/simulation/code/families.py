"""Parents and children."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from replayflow import (
    App,
    Orchestration,
    OrchestrationContext,
    RetryPolicy,
    SubOrchestrationError,
    race,
    when_all,
)
from tests.simulation.code.measures import SOON


def add_families(app: App) -> None:
    """The app has children, of which some fail, and parents, of which some have no patience."""
    _add_children(app)
    _add_parents(app)


def _add_children(app: App) -> None:
    @app.orchestrator
    def child(ctx: OrchestrationContext, x: int) -> Orchestration[Any]:
        first = yield ctx.call_activity("double", x)
        yield ctx.create_timer(timedelta(milliseconds=5))
        return (yield ctx.call_activity("narrow", first))

    @app.orchestrator
    def fails_at_first(ctx: OrchestrationContext, given: tuple[int, int]) -> Orchestration[int]:
        """Fails in its first attempts: the id of a later one ends with its number."""
        x, fails = given
        yield ctx.call_activity("echo", x)
        attempt = _attempt_of(ctx.instance_id)
        if attempt <= fails:
            raise ValueError(f"attempt {attempt}")
        return x

    @app.orchestrator
    def brittle(ctx: OrchestrationContext, given: tuple[int, str]) -> Orchestration[list[int]]:
        number, what = given
        first = yield ctx.call_activity("double", number)
        second = yield ctx.call_activity("breaks", (first, f"{what}.child"))
        return [first, second]


def _attempt_of(instance_id: str) -> int:
    _, *rest = instance_id.split(":")
    return int(rest[1]) if len(rest) == 2 else 1


def _add_parents(app: App) -> None:
    @app.orchestrator
    def family(ctx: OrchestrationContext, size: int) -> Orchestration[Any]:
        again = RetryPolicy(max_attempts=3, first_interval=SOON)
        tasks = [ctx.call_sub_orchestrator("child", i) for i in range(size)]
        tasks.append(ctx.call_sub_orchestrator("parent", 2))
        results = yield when_all(tasks)
        results.append((yield ctx.call_sub_orchestrator("fails_at_first", (5, 2), retry=again)))
        try:
            yield ctx.call_sub_orchestrator("fails_at_first", (5, 9))
        except SubOrchestrationError:
            results.append(-1)
        return results

    @app.orchestrator
    def parent(ctx: OrchestrationContext, size: int) -> Orchestration[int]:
        results = yield when_all([ctx.call_sub_orchestrator("child", i) for i in range(size)])
        return sum(results)

    @app.orchestrator
    def dynasty(ctx: OrchestrationContext, size: int) -> Orchestration[None]:
        """Its children wait for ever, until somebody ends it and them."""
        yield when_all([ctx.call_sub_orchestrator("waits_for_ever") for _ in range(size)])

    @app.orchestrator
    def hurried(ctx: OrchestrationContext, size: int) -> Orchestration[str]:
        """Has no patience with its children, who are asked to end."""
        slow = [ctx.call_sub_orchestrator("waits_for_ever") for _ in range(size)]
        yield race([when_all(slow), ctx.create_timer(SOON)])
        return "gone on"

    @app.orchestrator
    def repaired(ctx: OrchestrationContext, what: str) -> Orchestration[list[Any]]:
        """Fails in an activity of its own, and in its children, as long as they are broken."""
        first = yield when_all(
            [
                ctx.call_activity("double", 0),
                ctx.call_activity("breaks", (1, f"{what}.own")),
                ctx.call_activity("double", 2),
            ]
        )
        said = yield ctx.wait_for_external_event("go")
        again = RetryPolicy(max_attempts=2, first_interval=SOON)
        children = yield when_all(
            [
                ctx.call_sub_orchestrator("brittle", (3, what)),
                ctx.call_sub_orchestrator("brittle", (4, what), retry=again),
            ]
        )
        return [first, said, children]
