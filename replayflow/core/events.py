"""History events: the facts of an instance, in the past tense.

Kinds, names and fields are those of the Durable Task protocol (microsoft/durabletask-protobuf, `HistoryEvent`), in snake case; `kind` is the
protocol's field number. Kinds from 100 on are extensions of ours, and so are the fields that are marked so. An event that records a decision has
the decision's action id as its `event_id`, to which `task_scheduled_id` and `timer_id` refer; every other event has -1.

An event is stored as one msgpack array, `[kind, field, ...]`; a chunk of history is one array after another, and begins with the
`OrchestratorStarted` that gives its episode's time. Fields are only ever added, at the end and with a default, so that old rows stay readable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, ClassVar, TypeAlias

import msgpack

from replayflow.clock import to_datetime
from replayflow.errors import FailureDetails, StoreCorruptError
from replayflow.retry import RetryValues

# An encoded payload. Where a client's `history()` hands an event to a user, the value itself: users never meet an encoding.
Payload: TypeAlias = Any


class HistoryEvent:
    """One fact. `event_id` is the id of the decision that it records, or -1; `timestamp` is the time of its episode, aware and in UTC."""

    __slots__ = ("at_microseconds",)
    kind: ClassVar[int]
    is_decision: ClassVar[bool] = False
    at_microseconds: int
    event_id: int

    @property
    def timestamp(self) -> datetime:
        return to_datetime(self.at_microseconds)


class Fact(HistoryEvent):
    """An event that came from outside the orchestrator's code."""

    __slots__ = ()
    event_id = -1


class Decided(HistoryEvent):
    """An event that records what the orchestrator's code decided."""

    __slots__ = ()
    is_decision = True


class Unnumbered(HistoryEvent):
    """A decision of a kind that the protocol does not know: it takes no action id, so that the numbering stays the protocol's."""

    __slots__ = ()
    is_decision = True
    event_id = -1


@dataclass(slots=True)
class ParentInstance:
    """Who waits for a sub-orchestration's result: the parent's instance and execution, and the id of its task there."""

    instance_id: str
    execution_id: str
    task_scheduled_id: int
    name: str = ""


# ---- the protocol's kinds --------------------------------------------------------------------------------------


@dataclass(slots=True)
class ExecutionStarted(Fact):
    """An execution begins. `is_first` (ours) is false for one that replaced or continued another under the same id."""

    kind: ClassVar[int] = 3
    name: str
    input: Payload
    instance_id: str
    execution_id: str
    version: str | None = None
    parent_instance: ParentInstance | None = None
    scheduled_start_microseconds: int | None = None
    tags: dict[str, str] | None = None
    is_first: bool = True

    @property
    def scheduled_start_timestamp(self) -> datetime | None:
        return None if self.scheduled_start_microseconds is None else to_datetime(self.scheduled_start_microseconds)


@dataclass(slots=True)
class ExecutionCompleted(Decided):
    """The execution ended with `orchestration_status`, the name of a terminal status or CONTINUED_AS_NEW."""

    kind: ClassVar[int] = 4
    event_id: int
    orchestration_status: str
    result: Payload = None
    failure_details: FailureDetails | None = None
    site: str = ""


@dataclass(slots=True)
class ExecutionTerminated(Fact):
    kind: ClassVar[int] = 5
    input: Payload = None
    recurse: bool = True


@dataclass(slots=True)
class TaskScheduled(Decided):
    """An activity was asked for. `site` (ours) is the source line of the call, `retry` and `timeout` are the values that its attempts follow."""

    kind: ClassVar[int] = 6
    event_id: int
    name: str
    input: Payload
    site: str = ""
    retry: RetryValues | None = None
    timeout_microseconds: int | None = None
    tags: dict[str, str] | None = None
    version: str | None = None


@dataclass(slots=True)
class TaskCompleted(Fact):
    kind: ClassVar[int] = 7
    task_scheduled_id: int
    result: Payload = None


@dataclass(slots=True)
class TaskFailed(Fact):
    """An activity failed for good. `retry_after_microseconds` (ours) is what the activity itself asked for."""

    kind: ClassVar[int] = 8
    task_scheduled_id: int
    failure_details: FailureDetails
    retry_after_microseconds: int | None = None


@dataclass(slots=True)
class SubOrchestrationInstanceCreated(Decided):
    """A sub-orchestration was asked for, under `instance_id`; `execution_id`, `site` and `retry` are ours."""

    kind: ClassVar[int] = 9
    event_id: int
    instance_id: str
    name: str
    input: Payload
    execution_id: str = ""
    version: str | None = None
    site: str = ""
    retry: RetryValues | None = None
    tags: dict[str, str] | None = None


