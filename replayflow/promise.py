"""What somebody is told once, by whoever knows it some day.

A future of the event loop is made for those who wait. Of a batch hardly anybody does: whoever asks for a thousand ends waits for the first, and all
the others are known by then. A promise makes its future only where somebody waits; without, it costs half of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")


class Promise(Struct, Generic[T], eq=False):
    """Kept once, with a value or an error; what comes after that is nobody's. One may await it at a time, and give up; kept it is all the same."""

    is_kept: bool = False
    _value: Any = None
    _error: BaseException | None = None
    _trace: TracebackType | None = None
    _future: asyncio.Future[None] | None = None

    def keep(self, value: T) -> None:
        """That is what was promised."""
        if not self.is_kept:
            self._value = value
            self.is_kept = True
            if self._future is not None:
                self._wake(self._future)

    def fail(self, error: BaseException) -> None:
        """What was promised will never be; whoever asks is told why."""
        if not self.is_kept:
            self._error, self._trace = error, error.__traceback__
            self.is_kept = True
            if self._future is not None:
                self._wake(self._future)

    def result(self) -> T:
        """What was promised, of one that is kept.

        Raises:
            BaseException: the error that it failed with.
        """
        if self._error is not None:
            raise self._error.with_traceback(self._trace)  # and not that of all who were told before
        value: T = self._value
        return value

    def __await__(self) -> Generator[Any, None, T]:
        if not self.is_kept:
            self._future = asyncio.get_running_loop().create_future()
            yield from self._future
        return self.result()

    @staticmethod
    def _wake(future: asyncio.Future[None]) -> None:
        if not future.done():  # whoever waited may be gone
            future.set_result(None)
