"""Who is in memory, and how one leaves it.

All that is here can be forgotten at any moment: the store has it, and what only memory has, results of activities, is put into the inbox first
(I9).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from replayflow.core import admission, events
from replayflow.core.commit import Message
from replayflow.core.events import (
    HeartbeatRecorded,
    HistoryEvent,
    MapPage,
    MapProgress,
    ParentRewound,
    TaskCompleted,
    TaskFailed,
)
from replayflow.core.instance import SUSPENDED
from replayflow.engine.alarms import Alarms
from replayflow.engine.committer import Committer
from replayflow.engine.intake import Intake
from replayflow.engine.live import Live
from replayflow.engine.patience import PASSING, Backoff
from replayflow.engine.steps import Parking
from replayflow.engine.warm import Warm
from replayflow.errors import ReplayflowError
from replayflow.store.base import InstanceRecord, Outcome, Park

_logger = logging.getLogger("replayflow")
_OWN = (TaskCompleted, TaskFailed, HeartbeatRecorded, MapProgress, MapPage)
"""What comes from the instance's own activities: only memory has it, until it is in a history or an inbox."""
_CALLS = (*admission.CONTROL, ParentRewound)
"""What brings even a parked instance back into memory: each travels as a control message."""


class Memory:
    """The instances in memory, `lives`, by id. Of more than `warm_instances` those that nothing has happened to for longest lose their generators."""

    def __init__(
        self, intake: Intake, alarms: Alarms, committer: Committer, backoff: Backoff, warm_instances: int
    ) -> None:
        self.intake = intake
        self.alarms = alarms
        self._committer = committer
        self._backoff = backoff
        self._loop = asyncio.get_running_loop()
        self.lives: dict[str, Live] = {}
        self.warm = Warm(warm_instances, self._cool)
        self.is_stopping = False
        self.is_lost = False
        """Whether the worker has failed: nothing is tried again."""
        self.going_on: set[str] = set()
        """Parked no longer, while their rows may still show a problem."""

    def look_at(self, instance_id: str) -> None:
        """The instance comes into memory, unless it is there."""
        if instance_id not in self.lives and not self.is_stopping:
            self.intake.want(instance_id)

    def reload(self, live: Live) -> None:
        """The instance is read anew: its generator is gone, or nothing that is in memory of it holds any more."""
        if live.is_busy:
            live.must_reload = True  # what is read before the commit is written would be out of date
        elif not live.is_loading:
            live.is_loading = True
            self.intake.want(live.id)

    def reload_if_in(self, live: Live) -> None:
        if self.lives.get(live.id) is live:
            self.reload(live)

    def park(self, live: Live, problem: str, *, is_heard: bool = True) -> None:
        """The instance is set aside with its problem. `is_heard` as in `parking`."""
        parking = self.parking(live, problem, is_heard=is_heard)
        self._committer.add(parking.operation, parking.settle)

    def unpark(self, live: Live) -> None:
        """The instance's row shows no problem any more, as soon as the store takes it."""
        self.going_on.add(live.id)
        self._show_none(Park(live.id, live.execution_id, None))

    def show_problem(self, record: InstanceRecord, problem: str) -> None:
        """The row of an instance that is not in memory, and cannot be, shows the problem, as soon as the store takes it."""
        self.intake.parked(record.instance_id)
        park = Park(record.instance_id, record.execution_id, problem.encode())

        def settle(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            if outcome is None and isinstance(error, PASSING):
                self.later(lambda: self._committer.add(park, settle))

        self._committer.add(park, settle)

    def _show_none(self, park: Park) -> None:
        def settle(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            if outcome is None and isinstance(error, PASSING):
                self.later(lambda: self._show_none(park))
            elif not self.intake.is_expected(park.instance_id):
                self.going_on.discard(park.instance_id)  # else it may be read as it was before

        if park.instance_id in self.going_on:  # it may have been parked anew
            self._committer.add(park, settle)

    def parking(self, live: Live, problem: str, *, is_heard: bool = True) -> Parking:
        """An operation that sets the instance aside with its problem; what only memory has of it goes into its inbox (I9).

        `is_heard` says that the code has had what is in the mailbox. Where it has not, a request in there brings the instance back.
        """
        held, live.mailbox = live.mailbox, []
        live.is_busy = True
        self.going_on.discard(live.id)
        self.intake.parked(live.id)
        park = Park(live.id, live.execution_id, problem.encode(), _own(live, held))
        return Parking(self, live, park, problem, held, is_called=not is_heard and _calls(held))

    def parked(self, parking: Parking, error: ReplayflowError | None) -> None:
        """Told by the parking: it is written, or it was not and is tried again."""
        live, park, came = parking.live, parking.operation, parking.live.mailbox
        if isinstance(error, PASSING):
            self.later(lambda: self._committer.add(park, parking.settle))
            return
        if error is not None:
            live.mailbox = parking.held + came
            live.is_busy = False
            self._read_again(live)
            return
        parking.is_called = parking.is_called or live.must_reload or _calls(came)
        own = _own(live, came)
        if own:  # what ended while that was written goes the same way
            parking.held, live.mailbox = [], []
            parking.operation = Park(park.instance_id, park.execution_id, park.problem, own)
            self._committer.add(parking.operation, parking.settle)
            return
        live.is_busy = False
        self.set_aside(live)
        _logger.warning("instance '%s' is parked: %s", live.id, parking.problem)
        if parking.is_called:
            self.look_at(live.id)

    def _read_again(self, live: Live) -> None:
        """What memory has of the instance is of no use, but for what ran, and for results that nobody else has."""
        self.close_executor(live)
        if self.lives.get(live.id) is live:
            live.must_reload = False
            live.is_loading = True
            self.later(lambda: self.intake.want(live.id))
        else:
            self.later(lambda: self.look_at(live.id))

    def later(self, retry: Callable[[], None]) -> None:
        """It is tried when the store may have recovered; never where the worker ends."""
        if not self.is_lost and not self.is_stopping:
            self._loop.call_later(self._backoff.seconds, retry)

    def cool_all(self) -> None:
        """No generator is left of those that wait: whoever hears of something next is replayed first."""
        for live in list(self.lives.values()):
            if not (live.is_busy or live.is_queued or live.is_loading):
                self.warm.drop(live)
                self._cool(live)

    def close(self) -> None:
        """No generator is left."""
        for live in list(self.lives.values()):
            self.close_executor(live)
        self.lives.clear()

    def set_aside(self, live: Live) -> None:
        """The instance is in the store alone."""
        if self.lives.get(live.id) is live:
            del self.lives[live.id]
        self.forget(live)

    def forget(self, live: Live) -> None:
        """Nothing of the instance is held in memory: its generator is gone, and its messages may come again."""
        self.warm.drop(live)
        for number, _ in live.numbers.values():
            self.intake.held.discard(number)
        self.intake.held.difference_update(live.discarded or ())
        self.close_executor(live)

    def close_executor(self, live: Live) -> None:
        executor, live.executor = live.executor, None
        if executor is not None:
            executor.close()

    def _cool(self, live: Live) -> None:
        """The generator goes; with it, where nothing else is going on, all that memory has of the instance."""
        if live.is_idle:
            at = live.instance.next_due()
            if at is not None and live.instance.status is not SUSPENDED and not live.instance.is_finished:
                self.alarms.sleep(live.id, at)
            self.set_aside(live)
        elif not live.start:
            self.close_executor(live)


def unstorable(error: ReplayflowError) -> str:
    """The problem of an instance whose decisions no store takes."""
    return f"what it decided cannot be stored: {error}"


def _own(live: Live, mailbox: list[HistoryEvent]) -> list[Message]:
    """What only memory has of the mailbox, as messages for the instance's inbox."""
    return [
        Message(live.id, events.encode([event]), execution_id=live.execution_id)
        for event in mailbox
        if isinstance(event, _OWN) and id(event) not in live.numbers
    ]


def _calls(mailbox: list[HistoryEvent]) -> bool:
    """Whether somebody asks for something that a parked instance, too, is brought back for."""
    return any(isinstance(event, _CALLS) for event in mailbox)
