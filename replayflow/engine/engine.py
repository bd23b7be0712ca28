"""The engine: the services of a worker, put together, started and stopped; and the door through which clients in its process come in.

Each service can die at any line: the store is the truth, and a wake-up is only a hint. What happens to instances is in `residents.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from random import Random

from replayflow.clock import Clock, SystemClock
from replayflow.codec import Codec
from replayflow.core.commit import Ending
from replayflow.core.definitions import Environment
from replayflow.core.versions import VersioningOptions
from replayflow.engine import tuning
from replayflow.engine.built_in import add_built_ins
from replayflow.engine.committer import Committer
from replayflow.engine.deployment import meet_what_is_open
from replayflow.engine.limits import Limits
from replayflow.engine.patience import PASSING, Backoff, until_it_answers
from replayflow.engine.residents import Residents
from replayflow.engine.retention import Keeper, Retention
from replayflow.engine.suspects import Suspects
from replayflow.engine.transactions import Transactions
from replayflow.engine.waiters import Waiters
from replayflow.errors import ReplayflowError, StoreUnavailableError, starved
from replayflow.promise import Promise
from replayflow.registry import App
from replayflow.store.base import Branch, Create, Outcome, Post, Purge, Store

_logger = logging.getLogger("replayflow")
_LOOK_SECONDS = 0.005


class _Submitted(Promise[Outcome], kw_only=True):
    """What becomes of an operation that a client in this process hands in."""

    _follow: Callable[[Outcome], None]

    def settle(self, outcome: Outcome | None, error: ReplayflowError | None) -> None:
        if outcome is not None:
            if outcome.started or outcome.deliveries or outcome.dropped:
                self._follow(outcome)
            self.keep(outcome)
        elif error is not None:
            self.fail(error)


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
        fails_on_mismatch: bool = False,
        versioning: VersioningOptions | None = None,
        retention: Retention | None = None,
    ) -> None:
        self._store = store
        self._epoch = epoch
        self._is_first = epoch <= 1  # nobody worked on this hub before
        self._limits = limits
        add_built_ins(app)
        self._environment = Environment(
            codec, app.activities, app.orchestrators, entities=app.entities, versioning=versioning
        )
        self._loop = asyncio.get_running_loop()
        self._waiters = Waiters()
        self._backoff = Backoff()
        self.failure: ReplayflowError | None = None
        self._is_over = False
        self._has_failed = asyncio.Event()
        self._has_to_look_who_owns = asyncio.Event()
        self._committer = Committer(store, epoch, self._group_failed, self._backoff.succeeded)
        self._keeper = None if retention is None else Keeper(store, self._committer, clock or SystemClock(), retention)
        self._residents = Residents(
            store,
            self._environment,
            self._committer,
            self._waiters,
            self._backoff,
            limits,
            clock or SystemClock(),
            random or Random(),  # noqa: S311 - jitter
            fails_on_mismatch,
            self._is_first,
            self._fail,
        )
        transactions = Transactions(store, epoch, codec, self._residents.has_transacted, self._fail)
        self._residents.activities.transact = transactions.run
        self._suspects = Suspects(
            store,
            epoch,
            self._committer,
            self._residents.intake,
            self._residents.resident,
            self._residents.look_at,
            limits,
        )

    # ---- life

    async def run(self) -> None:
        """Works until cancelled. Whoever waits for something of the engine when it ends is told so.

        Raises:
            ReplayflowError: the store is lost to this worker (another owns it, or it is damaged), or the engine itself is at fault.
        """
        unsubscribe = self._store.subscribe(self._somebody_wrote)
        tuning.work_begins()
        self._residents.watchdog.start()
        try:
            await self._suspects.hold()
            async with asyncio.TaskGroup() as services:
                services.create_task(self._committer.run())
                services.create_task(self._suspects.run())
                services.create_task(self._residents.intake.read_arrivals())
                for _ in range(2):  # while one replays what it has read, the store reads for the other
                    services.create_task(self._residents.intake.load_wanted())
                services.create_task(self._residents.want_parked())
                services.create_task(self._residents.alarms.run())
                services.create_task(
                    meet_what_is_open(
                        self._store,
                        self._epoch,
                        self._environment,
                        self._residents.look_at,
                        self._residents.intake.all_read,
                        is_first=self._is_first,
                    )
                )
                if self._keeper is not None:
                    services.create_task(self._keeper.run())
                services.create_task(self._stay_the_owner())
                services.create_task(self._watch())
        except* Exception as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self._fail(error)
        finally:
            self._residents.watchdog.stop()
            tuning.work_ends()
            unsubscribe()
            self.abandon()
        if self.failure is not None:
            raise self.failure

    def _somebody_wrote(self) -> None:
        self._residents.intake.look()
        self._has_to_look_who_owns.set()

    async def _stay_the_owner(self) -> None:
        """Looks for ever whether the hub is still ours. Our writes would tell, too, but a worker that is idle makes none."""
        while True:
            await self._has_to_look_who_owns.wait()
            self._has_to_look_who_owns.clear()
            await until_it_answers(partial(self._store.confirm, self._epoch))

    async def _watch(self) -> None:
        await self._has_failed.wait()
        assert self.failure is not None  # noqa: S101 - set before the event
        raise self.failure

    async def stop(self) -> None:
        """Running activities have had their grace, what they came to is durable, and no generator is left.

        What did not end runs again when the next worker starts.
        """
        self._residents.stop()
        self._suspects.stop()
        try:
            await self._residents.activities.stop(0 if self.failure is not None else self._limits.grace.total_seconds())
            await self._settle_down()
        finally:
            self._residents.close()

    def abandon(self) -> None:
        """Nobody is served any more, and whoever waits for something is told so."""
        self._is_over = True
        self._residents.beginnings.abandon(self._why_over())
        self._committer.abandon(self._why_over())
        self._waiters.fail(self._why_over())

    async def _settle_down(self) -> None:
        """What is ready has run, and all of it is written, as long as the store takes it."""
        try:
            async with asyncio.timeout(max(1.0, self._limits.grace.total_seconds())):
                while self.failure is None:
                    await self._committer.drain()
                    if self._residents.is_quiet:
                        return
                    await asyncio.sleep(0 if self._residents.intake.is_idle else _LOOK_SECONDS)
        except TimeoutError:
            _logger.warning("stopped with commits under way; what they held is done again")

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            error = starved(error) or error
            if not isinstance(error, ReplayflowError):
                if isinstance(error, Exception):
                    _logger.error("the engine has come upon an error of its own, and stops", exc_info=error)
                fault = ReplayflowError(f"the engine stopped at an error of its own: {type(error).__name__}: {error}")
                fault.__cause__ = error
                error = fault
            self.failure = error
            self._residents.lose()
            self._has_failed.set()
            self._waiters.fail(error)

    def _group_failed(self, error: ReplayflowError) -> None:
        if isinstance(error, PASSING):
            self._backoff.failed(error)
        else:
            self._fail(error)

    def _why_over(self) -> ReplayflowError:
        return self.failure or StoreUnavailableError(f"{self._store.url} is not open: the hub was closed meanwhile")

    # ---- what tests ask for

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, so that nothing will happen but by time, or by a message."""
        return (
            self._residents.is_quiet
            and self._residents.intake.is_up_to_date
            and self._residents.activities.is_idle
            and self._committer.is_idle
        )

    @property
    def next_alarm(self) -> int | None:
        """When the next timer or retry is due, in microseconds; None where none is set."""
        return self._residents.alarms.next_at

    def look_at_the_clock(self) -> None:
        """The clock has been set: what is due now rings."""
        self._residents.alarms.look()

    def cool_all(self) -> None:
        """No generator is left of those that wait."""
        self._residents.cool_all()

    # ---- what clients in this process ask for

    async def submit(self, operation: Create | Post | Purge | Branch) -> Outcome:
        """The operation is durable; a new instance has made its first step in the same transaction.

        Raises:
            ReplayflowError: the store failed, and nothing was written.
        """
        is_free = (
            isinstance(operation, Create)
            and not operation.has_new_id
            and self._residents.beginnings.can_begin_at_once(operation)
            and await self._store.get(operation.start.instance_id) is None
        )
        return await self.hand_in(operation, is_free=is_free)

    def hand_in(self, operation: Create | Post | Purge | Branch, *, is_free: bool = False) -> Promise[Outcome]:
        """What `submit` comes to, as a promise, for many at once. `is_free` says that nobody has the id of an instance that is to be created: where
        somebody may, the code must not run for nothing, and its first step is made when the creation is written.

        Raises:
            ReplayflowError: the engine has ended.
        """
        if self.failure is not None or self._is_over:
            raise self._why_over()
        submitted = _Submitted(_follow=self._residents.follow)
        if type(operation) is Create and (is_free or operation.has_new_id):
            self._residents.beginnings.add(operation, submitted.settle)
        else:
            self._committer.add(operation, submitted.settle)
        return submitted

    def expect_end(self, instance_id: str) -> Promise[Ending]:
        """How the instance ends, if that happens from now on; whoever does not want to know any more says so with `forget_end`."""
        promise = self._waiters.add(instance_id)
        if self.failure is not None or self._is_over:
            promise.fail(self._why_over())
        return promise

    def forget_end(self, instance_id: str, promise: Promise[Ending]) -> None:
        """Nobody waits for this promise of `expect_end` any more."""
        self._waiters.forget(instance_id, promise)

    def is_at_work(self, instance_id: str) -> bool:
        """Whether the instance is in memory and has not finished, or on its way there; where it is not, the store knows."""
        return self._residents.is_at_work(instance_id)
