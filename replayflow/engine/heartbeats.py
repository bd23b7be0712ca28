"""Heartbeats: what activities tell while they run, on its way to the histories. Prose: `docs/decisions/0014-activities.md`.

1. Beating is thread-safe and cheap: an encoding, and a note. What has come of it is written when the pause after the last writing is over.
2. Where an attempt fails, the last detail that it told goes before the failure, so that both are in one commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from replayflow.codec import Codec, Payload

PAUSE_SECONDS = 1.0
PAUSE_SECONDS_MAX = 10.0
_SHARE = 100
"""Of the time that an attempt has run, one in so many parts is what a killed worker may lose."""


class Beating(Protocol):
    """A run of an activity: `told` is what the attempts before it told last."""

    is_abandoned: bool
    told: Payload

    @property
    def name(self) -> str: ...


R = TypeVar("R", bound=Beating)
Told: TypeAlias = Callable[[R, Payload, bool], bool]
"""`told(run, detail, is_last)`: the detail has to be written; false where that has to wait, which the last one does not."""


class Pulse(Generic[R]):
    """The heart of one run, as the engine hears it: what a context beats upon."""

    __slots__ = (
        "_began",
        "_codec",
        "_is_asked",
        "_is_over",
        "_loop",
        "_may_write_at",
        "_run",
        "_timer",
        "_told",
        "_written",
        "beaten_at",
        "detail",
        "is_heard",
    )

    def __init__(self, run: R, codec: Codec, loop: asyncio.AbstractEventLoop, told: Told[R]) -> None:
        self._run = run
        self._codec = codec
        self._loop = loop
        self._told = told
        self._began = self.beaten_at = loop.time()
        self._may_write_at = 0.0
        self._is_asked = False
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None
        self._written: Payload = None
        self.detail: Payload = None
        self.is_heard = False
        """Whether anything has come of it, where it beats in another process."""

    # ---- the activity's side, in any thread

    def beat(self, detail: object) -> None:
        """The activity is alive and, with a detail, so far.

        Raises:
            EncodeError: the detail cannot travel as a payload.
        """
        payload = None
        if detail is not None:
            payload = self._codec.encode(detail, f"heartbeat of activity '{self._run.name}'")
        self.take(payload)

    def take(self, payload: Payload) -> None:
        """`beat`, for a detail that is encoded."""
        self.beaten_at = self._loop.time()
        if payload is None:
            return
        self.detail = payload
        if not self._is_asked:
            self._is_asked = True
            try:
                self._loop.call_soon_threadsafe(self._write)
            except RuntimeError:
                pass  # the event loop is gone, and with it whoever would have written

    def last(self) -> Any:
        """What the attempts before this one told last; None where they told nothing."""
        return self._codec.decode(self._run.told, Any, f"last heartbeat of activity '{self._run.name}'")

    # ---- the engine's side, in the event loop

    def flush(self) -> None:
        """The attempt has failed, or is given up: its last detail is on its way."""
        if self.detail is not self._written:
            self._written = self.detail
            self._told(self._run, self.detail, True)

    def close(self) -> None:
        """Nothing is written any more."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def _write(self) -> None:
        if self._is_over or self._run.is_abandoned:
            return
        now = self._loop.time()
        pause = self._may_write_at - now
        if pause > 0:
            self._timer = self._loop.call_later(pause, self._write)
            return
        self._is_asked = False  # before the detail is read: one that comes from now on is asked for again
        detail = self.detail
        self._may_write_at = now + min(max(PAUSE_SECONDS, (now - self._began) / _SHARE), PAUSE_SECONDS_MAX)
        if detail is self._written:
            return
        if self._told(self._run, detail, False):
            self._written = detail
        else:
            self._is_asked = True
            self._write()
