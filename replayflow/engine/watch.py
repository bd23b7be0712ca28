"""What goes with some runs and not with most: a heart that is heard, time limits, a place behind a gate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from replayflow.engine.heartbeats import Pulse


class Watch:
    """Of one run: what has to be seen to when it ends."""

    __slots__ = ("leave", "pulse", "silence", "timeout")

    def __init__(self) -> None:
        self.pulse: Pulse[Any] | None = None
        self.timeout: asyncio.TimerHandle | None = None
        self.silence: asyncio.TimerHandle | None = None
        """Looks whether the heart still beats."""
        self.leave: Callable[[], None] | None = None
        """Gives back the place within the limits of the activity."""
