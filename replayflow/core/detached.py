"""Instances that an orchestrator starts and asks to end without being their parent: for our own orchestrators, not part of the context.

What they decide takes no action id, so that the numbering of the others stays the protocol's.
"""

from __future__ import annotations

from typing import Literal

from replayflow.codec import Payload
from replayflow.core.actions import AskInstance, StartInstance
from replayflow.core.context import OrchestrationContext
from replayflow.core.decisions import Diverged
from replayflow.errors import ScheduleError

Request = Literal["cancel", "terminate"]


def start_instance(
    ctx: OrchestrationContext,
    instance_id: str,
    name: str,
    input: Payload,
    *,
    version: str | None = None,
    tags: dict[str, str] | None = None,
    end_event: str = "",
) -> None:
    """An instance of its own exists with this episode's commit; where the id is taken, nothing does.

    Without a version it is the one that a start by name has now. With `end_event` the instance that `ctx` is of gets an event of that name,
    `[instance_id, status]`, when it has ended; at once, with the status "TAKEN", where the id was taken.
    """
    if version is None:
        version = ctx._environment.default_version(name)
    ctx._decisions.add(StartInstance(instance_id, name, input, version, tags, end_event))


def ask_to_end(ctx: OrchestrationContext, instance_id: str, request: Request) -> None:
    """The instance is asked to end; one that is not there any more is not."""
    ctx._decisions.add(AskInstance(instance_id, request))


def park(ctx: OrchestrationContext, problem: ScheduleError) -> Diverged:
    """Raise what this returns: the episode does not count, and the instance is parked with the problem until another worker tries again."""
    ctx._decisions.fault(problem)
    return Diverged()
