"""What instances in memory have under way: activities, calls of maps, alarms; and what becomes of their ends.

An end is news for the mailbox of whoever is in. Where nobody is, it goes into the inbox (I4); where its execution has ended, the run was owed, and is
paid (`Live.owing`).
"""

from __future__ import annotations

from collections.abc import Sequence

from replayflow.chance import new_execution_id
from replayflow.codec import Payload
from replayflow.core import departures, events
from replayflow.core.commit import Message
from replayflow.core.definitions import Environment
from replayflow.core.events import HeartbeatRecorded, HistoryEvent, TaskCompleted, TaskScheduled, TimerFired
from replayflow.core.instance import CHILD_RETRY, MAP_RETRY, TASK_RETRY, TIMER, Alarm, Status
from replayflow.core.rows import AT_WORK
from replayflow.engine.activities import Activities
from replayflow.engine.episodes import Episodes
from replayflow.engine.inherited import start_inherited
from replayflow.engine.limits import Limits
from replayflow.engine.live import Live
from replayflow.engine.maps import Maps
from replayflow.engine.memory import Memory
from replayflow.engine.runs import Run
from replayflow.engine.windows import CallRun


class Work:
    """Starts what a durable history asks for, and hears how it ended."""

    def __init__(
        self, memory: Memory, episodes: Episodes, environment: Environment, limits: Limits, *, is_first: bool
    ) -> None:
        self._memory = memory
        self._lives = memory.lives
        self._warm = memory.warm
        self._episodes = episodes
        self.activities = Activities(
            environment,
            {
                "async": limits.async_activities,
                "thread": limits.thread_activities,
                "process": limits.process_activities,
                "transaction": 1,
            },
            self._has_run,
            self._has_told,
            self._is_suspended,
            is_first,
        )
        self.maps = Maps(environment.codec, self.activities, episodes.enqueue, self._post_end)

    def start(self, live: Live, execution_id: str, task: TaskScheduled) -> None:
        """The activity runs, as soon as there is room."""
        attempt = 1 if task.retry is None else live.instance.attempts.get(task.event_id, 0) + 1
        live.running[task.event_id] = self.activities.start(live.id, execution_id, task, attempt)

    def start_open(self, live: Live, task: TaskScheduled) -> None:
        """As `start`, for a task that may have been open before a rewind."""
        started = live.instance.started
        if started is not None and started.origins:
            attempt = live.instance.attempts.get(task.event_id, 0) + 1
            if start_inherited(live, task, self.activities, attempt):
                return
        self._resume(live, task)

    def _resume(self, live: Live, task: TaskScheduled) -> None:
        """`start`, for one that has been tried before, and may have told how far it came."""
        id = task.event_id
        if id not in live.instance.heartbeats:
            self.start(live, live.execution_id, task)
            return
        plan, attempt = self.activities.plan_of(task.name), live.instance.attempts.get(id, 0) + 1
        told = live.instance.heartbeats[id]
        run = live.running[id] = Run(live.id, live.execution_id, task, plan, attempt, told=told)
        self.activities.start_run(run)

    def start_orphan(self, live: Live, execution_id: str, task: TaskScheduled) -> None:
        """What an ended execution still owes runs, once in this worker; its id may be that of a task of the present execution."""
        key = (execution_id, task.event_id)
        if key not in live.owing:
            live.owe(key)
            self.activities.start(live.id, execution_id, task, 1)

    def cancel(self, live: Live, task_ids: Sequence[int]) -> None:
        """Nobody waits for these activities any longer."""
        for task_id in task_ids:
            run = live.running.pop(task_id, None)
            if run is not None:
                self.activities.cancel(run)

    def ring(self, instance_id: str, alarm: Alarm) -> None:
        """The time of an alarm has come: what it was set for happens, if it is wanted still."""
        live = self._lives.get(instance_id)
        if live is None or live.is_loading or not live.instance.rings(alarm):
            return  # one that is loading sets its alarms anew
        if alarm.kind == TASK_RETRY:
            if alarm.id not in live.running and live.begins_retry(alarm.id):
                self.start_open(live, live.instance.tasks[alarm.id])
            return
        if alarm.kind == MAP_RETRY:
            self.maps.ring(live, alarm)
            return
        if alarm.kind == TIMER:
            live.mailbox.append(TimerFired(alarm.id, alarm.at))
        elif alarm.kind == CHILD_RETRY:
            retried = departures.retried(live.instance, alarm.id, new_execution_id)
            if retried is not None:
                live.mailbox.append(retried)
        self._episodes.enqueue(live)

    def _has_run(self, run: Run, event: HistoryEvent) -> None:
        """An activity has ended: its result goes into the mailbox, or, where nobody is in, into the inbox."""
        live = self._lives.get(run.instance_id)
        if (
            live is not None
            and live.row is AT_WORK
            and type(run) is Run
            and live.execution_id == run.execution_id
            and not (live.is_busy or live.is_queued or live.is_loading)
            and live.executor is not None
        ):
            # What nearly always happens, spelled out: this is news, and somebody is there to hear it.
            running = live.running
            running.pop(run.task.event_id, None)
            if self._warm.is_crowded:
                self._warm.touch(live)
            if not running and not live.mailbox and not live.discarded and type(event) is TaskCompleted:
                self._episodes.move(live, event)
                return
            live.mailbox.append(event)
            if self._episodes.is_pumping:  # with what comes of the others meanwhile
                live.is_queued = True
                self._episodes.ready.append(live)
            else:
                self._episodes.enqueue(live)
        elif type(run) is CallRun:
            self.maps.has_run(live, run, event)
        elif live is None:
            self._post_end(run, event)
        elif live.execution_id == run.execution_id and not live.instance.is_finished:
            live.running.pop(run.task.event_id, None)
            live.mailbox.append(event)
            if not live.is_busy and not live.is_queued:
                self._episodes.enqueue(live)
        else:
            self._orphan_has_run(live, run, event)

    def _has_told(self, run: Run, detail: Payload, is_last: bool) -> bool:
        """An activity has told how far it has come. False where nobody is in: it is heard another time, and the last one goes into the inbox."""
        live = self._lives.get(run.instance_id)
        number = run.number if isinstance(run, CallRun) else None
        event = HeartbeatRecorded(run.task.event_id, run.attempt, detail, number)
        if live is None:
            if is_last:
                self._post_end(run, event)
            return is_last
        if live.execution_id == run.execution_id and not live.instance.is_finished:
            live.mailbox.append(event)
            self._episodes.enqueue(live)
        return True

    def _is_suspended(self, instance_id: str) -> bool:
        live = self._lives.get(instance_id)
        return live is not None and live.instance.status is Status.SUSPENDED

    def _post_end(self, run: Run, event: HistoryEvent) -> None:
        self._episodes.post(Message(run.instance_id, events.encode([event]), execution_id=run.execution_id))

    def _orphan_has_run(self, live: Live, run: Run, event: HistoryEvent) -> None:
        """An activity of an execution that has ended has had its run, and nobody is left to be told."""
        key = (run.execution_id, run.task.event_id)
        if live.running.get(run.task.event_id) is run:
            del live.running[run.task.event_id]
            if live.is_busy or live.is_loading:
                live.mailbox.append(event)  # the end is not durable; where it never is, somebody wants to know
        live.pay(key)
        self._episodes.go_on(live)
