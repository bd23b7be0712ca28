"""Actions: what an orchestrator decided, in the imperative; the executor hands them over at the end of an episode.

Kinds and fields are those of the Durable Task protocol (`OrchestratorAction`) in snake case, and what our extensions add. An action knows the
history event that records it (`record`), and whether a recorded event is the record of such an action (`fits`): that is how replay finds code that
no longer does what it did. The protocol's `ScheduleTask`, what is decided most, has no class of its own here: its record stands for it.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from replayflow.codec import Payload
from replayflow.core import events
from replayflow.core.entity.actions import EntityAction, SendEntityMessage
from replayflow.core.events import HistoryEvent
from replayflow.errors import FailureDetails
from replayflow.retry import RetryValues


class CreateSubOrchestration(Struct):
    id: int
    instance_id: str
    name: str
    input: Payload
    execution_id: str = ""
    version: str | None = None
    site: str = ""
    retry: RetryValues | None = None
    tags: dict[str, str] | None = None

    def record(self) -> events.SubOrchestrationInstanceCreated:
        return events.SubOrchestrationInstanceCreated(
            self.id,
            self.instance_id,
            self.name,
            self.input,
            self.execution_id,
            self.version,
            self.site,
            self.retry,
            self.tags,
        )

    def fits(self, event: HistoryEvent) -> bool:
        return (
            type(event) is events.SubOrchestrationInstanceCreated
            and event.event_id == self.id
            and event.name == self.name
        )


class ScheduleMap(Struct):
    """A map is asked for: `scheduled` is its record. Found again in a history, it is what that says, whatever the code would have now."""

    scheduled: events.MapScheduled

    @property
    def id(self) -> int:
        return self.scheduled.event_id

    @property
    def site(self) -> str:
        return self.scheduled.site

    def record(self) -> events.MapScheduled:
        return self.scheduled

    def fits(self, event: HistoryEvent) -> bool:
        now = self.scheduled
        return (
            type(event) is events.MapScheduled
            and event.event_id == now.event_id
            and event.name == now.name
            and event.is_orchestrator == now.is_orchestrator
        )


class StopMap(Struct):
    """Nothing more of the map begins, and what is at work for it comes to its end."""

    task_id: int
    site: str = ""

    def record(self) -> events.MapStopped:
        return events.MapStopped(self.task_id)

    def fits(self, event: HistoryEvent) -> bool:
        return type(event) is events.MapStopped and event.task_scheduled_id == self.task_id


class CreateTimer(Struct):
    id: int
    fire_at_microseconds: int
    site: str = ""

    def record(self) -> events.TimerCreated:
        return events.TimerCreated(self.id, self.fire_at_microseconds, self.site)

    def fits(self, event: HistoryEvent) -> bool:
        return type(event) is events.TimerCreated and event.event_id == self.id


class SendEvent(Struct):
    id: int
    instance_id: str
    name: str
    input: Payload
    site: str = ""

    def record(self) -> events.EventSent:
        return events.EventSent(self.id, self.instance_id, self.name, self.input, self.site)

    def fits(self, event: HistoryEvent) -> bool:
        return type(event) is events.EventSent and event.event_id == self.id and event.name == self.name


class CancelTimer(Struct):
    timer_id: int
    site: str = ""

    def record(self) -> events.TimerCanceled:
        return events.TimerCanceled(self.timer_id, self.site)

    def fits(self, event: HistoryEvent) -> bool:
        return type(event) is events.TimerCanceled and event.timer_id == self.timer_id


class CancelTask(Struct):
    task_id: int
    site: str = ""

    def record(self) -> events.TaskCanceled:
        return events.TaskCanceled(self.task_id, self.site)

    def fits(self, event: HistoryEvent) -> bool:
        return type(event) is events.TaskCanceled and event.task_scheduled_id == self.task_id


class StartInstance(Struct):
    """Start an instance that is nobody's child; with `end_event` its end is told to whoever decided this."""

    instance_id: str
    name: str
    input: Payload
    version: str | None = None
    tags: dict[str, str] | None = None
    end_event: str = ""
    execution_id: str = ""
    site: str = ""

    def record(self) -> events.InstanceStarted:
        return events.InstanceStarted(self.instance_id, self.name, self.execution_id, self.version, self.end_event)

    def fits(self, event: HistoryEvent) -> bool:
        return type(event) is events.InstanceStarted and event.name == self.name


class AskInstance(Struct):
    """Ask another instance to end: `request` is "cancel" or "terminate". With `task_id` it is the child that is at that task now."""

    instance_id: str
    request: str
    task_id: int = 0
    site: str = ""

    def record(self) -> events.InstanceAsked:
        return events.InstanceAsked(self.instance_id, self.request, self.task_id)

    def fits(self, event: HistoryEvent) -> bool:
        return (
            type(event) is events.InstanceAsked
            and event.request == self.request
            and event.task_scheduled_id == self.task_id
        )


class RecordValue(Struct):
    """What a function came to, called in passing. It is asked for before the function runs, and has the value afterwards."""

    id: int
    name: str
    site: str = ""
    value: Payload = None
    failure_details: FailureDetails | None = None

    def record(self) -> events.ValueRecorded:
        return events.ValueRecorded(self.id, self.name, self.value, self.failure_details, self.site)

    def fits(self, event: HistoryEvent) -> bool:
        return type(event) is events.ValueRecorded and event.event_id == self.id and event.name == self.name


class NoteUndoing(Struct):
    """A saga begins to undo what it did since the action `first_id`."""

    first_id: int

    def record(self) -> events.SagaUndone:
        return events.SagaUndone(self.first_id)


class SetCustomStatus(Struct):
    value: Payload

    def record(self) -> events.CustomStatusSet:
        return events.CustomStatusSet(self.value)


class MarkPatch(Struct):
    """From here on the code runs as the patch has it."""

    name: str
    site: str = ""

    def record(self) -> events.PatchMarked:
        return events.PatchMarked(self.name, self.site)


class CompleteOrchestration(Struct):
    """The execution ends. For CONTINUED_AS_NEW, `result` is the next one's input and `carryover_events` go with it."""

    id: int
    orchestration_status: str
    result: Payload = None
    failure_details: FailureDetails | None = None
    new_version: str | None = None
    carryover_events: tuple[HistoryEvent, ...] = ()
    site: str = ""

    def record(self) -> events.ExecutionCompleted:
        return events.ExecutionCompleted(
            self.id, self.orchestration_status, self.result, self.failure_details, self.site
        )


Matched: TypeAlias = (
    events.TaskScheduled
    | CreateSubOrchestration
    | ScheduleMap
    | StopMap
    | CreateTimer
    | SendEvent
    | CancelTimer
    | CancelTask
    | StartInstance
    | AskInstance
    | SendEntityMessage
    | RecordValue
)
Action: TypeAlias = Matched | NoteUndoing | SetCustomStatus | MarkPatch | CompleteOrchestration | EntityAction
