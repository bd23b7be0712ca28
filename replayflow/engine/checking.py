"""Does the code at hand fit what is open? Every open history is replayed, nothing is owned, nothing is written.

Each instance is read at one moment, by pages, as any client reads: a worker may be at work meanwhile. A fit says that the past fits; what an
instance does next is decided by what comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace

from replayflow.codec import Codec
from replayflow.core.definitions import Environment, OrchestratorDefinition
from replayflow.core.entity.entity import Entity
from replayflow.core.events import ExecutionStarted
from replayflow.core.instance import Status
from replayflow.engine.built_in import add_built_ins
from replayflow.engine.live import Live
from replayflow.engine.revival import executor_of, revive
from replayflow.errors import NonDeterminismError, ReplayflowError, StoreCorruptError
from replayflow.registry import App
from replayflow.store.base import InstanceFilter, InstanceRecord, Loaded, Store

READ_TOGETHER = 200
_OPEN = frozenset({Status.PENDING, Status.RUNNING, Status.SUSPENDED})
_logger = logging.getLogger("replayflow")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the code fits an instance. `problem` says why it does not, and is None where it does; `then` and `now` are the two sides of a difference.

    `parked` is the problem that the instance is parked with as it is. `warnings` are what fits, but not to the letter: another input, say.
    """

    instance_id: str
    name: str
    version: str | None
    status: Status
    parked: str | None
    problem: ReplayflowError | None = None
    warnings: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return self.problem is None

    @property
    def then(self) -> str:
        return self.problem.then if isinstance(self.problem, NonDeterminismError) else ""

    @property
    def now(self) -> str:
        return self.problem.now if isinstance(self.problem, NonDeterminismError) else ""


async def check_open(
    store: Store,
    app: App,
    codec: Codec,
    *,
    name: str | None = None,
    version: str | None = None,
    limit: int | None = None,
) -> AsyncIterator[list[Verdict]]:
    """The verdicts of all open instances, in the order of their creation, batch by batch. The empty version is that of those without one.

    Raises:
        StoreError: the store cannot be read.
    """
    add_built_ins(app)
    environment = Environment(codec, app.activities, app.orchestrators, entities=app.entities)
    left = limit
    async with aclosing(_read(store, InstanceFilter(statuses=_OPEN, name=name), version)) as batches:
        async for loaded in batches:
            batch = loaded if left is None else loaded[:left]
            yield _verdicts(batch, environment)
            if left is not None:
                left -= len(batch)
                if left <= 0:
                    return


async def _read(
    store: Store, wanted: InstanceFilter, version: str | None
) -> AsyncGenerator[list[Loaded | tuple[InstanceRecord, StoreCorruptError]], None]:
    """What is open, with its history. While one batch is replayed the next is read."""
    cursor: str | None = None
    reading: asyncio.Task[list[Loaded | tuple[InstanceRecord, StoreCorruptError]]] | None = None
    try:
        while True:
            page = await store.page(wanted, READ_TOGETHER, cursor)
            records = [each for each in page.records if version is None or (each.version or "") == version]
            before, reading = reading, asyncio.create_task(_load(store, records))
            if before is not None:
                yield await before
            cursor = page.cursor
            if cursor is None:
                yield await reading
                return
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _load(
    store: Store, records: Sequence[InstanceRecord]
) -> list[Loaded | tuple[InstanceRecord, StoreCorruptError]]:
    try:
        found = await store.load([each.instance_id for each in records])
        return [one for one in found if not one.record.status.is_finished]  # since its page was read
    except StoreCorruptError as error:
        if len(records) == 1:
            return [(records[0], error)]
        return [one for each in records for one in await _load(store, [each])]


def _verdicts(
    batch: Sequence[Loaded | tuple[InstanceRecord, StoreCorruptError]], environment: Environment
) -> list[Verdict]:
    verdicts: list[Verdict] = []
    with _listening() as heard:
        for one in batch:
            heard.clear()
            verdict = _verdict(one, environment) if isinstance(one, Loaded) else _unreadable(*one)
            verdicts.append(replace(verdict, warnings=tuple(heard)))
    return verdicts


def _verdict(loaded: Loaded, environment: Environment) -> Verdict:
    record = loaded.record
    if loaded.problem is not None:
        return replace(_of(record), problem=loaded.problem)
    live = Live(record.instance_id, record.execution_id)
    problem: ReplayflowError | None
    try:
        pieces = live.restore(loaded)
        problem = revive(live, pieces, environment)
        if problem is None and not pieces:
            problem = _before_its_first_step(live, environment)
        elif isinstance(live.executor, Entity) and live.executor.standing.payload is not None:
            live.executor.load_state()
    except ReplayflowError as error:  # a damaged history, an entity's state that the code cannot read
        problem = error
    finally:
        if live.executor is not None:
            live.executor.close()
    return replace(_of(record), problem=problem)


def _before_its_first_step(live: Live, environment: Environment) -> ReplayflowError | None:
    """What is wrong with an instance that has not begun: there is no code, or its input is not the code's."""
    started = live.start[0]
    assert isinstance(started, ExecutionStarted)  # noqa: S101 - every execution begins with it
    found = executor_of(started, environment)
    if isinstance(found, ReplayflowError):
        return found
    found.close()
    definition = environment.serving(started.name, started.version)
    if type(definition) is OrchestratorDefinition and definition.takes_input:
        environment.codec.decode(started.input, definition.input_type, f"input of orchestrator '{definition.name}'")
    return None


def _unreadable(record: InstanceRecord, error: StoreCorruptError) -> Verdict:
    return replace(_of(record), problem=error)


def _of(record: InstanceRecord) -> Verdict:
    parked = None if record.problem is None else record.problem.decode()
    return Verdict(record.instance_id, record.name, record.version or None, record.status, parked)


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What replay warns of is in the list, and goes nowhere else."""
    heard: list[str] = []

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    handler, propagates = Heard(logging.WARNING), _logger.propagate
    _logger.addHandler(handler)
    _logger.propagate = False
    try:
        yield heard
    finally:
        _logger.removeHandler(handler)
        _logger.propagate = propagates