@dataclass(slots=True)
class SubOrchestrationInstanceCompleted(Fact):
    kind: ClassVar[int] = 10
    task_scheduled_id: int
    result: Payload = None


@dataclass(slots=True)
class SubOrchestrationInstanceFailed(Fact):
    kind: ClassVar[int] = 11
    task_scheduled_id: int
    failure_details: FailureDetails


@dataclass(slots=True)
class TimerCreated(Decided):
    kind: ClassVar[int] = 12
    event_id: int
    fire_at_microseconds: int
    site: str = ""

    @property
    def fire_at(self) -> datetime:
        return to_datetime(self.fire_at_microseconds)


@dataclass(slots=True)
class TimerFired(Fact):
    kind: ClassVar[int] = 13
    timer_id: int
    fire_at_microseconds: int

    @property
    def fire_at(self) -> datetime:
        return to_datetime(self.fire_at_microseconds)


@dataclass(slots=True)
class OrchestratorStarted(Fact):
    """An episode begins; its time is what `current_utc_datetime` shows during the episode."""

    kind: ClassVar[int] = 14
    now_microseconds: int


@dataclass(slots=True)
class OrchestratorCompleted(Fact):
    kind: ClassVar[int] = 15


@dataclass(slots=True)
class EventSent(Decided):
    kind: ClassVar[int] = 16
    event_id: int
    instance_id: str
    name: str
    input: Payload = None
    site: str = ""


@dataclass(slots=True)
class EventRaised(Fact):
    kind: ClassVar[int] = 17
    name: str
    input: Payload = None


@dataclass(slots=True)
class GenericEvent(Fact):
    kind: ClassVar[int] = 18
    data: str | None = None


@dataclass(slots=True)
class ContinueAsNew(Fact):
    kind: ClassVar[int] = 20
    input: Payload = None


@dataclass(slots=True)
class ExecutionSuspended(Fact):
    kind: ClassVar[int] = 21
    input: Payload = None


@dataclass(slots=True)
class ExecutionResumed(Fact):
    kind: ClassVar[int] = 22
    input: Payload = None


# ---- the protocol's kinds about entities. Sent, they have the sender's action id and a target; received, -1 and none.


@dataclass(slots=True)
class EntityOperationSignaled(Decided):
    """An operation was asked for, and nobody waits for its result. It is performed at `scheduled_time`, where it has one."""

    kind: ClassVar[int] = 23
    event_id: int
    request_id: str
    operation: str
    scheduled_time_microseconds: int | None = None
    input: Payload = None
    target_instance_id: str | None = None
    site: str = ""

    @property
    def scheduled_time(self) -> datetime | None:
        return None if self.scheduled_time_microseconds is None else to_datetime(self.scheduled_time_microseconds)


@dataclass(slots=True)
class EntityOperationCalled(Decided):
    """An operation was asked for, and the parent waits for its result under `request_id`."""

    kind: ClassVar[int] = 24
    event_id: int
    request_id: str
    operation: str
    scheduled_time_microseconds: int | None = None
    input: Payload = None
    parent_instance_id: str | None = None
    parent_execution_id: str | None = None
    target_instance_id: str | None = None
    site: str = ""


@dataclass(slots=True)
class EntityOperationCompleted(Fact):
    """An operation that was called has its result. `target_instance_id` and `target_execution_id` (ours) say whom the entity told."""

    kind: ClassVar[int] = 25
    request_id: str
    output: Payload = None
    target_instance_id: str | None = None
    target_execution_id: str | None = None


@dataclass(slots=True)
class EntityOperationFailed(Fact):
    """An operation failed and changed nothing. Without a target it was a signal, whose failure nobody waits for; `operation` (ours) names it."""

    kind: ClassVar[int] = 26
    request_id: str
    failure_details: FailureDetails
    target_instance_id: str | None = None
    target_execution_id: str | None = None
    operation: str = ""


@dataclass(slots=True)
class EntityLockRequested(Decided):
    """A critical section asked for the lock of `lock_set[position]`; all requests of a section have one `event_id`."""

    kind: ClassVar[int] = 27
    event_id: int
    critical_section_id: str
    lock_set: list[str]
    position: int
    parent_instance_id: str | None = None
    parent_execution_id: str | None = None
    site: str = ""


@dataclass(slots=True)
class EntityLockGranted(Fact):
    """The critical section has the lock of its entity at `position` (ours)."""

    kind: ClassVar[int] = 28
    critical_section_id: str
    position: int = 0
    target_instance_id: str | None = None
    target_execution_id: str | None = None


@dataclass(slots=True)
class EntityUnlockSent(Decided):
    """A critical section gave up the lock, or its place in the line for it."""

    kind: ClassVar[int] = 29
    event_id: int
    critical_section_id: str
    parent_instance_id: str | None = None
    target_instance_id: str | None = None
    site: str = ""


