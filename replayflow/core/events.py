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
from typing import Any, ClassVar, NamedTuple, TypeAlias

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
    """Who waits for a sub-orchestration's result: the parent's instance and execution, and the id of its task there.

    `number` (ours) is that of the call, where the task is a map.
    """

    instance_id: str
    execution_id: str
    task_scheduled_id: int
    name: str = ""
    number: int | None = None


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


# ---- maps ------------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """Some calls of a map, for so many items: the payloads of the calls, together as one payload."""

    calls: int
    items: int
    payloads: Payload


@dataclass(slots=True)
class MapItemFailed:
    """A call of a map failed: for good, or with another attempt at `retry_at`, decided when it was taken in.

    On its way there `attempt` may be 0, for the present one, and `retry_after_microseconds` is what the call itself asked for. The number -1 is
    that of the activity that gives the pages.
    """

    number: int
    attempt: int
    failure_details: FailureDetails
    retry_at_microseconds: int | None = None
    retry_after_microseconds: int | None = None


Blocks: TypeAlias = Any
"""`Block`s. Where a client's `history()` hands an event to a user, the items themselves."""


@dataclass(slots=True)
class MapScheduled(Decided):
    """An activity or orchestrator was asked for, once for each of `count` items or `batch_size` of them.

    With `pages`, the name of an activity, more items follow: it is asked for them, page by page, beginning with `cursor`.
    """

    kind: ClassVar[int] = 110
    event_id: int
    name: str
    items: Blocks
    count: int
    site: str = ""
    is_orchestrator: bool = False
    concurrency: int = 1
    batch_size: int | None = None
    tolerated_failures: int | float = 0
    on_item_error: str = "fail_fast"
    retry: RetryValues | None = None
    timeout_microseconds: int | None = None
    version: str | None = None
    pages: str | None = None
    page_retry: RetryValues | None = None
    page_timeout_microseconds: int | None = None
    cursor: Payload = None


@dataclass(slots=True)
class MapProgress(Fact):
    """Calls of a map have ended: those with `numbers` have `results`, in the same order; others have failed."""

    kind: ClassVar[int] = 111
    task_scheduled_id: int
    numbers: list[int]
    results: list[Payload]
    failures: list[MapItemFailed]


@dataclass(slots=True)
class MapPage(Fact):
    """The page `number` (from 0) of a map's items has come; `cursor` is what the next is asked for with, None after the last."""

    kind: ClassVar[int] = 112
    task_scheduled_id: int
    number: int
    items: Blocks
    count: int
    cursor: Payload = None
    batch_size: int | None = None


@dataclass(slots=True)
class MapRetried(Fact):
    """The wait of sub-orchestrations of a map is over: they may begin again."""

    kind: ClassVar[int] = 113
    task_scheduled_id: int
    numbers: list[int]


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
        case MapScheduled():
            return f"map of '{event.name}' (task {event.event_id})"
        case TimerCreated():
            return f"timer (task {event.event_id})"
        case EventSent():
            return f"event '{event.name}' sent (task {event.event_id})"
        case TimerCanceled():
            return f"cancelling timer {event.timer_id}"
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


def _blocks(rows: list[list[Any]]) -> list[Block]:
    return [Block(*row) for row in rows]


def _item_failures(rows: list[list[Any]]) -> list[MapItemFailed]:
    return [MapItemFailed(row[0], row[1], _details(row[2]), *row[3:]) for row in rows]


_VALUE_ROWS: dict[type, Callable[[Any], tuple[object, ...]]] = {
    FailureDetails: _getter(FailureDetails),
    MapItemFailed: _getter(MapItemFailed),
    ParentInstance: _getter(ParentInstance),
    RetryValues: _getter(RetryValues),
}
_CONVERTERS: dict[str, Callable[[Any], object]] = {
    "failure_details": _details,
    "parent_instance": _parent,
    "retry": _retry,
    "page_retry": _retry,
    "items": _blocks,
    "failures": _item_failures,
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
