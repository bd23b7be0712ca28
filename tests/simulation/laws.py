"""What has to hold in every world at every moment, and at its end: the invariants of `ARCHITECTURE.md`, seen from the store.

The watch is told of each write as it happens, with what it touched, and of each activity that begins. It reads pieces of history by itself and
believes nobody: neither the engine that asked nor the outcomes that it was given.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from replayflow import App
from replayflow.codec import Codec
from replayflow.core import events
from replayflow.core.commit import Commit
from replayflow.core.definitions import Environment
from replayflow.core.entity.ids import is_entity_id
from replayflow.core.events import (
    ExecutionCompleted,
    ExecutionForked,
    ExecutionReplaced,
    ExecutionRewound,
    ExecutionStarted,
    HistoryEvent,
    MapProgress,
    MapScheduled,
    OrchestratorStarted,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
)
from replayflow.core.instance import Instance, Status
from replayflow.core.stepping import replayed
from replayflow.errors import LeaseLostError, ReplayflowError
from replayflow.store.base import Branch, Create, Operation, Post, Purge
from tests.simulation.disk import Disk, at_once
from tests.simulation.loop import PROCESS, SimLoop

TRACE_LINES = 400
_RAN_OUT = frozenset({Status.COMPLETED, Status.FAILED, Status.CONTINUED_AS_NEW})


class LawBroken(AssertionError):
    """The engine has done what it must not do."""


class Watch:
    """Follows a world. What is broken is kept as `broken`, for code that swallows what is raised in it."""

    def __init__(self, loop: SimLoop, keeps_all: bool = False) -> None:
        self.lines: deque[str] = deque(maxlen=None if keeps_all else TRACE_LINES)
        self.broken: LawBroken | None = None
        self.scheduled: set[str] = set()
        """The idempotency keys under which an activity may run: its `TaskScheduled`, or its map's item, was written."""
        self.mapped: set[str] = set()
        self.owed: set[str] = set()
        """Those that must have run in the end: what an execution that ended by itself had asked for and not given up, and what a cancelled one asked
        for in its last episode."""
        self.ran: Counter[str] = Counter()
        self.results: dict[str, bool] = {}
        """Which tasks and calls have a result, and whether it is a failure."""
        self.faults: Counter[str] = Counter()
        self.events = 0
        self.writes = 0
        self._asked: dict[str, list[str]] = {}
        self._known: dict[str, tuple[Status, str]] = {}
        self._gone: set[str] = set()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._pieces: dict[str, dict[int, bytes]] = {}
        self._loop = loop
        self._digest = hashlib.blake2b(digest_size=16)

    @property
    def digest(self) -> str:
        """All that was noted so far."""
        return self._digest.hexdigest()

    # ---- the trace

    def note(self, text: str) -> None:
        process = PROCESS.get()
        line = f"{self._loop.steps:6} {self._loop.time():12.4f} {process or 'world'}: {text}"
        self._digest.update(line.encode())
        self.lines.append(line)

    def strike(self, kind: str, text: str) -> None:
        """A fault of that kind has happened."""
        self.faults[kind] += 1
        self.note(text)

    def fail(self, what: str) -> LawBroken:
        """The law is broken; returns the error, for those who can raise it."""
        error = LawBroken(what)
        self.note(f"BROKEN: {what}")
        if self.broken is None:
            self.broken = error
            self._loop.halt()
        return error

    # ---- what is written

    def written(self, touched: Mapping[str, Any], removed: set[str], operations: Sequence[Operation]) -> None:
        """A group has taken effect."""
        self.writes += 1
        begins_anew, removable = _begun_anew(operations), _removable(operations)
        said: list[str] = []
        for id, kept in touched.items():
            if id not in removed:
                known = self._known.get(id)
                if (
                    id in removable
                    and known is not None
                    and known[1] not in {kept.record.execution_id, *kept.executions}
                ):
                    self._forget(id)  # it went, and another began under its id, in one group
                self._seen(id, kept, id in begins_anew)
                record = kept.record
                said.append(
                    f"{id}={record.status[:4]}/{len(kept.pieces)}/{len(kept.inbox)}{'!' if record.problem else ''}"
                )
        for id in sorted(removed):
            self._forget(id)
            said.append(f"{id}=gone")
        self.note("writes " + ", ".join(said))

    def _forget(self, id: str) -> None:
        self._gone.add(id)
        self._wake(id)
        self._known.pop(id, None)
        self._pieces.pop(id, None)

    def _seen(self, id: str, kept: Any, begins_anew: bool) -> None:
        record, pieces = kept.record, kept.pieces
        before, known = self._pieces.get(id, {}), self._known.get(id)
        kept_from = min([*pieces, record.start_number])
        for number, piece in before.items():
            if pieces.get(number) != piece and number >= kept_from and number != -1:
                self.fail(f"I10: piece {number} of '{id}' was changed or is gone")
        if known is not None:
            status, execution_id = known
            if status.is_finished and record.execution_id == execution_id and record.status is not status:
                self.fail(f"I8: '{id}' was {status} and is {record.status}, in the same execution")
            if (
                status.is_finished
                and record.execution_id != execution_id
                and not begins_anew
                and not _is_replaced(piece for number, piece in pieces.items() if number not in before)
            ):
                self.fail(f"I8: '{id}' was {status}, and has a new execution that nobody asked for")
        if before.keys() != pieces.keys():
            spans = _spans(kept)
            for number, piece in pieces.items():
                if number not in before:
                    execution_id = next((owner for owner, first, end in spans if first <= number < end), "")
                    self._read(id, execution_id, piece)
        self._pieces[id] = pieces
        self._known[id] = (record.status, record.execution_id)

        if record.status.is_finished:
            self._wake(id)

    def _wake(self, id: str) -> None:
        for waiting in self._waiting.pop(id, ()):
            if not waiting.done():
                waiting.set_result(None)

    def status_of(self, id: str) -> Status | None:
        """The instance's status, as it is durable; None where there is none."""
        known = self._known.get(id)
        return None if known is None else known[0]

    def is_open(self, id: str) -> bool:
        status = self.status_of(id)
        return status is not None and not status.is_finished

    def open_ids(self) -> list[str]:
        """The instances that have not finished, but for entities, which never do."""
        return [id for id, (status, _) in self._known.items() if not status.is_finished and not is_entity_id(id)]

    def ids_below(self, id: str) -> list[str]:
        """The instances that were begun under the instance's id."""
        return [one for one in self._known if one.startswith(f"{id}:")]

    def pieces_of(self, id: str) -> int:
        return len(self._pieces.get(id, ()))

    def is_empty(self, disk: Disk) -> bool:
        """Whether no message waits."""
        return not at_once(disk.arrived(0, 1))

    def nothing_owed(self) -> bool:
        return all(self.ran[key] for key in self.owed)

    async def until_ended(self, id: str) -> None:
        """The instance has finished, or is gone by now."""
        status = self.status_of(id)
        if not (id in self._gone if status is None else status.is_finished):
            ended: asyncio.Future[None] = self._loop.create_future()
            self._waiting.setdefault(id, []).append(ended)
            await ended

    def _read(self, id: str, execution_id: str, piece: bytes) -> None:
        """A piece of history is new."""
        decoded = events.decode(piece)
        self.events += len(decoded)
        scope = f"{id}/{execution_id}"
        asked: list[str] = []
        given_up: set[str] = set()
        end: str | None = None
        for event in decoded:
            kind = type(event)
            if kind is TaskScheduled:
                asked.append(f"{scope}/{event.event_id}")
            elif kind is MapScheduled:
                self.mapped.add(f"{id}/{execution_id}/{event.event_id}")
            elif kind is TaskCompleted or kind is TaskFailed:
                key = f"{id}/{execution_id}/{event.task_scheduled_id}"  # type: ignore[attr-defined]
                self._has_result(key, kind is TaskFailed)
            elif kind is ExecutionRewound:  # what had failed is open again
                self._asked.pop(scope, None)
                prefix = f"{id}/{execution_id}/"
                for key in [key for key, failed in self.results.items() if failed and key.startswith(prefix)]:
                    del self.results[key]
            elif kind is MapProgress:
                for number in event.numbers:  # type: ignore[attr-defined]
                    key = f"{id}/{execution_id}/{event.task_scheduled_id}/{number}"  # type: ignore[attr-defined]
                    self._has_result(key, False)
            elif kind is TaskCanceled:
                given_up.add(f"{scope}/{event.task_scheduled_id}")  # type: ignore[attr-defined]
            elif kind is ExecutionForked:
                self._asked.pop(scope, None)  # what came before has run for others
            elif kind is ExecutionCompleted:
                end = event.orchestration_status  # type: ignore[attr-defined]
        self.scheduled.update(asked)
        before = self._asked.setdefault(scope, [])
        if given_up:
            before[:] = [key for key in before if key not in given_up]
        if end in _RAN_OUT:
            self.owed.update(before)
        if end in _RAN_OUT or end == Status.CANCELED:
            self.owed.update(key for key in asked if key not in given_up)
        before += asked

    def _has_result(self, key: str, failed: bool) -> None:
        if key in self.results:
            self.fail(f"I4: '{key}' has two results")
        self.results[key] = failed

    def refused(self, before: bytes, after: bytes, who: str, error: ReplayflowError) -> None:
        """A write under an epoch that has passed was tried; `before` and `after` are what the store held."""
        self.note(f"{who} is refused: {type(error).__name__}")
        if before:
            self.faults["zombie writes"] += 1
        if before and not isinstance(error, LeaseLostError):
            self.fail(f"I7: a write of {who}, which has lost the hub, was not refused: {error}")
        if before != after:
            self.fail(f"I7: a write of {who}, which has lost the hub, has changed something")

    # ---- what runs

    def begins(self, name: str, instance_id: str, task_id: int, key: str) -> None:
        """An activity begins, under that idempotency key."""
        self.ran[key] += 1
        self.note(f"{name} begins: {key}")
        is_mapped = key.rpartition("/")[0] in self.mapped
        if key not in self.scheduled and not is_mapped:
            self.fail(f"I3: activity '{name}' runs as '{key}', which nothing in the store asks for")

    # ---- the end

    def check_end(self, disk: Disk, app: App) -> None:
        """Everything has come to its end, and has left nothing behind."""
        disk.drop_unused()
        left = at_once(disk.arrived(0, 10))
        if left:
            self.fail(f"I5: messages are left that nobody takes: {left}")
        for key in sorted(self.owed):
            if not self.ran[key]:
                self.fail(f"I4: '{key}' was asked for and has never run")
        environment = Environment(Codec(), app.activities, app.orchestrators, entities=app.entities)
        for id in sorted(self._known):
            for execution_id in at_once(disk.executions(id)):
                self._check_execution(id, at_once(disk.history(id, execution_id)), environment, disk)
        self._digest.update(disk.digest())

    def _check_execution(self, id: str, stored: list[bytes], environment: Environment, disk: Disk) -> None:
        start, *pieces = map(events.decode, stored)
        if not pieces:
            return
        if not isinstance(pieces[0][0], OrchestratorStarted):
            self.fail(f"I1: the history of '{id}' does not begin with its time")
            return
        whole = [[pieces[0][0], *start, *pieces[0][1:]], *pieces[1:]]
        once, twice = Instance(), Instance()
        once.apply_pieces(whole)
        twice.apply_all(chain.from_iterable(whole))
        if _shown(once) != _shown(twice):
            self.fail(f"I1: folded twice, '{id}' is two different instances: {_shown(once)} and {_shown(twice)}")
        for law in _answers(whole):
            self.fail(f"I4: '{id}': {law}")
        if is_entity_id(id):
            return
        started = start[0]
        assert isinstance(started, ExecutionStarted)
        definition = environment.orchestrators.serving(started.name, started.version)
        if definition is None:
            self.fail(f"no code serves '{id}', which is {started.name} {started.version}")
            return
        for episode in replayed(definition, started, whole, environment):
            if episode.problem is not None:
                self.fail(f"I2: '{id}' does not replay: {episode.problem}")


