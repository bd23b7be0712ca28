"""Which generators stay in memory: those that something happened to last, up to a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

from replayflow.engine.live import Live

_LOOKED_AT_MAX = 16


class Warm:
    """Calls `cool(live)` for the one that nothing has happened to for longest, where there are too many."""

    def __init__(self, limit: int, cool: Callable[[Live], None]) -> None:
        self._limit = limit
        self._orderly = limit // 2  # with fewer there is no hurry to know who is the oldest
        self._cool = cool
        self.is_crowded = False
        """Whether there are so many that it matters who was touched last; before, who is known need not be touched again."""
        self._lives: dict[str, Live] = {}  # an ordered one, which takes twice the memory, once there are many

    def touch(self, live: Live) -> None:
        """Something happens to the instance."""
        lives = self._lives
        lives[live.id] = live
        if len(lives) > self._orderly:
            if not isinstance(lives, OrderedDict):
                lives = self._lives = OrderedDict(lives)
                self.is_crowded = True
            lives.move_to_end(live.id)
            if len(lives) > self._limit:
                self._make_room(lives, live)

    def drop(self, live: Live) -> None:
        """The instance's generator is gone."""
        if self._lives.get(live.id) is live:
            del self._lives[live.id]

    def _make_room(self, lives: OrderedDict[str, Live], touched: Live) -> None:
        # What is at work cannot go; it moves to the young end, so that a crowd of such is not looked at again and again.
        for live in list(islice(lives.values(), _LOOKED_AT_MAX)):
            if live is touched:
                return  # the youngest stays, or it would be read again at once
            if live.is_busy or live.is_queued or live.is_loading:
                lives.move_to_end(live.id)
                continue
            del lives[live.id]
            self._cool(live)
            if len(lives) <= self._limit:
                return
