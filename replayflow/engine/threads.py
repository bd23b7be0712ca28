"""Threads for plain functions. They are daemons: an activity that hangs does not keep the process from ending, as the standard pool's would.

Each piece of work has a context of its own: what it sets in a `ContextVar` does not reach the next one in its thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue


class ThreadPool:
    """As many threads as there was ever work for at one time; whoever submits keeps that within bounds."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = 0
        self._idle = 0
        self._lock = threading.Lock()
        self._context = copy_context()

    def submit(self, work: Callable[[], None]) -> None:
        """The work runs in one of the threads; it has to report by itself, and must not raise.

        Where the system gives us no more threads it waits for one of those that there are.

        Raises:
            RuntimeError: there is none.
        """
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            else:
                self._add_thread()
        self._work.put(work)

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._run, name=f"replayflow activity {self._threads + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
            self._idle -= 1  # the one that comes to this work is not idle when it has done what it is at
        else:
            self._threads += 1

    def close(self) -> None:
        """The threads end when they have done what they are at."""
        for _ in range(self._threads):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            self._context.copy().run(work)
            with self._lock:
                self._idle += 1
