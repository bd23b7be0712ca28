"""The engine: everything that a worker does, put together. Mailboxes -> episodes -> group commit -> what follows.

The order that all rests on:

1. An episode runs in memory and yields one commit; nothing that it decided is visible to anybody yet.
2. The commit is written, with others, in one transaction.
3. Only then do its activities start, its messages travel, its waiters wake, its children begin (I3, "durable first, visible after").
4. A commit that was refused, or whose group failed, never happened: the generator and all that it decided are thrown away, what it had taken in
   stands in the inbox or goes back into the mailbox, and the instance is read again from the store (I7).

One instance has at most one commit under way. While it is, what comes for the instance gathers in its mailbox, so that fan-in takes few
episodes under load and no waiting when idle.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from uuid import uuid4

from replayflow.clock import Clock, SystemClock
from replayflow.codec import Codec
from replayflow.core import episode, events
from replayflow.core.commit import Commit, Message, RowState, Start
from replayflow.core.definitions import ActivityDefinition, Environment, OrchestratorDefinition
from replayflow.core.events import HistoryEvent, TaskCompleted, TaskFailed, TaskScheduled, TimerFired
from replayflow.core.instance import CHILD_RETRY, TASK_RETRY, TIMER, Alarm, Status
from replayflow.core.replay import Replay
from replayflow.engine.activities import Activities, Run
from replayflow.engine.alarms import Alarms
from replayflow.engine.committer import Committer
from replayflow.engine.intake import Intake
from replayflow.engine.live import Ended, Live
from replayflow.errors import (
    HubOwnedError,
    LeaseLostError,
    NonDeterminismError,
    NotAHubError,
    ReplayflowError,
    StoreCorruptError,
    UnknownNameError,
)
from replayflow.registry import App
from replayflow.store.base import Create, Delivery, Loaded, Operation, Outcome, Park, Post, Store

_logger = logging.getLogger("replayflow")
_FATAL = (LeaseLostError, StoreCorruptError, NotAHubError, HubOwnedError)
_EPISODES_PER_TURN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a worker may use. Counts are of things at work at one time; `grace` is how long running activities get when the worker stops.

    `warm_instances` bounds the generators in memory: the one that nothing has happened to for longest is dropped, and replayed when it is needed.
    """

    async_activities: int = 1_000
    thread_activities: int = 32
    process_activities: int = 2
    warm_instances: int = 20_000
    grace: timedelta = timedelta(seconds=10)


@dataclass(slots=True)
class _Backoff:
    """When to try a store again that failed: later each time, soon again after a success."""

    seconds: float = 0.0
    reported: set[str] = field(default_factory=set)

    def failed(self) -> None:
        self.seconds = min(max(self.seconds * 2, 0.05), 5.0)

    def succeeded(self) -> None:
        self.seconds = 0.0
        self.reported.clear()


