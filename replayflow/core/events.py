"""History events: the facts of an instance, in the past tense.

Kinds, names and fields are those of the Durable Task protocol (microsoft/durabletask-protobuf, `HistoryEvent`), in snake case; `kind` is the
protocol's field number. Kinds from 100 on are extensions of ours, and so are the fields that are marked so. An event that records a decision has
the decision's action id as its `event_id`, to which `task_scheduled_id` and `timer_id` refer; every other event has -1.

An event is stored as one msgpack array, `[kind, field, ...]`; a chunk of history is an array of them, and begins with the
`OrchestratorStarted` that gives its episode's time. Fields are only ever added, at the end and with a default, so that old rows stay readable.
Events are msgspec structs: one of these is made, stored and read back for everything that ever happens, and msgspec does all three in C.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeAlias, Union

import msgspec
from msgspec import Struct

from replayflow.clock import to_datetime
from replayflow.errors import FailureDetails, InvalidArgumentError, StoreCorruptError
from replayflow.retry import RetryValues

# An encoded payload. Where a client's `history()` hands an event to a user, the value itself: users never meet an encoding.
Payload: TypeAlias = Any


class HistoryEvent(Struct, array_like=True, forbid_unknown_fields=True, dict=True):
    """One fact. `event_id` is the id of the decision that it records, or -1; `timestamp` is the time of its episode, aware and in UTC."""

    kind: ClassVar[int]
    is_decision: ClassVar[bool] = False

    @property
    def event_id(self) -> int:
        return -1

    @property
    def timestamp(self) -> datetime:
        return to_datetime(vars(self)["at_microseconds"])

    def at(self, microseconds: int) -> Self:
        """The event itself, which knows its episode's time from now on. The time stands once in a chunk and not in each event."""
        vars(self)["at_microseconds"] = microseconds
        return self


class Fact(HistoryEvent):
    """An event that came from outside the orchestrator's code."""


class Decided(HistoryEvent):
    """An event that records what the orchestrator's code decided."""

    is_decision: ClassVar[bool] = True
    event_id: int  # pyright: ignore[reportIncompatibleMethodOverride]


class Unnumbered(HistoryEvent):
    """A decision of a kind that the protocol does not know: it takes no action id, so that the numbering stays the protocol's."""

    is_decision: ClassVar[bool] = True


class ParentInstance(Struct, array_like=True):
    """Who waits for a sub-orchestration's result: the parent's instance and execution, and the id of its task there.

    With `event` it is no parent, but whoever started a detached instance: that gets an event of the name when this one has ended, in any execution.
    `number` (ours) is that of the call, where the task is a map.
    """

    instance_id: str
    execution_id: str
    task_scheduled_id: int
    name: str = ""
    event: str = ""
    number: int | None = None


class Origin(Struct, array_like=True):
    """Whose history the first pieces of this one are, up to the one of the time `until_microseconds` and the action `last_id`."""

    instance_id: str
    execution_id: str
    until_microseconds: int
    last_id: int


class ChildNow(Struct, array_like=True):
    """The instance and execution that is at a sub-orchestration from here on; `number` is that of the call, where the task is a map."""

    task_scheduled_id: int
    instance_id: str
    execution_id: str
    number: int | None = None


# ---- the protocol's kinds --------------------------------------------------------------------------------------


class ExecutionStarted(Fact, tag=3):
    """An execution begins. `is_first` (ours) is false for one that replaced or continued another under the same id, or begins with a past.

    `origins` (ours) are those of that past, in order.
    """

    name: str
    input: Payload
    instance_id: str
    execution_id: str
    version: str | None = None
    parent_instance: ParentInstance | None = None
    scheduled_start_microseconds: int | None = None
    tags: dict[str, str] | None = None
    is_first: bool = True
    origins: list[Origin] | None = None

    @property
    def scheduled_start_timestamp(self) -> datetime | None:
        return None if self.scheduled_start_microseconds is None else to_datetime(self.scheduled_start_microseconds)


class ExecutionCompleted(Decided, tag=4):
    """The execution ended with `orchestration_status`, the name of a terminal status or CONTINUED_AS_NEW."""

    orchestration_status: str
    result: Payload = None
    failure_details: FailureDetails | None = None
    site: str = ""


