"""Transactional activities: each runs on the writing thread, inside the transaction that makes its result durable.

1. The store decides whether it still runs: not twice, and not for an execution that does not wait for it.
2. A result is durable when it is heard of here, and travels as a message from the inbox; a failure has left nothing, and travels like any activity's.

The order of things, and what a crash does, are in `docs/decisions/0016-transactional-activities.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

from replayflow.codec import Codec
from replayflow.core import events
from replayflow.core.events import HistoryEvent, TaskCompleted
from replayflow.core.transaction import Statements, Transaction
from replayflow.engine.failures import failed
from replayflow.engine.patience import until_it_answers
from replayflow.engine.runs import Run
from replayflow.engine.windows import CallRun
from replayflow.errors import InvalidArgumentError
from replayflow.registry import TRANSACTION_MAX
from replayflow.store.base import Delivery, Raised, Store, Transact

_SECONDS = 1.0


class Transactions:
    """Calls `has_run(run, result)` in the event loop for each that has had its one run, and `fail(error)` where the store is lost."""

    def __init__(
        self,
        store: Store,
        epoch: int,
        codec: Codec,
        has_run: Callable[[Run, Delivery | None], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._epoch = epoch
        self._codec = codec
        self._has_run = has_run
        self._fail = fail
        self._context = copy_context()

    async def run(self, run: Run) -> HistoryEvent | None:
        """The activity has run, or will not; returns its failure, where it failed."""
        if isinstance(run, CallRun):
            return failed(
                run.task.event_id, InvalidArgumentError(f"'{run.task.name}' is transactional, and is not for maps")
            )
        while True:
            execution_id = run.execution_id
            written: list[bytes] = []
            try:
                result = await until_it_answers(partial(self._store.transact, self._wanted(run, written), self._epoch))
            except Raised as raised:
                return failed(run.task.event_id, raised.error)
            except Exception as error:
                self._fail(error)
                return None
            if run.execution_id == execution_id:
                self._has_run(run, result)
                return None
            # A rewind has handed it over to another execution meanwhile, which looks into no inbox of the old one's.
            if written:
                (event,) = events.decode(written[-1])
                return event

    def _wanted(self, run: Run, written: list[bytes]) -> Transact:
        """What the store is to do; the result's event is left in `written`, where the function has run."""

        def call(statements: Statements) -> bytes:
            written[:] = [self._context.copy().run(self._call, run, statements)]
            return written[0]

        timeout = run.task.timeout_microseconds
        seconds_max = _SECONDS if timeout is None else min(timeout / 1e6, TRANSACTION_MAX.total_seconds())
        return Transact(run.instance_id, run.execution_id, run.task.event_id, call, seconds_max)

    def _call(self, run: Run, statements: Statements) -> bytes:
        """The result's event, from the writing thread."""
        if run.is_abandoned:
            raise InvalidArgumentError(
                "cancelled while it waited for its turn"
            )  # nobody hears it; what counts is that it does not run
        plan = run.plan
        key = run.context().idempotency_key
        transaction = Transaction(statements, run.instance_id, run.task.event_id, run.attempt, key)
        arguments: tuple[Any, ...] = (transaction,)
        if plan.definition.takes_input:
            arguments += (plan.decode(run.task.input),)
        result = plan.definition.fn(*arguments)
        return events.encode([TaskCompleted(run.task.event_id, self._codec.encode(result, plan.result_of))])
