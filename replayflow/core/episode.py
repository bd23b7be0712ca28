"""An episode: instance + inbox + now -> commit. Pure: time, chance and new ids are handed in.

The order in a piece of history is: the time, what came in, what was decided. What comes in is looked at first ("admitted"): late and doubled
completions are dropped, a failed attempt becomes a retry or a failure, once and for all (I4). While an instance is suspended only control events are
taken; the rest is held back, in order, and stays in the inbox (I5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, Protocol

from msgspec import Struct

from replayflow.codec import Codec
from replayflow.core import events, ids, map_children, mapping
from replayflow.core.actions import Action, CompleteOrchestration, CreateSubOrchestration, ScheduleTask, StartInstance
from replayflow.core.commit import Commit, Message, RowState, Start
from replayflow.core.entity_actions import RemoveEntity, ScheduleOrchestration, SendEntityMessage, releases
from replayflow.core.entity_ids import is_entity_id
from replayflow.core.events import (
    CompensationFailed,
    CustomStatusSet,
    EventRaised,
    EventSent,
    ExecutionCancelRequested,
    ExecutionCompleted,
    ExecutionReplaced,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    InstanceAsked,
    MapPage,
    MapProgress,
    MapRetried,
    MapScheduled,
    OrchestratorStarted,
    ParentInstance,
    SubOrchestrationAttemptFailed,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    SubOrchestrationRetried,
    TaskAttemptFailed,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from replayflow.core.instance import CHILD_RETRY, MAP_RETRY, TASK_RETRY, TIMER, Alarm, Instance, Status
from replayflow.core.mapping import OpenMap
from replayflow.errors import FailureDetails
from replayflow.retry import next_attempt_at

_codec = Codec()
_RESULTS: frozenset[type[HistoryEvent]] = frozenset({TaskCompleted})
ENDS = (ExecutionTerminated, ExecutionReplaced)
CONTROL = (ExecutionTerminated, ExecutionSuspended, ExecutionResumed, ExecutionReplaced)


class Executor(Protocol):
    """Whoever decides: a local generator, or a worker elsewhere."""

    def begin(self, now: int) -> None: ...
    def deliver(self, event: HistoryEvent) -> None: ...
    def take(self) -> list[Action]: ...
    def predicate_of(self, task_id: int) -> Callable[[FailureDetails], bool] | None: ...


class Episode(Struct, eq=False):
    """What an episode came to: the commit, and what to do once it is durable.

    `held` is what was not taken because the instance is suspended; `retried` are children that begin anew; `mapped` are the maps that
    something has happened to. Where there is a `problem` the instance is to be parked with it, once the commit is durable. `removes` says that
    this is an entity which goes.
    """

    commit: Commit | None = None
    held: list[HistoryEvent] = []
    scheduled: list[TaskScheduled] = []
    canceled: list[int] = []
    mapped: list[OpenMap] = []
    alarms: list[Alarm] = []
    retried: list[SubOrchestrationRetried] = []
    starts: list[Start] = []
    messages: list[Message] = []
    problem: str | None = None
    removes: bool = False


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
) -> Episode:
    """The events are taken in, the code has decided what follows, and the instance has changed accordingly.

    `sequence` is the number of the piece of history to be written, `row` what the instance's row shows now. In an execution's first episode
    `start` has the events that it begins with: they are stored already, and come before the inbox. Time does not run backwards: an episode is
    never earlier than the last.
    """
    if now < instance.now:
        now = instance.now
    episode = Episode()
    chunk: list[HistoryEvent] = [OrchestratorStarted(now)]
    instance.now = now
    executor.begin(now)
    replaced: ExecutionReplaced | None = None
    next_start: Start | None = None
    if not start and instance.status is Status.RUNNING and _RESULTS.issuperset(map(type, inbox)):
        _take_results(instance, executor, inbox, chunk)
    else:
        waiting = _in_order(inbox)
        for event in start:
            instance.apply(event)
        if start and (not waiting or type(waiting[0]) not in ENDS):
            _deliver_start(executor, start)
        replaced = _take_in(instance, executor, waiting, episode, chunk, now, random)
    if len(chunk) == 1 and not start:
        return episode  # nothing was taken, so that there was nothing to decide
    started = instance.started
    assert started is not None  # noqa: S101 - the first event of every execution is its start
    if not instance.is_finished:
        next_start = _decide(instance, executor, episode, chunk, now, new_execution_id)
    if instance.is_finished:
        if replaced is not None:
            next_start = _replacement(replaced, now)
        if any(type(event) is ExecutionCompleted for event in chunk):
            _finish(instance, episode, chunk)
            orphans = [*orphans, *_owed(instance, episode, started.execution_id)]
    episode.commit = Commit(
        started.instance_id,
        started.execution_id,
        sequence,
        now,
        events.encode(chunk),
        _changed(instance, row, now, orphans),
        (),
        episode.starts,
        episode.messages,
        next_start,
        next_start is not None and is_entity_id(next_start.instance_id),
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
    _finish(instance, episode, chunk)
    commit = episode.commit = Commit(started.instance_id, started.execution_id, sequence, now, events.encode(chunk))
    commit.starts, commit.messages = episode.starts, episode.messages
    commit.state = _changed(instance, row, now, ())
    return episode


# ---- what comes in


def _deliver_start(executor: Executor, start: Sequence[HistoryEvent]) -> None:
    if len(start) == 1:
        executor.deliver(start[0])
        return
    # A custom status that was carried over comes before the code runs, which sets its own against that one.
    for event in sorted(start, key=lambda event: type(event) is not CustomStatusSet):
        executor.deliver(event)


def _in_order(inbox: Iterable[HistoryEvent]) -> deque[HistoryEvent]:
    """The inbox, with a request to end at its head: what came before it is recorded, and decides nothing any more."""
    waiting = deque(inbox)
    for event in waiting:
        if type(event) in ENDS:
            waiting.remove(event)
            waiting.appendleft(event)
            break
    return waiting


def _gathered(instance: Instance, waiting: deque[HistoryEvent]) -> deque[HistoryEvent]:
    """The same, with what has come for each map in one event. Around a suspension each event stays by itself: it may be held."""
    kinds = set(map(type, waiting))
    if instance.status is Status.SUSPENDED or MapProgress not in kinds or not kinds.isdisjoint(CONTROL):
        return waiting
    return deque(mapping.gathered(waiting))


def _take_results(instance: Instance, executor: Executor, inbox: Sequence[Any], chunk: list[HistoryEvent]) -> None:
    """`_take_in` for what nearly every episode gets: results of activities, and nothing else."""
    tasks, deliver = instance.tasks, executor.deliver
    for event in inbox:
        task = tasks.pop(event.task_scheduled_id, None)
        if task is not None:
            if task.retry is not None:
                instance.forget_retries(task.event_id)
            chunk.append(event)
            deliver(event)


def _take_in(
    instance: Instance,
    executor: Executor,
    waiting: deque[HistoryEvent],
    episode: Episode,
    chunk: list[HistoryEvent],
    now: int,
    random: Random,
) -> ExecutionReplaced | None:
    replaced: ExecutionReplaced | None = None
    if instance.maps:
        waiting = _gathered(instance, waiting)
    while waiting:
        event = waiting.popleft()
        if instance.status is Status.SUSPENDED and not isinstance(event, CONTROL):
            episode.held.append(event)
            continue
        admitted = _admit(instance, executor, event, now, random)
        if admitted is None:
            continue
        chunk.append(admitted)
        if isinstance(admitted, MapProgress | MapPage | MapRetried):
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
            case ExecutionReplaced():
                # The execution ended before the request was seen; the new one was promised all the same (I6).
                replaced = admitted
            case _ if not instance.is_finished:
                executor.deliver(admitted)
    return replaced


def _move_map(instance: Instance, event: MapProgress | MapPage | MapRetried, episode: Episode, now: int) -> None:
    """The event has happened to its map: retries are set, children take the places that are free, or are stopped where the map is over."""
    open = instance.maps[event.task_scheduled_id]
    instance.apply(event)
    episode.mapped.append(open)
    if isinstance(event, MapProgress):
        for at in {failure.retry_at_microseconds for failure in event.failures} - {None}:
            episode.alarms.append(Alarm(at or 0, MAP_RETRY, open.id))
    _follow_map(instance, open, episode, now)


def _follow_map(instance: Instance, open: OpenMap, episode: Episode, now: int) -> None:
    parent = instance.started
    assert parent is not None  # noqa: S101 - what has a map has started
    if open.is_closed:
        episode.messages.extend(map_children.stops(parent, open, ExecutionCancelRequested()))
    else:
        episode.starts.extend(map_children.starts(parent, open, now))


def _admit(
    instance: Instance, executor: Executor, event: HistoryEvent, now: int, random: Random
) -> HistoryEvent | None:
    """The event as it goes into the history; None where it is late, or there already."""
    if instance.is_finished and isinstance(event, TaskCompleted | TaskFailed | TimerFired):
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


# ---- what was decided


def _decide(
    instance: Instance,
    executor: Executor,
    episode: Episode,
    chunk: list[HistoryEvent],
    now: int,
    new_execution_id: Callable[[], str],
) -> Start | None:
    """What the code decided is in the chunk, and has happened to the instance; returns the start of the execution that continues this one."""
    next_start: Start | None = None
    for action in executor.take():
        if type(action) is ScheduleTask:  # nearly every decision
            scheduled = action.record()
            episode.scheduled.append(scheduled)
            chunk.append(scheduled)
            instance.task_scheduled(scheduled)
            continue
        if isinstance(action, CreateSubOrchestration | StartInstance):
            action.execution_id = new_execution_id()
        if type(action) is StartInstance:
            episode.starts.append(_detached_start(instance, action, now))
        elif type(action) is SendEntityMessage:
            _send_entity_message(instance, action, episode, now, new_execution_id)
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
                episode.starts.append(_child_start(instance, decided, decided.instance_id, decided.execution_id, now))
            case EventSent():
                episode.messages.append(_sent(decided))
            case InstanceAsked():
                _ask(instance, decided, episode)
            case TaskCanceled():
                _cancel(instance, decided.task_scheduled_id, episode)
            case _:
                pass
        if type(action) is CompleteOrchestration and action.orchestration_status == Status.CONTINUED_AS_NEW:
            next_start = _continuation(instance, action, now, new_execution_id(), chunk)
        chunk.append(decided)
        instance.apply(decided)
        if type(decided) is MapScheduled and decided.event_id in instance.maps:
            open = instance.maps[decided.event_id]
            episode.mapped.append(open)
            _follow_map(instance, open, episode, now)
    for event in episode.retried:
        child = instance.children.get(event.task_scheduled_id)
        if child is not None:
            episode.starts.append(_child_start(instance, child.created, event.instance_id, event.execution_id, now))
    return next_start


def _send_entity_message(
    instance: Instance, action: SendEntityMessage, episode: Episode, now: int, new_execution_id: Callable[[], str]
) -> None:
    sender = instance.started
    assert sender is not None  # noqa: S101 - an execution that decides has started
    message = action.message(sender, now, new_execution_id)
    if message is not None:
        episode.messages.append(message)


def retried(instance: Instance, task_id: int, new_execution_id: Callable[[], str]) -> SubOrchestrationRetried | None:
    """The event with which the next attempt of a sub-orchestration begins; None where it is no longer wanted."""
    child = instance.children.get(task_id)
    if child is None or task_id not in instance.retrying_children:
        return None
    attempt = child.attempt + 1
    return SubOrchestrationRetried(
        task_id, attempt, ids.attempt_id(child.created.instance_id, attempt), new_execution_id()
    )


def _child_start(
    instance: Instance, created: SubOrchestrationInstanceCreated, instance_id: str, execution_id: str, now: int
) -> Start:
    parent = instance.started
    assert parent is not None  # noqa: S101 - an execution that decides has started
    child = ExecutionStarted(
        name=created.name,
        input=created.input,
        instance_id=instance_id,
        execution_id=execution_id,
        version=created.version,
        parent_instance=ParentInstance(parent.instance_id, parent.execution_id, created.event_id, parent.name),
        tags=created.tags,
    )
    taken = map_children.id_is_taken(instance_id)
    return Start(
        instance_id=instance_id,
        execution_id=execution_id,
        name=created.name,
        version=created.version,
        event=events.encode([child]),
        decoded=[child],
        created_at=now,
        parent_id=parent.instance_id,
        tags=created.tags,
        if_taken=Message(
            parent.instance_id,
            events.encode([SubOrchestrationInstanceFailed(created.event_id, taken)]),
            execution_id=parent.execution_id,
        ),
    )


def _detached_start(instance: Instance, action: StartInstance, now: int) -> Start:
    starter = instance.started
    assert starter is not None  # noqa: S101 - an execution that decides has started
    told = None
    if action.end_event:
        told = ParentInstance(starter.instance_id, "", 0, starter.name, action.end_event)
    started = ExecutionStarted(
        name=action.name,
        input=action.input,
        instance_id=action.instance_id,
        execution_id=action.execution_id,
        version=action.version,
        parent_instance=told,
        tags=action.tags,
    )
    return Start(
        instance_id=action.instance_id,
        execution_id=action.execution_id,
        name=action.name,
        version=action.version,
        event=events.encode([started]),
        decoded=[started],
        created_at=now,
        tags=action.tags,
        if_taken=None if told is None else _told(told, action.instance_id, "TAKEN"),
    )


def _told(whom: ParentInstance, instance_id: str, status: str) -> Message:
    payload = _codec.encode([instance_id, status])
    return Message(whom.instance_id, events.encode([EventRaised(whom.event, payload)]))


def _ask(instance: Instance, event: InstanceAsked, episode: Episode) -> None:
    if event.task_scheduled_id:
        child = instance.children.get(event.task_scheduled_id)
        if child is None or event.task_scheduled_id in instance.retrying_children:
            return
        message = Message(
            child.instance_id, events.encode([ExecutionCancelRequested()]), execution_id=child.execution_id
        )
    elif event.request == "terminate":
        message = Message(event.instance_id, events.encode([ExecutionTerminated()]), is_control=True)
    else:
        message = Message(event.instance_id, events.encode([ExecutionCancelRequested()]))
    episode.messages.append(message)


def _sent(event: EventSent) -> Message:
    return Message(
        event.instance_id,
        events.encode([EventRaised(event.name, event.input)]),
        about=f"event '{event.name}', sent at {event.site}",
    )


def _cancel(instance: Instance, task_id: int, episode: Episode) -> None:
    child = instance.children.get(task_id)
    open = instance.maps.get(task_id)
    if open is not None:
        _stop_map(instance, open, episode, ExecutionCancelRequested())
    elif child is None:
        episode.canceled.append(task_id)
    elif task_id not in instance.retrying_children:
        episode.messages.append(
            Message(
                child.instance_id,
                events.encode([ExecutionCancelRequested()]),
                execution_id=child.execution_id,
            )
        )


def _stop_map(
    instance: Instance, open: OpenMap, episode: Episode, event: HistoryEvent, *, is_control: bool = False
) -> None:
    parent = instance.started
    assert parent is not None  # noqa: S101 - what has a map has started
    episode.mapped.append(open)
    episode.messages.extend(map_children.stops(parent, open, event, is_control=is_control))


# ---- the end


def _finish(instance: Instance, episode: Episode, chunk: list[HistoryEvent]) -> None:
    started = instance.started
    assert started is not None  # noqa: S101 - what ends has started
    parent = started.parent_instance
    if parent is not None and instance.status is not Status.CONTINUED_AS_NEW:
        episode.messages.append(_report(instance, started, parent))
    if instance.locks:
        episode.messages.extend(releases(instance.locks, started))
    if instance.status is Status.TERMINATED:
        _terminate_children(instance, episode, chunk)
        episode.canceled.extend(instance.tasks)
    elif instance.status is Status.CANCELED:
        for id in [*instance.children, *instance.maps]:
            _cancel(instance, id, episode)
        last = {task.event_id for task in episode.scheduled}
        episode.canceled.extend(id for id in instance.tasks if id not in last)


def _owed(instance: Instance, episode: Episode, execution_id: str) -> list[tuple[str, TaskScheduled]]:
    """Activities that were scheduled before the end, and still run (I4); a retry is owed to nobody any more.

    One that was cancelled is owed what its clean-up asked for last, one that was terminated nothing.
    """
    match instance.status:
        case Status.TERMINATED:
            return []
        case Status.CANCELED:
            tasks = [task for task in episode.scheduled if task.event_id in instance.tasks]
        case _:
            tasks = list(instance.tasks.values())
    return [(execution_id, task) for task in tasks if task.event_id not in instance.attempts]


def _report(instance: Instance, started: ExecutionStarted, parent: ParentInstance) -> Message:
    if parent.event:
        return _told(parent, started.instance_id, instance.status)
    report: HistoryEvent
    details: FailureDetails | None = None
    if instance.status is not Status.COMPLETED:
        details = instance.failure or FailureDetails(
            type="OrchestrationTerminated" if instance.status is Status.TERMINATED else "OrchestrationCanceled",
            message=f"'{started.instance_id}' was {instance.status.lower()}",
            non_retryable=True,
        )
    if parent.number is not None:
        report = map_children.report(parent, instance.output, details)
    elif details is None:
        report = SubOrchestrationInstanceCompleted(parent.task_scheduled_id, instance.output)
    else:
        report = SubOrchestrationInstanceFailed(parent.task_scheduled_id, details)
    return Message(parent.instance_id, events.encode([report]), execution_id=parent.execution_id)


def _terminate_children(instance: Instance, episode: Episode, chunk: list[HistoryEvent]) -> None:
    asked = next((event for event in chunk if isinstance(event, ExecutionTerminated | ExecutionReplaced)), None)
    if asked is None or (isinstance(asked, ExecutionTerminated) and not asked.recurse):
        return
    for child in instance.children.values():
        episode.messages.append(
            Message(
                child.instance_id,
                events.encode([ExecutionTerminated(asked.input)]),
                execution_id=child.execution_id,
                is_control=True,
            )
        )
    for open in instance.maps.values():
        _stop_map(instance, open, episode, ExecutionTerminated(asked.input), is_control=True)


def _continuation(
    instance: Instance, action: CompleteOrchestration, now: int, execution_id: str, chunk: list[HistoryEvent]
) -> Start:
    past = instance.started
    assert past is not None  # noqa: S101 - what continues has started
    started = ExecutionStarted(
        name=past.name,
        input=action.result,
        instance_id=past.instance_id,
        execution_id=execution_id,
        version=action.new_version,
        parent_instance=past.parent_instance,
        tags=past.tags,
        is_first=False,
    )
    carried: list[HistoryEvent] = [started]
    if instance.custom_status is not None:
        carried.append(CustomStatusSet(instance.custom_status))
    carried.extend(action.carryover_events)
    if instance.status is Status.SUSPENDED:  # since the code ended, in this episode
        carried.append(next(event for event in reversed(chunk) if type(event) is ExecutionSuspended))
    return Start(
        instance_id=past.instance_id,
        execution_id=execution_id,
        name=past.name,
        version=action.new_version,
        event=events.encode(carried),
        created_at=now,
        tags=past.tags,
    )


def _replacement(replaced: ExecutionReplaced, now: int) -> Start:
    started: Any = events.decode(replaced.start)[0]
    return Start(
        instance_id=started.instance_id,
        execution_id=started.execution_id,
        name=started.name,
        version=started.version,
        event=replaced.start,
        created_at=now,
        wake_at=started.scheduled_start_microseconds or 0,
        tags=started.tags,
    )


# ---- the row


def _changed(
    instance: Instance, row: RowState, now: int, orphans: Sequence[tuple[str, TaskScheduled]]
) -> RowState | None:
    """The instance's row as it has to become; None where it is that already."""
    status = instance.status
    if (
        status is Status.RUNNING
        and row.status is Status.RUNNING
        and row.wake_at == 0
        and len(instance.tasks) > len(instance.retrying)
        and row.custom_status == instance.custom_status
    ):
        return None  # at work before, and at work now: what nearly every episode comes to
    finished = instance.is_finished
    wake_at = instance.wake_at()
    if orphans:
        wake_at = 0
    if (
        not finished
        and row.status is instance.status
        and row.wake_at == wake_at
        and row.custom_status == instance.custom_status
    ):
        return None
    if status is Status.RUNNING and not wake_at and not orphans and instance.custom_status is None:
        return _WAITS if wake_at is None else _AT_WORK
    return RowState(
        status=instance.status,
        wake_at=wake_at,
        custom_status=instance.custom_status,
        output=instance.output if finished else None,
        failure=None if instance.failure is None else encode_failure(instance.failure),
        completed_at=(row.completed_at or now) if finished else None,
        orphans=encode_orphans(orphans),
    )


# What nearly all rows show, once for all instances.
_AT_WORK = RowState(Status.RUNNING, 0)
_WAITS = RowState(Status.RUNNING, None)


def encode_failure(details: FailureDetails) -> bytes:
    """The failure as an instance's row keeps it."""
    return events.encode([TaskFailed(0, details)])


def decode_failure(stored: bytes) -> FailureDetails:
    """What `encode_failure` made of it."""
    (event,) = events.decode(stored)
    assert isinstance(event, TaskFailed)  # noqa: S101 - the only thing that is stored there
    return event.failure_details


def encode_orphans(orphans: Iterable[tuple[str, TaskScheduled]]) -> bytes | None:
    """Activities of ended executions that still have to run, as an instance's row keeps them."""
    flat: list[HistoryEvent] = []
    for execution_id, task in orphans:
        flat += [events.GenericEvent(execution_id), task]
    return events.encode(flat) if flat else None


def decode_orphans(stored: bytes) -> list[tuple[str, TaskScheduled]]:
    """What `encode_orphans` made of them."""
    flat: list[Any] = list(events.decode(stored))
    return [(owner.data, task) for owner, task in zip(flat[::2], flat[1::2], strict=True)]
