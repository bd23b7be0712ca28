"""What an orchestrator catches at a `yield`."""

from __future__ import annotations

from typing import Any

from replayflow.errors.base import ReplayflowError
from replayflow.errors.failures import FailureDetails


class TaskError(ReplayflowError):
    """Work that an orchestrator asked for has failed.

    `.details` describes the error where it was raised. Raised by `when_all`, `.failures` has the exception of every failed task, in list order.
    """

    code = "RF400"

    def __init__(self, message: str, details: FailureDetails) -> None:
        super().__init__(message)
        self.details = details
        self.failures: list[BaseException] = [self]

    def is_caused_by(self, *classes: type[BaseException]) -> bool:
        """Whether the error, or any error that it came from, was one of the classes."""
        return self.details.is_caused_by(*classes)

    def _handed_on(self) -> FailureDetails:
        return self.details


class ActivityError(TaskError):
    """An activity failed, after its retries if it had any."""

    code = "RF401"


class SubOrchestrationError(TaskError):
    """A sub-orchestration failed, was terminated, or could not be started."""

    code = "RF402"


class EntityError(TaskError):
    """An operation that an orchestrator called on an entity failed, and changed nothing there."""

    code = "RF403"


class TaskCanceledError(ReplayflowError):
    """The result of a task that the orchestrator itself had cancelled was asked for."""

    code = "RF404"


class MapError(TaskError):
    """More items of a `ctx.map` failed than it tolerates, or the activity that gives its pages did.

    `.result` is the `MapResult` as far as the map came: `.result.failures` says which items failed and why, and
    `yield from error.result.retry_failed(ctx)` runs those without a result again. `.details` is the first failure.
    """

    code = "RF405"

    def __init__(self, message: str, details: FailureDetails, result: Any = None) -> None:
        super().__init__(message, details)
        self.result = result


class RecordError(TaskError):
    """The function that `ctx.record` called failed, or what it returned cannot be recorded.

    The failure is recorded in the place of a value, and raised again on every replay. `.details` describes the error where it was raised.
    """

    code = "RF410"
