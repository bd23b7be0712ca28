"""The way to a hub: straight into the store, or through the worker in this process, which spares a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from replayflow.client.grouping import Grouping
from replayflow.client.waits import Wait, waits
from replayflow.clock import Clock
from replayflow.codec import Codec, Payload
from replayflow.codec.reference import is_reference
from replayflow.codec.sealed import is_sealed, sealed_error
from replayflow.core import events
from replayflow.core.commit import Ending, Message
from replayflow.core.events import HistoryEvent, OrchestratorStarted
from replayflow.errors import InstanceNotFoundError, SealedError
from replayflow.promise import Promise
from replayflow.registry import App
from replayflow.store import Store
from replayflow.store.base import Branch, Create, InstanceRecord, Outcome, Post, Purge
from replayflow.store.incoming import references_of, with_contents

_LOOK_SECONDS_MAX = 2.0
_READ_TOGETHER = 500
_HANDED_IN_TOGETHER = 100


class Door(Protocol):
    """A worker in this process, as its clients see it."""

    def submit(self, operation: Create | Post | Purge | Branch) -> Coroutine[Any, Any, Outcome]: ...
    def hand_in(self, operation: Create | Post) -> Promise[Outcome]: ...
    def expect_end(self, instance_id: str) -> Promise[Ending]: ...
    def forget_end(self, instance_id: str, promise: Promise[Ending]) -> None: ...
    def is_at_work(self, instance_id: str) -> bool: ...


class Access:
    """What handles and clients do in a hub."""

    def __init__(self, store: Store, door: Door | None, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self._grouping = Grouping(store)
        self._door = door
        self._clock = clock

    # The next two hand on the coroutine that does the work: one around it would be made, and woken, for every instance that is started.

    def submit(self, operation: Create | Post | Purge | Branch) -> Coroutine[Any, Any, Outcome]:
        """The operation is durable, or refused with the outcome's error."""
        return self._grouping.submit(operation) if self._door is None else self._door.submit(operation)

    async def submit_all(self, operations: Iterable[Create | Post]) -> list[Outcome]:
        """Each of the operations is durable, or refused with its outcome's error. The first are on their way before the last are made.

        Raises:
            StoreError: the store failed, and of those that it had not taken by then nothing was written.
        """
        hand_in = self._grouping.hand_in if self._door is None else self._door.hand_in
        promises: list[Promise[Outcome]] = []
        for operation in operations:
            promises.append(hand_in(operation))
            if len(promises) % _HANDED_IN_TOGETHER == 0:
                await asyncio.sleep(0)
        return [promise.result() if promise.is_kept else await promise for promise in promises]

    def end(self, instance_id: str, timeout: float | None) -> Coroutine[Any, Any, InstanceRecord | Ending]:
        """How the instance ended, when it has."""
        if self._door is None:
            return self._end_elsewhere(instance_id, timeout)
        return self._end_here(self._door, instance_id, timeout)

    async def ends(self, instance_ids: Sequence[str]) -> AsyncGenerator[InstanceRecord | Ending, None]:
        """How the instances ended, in their order, each when it has. Close it when you want no more of it.

        Raises:
            InstanceNotFoundError: there is none with such an id.
        """
        if self._door is None:
            for first in range(0, len(instance_ids), _READ_TOGETHER):
                some = instance_ids[first : first + _READ_TOGETHER]
                for record in await asyncio.gather(*[self._end_elsewhere(id, None) for id in some]):
                    yield record
            return
        door = self._door
        # The waiters are registered first: an end that comes while rows are read must not be missed.
        expected = [door.expect_end(id) for id in instance_ids]
        try:
            found = await self._records([id for id in instance_ids if not door.is_at_work(id)])
            for id, end in zip(instance_ids, expected, strict=True):
                if id not in found:
                    yield end.result() if end.is_kept else await end
                else:
                    yield found[id] if found[id].status.is_finished else await self._end_of(door, id)
        finally:
            for id, end in zip(instance_ids, expected, strict=True):
                if not end.is_kept:
                    door.forget_end(id, end)

    async def _records(self, instance_ids: Sequence[str]) -> dict[str, InstanceRecord]:
        found: dict[str, InstanceRecord] = {}
        for first in range(0, len(instance_ids), _READ_TOGETHER):
            some = instance_ids[first : first + _READ_TOGETHER]
            found.update(zip(some, await asyncio.gather(*[self.record(id) for id in some]), strict=True))
        return found

    async def post(
        self, instance_id: str, event: HistoryEvent, *, is_control: bool, dedupe_key: str | None = None
    ) -> None:
        """The event is durable in the instance's inbox; what refuses it is raised."""
        outcome = await self.submit(Post(message_of(instance_id, event, is_control), dedupe_key))
        if outcome.error is not None:
            raise outcome.error

    async def record(self, instance_id: str) -> InstanceRecord:
        """The instance's row.

        Raises:
            InstanceNotFoundError: there is none.
        """
        record = await self.store.get(instance_id)
        if record is None:
            raise InstanceNotFoundError(f"no instance '{instance_id}' is in the hub {self.store.url}")
        return record

    async def waits(self, instance_id: str, codec: Codec, app: App | None) -> list[Wait]:
        """What the instance waits for.

        Raises:
            InstanceNotFoundError: there is none.
        """
        found = await waits(self.store, codec, app, instance_id, self._clock.now())
        if found is None:
            raise InstanceNotFoundError(f"no instance '{instance_id}' is in the hub {self.store.url}")
        return found[1]

    async def whole(self, payload: Payload) -> Payload:
        """The payload, read where it is kept out of line.

        Raises:
            SealedError: it is sealed, and the key is not at hand.
        """
        if payload is not None and is_sealed(payload):
            raise sealed_error(payload)
        if payload is None or not is_reference(payload):
            return payload
        return (await self.store.fetch([payload]))[0]

    async def whole_record(self, record: InstanceRecord) -> InstanceRecord:
        """The row with all its values."""
        references = sorted(references_of(record))
        if not references:
            return record
        try:
            contents = await self.store.fetch(references)
        except SealedError:
            return record  # whoever looks sees that it was not read
        return with_contents(record, dict(zip(references, contents, strict=True)))

    async def _end_elsewhere(self, instance_id: str, timeout: float | None) -> InstanceRecord | Ending:
        changed = asyncio.Event()
        unsubscribe = self.store.subscribe(changed.set)
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        try:
            while True:
                changed.clear()
                record = await self.record(instance_id)
                if record.status.is_finished:
                    return record
                left = None if deadline is None else deadline - loop.time()
                if left is not None and left <= 0:
                    raise TimeoutError(_still(record, timeout))
                try:
                    async with asyncio.timeout(_LOOK_SECONDS_MAX if left is None else min(left, _LOOK_SECONDS_MAX)):
                        await changed.wait()
                except TimeoutError:
                    pass
        finally:
            unsubscribe()

    async def _end_here(self, door: Door, instance_id: str, timeout: float | None) -> InstanceRecord | Ending:
        if timeout is None:
            return await self._end_of(door, instance_id)
        try:
            async with asyncio.timeout(timeout):
                return await self._end_of(door, instance_id)
        except TimeoutError:
            raise TimeoutError(_still(await self.record(instance_id), timeout)) from None

    async def _end_of(self, door: Door, instance_id: str) -> InstanceRecord | Ending:
        while True:
            # The waiter is registered first: an end that comes while the row is read must not be missed.
            ended = door.expect_end(instance_id)
            try:
                if door.is_at_work(instance_id):
                    return await ended
                record = await self.record(instance_id)
                if record.status.is_finished:
                    return record
                # Perhaps an end of before the row was read, and somebody has had it go on since: the row tells.
                await ended
            finally:
                door.forget_end(instance_id, ended)

    async def pieces(self, instance_id: str, execution_id: str | None, *, is_opened: bool = False) -> list[bytes]:
        """The pieces of the execution's history, its start first.

        Raises:
            InstanceNotFoundError: there is no such instance, or no such execution.
            SealedError: it is to be `is_opened`, and a value is sealed with a key that is not at hand.
        """
        pieces = await self.store.history(instance_id, execution_id, is_opened=is_opened)
        if not pieces:
            record = await self.record(instance_id)
            raise InstanceNotFoundError(
                f"instance '{instance_id}' has no execution '{execution_id}'; the present one is '{record.execution_id}'"
            )
        return pieces

    async def history(self, instance_id: str, execution_id: str | None) -> AsyncIterator[HistoryEvent]:
        """The events of an execution, the present one without an id, with their times and payloads."""
        pieces = await self.pieces(instance_id, execution_id)
        record = await self.record(instance_id)
        start = events.decode(pieces[0])
        if len(pieces) == 1:
            for event in start:
                yield event.at(record.created_at)
        for i, piece in enumerate(pieces[1:]):
            first, *decoded = events.decode(piece)
            assert isinstance(first, OrchestratorStarted)  # noqa: S101 - every piece begins with its time
            yield first.at(first.now_microseconds)
            for event in [*start, *decoded] if i == 0 else decoded:
                yield event.at(first.now_microseconds)


def message_of(instance_id: str, event: HistoryEvent, is_control: bool) -> Message:
    """The event on its way to the instance."""
    return Message(instance_id, events.encode([event]), is_control=is_control)


def _still(record: InstanceRecord, timeout: float | None) -> str:
    parked = "" if record.problem is None else f", parked: {record.problem.decode()}"
    return f"instance '{record.instance_id}' has not finished within {timeout:g} s: it is {record.status}{parked}"
