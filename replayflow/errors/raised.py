"""What user code raises to say what should follow, and what is raised in it when it should end."""

from __future__ import annotations

from replayflow.errors.base import ReplayflowError
from replayflow.errors.user import InvalidArgumentError

RETRY_AFTER_SECONDS_MAX = 366 * 24 * 3600


class NonRetryableError(ReplayflowError):
    """Raised by an activity: fail now, whatever the retry policy says."""

    code = "RF501"
    _non_retryable = True


class RetryAfter(ReplayflowError):
    """Raised by an activity: this attempt failed; wait so many seconds before the next, where the retry policy has attempts left.

    Seconds are a number from 0 to those of a year; any other is an `InvalidArgumentError`.
    """

    code = "RF502"

    def __init__(self, seconds: float, message: str = "") -> None:
        if not 0 <= seconds <= RETRY_AFTER_SECONDS_MAX:
            raise InvalidArgumentError(
                f"RetryAfter: seconds is {seconds!r:.80}; it is a number from 0 to {RETRY_AFTER_SECONDS_MAX}, a year"
            )
        super().__init__(message or f"retry after {seconds} s")
        self.seconds = seconds


class ActivityCancelled(BaseException):  # so that `except Exception` in an activity does not swallow it
    """Raised by `ctx.raise_if_cancelled()` in an activity whose result nobody waits for any longer: clean up, then let it pass."""

    code = "RF411"


class OrchestrationCancelled(BaseException):  # so that `except Exception` in an orchestrator does not swallow it
    """Raised at an orchestrator's current yield when somebody asks to cancel it: compensate in `except` or `finally`, then let it pass."""

    code = "RF503"
