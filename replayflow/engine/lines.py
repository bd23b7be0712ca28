"""Who runs now and who waits: a line for each kind of executor, and a gate before it for each activity with limits.

1. Nobody begins but with a place in the line; behind a gate nobody takes one before the limits of the activity let it.
2. A gate that could let somebody in and has no place stands in the line like a run, and lets one in at each of its turns.
3. A run of a suspended instance is set aside when its turn comes, and stands in line again when the instance goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from replayflow.core.limiter import Limiter
from replayflow.engine.watch import Watch


class Waiting(Protocol):
    """A run of an activity, as those who keep order see it."""

    instance_id: str
    is_abandoned: bool
    watch: Watch | None


R = TypeVar("R", bound=Waiting)


class Line(Generic[R]):
    """What runs with one kind of executor, and what waits for a place."""

    __slots__ = ("active", "limit", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.active = 0
        self.waiting: deque[R | Gate[R]] = deque()

    def wait(self, run: R) -> None:
        """The run begins when it is its turn."""
        self.waiting.append(run)


class Gate(Line[R]):
    """The way to a line for an activity with limits. It has no places of its own, so that whoever comes has to wait here.

    `sharing` are the gates that draw on the same quota, this one among them. `key_of(run)` is the run's key, `begin(line, run)` what lets it begin,
    `refuse(run, error)` what becomes of one that has no key.
    """

    __slots__ = (
        "_aside",
        "_begin",
        "_is_closed",
        "_is_held",
        "_is_in_line",
        "_key_of",
        "_limiter",
        "_line",
        "_loop",
        "_refuse",
        "_sharing",
        "_timer",
    )

    def __init__(
        self,
        line: Line[R],
        limiter: Limiter[R],
        sharing: deque[Gate[R]],
        key_of: Callable[[R], Hashable],
        begin: Callable[[Line[R], R], None],
        refuse: Callable[[R, BaseException], None],
        is_held: Callable[[str], bool],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(0)
        self._line = line
        self._limiter = limiter
        self._sharing = sharing
        self._key_of = key_of
        self._begin = begin
        self._refuse = refuse
        self._is_held = is_held
        self._loop = loop
        self._is_in_line = False
        self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._aside: dict[str, list[R]] = {}

    def wait(self, run: R) -> None:
        try:
            key = self._key_of(run)
            hash(key)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a function of the user's; whoever starts the run does not expect its end yet
            self._loop.call_soon(self._refuse, run, error)
            return
        if run.watch is None:
            run.watch = Watch()
        run.watch.leave = lambda: self._left(key)
        self._limiter.join(run, key)
        self._serve()

    def turn(self) -> None:
        """It is the gate's turn in the line, which has a place."""
        self._is_in_line = False
        self._let_one_in()
        self._stand_in_line()

    def rejoin(self, instance_id: str) -> None:
        """The instance is suspended no longer."""
        for run in self._aside.pop(instance_id, ()):
            if not run.is_abandoned:
                self.wait(run)

    def close(self) -> None:
        """Nobody is let in any more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _left(self, key: Hashable) -> None:
        self._limiter.leave(key)
        self._serve()

    def _serve(self) -> None:
        """As many begin as may, here and where the same quota is drawn on: one run of each in turn."""
        if self._is_closed:
            return
        sharing = self._sharing
        in_vain = 0
        while in_vain < len(sharing):
            gate = sharing[0]
            sharing.rotate(-1)
            in_vain = 0 if gate._let_one_in() else in_vain + 1
        for gate in sharing:
            gate._stand_in_line()

    def _let_one_in(self) -> bool:
        """Whether somebody could begin, and has."""
        line = self._line
        run = self._limiter.take(self._now(), self._is_wanted) if line.active < line.limit else None
        if run is None:
            return False
        self._begin(line, run)
        return True

    def _stand_in_line(self) -> None:
        limiter = self._limiter
        now = self._now()
        limiter.ring(now)
        if limiter.is_ready and not self._is_in_line:
            self._is_in_line = True
            self._line.waiting.append(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if limiter.next_at is not None:
            self._timer = self._loop.call_later((limiter.next_at - now) / 1e6, self._serve)

    def _is_wanted(self, run: R) -> bool:
        if run.is_abandoned:
            return False
        if self._is_held(run.instance_id):
            self._aside.setdefault(run.instance_id, []).append(run)
            return False
        return True

    def _now(self) -> int:
        return int(self._loop.time() * 1e6)
