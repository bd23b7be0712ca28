"""The instances in memory: how they come in, move, and leave. Mailboxes -> episodes -> group commit -> what follows.

The order that all rests on:

1. An episode runs in memory and yields one commit; nothing that it decided is visible to anybody yet.
2. The commit is written, with others, in one transaction.
3. Only then do its activities start, its messages travel, its waiters wake, its children begin (I3, "durable first, visible after").
4. A commit that was refused, or whose group failed, never happened: the generator and all that it decided are thrown away, what it had
   taken in stands in the inbox or goes back into the mailbox, and the instance is read again from the store (I7).

One instance has at most one commit under way. While it is, what comes for the instance gathers in its mailbox, so that fan-in takes few
episodes under load and no waiting when idle.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from replayflow.clock import Clock
from replayflow.codec import Payload
from replayflow.codec.reference import may_refer
from replayflow.core import admission, departures, episode, events, rows
from replayflow.core.commit import Commit, Ending, Message, RowState, Start, Turn
from replayflow.core.decisions import FAULTS
from replayflow.core.definitions import Environment
from replayflow.core.events import (
    ExecutionResumed,
    ExecutionStarted,
    HeartbeatRecorded,
    HistoryEvent,
    MapPage,
    MapProgress,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerFired,
)
from replayflow.core.instance import CHILD_RETRY, MAP_RETRY, SUSPENDED, TASK_RETRY, TIMER, Alarm, Status
from replayflow.core.outcome import AnyEpisode, Episode, PlainEpisode
from replayflow.core.rows import AT_WORK
from replayflow.core.suspicion import is_poison
from replayflow.engine.activities import Activities, Run
from replayflow.engine.alarms import Alarms
from replayflow.engine.committer import Committer, Settle
from replayflow.engine.inherited import adopt, start_inherited
from replayflow.engine.intake import Intake
from replayflow.engine.limits import Limits
from replayflow.engine.live import Ended, Live, LocalExecutor
from replayflow.engine.maps import Maps
from replayflow.engine.patience import Backoff
from replayflow.engine.revival import executor_of, fails_version, revive, unknown
from replayflow.engine.steps import Parking, Step
from replayflow.engine.waiters import Waiters
from replayflow.engine.warm import Warm
from replayflow.engine.watchdog import Watchdog
from replayflow.engine.windows import CallRun
from replayflow.errors import (
    FailureDetails,
    InvalidArgumentError,
    LeaseLostError,
    NonDeterminismError,
    PayloadError,
    ReplayflowError,
    SealedError,
    StoreCorruptError,
    UserError,
)
from replayflow.store.base import ACCEPTED, Create, Delivery, InstanceRecord, Loaded, Outcome, Park, Post, Store

_logger = logging.getLogger("replayflow")
_EPISODES_PER_TURN = 200
_OWN = (TaskCompleted, TaskFailed, HeartbeatRecorded, MapProgress, MapPage)
"""What comes from the instance's own activities: only memory has it, until it is in a history or an inbox."""


