"""What the engine's tests share: a store that does as it is told, waiting without luck, and an audit of histories."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Generic, TypeVar

from replayflow import App, Client, HistoryEvent, Instance, InstanceState, Limits, MemoryStore, TaskHub
from replayflow.core import events
from replayflow.core.commit import Commit
from replayflow.errors import LeaseLostError, ReplayflowError
from replayflow.store.base import Delivery, Loaded, Operation, Outcome, Store

T = TypeVar("T")
NO_GRACE = Limits(grace=timedelta(0))
PATIENCE_SECONDS = 15.0


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """The condition holds.

    Raises:
        AssertionError: it does not for a long time.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        await asyncio.sleep(0.002)


async def until_state(
    instance: Instance[Any], holds: Callable[[InstanceState], object], what: str = "the condition"
) -> InstanceState:
    """The instance's state, once the condition holds.

    Raises:
        AssertionError: it does not for a long time.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds(state := await instance.status()):
        assert time.monotonic() < deadline, f"{what} did not come true: {state}"
        await asyncio.sleep(0.002)
    return state


async def until_running(instance: Instance[Any]) -> None:
    await until_state(instance, lambda state: state.status == "RUNNING")


async def until_suspended(instance: Instance[Any]) -> None:
    await until_state(instance, lambda state: state.status == "SUSPENDED")


async def until_there(store: Store, instance_id: str) -> None:
    """There is an instance with the id."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while await store.get(instance_id) is None:
        assert time.monotonic() < deadline, f"there is no '{instance_id}'"
        await asyncio.sleep(0.002)


async def until_empty(store: Store) -> None:
    """No inbox has a message."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left := await store.arrived(0, 10):
        assert time.monotonic() < deadline, f"messages are left: {left}"
        await asyncio.sleep(0.002)


async def turns(count: int = 30) -> None:
    """The event loop has run everything that was ready, and what followed from it."""
    for _ in range(count):
        await asyncio.sleep(0)


class ToldStore(MemoryStore):
    """A memory store that records its writes, and holds, fails or refuses as told.

    While `gate` is clear, writes wait before they begin; while `reading` or `loading` is, what was read waits before it is handed over.
    `failing` says with what error a write of the worker fails; `refuses` which commits are refused alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.reading = asyncio.Event()
        self.reading.set()
        self.loading = asyncio.Event()
        self.loading.set()
        self.failing: Callable[[Sequence[Operation]], ReplayflowError | None] = lambda _: None
        self.refuses: Callable[[Commit], bool] = lambda _: False
        self.written: list[Operation] = []
        self.attempts = 0
        self.loads: list[str] = []

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        if epoch is None:
            return await super().write(operations, epoch)
        self.attempts += 1
        await self.gate.wait()
        error = self.failing(operations)
        if error is not None:
            raise error
        refused = [isinstance(operation, Commit) and self.refuses(operation) for operation in operations]
        accepted = [operation for operation, is_refused in zip(operations, refused, strict=True) if not is_refused]
        outcomes = iter(await super().write(accepted, epoch))
        self.written += accepted
        return [
            Outcome(error=LeaseLostError("refused as told")) if is_refused else next(outcomes) for is_refused in refused
        ]

    async def load(self, instance_ids: Sequence[str]) -> list[Loaded]:
        self.loads += instance_ids
        loaded = await super().load(instance_ids)
        await self.loading.wait()
        return loaded

    async def arrived(self, after: int, limit: int) -> list[Delivery]:
        found = await super().arrived(after, limit)
        await self.reading.wait()
        return found

    def fail_with(self, *errors: ReplayflowError) -> None:
        """The next writes fail with these, one each."""
        left = list(errors)
        self.failing = lambda _: left.pop(0) if left else None

    def fail_always(self, error: ReplayflowError) -> None:
        self.failing = lambda _: error

    def work(self) -> None:
        """No write fails any more."""
        self.failing = lambda _: None

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Writes wait meanwhile."""
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()


class TestClock:
    """Time that moves when it is told to, on top of the machine's, so that waiting in between works."""

    __test__ = False

    def __init__(self) -> None:
        self.ahead = 0

    def now(self) -> int:
        return time.time_ns() // 1000 + self.ahead

    def advance(self, by: timedelta) -> None:
        self.ahead += by // timedelta(microseconds=1)


class Counted(Generic[T]):
    """Calls, counted by what they were made with."""

    def __init__(self) -> None:
        self.calls: Counter[T] = Counter()

    def __call__(self, what: T) -> int:
        self.calls[what] += 1
        return self.calls[what]


def hub_on(store: Any, app: App, limits: Limits = NO_GRACE, **options: Any) -> TaskHub:
    return TaskHub(store, app, limits=limits, **options)


async def history_of(client: Client, instance_id: str, execution_id: str | None = None) -> list[HistoryEvent]:
    return [event async for event in client.get(instance_id).history(execution_id)]


def shape(history: Sequence[HistoryEvent]) -> list[tuple[Any, ...]]:
    """The history but for its times and random ids, and for how it was cut into episodes."""
    return [
        (type(event).__name__, getattr(event, "event_id", None), getattr(event, "task_scheduled_id", None))
        for event in history
        if not isinstance(event, events.OrchestratorStarted)
    ]


async def audit(client: Client) -> None:
    """In every history each thing that was asked for, a call of a map, too, was asked once and answered once; all inboxes are empty."""
    async for state in client.list():
        asked: Counter[int] = Counter()
        answered: Counter[int] = Counter()
        dropped: set[int] = set()
        calls: Counter[tuple[int, int]] = Counter()
        for event in await history_of(client, state.id):
            match event:
                case events.TaskScheduled() | events.SubOrchestrationInstanceCreated() | events.TimerCreated():
                    asked[event.event_id] += 1
                case events.TaskCompleted() | events.TaskFailed():
                    answered[event.task_scheduled_id] += 1
                case events.SubOrchestrationInstanceCompleted() | events.SubOrchestrationInstanceFailed():
                    answered[event.task_scheduled_id] += 1
                case events.TimerFired():
                    answered[event.timer_id] += 1
                case events.MapProgress():
                    calls.update((event.task_scheduled_id, number) for number in event.numbers)
                case events.TaskCanceled():
                    dropped.add(event.task_scheduled_id)
                case events.TimerCanceled():
                    dropped.add(event.timer_id)
                case _:
                    pass
        assert not asked or set(asked.values()) == {1}, f"{state.id}: an id was used twice: {asked}"
        assert not answered or set(answered.values()) == {1}, f"{state.id}: two answers: {answered}"
        assert not calls or set(calls.values()) == {1}, f"{state.id}: a call of a map has two results: {calls}"
        assert answered.keys() <= asked.keys(), f"{state.id}: answers to nothing"
        if state.status == "COMPLETED":
            assert asked.keys() - dropped == answered.keys() - dropped, f"{state.id}: {asked} but {answered}"
    assert await client._store.arrived(0, 1000) == []


async def within(seconds: float, awaited: Awaitable[T]) -> T:
    """What is awaited, in time."""
    async with asyncio.timeout(seconds):
        return await awaited
