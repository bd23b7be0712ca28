"""Who decides what an execution does next: the port that a local generator answers, an entity, or a worker elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from replayflow.core.actions import Action
from replayflow.core.events import (
    HistoryEvent,
    TaskCompleted,
)
from replayflow.errors import FailureDetails


class Executor(Protocol):
    """Whoever decides: a local generator, or a worker elsewhere."""

    def turn(self, came: TaskCompleted, now: int) -> list[Action] | None:
        """`begin`, `deliver` and `take` in one, where the code waits for just this result; None, and nothing has happened, where it does not.

        An executor that has no quicker way than the three always answers None.
        """
        ...

    def begin(self, now: int) -> None: ...
    def deliver(self, event: HistoryEvent) -> None: ...
    def take(self) -> list[Action]: ...
    def predicate_of(self, task_id: int) -> Callable[[FailureDetails], bool] | None: ...
