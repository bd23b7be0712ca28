"""The instances in memory: how they come in, move, and leave. Mailboxes -> episodes -> group commit -> what follows.

The order that all rests on, with the module that sees to it:

1. An episode runs in memory and yields one commit; nothing that it decided is visible to anybody yet (`episodes.py`).
2. The commit is written, with others, in one transaction (`committer.py`).
3. Only then do its activities start, its messages travel, its waiters wake, its children begin (`aftermath.py`, `work.py`).
4. A commit that was refused, or whose group failed, never happened: the instance is read again from the store (`aftermath.py`, `arrivals.py`).

`memory.py` knows who is in.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from replayflow.clock import Clock
from replayflow.core.definitions import Environment
from replayflow.engine.aftermath import Aftermath
from replayflow.engine.alarms import Alarms
from replayflow.engine.arrivals import Arrivals
from replayflow.engine.beginnings import Beginnings
from replayflow.engine.committer import Committer
from replayflow.engine.episodes import Episodes
from replayflow.engine.intake import Intake
from replayflow.engine.limits import Limits
from replayflow.engine.live import Live
from replayflow.engine.memory import Memory
from replayflow.engine.patience import Backoff
from replayflow.engine.waiters import Waiters
from replayflow.engine.work import Work
from replayflow.store.base import Store

_PATIENCE_SECONDS = 0.01
_PATIENCE_WITH_A_BATCH_SECONDS = 0.025  # a thousand first steps, which are one group then, take 10 to 15 ms


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
        self.intake = Intake(
            store,
            lambda delivery: self._arrivals.route(delivery),
            lambda loaded: self._arrivals.restore(loaded),
            lambda instance_id: self._arrivals.missing(instance_id),
            lambda record, error: self._arrivals.unreadable(record, error),
        )
        self.alarms = Alarms(
            clock, lambda instance_id, alarm: self._work.ring(instance_id, alarm), self.look_at, store.wakes
        )
        self._memory = Memory(self.intake, self.alarms, committer, backoff, limits.warm_instances)
        self._lives = self._memory.lives
        self._episodes = Episodes(self._memory, environment, committer, clock, random, fail)
        self._work = Work(self._memory, self._episodes, environment, limits, is_first=is_first)
        self._arrivals = Arrivals(
            self._memory, self._episodes, self._work, environment, waiters, clock, fails_on_mismatch=fails_on_mismatch
        )
        aftermath = Aftermath(self._memory, self._episodes, self._work, self._arrivals, waiters, clock)
        self._episodes.tell(aftermath)
        committer.tell_of_turns(aftermath.turned)
        committer.gather(self._patience)
        self._committer = committer
        self.beginnings = Beginnings(self._memory, self._episodes, environment, committer, backoff, clock, fail)
        self.activities = self._work.activities
        self.watchdog = self._episodes.watchdog
        self.has_transacted = self._arrivals.has_transacted
        self.follow = aftermath.follow

    @property
    def is_quiet(self) -> bool:
        """Whether no episode is due and no instance on its way in."""
        return (
            not self._episodes.ready
            and not self._episodes.is_pumping
            and self.beginnings.is_quiet
            and self.intake.is_idle
        )

    def _patience(self) -> float:
        """How long a group of commits may wait for what is about to come in the next rounds of the event loop: a batch that begins, or instances that
        are about to move, and activities that are about to run."""
        if not self.beginnings.is_quiet:
            return _PATIENCE_WITH_A_BATCH_SECONDS
        return _PATIENCE_SECONDS if self._episodes.ready or self.activities.has_line else 0.0

    def resident(self, instance_id: str) -> Live | None:
        """What is in memory of the instance; None where it is in the store alone."""
        return self._lives.get(instance_id)

    def is_at_work(self, instance_id: str) -> bool:
        """Whether the instance is in memory and has not finished, or on its way there; where it is not, the store knows.

        Of one whose end is being written the store knows, too, and better: somebody else may have had it go on since. Of an end that has not been
        handed to the store nobody can have heard.
        """
        live = self._lives.get(instance_id)
        if live is None:
            return self.intake.is_expected(instance_id)
        if live.instance.is_finished:
            return not live.row.status.is_finished and live.ends_in == self._committer.next_group
        return not live.row.status.is_finished

    def look_at(self, instance_id: str) -> None:
        """The instance comes into memory, unless it is there."""
        self._memory.look_at(instance_id)

    async def want_parked(self) -> None:
        """What former workers have parked is tried once."""
        await self.intake.want_parked(self._lives)

    def cool_all(self) -> None:
        """No generator is left of those that wait: whoever hears of something next is replayed first."""
        self._memory.cool_all()

    def stop(self) -> None:
        """No more instances come in."""
        self._memory.is_stopping = True

    def lose(self) -> None:
        """Nothing is tried again."""
        self._memory.is_lost = True

    def close(self) -> None:
        """No generator is left."""
        self._memory.close()
