"""Trying again where that can help: a store that is busy, full or out of reach for a while must not end the worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from replayflow.errors import ReplayflowError, StoreBusyError, StoreFullError, StoreReadOnlyError, StoreUnavailableError

T = TypeVar("T")
PASSING = (StoreBusyError, StoreFullError, StoreReadOnlyError, StoreUnavailableError)
"""What may be over in a while. All other errors of a store are there to stay."""
_FIRST_SECONDS, _LAST_SECONDS = 0.05, 5.0
_logger = logging.getLogger("replayflow")


class Backoff:
    """When to try a store again that refuses: later each time, at once after a success. Each kind of refusal is reported once until then.

    Refusals within one pause are one: many that come together do not make the next pause any longer.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._until = 0.0
        self._reported: set[type[ReplayflowError]] = set()

    def failed(self, error: ReplayflowError) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            self.seconds = min(max(self.seconds * 2, _FIRST_SECONDS), _LAST_SECONDS)
            self._until = now + self.seconds
        if type(error) not in self._reported:
            self._reported.add(type(error))
            _logger.error("the store refuses, and is tried again until it does not: %s", error)

    def succeeded(self) -> None:
        if self.seconds:
            self.seconds = self._until = 0.0
            self._reported.clear()
            _logger.warning("the store works again")


async def until_it_answers(attempt: Callable[[], Awaitable[T]]) -> T:
    """What the attempt comes to, however often it has to be made.

    Raises:
        StoreError: one that does not pass.
    """
    backoff = Backoff()
    while True:
        try:
            result = await attempt()
        except PASSING as error:
            backoff.failed(error)
            await asyncio.sleep(backoff.seconds)
        else:
            backoff.succeeded()
            return result