# ---- our extensions --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class TimerCanceled(Unnumbered):
    kind: ClassVar[int] = 100
    timer_id: int
    site: str = ""


@dataclass(slots=True)
class TaskAttemptFailed(Fact):
    """An attempt failed and another follows at `retry_at`: decided once, when it failed."""

    kind: ClassVar[int] = 101
    task_scheduled_id: int
    attempt: int
    failure_details: FailureDetails
    retry_at_microseconds: int

    @property
    def retry_at(self) -> datetime:
        return to_datetime(self.retry_at_microseconds)


@dataclass(slots=True)
class TaskCanceled(Unnumbered):
    """The orchestrator gave up waiting for an activity or a sub-orchestration, and asked for it to stop."""

    kind: ClassVar[int] = 102
    task_scheduled_id: int
    site: str = ""


@dataclass(slots=True)
class CustomStatusSet(Unnumbered):
    kind: ClassVar[int] = 103
    custom_status: Payload = None


@dataclass(slots=True)
class SubOrchestrationAttemptFailed(Fact):
    """A child failed and another takes its place at `retry_at`, under an id of its own."""

    kind: ClassVar[int] = 104
    task_scheduled_id: int
    attempt: int
    failure_details: FailureDetails
    retry_at_microseconds: int


@dataclass(slots=True)
class SubOrchestrationRetried(Fact):
    """The next attempt of a sub-orchestration was started as `instance_id`."""

    kind: ClassVar[int] = 105
    task_scheduled_id: int
    attempt: int
    instance_id: str
    execution_id: str


@dataclass(slots=True)
class ExecutionCancelRequested(Fact):
    kind: ClassVar[int] = 106
    input: Payload = None


@dataclass(slots=True)
class ExecutionReplaced(Fact):
    """Somebody started a new execution in this one's place; `start` is the new one's first events, as stored."""

    kind: ClassVar[int] = 107
    start: bytes
    input: Payload = None


@dataclass(slots=True)
class EntityStateSet(Unnumbered):
    """The state of an entity after the operations of an episode; None where it has none any more."""

    kind: ClassVar[int] = 120
    state: Payload = None


@dataclass(slots=True)
class EntityLocked(Fact):
    """Who holds the entity, where its execution continues another."""

    kind: ClassVar[int] = 121
    critical_section_id: str
    parent_instance_id: str
    parent_execution_id: str


@dataclass(slots=True)
class EntityRemovalRequested(Fact):
    """The entity is removed if it is empty: no state, no lock, nothing that waits."""

    kind: ClassVar[int] = 122


@dataclass(slots=True)
class EntityFoundEmpty(Unnumbered):
    """The entity had nothing to lose when it was asked to go: it goes, unless a message has come for it meanwhile."""

    kind: ClassVar[int] = 124


@dataclass(slots=True)
class OrchestrationScheduled(Unnumbered):
    """An operation of an entity started an orchestration, which has no parent."""

    kind: ClassVar[int] = 123
    instance_id: str
    name: str
    input: Payload = None
    execution_id: str = ""
    version: str | None = None
    tags: dict[str, str] | None = None


KINDS: dict[int, type[HistoryEvent]] = {}
_ROWS: dict[type[HistoryEvent], Callable[[Any], tuple[object, ...]]] = {}
_READERS: dict[int, tuple[Callable[..., HistoryEvent], list[tuple[int, Callable[[Any], object]]]]] = {}


# ---- storing and reading ---------------------------------------------------------------------------------------


def encode(events: Iterable[HistoryEvent]) -> bytes:
    """The events as they are stored: one array after another."""
    rows = _ROWS
    packer = _packers.packer
    pack = packer.pack
    try:
        for event in events:
            pack(rows[type(event)](event))
        return packer.bytes()
    finally:
        packer.reset()


def decode(chunk: bytes) -> list[HistoryEvent]:
    """The events of a stored chunk; each bears the time of the episode that the chunk begins with.

    Raises:
        StoreCorruptError: the bytes are no chunk that `encode` made.
    """
    unpacker = msgpack.Unpacker(
        use_list=True, strict_map_key=False, unicode_errors="surrogatepass", max_buffer_size=len(chunk) + 1
    )
    unpacker.feed(chunk)
    readers = _READERS
    at = 0
    events: list[HistoryEvent] = []
    try:
        for row in unpacker:
            kind = row.pop(0)
            make, converters = readers[kind]
            for place, convert in converters:
                if place < len(row) and row[place] is not None:
                    row[place] = convert(row[place])
            event = make(*row)
            if kind == 14:
                at = row[0]
            event.at_microseconds = at
            events.append(event)
        # An unpacker that is in the middle of a value ends its loop, too; it takes one byte more into that value.
        unpacker.feed(_NIL)
        is_whole = next(unpacker, chunk) is None
    except Exception as error:
        raise StoreCorruptError(f"a stored piece of history is damaged after event {len(events)}: {error}") from error
    if not is_whole:
        raise StoreCorruptError(f"a stored piece of history is cut off after event {len(events)}")
    return events


