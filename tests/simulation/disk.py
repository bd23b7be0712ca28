"""The durable side of a world: one memory store that the laws watch, and a face of it for each process, which is slow, fails, and dies as told.

A face keeps the order that a store on SQLite keeps: one writing thread and one reading thread, each doing one thing after the other. When a call is
done, and when its caller hears of it, are two moments; a crash may come before, between and after them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any, Protocol, TypeVar

from replayflow import MemoryStore
from replayflow.core.suspicion import Suspicion
from replayflow.errors import (
    ReplayflowError,
    StoreBusyError,
    StoreFullError,
    StoreUnavailableError,
)
from replayflow.store.base import Delivery, Operation, Outcome, Owner, Served, Transact
from tests.simulation.faults import Faults
from tests.simulation.loop import Process, SimLoop

T = TypeVar("T")
_READS = frozenset(
    {
        *(
            "load",
            "load_whole",
            "get",
            "page",
            "count",
            "waiting",
            "owner",
            "condition",
            "history",
            "fetch",
            "executions",
        ),
        *("wakes", "arrived", "children", "ended", "long_pasts", "footprint", "served", "open_versions", "count_open"),
        *("suspects", "confirm"),
    }
)
_PASSING = (StoreFullError, StoreBusyError, StoreUnavailableError)


class Watcher(Protocol):
    """Who is told of all that happens to the store."""

    def written(self, touched: Mapping[str, Any], removed: set[str], operations: Sequence[Operation]) -> None: ...
    def refused(self, before: bytes, after: bytes, who: str, error: ReplayflowError) -> None: ...
    def note(self, text: str) -> None: ...
    def strike(self, kind: str, text: str) -> None: ...


class Disk(MemoryStore):
    """The one store of a world: what is in it is what is durable. `DROPS_EVERY` writes it looks for contents that nobody refers to any more."""

    DROPS_EVERY = 25

    def __init__(self, watcher: Watcher, **options: Any) -> None:
        super().__init__(**options)
        self.watcher = watcher
        self.faces: list[Face] = []
        self.holder: Face | None = None
        self.is_full = False
        self._writes = 0
        self._operations: Sequence[Operation] = ()
        self._is_open = True

    @property
    def epoch(self) -> int:
        return self._epoch

    def set_free(self) -> None:
        """Nobody owns the hub: its owner has died, or let it go."""
        self._owner = None
        self.holder = None

    def write_now(self, operations: Sequence[Operation], epoch: int | None) -> list[Outcome]:
        self._operations = operations
        return at_once(self.write(operations, epoch))

    def digest(self) -> bytes:
        """All that the store holds, and nothing that two runs of one seed do not share."""
        held: list[str] = []
        for id, kept in sorted(self._instances.items()):
            inbox = sorted((number, delivery.event) for number, delivery in kept.inbox.items())
            held.append(
                f"{id} {kept.record} {sorted(kept.pieces.items())} {inbox} {sorted(kept.dedupe_keys)} {sorted(kept.transacted)}"
            )
        return "\n".join([*held, f"{self._purged} {sorted(self._contents)}"]).encode()

    def _apply(self, work: Callable[[Any], T], nudges: bool) -> T:
        groups: list[Any] = []

        def watched(group: Any) -> T:
            groups.append(group)
            return work(group)

        done = super()._apply(watched, nudges)
        (group,) = groups
        operations, self._operations = self._operations, ()
        self.watcher.written(group.touched, group.removed, operations)
        return done

    def _drop_unused(self) -> None:
        self._writes += 1
        if self._writes % self.DROPS_EVERY == 0:
            super()._drop_unused()

    def drop_unused(self) -> None:
        super()._drop_unused()


class Lane:
    """A thread of a face: what is asked of it is done in order, and told in order."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._done_until = 0.0
        self._told_until = 0.0

    def submit(self, takes: float, tells: float, do: Callable[[], T]) -> asyncio.Future[T]:
        loop = self._loop
        self._done_until = max(self._done_until, loop.time()) + takes
        heard: asyncio.Future[T] = loop.create_future()

        def perform() -> None:
            error: BaseException | None = None
            result: Any = None
            try:
                result = do()
            except _Died:
                return
            except Exception as raised:
                error = raised
            self._told_until = max(self._told_until, loop.time() + tells)
            loop.call_at(self._told_until, tell, result, error)

        def tell(result: T, error: BaseException | None) -> None:
            if heard.done():
                return
            if error is None:
                heard.set_result(result)
            else:
                heard.set_exception(error)

        loop.call_at(self._done_until, perform)
        return heard


class _Died(Exception):
    """The process died in the middle of it."""


