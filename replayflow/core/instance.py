"""The instance: the fold of its history, and the one table of its statuses.

1. An instance is exactly what its events say (I1): `apply` is the only way to change one, and reads nothing else.
2. Every change of status is a row of `TRANSITIONS`; a terminal status has no row, and so no way out (I8).
3. What is due next is at the top of a heap; entries whose timer or retry is gone are dropped when they come up. Nothing is scanned.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec.structs import replace

from replayflow.codec import Payload
from replayflow.core import events, ids
from replayflow.core.events import (
    ExecutionStarted,
    HistoryEvent,
    OrchestratorStarted,
    SubOrchestrationInstanceCreated,
    TaskCompleted,
    TaskScheduled,
)
from replayflow.core.map.mapping import NEVER, OpenMap
from replayflow.core.nothing import NOTHING
from replayflow.errors import FailureDetails


class Status(StrEnum):
    """What an instance is doing, by the names of the Durable Task protocol. CONTINUED_AS_NEW occurs in histories only."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TERMINATED = "TERMINATED"
    CANCELED = "CANCELED"
    CONTINUED_AS_NEW = "CONTINUED_AS_NEW"

    is_finished: bool
    text: str
    """The value, as the plain text that it is: asked for by its own name it is worked out anew each time."""

    def __init__(self, value: str) -> None:
        # Worked out once: a set of enum members hashes them in Python, and this is asked at every turn.
        self.is_finished = value not in ("PENDING", "RUNNING", "SUSPENDED")
        self.text = value


# By names of their own: to look a member of an enum up costs ten times as much as to compare with it, and this is done for every event.
PENDING, RUNNING, SUSPENDED = Status.PENDING, Status.RUNNING, Status.SUSPENDED
COMPLETED, FAILED = Status.COMPLETED, Status.FAILED
TERMINATED, CANCELED, CONTINUED_AS_NEW = Status.TERMINATED, Status.CANCELED, Status.CONTINUED_AS_NEW
STATUSES: dict[str, Status] = {status.value: status for status in Status}
_FINISHED = frozenset(status for status in Status if status.is_finished)
_ENDS: dict[tuple[Status, type[HistoryEvent], Status | None], Status] = {
    (open_status, events.ExecutionCompleted, end): end
    for open_status in (Status.PENDING, Status.RUNNING, Status.SUSPENDED)
    for end in _FINISHED
}
# (status, event, what an end says) -> status. What has no row changes nothing: a second suspension, say, is recorded and has no effect.
TRANSITIONS: dict[tuple[Status, type[HistoryEvent], Status | None], Status] = {
    (Status.PENDING, events.ExecutionStarted, None): Status.RUNNING,
    (Status.RUNNING, events.ExecutionSuspended, None): Status.SUSPENDED,
    (Status.SUSPENDED, events.ExecutionResumed, None): Status.RUNNING,
    **_ENDS,
}


@dataclass(slots=True)
class Child:
    """An open sub-orchestration: what was asked for, and the instance that is at it now."""

    created: SubOrchestrationInstanceCreated
    instance_id: str
    execution_id: str
    attempt: int = 1
    is_asked_to_end: bool = False
    """So that it is not tried again."""
    base_id: str = ""
    """What the ids of further attempts are made of, where it is not the first one's: after a rewind, and in a fork, those are taken."""


TIMER, TASK_RETRY, CHILD_RETRY, MAP_RETRY = range(4)


class Alarm(NamedTuple):
    """Something to do for an instance at a time, in microseconds: `kind` says what, `id` is the task's."""

    at: int
    kind: int
    id: int