class ExecutionTerminated(Fact, tag=5):
    """Somebody ended the execution at once, with the reason in `input`; with `recurse` its children end, too."""

    input: Payload = None
    recurse: bool = True


class TaskScheduled(Decided, tag=6):
    """An activity was asked for. `site` (ours) is the source line of the call, `retry` and `timeout` are the values that its attempts follow."""

    name: str
    input: Payload
    site: str = ""
    retry: RetryValues | None = None
    timeout_microseconds: int | None = None
    tags: dict[str, str] | None = None
    version: str | None = None

    def record(self) -> Self:
        """The event that records the decision: itself. Of nothing else is so much decided, and one object does for both."""
        return self

    def fits(self, event: HistoryEvent) -> bool:
        """Whether the recorded event is the record of this decision."""
        return type(event) is TaskScheduled and event.event_id == self.event_id and event.name == self.name


class TaskCompleted(Fact, tag=7):
    """An activity has a result."""

    task_scheduled_id: int
    result: Payload = None


class TaskFailed(Fact, tag=8):
    """An activity failed for good. `retry_after_microseconds` (ours) is what the activity itself asked for."""

    task_scheduled_id: int
    failure_details: FailureDetails
    retry_after_microseconds: int | None = None


class SubOrchestrationInstanceCreated(Decided, tag=9):
    """A sub-orchestration was asked for, under `instance_id`; `execution_id`, `site` and `retry` are ours."""

    instance_id: str
    name: str
    input: Payload
    execution_id: str = ""
    version: str | None = None
    site: str = ""
    retry: RetryValues | None = None
    tags: dict[str, str] | None = None


class SubOrchestrationInstanceCompleted(Fact, tag=10):
    """A sub-orchestration has a result."""

    task_scheduled_id: int
    result: Payload = None


class SubOrchestrationInstanceFailed(Fact, tag=11):
    """A sub-orchestration failed for good."""

    task_scheduled_id: int
    failure_details: FailureDetails


class TimerCreated(Decided, tag=12):
    """A timer was asked for."""

    fire_at_microseconds: int
    site: str = ""

    @property
    def fire_at(self) -> datetime:
        return to_datetime(self.fire_at_microseconds)


class TimerFired(Fact, tag=13):
    """A timer's time has come."""

    timer_id: int
    fire_at_microseconds: int

    @property
    def fire_at(self) -> datetime:
        return to_datetime(self.fire_at_microseconds)


class OrchestratorStarted(Fact, tag=14):
    """An episode begins; its time is what `current_utc_datetime` shows during the episode."""

    now_microseconds: int


class OrchestratorCompleted(Fact, tag=15):
    """An episode ended: the protocol's, and never written by us, whose pieces say so by ending."""


class EventSent(Decided, tag=16):
    """An event was sent to another instance."""

    instance_id: str
    name: str
    input: Payload = None
    site: str = ""


class EventRaised(Fact, tag=17):
    """An event came from outside."""

    name: str
    input: Payload = None


class GenericEvent(Fact, tag=18):
    """A text of whoever wrote it: the protocol's, for what has no kind of its own."""

    data: str | None = None


class ContinueAsNew(Fact, tag=20):
    """The protocol's; ours are `ExecutionCompleted` events with the status CONTINUED_AS_NEW."""

    input: Payload = None


class ExecutionSuspended(Fact, tag=21):
    """Somebody asked that the orchestrator run no further, with the reason in `input`."""

    input: Payload = None


class ExecutionResumed(Fact, tag=22):
    """Somebody asked that a suspended orchestrator go on."""

    input: Payload = None


# ---- the protocol's kinds about entities. Sent, they have the sender's action id and a target; received, -1 and none.


class EntityOperationSignaled(Decided, tag=23):
    """An operation was asked for, and nobody waits for its result. It is performed at `scheduled_time`, where it has one."""

    request_id: str
    operation: str
    scheduled_time_microseconds: int | None = None
    input: Payload = None
    target_instance_id: str | None = None
    site: str = ""

    @property
    def scheduled_time(self) -> datetime | None:
        return None if self.scheduled_time_microseconds is None else to_datetime(self.scheduled_time_microseconds)


