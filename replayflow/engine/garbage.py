"""The garbage collector while a worker runs: it looks less often.

An engine makes many small objects that live for a while and few cycles. With the interpreter's defaults, made for small programs, the collector walks
all of them again and again, which took two fifths of the time of a busy worker. Whoever has chosen thresholds of their own keeps them.
"""

from __future__ import annotations

import gc
import threading

_DEFAULTS = ((700, 10, 10), (2000, 10, 10), (2000, 10, 0), (700, 10, 0))
_WHILE_WORKING = (100_000, 20, 100)
_lock = threading.Lock()
_workers = 0
_before: tuple[int, int, int] | None = None


def work_begins() -> None:
    """One more worker is running in this process."""
    global _workers, _before
    with _lock:
        _workers += 1
        if _workers == 1 and gc.get_threshold() in _DEFAULTS:
            _before = gc.get_threshold()
            gc.set_threshold(*_WHILE_WORKING)


def work_ends() -> None:
    """One worker fewer; after the last the collector is as it was before the first."""
    global _workers, _before
    with _lock:
        _workers -= 1
        if _workers == 0 and _before is not None:
            gc.set_threshold(*_before)
            _before = None
