"""The interpreter while a worker runs: the garbage collector looks less often, and threads take turns sooner.

An engine makes many small objects that live for a while and few cycles. With the interpreter's defaults, made for small programs, the collector
walks all of them again and again, which took two fifths of the time of a busy worker. And a thread that wants the interpreter's lock waits five
milliseconds for it, by default, while another computes: the writer would, at every statement, beside a busy event loop, and the event loop
beside a busy activity. Whoever has chosen settings of their own keeps them.

While the store writes or reads (`STORE_AT_WORK`) they take turns sooner still. Its thread gives the lock away at every statement and wants it back a
moment later; where the event loop kept it for half a millisecond each time, the disk waited for the loop, and then the loop for the disk. Not at
other times: threads that only compute lose a sixth of their time to such turns.
"""

from __future__ import annotations

import gc
import sys
import threading
from types import TracebackType

_DEFAULT_THRESHOLDS = ((700, 10, 10), (2000, 10, 10), (2000, 10, 0), (700, 10, 0))
_WHILE_WORKING = (100_000, 20, 100)
_DEFAULT_TURN_SECONDS = 0.005
_TURN_SECONDS = 0.0005
_TURN_SECONDS_OF_STORE = 0.00005
_ALIKE_SECONDS = 1e-6


class _Settings:
    """What is set for the process, and for how many workers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers = 0
        self._thresholds: tuple[int, int, int] | None = None
        self._turn_seconds: float | None = None
        self._at_work = 0

    def work_begins(self) -> None:
        with self._lock:
            self._workers += 1
            if self._workers > 1:
                return
            if gc.get_threshold() in _DEFAULT_THRESHOLDS:
                self._thresholds = gc.get_threshold()
                gc.set_threshold(*_WHILE_WORKING)
            if abs(sys.getswitchinterval() - _DEFAULT_TURN_SECONDS) < _ALIKE_SECONDS:
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

    def store_begins(self) -> None:
        with self._lock:
            self._at_work += 1
            if self._at_work == 1 and self._turn_seconds is not None:
                _change_turns(_TURN_SECONDS, _TURN_SECONDS_OF_STORE)

    def store_ends(self) -> None:
        with self._lock:
            self._at_work -= 1
            if self._at_work == 0 and self._turn_seconds is not None:
                _change_turns(_TURN_SECONDS_OF_STORE, _TURN_SECONDS)


def _change_turns(present: float, seconds: float) -> None:
    """The turns are so long, unless somebody has changed them since they were ours."""
    if abs(sys.getswitchinterval() - present) < _ALIKE_SECONDS:
        sys.setswitchinterval(seconds)


_settings = _Settings()


class _StoreAtWork:
    def __enter__(self) -> None:
        _settings.store_begins()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _settings.store_ends()


STORE_AT_WORK = _StoreAtWork()
"""`with STORE_AT_WORK:` around what is asked of the store, by as many at a time as like."""


def work_begins() -> None:
    """One more worker is running in this process."""
    _settings.work_begins()


def work_ends() -> None:
    """One worker fewer; after the last the interpreter is set as it was before the first."""
    _settings.work_ends()
