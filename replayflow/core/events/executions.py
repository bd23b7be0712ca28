"""An execution: how it begins, in which episodes it runs, what it is told as a whole, how it ends, and what it continues."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct, field

from replayflow.clock import to_datetime
from replayflow.core.events.base import Decided, Fact, Payload, Unnumbered
from replayflow.errors import FailureDetails


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


class OrchestratorStarted(Fact, tag=14):
    """An episode begins; its time is what `current_utc_datetime` shows during the episode."""

    now_microseconds: int


class OrchestratorCompleted(Fact, tag=15):
    """An episode ended: the protocol's, and never written by us, whose pieces say so by ending."""


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


class ExecutionRewound(Fact, tag=30):
    """What is before this was kept of the execution `execution_id`, which had failed; its events from the number `from_event` on were left behind.

    All but `reason` is ours. Retries of what is open begin anew; `children` says which instances are at the sub-orchestrations that are open.
    """

    reason: str = ""
    execution_id: str = ""
    from_event: int = 0
    children: list[ChildNow] = field(default_factory=list)


class CustomStatusSet(Unnumbered, tag=103):
    """The custom status is another from here on."""

    custom_status: Payload = None


class ExecutionCancelRequested(Fact, tag=106):
    """Somebody asked the orchestrator to end itself, with the reason in `input`."""

    input: Payload = None


class ExecutionReplaced(Fact, tag=107):
    """Somebody started a new execution in this one's place; `start` is the new one's first events, as stored."""

    start: bytes
    input: Payload = None


class ExecutionForked(Fact, tag=140):
    """What is before this is that of another instance, `instance_id`, in its execution `execution_id`, up to its event `to_event`.

    `edited` are the tasks whose results are others than there; `children` as for `ExecutionRewound`.
    """

    instance_id: str
    execution_id: str
    to_event: int
    reason: str = ""
    edited: list[int] = field(default_factory=list)
    children: list[ChildNow] = field(default_factory=list)


class ParentRewound(Fact, tag=141):
    """The parent goes on in another execution: that is told of the end."""

    instance_id: str
    execution_id: str


class PatchMarked(Unnumbered, tag=160):
    """From here on the execution runs the code as the patch of the name has it: it came to the place when the patch was there."""

    name: str
    site: str = ""
