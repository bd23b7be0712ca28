"""Writing many operations at once for many who each want one.

A thousand requests of one client cost a thousand transactions, and a transaction waits for the disk. Here those who ask while a transaction is
under way share the next one, as the worker's own commits do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from replayflow.promise import Promise
from replayflow.store import Store
from replayflow.store.base import Operation, Outcome

TOGETHER_MAX = 500


class Grouping:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Operation, Promise[Outcome]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def submit(self, operation: Operation) -> Outcome:
        """The operation is durable, or refused with the outcome's error.

        Raises:
            StoreError: the group failed; nothing of it was written.
        """
        return await self.hand_in(operation)  # what is in a group is written, also where nobody waits for it any more

    def hand_in(self, operation: Operation) -> Promise[Outcome]:
        """What `submit` comes to, as a promise, for many at once."""
        promise: Promise[Outcome] = Promise()
        self._waiting.append((operation, promise))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_on())
        return promise

    async def _write_on(self) -> None:
        try:
            while self._waiting:
                group = self._waiting[:TOGETHER_MAX]
                del self._waiting[:TOGETHER_MAX]
                await self._write(group)
        finally:
            self._writer = None

    async def _write(self, group: Sequence[tuple[Operation, Promise[Outcome]]]) -> None:
        try:
            outcomes = await self._store.write([operation for operation, _ in group])
        except BaseException as error:
            for _, promise in group:
                promise.fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, promise), outcome in zip(group, outcomes, strict=True):
                promise.keep(outcome)