class EntityOperationCalled(Decided, tag=24):
    """An operation was asked for, and the parent waits for its result under `request_id`."""

    request_id: str
    operation: str
    scheduled_time_microseconds: int | None = None
    input: Payload = None
    parent_instance_id: str | None = None
    parent_execution_id: str | None = None
    target_instance_id: str | None = None
    site: str = ""


class EntityOperationCompleted(Fact, tag=25):
    """An operation that was called has its result. `target_instance_id` and `target_execution_id` (ours) say whom the entity told."""

    request_id: str
    output: Payload = None
    target_instance_id: str | None = None
    target_execution_id: str | None = None


class EntityOperationFailed(Fact, tag=26):
    """An operation failed and changed nothing. Without a target it was a signal, whose failure nobody waits for; `operation` (ours) names it."""

    request_id: str
    failure_details: FailureDetails
    target_instance_id: str | None = None
    target_execution_id: str | None = None
    operation: str = ""


class EntityLockRequested(Decided, tag=27):
    """A critical section asked for the lock of `lock_set[position]`; all requests of a section have one `event_id`."""

    critical_section_id: str
    lock_set: list[str]
    position: int
    parent_instance_id: str | None = None
    parent_execution_id: str | None = None
    site: str = ""


class EntityLockGranted(Fact, tag=28):
    """The critical section has the lock of its entity at `position` (ours)."""

    critical_section_id: str
    position: int = 0
    target_instance_id: str | None = None
    target_execution_id: str | None = None


class EntityUnlockSent(Decided, tag=29):
    """A critical section gave up the lock, or its place in the line for it."""

    critical_section_id: str
    parent_instance_id: str | None = None
    target_instance_id: str | None = None
    site: str = ""


class ExecutionRewound(Fact, tag=30):
    """What is before this was kept of the execution `execution_id`, which had failed; its events from the number `from_event` on were left behind.

    All but `reason` is ours. Retries of what is open begin anew; `children` says which instances are at the sub-orchestrations that are open.
    """

    reason: str = ""
    execution_id: str = ""
    from_event: int = 0
    children: list[ChildNow] = []


# ---- our extensions --------------------------------------------------------------------------------------------


class TimerCanceled(Unnumbered, tag=100):
    """The orchestrator dropped a timer."""

    timer_id: int
    site: str = ""


class TaskAttemptFailed(Fact, tag=101):
    """An attempt failed and another follows at `retry_at`: decided once, when it failed."""

    task_scheduled_id: int
    attempt: int
    failure_details: FailureDetails
    retry_at_microseconds: int

    @property
    def retry_at(self) -> datetime:
        return to_datetime(self.retry_at_microseconds)


class TaskCanceled(Unnumbered, tag=102):
    """The orchestrator gave up waiting for an activity or a sub-orchestration, and asked for it to stop."""

    task_scheduled_id: int
    site: str = ""


class CustomStatusSet(Unnumbered, tag=103):
    """The custom status is another from here on."""

    custom_status: Payload = None


class SubOrchestrationAttemptFailed(Fact, tag=104):
    """A child failed and another takes its place at `retry_at`, under an id of its own."""

    task_scheduled_id: int
    attempt: int
    failure_details: FailureDetails
    retry_at_microseconds: int


class SubOrchestrationRetried(Fact, tag=105):
    """The next attempt of a sub-orchestration was started as `instance_id`."""

    task_scheduled_id: int
    attempt: int
    instance_id: str
    execution_id: str


class ExecutionCancelRequested(Fact, tag=106):
    """Somebody asked the orchestrator to end itself, with the reason in `input`."""

    input: Payload = None


class ExecutionReplaced(Fact, tag=107):
    """Somebody started a new execution in this one's place; `start` is the new one's first events, as stored."""

    start: bytes
    input: Payload = None


class EntityStateSet(Unnumbered, tag=120):
    """The state of an entity after the operations of an episode; None where it has none any more."""

    state: Payload = None


class EntityLocked(Fact, tag=121):
    """Who holds the entity, where its execution continues another."""

    critical_section_id: str
    parent_instance_id: str
    parent_execution_id: str


