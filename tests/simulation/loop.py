"""An event loop without an outside: time is a number, all that comes in from outside is a timer, and processes can die or be stopped in it.

1. Callbacks run in the order in which they were made ready, as asyncio promises. Nothing else is promised to code, and so all chance is in the
   timers: how long a call of the store, an activity, a client takes is drawn from the seed by whoever waits.
2. A *step* is one timer that has come due: one completion, one time limit, one fault. Those that come due within `bunch_seconds` are found together,
   as by a process that was busy, and what follows from them is interleaved.
3. A process is a context. Of a dead one nothing runs any more, not even a `finally`; what a stopped one would run waits until it goes on.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
STEPS_BETWEEN_TIMES_MAX = 20_000
"""How many callbacks may run without time passing: more is a loop that never ends."""


class SimulationStuck(Exception):
    """Nothing is ready and nothing is set, or time stands still for ever."""


class Process:
    """What would be a process of the operating system."""

    def __init__(self, loop: SimLoop, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_stopped = False
        self.died: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._held: list[asyncio.Handle] = []
        self._context = copy_context()
        self._context.run(PROCESS.set, self)

    def __repr__(self) -> str:
        return self.name

    def spawn(self, running: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """The coroutine runs as part of the process."""
        return self._loop.create_task(running, context=self._context.copy())

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """The function is called as part of the process."""
        return self._context.copy().run(function, *arguments)

    def kill(self) -> None:
        """As SIGKILL: nothing of it runs any more."""
        if not self.is_dead:
            self.is_dead = True
            self._loop.bury(self._held)
            self._held = []
            if not self.died.done():
                self.died.set_result(None)

    def stop(self) -> None:
        """As SIGSTOP."""
        self.is_stopped = True

    def go_on(self) -> None:
        """As SIGCONT."""
        if self.is_stopped:
            self.is_stopped = False
            self._loop.make_ready(self._held)
            self._held = []

    def hold(self, handle: asyncio.Handle) -> None:
        self._held.append(handle)


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)
"""Whose code is running; None for the world's own."""


class SimTask(asyncio.Task[Any]):
    """A task whose place in a set is the same in every run of a seed."""

    def __init__(self, *arguments: Any, loop: SimLoop, **options: Any) -> None:
        self._number = len(loop.tasks)
        super().__init__(*arguments, loop=loop, **options)
        self._log_destroy_pending = False
        loop.tasks.append(self)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(asyncio.BaseEventLoop):
    """The loop; `bunch_seconds` as in the module's head."""

    def __init__(self, bunch_seconds: float = 0.0) -> None:
        super().__init__()
        self.bunch_seconds = bunch_seconds
        self.steps = 0
        self.tasks: list[SimTask] = []
        """All that ever were: one that is thrown away closes its coroutine, at a moment that no seed decides."""
        self._is_halted = False
        self._time = 0.0
        self._is_over = False
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timer_count = 0
        self._made_ready: deque[asyncio.Handle] = deque()
        self._calls_in_a_moment = 0
        # What a dead process would have run is kept: to throw it away would close its generators, and run their `finally`.
        self._graveyard: list[asyncio.Handle] = []
        self.set_task_factory(_new_task)

    # ---- what code sees

    def time(self) -> float:
        return self._time

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._is_over:
            self._made_ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self._is_over:
            self._timer_count += 1
            heapq.heappush(self._timers, (when, self._timer_count, handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._time + delay, callback, *args, context=context)

    def run_in_executor(self, executor: object, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """There are no threads: the function is called at once."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    # ---- what the world sees

    def make_ready(self, handles: list[asyncio.Handle]) -> None:
        self._made_ready.extend(handles)

    def halt(self) -> None:
        """Nothing else runs."""
        self._is_halted = True
        self.bury(list(self._made_ready))
        self._made_ready.clear()

    def bury(self, handles: list[asyncio.Handle]) -> None:
        self._graveyard.extend(handles)

    def _run_once(self) -> None:
        if not self._made_ready:
            self._let_time_pass()
        if self._is_halted:
            raise SimulationStuck("halted")
        ready = self._made_ready
        self._calls_in_a_moment += len(ready)
        if self._calls_in_a_moment > STEPS_BETWEEN_TIMES_MAX:
            raise SimulationStuck("callbacks follow upon each other without end, and no time passes")
        for _ in range(len(ready)):
            if not ready:
                return
            handle = ready.popleft()
            if handle.cancelled():
                continue
            process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
            if process is not None:
                if process.is_dead:
                    self._graveyard.append(handle)
                    continue
                if process.is_stopped:
                    process.hold(handle)
                    continue
            handle._run()

    def _let_time_pass(self) -> None:
        """The next timer has come due, and those that are found together with it."""
        timers = self._timers
        until: float | None = None
        while timers and (until is None or timers[0][0] <= until):
            when, _, handle = heapq.heappop(timers)
            if handle.cancelled():
                continue
            process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
            if process is not None and process.is_dead:
                self._graveyard.append(handle)
                continue
            if until is None:
                until = when + self.bunch_seconds
            if when > self._time:
                self._time = when
                self._calls_in_a_moment = 0
            self.steps += 1
            self._made_ready.append(handle)
        if until is None:
            raise SimulationStuck("nothing is ready, and no timer is set")

    def close(self) -> None:
        """Nothing is called any more; what is left of the world can be thrown away."""
        self._is_over = True
        self._made_ready.clear()
        self._timers.clear()
        super().close()

    def __del__(self) -> None:
        pass  # it has nothing of the operating system's

    def is_closed(self) -> bool:
        return False  # what is thrown away closes itself, and must find no error on its way

    def _process_events(self, event_list: object) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def _new_task(loop: asyncio.AbstractEventLoop, running: Any, **options: Any) -> Any:
    assert isinstance(loop, SimLoop)
    return SimTask(running, loop=loop, **options)
