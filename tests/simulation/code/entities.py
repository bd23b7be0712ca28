"""Entities that remember, and orchestrators that ask something of them."""

from __future__ import annotations

from typing import Any

from replayflow import App, EntityContext, EntityError, Orchestration, OrchestrationContext, when_all
from tests.simulation.code.measures import SOON


def add_entities(app: App) -> None:
    """The app has both."""
    _add_remembering(app)
    _add_asking(app)


def _add_remembering(app: App) -> None:
    @app.entity
    def log(ctx: EntityContext[list[Any] | None], entry: Any = None) -> Any:
        """All that it was told, in order."""
        match ctx.operation:
            case "append":
                ctx.state = [*(ctx.state or []), entry]
                ctx.signal_entity("@count@all", "add", 1)
            case "spoil":
                ctx.state = ["spoilt"]
                ctx.signal_entity("@count@all", "add", -1_000)
                raise ValueError("spoilt")
        return len(ctx.state or [])

    @app.entity
    def count(ctx: EntityContext[int | None], amount: int = 0) -> int:
        if ctx.operation == "add":
            ctx.state = (ctx.state or 0) + amount
        elif ctx.operation == "clear":
            ctx.state = None
        return ctx.state or 0


def _add_asking(app: App) -> None:
    @app.orchestrator
    def tells(ctx: OrchestrationContext, given: tuple[str, int]) -> Orchestration[int]:
        """Signals, calls and failing calls to one log, in order."""
        entity, times = given
        for number in range(times):
            ctx.signal_entity(entity, "append", [ctx.instance_id, 2 * number])
            try:
                yield ctx.call_entity(entity, "spoil")
            except EntityError:
                yield ctx.call_entity(entity, "append", [ctx.instance_id, 2 * number + 1])
        return times

    @app.orchestrator
    def counts_anew(ctx: OrchestrationContext, given: tuple[str, int]) -> Orchestration[list[int]]:
        """Counts up, clears, and counts up again, while somebody cleans up."""
        entity, times = given
        seen = []
        for _ in range(times):
            yield ctx.call_entity(entity, "add", 2)
            ctx.signal_entity(entity, "add", 1)
            seen.append((yield ctx.call_entity(entity, "get")))
            yield ctx.call_entity(entity, "clear")
            yield ctx.create_timer(SOON)
        return seen

    @app.orchestrator
    def transfer(ctx: OrchestrationContext, given: tuple[list[str], int]) -> Orchestration[int]:
        """Moves an amount from the first to the second, with nobody between."""
        ids, amount = given
        with (yield ctx.lock_entities(ids)):
            before = yield when_all([ctx.call_entity(id, "get") for id in ids])
            yield ctx.call_activity("echo", amount)
            yield ctx.call_entity(ids[0], "add", -amount)
            yield ctx.call_entity(ids[1], "add", amount)
            after = yield when_all([ctx.call_entity(id, "get") for id in ids])
        return int([after[0] - before[0], after[1] - before[1]] == [-amount, amount])
