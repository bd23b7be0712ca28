"""Runs of a program: on any store, with generators that are thrown away, and with workers that are killed.

A run is one instance in virtual time. What comes from outside comes at its time, when all is quiet. A worker that is killed is followed by another at
the same moment, so that time is the same in every run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from replayflow import HistoryEvent, Instance, InstanceNotFoundError, Limits, MemoryStore, SqliteStore, Status
from replayflow.clock import to_microseconds
from replayflow.codec import LARGE_OVER_BYTES
from replayflow.core import events
from replayflow.errors import LeaseLostError, StuckError
from replayflow.store import Store
from replayflow.store.base import Operation, Outcome, Post
from replayflow.testing import VirtualHub
from replayflow.testing.clock import BEGIN, VirtualClock
from tests.ciphers import ToyCipher
from tests.properties.grammar import Arrival, Program
from tests.properties.interpreter import ROOT, World, app_of, own_entity
from tests.properties.model import with_what_is_missing

LIVES_MAX = 500
_BEGIN = to_microseconds(BEGIN)
When = Literal["before", "after"]
Then: TypeAlias = Callable[[VirtualHub, World], Awaitable[None]]


@dataclass(frozen=True)
class Way:
    """How a program is run."""

    always_replay: bool = False
    warm_instances: int = 20_000
    is_file: bool = False
    large_over_bytes: int = LARGE_OVER_BYTES
    is_sealed: bool = False
    dies_at: int | None = None
    """The number of the write at which the worker is killed; 0 is each of them, one after another."""
    dies: When = "after"

    def store(self, path: Path) -> Store:
        cipher = ToyCipher() if self.is_sealed else None
        if self.is_file:
            return SqliteStore(path, synchronous="NORMAL", large_over_bytes=self.large_over_bytes, cipher=cipher)
        return MemoryStore(large_over_bytes=self.large_over_bytes, cipher=cipher)


@dataclass(repr=False)
class Run:
    """What a run came to."""

    program: Program
    """With all that has come."""
    status: Status
    output: Any
    failure: str | None
    custom_status: Any
    counted: int
    world: World
    writes: int
    histories: list[list[HistoryEvent]]
    """Of the root, one for each execution, oldest first; then of all others that there are."""
    pieces: list[list[list[HistoryEvent]]]
    """The same as they are stored, piece by piece."""
    export: list[str] = field(default_factory=list)
    lives: int = 1


async def run(program: Program, way: Way, path: Path, then: Then | None = None) -> Run:
    """The program has run to its end; `then` is what else is asked of the hub, after that."""
    world = World()
    app = app_of(program, world)
    store = Mortal(way.store(path), way.dies_at, way.dies)
    clock = VirtualClock()
    limits = Limits(grace=timedelta(0), warm_instances=way.warm_instances, deaths_alone=LIVES_MAX)
    for life in range(1, LIVES_MAX):
        hub = VirtualHub(app, store=cast("Store", store), clock=clock, always_replay=way.always_replay, limits=limits)
        try:
            async with hub:
                return await _live(hub, program, store, world, life, then)
        except Killed:
            store.revive()
    raise AssertionError(f"it did not end within {LIVES_MAX} lives")


async def _live(hub: VirtualHub, program: Program, store: Mortal, world: World, life: int, then: Then | None) -> Run:
    program = await ended(hub, program, store, world)
    state = await hub.client.get(ROOT).status()
    await hub.settle()
    own = await hub.client.read_entity(own_entity(ROOT))
    store.spare()
    if then is not None:
        await then(hub, world)
        state = await hub.client.get(ROOT).status()
    ids = sorted([state.id async for state in hub.client.list()], key=lambda one: (one != ROOT, one))
    executions = [(id, execution) for id in ids for execution in await hub.store.executions(id)]
    return Run(
        program,
        state.status,
        state.output,
        None if state.failure is None else state.failure.type.rpartition(".")[2],
        state.custom_status,
        own or 0,
        world,
        store.writes,
        [await history_of(hub, id, execution) for id, execution in executions],
        [await pieces_of(hub, id, execution) for id, execution in executions],
        [line async for line in hub.client.export()],
        life,
    )


async def ended(hub: VirtualHub, program: Program, store: Mortal, world: World) -> Program:
    """The program has ended; returns it with what has come late."""
    while True:
        so_far = replace(program, arrivals=(*program.arrivals, *world.late))
        instance = await begin(hub, so_far, store)
        try:
            await instance.wait()
        except StuckError:
            more = with_what_is_missing(so_far, world.choices, (hub.clock.now() - _BEGIN) // 1000)
            if more == so_far:
                raise
            world.late = list(more.arrivals[len(program.arrivals) :])
        else:
            return so_far


async def begin(hub: VirtualHub, program: Program, store: Mortal) -> Instance[Any]:
    """The program is under way, and all has come that comes while it runs."""
    instance = hub.client.get(ROOT)
    try:
        await instance.status()
    except InstanceNotFoundError:
        instance = await hub.client.start("main", (0, []), instance_id=ROOT)
    for arrival in program.arrivals:
        await hub.advance(timedelta(microseconds=max(0, _BEGIN + arrival.at * 1000 - hub.clock.now())))
        if (await instance.status()).status.is_finished:
            break
        await _raise(hub, instance, arrival, store)
    return instance


async def _raise(hub: VirtualHub, instance: Instance[Any], arrival: Arrival, store: Mortal) -> None:
    """The event comes, once, however often the worker is killed meanwhile; as all that it asks for it is durable before anything follows it."""
    key = str(arrival.at)
    if arrival.is_suspended and f"suspend {key}" not in store.posted:
        with store.noting(f"suspend {key}"):
            await instance.suspend()
        await hub.settle()
    if key not in store.posted:
        with store.noting(key):
            await instance.raise_event(arrival.name, arrival.at, dedupe_key=key)
        await hub.settle()
    if arrival.is_suspended and f"resume {key}" not in store.posted:
        with store.noting(f"resume {key}"):
            await instance.resume()
    await hub.settle()


async def history_of(hub: VirtualHub, id: str, execution: str) -> list[HistoryEvent]:
    return [event async for event in hub.client.get(id).history(execution)]


async def pieces_of(hub: VirtualHub, id: str, execution: str) -> list[list[HistoryEvent]]:
    start, *pieces = [events.decode(piece) for piece in await hub.store.history(id, execution, is_opened=True)]
    if not pieces:
        return []
    first, *rest = pieces
    return [[*first[:1], *start, *first[1:]], *rest]


class Killed(LeaseLostError):
    """The process is gone: what it asks of its store from now on reaches nobody."""


class Mortal:
    """A store whose process is killed at a write: before it is done, or after it is done and before anybody has heard of it.

    `dies_at` counts writes over all lives; with 0 it is the first write of every life, so that each brings one thing to pass.
    """

    def __init__(self, store: Store, dies_at: int | None, dies: When) -> None:
        self.writes = 0
        self.posted: set[str] = set()
        """What clients have asked for, and is durable."""
        self._noted = ""
        self._store = store
        self._dies_at = dies_at
        self._dies = dies
        self._is_dead = False

    def revive(self) -> None:
        self._is_dead = False
        if self._dies_at:
            self._dies_at = None

    @contextmanager
    def noting(self, key: str) -> Iterator[None]:
        """What a client asks for meanwhile is in `posted` when it is durable."""
        self._noted = key
        try:
            yield
        finally:
            self._noted = ""

    def spare(self) -> None:
        """It is over: nobody is killed any more."""
        self._dies_at = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        if self._is_dead:
            raise Killed("the process was killed")
        self.writes += 1
        if self._dies_at != 0 and self.writes != self._dies_at:
            return await self._written(operations, epoch)
        self._is_dead = True
        if self._dies == "after":
            await self._written(operations, epoch)
        raise Killed("the process was killed")

    async def _written(self, operations: Sequence[Operation], epoch: int | None) -> list[Outcome]:
        outcomes = await self._store.write(operations, epoch)
        for operation, outcome in zip(operations, outcomes, strict=True):
            if self._noted and isinstance(operation, Post) and outcome.error is None:
                self.posted.add(self._noted)
        return outcomes
