"""Episodes: what is in a mailbox becomes one operation for the committer.

An instance has at most one commit under way. While it is, what comes for the instance gathers in its mailbox, so that fan-in takes few episodes
under load and no waiting when idle.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from random import Random

from replayflow.chance import new_execution_id
from replayflow.clock import Clock
from replayflow.core import episode, events
from replayflow.core.commit import Commit, Message, RowState, Turn
from replayflow.core.decisions import FAULTS
from replayflow.core.definitions import Environment
from replayflow.core.events import ExecutionStarted, HistoryEvent, TaskCompleted
from replayflow.core.instance import SUSPENDED
from replayflow.core.outcome import AnyEpisode, Episode, PlainEpisode
from replayflow.engine.committer import Committer
from replayflow.engine.live import Ended, Live, LocalExecutor
from replayflow.engine.memory import Memory, unstorable
from replayflow.engine.revival import executor_of, unknown
from replayflow.engine.steps import Owner, Parking, Step
from replayflow.engine.watchdog import Watchdog
from replayflow.errors import FailureDetails, InvalidArgumentError, ReplayflowError, UserError
from replayflow.store.base import Outcome, Post

_EPISODES_PER_TURN = 200
# A name or a tag that is no text is found out when it is written down: what was decided with it is nowhere yet.
_PARKED_FOR = (*FAULTS, InvalidArgumentError)


class Episodes:
    """Runs an episode of each instance that has news. `fail` is told of an error after which nothing may be built on what memory has."""

    def __init__(
        self,
        memory: Memory,
        environment: Environment,
        committer: Committer,
        clock: Clock,
        random: Random,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._memory = memory
        self._lives = memory.lives
        self._environment = environment
        self._committer = committer
        self._clock = clock
        self._random = random
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self.context = copy_context()
        """In which orchestrators' code runs: what an activity or a client sets in a `ContextVar` is not there when that is replayed."""
        self.watchdog = Watchdog()
        self.ready: deque[Live] = deque()
        """Who is due for an episode (`is_queued`), in order."""
        self.is_pumping = False
        """Whether the event loop has been asked to see to them."""

    def tell(self, owner: Owner) -> None:
        """`owner` is told what became of each episode's commit."""
        self._owner = owner

    def enqueue(self, live: Live) -> None:
        """The instance gets an episode, if it has news and no commit under way."""
        if live.is_busy or live.is_queued or live.is_loading:
            return
        if (not live.mailbox or live.instance.status is SUSPENDED) and not live.has_news:
            return
        if live.executor is None and not live.start:
            self._memory.reload(live)
            return
        live.is_queued = True
        self.ready.append(live)
        self._memory.warm.touch(live)
        if not self.is_pumping:
            self.is_pumping = True
            self._loop.call_soon(self._pump, context=self.context)

    def move(self, live: Live, came: TaskCompleted) -> None:
        """The next episode of an instance at work, at once, with the one thing that came and that it had under way.

        So an activity's end, and what follows from it, are one stretch of work on one instance, while its state is at hand.
        """
        executor = live.executor
        assert executor is not None  # noqa: S101 - it is at work
        watchdog = self.watchdog
        watchdog.step += 1
        watchdog.instance_id = live.id
        step: Step | Parking | None
        try:
            now = self._clock.now()
            done = self.context.copy().run(
                episode.turn, live.instance, executor, came, live.sequence, now, new_execution_id, live, live.reading
            )
            if type(done) is Turn and done.asked.name in self._environment.activities:
                live.is_busy = True
                self._committer.add(done, None)
                return
            live.mailbox.append(came)
            if done is None:
                self.enqueue(live)
                return
            # A turn, too, where nobody has registered what it asks for.
            step = self._step(live, PlainEpisode(done, [done.asked]) if type(done) is Turn else done)
        except _PARKED_FOR as problem:
            live.mailbox = [came]
            step = self._parking(live, problem)
        except BaseException as error:
            self._give_out(error)
            return
        finally:
            watchdog.instance_id = None
        if step is not None:
            self._committer.add(step.operation, step.settle)

    def go_on(self, live: Live) -> None:
        """The next episode, if there is news; an ended instance that owes nothing any more is forgotten."""
        if self._lives.get(live.id) is not live:
            return
        if (
            live.row.orphans is not None
            and not live.orphans
            and not (live.is_busy or live.is_queued or live.is_loading)
        ):
            self._pay_off(live)
        if live.mailbox or live.start or live.discarded:
            self.enqueue(live)
        if live.instance.is_finished and live.is_idle:
            self._memory.set_aside(live)

    def episode(self, live: Live) -> Step | Parking | None:
        """What the instance's mailbox comes to: an operation to write, and what follows it; None where there is nothing to write."""
        executor = live.executor
        if executor is None:
            made = self._executor(live.start)
            if isinstance(made, UserError):
                return self._memory.parking(live, str(made))
            live.executor = executor = made
        mailbox = live.mailbox
        watchdog = self.watchdog
        watchdog.step += 1
        watchdog.instance_id = live.id
        try:
            done = episode.run(
                live.instance,
                executor,
                mailbox,
                sequence=live.sequence,
                now=self._clock.now(),
                random=self._random,
                new_execution_id=new_execution_id,
                row=live.row,
                start=live.start,
                orphans=live.orphans,
            )
        except _PARKED_FOR as problem:
            return self._parking(live, problem)
        finally:
            watchdog.instance_id = None
        return self._step(live, done)

    def _parking(self, live: Live, problem: Exception) -> Parking:
        return self._memory.parking(
            live, unstorable(problem) if isinstance(problem, InvalidArgumentError) else str(problem)
        )

    def give_up(self, live: Live, mismatch: UserError) -> None:
        """The instance fails with the mismatch, for those who would rather have that than an instance that waits for the right code."""
        done = episode.fail(
            live.instance, FailureDetails.of(mismatch), sequence=live.sequence, now=self._clock.now(), row=live.row
        )
        assert done.commit is not None  # noqa: S101 - a failure is always written
        live.executor = Ended()
        live.is_busy = True
        self._committer.add(done.commit, Step(self._owner, live, done.commit, done, [], live.reading).settle)

    def post(self, message: Message) -> None:
        """The message is put into its receiver's inbox, and travels on."""

        def settle(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            if outcome is not None:
                self._owner.follow(outcome)
            elif error is not None:
                self._memory.later(lambda: self.post(message))

        self._committer.add(Post(message), settle)

    def _pump(self) -> None:
        """Runs an episode of each instance that is ready; the rest of the loop gets its turn after a while."""
        ready, lives, committer = self.ready, self._lives, self._committer
        try:
            for _ in range(min(len(ready), _EPISODES_PER_TURN)):
                live = ready.popleft()
                live.is_queued = False
                if lives.get(live.id) is live and not live.is_loading:
                    step = self.episode(live)
                    if step is not None:
                        committer.add(step.operation, step.settle)
                    elif live.instance.is_finished and live.is_idle:
                        self._memory.set_aside(live)
        except BaseException as error:
            self.is_pumping = False
            self._give_out(error)
        if self.ready:
            self._loop.call_soon(self._pump, context=self.context)
        else:
            self.is_pumping = False

    def _give_out(self, error: BaseException) -> None:
        """A KeyboardInterrupt of the user's, or a fault of ours: what the instance has decided is in doubt, and nothing else may be built on it."""
        self._fail(error)
        self.ready.clear()
        if not isinstance(error, Exception):
            raise error

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
                return self._memory.parking(live, str(unknown("activity", task.name, activities)))
        is_plain = type(done) is PlainEpisode  # of what it does not have nothing need be asked
        if not is_plain:
            for open in done.mapped:
                missing = open.unknown_activity(activities)
                if missing is not None:
                    return self._memory.parking(live, str(unknown("activity", missing, activities)))
        mailbox, live.mailbox = live.mailbox, []
        live.start = ()
        numbers: Sequence[int] = live.discarded or ()
        live.discarded = None
        loose = mailbox
        if live.numbers:
            loose = [event for event in mailbox if id(event) not in live.numbers]
            held = {id(event) for event in done.held}
            numbers = [*numbers, *live.numbers_of([event for event in mailbox if id(event) not in held])]
        if not is_plain and done.held:
            self._keep_held(live, done.held)
        commit = done.commit
        if commit is None:
            if not numbers:
                return None
            commit = Commit(live.id, live.execution_id, live.sequence, self._clock.now(), None)
        if numbers:
            commit.consumed = numbers
        live.is_busy = True
        if live.instance.is_finished:
            live.ends_in = self._committer.next_group
        return Step(self._owner, live, commit, done, loose, live.reading)

    def _keep_held(self, live: Live, held: Sequence[HistoryEvent]) -> None:
        """What came while the instance is suspended waits; results that only memory has go into the inbox, and come back with a number (I5)."""
        for event in held:
            if id(event) in live.numbers:
                live.mailbox.append(event)
            else:
                self.post(Message(live.id, events.encode([event]), execution_id=live.execution_id))

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
        step = Step(self._owner, live, commit, Episode(), [], live.reading)
        self._committer.add(commit, step.settle)
