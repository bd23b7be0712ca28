"""A world: one store, a worker that dies and comes back, clients that do the same, and those who make it go wrong.

The world's own coroutines, the workloads among them, belong to no process: nothing kills them. What they want they ask for through a client, in its
process, and ask again where that dies or is refused, as a careful program would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar, cast

from replayflow import App, Client, Limits, Retention, TaskHub
from replayflow.clock import to_datetime, to_microseconds
from replayflow.core.events import TaskCompleted
from replayflow.engine.engine import Engine
from replayflow.engine.runs import Run
from replayflow.errors import ReplayflowError, StoreError, UnknownNameError
from replayflow.hub import WhenOwned
from replayflow.store import Store
from tests.simulation import faults as no_faults
from tests.simulation.disk import Disk, Face
from tests.simulation.faults import Faults
from tests.simulation.laws import LawBroken, Watch
from tests.simulation.loop import Process, SimLoop

T = TypeVar("T")
BEGIN = to_microseconds(datetime(2030, 1, 1, tzinfo=UTC))
CLIENTS = 2
RIGHT, CHANGED, WRONG = range(3)


class SimClock:
    """The clock on the wall: it goes with the loop's, and may be set."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self.ahead = 0

    def now(self) -> int:
        return BEGIN + int(self._loop.time() * 1e6) + self.ahead

    @property
    def time(self) -> datetime:
        return to_datetime(self.now())


@dataclass(slots=True)
class Worker:
    """A process with a hub in it."""

    process: Process
    face: Face
    told_to_stop: asyncio.Event
    edition: int
    hub: TaskHub | None = None
    is_zombie: bool = False
    running: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Manner:
    """How a world is, apart from its faults."""

    pace_seconds: float
    """How long a call of the store takes at the most."""
    work_seconds: float
    warm_instances: int
    async_activities: int
    large_over_bytes: int | None
    retention: Retention | None
    bunch_seconds: float
    snapshot_after_pieces: int
    """How long the history of an entity becomes before it begins anew."""

    @classmethod
    def drawn(cls, chance: Random) -> Manner:
        return cls(
            pace_seconds=chance.choice([0.0005, 0.002, 0.01, 0.05]),
            work_seconds=chance.choice([0.001, 0.01, 0.1, 1.0]),
            warm_instances=chance.choice([1, 2, 5, 20_000]),
            async_activities=chance.choice([1, 3, 1_000]),
            large_over_bytes=chance.choice([None, None, None, 100]),
            retention=Retention(terminated=timedelta(0), executions=2, every=timedelta(seconds=3))
            if chance.random() < 0.2
            else None,
            bunch_seconds=chance.choice([0.0, 0.0, 0.001, 0.02]),
            snapshot_after_pieces=chance.choice([3, 10, 100]),
        )