class EntityRemovalRequested(Fact, tag=122):
    """The entity is removed if it is empty: no state, no lock, nothing that waits."""


class EntityFoundEmpty(Unnumbered, tag=124):
    """The entity had nothing to lose when it was asked to go: it goes, unless a message has come for it meanwhile."""


class OrchestrationScheduled(Unnumbered, tag=123):
    """An operation of an entity started an orchestration, which has no parent."""

    instance_id: str
    name: str
    input: Payload = None
    execution_id: str = ""
    version: str | None = None
    tags: dict[str, str] | None = None


class CompensationFailed(Fact, tag=130):
    """An attempt to undo failed and was the last: the instance is parked after it. The task stays open, and runs again when the instance goes on."""

    task_scheduled_id: int
    attempt: int
    failure_details: FailureDetails


class InstanceStarted(Unnumbered, tag=131):
    """An instance was started that is nobody's child; where its id was taken, nothing was. Its input stands in its own history."""

    instance_id: str
    name: str
    execution_id: str = ""
    version: str | None = None
    end_event: str = ""


class InstanceAsked(Unnumbered, tag=132):
    """Another instance was asked to end; `request` is "cancel" or "terminate". Where it is a child it is named by its task, which stays open."""

    instance_id: str
    request: str
    task_scheduled_id: int = 0


class PatchMarked(Unnumbered, tag=160):
    """From here on the execution runs the code as the patch of the name has it: it came to the place when the patch was there."""

    name: str
    site: str = ""


class ExecutionForked(Fact, tag=140):
    """What is before this is that of another instance, `instance_id`, in its execution `execution_id`, up to its event `to_event`.

    `edited` are the tasks whose results are others than there; `children` as for `ExecutionRewound`.
    """

    instance_id: str
    execution_id: str
    to_event: int
    reason: str = ""
    edited: list[int] = []
    children: list[ChildNow] = []


class ParentRewound(Fact, tag=141):
    """The parent goes on in another execution: that is told of the end."""

    instance_id: str
    execution_id: str


class SagaUndone(Unnumbered, tag=142):
    """A saga began to undo what it had done: all that was asked for since the action `first_id`."""

    first_id: int


# ---- maps ------------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """Some calls of a map, for so many items: the payloads of the calls, together as one payload."""

    calls: int
    items: int
    payloads: Payload


class MapItemFailed(Struct, array_like=True):
    """A call of a map failed: for good, or with another attempt at `retry_at`, decided when it was taken in.

    On its way there `attempt` may be 0, for the present one, and `retry_after_microseconds` is what the call itself asked for. The number -1 is
    that of the activity that gives the pages. A `retry_at` of -1 is that of a call that failed while its map was stopping: it is neither tried
    again nor counted as failed.
    """

    number: int
    attempt: int
    failure_details: FailureDetails
    retry_at_microseconds: int | None = None
    retry_after_microseconds: int | None = None


# Where a client's `history()` hands an event to a user, the items themselves.
if TYPE_CHECKING:
    Blocks: TypeAlias = Any
else:
    Blocks = list[Block]


class MapScheduled(Decided, tag=110):
    """An activity or orchestrator was asked for, once for each of `count` items or `batch_size` of them.

    With `pages`, the name of an activity, more items follow: it is asked for them, page by page, beginning with `cursor`.
    """

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


class MapProgress(Fact, tag=111):
    """Calls of a map have ended: those with `numbers` have `results`, in the same order; others have failed."""

    task_scheduled_id: int
    numbers: list[int]
    results: list[Payload]
    failures: list[MapItemFailed]


class MapPage(Fact, tag=112):
    """The page `number` (from 0) of a map's items has come; `cursor` is what the next is asked for with, None after the last."""

    task_scheduled_id: int
    number: int
    items: Blocks
    count: int
    cursor: Payload = None
    batch_size: int | None = None


class MapRetried(Fact, tag=113):
    """The wait of sub-orchestrations of a map is over: they may begin again."""

    task_scheduled_id: int
    numbers: list[int]


