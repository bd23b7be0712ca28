"""The interpreter while a worker runs: the garbage collector looks less often, and threads take turns sooner.

An engine makes many small objects that live for a while and few cycles. With the interpreter's defaults, made for small programs, the collector
walks all of them again and again, which took two fifths of the time of a busy worker. And a thread that wants the interpreter's lock waits five
milliseconds for it, by default, while another computes: the writer would, at every statement, beside a busy event loop, and the event loop
beside a busy activity. Whoever has chosen settings of their own keeps them.
"""

from __future__ import annotations

import gc
import sys
import threading

_DEFAULT_THRESHOLDS = ((700, 10, 10), (2000, 10, 10), (2000, 10, 0), (700, 10, 0))
_WHILE_WORKING = (100_000, 20, 100)
_DEFAULT_TURN_SECONDS = 0.005
_TURN_SECONDS = 0.0005


class _Settings:
    """What is set for the process, and for how many workers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers = 0
        self._thresholds: tuple[int, int, int] | None = None
        self._turn_seconds: float | None = None

    def work_begins(self) -> None:
        with self._lock:
            self._workers += 1
            if self._workers > 1:
                return
            if gc.get_threshold() in _DEFAULT_THRESHOLDS:
                self._thresholds = gc.get_threshold()
                gc.set_threshold(*_WHILE_WORKING)
            if abs(sys.getswitchinterval() - _DEFAULT_TURN_SECONDS) < 1e-6:
                self._turn_seconds = sys.getswitchinterval()
                sys.setswitchinterval(_TURN_SECONDS)

    def work_ends(self) -> None:
        with self._lock:
            self._workers -= 1
            if self._workers:
                return
            if self._thresholds is not None:
                gc.set_threshold(*self._thresholds)
                self._thresholds = None
            if self._turn_seconds is not None:
                sys.setswitchinterval(self._turn_seconds)
                self._turn_seconds = None


_settings = _Settings()


def work_begins() -> None:
    """One more worker is running in this process."""
    _settings.work_begins()


def work_ends() -> None:
    """One worker fewer; after the last the interpreter is set as it was before the first."""
    _settings.work_ends()