def decode_pieces(pieces: Sequence[bytes]) -> list[list[HistoryEvent]]:
    """The events of stored pieces of history, piece by piece; quicker than one after the other.

    Raises:
        StoreCorruptError: one of them is no piece that an episode wrote.
    """
    found: list[list[HistoryEvent]] = []
    for event in decode(b"".join(pieces)):
        if type(event) is OrchestratorStarted:
            found.append([])
        elif not found:
            break
        found[-1].append(event)
    if len(found) != len(pieces):
        raise StoreCorruptError(f"{len(pieces)} stored pieces of history read back as {len(found)} episodes")
    return found


def describe(event: HistoryEvent) -> str:
    """The event as an error message or a history listing names it: what it is about, in a few words."""
    match event:
        case TaskScheduled():
            return f"activity '{event.name}' (task {event.event_id})"
        case SubOrchestrationInstanceCreated():
            return f"sub-orchestration '{event.name}' (task {event.event_id})"
        case TimerCreated():
            return f"timer (task {event.event_id})"
        case EventSent():
            return f"event '{event.name}' sent (task {event.event_id})"
        case TimerCanceled():
            return f"cancelling timer {event.timer_id}"
        case EntityOperationCalled():
            return f"operation '{event.operation}' of entity '{event.target_instance_id}' (task {event.event_id})"
        case EntityOperationSignaled():
            return f"signal '{event.operation}' to entity '{event.target_instance_id}' (task {event.event_id})"
        case EntityLockRequested():
            return f"lock of entity '{event.lock_set[event.position]}' (task {event.event_id})"
        case EntityUnlockSent():
            return f"release of entity '{event.target_instance_id}' (task {event.event_id})"
        case TaskCanceled():
            return f"cancelling task {event.task_scheduled_id}"
        case ExecutionCompleted():
            return f"the end, {event.orchestration_status}"
        case _:
            return type(event).__name__


def _as_row(value: object) -> tuple[object, ...]:
    getter = _VALUE_ROWS.get(type(value))
    if getter is None:
        raise TypeError(f"{type(value).__name__} cannot be stored in an event")
    return getter(value)


def _getter(cls: type, *first: str) -> Callable[[Any], tuple[object, ...]]:
    names = [*first, *(field.name for field in fields(cls))]
    if len(names) == 1:
        only = attrgetter(names[0])
        return lambda value: (only(value),)
    return attrgetter(*names)


def _details(row: list[Any]) -> FailureDetails:
    kind, message, stack, inner, non_retryable, bases = row
    return FailureDetails(kind, message, stack, None if inner is None else _details(inner), non_retryable, tuple(bases))


def _parent(row: list[Any]) -> ParentInstance:
    return ParentInstance(*row)


def _retry(row: list[Any]) -> RetryValues:
    return RetryValues.of_row(row)


_VALUE_ROWS: dict[type, Callable[[Any], tuple[object, ...]]] = {
    FailureDetails: _getter(FailureDetails),
    ParentInstance: _getter(ParentInstance),
    RetryValues: _getter(RetryValues),
}
_CONVERTERS: dict[str, Callable[[Any], object]] = {
    "failure_details": _details,
    "parent_instance": _parent,
    "retry": _retry,
}
_NIL = b"\xc0"


class _PerThread(threading.local):
    """A packer is one thread's alone; several hubs may run in as many threads."""

    def __init__(self) -> None:
        self.packer = msgpack.Packer(default=_as_row, unicode_errors="surrogatepass", autoreset=False)


_packers = _PerThread()


def _converters(cls: type[HistoryEvent]) -> list[tuple[int, Callable[[Any], object]]]:
    """Which fields are stored as rows of their own, by their place behind the kind, and what makes values of them."""
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    return [(i, _CONVERTERS[name]) for i, name in enumerate(names) if name in _CONVERTERS]


def _register() -> None:
    for branch in (Fact, Decided, Unnumbered):
        for cls in branch.__subclasses__():
            KINDS[cls.kind] = cls
            _ROWS[cls] = _getter(cls, "kind")
            _READERS[cls.kind] = (cls, _converters(cls))


_register()


def microseconds(duration: timedelta | None) -> int | None:
    """The duration as events store it."""
    return None if duration is None else duration // timedelta(microseconds=1)
