"""Who may begin, and when: lines of those who wait for a limited thing, one a key. Pure: times are handed in, in microseconds.

1. Of a key, and of all together where there is a total, never more are under way than `concurrency`; and within no period of the rate, wherever it
   begins, do more begin than its count.
2. Within a key it is first come, first served; keys take turns, also for what is left of a total. A key at its limit stands in nobody's way.
3. Whoever does not want any more is passed over when its turn comes, and takes neither a place nor a part of the rate.
4. An operation costs nothing for those who only wait, however many they are.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Generic, TypeVar

from replayflow.errors import InvalidArgumentError

T = TypeVar("T")
COUNT_MAX = 1_000_000
PERIOD_MAX = timedelta(hours=1)
_LANES_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` within any period of the length `per`, which is an hour at most: `Rate(10)` is ten a second."""

    count: int
    per: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or isinstance(self.count, bool) or not 1 <= self.count <= COUNT_MAX:
            raise InvalidArgumentError(
                f"Rate: count is {self.count!r:.80}; it is a whole number from 1 to {COUNT_MAX:,}: "
                "for less than one a second make `per` longer"
            )
        if not isinstance(self.per, timedelta) or not timedelta(0) < self.per <= PERIOD_MAX:
            raise InvalidArgumentError(
                f"Rate: per is {self.per!r:.80}; it is a timedelta, longer than nothing and at most {PERIOD_MAX}: after a "
                "restart of the worker a rate counts as used up for as long"
            )


class Quota:
    """What all that share it may do together: `concurrency` of them at one time, `rate` of them begin; whichever keys and activities they are of.

    One object given to several activities is one quota; for an activity with keys it is their total: `@app.activity(concurrency=1, key=...,
    quota=api)`.
    """

    __slots__ = ("concurrency", "rate")

    def __init__(self, concurrency: int | None = None, rate: Rate | None = None) -> None:
        check_limits("Quota", concurrency, rate)
        if concurrency is None and rate is None:
            raise InvalidArgumentError("Quota: it limits nothing; give it a concurrency or a rate")
        self.concurrency = concurrency
        self.rate = rate

    def __repr__(self) -> str:
        return f"Quota(concurrency={self.concurrency}, rate={self.rate})"


def check_limits(where: str, concurrency: object, rate: object) -> None:
    """Returns where they are limits, or None.

    Raises:
        InvalidArgumentError: they are not.
    """
    if concurrency is not None and (
        not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1
    ):
        raise InvalidArgumentError(f"{where}: concurrency is {concurrency!r:.80}; it is a whole number, 1 or more")
    if rate is not None and not isinstance(rate, Rate):
        raise InvalidArgumentError(
            f"{where}: rate is {rate!r:.80}; it is a Rate, such as Rate(10) or Rate(100, per=timedelta(minutes=1))"
        )