class Instance:
    """One execution of an instance, as its history so far tells it."""

    __slots__ = (
        "_due",
        "attempts",
        "children",
        "custom_status",
        "failure",
        "heartbeats",
        "is_finished",
        "locks",
        "maps",
        "now",
        "output",
        "retrying",
        "retrying_children",
        "runnable_maps",
        "scheduled_at",
        "started",
        "status",
        "tasks",
        "timers",
    )

    def __init__(self) -> None:
        self.started: ExecutionStarted | None = None
        self.status = PENDING
        self.is_finished = False
        self.now = 0
        self.tasks: dict[int, TaskScheduled] = {}
        self.timers: dict[int, int] = NOTHING
        self.children: dict[int, Child] = NOTHING
        self.maps: dict[int, OpenMap] = NOTHING
        self.runnable_maps = 0
        # Only tasks with a retry policy have entries in these four.
        self.attempts: dict[int, int] = NOTHING
        self.scheduled_at: dict[int, int] = NOTHING
        self.retrying: dict[int, int] = NOTHING
        self.retrying_children: dict[int, int] = NOTHING
        self.heartbeats: dict[int, Payload] = NOTHING
        """The last detail that open activities have told; those of closed ones go when another comes."""
        self.custom_status: Payload = None
        self.output: Payload = None
        self.failure: FailureDetails | None = None
        self.locks: dict[str, list[str]] | None = None
        """By critical section: the entities of which it has, or has asked for, the lock. None where no lock was ever asked for."""
        self._due: list[tuple[int, int, int]] | None = None

    def apply(self, event: HistoryEvent) -> None:
        """The event has happened."""
        applied = _APPLY.get(type(event))
        if applied is not None:
            applied(self, event)

    def apply_all(self, past: Iterable[HistoryEvent]) -> Instance:
        """All of the events have happened."""
        tasks = self.tasks
        for event in past:
            if type(event) is TaskCompleted:  # these three are nearly all that a long history has
                task = tasks.pop(event.task_scheduled_id, None)
                if task is not None and task.retry is not None:
                    self.forget_retries(task.event_id)
            elif type(event) is TaskScheduled:
                tasks[event.event_id] = event
                if event.retry is not None:
                    self._follow(event.event_id)
            elif type(event) is OrchestratorStarted:
                self.now = event.now_microseconds
            else:
                self.apply(event)
        return self

    def apply_pieces(self, pieces: Iterable[Sequence[HistoryEvent]]) -> None:
        """Whole episodes have happened."""
        tasks = self.tasks
        now = self.now
        begins: Any  # the episode's time, as in every piece
        last: TaskScheduled | None = None  # open, and not among the tasks: mostly the next piece completes it
        for piece in pieces:
            if len(piece) == 3:
                begins, came, asked = piece
                if type(asked) is TaskScheduled and type(came) is TaskCompleted and asked.retry is None:
                    # One activity after another: what most long histories are made of. As in `apply_all`, spelled out.
                    if last is None or came.task_scheduled_id != last.event_id:
                        if last is not None:
                            tasks[last.event_id] = last
                        self._close_task(came.task_scheduled_id)
                    last = asked
                    now = begins.now_microseconds
                    continue
            self.now = now
            if last is not None:
                tasks[last.event_id] = last
                last = None
            self.apply_all(piece)
            now = self.now
        self.now = now
        if last is not None:
            tasks[last.event_id] = last

    def next_due(self) -> int | None:
        """When the next timer fires or the next retry begins, in microseconds; None where none is open.

        A retry stays set while its attempt runs, so that a worker that takes over finds it due.
        """
        due = self._due
        while due:
            at, what, id = due[0]
            if self._is_open(at, what, id):
                return at
            heapq.heappop(due)
        return None

    def wake_at(self) -> int | None:
        """When a worker has to look at the instance, if no message comes: 0 for at once (an activity is open), None for never."""
        if self.is_finished:
            return None
        if self.status is PENDING or len(self.tasks) > len(self.retrying) or self.runnable_maps:
            return 0
        return None if self.status is SUSPENDED else self.next_due()

    def alarms(self) -> Iterator[Alarm]:
        """Every open timer and every retry that is set: what has to be done when its time has come."""
        for id, at in self.timers.items():
            yield Alarm(at, TIMER, id)
        for id, at in self.retrying.items():
            yield Alarm(at, TASK_RETRY, id)
        for id, at in self.retrying_children.items():
            yield Alarm(at, CHILD_RETRY, id)
        for id, open in self.maps.items():
            for at in open.rings:
                yield Alarm(at, MAP_RETRY, id)

    def rings(self, alarm: Alarm) -> bool:
        """Whether what the alarm was set for is still open."""
        return self._is_open(alarm.at, alarm.kind, alarm.id)

    def _is_open(self, at: int, what: int, id: int) -> bool:
        if what == TIMER:
            return self.timers.get(id) == at
        if what == MAP_RETRY:
            return id in self.maps and at in self.maps[id].rings
        retrying = self.retrying if what == TASK_RETRY else self.retrying_children
        return retrying.get(id) == at

    def _set(self, at: int, what: int, id: int) -> None:
        if self._due is None:
            self._due = []
        heapq.heappush(self._due, (at, what, id))

    def _move(self, event: HistoryEvent, end: Status | None = None) -> None:
        self.status = TRANSITIONS.get((self.status, type(event), end), self.status)
        self.is_finished = self.status.is_finished

    # ---- one method a kind

    def _orchestrator_started(self, event: events.OrchestratorStarted) -> None:
        self.now = event.now_microseconds

    def _execution_started(self, event: events.ExecutionStarted) -> None:
        self.started = event
        self._move(event)

    def _execution_completed(self, event: events.ExecutionCompleted) -> None:
        self._move(event, STATUSES[event.orchestration_status])
        self.output = event.result
        self.failure = event.failure_details

    def task_scheduled(self, event: events.TaskScheduled) -> None:
        """`apply` for what nearly every event is."""
        self.tasks[event.event_id] = event
        if event.retry is not None:
            self._follow(event.event_id)

    def _follow(self, id: int) -> None:
        """The task with that id has a retry policy."""
        self._own_retries()
        self.scheduled_at[id] = self.now

    def _own_retries(self) -> None:
        if self.scheduled_at is NOTHING:
            self.attempts, self.scheduled_at, self.retrying, self.retrying_children = {}, {}, {}, {}

    def _task_ended(self, event: events.TaskCompleted | events.TaskFailed) -> None:
        self._close_task(event.task_scheduled_id)

    def _task_canceled(self, event: events.TaskCanceled) -> None:
        self._close_task(event.task_scheduled_id)
        self._close_child(event.task_scheduled_id)
        self._close_map(event.task_scheduled_id)

    def _close_task(self, id: int) -> None:
        task = self.tasks.pop(id, None)
        if task is not None and task.retry is not None:
            self.forget_retries(id)

    def forget_retries(self, id: int) -> None:
        """The task with that id, which had a retry policy, is no longer open."""
        self.attempts.pop(id, None)
        self.retrying.pop(id, None)
        self.scheduled_at.pop(id, None)

    def _task_attempt_failed(self, event: events.TaskAttemptFailed) -> None:
        self._own_retries()
        self.attempts[event.task_scheduled_id] = event.attempt
        self.retrying[event.task_scheduled_id] = event.retry_at_microseconds
        self._set(event.retry_at_microseconds, TASK_RETRY, event.task_scheduled_id)

    def is_heard(self, event: events.HeartbeatRecorded) -> bool:
        """Whether somebody may want to know: whether the task, or the call of the map, is open."""
        if self.is_finished:
            return False
        if event.call is None:
            return event.task_scheduled_id in self.tasks
        open = self.maps.get(event.task_scheduled_id)
        return open is not None and not open.is_settled(event.call)

    def _heartbeat_recorded(self, event: events.HeartbeatRecorded) -> None:
        id = event.task_scheduled_id
        if event.call is not None:
            self.maps[id].hear(event.call, event.detail)
            return
        # That an activity ends happens more often than anything else, and does not look here.
        self.heartbeats = {known: told for known, told in self.heartbeats.items() if known in self.tasks}
        self.heartbeats[id] = event.detail

    def _compensation_failed(self, event: events.CompensationFailed) -> None:
        self._own_retries()
        self.attempts[event.task_scheduled_id] = event.attempt
        self.retrying.pop(event.task_scheduled_id, None)

    def _child_created(self, event: events.SubOrchestrationInstanceCreated) -> None:
        if self.children is NOTHING:
            self.children = {}
        self.children[event.event_id] = Child(event, event.instance_id, event.execution_id)
        if event.retry is not None:
            self._follow(event.event_id)

    def _asked(self, event: events.InstanceAsked) -> None:
        child = self.children.get(event.task_scheduled_id)
        if child is not None:
            child.is_asked_to_end = True

    def _child_ended(
        self, event: events.SubOrchestrationInstanceCompleted | events.SubOrchestrationInstanceFailed
    ) -> None:
        self._close_child(event.task_scheduled_id)

    def _close_child(self, id: int) -> None:
        child = self.children.pop(id, None)
        if child is not None and child.created.retry is not None:
            self.retrying_children.pop(id, None)
            self.scheduled_at.pop(id, None)

    def _child_attempt_failed(self, event: events.SubOrchestrationAttemptFailed) -> None:
        self._own_retries()
        self.retrying_children[event.task_scheduled_id] = event.retry_at_microseconds
        self._set(event.retry_at_microseconds, CHILD_RETRY, event.task_scheduled_id)

    def _child_retried(self, event: events.SubOrchestrationRetried) -> None:
        self.retrying_children.pop(event.task_scheduled_id, None)
        child = self.children.get(event.task_scheduled_id)
        if child is not None:
            child.instance_id, child.execution_id, child.attempt = event.instance_id, event.execution_id, event.attempt

    def _map_scheduled(self, event: events.MapScheduled) -> None:
        open = OpenMap(event)
        if not open.is_closed:
            if self.maps is NOTHING:
                self.maps = {}
            self.maps[event.event_id] = open
            self.runnable_maps += open.is_runnable

    def _map_moved(self, event: events.MapProgress | events.MapPage | events.MapRetried) -> None:
        open = self.maps.get(event.task_scheduled_id)
        if open is None:
            return
        was_runnable = open.is_runnable
        open.apply(event, self.now)
        self.runnable_maps += open.is_runnable - was_runnable
        if isinstance(event, events.MapProgress):
            for failure in event.failures:
                at = failure.retry_at_microseconds
                if at is not None and at != NEVER:
                    self._set(at, MAP_RETRY, open.id)
        if open.is_closed:
            self._close_map(open.id)

    def _map_stopped(self, event: events.MapStopped) -> None:
        open = self.maps.get(event.task_scheduled_id)
        if open is not None:
            was_runnable = open.is_runnable
            open.stop()
            self.runnable_maps += open.is_runnable - was_runnable

    def _map_drained(self, event: events.MapDrained) -> None:
        self._close_map(event.task_scheduled_id)

    def _close_map(self, id: int) -> None:
        open = self.maps.pop(id, None)
        if open is not None:
            self.runnable_maps -= open.is_runnable
            open.is_closed = True

    def _timer_created(self, event: events.TimerCreated) -> None:
        if self.timers is NOTHING:
            self.timers = {}
        self.timers[event.event_id] = event.fire_at_microseconds
        self._set(event.fire_at_microseconds, TIMER, event.event_id)

    def _timer_fired(self, event: events.TimerFired) -> None:
        self.timers.pop(event.timer_id, None)

    def _timer_canceled(self, event: events.TimerCanceled) -> None:
        self.timers.pop(event.timer_id, None)

    def _lock_requested(self, event: events.EntityLockRequested) -> None:
        if event.event_id < 0:
            return  # this is the entity, which was asked
        if self.locks is None:
            self.locks = {}
        self.locks.setdefault(event.critical_section_id, []).append(event.lock_set[event.position])

    def _unlock_sent(self, event: events.EntityUnlockSent) -> None:
        held = None if self.locks is None else self.locks.get(event.critical_section_id)
        if held is not None and event.target_instance_id in held:
            held.remove(event.target_instance_id)

    def _begun_anew(self, event: events.ExecutionRewound | events.ExecutionForked) -> None:
        """What is open is tried as if for the first time, and other instances may be at its sub-orchestrations."""
        if self.scheduled_at is not NOTHING:
            self.attempts.clear()
            self.retrying.clear()
            self.retrying_children.clear()
            for id in self.scheduled_at:
                self.scheduled_at[id] = self.now
        for id, child in self.children.items():
            started = self.started
            assert started is not None  # noqa: S101 - what has called children has started
            child.attempt, child.is_asked_to_end = 1, False
            child.base_id = ids.child_id(started.instance_id, started.execution_id, id, False)
        for now in event.children:
            if now.number is not None:
                self.maps[now.task_scheduled_id].reassign(now.number, now.instance_id, now.execution_id)
            else:
                child = self.children[now.task_scheduled_id]
                child.instance_id, child.execution_id = now.instance_id, now.execution_id

    def _parent_rewound(self, event: events.ParentRewound) -> None:
        started = self.started
        parent = None if started is None else started.parent_instance
        if started is not None and parent is not None and parent.instance_id == event.instance_id:
            self.started = replace(started, parent_instance=replace(parent, execution_id=event.execution_id))

    def _custom_status_set(self, event: events.CustomStatusSet) -> None:
        self.custom_status = event.custom_status


