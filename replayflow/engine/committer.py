"""Group commit: whatever has come together while the last transaction was on its way goes into the next one.

An idle engine commits at once, a busy one commits more at a time: a group waits for what the engine has at hand, and for nothing that anybody else
waits for. Handed over early it would be small, and two threads would want the interpreter's lock. When a group fails nothing of it has
happened, and each of its members is told so; a store that may recover (a full disk) is tried again with growing pauses, by those that come
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from replayflow.engine.tuning import STORE_AT_WORK
from replayflow.errors import ReplayflowError, StoreError, starved
from replayflow.store.base import Operation, Outcome, Store

Settle: TypeAlias = Callable[[Outcome | None, ReplayflowError | None], None]
"""Told what became of an operation: its outcome, or the error with which the whole group failed."""
Turned: TypeAlias = Callable[[Any, Outcome | None, ReplayflowError | None], None]
"""The same for operations that have nobody of their own to tell: which one it was comes first."""

OPERATIONS_PER_GROUP_MAX = 1000


class Committer:
    """Calls `failed(error)` for each group that fails, and `recovered()` for the first that does not after such."""

    def __init__(
        self, store: Store, epoch: int, failed: Callable[[ReplayflowError], None], recovered: Callable[[], None]
    ) -> None:
        self._store = store
        self._epoch = epoch
        self._failed = failed
        self._recovered = recovered
        self._turned: Turned = _nobody
        self._patience: Callable[[], float] = lambda: 0.0
        self._loop = asyncio.get_running_loop()
        self.next_group = 0
        """The number of the group that whatever is added now will be a part of, or of a later one."""
        self._is_failing = False
        self._is_idle = True
        self._under_way: tuple[Sequence[Operation], Sequence[Settle | None]] = ((), ())
        self._operations: list[Operation] = []
        self._settles: list[Settle | None] = []
        self._ready = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    def tell_of_turns(self, turned: Turned) -> None:
        """`turned` is called for what is added without somebody of its own to tell."""
        self._turned = turned

    def gather(self, patience: Callable[[], float]) -> None:
        """`patience` says how many seconds a group may wait for the operations that are about to come; 0 where none are."""
        self._patience = patience

    def add(self, operation: Operation, settle: Settle | None) -> None:
        """The operation is part of the next group; `settle` is called in the event loop, in the order of the operations.

        A `Turn` has none of its own: of those there are the most, and the one that was given for all of them is told.
        """
        self._operations.append(operation)
        self._settles.append(settle)
        if self._is_idle:
            self._is_idle = False
            self._ready.set()
            self._drained.clear()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be written, or is on its way."""
        return self._is_idle

    async def drain(self) -> None:
        """Everything that was added, and what followed from it, has been written."""
        await self._drained.wait()

    def abandon(self, error: ReplayflowError) -> None:
        """Nothing is written any more; whoever still waits for an operation is told the error. Of the last group nobody knows what became."""
        operations, settles = self._under_way
        operations, settles = [*operations, *self._operations], [*settles, *self._settles]
        self._operations, self._settles, self._under_way = [], [], ((), ())
        self._tell_all(operations, settles, error)

    async def run(self) -> None:
        """Writes for ever."""
        while True:
            await self._ready.wait()
            await self._gather()
            self._under_way = self._take()
            await self._write(*self._under_way)
            self._under_way = ((), ())
            if not self._operations:
                self._is_idle = True
                self._ready.clear()
                self._drained.set()

    async def _gather(self) -> None:
        """The group is full, or nothing more is about to come, or it has waited for long enough."""
        began = None
        while len(self._operations) < OPERATIONS_PER_GROUP_MAX and (patience := self._patience()):
            now = self._loop.time()
            began = began or now
            if now - began > patience:
                return
            await asyncio.sleep(0)

    def _take(self) -> tuple[Sequence[Operation], Sequence[Settle | None]]:
        self.next_group += 1
        if len(self._operations) <= OPERATIONS_PER_GROUP_MAX:
            taken = self._operations, self._settles
            self._operations, self._settles = [], []
            return taken
        # A creation and its first commit stand side by side; a group that ends between them is still in order.
        taken = self._operations[:OPERATIONS_PER_GROUP_MAX], self._settles[:OPERATIONS_PER_GROUP_MAX]
        del self._operations[:OPERATIONS_PER_GROUP_MAX], self._settles[:OPERATIONS_PER_GROUP_MAX]
        return taken

    async def _write(self, operations: Sequence[Operation], settles: Sequence[Settle | None]) -> None:
        try:
            with STORE_AT_WORK:
                outcomes = await self._store.write(operations, self._epoch)
        except ReplayflowError as error:
            self._fail(error, operations, settles)
        except Exception as error:
            wrapped = starved(error) or StoreError(f"{self._store.url}: {type(error).__name__}: {error}")
            wrapped.__cause__ = error
            self._fail(wrapped, operations, settles)
        else:
            if self._is_failing:
                self._is_failing = False
                self._recovered()
            turned = self._turned
            for operation, settle, outcome in zip(operations, settles, outcomes, strict=True):
                if settle is None:
                    turned(operation, outcome, None)
                else:
                    settle(outcome, None)

    def _fail(self, error: ReplayflowError, operations: Sequence[Operation], settles: Sequence[Settle | None]) -> None:
        self._is_failing = True
        self._failed(error)
        self._tell_all(operations, settles, error)

    def _tell_all(
        self, operations: Sequence[Operation], settles: Sequence[Settle | None], error: ReplayflowError
    ) -> None:
        for operation, settle in zip(operations, settles, strict=True):
            if settle is None:
                self._turned(operation, None, error)
            else:
                settle(None, error)


def _nobody(*_: object) -> None:
    raise AssertionError("an operation was added that nobody wants to be told of")
