"""Group commit: whatever has come together while the last transaction was on its way goes into the next one.

Nobody waits for a group to fill: an idle engine commits at once, a busy one commits more at a time. Where many operations come together before the
event loop gets round to it, groups are handed over as they fill, and the store writes them in that order, one after the other. Of one instance
at most one commit is under way, so that no group rests on one that may fail; a creation and its first commit may stand in two, and where the first
fails the second is refused. When a group fails nothing of it has happened, and each of its members is told so; a store that may recover (a full
disk) is tried again with growing pauses, by those that come again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from replayflow.errors import ReplayflowError, StoreError
from replayflow.store.base import Operation, Outcome, Store

Settle: TypeAlias = Callable[[Outcome | None, ReplayflowError | None], None]
"""Told what became of an operation: its outcome, or the error with which the whole group failed."""
Turned: TypeAlias = Callable[[Any, Outcome | None, ReplayflowError | None], None]
"""The same for operations that have nobody of their own to tell: which one it was comes first."""

OPERATIONS_PER_GROUP_MAX = 1000
OPERATIONS_AT_ONCE = 250
"""So many are not kept waiting for those before them: the store writes while the event loop goes on with what makes them."""
GROUPS_UNDER_WAY_MAX = 8


@dataclass(slots=True)
class _Group:
    operations: Sequence[Operation]
    settles: Sequence[Settle | None]
    written: Awaitable[list[Outcome]] | None


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
        self._is_failing = False
        self._is_idle = True
        self._under_way: deque[_Group] = deque()
        self._operations: list[Operation] = []
        self._settles: list[Settle | None] = []
        self._ready = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    def tell_of_turns(self, turned: Turned) -> None:
        """`turned` is called for what is added without somebody of its own to tell."""
        self._turned = turned

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
        if len(self._operations) >= OPERATIONS_AT_ONCE and len(self._under_way) < GROUPS_UNDER_WAY_MAX:
            self._begin()

    async def drain(self) -> None:
        """Everything that was added, and what followed from it, has been written."""
        await self._drained.wait()

    def abandon(self, error: ReplayflowError) -> None:
        """Nothing is written any more; whoever still waits for an operation is told the error. Of the last group nobody knows what became."""
        groups = [*self._under_way, _Group(self._operations, self._settles, None)]
        self._operations, self._settles = [], []
        self._under_way.clear()
        for group in groups:
            _give_up(group.written)
        for group in groups:
            self._tell_all(group, error)

    async def run(self) -> None:
        """Writes for ever."""
        while True:
            await self._ready.wait()
            if not self._under_way:
                self._begin()
            await self._finish(self._under_way[0])
            self._under_way.popleft()
            if not self._operations and not self._under_way:
                self._is_idle = True
                self._ready.clear()
                self._drained.set()

    def _begin(self) -> None:
        """What has come together is on its way to the store."""
        if len(self._operations) <= OPERATIONS_PER_GROUP_MAX:
            operations, settles = self._operations, self._settles
            self._operations, self._settles = [], []
        else:
            # A creation and its first commit stand side by side; a group that ends between them is still in order.
            operations, settles = self._operations[:OPERATIONS_PER_GROUP_MAX], self._settles[:OPERATIONS_PER_GROUP_MAX]
            del self._operations[:OPERATIONS_PER_GROUP_MAX], self._settles[:OPERATIONS_PER_GROUP_MAX]
        written: Awaitable[list[Outcome]]
        try:
            written = self._store.write(operations, self._epoch)
        except Exception as error:  # a store that is closed by now
            refused: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            written = refused
        self._under_way.append(_Group(operations, settles, written))

    async def _finish(self, group: _Group) -> None:
        """The group is written, or has failed, and whoever waits for one of its operations has been told."""
        assert group.written is not None  # noqa: S101 - it is on its way
        try:
            outcomes = await group.written
        except ReplayflowError as error:
            self._fail(error, group)
        except Exception as error:
            wrapped = StoreError(f"{self._store.url}: {type(error).__name__}: {error}")
            wrapped.__cause__ = error
            self._fail(wrapped, group)
        else:
            if self._is_failing:
                self._is_failing = False
                self._recovered()
            turned = self._turned
            for operation, settle, outcome in zip(group.operations, group.settles, outcomes, strict=True):
                if settle is None:
                    turned(operation, outcome, None)
                else:
                    settle(outcome, None)

    def _fail(self, error: ReplayflowError, group: _Group) -> None:
        self._is_failing = True
        self._failed(error)
        self._tell_all(group, error)

    def _tell_all(self, group: _Group, error: ReplayflowError) -> None:
        for operation, settle in zip(group.operations, group.settles, strict=True):
            if settle is None:
                self._turned(operation, None, error)
            else:
                settle(None, error)


def _give_up(written: Awaitable[list[Outcome]] | None) -> None:
    """Nobody waits for the write any more: what has begun goes on, what has not never does, and no error of it is missed."""
    if isinstance(written, Coroutine):
        written.close()
    elif isinstance(written, asyncio.Future) and not written.cancel() and not written.cancelled():
        written.exception()


def _nobody(*_: object) -> None:
    raise AssertionError("an operation was added that nobody wants to be told of")
