"""Time: what has to happen when. One heap, one wake-up of the event loop, and a bound on what is kept of those who sleep.

Instances in memory have their timers and retries here. Of those that sleep in the store only the next few thousand are known; `horizon` is
the time up to which that knowledge is complete, and when it comes near the store is asked for more. So a million sleepers cost no memory.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from functools import partial

from replayflow.clock import Clock
from replayflow.core.instance import Alarm
from replayflow.engine.patience import until_it_answers
from replayflow.store.base import Wake

SLEEPERS_KNOWN_MAX = 4_000
# The wall clock may be set while the loop's clock runs on: an alarm is late by this much at the most.
LOOK_SECONDS_MAX = 10.0


class Alarms:
    """Calls `ring(instance_id, alarm)` for an instance in memory, `wake(instance_id)` for one that sleeps."""

    def __init__(
        self,
        clock: Clock,
        ring: Callable[[str, Alarm], None],
        wake: Callable[[str], None],
        read: Callable[[tuple[int, int] | None, int], Awaitable[list[Wake]]],
    ) -> None:
        self._clock = clock
        self._ring = ring
        self._wake = wake
        self._read = read
        self._heap: list[tuple[int, str, Alarm]] = []
        self._sleepers: list[tuple[int, str]] = []
        self._horizon: int | None = None
        self._changed = asyncio.Event()

    def set(self, instance_id: str, alarm: Alarm) -> None:
        """The alarm of an instance in memory is set."""
        heapq.heappush(self._heap, (alarm.at, instance_id, alarm))
        if self._heap[0][2] is alarm:
            self._changed.set()

    def sleep(self, instance_id: str, at: int) -> None:
        """An instance that leaves the memory wants to be looked at then."""
        if self._horizon is not None and at > self._horizon:
            return  # the store will be asked when that time comes near
        heapq.heappush(self._sleepers, (at, instance_id))
        if len(self._sleepers) > 2 * SLEEPERS_KNOWN_MAX:
            self._sleepers = heapq.nsmallest(SLEEPERS_KNOWN_MAX, self._sleepers)
            self._horizon = self._sleepers[-1][0]
        if self._sleepers[0] == (at, instance_id):
            self._changed.set()

    @property
    def next_at(self) -> int | None:
        """When the next of all that is known rings, in microseconds; None where nothing is."""
        return min((line[0][0] for line in (self._heap, self._sleepers) if line), default=None)

    def look(self) -> None:
        """The clock has been set."""
        self._changed.set()

    async def run(self) -> None:
        """Rings for ever."""
        await self._read_on(None)
        while True:
            self._changed.clear()
            now = self._clock.now()
            self._ring_due(now)
            if self._horizon is not None and (not self._sleepers or self._horizon <= now):
                await self._read_on((self._horizon, -1))
                continue
            delay = self._delay(now)
            try:
                async with asyncio.timeout(delay):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _ring_due(self, now: int) -> None:
        while self._heap and self._heap[0][0] <= now:
            _, instance_id, alarm = heapq.heappop(self._heap)
            self._ring(instance_id, alarm)
        while self._sleepers and self._sleepers[0][0] <= now:
            self._wake(heapq.heappop(self._sleepers)[1])

    def _delay(self, now: int) -> float | None:
        next_at = self.next_at
        return None if next_at is None else min(max(next_at - now, 0) / 1e6, LOOK_SECONDS_MAX)

    async def _read_on(self, after: tuple[int, int] | None) -> None:
        """The next sleepers are known. Those that are due already are woken page by page, so that no more than a page is held."""
        while True:
            wakes = await until_it_answers(partial(self._read, after, SLEEPERS_KNOWN_MAX))
            now = self._clock.now()
            for wake in wakes:
                if wake.at <= now:
                    self._wake(wake.instance_id)
                else:
                    heapq.heappush(self._sleepers, (wake.at, wake.instance_id))
            if len(wakes) < SLEEPERS_KNOWN_MAX:
                self._horizon = None
                return
            after = wakes[-1].position
            self._horizon = wakes[-1].at
            if self._horizon > now:
                return
