"""What comes in: messages, and instances that have been read from the store, which are replayed and set going.

An instance that cannot go on, for want of its code, its key or a history that fits, is parked with its problem and damaged by nothing (I9). It stays
so until somebody asks for something, or another worker starts: not every wake-up is younger than the parking.
"""

from __future__ import annotations

import logging

from replayflow.clock import Clock
from replayflow.core import admission
from replayflow.core.definitions import Environment
from replayflow.core.events import ExecutionResumed, TaskCompleted, TaskFailed
from replayflow.core.instance import TASK_RETRY, Status
from replayflow.core.suspicion import is_poison
from replayflow.engine.episodes import Episodes
from replayflow.engine.inherited import adopt
from replayflow.engine.live import Ended, Live
from replayflow.engine.memory import Memory
from replayflow.engine.revival import fails_version, revive
from replayflow.engine.runs import Run
from replayflow.engine.waiters import Waiters
from replayflow.engine.work import Work
from replayflow.errors import NonDeterminismError, SealedError, StoreCorruptError
from replayflow.store.base import Delivery, InstanceRecord, Loaded
from replayflow.store.sound import CANNOT_BE_READ

_logger = logging.getLogger("replayflow")


class Arrivals:
    """Hands messages to whoever is in, and brings back who is not."""

    def __init__(
        self,
        memory: Memory,
        episodes: Episodes,
        work: Work,
        environment: Environment,
        waiters: Waiters,
        clock: Clock,
        *,
        fails_on_mismatch: bool,
    ) -> None:
        self._memory = memory
        self._lives = memory.lives
        self._episodes = episodes
        self._work = work
        self._environment = environment
        self._waiters = waiters
        self._clock = clock
        self._fails_on_mismatch = fails_on_mismatch

    def route(self, delivery: Delivery) -> None:
        """The message is in the mailbox of its instance, or that is on its way into memory; for one that takes no messages it waits in the inbox."""
        if delivery.number in self._memory.intake.held:
            return  # read from the store before its sender heard that it is written
        live = self._lives.get(delivery.instance_id)
        if live is not None and not live.is_loading:
            if delivery.is_sealed:
                self._memory.reload(live)
                return
            try:
                live.receive(delivery)
            except StoreCorruptError:
                # One damaged message does not end the worker: whoever loads its receiver says what is wrong.
                self._memory.reload(live)
                return
            self._memory.intake.held.add(delivery.number)
            self._episodes.enqueue(live)
            return
        meanwhile = self._memory.intake.loading.get(delivery.instance_id)
        if meanwhile is not None:
            meanwhile.append(delivery)
        elif delivery.takes_messages or delivery.is_control:
            self._memory.look_at(delivery.instance_id)

    def missing(self, instance_id: str) -> None:
        """The store has no such instance, or cannot read it."""
        live = self._lives.get(instance_id)
        if live is not None:
            self._memory.set_aside(live)
        self._waiters.missing(instance_id)

    def unreadable(self, record: InstanceRecord, error: StoreCorruptError) -> None:
        """What is stored of the instance cannot be read, but for its row, which shows why: the only thing of it that is written."""
        problem = f"{CANNOT_BE_READ}{error}"
        if record.problem != problem.encode():
            self._memory.show_problem(record, problem)

    def restore(self, loaded: Loaded) -> None:
        """The instance is in memory as the store has it, replayed, with everything going that has to go."""
        record = loaded.record
        live = self._lives.get(record.instance_id)
        goes_on = self._memory.intake.tries(record.instance_id) or live is not None
        if live is None:
            live = Live(record.instance_id, record.execution_id)
        elif not live.is_loading:
            return  # in memory since before the reading began: it knows better
        live.is_loading = False
        self._memory.forget(live)
        if loaded.problem is not None:
            self._leave_sealed(live, loaded.problem, record)
            return
        try:
            pieces = live.restore(loaded)
            for delivery in loaded.inbox:
                self._memory.intake.held.add(delivery.number)
                live.receive(delivery)
        except StoreCorruptError as error:
            _logger.exception("instance '%s' cannot be read, and is left as it is", live.id)
            self.missing(live.id)
            self.unreadable(record, error)
            return
        self._lives[live.id] = live
        if live.row.status.is_finished:
            self._waiters.ended(live.id, live.ending(live.row))
        if is_poison(record.problem) and not any(isinstance(event, ExecutionResumed) for event in live.mailbox):
            self._leave_poison(live)
            return
        if record.problem is None:
            self._memory.going_on.discard(live.id)
        elif not goes_on and not self._is_called(live, loaded):
            self._memory.set_aside(live)
            return
        problem = revive(live, pieces, self._environment)
        if problem is None:
            if record.problem is not None:
                live.running |= self._work.activities.at_work_for(live.id, live.execution_id)
                self._memory.unpark(live)
                _logger.warning("instance '%s' is parked no longer, and is tried again", live.id)
            self._memory.warm.touch(live)
            if live.start and (live.row.wake_at or 0) > self._clock.now():
                self.await_start(live)
            else:
                self._set_going(live)
        elif any(isinstance(event, admission.ENDS) for event in live.mailbox):
            self._end_without_code(live)
        elif (isinstance(problem, NonDeterminismError) and self._fails_on_mismatch) or fails_version(
            problem, self._environment
        ):
            self._memory.unpark(live)
            self._episodes.give_up(live, problem)
        elif record.problem == str(problem).encode():
            self._memory.set_aside(live)
        else:
            self._memory.park(live, str(problem))

    def await_start(self, live: Live) -> None:
        """A start that was set for later: only a request to end is heard before."""
        if any(isinstance(event, admission.ENDS) for event in live.mailbox):
            self._set_going(live)
            return
        self._memory.alarms.sleep(live.id, live.row.wake_at or 0)
        self._memory.set_aside(live)

    def has_transacted(self, run: Run, result: Delivery | None) -> None:
        """A transactional activity has had its one run, and its result, if its execution is open, stands in the inbox."""
        live = self._lives.get(run.instance_id)
        if live is not None and live.running.get(run.task.event_id) is run:
            del live.running[run.task.event_id]
        if result is not None:
            if live is not None and live.instance.is_finished and live.execution_id == run.execution_id:
                live.pay((run.execution_id, run.task.event_id))
            if self._memory.intake.is_next(result.number):
                self.route(result)
        elif live is not None:
            live.pay((run.execution_id, run.task.event_id))
            self._episodes.go_on(live)

    def _is_called(self, live: Live, loaded: Loaded) -> bool:
        """Whether the instance, whose row shows a problem, goes on all the same: by request, or because it does so already."""
        return live.id in self._memory.going_on or any(delivery.is_control for delivery in loaded.inbox)

    def _leave_poison(self, live: Live) -> None:
        """What killed its worker is let be: none of its code is run, unless somebody has resumed it."""
        if any(isinstance(event, admission.ENDS) for event in live.mailbox):
            self._end_without_code(live)
        else:
            self._memory.set_aside(live)

    def _end_without_code(self, live: Live) -> None:
        """A parked instance has a request to end, for which it needs no code."""
        live.executor = Ended()
        self._memory.unpark(live)
        self._episodes.go_on(live)

    def _leave_sealed(self, live: Live, problem: SealedError, record: InstanceRecord) -> None:
        """A value of it is encrypted, and the key is not here: nothing is replayed, started, taken in or ended, until a worker has it (I9)."""
        if live.execution_id != record.execution_id:
            live.execution_id, live.mailbox = record.execution_id, []
        if record.problem == str(problem).encode() and not live.mailbox:
            self._memory.set_aside(live)
        else:
            self._memory.park(live, str(problem))

    def _set_going(self, live: Live) -> None:
        """Activities that were at work run again, alarms are set, and what is in the mailbox is seen to."""
        instance = live.instance
        if not instance.is_finished:
            if instance.started is not None and instance.started.origins:
                adopt(live, self._work.activities)
            answered = {e.task_scheduled_id for e in live.mailbox if type(e) is TaskCompleted or type(e) is TaskFailed}
            for id, task in instance.tasks.items():
                if id not in live.running and id not in answered and id not in instance.retrying:
                    self._work.start_open(live, task)
            for alarm in instance.alarms():
                if alarm.kind != TASK_RETRY or alarm.id not in answered:  # the retry has been made, and has ended
                    self._memory.alarms.set(live.id, alarm)
            if instance.maps:
                self._work.maps.follow(live, list(instance.maps.values()))
            if instance.status is not Status.SUSPENDED:
                self._work.activities.rejoin(live.id)
        if live.orphans:
            live.orphans = [(owner, task) for owner, task in live.orphans if (owner, task.event_id) not in live.ran]
        for execution_id, task in live.orphans:
            if task.name in self._environment.activities:
                self._work.start_orphan(live, execution_id, task)
        self._episodes.go_on(live)