def _begun_anew(operations: Sequence[Operation]) -> set[str]:
    """The instances that an operation of the group may give another execution to, though they have finished."""
    found: set[str] = set()
    for operation in operations:
        if isinstance(operation, Create):
            found.add(operation.start.instance_id)
        elif isinstance(operation, Post) and operation.replaces_finished:
            found.add(operation.message.instance_id)
        elif isinstance(operation, Branch):
            found.update(one.start.instance_id for one in operation.executions)
    return found


def _is_replaced(pieces: Iterable[bytes]) -> bool:
    """Whether a request to replace the instance, which was accepted before its end, is among what was written behind that."""
    return any(isinstance(event, ExecutionReplaced) for piece in pieces for event in events.decode(piece))


def _removable(operations: Sequence[Operation]) -> set[str]:
    """The instances that an operation of the group may take away."""
    purged = {operation.instance_id for operation in operations if isinstance(operation, Purge)}
    return purged | {
        operation.instance_id for operation in operations if isinstance(operation, Commit) and operation.removes
    }


def _spans(kept: Any) -> list[tuple[str, int, int]]:
    """Which numbers each execution has in the history."""
    firsts = [*sorted((number, id) for id, number in kept.executions.items())]
    firsts.append((kept.record.start_number, kept.record.execution_id))
    ends = [number for number, _ in firsts[1:]] + [1 << 60]
    return [(id, first, end) for (first, id), end in zip(firsts, ends, strict=True)]


