"""The verbs for many: what a handle can be asked, asked of every instance that fits.

There is no second implementation of any verb. Many are asked at a time; those who read share a reading, and those who write a transaction
(`grouping.py`, or the worker's own group commit), so that ten thousand requests are some dozens of transactions.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Unpack

from msgspec.structs import replace

from replayflow.client.access import Access
from replayflow.client.arguments import event_of
from replayflow.client.finding import Wanted, filter_of
from replayflow.client.handle import Instance
from replayflow.client.purging import finished_batches, purge_every
from replayflow.clock import Clock
from replayflow.codec import Codec
from replayflow.core.instance import Status
from replayflow.core.signatures import OWN_PREFIX
from replayflow.errors import InvalidStateError, StateError, UserError
from replayflow.store.base import InstanceFilter

ASKED_TOGETHER = 500
REASONS_MAX = 50
OPEN = frozenset(status for status in Status if not status.is_finished)


@dataclass(slots=True)
class BulkOutcome:
    """What became of a verb for many: how many instances were found, how many took it, and why the others did not."""

    found: int = 0
    done: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """How often each reason was given, in words that hold for every instance that gave it."""

    @property
    def refused(self) -> int:
        """How many did not take it."""
        return self.reasons.total()

    def refuse(self, instance_id: str, error: Exception) -> None:
        """One more did not take it."""
        reason = str(error).replace(f"instance '{instance_id}'", "it").replace(f"'{instance_id}'", "it")
        is_new = reason not in self.reasons and len(self.reasons) >= REASONS_MAX
        self.reasons["another reason" if is_new else reason] += 1


Verb = Callable[[Instance[Any]], Awaitable[object]]


class _Asker(Protocol):
    """What these verbs need of the client."""

    _access: Access
    _clock: Clock
    _codec: Codec

    def get(self, instance_id: str) -> Instance[Any]: ...


async def ask_every(
    client: _Asker, verb: Verb, where: Wanted, statuses: frozenset[Status], *, dry_run: bool = False
) -> BulkOutcome:
    """Every instance that fits, and was there when this was called, has been asked; none that refuses keeps the others from it.

    Schedules are passed over where the filter has no name. Where it says nothing of statuses, those count for which the verb has a meaning:
    `statuses`. With `dry_run` they are only counted.

    Raises:
        StoreError: the store failed; those who had been asked until then have been.
    """
    wanted = filter_of(where)
    if wanted.statuses is None:
        wanted = replace(wanted, statuses=statuses)
    outcome = BulkOutcome()
    async for ids in _pages(client, wanted):
        outcome.found += len(ids)
        if not dry_run:
            await asyncio.gather(*(_ask(client.get(id), verb, outcome) for id in ids))
    return outcome


async def _pages(client: _Asker, wanted: InstanceFilter) -> AsyncIterator[Sequence[str]]:
    before = client._clock.now() + 1  # one that is started from now on does not count, or a busy hub would never end
    wanted = replace(wanted, created_to=before if wanted.created_to is None else min(before, wanted.created_to))
    cursor: str | None = None
    while True:
        page = await client._access.store.page(wanted, ASKED_TOGETHER, cursor)
        # A schedule has verbs of its own, and is meant by whoever names it: to cancel all orders must not end the nightly report.
        yield [
            record.instance_id
            for record in page.records
            if record.damage is None and (wanted.name is not None or not record.name.startswith(OWN_PREFIX))
        ]
        cursor = page.cursor
        if cursor is None:
            return


async def _ask(instance: Instance[Any], verb: Verb, outcome: BulkOutcome) -> None:
    try:
        await verb(instance)
    except (StateError, UserError) as refusal:
        outcome.refuse(instance.id, refusal)
    else:
        outcome.done += 1


async def _refuse_for_children(instance: Instance[Any], verb: str) -> None:
    if (await instance.status()).parent_instance_id is not None:
        raise InvalidStateError(
            f"instance '{instance.id}' is a sub-orchestration: {verb} its parent, or it alone by its id"
        )


class BulkVerbs:
    """`suspend_all`, `resume_all`, `terminate_all`, `cancel_all`, `raise_event_to_all`, `rewind_all`, `restart_all` and `purge` of a `Client`.

    The filter is that of `list`. Without a `status` in it, those instances are asked for which the verb has a meaning: none that has finished is
    asked to end. `dry_run=True` counts them (`found`) and asks nobody.
    """

    async def suspend_all(
        self: _Asker, *, reason: str = "", dry_run: bool = False, **where: Unpack[Wanted]
    ) -> BulkOutcome:
        """Every instance that fits is suspended; see `Instance.suspend`."""
        return await ask_every(self, lambda instance: instance.suspend(reason), where, _UNSUSPENDED, dry_run=dry_run)

    async def resume_all(
        self: _Asker, *, reason: str = "", dry_run: bool = False, **where: Unpack[Wanted]
    ) -> BulkOutcome:
        """Every suspended instance that fits goes on, and with `parked=True` those are tried again that are parked; see `Instance.resume`."""
        statuses = OPEN if where.get("parked") else _SUSPENDED
        return await ask_every(self, lambda instance: instance.resume(reason), where, statuses, dry_run=dry_run)

    async def terminate_all(
        self: _Asker, *, reason: str = "", recursive: bool = True, dry_run: bool = False, **where: Unpack[Wanted]
    ) -> BulkOutcome:
        """Every instance that fits is asked to end at once; see `Instance.terminate`."""
        return await ask_every(
            self, lambda instance: instance.terminate(reason, recursive), where, OPEN, dry_run=dry_run
        )

    async def cancel_all(
        self: _Asker, *, reason: str = "", dry_run: bool = False, **where: Unpack[Wanted]
    ) -> BulkOutcome:
        """Every instance that fits is asked to end when it has undone what it did; see `Instance.cancel`."""
        return await ask_every(self, lambda instance: instance.cancel(reason), where, OPEN, dry_run=dry_run)

    async def raise_event_to_all(
        self: _Asker,
        event: str,
        payload: object = None,
        *,
        dedupe_key: str | None = None,
        dry_run: bool = False,
        **where: Unpack[Wanted],
    ) -> BulkOutcome:
        """The event is sent to every instance that fits; see `Instance.raise_event`.

        Raises:
            EncodeError, InvalidArgumentError: the payload cannot travel, or the event's name is none; nobody was sent anything.
        """
        event_of(self._codec, event, payload, dedupe_key)
        return await ask_every(
            self,
            lambda instance: instance.raise_event(event, payload, dedupe_key=dedupe_key),
            where,
            OPEN,
            dry_run=dry_run,
        )

    async def rewind_all(
        self: _Asker, *, reason: str = "", dry_run: bool = False, **where: Unpack[Wanted]
    ) -> BulkOutcome:
        """Every failed instance that fits goes on from before its failure, with its failed children; see `Instance.rewind`.

        Children refuse: they go on with their parents, and where a parent has seen to a child's failure nobody is to do the child's work again.
        """

        async def rewind(instance: Instance[Any]) -> None:
            await _refuse_for_children(instance, "rewind")
            await instance.rewind(reason)

        return await ask_every(self, rewind, where, _FAILED, dry_run=dry_run)

    async def restart_all(self: _Asker, *, dry_run: bool = False, **where: Unpack[Wanted]) -> BulkOutcome:
        """Every failed instance that fits begins anew, with its input and under its id; see `Instance.restart`.

        With a `status`, those that ended otherwise. Children refuse: a parent that begins anew begins them, too.
        """

        async def restart(instance: Instance[Any]) -> None:
            await _refuse_for_children(instance, "restart")
            await instance.restart()

        return await ask_every(self, restart, where, _FAILED, dry_run=dry_run)

    async def purge(self: _Asker, *, recursive: bool = True, dry_run: bool = False, **where: Unpack[Wanted]) -> int:
        """Every finished instance that fits is gone, with its history, and with `recursive` the finished ones that it started; returns how many went.

        What has not finished, or still owes the run of an activity, is passed over. In batches: after a crash, or in the middle, some have gone
        as a whole and the others are there as a whole. With `dry_run` those that fit are counted, without the ones that they started.

        Raises:
            InvalidArgumentError: a status or a time that is none.
        """
        wanted, now = filter_of(where), self._clock.now()
        if dry_run:
            return sum([len(batch) async for batch in finished_batches(self._access, wanted, now)])
        return await purge_every(self._access, wanted, now, recursive=recursive)


_FAILED = frozenset({Status.FAILED})
_SUSPENDED = frozenset({Status.SUSPENDED})
_UNSUSPENDED = OPEN - _SUSPENDED
