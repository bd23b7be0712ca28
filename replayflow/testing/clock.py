"""A clock that stands still until it is told."""

from __future__ import annotations

from datetime import UTC, datetime

from replayflow.clock import to_datetime, to_microseconds

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)


class VirtualClock:
    """The time of a `VirtualHub`."""

    def __init__(self, begin: datetime = BEGIN) -> None:
        self._now = to_microseconds(begin)

    def now(self) -> int:
        return self._now

    @property
    def time(self) -> datetime:
        """The present time, aware and in UTC."""
        return to_datetime(self._now)

    def set(self, microseconds: int) -> None:
        """It is that time. Time does not go back."""
        self._now = max(self._now, microseconds)
