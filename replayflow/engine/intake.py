"""What comes from the store: messages that others have left, and instances that have to be in memory.

1. Each message is routed once, in the order of the numbers: by whoever commits it here, or by reading on from the last one seen. Where a message of
   somebody else stands between, what was committed here waits for the reading, too. Numbers in memory are `held`; a message that is met again is
   passed over, also one that was consumed while the reading of it was under way.
2. Instances are loaded many at a time, in the order in which they were asked for. One that is asked for while it loads gets what came meanwhile.
3. What was read of an instance is used only if nothing has happened to it in memory since the reading began.
4. What former workers have parked is tried once; what this one parks is not, however late the list of the parked is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Sequence
from functools import partial
from itertools import islice

from replayflow.engine.patience import until_it_answers
from replayflow.engine.tuning import STORE_AT_WORK
from replayflow.errors import StoreCorruptError
from replayflow.store.base import Delivery, InstanceFilter, InstanceRecord, Loaded, Store

ARRIVALS_PER_READ = 1_000
LOADED_TOGETHER_MAX = 200
_logger = logging.getLogger("replayflow")


class Intake:
    """Calls `route(delivery)` for each new message, and `restore(loaded)` for each instance that was asked for and is there."""

    def __init__(
        self,
        store: Store,
        route: Callable[[Delivery], None],
        restore: Callable[[Loaded], None],
        missing: Callable[[str], None],
        unreadable: Callable[[InstanceRecord, StoreCorruptError], None],
    ) -> None:
        self._store = store
        self._route = route
        self._restore = restore
        self._missing = missing
        self._unreadable = unreadable
        self.held: set[int] = set()
        self.held_back: set[str] = set()
        """Instances that are not loaded, whoever asks: what may kill the worker (`suspects.py`)."""
        self._to_try: set[str] = set()
        self._parked_here: set[str] | None = set()
        self._consumed_meanwhile: set[int] | None = None
        self._last = 0
        self._wanted: dict[str, None] = {}
        self.loading: dict[str, list[Delivery]] = {}
        self._has_arrived = asyncio.Event()
        self._has_wanted = asyncio.Event()
        self._all_read = asyncio.Event()
        self._all_read.set()

    def look(self) -> None:
        """Somebody else has written: there may be messages."""
        self._has_arrived.set()

    def want(self, instance_id: str) -> None:
        """The instance is loaded, soon; one that is held back is not, and whoever lets it go has to ask."""
        if instance_id not in self.loading and instance_id not in self.held_back:
            self._wanted[instance_id] = None
            self._has_wanted.set()
            self._all_read.clear()

    async def all_read(self) -> None:
        """Nothing that was asked for is on its way any more."""
        await self._all_read.wait()

    def is_expected(self, instance_id: str) -> bool:
        """Whether the instance is on its way into memory."""
        return instance_id in self._wanted or instance_id in self.loading

    def unwant(self, instance_id: str) -> bool:
        """The instance has come into memory by itself: what is being read of it may be out of date, and is dropped.

        Returns whether it was asked for. Whoever asked may have counted on the reading for a message, so that the instance has to be read once more.
        """
        self._to_try.discard(instance_id)
        was_wanted = instance_id in self._wanted
        self._wanted.pop(instance_id, None)
        return self.loading.pop(instance_id, None) is not None or was_wanted

    def consumed(self, numbers: Sequence[int]) -> None:
        """The messages are history: they are in no inbox any more."""
        self.held.difference_update(numbers)
        if self._consumed_meanwhile is not None:
            self._consumed_meanwhile.update(numbers)

    def is_next(self, number: int) -> bool:
        """Whether the message, committed here, is the next one. Where others have written between it and the last one known, all of them are read."""
        if number == self._last + 1:
            self._last = number
            return True
        if number > self._last:
            self._has_arrived.set()
        return False

    @property
    def is_idle(self) -> bool:
        """Whether no instance is on its way into memory."""
        return not self._wanted and not self.loading

    @property
    def is_up_to_date(self) -> bool:
        """Whether no message is known of that has not been read."""
        return not self._has_arrived.is_set() and self._consumed_meanwhile is None

    async def read_arrivals(self) -> None:
        """Reads messages for ever, beginning with those that a former worker left."""
        self._has_arrived.set()
        while True:
            await self._has_arrived.wait()
            self._has_arrived.clear()
            await until_it_answers(self._read_new)

    async def load_wanted(self) -> None:
        """Loads instances for ever. Two may be at it: while the one replays what it has read, the store reads for the other."""
        while True:
            await self._has_wanted.wait()
            batch: dict[str, list[Delivery]] = {id: [] for id in islice(self._wanted, LOADED_TOGETHER_MAX)}
            self.loading.update(batch)
            for id in batch:
                del self._wanted[id]
            if not self._wanted:
                self._has_wanted.clear()
            if batch:
                await until_it_answers(partial(self._load, batch))
            if self.is_idle:
                self._all_read.set()
            await asyncio.sleep(0)  # a store in memory answers without waiting, and others want their turn

    def parked(self, instance_id: str) -> None:
        """This worker sets the instance aside with a problem, which may be in the store at any moment from now on."""
        if self._parked_here is not None:
            self._parked_here.add(instance_id)

    def tries(self, instance_id: str) -> bool:
        """Whether a former worker has parked the instance, and this is the one time that it is tried for that. Asked again, it is not."""
        if instance_id not in self._to_try:
            return False
        self._to_try.remove(instance_id)
        return True

    async def want_parked(self, present: Container[str]) -> None:
        """Every instance that a former worker has parked is tried once: the code may be another today. Those `present` are in memory already."""
        cursor: str | None = None
        while True:
            page = await until_it_answers(partial(self._store.page, InstanceFilter(is_parked=True), 500, cursor))
            for record in page.records:
                id = record.instance_id
                if id not in present and (self._parked_here is None or id not in self._parked_here):
                    self.want(id)
                    if self.is_expected(id):
                        self._to_try.add(id)
            cursor = page.cursor
            if cursor is None:
                self._parked_here = None
                return

    async def _read_new(self) -> None:
        while True:
            consumed = self._consumed_meanwhile = set()
            try:
                found = await self._store.arrived(self._last, ARRIVALS_PER_READ)
            finally:
                self._consumed_meanwhile = None
            for delivery in found:
                self._last = max(self._last, delivery.number)
                if delivery.number not in self.held and delivery.number not in consumed:
                    self._route(delivery)
            if len(found) < ARRIVALS_PER_READ:
                return

    async def _load(self, batch: dict[str, list[Delivery]]) -> None:
        try:
            with STORE_AT_WORK:
                read = await self._store.load(list(batch))
            found = {loaded.record.instance_id: loaded for loaded in read}
        except StoreCorruptError as error:
            if len(batch) == 1:
                (id,) = batch
                _logger.exception("instance '%s' cannot be read, and is left as it is", id)
                record = await self._sound_row(id)
                self.loading.pop(id, None)
                self._to_try.discard(id)
                self._missing(id)
                if record is not None:
                    self._unreadable(record, error)
                return
            for id, meanwhile in batch.items():  # one bad history must not keep the others from running
                await self._load({id: meanwhile})
            return
        for id, meanwhile in batch.items():
            if self.loading.get(id) is not meanwhile:
                continue  # it has come into memory by itself, and may be asked for anew by now
            del self.loading[id]
            loaded = found.get(id)
            if loaded is None:
                self._to_try.discard(id)
                self._missing(id)
                continue
            if meanwhile:
                by_number = {delivery.number: delivery for delivery in [*meanwhile, *loaded.inbox]}
                loaded.inbox = [by_number[number] for number in sorted(by_number)]
            self._restore(loaded)

    async def _sound_row(self, instance_id: str) -> InstanceRecord | None:
        """The row of an instance of which something else is damaged; None where the row itself is."""
        try:
            return await self._store.get(instance_id)
        except StoreCorruptError:
            return None
