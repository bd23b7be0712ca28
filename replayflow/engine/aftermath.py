"""What follows from a commit: durable first, visible after.

Only when the commit is on disk do its activities start, its messages travel, its waiters wake, its children begin (I3). One that was refused, or
whose group failed, never happened: the generator and all that it decided are thrown away, what it had taken in stands in the inbox or goes back
into the mailbox, and the instance is read again from the store (I7).
"""

from __future__ import annotations

import asyncio
import logging

from replayflow.clock import Clock
from replayflow.core import rows
from replayflow.core.commit import Commit, RowState, Start, Turn
from replayflow.core.events import HistoryEvent
from replayflow.core.instance import FAILED, SUSPENDED
from replayflow.core.outcome import AnyEpisode, PlainEpisode
from replayflow.engine.arrivals import Arrivals
from replayflow.engine.episodes import Episodes
from replayflow.engine.live import Ended, Live
from replayflow.engine.memory import Memory, unstorable
from replayflow.engine.steps import Step
from replayflow.engine.waiters import Waiters
from replayflow.engine.work import Work
from replayflow.errors import InvalidArgumentError, LeaseLostError, PayloadError, ReplayflowError
from replayflow.store.base import ACCEPTED, Outcome

_logger = logging.getLogger("replayflow")


class Aftermath:
    """Told what became of each commit."""

    def __init__(
        self, memory: Memory, episodes: Episodes, work: Work, arrivals: Arrivals, waiters: Waiters, clock: Clock
    ) -> None:
        self._memory = memory
        self._lives = memory.lives
        self._episodes = episodes
        self._work = work
        self._activities = work.activities
        self._arrivals = arrivals
        self._waiters = waiters
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    def turned(self, turn: Turn, outcome: Outcome | None, error: ReplayflowError | None) -> None:
        """`Step.settle` for what nearly every commit is: the activity that was asked for begins, and nothing else follows."""
        live: Live = turn.live
        if outcome is not ACCEPTED or live.must_reload or live.reading != turn.reading:
            done = PlainEpisode(turn, [turn.asked])
            Step(self, live, turn, done, [turn.came], turn.reading).settle(outcome, error)
            return
        live.is_busy = False
        live.sequence += 1
        task = turn.asked
        live.running[task.event_id] = self._activities.start(live.id, live.execution_id, task, 1)
        if live.mailbox or live.discarded:
            self._episodes.go_on(live)

    def committed(self, live: Live, commit: Commit, done: AnyEpisode, outcome: Outcome) -> None:
        """The commit is durable; now it becomes visible."""
        if commit.chunk is not None:
            live.sequence += 1
        if commit.consumed:
            self._memory.intake.consumed(commit.consumed)
        state = commit.state
        if state is not None:
            if live.row.status is SUSPENDED and state.status is not SUSPENDED:
                self._loop.call_soon(self._activities.rejoin, live.id)  # when what ends with it is cancelled
            live.row = state
        is_plain = type(done) is PlainEpisode  # of what it does not have nothing need be asked
        if not is_plain and done.canceled:
            self._work.cancel(live, done.canceled)
        if state is not None and state.status.is_finished:
            self._ended(live, commit, state)
        else:
            for task in done.scheduled:
                self._work.start(live, live.execution_id, task)
            if not is_plain:
                for alarm in done.alarms:
                    self._memory.alarms.set(live.id, alarm)
                if done.mapped:
                    self._work.maps.follow(live, done.mapped)
        if outcome is not ACCEPTED:
            self.follow(outcome)
        if not is_plain and done.problem is not None and not live.instance.is_finished:
            self._memory.park(live, done.problem, is_heard=False)
        elif commit.removes and not live.has_news:
            # Where it is in the store all the same, that is because of a message that is on its way here.
            self._memory.set_aside(live)
        elif live.mailbox or live.start or live.discarded or live.row.orphans is not None or live.instance.is_finished:
            self._episodes.go_on(live)

    def not_committed(self, live: Live, commit: Commit, loose: list[HistoryEvent], error: ReplayflowError) -> None:
        """Nothing of it has happened. What came from the inbox stands there still; what only memory has goes back into the mailbox."""
        self._memory.intake.held.difference_update(commit.consumed)
        self._memory.close_executor(live)
        if self._lives.get(live.id) is not live:
            return
        live.mailbox = loose + live.mailbox
        if isinstance(error, InvalidArgumentError | PayloadError):  # it would be refused again, and again
            self._memory.park(live, unstorable(error), is_heard=False)
            return
        if isinstance(error, LeaseLostError):  # a failure of the whole group is reported once, not for each instance
            _logger.warning("a commit of instance '%s' was not written, and is done again: %s", live.id, error)
        live.is_loading = True
        self._memory.later(lambda: self._memory.intake.want(live.id))

    def follow(self, outcome: Outcome) -> None:
        """Executions that were created begin; messages that were put into inboxes travel on."""
        for start in outcome.started:
            present = self._lives.get(start.instance_id)
            if present is not None:
                if present.execution_id != start.execution_id:
                    self._memory.reload(present)
            elif start.wake_at > self._clock.now():
                self._memory.alarms.sleep(start.instance_id, start.wake_at)
            elif not self._memory.is_stopping:
                live = Live.of_start(start)
                if live.is_first:
                    self._lives[live.id] = live
                    if self._memory.intake.unwant(live.id):
                        self._memory.reload(live)
                    else:
                        self._episodes.enqueue(live)
                else:
                    self._memory.look_at(live.id)
        for delivery in outcome.deliveries:
            if self._memory.intake.is_next(delivery.number):
                self._arrivals.route(delivery)
        for message in outcome.dropped:
            if message.about:
                _logger.warning(
                    "%s was dropped: instance '%s' is unknown or has finished", message.about, message.instance_id
                )

    def reload_if_in(self, live: Live) -> None:
        """What a reading has been waiting for is written: the instance is read anew."""
        self._memory.reload_if_in(live)

    def _ended(self, live: Live, commit: Commit, state: RowState) -> None:
        """The execution is over: what it asked for last still runs, its successor begins, and whoever waits is told."""
        if (
            commit.next_start is None
            and state.orphans is None
            and state.status is not FAILED
            and not live.windows
            and live.is_idle
        ):
            self._memory.set_aside(live)
            self._waiters.ended(live.id, live.ending(state))
            return
        self._memory.close_executor(live)
        self._memory.warm.drop(live)
        live.executor = Ended()
        if live.windows:
            self._work.maps.end(live)
        if state.orphans is not None:
            live.orphans = [o for o in rows.decode_orphans(state.orphans) if (o[0], o[1].event_id) not in live.ran]
            for execution_id, task in live.orphans:
                if execution_id != live.execution_id:
                    continue
                if task.event_id in live.running:
                    live.owe((execution_id, task.event_id))
                else:
                    self._work.start_orphan(live, execution_id, task)
        if state.status is FAILED and state.failure is not None:
            _logger.warning("instance '%s' failed: %s", live.id, rows.decode_failure(state.failure))
        if commit.next_start is not None:
            self._succeed(live, commit.next_start)
        else:
            self._waiters.ended(live.id, live.ending(state))

    def _succeed(self, live: Live, start: Start) -> None:
        """The next execution takes over the place, the messages that are meant for it, and what the last one still owes."""
        successor = live.successor(start)
        self._lives[live.id] = successor
        if start.wake_at > self._clock.now():
            self._arrivals.await_start(successor)
        else:
            self._episodes.go_on(successor)
