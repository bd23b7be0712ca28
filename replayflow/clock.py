"""Time as the engine reads it: whole microseconds since 1970 in UTC, so that stored times compare and subtract as integers."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Where the engine gets the time from; tests put a virtual one in its place."""

    def now(self) -> int:
        """The present time in microseconds since 1970, UTC."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> int:
        return time.time_ns() // 1000


def to_datetime(microseconds: int) -> datetime:
    """The time as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def to_microseconds(moment: datetime) -> int:
    """The aware datetime as microseconds since 1970, UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def microseconds_in(duration: timedelta) -> int:
    """The length of the duration in microseconds."""
    return duration // _MICROSECOND