@dataclass(slots=True)
class World:
    """All of it. `app_of(world, edition)` makes the code that a worker runs."""

    loop: SimLoop
    chance: Random
    faults: Faults
    manner: Manner
    watch: Watch
    disk: Disk
    clock: SimClock
    app_of: Callable[[World, int], App]
    is_calm: bool = False
    """No faults any more: what was begun comes to its end."""
    worker: Worker | None = None
    edition: int = RIGHT
    """The newest right code that a worker has had."""
    beginning: int = 0
    """How many instances are being started that must not meet wrong code in their first step."""
    broken: set[str] = field(default_factory=set)
    """What activities fail at, until it is mended."""
    apps: dict[int, App] = field(default_factory=dict)
    ledger: dict[str, list[str]] = field(default_factory=dict)
    clients: list[tuple[Process, Client] | None] = field(default_factory=lambda: [None] * CLIENTS)
    rated_at: list[float] = field(default_factory=list)
    """When activities began that are limited to so many a second."""
    counted: int = 0
    """How many entries all logs together have had."""
    names: int = 0
    begun: int = 0
    processes: int = 0
    gone: set[str] = field(default_factory=set)
    outlived: list[asyncio.Task[None]] = field(default_factory=list)

    # ---- the code's side: called by activities

    async def work(self, name: str, ctx: Any, seconds: float | None = None) -> None:
        """An activity begins, and takes its time."""
        self.watch.begins(name, ctx.instance_id, ctx.task_id, ctx.idempotency_key)
        await asyncio.sleep(self.chance.expovariate(1.0) * (self.manner.work_seconds if seconds is None else seconds))

    # ---- the workloads' side

    async def pause(self, seconds: float = 1.0) -> None:
        """Some time passes: so long on average."""
        await asyncio.sleep(self.chance.expovariate(1.0) * seconds)

    def new_id(self, kind: str) -> str:
        self.names += 1
        return f"{kind}-{self.names}"

    def check(self, holds: object, what: str) -> None:
        if not holds:
            raise self.watch.fail(what)

    async def ask(self, do: Callable[[Client], Awaitable[T]]) -> T:
        """What a client answers, in a worker's process or one of its own; asked again, by the same or another, until one does.

        Raises:
            ReplayflowError: what the client raises, but for the store's own errors.
        """
        while True:
            process, client = await self._client()
            asked = process.spawn(_awaited(do, client))
            dies_in = None
            if not process.name.startswith("worker") and self.chance.random() < self.faults.client_dies:
                dies_in = self.chance.random() * 4 * self.manner.pace_seconds
            try:
                await asyncio.wait(
                    {asked, cast("asyncio.Task[Any]", process.died)}, timeout=dies_in, return_when="FIRST_COMPLETED"
                )
                if asked.done():
                    return asked.result()
            except (StoreError, UnknownNameError) as error:  # a worker with wrong code knows not all names
                self.watch.note(f"asks again: {type(error).__name__}")
            else:
                if dies_in is not None and not process.is_dead:
                    self.watch.strike("deaths of clients", f"{process} dies in the middle of a request")
                    process.kill()
            await asyncio.sleep(0.05 + self.chance.random() * 0.2)

    def rhythm(self) -> float:
        """How long somebody pauses between two requests: not at all, about as long as a write takes, or longer."""
        return self.chance.choice((0.0, self.manner.pace_seconds, self.manner.work_seconds, 0.3))

    async def _client(self) -> tuple[Process, Client]:
        is_inside = self.chance.choice((True, False))
        while is_inside:
            worker = self.worker
            if worker is not None and worker.hub is not None and not worker.process.is_dead:
                try:
                    return worker.process, worker.hub.client
                except ReplayflowError:
                    pass  # it is just closing
            await asyncio.sleep(0.3)
        place = self.chance.randrange(CLIENTS)
        found = self.clients[place]
        if found is None or found[0].is_dead:
            process = self._process("client")
            face = self._face(process)
            await face.open()
            app = self.app_of_edition(RIGHT) if self.chance.random() < 0.7 else None
            found = process, Client(cast("Store", face), app, clock=self.clock)
            self.clients[place] = found
        return found

    # ---- workers

    def app_of_edition(self, edition: int) -> App:
        if edition not in self.apps:
            self.apps[edition] = self.app_of(self, edition)
        return self.apps[edition]

    def _process(self, kind: str) -> Process:
        self.processes += 1
        return Process(self.loop, f"{kind}-{self.processes}")

    def _face(self, process: Process) -> Face:
        faults = no_faults.NONE if self.is_calm else self.faults
        return Face(self.disk, process, self.loop, self.chance, faults, self.manner.pace_seconds)

    def kill(self, worker: Worker) -> None:
        """As SIGKILL; the operating system frees what it held."""
        self.watch.strike("kills", f"{worker.process} is killed")
        worker.process.kill()
        self._buried(worker)

    def _buried(self, worker: Worker) -> None:
        if self.disk.holder is worker.face:
            self.disk.set_free()
        if worker.face in self.disk.faces:
            self.disk.faces.remove(worker.face)

    async def keep_working(self) -> None:
        """There is a worker, most of the time."""
        while True:
            worker = self._start_worker(
                self._next_edition(), takes_over=self.worker is not None and self.worker.is_zombie
            )
            assert worker.running is not None
            self.worker = worker
            while not worker.running.done() and not worker.process.is_dead and not worker.is_zombie:
                await asyncio.wait(
                    {worker.running, cast("asyncio.Task[Any]", worker.process.died)},
                    timeout=0.25,
                    return_when="FIRST_COMPLETED",
                )
            if worker.running.done():
                self._ended(worker, worker.running)
            elif worker.is_zombie:
                self.outlived.append(asyncio.ensure_future(self._outlived(worker)))
            if worker.process.is_dead:
                self._buried(worker)
            await self.pause(0.05 if self.is_calm else 0.3)

    def _next_edition(self) -> int:
        if self.is_calm:
            return self.edition
        chance = self.chance
        if chance.random() < 0.3:
            self.edition = CHANGED
        if not self.beginning and chance.random() < self.faults.wrong_code:
            self.watch.strike("wrong code", "a worker will have the wrong code")
            return WRONG
        if chance.random() < self.faults.older_code and self.edition != RIGHT:
            self.watch.strike("older code", "a worker will have the code of before")
            return RIGHT
        return self.edition

    def _start_worker(self, edition: int, *, takes_over: bool) -> Worker:
        process = self._process("worker")
        face = self._face(process)
        worker = Worker(process, face, asyncio.Event(), edition)
        self.watch.note(f"{process} starts, with code {edition}")
        worker.running = process.spawn(self._serve(worker, "take_over" if takes_over else "wait"))
        return worker

    async def _serve(self, worker: Worker, when_owned: WhenOwned) -> None:
        manner = self.manner
        limits = Limits(
            warm_instances=manner.warm_instances,
            async_activities=manner.async_activities,
            grace=timedelta(seconds=self.chance.choice([0.0, 0.1, 5.0])),
            rest=timedelta(0),
        )
        hub = TaskHub(
            cast("Store", worker.face),
            self.app_of_edition(worker.edition),
            when_owned=when_owned,
            limits=limits,
            clock=self.clock,
            retention=manner.retention,
        )
        async with hub:
            self._double_ends(hub)
            worker.hub = hub
            stop = asyncio.ensure_future(worker.told_to_stop.wait())
            assert hub._running is not None
            await asyncio.wait({stop, hub._running}, return_when="FIRST_COMPLETED")
            worker.hub = None
            stop.cancel()

    def _double_ends(self, hub: TaskHub) -> None:
        """Now and then the result of an activity is told once more. A failure is not: of two the second would be that of the next attempt."""
        engine = engine_of(hub)
        share = self.faults.doubles
        if engine is None or not share:
            return
        activities = engine._residents.activities
        finished = activities._finished

        def told(run: Any, event: Any) -> None:
            finished(run, event)
            if self.chance.random() < share and not self.is_calm and type(event) is TaskCompleted and type(run) is Run:
                self.watch.strike("doubled results", f"{run.idempotency_key} will be told twice")
                self.loop.call_later(self.chance.random() * 2, finished, run, event)

        activities._finished = told

    def _ended(self, worker: Worker, running: asyncio.Task[None]) -> None:
        """The worker has ended by itself: in good order, or because its store is lost to it."""
        error = running.exception()
        self.watch.note(f"{worker.process} has ended: {error!r:.200}")
        worker.process.kill()
        self._buried(worker)
        if error is not None and not isinstance(error, StoreError):
            self.watch.fail(f"a worker ended with {error!r}, caused by {error.__cause__!r}")

    async def _outlived(self, worker: Worker) -> None:
        """A worker from which the hub was taken: it goes on until it finds out, or dies."""
        assert worker.running is not None
        await asyncio.wait(
            {worker.running, cast("asyncio.Task[Any]", worker.process.died)},
            timeout=20.0 * self.chance.random(),
            return_when="FIRST_COMPLETED",
        )
        if worker.running.done():
            self._ended(worker, worker.running)
        else:
            self.kill(worker)

    # ---- what goes wrong

    def begin_faults(self) -> list[asyncio.Task[None]]:
        """The faults that come by time."""
        faults = self.faults
        every: list[tuple[float, Callable[[], Coroutine[Any, Any, None]]]] = [
            (faults.crash_every, self._crash),
            (faults.stop_every, self._stop),
            (faults.takeover_every, self._take_over),
            (faults.restart_every, self._restart),
            (faults.full_every, self._fill),
            (faults.clock_jumps_every, self._set_the_clock),
            (faults.cool_every, self._cool),
        ]
        return [asyncio.ensure_future(self._again_and_again(seconds, fault)) for seconds, fault in every if seconds]

    async def _again_and_again(self, seconds: float, fault: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await self.pause(seconds)
            await fault()

    async def _crash(self) -> None:
        if self.worker is not None and not self.worker.process.is_dead:
            self.kill(self.worker)

    async def _stop(self) -> None:
        worker = self.worker
        if worker is not None:
            self.watch.strike("stops", f"{worker.process} is stopped")
            worker.process.stop()
            try:
                await self.pause(3.0)
            finally:
                worker.process.go_on()

    async def _take_over(self) -> None:
        worker = self.worker
        if worker is None or worker.process.is_dead or worker.is_zombie or self.disk.holder is not worker.face:
            return
        self.watch.strike("takeovers", f"the hub will be taken from {worker.process} by force")
        worker.is_zombie = True
        if self.chance.random() < 0.5:
            worker.process.stop()
            await self.pause(2.0)
            worker.process.go_on()

    async def _restart(self) -> None:
        if self.worker is not None and not self.worker.process.is_dead:
            self.watch.strike("orderly ends", f"{self.worker.process} is told to end")
            self.worker.told_to_stop.set()

    async def _fill(self) -> None:
        self.watch.strike("full disks", "the disk is full")
        self.disk.is_full = True
        try:
            await self.pause(1.0)
        finally:
            self.disk.is_full = False

    async def _set_the_clock(self) -> None:
        jump = int(self.chance.choice([-1, 1]) * 10 ** self.chance.uniform(3, 8.5))
        self.watch.strike("clock jumps", f"the clock is set by {jump / 1e6} s")
        self.clock.ahead += jump

    async def _cool(self) -> None:
        worker = self.worker
        if worker is None or worker.hub is None or worker.process.is_dead:
            return
        engine = engine_of(worker.hub)
        if engine is not None:
            self.watch.strike("evictions", "every generator that waits is dropped")
            worker.process.call(engine.cool_all)

    def calm_down(self) -> None:
        """No faults from now on. What is wrong already has to be overcome."""
        self.watch.note("calm")
        self.is_calm = True
        self.disk.is_full = False
        for face in self.disk.faces:
            face.faults = no_faults.NONE
        worker = self.worker
        if worker is not None and worker.edition != self.edition:
            worker.told_to_stop.set()


def engine_of(hub: TaskHub) -> Engine | None:
    return hub._engine


async def _awaited(do: Callable[[Client], Awaitable[T]], client: Client) -> T:
    return await do(client)


__all__ = ["CHANGED", "RIGHT", "WRONG", "LawBroken", "Manner", "SimClock", "World"]
