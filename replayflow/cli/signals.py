"""Ctrl-C and SIGTERM: the first lets a command end in good order, the second ends the process at once.

The handlers are those of the `signal` module and not of the event loop: they run on every platform, and also while the user's code keeps the
loop busy. To end at once is safe at any line: what was committed stands, the rest is done again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from replayflow.cli.failures import Interrupted

T = TypeVar("T")
INTERRUPTED = 130
_ONE_REQUEST_SECONDS = (
    0.5  # a terminal signals the whole group, and a wrapper such as timeout(1) passes its own on: that is one request
)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_until_signal(work: Coroutine[Any, Any, T], stopping: Callable[[], None]) -> T:
    """What the work returns. At the first signal `stopping` is called and the work cancelled; it may take its time to end.

    Raises:
        Interrupted: a signal came, and the work has ended.
    """

    async def main() -> T:
        task = asyncio.ensure_future(work)
        with _handled(task, stopping):
            try:
                return await task
            except asyncio.CancelledError:
                raise Interrupted("interrupted") from None

    try:
        return asyncio.run(main())
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None


@contextmanager
def _handled(task: asyncio.Future[Any], stopping: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can have handlers; whoever runs us elsewhere ends us in another way
        return
    loop = asyncio.get_running_loop()
    first_at: list[float] = []

    def stop() -> None:
        stopping()
        task.cancel()

    def handle(_number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not first_at:
            first_at.append(now)
            loop.call_soon_threadsafe(stop)
        elif now - first_at[0] > _ONE_REQUEST_SECONDS:
            _end_at_once()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_at_once() -> None:
    try:
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"\nended at once\n")
    finally:
        os._exit(INTERRUPTED)
