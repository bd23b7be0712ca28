"""When to try again: a policy as users write it, its values as they are stored, and the one function that decides.

The decision is made once, when an attempt fails, and recorded; replay reads it and never decides again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from msgspec import Struct

from replayflow.errors import FailureDetails, InvalidArgumentError, qualified_name

_MICROSECOND = timedelta(microseconds=1)
_YEAR_MICROSECONDS = 366 * 24 * 3600 * 1_000_000
# What a runaway backoff is held to where the policy has no bound of its own.
DELAY_MICROSECONDS_MAX = _YEAR_MICROSECONDS
# What stored durations are held to, so that a time plus a `timedelta.max` is still a time.
DURATION_MICROSECONDS_MAX = 1_000 * _YEAR_MICROSECONDS
STORED_INT_MAX = 2**63 - 1
"""What whole numbers are held to that histories keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and when a failed activity or sub-orchestration is tried again.

    `max_attempts` counts the first one. The n-th retry waits `first_interval * backoff ** (n - 1)`, at most `max_interval`; `jitter` is the
    share (0 to 1) of that wait which is left to chance. `timeout` bounds the whole of it: no retry begins later than that after the task was
    scheduled. `retry_on` says which errors deserve a retry: classes, or a predicate over `FailureDetails`; `non_retryable` names classes that never
    do. Classes match by qualified name, along the chain of causes.

    Raises:
        InvalidArgumentError: a value outside its range.
    """

    max_attempts: int = 3
    first_interval: timedelta = timedelta(seconds=1)
    backoff: float = 2.0
    max_interval: timedelta | None = None
    timeout: timedelta | None = None
    jitter: float = 0.0
    retry_on: Callable[[FailureDetails], bool] | type[BaseException] | tuple[type[BaseException], ...] | None = None
    non_retryable: type[BaseException] | tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        # Types, too: what is stored as another than the field has could not be read again.
        if type(self.max_attempts) is not int or not 1 <= self.max_attempts <= STORED_INT_MAX:
            raise InvalidArgumentError(
                f"RetryPolicy: max_attempts is {self.max_attempts!r:.80}; it counts the first attempt, so it is a whole number from 1 up "
                "(sys.maxsize for no end)"
            )
        if not isinstance(self.backoff, int | float) or not self.backoff >= 1:
            raise InvalidArgumentError(
                f"RetryPolicy: backoff is {self.backoff!r:.80}; it multiplies the wait, so it is a number from 1 up"
            )
        if not isinstance(self.jitter, int | float) or not 0 <= self.jitter <= 1:
            raise InvalidArgumentError(
                f"RetryPolicy: jitter is {self.jitter!r:.80}; it is a share of the wait, from 0 to 1"
            )
        for name in ("first_interval", "max_interval", "timeout"):
            duration: object = getattr(self, name)
            if duration is None and name != "first_interval":
                continue
            if not isinstance(duration, timedelta):
                raise InvalidArgumentError(f"RetryPolicy: {name} is {duration!r:.80}; it is a timedelta")
            if duration < timedelta(0):
                raise InvalidArgumentError(f"RetryPolicy: {name} is {duration}; a duration cannot be negative")

    @property
    def predicate(self) -> Callable[[FailureDetails], bool] | None:
        """The predicate of `retry_on`, where it is one: it lives in the code and is not stored."""
        if self.retry_on is None or isinstance(self.retry_on, type | tuple):
            return None
        return self.retry_on

    def values(self) -> RetryValues:
        """The policy as it is stored with the task that it governs."""
        return RetryValues(
            max_attempts=self.max_attempts,
            first_interval=stored_duration(self.first_interval),
            backoff=float(self.backoff),
            max_interval=None if self.max_interval is None else stored_duration(self.max_interval),
            timeout=None if self.timeout is None else stored_duration(self.timeout),
            jitter=float(self.jitter),
            retry_on=_names(self.retry_on) if isinstance(self.retry_on, type | tuple) else None,
            non_retryable=_names(self.non_retryable),
        )


class RetryValues(Struct, array_like=True):
    """A policy's values: durations in microseconds, classes by qualified name.

    `park` is what the instance is parked with, before the failure's own text, where no attempt is left; None lets the orchestrator have the failure.
    """

    max_attempts: int
    first_interval: int
    backoff: float
    max_interval: int | None
    timeout: int | None
    jitter: float
    retry_on: list[str] | None
    non_retryable: list[str]
    park: str | None = None


def next_attempt_at(
    values: RetryValues,
    *,
    attempt: int,
    failure: FailureDetails,
    scheduled_at: int,
    now: int,
    random: Random,
    retry_after: int | None = None,
    predicate: Callable[[FailureDetails], bool] | None = None,
) -> int | None:
    """The time of the attempt after the failed one (`attempt` counts from 1), in microseconds; None where there is none.

    `retry_after`, in microseconds, is what the failed attempt itself asked for; it takes the place of the policy's wait.
    A predicate that raises counts as a no.
    """
    if attempt >= values.max_attempts or failure.non_retryable or failure.matches(values.non_retryable):
        return None
    if retry_after is None and not _deserves_retry(values, failure, predicate):
        return None
    delay = _policy_delay(values, attempt, random) if retry_after is None else retry_after
    if values.timeout is not None and now + delay > scheduled_at + values.timeout:
        return None
    return now + delay


def _deserves_retry(
    values: RetryValues, failure: FailureDetails, predicate: Callable[[FailureDetails], bool] | None
) -> bool:
    if values.retry_on is not None:
        return failure.matches(values.retry_on)
    if predicate is None:
        return True
    try:
        return bool(predicate(failure))
    except Exception:  # the user's code; the failure that it was asked about is the one to report
        return False


def _policy_delay(values: RetryValues, attempt: int, random: Random) -> int:
    bound = DELAY_MICROSECONDS_MAX if values.max_interval is None else values.max_interval
    if not values.first_interval:
        return 0  # and not the bound, when the power overflows
    try:
        delay = min(values.first_interval * values.backoff ** (attempt - 1), bound)
    except OverflowError:
        delay = bound
    return int(delay * (1 - values.jitter * random.random()))


def stored_duration(duration: timedelta) -> int:
    """The duration in microseconds, as it is stored: at most a thousand years."""
    return min(duration // _MICROSECOND, DURATION_MICROSECONDS_MAX)


def _names(classes: type[BaseException] | tuple[type[BaseException], ...]) -> list[str]:
    return [qualified_name(cls) for cls in (classes if isinstance(classes, tuple) else (classes,))]
