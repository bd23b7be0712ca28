"""Tasks that run async activities one after the other.

A task of its own for each activity costs more than most activities do. A runner takes activities from the line until one of them really waits
for something; at that moment the next runner is called to go on with the line, and the first belongs to its activity until that ends. So an
activity that never waits costs a call, one that waits costs a task, and both run in a real task: `asyncio.current_task()`, time
limits, task groups and cancellation work as anywhere. Each activity has a context of its own, a copy of the one in which
the runners were made: what it, or a client, sets in a `ContextVar` does not reach the next.

What a runner does with its activities is a lane: a generator that is sent one after the other. A coroutine for each would have to be made, and would
say by an exception that it has ended; a lane only goes on.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from enum import Enum
from typing import Any, Final, Generic, TypeAlias, TypeVar

T = TypeVar("T")
_IN_A_ROW_MAX = 100  # then the rest of the event loop gets its turn


class _Done(Enum):
    DONE = "done"


DONE: Final = _Done.DONE
Lane: TypeAlias = Generator[Any, T, None]
"""Yields `DONE`, is sent an item, yields what that waits for, as a coroutine does, and then `DONE` again. What it raises ends its runner."""


class Runners(Generic[T]):
    """Sends each item that is put in line down a lane, as many at a time as are put; `waits(item, task)` says in which task it waits."""

    def __init__(self, new_lane: Callable[[], Lane[T]], waits: Callable[[T, asyncio.Task[None]], None]) -> None:
        self._new_lane = new_lane
        self._waits = waits
        self._line: deque[T] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._is_called = False
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()

    def put(self, item: T) -> None:
        """The item is in line; a runner comes for it."""
        self._line.append(item)
        if not self._is_called:
            self._call()

    @property
    def has_line(self) -> bool:
        """Whether somebody stands in line."""
        return bool(self._line)

    async def close(self) -> None:
        """No runner is left; one whose activity does not let itself be cancelled is left behind."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)

    def _call(self) -> None:
        self._is_called = True
        while self._idle:
            future = self._idle.pop()
            if not future.done():
                future.set_result(None)
                return
        task = self._loop.create_task(self._run(), name="replayflow runner", context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _suspended(self, item: T, task: asyncio.Task[None]) -> None:
        """The runner's activity waits: somebody else has to see to the line."""
        self._waits(item, task)
        self._is_called = False
        if self._line:
            self._call()

    async def _run(self) -> None:
        line, lane = self._line, self._new_lane()
        next(lane)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - runners are tasks
        send, was_cancelled = lane.send, task.cancelling
        item: T | None
        waits_for: Any
        context = self._context
        while True:
            in_a_row = 0
            while line:
                in_a_row += 1
                if in_a_row > _IN_A_ROW_MAX:
                    in_a_row = 0
                    await asyncio.sleep(0)
                    continue
                item = line.popleft()
                context = self._context.copy()
                try:
                    waits_for = context.run(send, item)
                except BaseException as error:
                    self._suspended(item, task)  # this runner is lost; the line must not wait for it
                    if isinstance(error, GeneratorExit):
                        return  # the activity's own, which the lane could not survive
                    raise
                if waits_for is DONE and not was_cancelled():
                    continue
                self._suspended(item, task)
                if waits_for is not DONE:
                    try:
                        await _until_done(lane, context, waits_for)
                    except GeneratorExit:
                        return  # as above, or the event loop is gone
                break  # another runner has the line now
            else:
                self._is_called = False
            if was_cancelled():
                return  # its activity was cancelled and took no notice: the next one must not inherit that
            if len(self._idle) >= _IN_A_ROW_MAX:
                return
            # Or what they were would be kept until something else comes.
            item, context, waits_for = None, self._context, None
            called: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(called)
            await called


@types.coroutine
def _until_done(lane: Lane[Any], context: Context, waits_for: Any) -> Generator[Any, Any, None]:
    """What is on the lane and waits for something is awaited to its end, in its own context."""
    while waits_for is not DONE:
        try:
            answer = yield waits_for
        except BaseException as error:  # a cancellation, on its way to whom it is meant for
            waits_for = context.run(lane.throw, error)
        else:
            waits_for = context.run(lane.send, answer)
