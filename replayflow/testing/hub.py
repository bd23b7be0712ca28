"""A hub whose time passes only while somebody waits for it; in memory, or on any other store.

1. The clock stands still while anything can happen without it: an episode, an activity, a message, a commit. When all is quiet, and the test waits
   for an end, it jumps to the next timer or retry. So a year of timers takes milliseconds, and a test that raises an event in time is in time.
2. Where the test waits, all is quiet, and no timer is left, nothing will ever happen: the wait fails at once, and says what is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, Self, cast

from replayflow.client import Client, Instance
from replayflow.clock import microseconds_in
from replayflow.codec import Codec
from replayflow.core.commit import Ending
from replayflow.engine import Engine, Limits
from replayflow.errors import InvalidArgumentError, ReplayflowError, StuckError
from replayflow.hub import TaskHub
from replayflow.promise import Promise
from replayflow.registry import App
from replayflow.store import Store
from replayflow.store.base import Branch, Create, Operation, Outcome, Post, Purge
from replayflow.store.memory import MemoryStore
from replayflow.testing.clock import BEGIN, VirtualClock
from replayflow.testing.fakes import Call, name_of, with_fakes

_QUIET_TURNS = 5
_LOOK_SECONDS = 0.001
_STUCK_SECONDS = 0.1
_NO_GRACE = Limits(grace=timedelta(0))


class VirtualHub:
    """A task hub for tests: `async with VirtualHub(app) as hub`. Nothing of it outlives the test, and no time has to pass.

    `fakes` replaces activities, by function or by name, with functions, results, or exceptions. With `always_replay` every generator is thrown away
    whenever it waits, and replayed for whatever comes next: what an orchestrator does that it must not do shows there. `begin` is the time at which
    the clock stands at first. `store` is where the hub's state is kept, in memory without one: `SqliteStore(path)` keeps it in a file.

    `client` is a client of the hub. While `result()` or `wait()` is awaited, time passes: from timer to timer, as soon as nothing else can happen.
    Activities that are no fakes run as they are, and take their real time. `calls` has what ran, in order.
    """

    def __init__(
        self,
        app: App,
        *,
        fakes: Mapping[Any, Any] | None = None,
        always_replay: bool = False,
        begin: datetime = BEGIN,
        limits: Limits = _NO_GRACE,
        codec: Codec | None = None,
        store: Store | None = None,
        clock: VirtualClock | None = None,
    ) -> None:
        self.calls: list[Call] = []
        self.clock = clock or VirtualClock(begin)
        self.store: Store = MemoryStore() if store is None else store
        self._watched = _Watched(self.store)
        self._served = app
        self._app = with_fakes(app, fakes or {}, self.calls)
        self._always_replay = always_replay
        self._limits = limits
        self._codec = codec or Codec()
        self._hub: TaskHub | None = None
        self._door: _Door | None = None
        self._client: Client | None = None
        self._time: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watched = _Watched(self.store, self._engine_cools if self._always_replay else None)
        store = cast("Store", self._watched)
        hub = TaskHub(store, self._app, limits=self._limits, codec=self._codec, clock=self.clock)
        await hub.__aenter__()
        self._hub = hub
        assert hub._engine is not None  # noqa: S101 - a store of its own has no other owner
        self._door = _Door(hub._engine)
        self._client = Client(store, self._app, codec=self._codec, clock=self.clock, door=self._door)
        self._time = asyncio.create_task(self._let_time_pass(self._door), name="replayflow virtual time")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hub, self._hub, self._client = self._hub, None, None
        if self._time is not None:
            self._time.cancel()
            await asyncio.wait([self._time])
        if hub is not None:
            await hub.__aexit__(kind, error, trace)

    @property
    def client(self) -> Client:
        """A client of this hub.

        Raises:
            InvalidArgumentError: the hub is not open.
        """
        if self._client is None:
            raise InvalidArgumentError("the hub is not open: use it inside `async with VirtualHub(...) as hub`")
        return self._client

    @property
    def now(self) -> datetime:
        """The hub's time, aware and in UTC."""
        return self.clock.time

    def inputs_of(self, activity: Any) -> list[Any]:
        """What the activity, a function or a name, was given each time that it ran, in order; None where it takes nothing.

        Raises:
            InvalidArgumentError: the app has no such activity.
        """
        name = name_of(self._served, activity, "inputs_of")
        return [call.input for call in self.calls if call.activity == name]

    async def run(self, orchestrator: Any, input: Any = None, **options: Any) -> Any:
        """One orchestration has run to its end; returns its result. `options` are those of `Client.start`.

        Raises:
            OrchestrationFailed, OrchestrationTerminated: as for `Instance.result`.
            StuckError: nothing will ever end it.
        """
        instance: Instance[Any] = await self.client.start(orchestrator, input, **options)
        return await instance.result()

    async def settle(self) -> None:
        """Everything has happened that can happen without time passing.

        Raises:
            ReplayflowError: the worker has lost its store, and nothing happens any more.
        """
        quiet = 0
        turns = 0
        while quiet < _QUIET_TURNS:
            if self._engine.failure is not None:
                raise self._engine.failure
            quiet = quiet + 1 if self._engine.is_idle and self._watched.is_idle else 0
            turns += 1
            await asyncio.sleep(0 if quiet or turns < 100 else _LOOK_SECONDS)

    async def advance(self, by: timedelta) -> None:
        """So much time has passed, and all that was due on the way has happened, in its order and at its time."""
        if by < timedelta(0):
            raise InvalidArgumentError(f"advance by {by}: time does not go back")
        end = self.clock.now() + microseconds_in(by)
        await self.settle()
        while (at := self._engine.next_alarm) is not None and at <= end:
            await self._jump(at)
        self.clock.set(end)
        self._engine.look_at_the_clock()
        await self.settle()

    async def restart(self) -> None:
        """The worker was killed, and another has started: generators are gone, and what is durable goes on."""
        await self.__aexit__(None, None, None)
        await self.__aenter__()

    @property
    def _engine(self) -> Engine:
        if self._hub is None or self._hub._engine is None:
            raise InvalidArgumentError("the hub is not open: use it inside `async with VirtualHub(...) as hub`")
        return self._hub._engine

    def _engine_cools(self) -> None:
        self._engine.cool_all()

    async def _jump(self, at: int) -> None:
        self.clock.set(at)
        self._engine.look_at_the_clock()
        await asyncio.sleep(0)
        await self.settle()

    async def _let_time_pass(self, door: _Door) -> None:
        while True:
            await door.is_wanted.wait()
            try:
                await self.settle()
                if not door.waiting:
                    door.is_wanted.clear()
                    continue
                at = self._engine.next_alarm
                if at is not None:
                    await self._jump(at)
                elif not await self._stirs(door):
                    await self._say_stuck(door)
            except ReplayflowError:
                return  # whoever waits is told by the engine

    async def _stirs(self, door: _Door) -> bool:
        """Whether something happens after all: the test may have other tasks, that wait for something of their own."""
        deadline = asyncio.get_running_loop().time() + _STUCK_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
            if not door.waiting or not self._engine.is_idle or self._engine.next_alarm is not None:
                return True
        return False

    async def _say_stuck(self, door: _Door) -> None:
        for instance_id, promise in list(door.waiting):
            state = await self.client.get(instance_id).status()
            if not state.status.is_finished:
                why = f"parked: {state.problem}" if state.problem is not None else f"{state.status}"
                promise.fail(
                    StuckError(
                        f"instance '{instance_id}' will never end: it is {why}, nothing is under way and no timer is set. "
                        "If it waits for an event, raise that before you wait for the end"
                    )
                )