class MapStopped(Unnumbered, tag=114):
    """A map was asked to stop: nothing more of it begins, and children that are at work are asked to cancel. The task stays open."""

    task_scheduled_id: int


class MapDrained(Fact, tag=115):
    """Nothing is at work any more for a map that was asked to stop: it is over."""

    task_scheduled_id: int


# ---- what is recorded in passing -------------------------------------------------------------------------------


class ValueRecorded(Decided, tag=150):
    """`ctx.record` called a function, under `name`, which returned the value or failed: what it came to then, it comes to on every replay."""

    name: str
    value: Payload = None
    failure_details: FailureDetails | None = None
    site: str = ""


class HeartbeatRecorded(Fact, tag=151):
    """An activity said how far it has come: `detail` is what its next attempt will be told. Of a map it is the call with the number `call`."""

    task_scheduled_id: int
    attempt: int
    detail: Payload
    call: int | None = None


# ---- storing and reading ---------------------------------------------------------------------------------------


def _kinds() -> dict[int, type[HistoryEvent]]:
    found: dict[int, type[HistoryEvent]] = {}
    for branch in (Fact, Decided, Unnumbered):
        for cls in branch.__subclasses__():
            tag = cls.__struct_config__.tag
            assert isinstance(tag, int)  # noqa: S101 - every kind has its number
            cls.kind = tag
            found[tag] = cls
    return found


KINDS = _kinds()
_encoder = msgspec.msgpack.Encoder()
_Any: TypeAlias = Union[tuple(KINDS.values())]  # type: ignore[valid-type]  # noqa: UP007 - known when the module is read
_decoder: msgspec.msgpack.Decoder[list[HistoryEvent]] = msgspec.msgpack.Decoder(list[_Any])
_pieces_decoder: msgspec.msgpack.Decoder[list[list[HistoryEvent]]] = msgspec.msgpack.Decoder(list[list[_Any]])
_ARRAY = b"\xdd"  # with a length of four bytes


def encode(events: Sequence[HistoryEvent]) -> bytes:
    """The events as they are stored.

    Raises:
        InvalidArgumentError: a text in them is no Unicode, or a whole number has more than 64 bits.
    """
    try:
        return _encoder.encode(events)
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{error.object!a:.300} has a lone surrogate, and is no Unicode text") from error
    except OverflowError as error:
        raise InvalidArgumentError(f"an event has a number that cannot be stored: {error}") from error


def decode(chunk: bytes) -> list[HistoryEvent]:
    """The events of a stored chunk.

    Raises:
        StoreCorruptError: the bytes are no chunk that `encode` made.
    """
    try:
        return _decoder.decode(chunk)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreCorruptError(f"a stored piece of history is damaged: {error}") from error


def decode_pieces(pieces: bytes, count: int) -> list[list[HistoryEvent]]:
    """The events of so many stored pieces of history, which come one behind the other, piece by piece.

    Raises:
        StoreCorruptError: they are not so many pieces that episodes wrote.
    """
    try:
        found = _pieces_decoder.decode(_ARRAY + count.to_bytes(4, "big") + pieces)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreCorruptError(f"a stored history of {count} pieces is damaged: {error}") from error
    for number, piece in enumerate(found):
        if not piece or type(piece[0]) is not OrchestratorStarted:
            raise StoreCorruptError(
                f"piece {number + 1} of {count} of a stored history does not begin with an episode's time"
            )
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
        case MapStopped():
            return f"stopping the map of task {event.task_scheduled_id}"
        case InstanceStarted():
            return f"instance '{event.instance_id}' of '{event.name}'"
        case InstanceAsked():
            whom = f"task {event.task_scheduled_id}" if event.task_scheduled_id else f"instance '{event.instance_id}'"
            return f"asking {whom} to {event.request}"
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
        case ValueRecorded():
            return f"recorded value '{event.name}' (task {event.event_id})"
        case PatchMarked():
            return f"patch '{event.name}'"
        case ExecutionCompleted():
            return f"the end, {event.orchestration_status}"
        case _:
            return type(event).__name__


def microseconds(duration: timedelta | None) -> int | None:
    """The duration as events store it."""
    return None if duration is None else duration // timedelta(microseconds=1)