class Face:
    """The store as one process has it: the port, with all that can go wrong on the way."""

    def __init__(
        self, disk: Disk, process: Process, loop: SimLoop, chance: Random, faults: Faults, pace: float
    ) -> None:
        self.url = disk.url
        self.faults = faults
        self.epoch: int | None = None
        self.process = process
        self._disk = disk
        self._loop = loop
        self._chance = chance
        self._pace = pace
        self._writing = Lane(loop)
        self._reading = Lane(loop)
        self._subscribers: list[Callable[[], None]] = []
        self._is_hinted = False
        self._is_open = False
        disk.faces.append(self)

    def __getattr__(self, name: str) -> Any:
        if name not in _READS:
            raise AttributeError(name)
        read = getattr(self._disk, name)

        async def reading(*arguments: Any, **options: Any) -> Any:
            self._check_open()
            fails = self._chance.random() < self.faults.read_fails

            def do() -> Any:
                if fails:
                    self._disk.watcher.strike("failed reads", f"{self.process} cannot read")
                    raise StoreBusyError("the simulated store is busy")
                return at_once(read(*arguments, **options))

            return await self._submit(self._reading, do)

        return reading

    # ---- life and ownership

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        if self._is_open:
            await self.release()
            self._is_open = False

    async def acquire(self, owner: Owner, *, by_force: bool = False) -> int:
        self._check_open()

        def do() -> int:
            self.epoch = at_once(self._disk.acquire(owner, by_force=by_force))
            self._disk.holder = self
            self._disk.watcher.note(f"{self.process} owns the hub: epoch {self.epoch}")
            return self.epoch

        return await self._submit(self._writing, do)

    async def release(self) -> None:
        if self._disk.holder is self:
            self._disk.set_free()

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        self._check_open()
        self._subscribers.append(changed)

        def unsubscribe() -> None:
            if changed in self._subscribers:
                self._subscribers.remove(changed)

        return unsubscribe

    # ---- writing

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        self._check_open()
        chance, faults, watcher = self._chance, self.faults, self._disk.watcher
        fails = chance.random() < faults.write_fails
        dies_before = chance.random() < faults.crash_before_write
        dies_after = chance.random() < faults.crash_after_write

        def do() -> list[Outcome]:
            if fails or (self._disk.is_full and faults.full_every):
                watcher.strike("failed writes", f"{self.process} cannot write")
                raise chance.choice(_PASSING)("the simulated store refuses")
            if dies_before:
                watcher.strike("deaths before a write", f"{self.process} dies before a write")
                self._die()
            is_lost = epoch is not None and epoch != self._disk.epoch
            before = self._disk.digest() if is_lost else b""
            try:
                outcomes = self._disk.write_now(operations, epoch)
            except ReplayflowError as error:
                watcher.refused(before, self._disk.digest() if is_lost else b"", str(self.process), error)
                raise
            if is_lost:
                watcher.refused(
                    before, self._disk.digest(), str(self.process), StoreUnavailableError("no refusal at all")
                )
            self._tell_others()
            if dies_after:
                watcher.strike("deaths after a write", f"{self.process} dies after a write")
                self._die()
            return outcomes

        return await self._submit(self._writing, do)

    async def transact(self, wanted: Transact, epoch: int) -> Delivery | None:
        self._check_open()
        chance, faults = self._chance, self.faults
        fails = chance.random() < faults.write_fails
        dies = chance.random() < 3 * faults.crash_after_write

        def do() -> Delivery | None:
            if fails:
                raise StoreFullError("the simulated store is full")
            delivery = at_once(self._disk.transact(wanted, epoch))
            self._tell_others()
            if dies:
                self._disk.watcher.strike("deaths after a write", f"{self.process} dies after a transaction")
                self._die()
            return delivery

        return await self._submit(self._writing, do)

    async def keep_served(self, served: Sequence[Served], epoch: int) -> None:
        self._check_open()
        await self._submit(self._writing, lambda: at_once(self._disk.keep_served(served, epoch)))

    async def suspect(self, found: Mapping[str, Suspicion | None], epoch: int) -> None:
        self._check_open()
        await self._submit(self._writing, lambda: at_once(self._disk.suspect(found, epoch)))

    def _die(self) -> None:
        self.process.kill()
        raise _Died

    # ---- how long it takes

    async def _submit(self, lane: Lane, do: Callable[[], T]) -> T:
        """Whoever is cancelled while he waits has asked all the same."""
        chance = self._chance
        takes = self._pace * chance.random()
        if chance.random() < self.faults.stall:
            takes *= 100
        return await asyncio.shield(lane.submit(takes, self._pace * 0.3 * chance.random(), do))

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailableError(f"{self.url} is not open")

    # ---- hints

    def _tell_others(self) -> None:
        for face in self._disk.faces:
            if not face.process.is_dead and (face is not self or self._chance.random() < 0.05):
                face.hint()

    def hint(self) -> None:
        """Somebody has written. One hint may stand for many writes, and none says what was written."""
        if self._is_hinted or not self._subscribers:
            return
        self._is_hinted = True
        late = 5.0 if self._chance.random() < self.faults.hint_late else 0.1
        self.process.call(self._loop.call_later, late * self._chance.random(), self._hint)

    def _hint(self) -> None:
        self._is_hinted = False
        for changed in list(self._subscribers):
            changed()


def at_once(running: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns, which waits for nothing."""
    try:
        running.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    running.close()
    raise AssertionError("the memory store has waited for something")