_APPLY: dict[type[HistoryEvent], Callable[[Instance, Any], None]] = {
    events.TaskScheduled: Instance.task_scheduled,
    events.TaskCompleted: Instance._task_ended,
    events.TaskFailed: Instance._task_ended,
    events.TaskCanceled: Instance._task_canceled,
    events.TaskAttemptFailed: Instance._task_attempt_failed,
    events.CompensationFailed: Instance._compensation_failed,
    events.HeartbeatRecorded: Instance._heartbeat_recorded,
    events.InstanceAsked: Instance._asked,
    events.OrchestratorStarted: Instance._orchestrator_started,
    events.ExecutionStarted: Instance._execution_started,
    events.ExecutionCompleted: Instance._execution_completed,
    events.ExecutionSuspended: Instance._move,
    events.ExecutionResumed: Instance._move,
    events.SubOrchestrationInstanceCreated: Instance._child_created,
    events.SubOrchestrationInstanceCompleted: Instance._child_ended,
    events.SubOrchestrationInstanceFailed: Instance._child_ended,
    events.SubOrchestrationAttemptFailed: Instance._child_attempt_failed,
    events.SubOrchestrationRetried: Instance._child_retried,
    events.MapScheduled: Instance._map_scheduled,
    events.MapProgress: Instance._map_moved,
    events.MapPage: Instance._map_moved,
    events.MapRetried: Instance._map_moved,
    events.MapStopped: Instance._map_stopped,
    events.MapDrained: Instance._map_drained,
    events.TimerCreated: Instance._timer_created,
    events.TimerFired: Instance._timer_fired,
    events.TimerCanceled: Instance._timer_canceled,
    events.CustomStatusSet: Instance._custom_status_set,
    events.ExecutionRewound: Instance._begun_anew,
    events.ExecutionForked: Instance._begun_anew,
    events.ParentRewound: Instance._parent_rewound,
    events.EntityLockRequested: Instance._lock_requested,
    events.EntityUnlockSent: Instance._unlock_sent,
}
