"""When: intervals and cron expressions, with their bounds, their time zone and their jitter.

Everything here is a function of what it is given; the clock is somebody else's. Times are aware and in UTC.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from hashlib import sha256
from itertools import takewhile
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from replayflow.errors import InvalidArgumentError, ScheduleError

if TYPE_CHECKING:
    from cronsim import CronSim

INTERVAL_MIN = timedelta(milliseconds=100)
INTERVAL_MAX = timedelta(days=36_525)
JITTER_MAX = timedelta(days=366)
"""Beside a cron expression, whose runs keep their order: one that is delayed by more than the longest gap of the usual ones delays them all."""
_INSTANT = timedelta(microseconds=1)
_FIRST = datetime.min.replace(tzinfo=UTC)
_FIRST_LOOK = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Timing:
    """The scheduled times of a schedule: every so often, `anchor` among them, or as `cron` says in `zone`; none before `start_at` or after `end_at`.

    A fixed local time that a change of the clock leaves out happens when the gap ends, one that it repeats happens the first time; where the
    minute or the hour begins with `*` the expression goes by real time. That is how Debian's cron has it.
    """

    every: timedelta | None = None
    cron: str | None = None
    zone: str = "UTC"
    anchor: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    start_at: datetime | None = None
    end_at: datetime | None = None
    jitter: timedelta = timedelta(0)

    def check(self) -> Timing:
        """The timing, if it is one.

        Raises:
            InvalidArgumentError: it is neither an interval nor a cron expression, or a value is outside its range.
            ScheduleError: the cron library or the time zone is missing here.
        """
        if (self.every is None) == (self.cron is None):
            raise InvalidArgumentError(
                "a schedule has either an interval, every=timedelta(...), or a cron expression, cron='0 2 * * *'"
            )
        for name, length in (("every", self.every), ("jitter", self.jitter)):
            if length is not None and not isinstance(length, timedelta):
                raise InvalidArgumentError(f"{name} is {length!r:.80}; it is a timedelta")
        for name, text in (("cron", self.cron), ("zone", self.zone)):
            if text is not None and not isinstance(text, str):
                raise InvalidArgumentError(f"{name} is {text!r:.80}; it is text")
        if self.every is not None and not INTERVAL_MIN <= self.every <= INTERVAL_MAX:
            raise InvalidArgumentError(
                f"every is {self.every}; a schedule's interval is from {INTERVAL_MIN} to {INTERVAL_MAX}"
            )
        for name, moment in (("start_at", self.start_at), ("end_at", self.end_at)):
            if moment is not None and not isinstance(moment, datetime):
                raise InvalidArgumentError(f"{name} is {moment!r:.80}; it is a datetime with a time zone")
            if moment is not None and (moment.tzinfo is None or moment.utcoffset() is None):
                raise InvalidArgumentError(f"{name} is {moment!r}, which is naive: give it a time zone")
        if self.start_at is not None and self.end_at is not None and self.end_at < self.start_at:
            raise InvalidArgumentError(f"end_at, {self.end_at}, is before start_at, {self.start_at}")
        if self.jitter < timedelta(0) or (self.every is not None and self.jitter > self.every):
            raise InvalidArgumentError(f"jitter is {self.jitter}; it is not negative, and no longer than the interval")
        if self.jitter > JITTER_MAX:
            raise InvalidArgumentError(f"jitter is {self.jitter}; it is no longer than {JITTER_MAX}")
        _zone(self.zone)
        if self.cron is not None:
            if len(self.cron.split()) != 5:
                raise InvalidArgumentError(
                    f"cron is {self.cron!r:.80}; it has five fields: minute, hour, day of month, month, day of week"
                )
            if next(self._of_cron(self.cron, self.anchor), None) is None:
                raise InvalidArgumentError(f"cron is {self.cron!r}, which no time in fifty years fits")
        return self

    def after(self, moment: datetime) -> datetime | None:
        """The first scheduled time after the moment; None after the last."""
        return next(self.times(moment), None)

    def times(self, after: datetime) -> Iterator[datetime]:
        """The scheduled times after the moment, one after the other."""
        if self.start_at is not None:
            after = max(after, before(self.start_at.astimezone(UTC)))
        found = (
            self._of_interval(self.every, after) if self.every is not None else self._of_cron(self.cron or "", after)
        )
        found = _until_the_calendar_ends(found)
        if self.end_at is None:
            return found
        end_at = self.end_at
        return takewhile(lambda time: time <= end_at, found)

    def newest(self, count: int, after: datetime, until: datetime) -> list[datetime]:
        """The last `count` scheduled times in the range, oldest first: its begin exclusive, its end inclusive.

        However long the range, only its end is looked at.
        """
        look = max(_FIRST_LOOK, count * (self.every or timedelta(0)))
        while True:
            begin = max(after, until - look) if until - after > look else after
            found = deque(takewhile(lambda time: time <= until, self.times(begin)), count)
            if len(found) == count or begin == after:
                return list(found)
            look *= 2

    def delay(self, name: str, time: datetime) -> timedelta:
        """The jitter of one scheduled time of the schedule: the same whenever it is asked for."""
        if not self.jitter:
            return timedelta(0)
        drawn = int.from_bytes(sha256(f"{name}/{time.isoformat()}".encode()).digest()[:8])
        return timedelta(microseconds=drawn % (self.jitter // _INSTANT + 1))

    def _of_interval(self, every: timedelta, after: datetime) -> Iterator[datetime]:
        time = self.anchor + ((after - self.anchor) // every + 1) * every
        while True:
            yield time
            time += every

    def _of_cron(self, expression: str, after: datetime) -> Iterator[datetime]:
        for found in _parsed(expression, after.astimezone(_zone(self.zone))):
            time = found.astimezone(UTC)
            if time > after:  # in an hour that is there twice, the library begins with the first
                yield time


def before(moment: datetime) -> datetime:
    """The moment before; of the first that there is, itself."""
    return max(moment, _FIRST + _INSTANT) - _INSTANT


def _until_the_calendar_ends(times: Iterator[datetime]) -> Iterator[datetime]:
    try:
        yield from times
    except OverflowError:  # after the year 9999 there is no time
        return


def _parsed(expression: str, local: datetime) -> CronSim:
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise ScheduleError(
            f"the cron expression {expression!r} needs the cron library: pip install 'replayflow[cron]'"
        ) from None
    try:
        return CronSim(expression, local)
    except (CronSimError, ValueError) as error:  # a number with thousands of digits
        raise InvalidArgumentError(f"cron is {expression!r:.80}, which is no cron expression: {error}") from None


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # which is there also where no others are
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a name that is none, a path, a folder
        raise ScheduleError(
            f"the time zone {name!r:.80} is not known here: write it like 'Europe/Berlin'; "
            "where the system has no time zones, pip install 'replayflow[cron]' brings them"
        ) from None
