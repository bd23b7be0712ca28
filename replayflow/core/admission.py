"""What comes in, in order: admitted as it is, as something else, or not at all.

1. Late and doubled completions are dropped; a failed attempt becomes a retry or a failure, once and for all (I4).
2. While an instance is suspended only control events are taken; the rest is held back, in order (I5).
3. What came before a request to end is recorded, and decides nothing any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from replayflow.core.departures import follow_map
from replayflow.core.endings import tell_again
from replayflow.core.events import (
    CompensationFailed,
    CustomStatusSet,
    EventRaised,
    ExecutionCompleted,
    ExecutionReplaced,
    ExecutionResumed,
    ExecutionSuspended,
    ExecutionTerminated,
    HeartbeatRecorded,
    HistoryEvent,
    MapDrained,
    MapPage,
    MapProgress,
    MapRetried,
    ParentRewound,
    SubOrchestrationAttemptFailed,
    SubOrchestrationInstanceFailed,
    SubOrchestrationRetried,
    TaskAttemptFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerFired,
)
from replayflow.core.executor import Executor
from replayflow.core.instance import CHILD_RETRY, MAP_RETRY, RUNNING, SUSPENDED, TASK_RETRY, Alarm, Instance, Status
from replayflow.core.map import mapping
from replayflow.core.outcome import Episode
from replayflow.retry import next_attempt_at

RESULTS: frozenset[type[HistoryEvent]] = frozenset({TaskCompleted})
ENDS = (ExecutionTerminated, ExecutionReplaced)
CONTROL = (ExecutionTerminated, ExecutionSuspended, ExecutionResumed, ExecutionReplaced)
_NEVER_HELD = (*CONTROL, HeartbeatRecorded)  # a heartbeat reaches no code


def deliver_start(executor: Executor, start: Sequence[HistoryEvent]) -> None:
    """The code begins with the events that its execution begins with."""
    if len(start) == 1:
        executor.deliver(start[0])
        return
    # A custom status that was carried over comes before the code runs, which sets its own against that one.
    for event in sorted(start, key=lambda event: type(event) is not CustomStatusSet):
        executor.deliver(event)


def in_order(inbox: Iterable[HistoryEvent]) -> deque[HistoryEvent]:
    """The inbox, with a request to end at its head: what came before it is recorded, and decides nothing any more."""
    waiting = deque(inbox)
    for event in waiting:
        if type(event) in ENDS:
            waiting.remove(event)
            waiting.appendleft(event)
            break
    return waiting


def gathered(instance: Instance, waiting: deque[HistoryEvent]) -> deque[HistoryEvent]:
    """The same, with what has come for each map in one event. Around a suspension each event stays by itself: it may be held."""
    kinds = set(map(type, waiting))
    if instance.status is SUSPENDED or MapProgress not in kinds or not kinds.isdisjoint(CONTROL):
        return waiting
    return deque(mapping.gathered(waiting))


def take_results(instance: Instance, executor: Executor, inbox: Sequence[Any], chunk: list[HistoryEvent]) -> None:
    """`take_in` for what nearly every episode gets: results of activities, and nothing else."""
    tasks, deliver = instance.tasks, executor.deliver
    for event in inbox:
        task = tasks.pop(event.task_scheduled_id, None)
        if task is not None:
            if task.retry is not None:
                instance.forget_retries(task.event_id)
            chunk.append(event)
            deliver(event)


def take_in(
    instance: Instance,
    executor: Executor,
    waiting: deque[HistoryEvent],
    episode: Episode,
    chunk: list[HistoryEvent],
    now: int,
    random: Random,
) -> ExecutionReplaced | None:
    """Each event is admitted, recorded, and delivered; returns the request to replace the execution, where there was one."""
    replaced: ExecutionReplaced | None = None
    if instance.maps:
        waiting = gathered(instance, waiting)
    while waiting:
        event = waiting.popleft()
        if instance.status is SUSPENDED and not isinstance(event, _NEVER_HELD):
            episode.held.append(event)
            continue
        if (
            type(event) is EventRaised and instance.status is RUNNING
        ):  # it is admitted as it is, and changes nothing by itself
            chunk.append(event)
            executor.deliver(event)
            continue
        admitted = _admit(instance, executor, event, now, random)
        if admitted is None:
            continue
        chunk.append(admitted)
        if isinstance(admitted, MapProgress | MapPage | MapRetried | MapDrained):
            _move_map(instance, admitted, episode, now)
            executor.deliver(admitted)
            continue
        instance.apply(admitted)
        match admitted:
            case TaskAttemptFailed():
                episode.alarms.append(Alarm(admitted.retry_at_microseconds, TASK_RETRY, admitted.task_scheduled_id))
            case CompensationFailed():
                episode.problem = _problem(instance, admitted)
            case SubOrchestrationAttemptFailed():
                episode.alarms.append(Alarm(admitted.retry_at_microseconds, CHILD_RETRY, admitted.task_scheduled_id))
            case SubOrchestrationRetried():
                episode.retried.append(admitted)
            case ExecutionResumed():
                waiting.extendleft(reversed(episode.held))
                episode.held = []
                # Retries that came due meanwhile were not heard: what is open is set again, and rings at once where its time is past.
                episode.mapped.extend(instance.maps.values())
                episode.alarms.extend(alarm for alarm in instance.alarms() if alarm.kind == MAP_RETRY)
            case ExecutionTerminated() | ExecutionReplaced() if not instance.is_finished:
                replaced = admitted if isinstance(admitted, ExecutionReplaced) else None
                end = ExecutionCompleted(-1, Status.TERMINATED, admitted.input)
                chunk.append(end)
                instance.apply(end)
                waiting.extendleft(reversed(episode.held))
                episode.held = []
            case ParentRewound() if instance.is_finished and not any(type(e) is ExecutionCompleted for e in chunk):
                # It had ended before the request was seen: the parent was told in an execution that is no more.
                tell_again(instance, episode)
            case ExecutionReplaced():
                # The execution ended before the request was seen; the new one was promised all the same (I6).
                replaced = admitted
            case _ if not instance.is_finished:
                executor.deliver(admitted)
    return replaced


def _move_map(
    instance: Instance, event: MapProgress | MapPage | MapRetried | MapDrained, episode: Episode, now: int
) -> None:
    """The event has happened to its map: retries are set, children take the places that are free, or are stopped where the map is over."""
    open = instance.maps[event.task_scheduled_id]
    instance.apply(event)
    episode.mapped.append(open)
    if isinstance(event, MapProgress):
        for at in {failure.retry_at_microseconds for failure in event.failures} - {None, mapping.NEVER}:
            episode.alarms.append(Alarm(at or 0, MAP_RETRY, open.id))
    follow_map(instance, open, episode, now)


def _admit(
    instance: Instance, executor: Executor, event: HistoryEvent, now: int, random: Random
) -> HistoryEvent | None:
    """The event as it goes into the history; None where it is late, or there already."""
    is_late = instance.is_finished and isinstance(event, TaskCompleted | TaskFailed | TimerFired)
    may_be_told_again = instance.status is Status.FAILED and isinstance(event, TaskCompleted)  # by a rewind
    if is_late and not may_be_told_again:
        return None
    match event:
        case TaskCompleted():
            return event if event.task_scheduled_id in instance.tasks else None
        case EventRaised():
            return event
        case TimerFired():
            return event if event.timer_id in instance.timers else None
        case TaskFailed():
            task = instance.tasks.get(event.task_scheduled_id)
            return None if task is None else _retried_task(instance, executor, event, task, now, random)
        case SubOrchestrationInstanceFailed():
            return _retried_child(instance, executor, event, now, random)
        case SubOrchestrationRetried():
            return event if event.task_scheduled_id in instance.retrying_children else None
        case MapProgress() | MapPage() | MapRetried():
            if instance.is_finished:
                return None
            id = event.task_scheduled_id
            predicate = executor.predicate_of(id) if type(event) is MapProgress and event.failures else None
            return mapping.admitted(instance.maps.get(id), event, now, random, predicate)
        case HeartbeatRecorded():
            return event if instance.is_heard(event) else None
        case MapDrained():
            open = instance.maps.get(event.task_scheduled_id)
            is_drained = open is not None and open.is_stopping and not open.at_work and not instance.is_finished
            return event if is_drained else None
        case _:
            return event


def _retried_task(
    instance: Instance, executor: Executor, event: TaskFailed, task: TaskScheduled, now: int, random: Random
) -> HistoryEvent:
    if task.retry is None:
        return event
    id = task.event_id
    attempt = instance.attempts.get(id, 0) + 1
    retry_at = next_attempt_at(
        task.retry,
        attempt=attempt,
        failure=event.failure_details,
        scheduled_at=instance.scheduled_at[id],
        now=now,
        random=random,
        retry_after=event.retry_after_microseconds,
        predicate=executor.predicate_of(id),
    )
    if retry_at is not None:
        return TaskAttemptFailed(id, attempt, event.failure_details, retry_at)
    return event if task.retry.park is None else CompensationFailed(id, attempt, event.failure_details)


def _problem(instance: Instance, event: CompensationFailed) -> str:
    retry = instance.tasks[event.task_scheduled_id].retry
    assert retry is not None  # noqa: S101 - only such tasks park
    return f"{retry.park}: {event.failure_details}; mend what it needs, and resume the instance"


def _retried_child(
    instance: Instance, executor: Executor, event: SubOrchestrationInstanceFailed, now: int, random: Random
) -> HistoryEvent:
    child = instance.children.get(event.task_scheduled_id)
    if child is None or child.created.retry is None or child.is_asked_to_end:
        return event
    id = event.task_scheduled_id
    retry_at = next_attempt_at(
        child.created.retry,
        attempt=child.attempt,
        failure=event.failure_details,
        scheduled_at=instance.scheduled_at[id],
        now=now,
        random=random,
        predicate=executor.predicate_of(id),
    )
    if retry_at is None:
        return event
    return SubOrchestrationAttemptFailed(id, child.attempt, event.failure_details, retry_at)