class Residents:
    """What one worker has in memory. `fail` is told of an error after which nothing may be built on what memory has."""

    def __init__(
        self,
        store: Store,
        environment: Environment,
        committer: Committer,
        waiters: Waiters,
        backoff: Backoff,
        limits: Limits,
        clock: Clock,
        random: Random,
        fails_on_mismatch: bool,
        is_first: bool,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._environment = environment
        self._committer = committer
        self._waiters = waiters
        self._backoff = backoff
        self._clock = clock
        self._random = random
        self._fails_on_mismatch = fails_on_mismatch
        self._fail = fail
        self._lives: dict[str, Live] = {}
        self._ready: deque[Live] = deque()
        self._is_pumping = False
        self.is_stopping = False
        self.is_lost = False
        self._loop = asyncio.get_running_loop()
        self.watchdog = Watchdog()
        self._warm = Warm(limits.warm_instances, self._cool)
        self.intake = Intake(store, self._route, self._restore, self._missing)
        self.alarms = Alarms(self._clock, self._ring, self.look_at, store.wakes)
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
        committer.tell_of_turns(self._turned)
        self._maps = Maps(environment.codec, self.activities, self._enqueue, self._post_end)

    @property
    def is_quiet(self) -> bool:
        """Whether no episode is due and no instance on its way in."""
        return not self._ready and not self._is_pumping and self.intake.is_idle

    def cool_all(self) -> None:
        """No generator is left of those that wait: whoever hears of something next is replayed first."""
        for live in list(self._lives.values()):
            if not (live.is_busy or live.is_queued or live.is_loading):
                self._warm.drop(live)
                self._cool(live)

    def close(self) -> None:
        """No generator is left."""
        for live in list(self._lives.values()):
            self._close(live)
        self._lives.clear()

    # ---- what clients in this process ask for

    def is_at_work(self, instance_id: str) -> bool:
        """Whether the instance is in memory and has not finished, or on its way there; where it is not, the store knows."""
        live = self._lives.get(instance_id)
        if live is None:
            return self.intake.is_expected(instance_id)
        return not live.row.status.is_finished

    def can_begin_at_once(self, create: Create) -> bool:
        start = create.start
        return (
            create.on_existing in ("error", "return")  # a replacement continues a history, which has to be looked at
            and start.wake_at <= self._clock.now()
            and start.name in self._environment.orchestrators
            and start.instance_id not in self._lives
            and not self.is_stopping
            and not self._backoff.seconds
            and not may_refer(start.event)  # what it passes on is in the store alone
        )

    def create_and_begin(self, create: Create, settle: Settle) -> None:
        """Creation and first episode travel in one transaction; where the first is refused, so is the second, which continues nothing then."""
        live = Live.of_start(create.start)
        step = self._episode(live)
        assert isinstance(step, Step | Parking)  # noqa: S101 - a first episode always has its start to write

        was_wanted = False

        def created(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            nonlocal was_wanted
            if outcome is not None and outcome.started and live.id not in self._lives:
                was_wanted = self.intake.unwant(live.id)
                self._lives[live.id] = live
                self._warm.touch(live)
                outcome.started = []
            settle(outcome, error)

        def begun(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            if self._lives.get(live.id) is live:
                step.settle(outcome, error)
                if was_wanted:
                    self.reload_if_in(live)
            else:
                self._close(live)

        self._committer.add(create, created)
        self._committer.add(step.operation, begun)

    # ---- messages and instances come in

    def _route(self, delivery: Delivery) -> None:
        if delivery.number in self.intake.held:
            return  # read from the store before its sender heard that it is written
        live = self._lives.get(delivery.instance_id)
        if live is not None and not live.is_loading:
            if delivery.is_sealed:
                self._reload(live)
                return
            try:
                live.receive(delivery)
            except (
                StoreCorruptError
            ):  # one damaged message must not end the worker: whoever loads its receiver says what is wrong
                self._reload(live)
                return
            self.intake.held.add(delivery.number)
            self._enqueue(live)
            return
        meanwhile = self.intake.loading.get(delivery.instance_id)
        if meanwhile is not None:
            meanwhile.append(delivery)
        elif delivery.takes_messages or delivery.is_control:
            self.look_at(delivery.instance_id)

    def resident(self, instance_id: str) -> Live | None:
        """What is in memory of the instance; None where it is in the store alone."""
        return self._lives.get(instance_id)

    def look_at(self, instance_id: str) -> None:
        if instance_id not in self._lives and not self.is_stopping:
            self.intake.want(instance_id)

    def _reload(self, live: Live) -> None:
        """The instance is read anew: its generator is gone, or nothing that is in memory of it holds any more."""
        if live.is_busy:
            live.must_reload = True  # what is read before the commit is written would be out of date
        elif not live.is_loading:
            live.is_loading = True
            self.intake.want(live.id)

    def reload_if_in(self, live: Live) -> None:
        if self._lives.get(live.id) is live:
            self._reload(live)

    def _missing(self, instance_id: str) -> None:
        live = self._lives.get(instance_id)
        if live is not None:
            self._set_aside(live)
        self._waiters.missing(instance_id)

    def _restore(self, loaded: Loaded) -> None:
        """The instance is in memory as the store has it, replayed, with everything going that has to go."""
        record = loaded.record
        live = self._lives.get(record.instance_id)
        if live is None:
            live = Live(record.instance_id, record.execution_id)
        elif not live.is_loading:
            return  # in memory since before the reading began: it knows better
        live.is_loading = False
        self._forget(live)
        if loaded.problem is not None:
            self._leave_sealed(live, loaded.problem, record)
            return
        try:
            pieces = live.restore(loaded)
            for delivery in loaded.inbox:
                self.intake.held.add(delivery.number)
                live.receive(delivery)
        except StoreCorruptError:
            _logger.exception("instance '%s' cannot be read, and is left as it is", live.id)
            self._missing(live.id)
            return
        self._lives[live.id] = live
        if live.row.status.is_finished:
            self._waiters.ended(live.id, _ending(live, live.row))
        if is_poison(record.problem) and not any(isinstance(event, ExecutionResumed) for event in live.mailbox):
            self._leave_poison(live)
            return
        problem = revive(live, pieces, self._environment)
        if problem is None:
            if record.problem is not None:
                live.running |= self.activities.at_work_for(live.id, live.execution_id)
                self._unpark(live)
                _logger.warning("instance '%s' is parked no longer, and is tried again", live.id)
            self._warm.touch(live)
            if live.start and (live.row.wake_at or 0) > self._clock.now():
                self._await_start(live)
            else:
                self._set_going(live)
        elif any(isinstance(event, admission.ENDS) for event in live.mailbox):
            self._end_without_code(live)
        elif (isinstance(problem, NonDeterminismError) and self._fails_on_mismatch) or fails_version(
            problem, self._environment
        ):
            self._unpark(live)
            self._give_up(live, problem)
        elif record.problem == str(problem).encode():
            self._set_aside(live)
        else:
            self._park(live, str(problem))

    def _leave_poison(self, live: Live) -> None:
        """What killed its worker is let be: none of its code is run, unless somebody has resumed it."""
        if any(isinstance(event, admission.ENDS) for event in live.mailbox):
            self._end_without_code(live)
        else:
            self._set_aside(live)

    def _end_without_code(self, live: Live) -> None:
        """A parked instance has a request to end, for which it needs no code."""
        live.executor = Ended()
        self._unpark(live)
        self._go_on(live)

    def _leave_sealed(self, live: Live, problem: SealedError, record: InstanceRecord) -> None:
        """A value of it is encrypted, and the key is not here: nothing is replayed, started, taken in or ended, until a worker has it (I9)."""
        if live.execution_id != record.execution_id:
            live.execution_id, live.mailbox = record.execution_id, []
        if record.problem == str(problem).encode() and not live.mailbox:
            self._set_aside(live)
        else:
            self._park(live, str(problem))

    def _set_going(self, live: Live) -> None:
        """Activities that were at work run again, alarms are set, and what is in the mailbox is seen to."""
        instance = live.instance
        if not instance.is_finished:
            if instance.started is not None and instance.started.origins:
                adopt(live, self.activities)
            answered = {e.task_scheduled_id for e in live.mailbox if isinstance(e, TaskCompleted | TaskFailed)}
            for id, task in instance.tasks.items():
                if id not in live.running and id not in answered and id not in instance.retrying:
                    self._start_open(live, task)
            for alarm in instance.alarms():
                self.alarms.set(live.id, alarm)
            if instance.maps:
                self._maps.follow(live, list(instance.maps.values()))
            if instance.status is not Status.SUSPENDED:
                self.activities.rejoin(live.id)
        if live.orphans:
            live.orphans = [(owner, task) for owner, task in live.orphans if (owner, task.event_id) not in live.ran]
        for execution_id, task in live.orphans:
            if task.name in self._environment.activities:
                self._start_orphan(live, execution_id, task)
        self._go_on(live)

    def _await_start(self, live: Live) -> None:
        """A start that was set for later: only a request to end is heard before."""
        if any(isinstance(event, admission.ENDS) for event in live.mailbox):
            self._set_going(live)
            return
        self.alarms.sleep(live.id, live.row.wake_at or 0)
        self._set_aside(live)

    # ---- episodes

    def _enqueue(self, live: Live) -> None:
        """The instance gets an episode, if it has news and no commit under way."""
        if live.is_busy or live.is_queued or live.is_loading:
            return
        if (not live.mailbox or live.instance.status is SUSPENDED) and not live.has_news:
            return
        if live.executor is None and not live.start:
            self._reload(live)
            return
        live.is_queued = True
        self._ready.append(live)
        self._warm.touch(live)
        if not self._is_pumping:
            self._is_pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Runs an episode of each instance that is ready; the rest of the loop gets its turn after a while."""
        ready, lives, committer = self._ready, self._lives, self._committer
        try:
            for _ in range(min(len(ready), _EPISODES_PER_TURN)):
                live = ready.popleft()
                live.is_queued = False
                if lives.get(live.id) is live and not live.is_loading:
                    step = self._episode(live)
                    if type(step) is Turn:
                        committer.add(step, None)
                    elif step is not None:
                        committer.add(step.operation, step.settle)
        except BaseException as error:
            # A KeyboardInterrupt of the user's, or a fault of ours: what the instance has decided is in doubt, and nothing else may be built on it.
            self._fail(error)
            self._ready.clear()
            self._is_pumping = False
            if not isinstance(error, Exception):
                raise
        if self._ready:
            self._loop.call_soon(self._pump)
        else:
            self._is_pumping = False

    def _episode(self, live: Live) -> Turn | Step | Parking | None:
        """What the instance's mailbox comes to: an operation to write, and what follows it; None where there is nothing to write."""
        executor = live.executor
        if executor is None:
            made = self._executor(live.start)
            if isinstance(made, UserError):
                return self._parking(live, str(made))
            live.executor = executor = made
        mailbox = live.mailbox
        watchdog = self.watchdog
        watchdog.step += 1
        watchdog.instance_id = live.id
        done: Turn | AnyEpisode | None = None
        try:
            if live.row is AT_WORK and len(mailbox) == 1 and not live.numbers and not live.discarded:
                came = mailbox[0]
                if type(came) is TaskCompleted:
                    done = episode.turn(
                        live.instance,
                        executor,
                        came,
                        live.sequence,
                        self._clock.now(),
                        _new_execution_id,
                        live,
                        live.reading,
                    )
                    if type(done) is Turn and done.asked.name in self._environment.activities:
                        live.mailbox = []
                        live.is_busy = True
                        return done
            if done is None:
                done = episode.run(
                    live.instance,
                    executor,
                    mailbox,
                    sequence=live.sequence,
                    now=self._clock.now(),
                    random=self._random,
                    new_execution_id=_new_execution_id,
                    row=live.row,
                    start=live.start,
                    orphans=live.orphans,
                )
        except FAULTS as fault:
            return self._parking(live, str(fault))
        except (
            InvalidArgumentError
        ) as error:  # a name or a tag that is no text: what was decided with it is nowhere yet
            return self._parking(live, _unstorable(error))
        finally:
            watchdog.instance_id = None
        return self._step(live, PlainEpisode(done, [done.asked]) if type(done) is Turn else done)

    def _executor(self, start: Sequence[HistoryEvent]) -> LocalExecutor | UserError:
        """Who runs the execution that begins so, or why nobody here does."""
        started = start[0]
        assert isinstance(started, ExecutionStarted)  # noqa: S101 - every execution begins with it
        return executor_of(started, self._environment)

    def _step(self, live: Live, done: AnyEpisode) -> Step | Parking | None:
        """The episode on its way to the disk; None where there is nothing to write."""
        activities = self._environment.activities
        for task in done.scheduled:
            if task.name not in activities:
                return self._parking(live, str(unknown("activity", task.name, activities)))
        for open in done.mapped:
            missing = open.unknown_activity(activities)
            if missing is not None:
                return self._parking(live, str(unknown("activity", missing, activities)))
        mailbox, live.mailbox = live.mailbox, []
        live.start = ()
        numbers: Sequence[int] = live.discarded or ()
        live.discarded = None
        loose = mailbox
        if live.numbers:
            loose = [event for event in mailbox if id(event) not in live.numbers]
            held = {id(event) for event in done.held}
            numbers = [*numbers, *live.numbers_of([event for event in mailbox if id(event) not in held])]
        if done.held:
            self._keep_held(live, done.held)
        commit = done.commit
        if commit is None:
            if not numbers:
                return None
            commit = Commit(live.id, live.execution_id, live.sequence, self._clock.now(), None)
        if numbers:
            commit.consumed = numbers
        live.is_busy = True
        return Step(self, live, commit, done, loose, live.reading)

    def _keep_held(self, live: Live, held: Sequence[HistoryEvent]) -> None:
        """What came while the instance is suspended waits; results that only memory has go into the inbox, and come back with a number (I5)."""
        for event in held:
            if id(event) in live.numbers:
                live.mailbox.append(event)
            else:
                self._post(Message(live.id, events.encode([event]), execution_id=live.execution_id))

    def _post(self, message: Message) -> None:
        def settle(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            if outcome is not None:
                self.follow(outcome)
            elif error is not None:
                self._later(lambda: self._post(message))

        self._committer.add(Post(message), settle)

    # ---- what follows from a commit

    def _turned(self, turn: Turn, outcome: Outcome | None, error: ReplayflowError | None) -> None:
        """`Step.settle` for what nearly every commit is: the activity that was asked for begins, and nothing else follows."""
        live: Live = turn.live
        if outcome is not ACCEPTED or live.must_reload or live.reading != turn.reading:
            done = PlainEpisode(turn, [turn.asked])
            Step(self, live, turn, done, [turn.came], turn.reading).settle(outcome, error)
            return
        live.is_busy = False
        live.sequence += 1
        task = turn.asked
        live.running[task.event_id] = self.activities.start(live.id, live.execution_id, task, 1)
        if live.mailbox or live.discarded:
            self._go_on(live)

    def committed(self, live: Live, commit: Commit, done: AnyEpisode, outcome: Outcome) -> None:
        """The commit is durable; now it becomes visible."""
        if commit.chunk is not None:
            live.sequence += 1
        if commit.consumed:
            self.intake.consumed(commit.consumed)
        state = commit.state
        if state is not None:
            if live.row.status is Status.SUSPENDED and state.status is not Status.SUSPENDED:
                self._loop.call_soon(self.activities.rejoin, live.id)  # when what ends with it is cancelled
            live.row = state
        if done.canceled:
            self._cancel_activities(live, done.canceled)
        if state is not None and state.status.is_finished:
            self._ended(live, commit, state)
        else:
            for task in done.scheduled:
                self._start_activity(live, live.execution_id, task)
            for alarm in done.alarms:
                self.alarms.set(live.id, alarm)
            if done.mapped:
                self._maps.follow(live, done.mapped)
        if outcome is not ACCEPTED:
            self.follow(outcome)
        if done.problem is not None and not live.instance.is_finished:
            self._park(live, done.problem)
        elif commit.removes and not live.has_news:
            # Where it is in the store all the same, that is because of a message that is on its way here.
            self._set_aside(live)
        elif live.mailbox or live.discarded or live.row.orphans is not None or live.instance.is_finished:
            self._go_on(live)

    def _cancel_activities(self, live: Live, task_ids: Sequence[int]) -> None:
        for task_id in task_ids:
            run = live.running.pop(task_id, None)
            if run is not None:
                self.activities.cancel(run)

    def _ended(self, live: Live, commit: Commit, state: RowState) -> None:
        """The execution is over: what it asked for last still runs, its successor begins, and whoever waits is told."""
        self._close(live)
        self._warm.drop(live)
        live.executor = Ended()
        if live.windows:
            self._maps.end(live)
        if state.orphans is not None:
            live.orphans = [o for o in rows.decode_orphans(state.orphans) if (o[0], o[1].event_id) not in live.ran]
            for execution_id, task in live.orphans:
                if execution_id != live.execution_id:
                    continue
                if task.event_id in live.running:
                    live.owe((execution_id, task.event_id))
                else:
                    self._start_orphan(live, execution_id, task)
        if state.status is Status.FAILED and state.failure is not None:
            _logger.warning("instance '%s' failed: %s", live.id, rows.decode_failure(state.failure))
        if commit.next_start is not None:
            self._succeed(live, commit.next_start)
        else:
            self._waiters.ended(live.id, _ending(live, state))

    def _succeed(self, live: Live, start: Start) -> None:
        """The next execution takes over the place, the messages that are meant for it, and what the last one still owes."""
        successor = live.successor(start)
        self._lives[live.id] = successor
        if start.wake_at > self._clock.now():
            self._await_start(successor)
        else:
            self._go_on(successor)

    def not_committed(self, live: Live, commit: Commit, loose: list[HistoryEvent], error: ReplayflowError) -> None:
        """Nothing of it has happened. What came from the inbox stands there still; what only memory has goes back into the mailbox."""
        self.intake.held.difference_update(commit.consumed)
        self._close(live)
        if self._lives.get(live.id) is not live:
            return
        live.mailbox = loose + live.mailbox
        if isinstance(error, InvalidArgumentError | PayloadError):  # it would be refused again, and again
            self._park(live, _unstorable(error))
            return
        if isinstance(error, LeaseLostError):  # a failure of the whole group is reported once, not for each instance
            _logger.warning("a commit of instance '%s' was not written, and is done again: %s", live.id, error)
        live.is_loading = True
        self._later(lambda: self.intake.want(live.id))

    def _later(self, retry: Callable[[], None]) -> None:
        if not self.is_lost and not self.is_stopping:
            self._loop.call_later(self._backoff.seconds, retry)

    def follow(self, outcome: Outcome) -> None:
        """Executions that were created begin; messages that were put into inboxes travel on."""
        for start in outcome.started:
            present = self._lives.get(start.instance_id)
            if present is not None:
                if present.execution_id != start.execution_id:
                    self._reload(present)
            elif start.wake_at > self._clock.now():
                self.alarms.sleep(start.instance_id, start.wake_at)
            elif not self.is_stopping:
                live = Live.of_start(start)
                if live.is_first:
                    self._lives[live.id] = live
                    if self.intake.unwant(live.id):
                        self._reload(live)
                    else:
                        self._enqueue(live)
                else:
                    self.look_at(live.id)
        for delivery in outcome.deliveries:
            self._route(delivery)
        for message in outcome.dropped:
            if message.about:
                _logger.warning(
                    "%s was dropped: instance '%s' is unknown or has finished", message.about, message.instance_id
                )

    def _go_on(self, live: Live) -> None:
        """The next episode, if there is news; an ended instance that owes nothing any more is forgotten."""
        if self._lives.get(live.id) is not live:
            return
        if live.row.orphans is not None and not live.orphans and not live.is_busy and not live.is_queued:
            self._pay_off(live)
        if live.mailbox or live.start or live.discarded:
            self._enqueue(live)
        if live.instance.is_finished and live.is_idle:
            self._set_aside(live)

    # ---- activities and alarms

    def _start_activity(self, live: Live, execution_id: str, task: TaskScheduled) -> None:
        attempt = 1 if task.retry is None else live.instance.attempts.get(task.event_id, 0) + 1
        live.running[task.event_id] = self.activities.start(live.id, execution_id, task, attempt)

    def _resume_activity(self, live: Live, task: TaskScheduled) -> None:
        """`_start_activity`, for one that has been tried before, and may have told how far it came."""
        id = task.event_id
        if id not in live.instance.heartbeats:
            self._start_activity(live, live.execution_id, task)
            return
        plan, attempt = self.activities.plan_of(task.name), live.instance.attempts.get(id, 0) + 1
        told = live.instance.heartbeats[id]
        run = live.running[id] = Run(live.id, live.execution_id, task, plan, attempt, told=told)
        self.activities.start_run(run)

    def _start_open(self, live: Live, task: TaskScheduled) -> None:
        """As `_start_activity`, for a task that may have been open before a rewind."""
        started = live.instance.started
        if started is not None and started.origins:
            attempt = live.instance.attempts.get(task.event_id, 0) + 1
            if start_inherited(live, task, self.activities, attempt):
                return
        self._resume_activity(live, task)

    def _start_orphan(self, live: Live, execution_id: str, task: TaskScheduled) -> None:
        """What an ended execution still owes runs, once in this worker; its id may be that of a task of the present execution."""
        key = (execution_id, task.event_id)
        if key not in live.owing:
            live.owe(key)
            self.activities.start(live.id, execution_id, task, 1)

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
            and self._is_pumping
        ):
            # What nearly always happens, spelled out: this is news, somebody is there to hear it, and the pump is at work.
            live.running.pop(run.task.event_id, None)
            live.mailbox.append(event)
            live.is_queued = True
            self._ready.append(live)
            if self._warm.is_crowded:
                self._warm.touch(live)
        elif type(run) is CallRun:
            self._maps.has_run(live, run, event)
        elif live is None:
            self._post_end(run, event)
        elif live.execution_id == run.execution_id and not live.instance.is_finished:
            live.running.pop(run.task.event_id, None)
            live.mailbox.append(event)
            if not live.is_busy and not live.is_queued:
                self._enqueue(live)
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
            self._enqueue(live)
        return True

    def _is_suspended(self, instance_id: str) -> bool:
        live = self._lives.get(instance_id)
        return live is not None and live.instance.status is Status.SUSPENDED

    def _post_end(self, run: Run, event: HistoryEvent) -> None:
        self._post(Message(run.instance_id, events.encode([event]), execution_id=run.execution_id))

    def _orphan_has_run(self, live: Live, run: Run, event: HistoryEvent) -> None:
        """An activity of an execution that has ended has had its run, and nobody is left to be told."""
        key = (run.execution_id, run.task.event_id)
        if live.running.get(run.task.event_id) is run:
            del live.running[run.task.event_id]
            if live.is_busy or live.is_loading:
                live.mailbox.append(event)  # the end is not durable; where it never is, somebody wants to know
        live.pay(key)
        self._go_on(live)

    def has_transacted(self, run: Run, result: Delivery | None) -> None:
        """A transactional activity has had its one run, and its result, if its execution is open, stands in the inbox."""
        live = self._lives.get(run.instance_id)
        if live is not None and live.running.get(run.task.event_id) is run:
            del live.running[run.task.event_id]
        if result is not None:
            if live is not None and live.instance.is_finished and live.execution_id == run.execution_id:
                live.pay((run.execution_id, run.task.event_id))
            self._route(result)
        elif live is not None:
            live.pay((run.execution_id, run.task.event_id))
            self._go_on(live)

    def _pay_off(self, live: Live) -> None:
        """The row says that activities are owed that have run by now; without them the instance may sleep."""
        row = live.row
        state = RowState(
            row.status,
            live.instance.wake_at() if live.instance.started is not None else 0,
            row.custom_status,
            row.output,
            row.failure,
            row.completed_at,
            progress=row.progress,
        )
        commit = Commit(live.id, live.execution_id, live.sequence, self._clock.now(), None, state=state)
        live.is_busy = True
        step = Step(self, live, commit, Episode(), [], live.reading)
        self._committer.add(commit, step.settle)

    def _ring(self, instance_id: str, alarm: Alarm) -> None:
        live = self._lives.get(instance_id)
        if live is None or live.is_loading or not live.instance.rings(alarm):
            return  # one that is loading sets its alarms anew
        if alarm.kind == TASK_RETRY:
            if alarm.id not in live.running:
                self._start_open(live, live.instance.tasks[alarm.id])
            return
        if alarm.kind == MAP_RETRY:
            self._maps.ring(live, alarm)
            return
        if alarm.kind == TIMER:
            live.mailbox.append(TimerFired(alarm.id, alarm.at))
        elif alarm.kind == CHILD_RETRY:
            retried = departures.retried(live.instance, alarm.id, _new_execution_id)
            if retried is not None:
                live.mailbox.append(retried)
        self._enqueue(live)

    # ---- parking, and leaving the memory

    def _give_up(self, live: Live, mismatch: UserError) -> None:
        """The instance fails with the mismatch, for those who would rather have that than an instance that waits for the right code."""
        done = episode.fail(
            live.instance, FailureDetails.of(mismatch), sequence=live.sequence, now=self._clock.now(), row=live.row
        )
        assert done.commit is not None  # noqa: S101 - a failure is always written
        live.executor = Ended()
        live.is_busy = True
        self._committer.add(done.commit, Step(self, live, done.commit, done, [], live.reading).settle)

    def _park(self, live: Live, problem: str) -> None:
        parking = self._parking(live, problem)
        self._committer.add(parking.operation, parking.settle)

    def _unpark(self, live: Live) -> None:
        """The instance's row shows no problem any more."""
        self._committer.add(Park(live.id, live.execution_id, None), _ignore)

    def _parking(self, live: Live, problem: str) -> Parking:
        """The instance is set aside with its problem; what only memory has of it goes into its inbox (I9)."""
        messages = [
            Message(live.id, events.encode([event]), execution_id=live.execution_id)
            for event in live.mailbox
            if isinstance(event, _OWN) and id(event) not in live.numbers
        ]
        live.is_busy = True
        return Parking(self, live, Park(live.id, live.execution_id, problem.encode(), messages), problem)

    def parked(self, live: Live, problem: str, error: ReplayflowError | None) -> None:
        self._set_aside(live)
        if error is None:
            _logger.warning("instance '%s' is parked: %s", live.id, problem)
        else:
            self._later(lambda: self.look_at(live.id))

    def _cool(self, live: Live) -> None:
        """The generator goes; with it, where nothing else is going on, all that memory has of the instance."""
        if live.is_idle:
            at = live.instance.next_due()
            if at is not None and live.instance.status is not SUSPENDED and not live.instance.is_finished:
                self.alarms.sleep(live.id, at)
            self._set_aside(live)
        elif not live.start:
            self._close(live)

    def _set_aside(self, live: Live) -> None:
        """The instance is in the store alone."""
        if self._lives.get(live.id) is live:
            del self._lives[live.id]
        self._forget(live)

    def _forget(self, live: Live) -> None:
        self._warm.drop(live)
        for number, _ in live.numbers.values():
            self.intake.held.discard(number)
        self.intake.held.difference_update(live.discarded or ())
        self._close(live)

    def _close(self, live: Live) -> None:
        executor, live.executor = live.executor, None
        if executor is not None:
            executor.close()


def _new_execution_id() -> str:
    return os.urandom(16).hex()


def _ending(live: Live, row: RowState) -> Ending:
    started = live.instance.started
    if started is None:
        return Ending("", row.status, row.output, row.failure)
    return Ending(started.name, row.status, row.output, row.failure, started.version)


def _unstorable(error: ReplayflowError) -> str:
    return f"what it decided cannot be stored: {error}"


def _ignore(*_: object) -> None:
    pass
