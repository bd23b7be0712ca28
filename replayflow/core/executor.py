"""Who decides what an execution does next: the port that a local generator answers, an entity, or a worker elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from replayflow.core.actions import Action
from replayflow.core.events import (
    HistoryEvent,
)
from replayflow.errors import FailureDetails


class Executor(Protocol):
    """Whoever decides: a local generator, or a worker elsewhere."""

    def begin(self, now: int) -> None: ...
    def deliver(self, event: HistoryEvent) -> None: ...
    def take(self) -> list[Action]: ...
    def predicate_of(self, task_id: int) -> Callable[[FailureDetails], bool] | None: ...
