"""An orchestrator that does not come to an end of its step stops all others. Somebody has to say so.

Episodes run in the event loop: while one runs, nothing else does, and so nothing else could tell. A thread looks now and then at what is under way;
an episode that it meets again is named, with the line that it is at, once.
"""

from __future__ import annotations

import logging
import sys
import threading

from replayflow.core.sites import site_of

LOOK_SECONDS = 1.0
_logger = logging.getLogger("replayflow")


class Watchdog:
    """Watches the thread that makes it; `step` and `instance_id` are set by whoever runs episodes there."""

    def __init__(self, look_seconds: float = LOOK_SECONDS) -> None:
        self.step = 0
        """Counts episodes, so that two of one instance are told apart."""
        self.instance_id: str | None = None
        """Whose episode is under way; None between episodes."""
        self._look_seconds = look_seconds
        self._watched = threading.get_ident()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="replayflow watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """It looks no more, and its thread has ended."""
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        seen = told = -1
        while not self._is_over.wait(self._look_seconds):
            step, instance_id = self.step, self.instance_id
            if instance_id is not None and step == seen and step != told:
                told = step
                _logger.warning(
                    "instance '%s' has kept the worker for more than %g s, at %s: an orchestrator must not block or loop without yielding, "
                    "an operation of an entity must be short; nothing else runs meanwhile",
                    instance_id,
                    self._look_seconds,
                    self._where(),
                )
            seen = step

    def _where(self) -> str:
        frame = sys._current_frames().get(self._watched)
        return "a line unknown" if frame is None else site_of(frame)
