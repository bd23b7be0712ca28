"""What an orchestrator waits for, one by one: activities, sub-orchestrations, timers; and values that it records in passing."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from replayflow.clock import to_datetime
from replayflow.core.events.base import Decided, Fact, HistoryEvent, Payload, Unnumbered
from replayflow.errors import FailureDetails
from replayflow.retry import RetryValues


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


class HeartbeatRecorded(Fact, tag=151):
    """An activity said how far it has come: `detail` is what its next attempt will be told. Of a map it is the call with the number `call`."""

    task_scheduled_id: int
    attempt: int
    detail: Payload
    call: int | None = None


class CompensationFailed(Fact, tag=130):
    """An attempt to undo failed and was the last: the instance is parked after it. The task stays open, and runs again when the instance goes on."""

    task_scheduled_id: int
    attempt: int
    failure_details: FailureDetails


class SagaUndone(Unnumbered, tag=142):
    """A saga began to undo what it had done: all that was asked for since the action `first_id`."""

    first_id: int


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


class TimerCanceled(Unnumbered, tag=100):
    """The orchestrator dropped a timer."""

    timer_id: int
    site: str = ""


class ValueRecorded(Decided, tag=150):
    """`ctx.record` called a function, under `name`, which returned the value or failed: what it came to then, it comes to on every replay."""

    name: str
    value: Payload = None
    failure_details: FailureDetails | None = None
    site: str = ""