class Engine:
    """One worker's engine. `run` works until it is cancelled or fails; `stop` lets it end in good order."""

    def __init__(
        self,
        store: Store,
        app: App,
        codec: Codec,
        epoch: int,
        limits: Limits,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self._store = store
        self._app = app
        self._clock = clock or SystemClock()
        self._random = random or Random()  # noqa: S311 - jitter
        self._limits = limits
        self._environment = Environment(codec, app.activities, app.orchestrators)
        self._lives: dict[str, Live] = {}
        self._warm: OrderedDict[str, Live] = OrderedDict()
        self._ready: deque[Live] = deque()
        self._is_pumping = False
        self._is_stopping = False
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[str, list[asyncio.Future[RowState]]] = {}
        self._backoff = _Backoff()
        self.failure: ReplayflowError | None = None
        self._has_failed = asyncio.Event()
        self._committer = Committer(store, epoch, self._group_failed)
        self._intake = Intake(store, self._route, self._restore, self._missing)
        self._alarms = Alarms(self._clock, self._ring, self._look_at, store.wakes)
        self._activities = Activities(
            codec,
            {
                "async": limits.async_activities,
                "thread": limits.thread_activities,
                "process": limits.process_activities,
            },
            self._finished,
        )

    # ---- life

    async def run(self) -> None:
        """Works until cancelled.

        Raises:
            StoreError: the store is lost to this worker: another owns it, or it is damaged.
        """
        unsubscribe = self._store.subscribe(self._intake.look)
        try:
            async with asyncio.TaskGroup() as services:
                services.create_task(self._committer.run())
                services.create_task(self._intake.read_arrivals())
                services.create_task(self._intake.load_wanted())
                services.create_task(self._intake.want_parked())
                services.create_task(self._alarms.run())
                services.create_task(self._watch())
        except* ReplayflowError as group:
            error = group.exceptions[0]
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self._fail(error if isinstance(error, ReplayflowError) else StoreCorruptError(str(error)))
        finally:
            unsubscribe()
        if self.failure is not None:
            raise self.failure

    async def _watch(self) -> None:
        await self._has_failed.wait()
        assert self.failure is not None  # noqa: S101 - set before the event
        raise self.failure

    async def stop(self) -> None:
        """Running activities have had their grace, what they came to is durable, and no generator is left. What did not end runs again some day."""
        self._is_stopping = True
        if self.failure is None:
            await self._activities.stop(self._limits.grace.total_seconds())
            await self._settle_down()
        else:
            await self._activities.stop(0)
        for live in list(self._lives.values()):
            self._close(live)
        self._lives.clear()

    async def _settle_down(self) -> None:
        """What is ready has run, and all of it is written, as long as the store takes it."""
        try:
            async with asyncio.timeout(max(1.0, self._limits.grace.total_seconds())):
                while self.failure is None and self._backoff.seconds == 0:
                    await self._committer.drain()
                    if not self._ready:
                        return
                    await asyncio.sleep(0)
        except TimeoutError:
            _logger.warning("stopped with commits under way; what they held is done again")

    def _fail(self, error: ReplayflowError) -> None:
        if self.failure is None:
            self.failure = error
            self._has_failed.set()
            for waiters in self._waiters.values():
                for future in waiters:
                    if not future.done():
                        future.set_exception(error)
            self._waiters.clear()

    # ---- what clients in this process ask for

    async def submit(self, operation: Create | Post) -> Outcome:
        """The operation is durable; a new instance has made its first step in the same transaction.

        Raises:
            ReplayflowError: the store failed, and nothing was written.
        """
        if self.failure is not None:
            raise self.failure
        done: asyncio.Future[Outcome] = self._loop.create_future()

        def settle(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            if outcome is not None:
                self._follow(outcome)
            if done.done():
                return
            if outcome is not None:
                done.set_result(outcome)
            elif error is not None:
                done.set_exception(error)

        if isinstance(operation, Create) and self._can_begin_at_once(operation.start):
            self._create_and_begin(operation, settle)
        else:
            self._committer.add(operation, settle)
        return await done

    def expect_end(self, instance_id: str) -> asyncio.Future[RowState]:
        """A future of the row that the instance ends with, if that happens from now on; cancel it when it is not wanted any more."""
        future: asyncio.Future[RowState] = self._loop.create_future()
        if self.failure is not None:
            future.set_exception(self.failure)
            return future
        self._waiters.setdefault(instance_id, []).append(future)
        future.add_done_callback(lambda done: self._forget_waiter(instance_id, done))
        return future

    def _forget_waiter(self, instance_id: str, future: asyncio.Future[RowState]) -> None:
        waiters = self._waiters.get(instance_id)
        if waiters is not None and future in waiters:
            waiters.remove(future)
            if not waiters:
                del self._waiters[instance_id]

    def _can_begin_at_once(self, start: Start) -> bool:
        return (
            start.wake_at <= self._clock.now()
            and start.name in self._app.orchestrators
            and start.instance_id not in self._lives
            and not self._is_stopping
            and not self._backoff.seconds
        )

    def _create_and_begin(
        self, create: Create, settle: Callable[[Outcome | None, ReplayflowError | None], None]
    ) -> None:
        """Creation and first episode travel in one transaction; where the first is refused, so is the second, which continues nothing then."""
        live = Live.of_start(create.start)
        operation, follow = self._episode(live, self._app.orchestrators[create.start.name])

        def created(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            if outcome is not None and outcome.started and create.start.instance_id not in self._lives:
                self._lives[live.id] = live
                self._warm[live.id] = live
                outcome.started = []
            settle(outcome, error)

        def begun(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            if self._lives.get(live.id) is live:
                follow(outcome, error)
            else:
                live.is_busy = False
                self._close(live)

        self._committer.add(create, created)
        if operation is not None:
            self._committer.add(operation, begun)

    # ---- messages and instances come in

    def _route(self, delivery: Delivery) -> None:
        live = self._lives.get(delivery.instance_id)
        if live is not None and not live.is_loading:
            self._intake.held.add(delivery.number)
            live.receive(delivery)
            self._enqueue(live)
            return
        meanwhile = self._intake.loading.get(delivery.instance_id)
        if meanwhile is not None:
            meanwhile.append(delivery)
        elif delivery.takes_messages or delivery.is_control:
            self._look_at(delivery.instance_id)

    def _look_at(self, instance_id: str) -> None:
        live = self._lives.get(instance_id)
        if live is None and not self._is_stopping:
            self._intake.want(instance_id)

    def _reload(self, live: Live) -> None:
        """The instance is read anew: its generator is gone, or nothing that is in memory of it holds any more."""
        if not live.is_loading:
            live.is_loading = True
            self._intake.want(live.id)

    def _missing(self, instance_id: str) -> None:
        live = self._lives.pop(instance_id, None)
        if live is not None:
            self._forget(live)

    def _restore(self, loaded: Loaded) -> None:
        """The instance is in memory as the store has it, replayed, with everything going that has to go."""
        id = loaded.record.instance_id
        live = self._lives.get(id) or Live(id, loaded.record.execution_id)
        live.is_loading = False
        for number, _ in live.numbers.values():
            self._intake.held.discard(number)
        self._close(live)
        try:
            pieces = live.restore(loaded)
            for delivery in loaded.inbox:
                self._intake.held.add(delivery.number)
                live.receive(delivery)
        except StoreCorruptError:
            _logger.exception("instance '%s' cannot be read, and is left as it is", id)
            self._missing(id)
            return
        self._lives[id] = live
        problem = self._revive(live, pieces)
        if problem is not None:
            if loaded.record.problem != problem.encode():
                self._park(live, problem)
            else:
                self._set_aside(live)
            return
        if loaded.record.problem is not None:
            self._committer.add(Park(id, live.execution_id, None), _ignore)
            _logger.warning("instance '%s' fits the code again, and goes on", id)
        if live.row.wake_at is not None and live.row.wake_at > self._clock.now() and live.start:
            self._await_start(live)
            return
        self._set_going(live)

    def _revive(self, live: Live, pieces: list[list[HistoryEvent]]) -> str | None:
        """The generator stands where it stood; or what is wrong with it."""
        if live.instance.is_finished:
            live.executor = Ended()
            return None
        started = live.instance.started or live.start[0]
        assert isinstance(started, events.ExecutionStarted)  # noqa: S101 - every execution begins with it
        definition = self._app.orchestrators.get(started.name)
        if definition is None:
            return str(_unknown("orchestrator", started.name, self._app.orchestrators))
        for task in live.instance.tasks.values():
            if task.name not in self._app.activities:
                return str(_unknown("activity", task.name, self._app.activities))
        if not pieces:
            return None
        replay = Replay(definition, started, self._environment)
        try:
            for piece in pieces:
                replay.replay(piece)
        except NonDeterminismError as mismatch:
            return str(mismatch)
        live.executor = replay
        self._touch(live)
        return None

    def _set_going(self, live: Live) -> None:
        """Activities that were at work run again, alarms are set, and what is in the mailbox is seen to."""
        answered = {e.task_scheduled_id for e in live.mailbox if isinstance(e, TaskCompleted | TaskFailed)}
        instance = live.instance
        if not instance.is_finished:
            for id, task in instance.tasks.items():
                if id not in live.running and id not in answered and id not in instance.retrying:
                    self._start_activity(live, live.execution_id, task)
            for alarm in instance.alarms():
                self._alarms.set(live.id, alarm)
        for execution_id, task in live.orphans:
            if task.name in self._app.activities:
                self._start_activity(live, execution_id, task, is_orphan=True)
        self._enqueue(live)
        self._rest(live)

    def _await_start(self, live: Live) -> None:
        """A start that was set for later: only a request to end is heard before."""
        if any(isinstance(event, episode.CONTROL[:1]) for event in live.mailbox):
            self._set_going(live)
            return
        self._alarms.sleep(live.id, live.row.wake_at or 0)
        self._lives.pop(live.id, None)
        self._forget(live)

    # ---- episodes

    def _enqueue(self, live: Live) -> None:
        if live.is_busy or live.is_queued or live.is_loading or not live.has_news:
            return
        if live.executor is None and not live.start:
            self._reload(live)
            return
        live.is_queued = True
        self._ready.append(live)
        self._warm_or_not(live)
        if not self._is_pumping:
            self._is_pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Runs an episode of each instance that is ready; the rest of the loop gets its turn after a while."""
        for _ in range(min(len(self._ready), _EPISODES_PER_TURN)):
            live = self._ready.popleft()
            live.is_queued = False
            if self._lives.get(live.id) is not live or live.is_loading:
                continue
            definition = self._app.orchestrators.get(live.start[0].name) if live.start else None  # type: ignore[attr-defined]
            if live.start and definition is None:
                self._park(live, str(_unknown("orchestrator", live.start[0].name, self._app.orchestrators)))  # type: ignore[attr-defined]
                continue
            operation, follow = self._episode(live, definition)
            if operation is not None:
                self._committer.add(operation, follow)
        if self._ready:
            self._loop.call_soon(self._pump)
        else:
            self._is_pumping = False

    def _episode(
        self, live: Live, definition: OrchestratorDefinition | None
    ) -> tuple[Operation | None, Callable[[Outcome | None, ReplayflowError | None], None]]:
        """What the instance's mailbox comes to: an operation, and what to do when it is written."""
        start, live.start = live.start, []
        mailbox, live.mailbox = live.mailbox, []
        discarded, live.discarded = live.discarded, []
        if start:
            assert definition is not None  # noqa: S101 - whoever begins an execution has looked
            started = start[0]
            assert isinstance(started, events.ExecutionStarted)  # noqa: S101 - every execution begins with it
            live.executor = Replay(definition, started, self._environment)
        executor = live.executor
        assert executor is not None  # noqa: S101 - only instances with one are ready
        done = episode.run(
            live.instance,
            executor,
            mailbox,
            sequence=live.sequence,
            now=self._clock.now(),
            random=self._random,
            new_execution_id=_new_execution_id,
            row=live.row,
            start=start,
            orphans=live.orphans,
        )
        unknown = next((task.name for task in done.scheduled if task.name not in self._app.activities), None)
        if unknown is not None:
            live.mailbox, live.start, live.discarded = mailbox, start, discarded
            return self._parking(live, str(_unknown("activity", unknown, self._app.activities)))
        held = {id(event) for event in done.held}
        taken = [event for event in mailbox if id(event) not in held] if held else mailbox
        consumed = live.numbers_of(taken)
        consumed += discarded
        live.mailbox = done.held + live.mailbox
        self._keep_held(live)
        commit = done.commit
        if commit is None:
            if not consumed:
                return None, _ignore
            commit = Commit(live.id, live.execution_id, live.sequence, self._clock.now(), None)
        commit.consumed = consumed
        live.is_busy = True

        def follow(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            live.is_busy = False
            if outcome is not None and outcome.error is None:
                self._committed(live, commit, done, outcome)
            else:
                self._not_committed(live, mailbox, commit, error or (outcome.error if outcome else None))

        return commit, follow

    def _keep_held(self, live: Live) -> None:
        """Results that came while the instance is suspended are put into its inbox: they come back by themselves, with a number (I5)."""
        loose = [event for event in live.mailbox if id(event) not in live.numbers]
        if loose and live.instance.status is Status.SUSPENDED:
            live.mailbox = [event for event in live.mailbox if id(event) in live.numbers]
            for event in loose:
                message = Message(live.id, events.encode([event]), execution_id=live.execution_id)
                self._post(message)

    def _post(self, message: Message) -> None:
        def settle(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            if outcome is not None:
                self._follow(outcome)
            elif error is not None and self.failure is None:
                self._later(lambda: self._post(message))

        self._committer.add(Post(message), settle)

    # ---- what follows from a commit

    def _committed(self, live: Live, commit: Commit, done: episode.Episode, outcome: Outcome) -> None:
        """The commit is durable; now it becomes visible."""
        self._backoff.succeeded()
        if commit.chunk is not None:
            live.sequence += 1
        if commit.consumed:
            self._intake.held.difference_update(commit.consumed)
        state = commit.state
        if state is not None:
            live.row = state
        for task_id in done.canceled:
            self._activities.cancel(live.id, live.execution_id, task_id)
            live.running.discard(task_id)
        if state is not None and state.status.is_finished:
            self._finished_instance(live, commit, done, state)
        else:
            for task in done.scheduled:
                self._start_activity(live, live.execution_id, task)
            for alarm in done.alarms:
                self._alarms.set(live.id, alarm)
        if outcome.deliveries or outcome.started or outcome.dropped:
            self._follow(outcome)
        if self._lives.get(live.id) is live:
            self._enqueue(live)
            self._rest(live)

    def _finished_instance(self, live: Live, commit: Commit, done: episode.Episode, state: RowState) -> None:
        """The execution has ended: what it asked for last still runs, its successor begins, and whoever waits is told."""
        if isinstance(live.executor, Replay):
            self._close(live)
        live.executor = Ended()
        self._warm.pop(live.id, None)
        if state.orphans is not None:
            live.orphans = episode.decode_orphans(state.orphans)
        started = {task.event_id for task in done.scheduled}
        for execution_id, task in live.orphans:
            if execution_id == live.execution_id and (task.event_id in started or task.event_id not in live.running):
                self._start_activity(live, execution_id, task, is_orphan=True)
        if commit.next_start is not None:
            self._succeed(live, commit.next_start)
            return
        for future in self._waiters.pop(live.id, ()):
            if not future.done():
                future.set_result(state)

    def _succeed(self, live: Live, start: Start) -> None:
        """The next execution takes over the place, the messages that are meant for it, and what the last one still owes."""
        successor = Live.of_start(start)
        successor.sequence = live.sequence + 1  # the start itself has the number between
        successor.orphans = live.orphans
        successor.row.custom_status = live.row.custom_status
        successor.row.orphans = live.row.orphans
        for event in live.mailbox:
            numbered = live.numbers.get(id(event))
            if numbered is None:
                continue  # a result that the old execution's code never gets to see
            number, execution_id = numbered
            if execution_id is None or execution_id == successor.execution_id:
                successor.mailbox.append(event)
                successor.numbers[id(event)] = numbered
            else:
                successor.discarded.append(number)
        successor.discarded += live.discarded
        self._lives[live.id] = successor
        if start.wake_at > self._clock.now():
            self._await_start(successor)
        else:
            self._enqueue(successor)

    def _not_committed(
        self, live: Live, mailbox: list[HistoryEvent], commit: Commit, error: ReplayflowError | None
    ) -> None:
        """Nothing of it has happened. What came from the inbox stands there still; results that only memory has go back into the mailbox."""
        consumed = set(commit.consumed)
        self._intake.held -= consumed
        if self._lives.get(live.id) is not live:
            self._close(live)
            return
        # What was numbered has given up its number in the episode; the reload finds it in the inbox again.
        loose = [
            e for e in mailbox if isinstance(e, TaskCompleted | TaskFailed) and e.task_scheduled_id in live.running
        ]
        live.mailbox = loose + live.mailbox
        self._close(live)
        _logger.warning("a commit of instance '%s' was not written: %s", live.id, error)
        if self.failure is None:
            live.is_loading = True
            self._later(lambda: self._intake.want(live.id))

    def _group_failed(self, error: ReplayflowError) -> None:
        if isinstance(error, _FATAL):
            self._fail(error)
            return
        self._backoff.failed()
        kind = type(error).__name__
        if kind not in self._backoff.reported:
            self._backoff.reported.add(kind)
            _logger.error("the store refuses to write, and is tried again until it does: %s", error)

    def _later(self, retry: Callable[[], None]) -> None:
        self._loop.call_later(self._backoff.seconds, retry)

    def _follow(self, outcome: Outcome) -> None:
        """Messages that were put into inboxes travel on; executions that were created begin."""
        for start in outcome.started:
            if start.instance_id in self._lives:
                self._reload(self._lives[start.instance_id])
            elif start.wake_at > self._clock.now():
                self._alarms.sleep(start.instance_id, start.wake_at)
            else:
                live = self._lives[start.instance_id] = Live.of_start(start)
                self._enqueue(live)
        for delivery in outcome.deliveries:
            self._route(delivery)
        for message in outcome.dropped:
            if message.about:
                _logger.warning(
                    "%s was dropped: instance '%s' is unknown or has finished", message.about, message.instance_id
                )

    # ---- activities and alarms

    def _start_activity(self, live: Live, execution_id: str, task: TaskScheduled, is_orphan: bool = False) -> None:
        definition: ActivityDefinition | None = self._app.activities.get(task.name)
        if definition is None:
            return
        live.running.add(task.event_id)
        attempt = live.instance.attempts.get(task.event_id, 0) + 1
        self._activities.start(live.id, execution_id, task, definition, attempt, is_orphan)

    def _finished(self, run: Run, event: HistoryEvent) -> None:
        """An activity has ended: its result goes into the mailbox, or, where nobody is in, into the inbox."""
        live = self._lives.get(run.instance_id)
        if run.is_orphan:
            self._orphan_has_run(run)
        elif live is not None and live.execution_id == run.execution_id:
            live.mailbox.append(event)
            live.running.discard(run.task.event_id)
            self._enqueue(live)
        elif live is None:
            self._post(Message(run.instance_id, events.encode([event]), execution_id=run.execution_id))

    def _orphan_has_run(self, run: Run) -> None:
        """An activity of an execution that has ended has had its run; the last one lets the instance's row go to sleep."""
        live = self._lives.get(run.instance_id)
        if live is None:
            return
        live.running.discard(run.task.event_id)
        live.orphans = [
            (execution_id, task)
            for execution_id, task in live.orphans
            if (execution_id, task.event_id) != (run.execution_id, run.task.event_id)
        ]
        if not live.orphans and live.instance.is_finished and not live.is_busy:
            state = live.row
            state.orphans, state.wake_at = None, None
            commit = Commit(live.id, live.execution_id, live.sequence, self._clock.now(), None, state=state)
            self._committer.add(commit, lambda *_: self._rest(live))

    def _ring(self, instance_id: str, alarm: Alarm) -> None:
        live = self._lives.get(instance_id)
        if live is None or live.is_loading or not live.instance.rings(alarm):
            return  # one that is loading sets its alarms anew
        if alarm.kind == TIMER:
            live.mailbox.append(TimerFired(alarm.id, alarm.at))
        elif alarm.kind == TASK_RETRY:
            task = live.instance.tasks[alarm.id]
            if alarm.id not in live.running:
                self._start_activity(live, live.execution_id, task)
            return
        elif alarm.kind == CHILD_RETRY:
            retried = episode.retried(live.instance, alarm.id, _new_execution_id)
            if retried is not None:
                live.mailbox.append(retried)
        self._enqueue(live)

    # ---- parking

    def _park(self, live: Live, problem: str) -> None:
        operation, follow = self._parking(live, problem)
        self._committer.add(operation, follow)

    def _parking(
        self, live: Live, problem: str
    ) -> tuple[Operation, Callable[[Outcome | None, ReplayflowError | None], None]]:
        """The instance is set aside with its problem; what only memory has of it goes into its inbox (I9)."""
        loose = [event for event in live.mailbox if id(event) not in live.numbers]
        lasting = [event for event in loose if isinstance(event, TaskCompleted | TaskFailed)]
        messages = [Message(live.id, events.encode([event]), execution_id=live.execution_id) for event in lasting]
        live.is_busy = True

        def follow(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            live.is_busy = False
            self._set_aside(live)
            if error is not None and self.failure is None:
                self._later(lambda: self._look_at(live.id))
            else:
                _logger.warning("instance '%s' is parked: %s", live.id, problem)

        return Park(live.id, live.execution_id, problem.encode(), messages), follow

    def _set_aside(self, live: Live) -> None:
        self._lives.pop(live.id, None)
        self._forget(live)

    # ---- warm and cold

    def _touch(self, live: Live) -> None:
        self._warm[live.id] = live
        self._warm_or_not(live)

    def _warm_or_not(self, live: Live) -> None:
        """The instance is the last to be dropped; the first is, where there are too many."""
        warm = self._warm
        warm[live.id] = live
        warm.move_to_end(live.id)
        if len(warm) > self._limits.warm_instances:
            self._cool()

    def _cool(self) -> None:
        excess = len(self._warm) - self._limits.warm_instances
        for id, live in list(self._warm.items())[: excess + 8]:
            if live.is_busy or live.is_queued or live.is_loading:
                continue
            del self._warm[id]
            if live.is_idle:
                self._evict(live)
            elif live.executor is not None and not live.start:
                self._close(live)
            excess -= 1
            if excess <= 0:
                return

    def _rest(self, live: Live) -> None:
        """An ended instance that owes nothing any more is forgotten; others stay warm."""
        if live.instance.is_finished and live.is_idle and self._lives.get(live.id) is live:
            self._set_aside(live)

    def _evict(self, live: Live) -> None:
        """The instance sleeps in the store alone, until its time or a message comes."""
        self._lives.pop(live.id, None)
        at = live.instance.next_due()
        if at is not None and not live.instance.is_finished and live.instance.status is not Status.SUSPENDED:
            self._alarms.sleep(live.id, at)
        self._forget(live)

    def _forget(self, live: Live) -> None:
        self._warm.pop(live.id, None)
        for number, _ in live.numbers.values():
            self._intake.held.discard(number)
        self._intake.held.difference_update(live.discarded)
        self._close(live)

    def _close(self, live: Live) -> None:
        executor, live.executor = live.executor, None
        if executor is not None:
            executor.close()


def _new_execution_id() -> str:
    return uuid4().hex


def _ignore(*_: object) -> None:
    pass


def _unknown(what: str, name: str, known: object) -> UnknownNameError:
    names = ", ".join(sorted(known)) if isinstance(known, dict) else ""
    return UnknownNameError(
        f"no {what} '{name}' is registered with this worker's app (it has: {names or 'none'}); "
        "the instance waits, and goes on when a worker with it starts"
    )