class Allowance:
    """What is left of limits: how many are under way, and when the last ones began, as many as the rate counts.

    Before the time `opens_at` the rate lets nobody begin.
    """

    __slots__ = ("_begun", "_concurrency", "_opens_at", "_period", "_rate", "active")

    def __init__(self, concurrency: int | None = None, rate: Rate | None = None, opens_at: int | None = None) -> None:
        self._concurrency = concurrency
        self._rate = rate
        self._period = 0 if rate is None else max(1, rate.per // timedelta(microseconds=1))
        self._opens_at = opens_at
        self._begun: deque[int] = deque(maxlen=None if rate is None else rate.count)
        self.active = 0

    @property
    def has_place(self) -> bool:
        return self._concurrency is None or self.active < self._concurrency

    @property
    def opens_at(self) -> int | None:
        """From when on the rate lets one more begin; None where it always does."""
        rate, begun = self._rate, self._begun
        if rate is None:
            return None
        at = begun[0] + self._period if len(begun) == rate.count else None
        if at is None or self._opens_at is None:
            return self._opens_at if at is None else at
        return max(at, self._opens_at)

    def allows(self, now: int) -> bool:
        """Whether one more may begin."""
        at = self.opens_at
        return self.has_place and (at is None or at <= now)

    def begin(self, now: int) -> None:
        """One more is under way."""
        self.active += 1
        if self._rate is not None:
            self._begun.append(now)

    def end(self) -> None:
        """One of those under way has ended."""
        self.active -= 1

    def is_whole(self, now: int) -> bool:
        """Whether it is as if nobody had ever begun."""
        return not self.active and (not self._begun or self._begun[-1] + self._period <= now)


class _Lane(Generic[T]):
    """One key: who waits, and what it is still allowed."""

    __slots__ = ("allowance", "is_ready", "is_timed", "key", "waiting")

    def __init__(self, key: Hashable, allowance: Allowance) -> None:
        self.key = key
        self.allowance = allowance
        self.waiting: deque[T] = deque()
        self.is_ready = False
        self.is_timed = False


class Limiter(Generic[T]):
    """Lines with limits for each key, and with a `total` for all of them, which may be that of other limiters, too."""

    def __init__(
        self,
        concurrency: int | None = None,
        rate: Rate | None = None,
        opens_at: int | None = None,
        total: Allowance | None = None,
    ) -> None:
        self._limits = (concurrency, rate, opens_at)
        self._has_rate = rate is not None
        self._total = total
        self._now = 0
        self._lanes: dict[Hashable, _Lane[T]] = {}
        self._ready: deque[_Lane[T]] = deque()
        """Lanes in which somebody may be able to begin, in turn."""
        self._timed: list[tuple[int, int, _Lane[T]]] = []
        """Lanes that wait for their rate alone, by time."""
        self._numbers = count()
        self._lanes_max = _LANES_KEPT

    def join(self, item: T, key: Hashable = None) -> None:
        """The item stands at the end of its key's line."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key, Allowance(*self._limits))
        lane.waiting.append(item)
        self._wake(lane)

    def take(self, now: int, is_wanted: Callable[[T], bool]) -> T | None:
        """The next one, which is under way from now on; None where nobody may begin. Those that are not wanted have left the line."""
        self.ring(now)
        while self.is_ready:
            lane = self._ready.popleft()
            lane.is_ready = False
            item = self._next(lane, now, is_wanted)
            if item is not None:
                self._wake(lane)
                return item
        return None

    def leave(self, key: Hashable = None) -> None:
        """One of those under way with that key has ended."""
        lane = self._lanes[key]
        lane.allowance.end()
        if self._total is not None:
            self._total.end()
        self._wake(lane)
        self._forget(lane)

    def ring(self, now: int) -> None:
        """It is that time: lanes whose rate has room again are ready."""
        self._now = now
        while self._timed and self._timed[0][0] <= now:
            lane = heapq.heappop(self._timed)[2]
            lane.is_timed = False
            self._wake(lane)
        if len(self._lanes) > self._lanes_max:
            self._sweep(now)

    @property
    def is_ready(self) -> bool:
        """Whether `take` may have somebody, at the time that was last handed in."""
        return bool(self._ready) and (self._total is None or self._total.allows(self._now))

    @property
    def next_at(self) -> int | None:
        """When a rate, and that alone, lets somebody begin again, after the time that was last handed in; None where nobody waits for it."""
        at = self._timed[0][0] if self._timed else None
        total = self._total
        if total is not None and self._ready and total.has_place:
            opens = total.opens_at
            if opens is not None and opens > self._now and (at is None or opens < at):
                return opens
        return at

    @property
    def keys(self) -> int:
        """How many keys are kept in mind."""
        return len(self._lanes)

    def _next(self, lane: _Lane[T], now: int, is_wanted: Callable[[T], bool]) -> T | None:
        waiting, allowance = lane.waiting, lane.allowance
        while waiting and not is_wanted(waiting[0]):
            waiting.popleft()
        if not waiting:
            self._forget(lane)
            return None
        opens = allowance.opens_at
        if opens is not None and opens > now:
            lane.is_timed = True
            heapq.heappush(self._timed, (opens, next(self._numbers), lane))
            return None
        allowance.begin(now)
        if self._total is not None:
            self._total.begin(now)
        return waiting.popleft()

    def _wake(self, lane: _Lane[T]) -> None:
        if lane.waiting and not lane.is_ready and not lane.is_timed and lane.allowance.has_place:
            lane.is_ready = True
            self._ready.append(lane)

    def _forget(self, lane: _Lane[T]) -> None:
        """A lane in which nothing is going on is dropped; one with a rate when there are many, since its past still counts for a while."""
        if not self._has_rate and not lane.waiting and not lane.allowance.active:
            self._lanes.pop(lane.key, None)

    def _sweep(self, now: int) -> None:
        self._lanes = {
            key: lane
            for key, lane in self._lanes.items()
            if lane.waiting or lane.is_timed or not lane.allowance.is_whole(now)
        }
        self._lanes_max = max(_LANES_KEPT, 2 * len(self._lanes))
