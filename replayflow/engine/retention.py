"""Retention: what has finished goes when it is old enough, and of past executions the last few stay (docs/decisions/0013-purge-and-retention.md).

1. Without a retention nothing is looked for. With one, looking is a search in an index now and then, and where nothing is due nothing is written.
2. What is due goes in small batches, each a part of an ordinary group, with a pause after it as long as it took: the worker's own commits come first.
3. Nothing is remembered: what a crash has left is found again by the next look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from replayflow.clock import Clock, microseconds_in
from replayflow.core.instance import Status
from replayflow.engine.committer import Committer
from replayflow.engine.patience import until_it_answers
from replayflow.errors import InvalidArgumentError, ReplayflowError
from replayflow.store.base import Operation, Outcome, Purge, Store, Trim

PURGED_TOGETHER = 100
PASTS_PER_LOOK = 500
TRIMMED_TOGETHER = 10
_PAUSE_SECONDS_MAX = 1.0
_logger = logging.getLogger("replayflow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long finished instances stay, by how they ended; None for ever. `finished` is for those of the four that are not given.

    An instance goes as a whole, by its own age since its end, but never before the instances that it started: of a tree the leaves go first. One that
    still owes the run of an activity stays until it has had it. `executions` is how many past executions an instance keeps, those that another has
    followed; None for all, but for schedules, which keep 100. The worker looks every so often (`every`).
    """

    finished: timedelta | None = None
    completed: timedelta | None = None
    failed: timedelta | None = None
    terminated: timedelta | None = None
    canceled: timedelta | None = None
    executions: int | None = None
    every: timedelta = timedelta(minutes=1)

    def __post_init__(self) -> None:
        for name in ("finished", "completed", "failed", "terminated", "canceled"):
            age = getattr(self, name)
            if age is not None and not (isinstance(age, timedelta) and age >= timedelta(0)):
                raise InvalidArgumentError(f"Retention: {name} is {age!r:.80}; it is a timedelta that is not negative")
        if self.executions is not None and (type(self.executions) is not int or self.executions < 0):
            raise InvalidArgumentError(f"Retention: executions is {self.executions!r:.80}; it is 0 or more")
        if not (isinstance(self.every, timedelta) and self.every > timedelta(0)):
            raise InvalidArgumentError(f"Retention: every is {self.every!r:.80}; it is a timedelta above 0")

    @property
    def ages(self) -> dict[Status, timedelta]:
        """How long instances stay that ended like that; those that stay for ever are left out."""
        given = {
            Status.COMPLETED: self.completed,
            Status.FAILED: self.failed,
            Status.TERMINATED: self.terminated,
            Status.CANCELED: self.canceled,
        }
        meant = {status: self.finished if age is None else age for status, age in given.items()}
        return {status: age for status, age in meant.items() if age is not None}


class Keeper:
    """The service that keeps a hub's retention, as long as `run` runs."""

    def __init__(self, store: Store, committer: Committer, clock: Clock, retention: Retention) -> None:
        self._store = store
        self._committer = committer
        self._clock = clock
        self._retention = retention
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Looks for ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._retention.every.total_seconds())

    async def look(self) -> None:
        """All that was due has gone."""
        gone = 0
        for status, age in self._retention.ages.items():
            gone += await self._purge(status, self._clock.now() - microseconds_in(age))
        if gone:
            _logger.info("%d finished instances have reached their age, and are gone", gone)
        if self._retention.executions is not None:
            await self._trim_all(self._retention.executions)

    async def _purge(self, status: Status, before: int) -> int:
        gone = 0
        while True:
            due = await until_it_answers(partial(self._store.ended, status, before, PURGED_TOGETHER))
            now = self._clock.now()
            outcomes = await self._write([Purge(one.instance_id, one.execution_id, now, "retention") for one in due])
            purged = sum(outcome.error is None for outcome in outcomes)
            gone += purged
            if not purged:  # else again, also after a small batch: the parents of those that went may follow
                return gone

    async def _trim_all(self, keep: int) -> None:
        after: int | None = 0
        while after is not None:
            ids, following = await until_it_answers(partial(self._store.long_pasts, keep, after, PASTS_PER_LOOK))
            trimmed = 0
            for first in range(0, len(ids), TRIMMED_TOGETHER):
                outcomes = await self._write([Trim(id, keep) for id in ids[first : first + TRIMMED_TOGETHER]])
                trimmed += sum(outcome.error is None for outcome in outcomes)
            if not trimmed:  # else the same page again: one operation takes away a bounded part of a long past
                after = following

    async def _write(self, operations: Sequence[Operation]) -> list[Outcome]:
        """What became of those that were written: a group that failed is due again at the next look."""
        if not operations:
            return []
        began = self._loop.time()
        done: list[asyncio.Future[Outcome | None]] = []
        for operation in operations:
            future: asyncio.Future[Outcome | None] = self._loop.create_future()
            self._committer.add(operation, partial(_settle, future))
            done.append(future)
        outcomes = await asyncio.gather(*done)
        await asyncio.sleep(min(self._loop.time() - began, _PAUSE_SECONDS_MAX))
        return [outcome for outcome in outcomes if outcome is not None]


def _settle(future: asyncio.Future[Outcome | None], outcome: Outcome | None, error: ReplayflowError | None) -> None:
    if not future.done():
        future.set_result(outcome if error is None else None)
