"""What an execution waits for, from its history; and, where its code is at hand, which events it listens for.

1. What the fold has open is what is waited for (I1); since when, the times of the episodes say. Nothing else is read.
2. History has no fact for "waits for an event": that is known to the code alone. `Listening` runs it over the past, as any replay does, and changes
   nothing (I2).
3. A call of an entity that the code has given up leaves no trace in history: without the code it is shown until its answer has come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from replayflow.core.events import (
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EntityUnlockSent,
    ExecutionResumed,
    ExecutionSuspended,
    HistoryEvent,
    SubOrchestrationRetried,
    TimerCanceled,
    TimerCreated,
    TimerFired,
)
from replayflow.core.instance import Instance
from replayflow.core.replay import Replay
from replayflow.core.tasks import EventTask


class WaitKind(StrEnum):
    """What is waited for. The first four are the hub's matter, the others the orchestration's own."""

    WORKER = "worker"
    """Nobody serves the hub."""
    REPAIR = "repair"
    """The instance is parked with a problem."""
    RESUME = "resume"
    """It is suspended."""
    MESSAGE = "message"
    """Something has come for it that it has not taken in."""
    START = "start"
    ACTIVITY = "activity"
    RETRY = "retry"
    """Of an activity or a sub-orchestration that has failed."""
    TIMER = "timer"
    EVENT = "event"
    CHILD = "child"
    """A sub-orchestration."""
    MAP = "map"
    CALL = "call"
    """An operation of an entity."""
    LOCK = "lock"


class Open(Struct, frozen=True):
    """One thing that is waited for. Times are microseconds since 1970."""

    kind: WaitKind
    name: str
    since: int
    until: int | None = None
    task_id: int | None = None
    attempt: int | None = None
    """Of an activity or a child: which attempt runs; of a retry, which follows."""
    target: str | None = None
    """The id of the child or the entity."""
    site: str = ""
    progress: tuple[int, int, int] | None = None
    """Of a map: how many items are done, how many have failed, how many are known."""


class Waits:
    """The fold of a history that knows since when: the instance, and what it has asked of entities."""

    def __init__(self) -> None:
        self.instance = Instance()
        self.suspended_since: int | None = None
        self._since: dict[int, int] = {}
        self._retried_at: dict[int, int] = {}
        self._timers: dict[int, TimerCreated] = {}
        self._calls: dict[int, EntityOperationCalled] = {}
        self._locks: dict[tuple[str, str], tuple[EntityLockRequested, int]] = {}

    def take(self, piece: Sequence[HistoryEvent]) -> None:
        """One episode has happened."""
        for event in piece:
            self.instance.apply(event)
            if event.is_decision and event.event_id > 0:
                self._since[event.event_id] = self.instance.now
            match event:
                case ExecutionSuspended() if self.suspended_since is None:
                    self.suspended_since = self.instance.now
                case ExecutionResumed():
                    self.suspended_since = None
                case SubOrchestrationRetried():
                    self._retried_at[event.task_scheduled_id] = self.instance.now
                case TimerCreated():
                    self._timers[event.event_id] = event
                case TimerFired() | TimerCanceled():
                    self._timers.pop(event.timer_id, None)
                case EntityOperationCalled() if event.target_instance_id is not None:
                    self._calls[event.event_id] = event
                case EntityOperationCompleted() | EntityOperationFailed() if event.request_id.isdecimal():
                    self._calls.pop(int(event.request_id), None)
                case EntityLockRequested() if event.event_id > 0:
                    key = (event.critical_section_id, event.lock_set[event.position])
                    self._locks[key] = (event, self.instance.now)
                case EntityLockGranted():
                    self._granted(event)
                case EntityUnlockSent() if event.target_instance_id is not None:
                    self._locks.pop((event.critical_section_id, event.target_instance_id), None)
                case _:
                    pass

    def _granted(self, event: EntityLockGranted) -> None:
        for key, (asked, _) in list(self._locks.items()):
            if asked.critical_section_id == event.critical_section_id and asked.position == event.position:
                del self._locks[key]

    def now(self, now: int) -> list[Open]:
        """All that is waited for at that time, in the order in which it was asked for."""
        if self.instance.is_finished:
            return []
        return sorted(self._open(now), key=lambda one: (one.task_id or 0, one.name))

    def _open(self, now: int) -> Iterator[Open]:
        instance = self.instance
        for id, task in instance.tasks.items():
            retry_at = instance.retrying.get(id)
            yield self._attempt(
                WaitKind.ACTIVITY, task.name, id, retry_at, instance.attempts.get(id, 0) + 1, now, task.site
            )
        for id, child in instance.children.items():
            retry_at = instance.retrying_children.get(id)
            attempt = child.attempt + (retry_at is not None)
            created = child.created
            yield self._attempt(
                WaitKind.CHILD, created.name, id, retry_at, attempt, now, created.site, child.instance_id
            )
        for id, at in instance.timers.items():
            yield Open(WaitKind.TIMER, "", self._since.get(id, instance.now), at, id, site=self._timers[id].site)
        for id, open in instance.maps.items():
            tally = open.tally
            known = (tally.done, tally.failed, tally.calls.items)
            scheduled = open.scheduled
            since = self._since.get(id, instance.now)
            yield Open(WaitKind.MAP, scheduled.name, since, None, id, site=scheduled.site, progress=known)
        for id, call in self._calls.items():
            target = call.target_instance_id
            yield Open(WaitKind.CALL, call.operation, self._since[id], None, id, target=target, site=call.site)
        for (_, entity), (asked, since) in self._locks.items():
            yield Open(WaitKind.LOCK, "", since, None, asked.event_id, target=entity, site=asked.site)

    def _attempt(
        self,
        kind: WaitKind,
        name: str,
        id: int,
        retry_at: int | None,
        attempt: int,
        now: int,
        site: str,
        target: str | None = None,
    ) -> Open:
        if retry_at is not None and retry_at > now:
            return Open(WaitKind.RETRY, name, self.instance.now, retry_at, id, attempt, target, site)
        since = self._retried_at.get(id, self._since.get(id, self.instance.now)) if retry_at is None else retry_at
        return Open(kind, name, since, None, id, attempt, target, site)


class Listening:
    """The code, run over its history piece by piece: which events it listens for, and since when.

    Raises (any call): what a `Replay` raises where the code does not fit the history.
    """

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._since: dict[EventTask[Any], int] = {}

    def take(self, piece: Sequence[HistoryEvent]) -> None:
        """One episode has happened."""
        self._replay.replay(piece)
        decisions = self._replay.decisions
        listening = [task for waiters in decisions.waiting.values() for task in waiters]
        self._since = {task: self._since.get(task, decisions.now) for task in listening}

    def now(self, known: Sequence[Open]) -> list[Open]:
        """What history knows, with the events that the code listens for: their time limits are no timers of their own. Calls given up are gone."""
        decisions = self._replay.decisions
        limits = {
            task.timer.id: open.until
            for task in self._since
            for open in known
            if task.timer is not None and open.kind is WaitKind.TIMER and open.task_id == task.timer.id
        }
        stands_at, line = self._replay.standing()
        events = [
            Open(
                WaitKind.EVENT,
                task.name,
                since,
                None if task.timer is None else limits.get(task.timer.id),
                site=line if task in stands_at else "",
            )
            for task, since in self._since.items()
        ]
        others = [
            open
            for open in known
            if open.task_id not in limits and (open.kind is not WaitKind.CALL or open.task_id in decisions.open)
        ]
        return [*events, *others]
