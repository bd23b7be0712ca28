"""Executions that begin with a past: whose it is, and what of it has to stay as it was.

1. Random numbers, UUIDs and the ids of critical sections are made of ids and times: in the past of an execution they are those of its origins,
   so that its code meets the same numbers when it is replayed (I2).
2. What a rewound instance had under way keeps its idempotency key: it is the same task, tried again (I4).
"""

from __future__ import annotations

from collections.abc import Sequence

from replayflow.core.events import ExecutionStarted, Origin


def root(started: ExecutionStarted) -> tuple[str, str]:
    """The instance and execution in which all began, or the execution itself."""
    first = started.origins[0] if started.origins else started
    return first.instance_id, first.execution_id


def identity_at(started: ExecutionStarted, now: int) -> tuple[str, str]:
    """The instance and execution whose episode that of the time `now` was."""
    for origin in started.origins or ():
        if now <= origin.until_microseconds:
            return origin.instance_id, origin.execution_id
    return started.instance_id, started.execution_id


def inherited_until(started: ExecutionStarted) -> int:
    """The time of the last episode that was another execution's; 0 where there is none."""
    return started.origins[-1].until_microseconds if started.origins else 0


def key_scope(started: ExecutionStarted, task_id: int) -> str | None:
    """What the idempotency keys of the task begin with, where it is not the present execution that asked for it.

    A fork is another instance: what it has to do again it does under keys of its own.
    """
    for origin in started.origins or ():
        if task_id <= origin.last_id and origin.instance_id == started.instance_id:
            return f"{origin.instance_id}/{origin.execution_id}"
    return None


def prolonged(started: ExecutionStarted, until: int, last_id: int) -> list[Origin]:
    """The origins of an execution whose past is that of `started`, up to the time and the action."""
    kept: Sequence[Origin] = started.origins or ()
    before = [origin for origin in kept if origin.until_microseconds < until]
    cut = kept[len(before)] if len(before) < len(kept) else started
    return [*before, Origin(cut.instance_id, cut.execution_id, until, last_id)]
