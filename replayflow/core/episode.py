"""An episode: instance + inbox + now -> commit. Pure: time, chance and new ids are handed in.

The order in a piece of history is: the time, what came in, what was decided. What comes in is looked at first ("admitted"): late and doubled
completions are dropped, a failed attempt becomes a retry or a failure, once and for all (I4). While an instance is suspended only control events are
taken; the rest is held back, in order, and stays in the inbox (I5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from replayflow.core import events
from replayflow.core.actions import Action, CompleteOrchestration, CreateSubOrchestration, StartInstance
from replayflow.core.admission import ENDS, RESULTS, deliver_start, in_order, take_in, take_results
from replayflow.core.commit import Commit, RowState, Start, Turn
from replayflow.core.departures import (
    ask,
    cancel,
    child_start,
    detached_start,
    follow_map,
    send_entity_message,
    sent,
    stop_map,
)
from replayflow.core.endings import continuation, finish, owed, replacement
from replayflow.core.entity.actions import RemoveEntity, ScheduleOrchestration, SendEntityMessage
from replayflow.core.entity.ids import is_entity_id
from replayflow.core.events import (
    EventSent,
    ExecutionCancelRequested,
    ExecutionCompleted,
    ExecutionReplaced,
    HistoryEvent,
    InstanceAsked,
    MapScheduled,
    MapStopped,
    OrchestratorStarted,
    SubOrchestrationInstanceCreated,
    TaskCanceled,
    TaskCompleted,
    TaskScheduled,
    TimerCreated,
)
from replayflow.core.executor import Executor
from replayflow.core.instance import COMPLETED, CONTINUED_AS_NEW, RUNNING, TIMER, Alarm, Instance, Status
from replayflow.core.outcome import AnyEpisode, Episode, PlainEpisode
from replayflow.core.rows import AT_WORK, changed
from replayflow.core.signatures import OWN_PREFIX
from replayflow.errors import FailureDetails

OWN_EXECUTIONS_KEPT = 100
_ACTIVITIES: frozenset[type] = frozenset({TaskScheduled})
_COMPLETED = COMPLETED.text


def run(
    instance: Instance,
    executor: Executor,
    inbox: Sequence[HistoryEvent],
    *,
    sequence: int,
    now: int,
    random: Random,
    new_execution_id: Callable[[], str],
    row: RowState,
    start: Sequence[HistoryEvent] = (),
    orphans: Sequence[tuple[str, TaskScheduled]] = (),
) -> AnyEpisode:
    """The events are taken in, the code has decided what follows, and the instance has changed accordingly.

    `sequence` is the number of the piece of history to be written, `row` what the instance's row shows now. In an execution's first episode
    `start` has the events that it begins with: they are stored already, and come before the inbox. Time does not run backwards: an episode is
    never earlier than the last.
    """
    if now < instance.now:
        now = instance.now
    chunk: list[HistoryEvent] = [OrchestratorStarted(now)]
    instance.now = now
    executor.begin(now)
    if not start and instance.status is RUNNING and RESULTS.issuperset(map(type, inbox)):
        take_results(instance, executor, inbox, chunk)
        if len(chunk) == 1:
            return Episode()
    elif len(start) == 1 and not inbox:
        instance.apply(start[0])
        executor.deliver(start[0])
    else:
        return _run(instance, executor, inbox, chunk, sequence, now, random, new_execution_id, row, start, orphans)
    # Results, or the start: what nearly every episode takes in, and activities, and nothing else, are what nearly every one comes to.
    actions = executor.take()
    started = instance.started
    if not _ACTIVITIES.issuperset(map(type, actions)) or started is None:
        return _conclude(instance, actions, Episode(), chunk, sequence, now, new_execution_id, row, orphans, None)
    scheduled = _schedule(instance, actions, chunk)
    state = changed(instance, row, now, orphans)
    encoded = events.encode(chunk)
    return PlainEpisode(Commit(started.instance_id, started.execution_id, sequence, now, encoded, state), scheduled)


def _run(
    instance: Instance,
    executor: Executor,
    inbox: Sequence[HistoryEvent],
    chunk: list[HistoryEvent],
    sequence: int,
    now: int,
    random: Random,
    new_execution_id: Callable[[], str],
    row: RowState,
    start: Sequence[HistoryEvent],
    orphans: Sequence[tuple[str, TaskScheduled]],
) -> Episode:
    """`run`, whatever comes."""
    episode = Episode()
    waiting = in_order(inbox)
    for event in start:
        instance.apply(event)
    if start and (not waiting or type(waiting[0]) not in ENDS):
        deliver_start(executor, start)
    replaced = take_in(instance, executor, waiting, episode, chunk, now, random)
    if len(chunk) == 1 and not start:
        return episode  # nothing was taken, so that there was nothing to decide
    actions = () if instance.is_finished else executor.take()
    return _conclude(instance, actions, episode, chunk, sequence, now, new_execution_id, row, orphans, replaced)


def turn(
    instance: Instance,
    executor: Executor,
    came: TaskCompleted,
    sequence: int,
    now: int,
    new_execution_id: Callable[[], str],
    live: object,
    reading: int,
) -> Turn | AnyEpisode | None:
    """`run` for what nearly every episode is, where the row is `AT_WORK`: a result comes that the code waits for, and it asks for one activity.

    `live` and `reading` are what the `Turn` is to keep for whoever writes it. Whatever else the code does is concluded as `run` does it.
    Returns None, and nothing has happened, where the code waits for something else.
    """
    task = instance.tasks.get(came.task_scheduled_id)
    if task is None:
        return None
    if now < instance.now:
        now = instance.now
    actions = executor.turn(came, now)
    if actions is None:
        return None
    instance.now = now
    del instance.tasks[task.event_id]
    if task.retry is not None:
        instance.forget_retries(task.event_id)
    if len(actions) == 1:
        asked = actions[0]
        if type(asked) is TaskScheduled:
            if asked.retry is None:
                instance.tasks[asked.event_id] = asked
            else:
                instance.task_scheduled(asked)
            started = instance.started
            assert started is not None  # noqa: S101 - what waits for a result has started
            chunk = events.encode([OrchestratorStarted(now), came, asked])
            return Turn(
                started.instance_id,
                started.execution_id,
                sequence,
                now,
                chunk,
                came=came,
                asked=asked,
                live=live,
                reading=reading,
            )
        if type(asked) is CompleteOrchestration and asked.orchestration_status == _COMPLETED:
            completed = _completed(instance, came, asked, sequence, now)
            if completed is not None:
                return completed
    return _conclude(
        instance,
        actions,
        Episode(),
        [OrchestratorStarted(now), came],
        sequence,
        now,
        new_execution_id,
        AT_WORK,
        (),
        None,
    )


def _completed(
    instance: Instance, came: TaskCompleted, asked: CompleteOrchestration, sequence: int, now: int
) -> PlainEpisode | None:
    """The end of nearly every execution, as `_conclude` has it: its output is there, and nobody is owed anything, but whoever waits to be told.
    None, and nothing has happened, where there is more to it.
    """
    started = instance.started
    if started is None or started.parent_instance is not None or instance.tasks or instance.locks:
        return None
    ended = asked.record()
    instance.apply(ended)
    chunk = events.encode([OrchestratorStarted(now), came, ended])
    state = RowState(instance.status, None, instance.custom_status, ended.result, None, now)
    return PlainEpisode(Commit(started.instance_id, started.execution_id, sequence, now, chunk, state), [])


def _conclude(
    instance: Instance,
    actions: Sequence[Action],
    episode: Episode,
    chunk: list[HistoryEvent],
    sequence: int,
    now: int,
    new_execution_id: Callable[[], str],
    row: RowState,
    orphans: Sequence[tuple[str, TaskScheduled]],
    replaced: ExecutionReplaced | None,
) -> Episode:
    """The episode as it is once its events have been taken in and the code has decided: what was decided happens, and the commit says so."""
    started = instance.started
    assert started is not None  # noqa: S101 - the first event of every execution is its start
    next_start: Start | None = None
    if not instance.is_finished:
        next_start = _decide(instance, actions, episode, chunk, now, new_execution_id)
    if instance.is_finished:
        if replaced is not None:
            next_start = replacement(replaced, now)
        if ExecutionCompleted in map(type, chunk):
            finish(instance, episode, chunk)
            orphans = [*orphans, *owed(instance, episode, started.execution_id)]
    episode.commit = Commit(
        started.instance_id,
        started.execution_id,
        sequence,
        now,
        events.encode(chunk),
        changed(instance, row, now, orphans),
        (),
        episode.starts,
        episode.messages,
        next_start,
        None if next_start is None else _past_kept(next_start),
        episode.removes,
    )
    return episode


def fail(instance: Instance, failure: FailureDetails, *, sequence: int, now: int, row: RowState) -> Episode:
    """The execution has failed from outside its code; whoever waits for it learns so. For an instance whose code no longer fits its history."""
    started = instance.started
    assert started is not None  # noqa: S101 - what has a history has started
    now = max(now, instance.now)
    episode = Episode()
    chunk: list[HistoryEvent] = [
        OrchestratorStarted(now),
        ExecutionCompleted(-1, Status.FAILED, failure_details=failure),
    ]
    instance.apply_all(chunk)
    finish(instance, episode, chunk)
    commit = episode.commit = Commit(started.instance_id, started.execution_id, sequence, now, events.encode(chunk))
    commit.starts, commit.messages = episode.starts, episode.messages
    commit.state = changed(instance, row, now, ())
    return episode


def _past_kept(start: Start) -> int | None:
    """How many past executions stay when this one begins; None for all. What we run for users ourselves leaves many that nobody reads."""
    if is_entity_id(start.instance_id):
        return 1
    return OWN_EXECUTIONS_KEPT if start.name.startswith(OWN_PREFIX) else None


def _schedule(instance: Instance, actions: Sequence[Any], chunk: list[HistoryEvent]) -> list[TaskScheduled]:
    """`_decide` for activities, and nothing else."""
    scheduled: list[TaskScheduled] = []
    for decided in actions:
        scheduled.append(decided)
        instance.task_scheduled(decided)
    chunk += scheduled
    return scheduled


def _decide(
    instance: Instance,
    actions: Sequence[Action],
    episode: Episode,
    chunk: list[HistoryEvent],
    now: int,
    new_execution_id: Callable[[], str],
) -> Start | None:
    """What the code decided is in the chunk, and has happened to the instance; returns the start of the execution that continues this one."""
    next_start: Start | None = None
    for action in actions:
        if type(action) is TaskScheduled:  # nearly every decision
            episode.scheduled.append(action)
            chunk.append(action)
            instance.task_scheduled(action)
            continue
        if type(action) is CompleteOrchestration and action.orchestration_status != CONTINUED_AS_NEW:
            ended = action.record()
            chunk.append(ended)
            instance.apply(ended)
            continue
        if isinstance(action, CreateSubOrchestration | StartInstance):
            action.execution_id = new_execution_id()
        if type(action) is StartInstance:
            episode.starts.append(detached_start(instance, action, now))
        elif type(action) is SendEntityMessage:
            send_entity_message(instance, action, episode, now, new_execution_id)
        elif type(action) is ScheduleOrchestration:
            action.execution_id = new_execution_id()
            episode.starts.append(action.start(now))
        elif type(action) is RemoveEntity:
            episode.removes = True
        decided = action.record()
        match decided:
            case TimerCreated():
                episode.alarms.append(Alarm(decided.fire_at_microseconds, TIMER, decided.event_id))
            case SubOrchestrationInstanceCreated():
                episode.starts.append(child_start(instance, decided, decided.instance_id, decided.execution_id, now))
            case EventSent():
                episode.messages.append(sent(decided))
            case InstanceAsked():
                ask(instance, decided, episode)
            case MapStopped() if decided.task_scheduled_id in instance.maps:
                stop_map(instance, instance.maps[decided.task_scheduled_id], episode, ExecutionCancelRequested())
            case TaskCanceled():
                cancel(instance, decided.task_scheduled_id, episode)
            case _:
                pass
        if type(action) is CompleteOrchestration:
            next_start = continuation(instance, action, now, new_execution_id(), chunk)
        chunk.append(decided)
        instance.apply(decided)
        if type(decided) is MapScheduled and decided.event_id in instance.maps:
            open = instance.maps[decided.event_id]
            episode.mapped.append(open)
            follow_map(instance, open, episode, now)
    for event in episode.retried:
        child = instance.children.get(event.task_scheduled_id)
        if child is not None:
            episode.starts.append(child_start(instance, child.created, event.instance_id, event.execution_id, now))
    return next_start
