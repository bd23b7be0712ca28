"""The event of an attempt that failed."""

from __future__ import annotations

from replayflow.core.events import TaskFailed
from replayflow.errors import FailureDetails, RetryAfter


def failed(task_id: int, error: BaseException) -> TaskFailed:
    """The attempt failed with the error, which may say when to try again."""
    retry_after = int(error.seconds * 1_000_000) if isinstance(error, RetryAfter) else None
    return TaskFailed(task_id, FailureDetails.of(error), retry_after)
