"""Times that users give, as microseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from replayflow.clock import to_microseconds
from replayflow.errors import InvalidArgumentError

_TIME_MIN = to_microseconds(datetime.min.replace(tzinfo=UTC))
_TIME_MAX = to_microseconds(datetime.max.replace(tzinfo=UTC))


def due_at(at: datetime | None, delay: timedelta | None, now: int) -> int | None:
    """The moment, in microseconds; None for at once.

    Raises:
        InvalidArgumentError: both are given; `at` is no datetime or naive; the moment is in no calendar.
    """
    if at is not None and delay is not None:
        raise InvalidArgumentError("at and delay are both given: one of them says when")
    if delay is not None:
        if not isinstance(delay, timedelta):
            raise InvalidArgumentError(f"delay is {delay!r:.80}; it is a timedelta")
        moment = now + delay // timedelta(microseconds=1)
        if not _TIME_MIN <= moment <= _TIME_MAX:
            raise InvalidArgumentError(f"delay is {delay}, and that from now is in no calendar")
        return moment
    if at is None:
        return None
    if not isinstance(at, datetime):
        raise InvalidArgumentError(f"at is {at!r:.80}; it is a datetime with a time zone")
    if at.tzinfo is None or at.utcoffset() is None:
        raise InvalidArgumentError(f"at is {at!r}, which is naive: give it a time zone, such as datetime.now(UTC)")
    try:
        return to_microseconds(at.astimezone(UTC))
    except OverflowError:
        raise InvalidArgumentError(f"at is {at}; in UTC that is in no calendar") from None