def _answers(pieces: Sequence[Sequence[HistoryEvent]]) -> Iterator[str]:
    """What is wrong with asking and answering in one execution: an id used twice, an answer to nothing, two answers."""
    asked: Counter[int] = Counter()
    answered: Counter[int] = Counter()
    for event in chain.from_iterable(pieces):
        match event:
            case events.TaskScheduled() | events.SubOrchestrationInstanceCreated() | events.TimerCreated():
                asked[event.event_id] += 1
            case events.TaskCompleted() | events.TaskFailed():
                answered[event.task_scheduled_id] += 1
            case events.SubOrchestrationInstanceCompleted() | events.SubOrchestrationInstanceFailed():
                answered[event.task_scheduled_id] += 1
            case events.TimerFired():
                answered[event.timer_id] += 1
            case events.ExecutionRewound():
                answered.clear()  # what had failed is open again
            case _:
                pass
    if any(count > 1 for count in asked.values()):
        yield f"an id was used twice: {asked}"
    if any(count > 1 for count in answered.values()):
        yield f"two answers: {answered}"
    if not answered.keys() <= asked.keys():
        yield f"an answer to nothing: {answered.keys() - asked.keys()}"


def _shown(instance: Instance) -> list[str]:
    """All that a fold has come to."""
    return [
        f"{name}={getattr(instance, name)!r}"
        for name in Instance.__slots__
        if name not in ("_due", "maps") and hasattr(instance, name)
    ]