class _Door:
    """The engine's door, which knows whether somebody waits for an end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._expected: list[tuple[str, Promise[Ending]]] = []
        self.is_wanted = asyncio.Event()

    async def submit(self, operation: Create | Post | Purge | Branch) -> Outcome:
        return await self._engine.submit(operation)

    @property
    def waiting(self) -> list[tuple[str, Promise[Ending]]]:
        """Who waits for an end that is not there."""
        self._expected = [one for one in self._expected if not one[1].is_kept]
        return self._expected

    def hand_in(self, operation: Create | Post) -> Promise[Outcome]:
        return self._engine.hand_in(operation)

    def expect_end(self, instance_id: str) -> Promise[Ending]:
        promise = self._engine.expect_end(instance_id)
        self._expected.append((instance_id, promise))
        self.is_wanted.set()
        return promise

    def forget_end(self, instance_id: str, promise: Promise[Ending]) -> None:
        self._engine.forget_end(instance_id, promise)
        self._expected = [one for one in self._expected if one[1] is not promise]

    def is_at_work(self, instance_id: str) -> bool:
        return self._engine.is_at_work(instance_id)


class _Watched:
    """A store that knows whether it is at work for anybody. After each write it calls `written`: there every generator may be thrown away."""

    def __init__(self, store: Store, written: Callable[[], None] | None = None) -> None:
        self._store = store
        self._written = written
        self._under_way = 0

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for an answer: what is read in a thread may be what makes something happen."""
        return not self._under_way

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not iscoroutinefunction(found):
            return found

        async def watched(*arguments: Any, **named: Any) -> Any:
            self._under_way += 1
            try:
                return await found(*arguments, **named)
            finally:
                self._under_way -= 1

        return watched

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        self._under_way += 1
        try:
            outcomes = await self._store.write(operations, epoch)
        finally:
            self._under_way -= 1
        if self._written is not None:
            asyncio.get_running_loop().call_soon(self._written)
        return outcomes
