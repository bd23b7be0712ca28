"""Code that changes: what was right at first, the same after a change that fits what is under way, and what does not fit."""

from __future__ import annotations

from typing import Any

from replayflow import App, Orchestration, OrchestrationContext
from tests.simulation.code.measures import SOON
from tests.simulation.world import CHANGED, RIGHT


def add_changing(app: App, edition: int) -> None:
    """What began under one of the two goes on under the other: `evolves` and `versioned` differ, `changes` and `withdrawn` do not."""

    if edition == RIGHT:

        @app.orchestrator(name="evolves")
        def before(ctx: OrchestrationContext, count: int) -> Orchestration[list[str]]:
            said = []
            for _ in range(count):
                yield ctx.create_timer(SOON)
                said.append((yield ctx.call_activity("old_words")))
            return said

    if edition == CHANGED:

        @app.orchestrator(name="evolves")
        def after(ctx: OrchestrationContext, count: int) -> Orchestration[list[str]]:
            said = []
            for _ in range(count):
                yield ctx.create_timer(SOON)
                if ctx.patched("new-words"):
                    said.append((yield ctx.call_activity("new_words")))
                else:
                    said.append((yield ctx.call_activity("old_words")))
            return said

        @app.orchestrator(name="versioned", version="2")
        def second(ctx: OrchestrationContext, x: int) -> Orchestration[list[int]]:
            yield ctx.create_timer(SOON)
            return [2, (yield ctx.call_activity("double", x))]

    @app.orchestrator(name="versioned", version="1")
    def first(ctx: OrchestrationContext, x: int) -> Orchestration[list[int]]:
        doubled = yield ctx.call_activity("double", x)
        yield ctx.create_timer(SOON)
        return [1, doubled]

    @app.orchestrator(name="changes")
    def right(ctx: OrchestrationContext, x: int) -> Orchestration[Any]:
        x = yield ctx.call_activity("double", x)
        yield ctx.create_timer(SOON)
        return (yield ctx.call_activity("double", x))

    @app.orchestrator
    def withdrawn(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
        for _ in range(3):
            yield ctx.wait_for_external_event("go")
            x = yield ctx.call_activity("double", x)
        return x


def add_wrong(app: App) -> None:
    """`changes` does not fit what began under the right code, `withdrawn` and the others have none."""

    @app.orchestrator(name="changes")
    def wrong(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
        yield ctx.create_timer(SOON)
        return x
