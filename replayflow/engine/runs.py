"""A run: one attempt of one activity, and how its function is called."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from replayflow.codec import Payload
from replayflow.core.activity_context import ActivityContext
from replayflow.core.definitions import ActivityDefinition
from replayflow.core.events import TaskScheduled
from replayflow.engine.heartbeats import Pulse
from replayflow.engine.lines import Line
from replayflow.engine.watch import Watch

_making = threading.Lock()


class Run(Struct, eq=False):
    """One attempt of one activity."""

    instance_id: str
    execution_id: str
    task: TaskScheduled
    plan: Plan
    attempt: int
    is_abandoned: bool = False
    handle: asyncio.Task[None] | Future[Any] | None = None
    """What has to be cancelled to cancel the run: the task in which an async one waits, the future of one in a process."""
    watch: Watch | None = None
    told: Payload = None
    """The last heartbeat of the attempts before."""
    inherited_key: str | None = None
    """The idempotency key, where another execution asked for it."""

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def idempotency_key(self) -> str:
        return self.inherited_key or f"{self.instance_id}/{self.execution_id}/{self.task.event_id}"

    def context(self) -> ActivityContext:
        return ActivityContext(
            instance_id=self.instance_id,
            task_id=self.task.event_id,
            attempt=self.attempt,
            idempotency_key=self.idempotency_key,
            name=self.task.name,
            is_cancelled=lambda: self.is_abandoned,
            heart=self,
        )

    def beat(self, detail: object) -> None:
        """As `ActivityContext.heartbeat`. The heart is made with the first beat: most activities that take a context never give one."""
        self.plan.pulse_of(self).beat(detail)

    def last(self) -> Any:
        """As `ActivityContext.last_heartbeat`."""
        return None if self.told is None else self.plan.pulse_of(self).last()


@dataclass(slots=True)
class Plan:
    """How to call one activity, worked out once."""

    definition: ActivityDefinition
    fn: Callable[..., Any]
    decode: Callable[[Any], Any]
    result_of: str
    line: Line[Run]
    door: Line[Run]
    """Where a run begins to wait: the line, or a gate before it."""
    takes_just_input: bool
    heartbeat_seconds: float | None
    new_pulse: Callable[[Run], Pulse[Run]]

    def arguments(self, run: Run) -> tuple[Any, ...]:
        """What the function is called with."""
        definition = self.definition
        if definition.takes_input:
            value = self.decode(run.task.input)
            return (run.context(), value) if definition.takes_context else (value,)
        return (run.context(),) if definition.takes_context else ()

    def pulse_of(self, run: Run) -> Pulse[Run]:
        """The heart of the run, asked for in any thread."""
        watch = run.watch
        if watch is not None and watch.pulse is not None:
            return watch.pulse
        with _making:
            watch = run.watch
            if watch is None:
                watch = run.watch = Watch()
            if watch.pulse is None:
                watch.pulse = self.new_pulse(run)
            return watch.pulse
