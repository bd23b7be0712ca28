"""The store itself: who owns it, and what is written and read, each group of operations as one step.

Each group is applied to a copy of what it touches, and takes effect with the last line or not at all.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from replayflow.codec import LARGE_OVER_BYTES
from replayflow.codec.cipher import Cipher, checked_cipher
from replayflow.codec.reference import digest_of
from replayflow.core import rows
from replayflow.core.instance import Status
from replayflow.core.suspicion import Suspicion
from replayflow.errors import HubOwnedError, LeaseLostError, StoreUnavailableError
from replayflow.store.filters import Grouping, InstanceFilter, Page
from replayflow.store.incoming import Incoming
from replayflow.store.memory import finding, reading
from replayflow.store.memory.group import Group
from replayflow.store.memory.kept import Kept
from replayflow.store.operations import Delivery, Operation, Outcome, Transact, not_damaged, not_there
from replayflow.store.outgoing import Outgoing, checked_limit
from replayflow.store.records import (
    Condition,
    Finished,
    Footprint,
    InstanceRecord,
    Loaded,
    Lost,
    Owner,
    Served,
    Suspect,
    Unread,
    Waiting,
    Wake,
)
from replayflow.store.sqlite import schema
from replayflow.store.sqlite.guard import commit_together, perform, prepare

T = TypeVar("T")


class MemoryStore:
    """A hub that lives as long as this object, whether open or not: for tests, and for work that nobody will miss."""

    def __init__(self, *, large_over_bytes: int = LARGE_OVER_BYTES, cipher: Cipher | None = None) -> None:
        self.url = "memory://"
        self._large_over_bytes = checked_limit(large_over_bytes)
        self._cipher = None if cipher is None else checked_cipher(cipher)
        self._contents: dict[bytes, bytes] = {}
        self._instances: dict[str, Kept] = {}
        self._keys = itertools.count(1)
        self._numbers = itertools.count(1)
        self._epoch = 0
        self._owner: Owner | None = None
        self._subscribers: list[Callable[[], None]] = []
        self._is_open = False
        self._purged = 0
        self._served: list[Served] = []
        self._database: sqlite3.Connection | None = None

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        await self.release()
        self._is_open = False

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailableError(f"{self.url} is not open")

    async def acquire(self, owner: Owner, *, by_force: bool = False) -> int:
        self._check_open()
        if self._owner is not None and not by_force:
            raise HubOwnedError(f"the hub {self.url} is owned by {self._owner}")
        self._owner = owner
        self._epoch += 1
        return self._epoch

    async def confirm(self, epoch: int) -> None:
        self._check_open()
        if epoch != self._epoch:
            raise LeaseLostError(f"the hub {self.url} has another owner by now: epoch {self._epoch}, not {epoch}")

    async def release(self) -> None:
        self._owner = None

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        self._check_open()
        self._subscribers.append(changed)

        def unsubscribe() -> None:
            if changed in self._subscribers:
                self._subscribers.remove(changed)

        return unsubscribe

    # ---- writing

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        self._check_open()
        if epoch is not None and epoch != self._epoch:
            raise LeaseLostError(f"the hub {self.url} has another owner by now: epoch {self._epoch}, not {epoch}")
        return self._apply(lambda group: [group.apply(each) for each in operations], nudges=epoch is None)

    def _apply(self, work: Callable[[Group], T], nudges: bool) -> T:
        """What the work did to the group has taken effect."""
        outgoing = Outgoing(self._large_over_bytes, self._cipher)
        incoming = Incoming(lambda digests: _found({**self._contents, **outgoing.contents}, digests), self._cipher)
        group = Group(self._instances, self._keys, self._numbers, outgoing, incoming, nudges)
        done = work(group)
        self._instances.update(group.touched)
        for instance_id in group.removed:
            self._instances.pop(instance_id, None)
        self._purged += group.purged
        self._contents.update(outgoing.contents)
        if self._contents:
            self._drop_unused()
        for changed in list(self._subscribers):
            asyncio.get_running_loop().call_soon(changed)
        return done

    def _drop_unused(self) -> None:
        """What nothing refers to any more goes: counted anew each time, as a specification may."""
        used = {digest_of(reference) for kept in self._instances.values() for reference in kept.references()}
        self._contents = {digest: content for digest, content in self._contents.items() if digest in used}

    def _incoming(self) -> Incoming:
        return Incoming(lambda digests: _found(self._contents, digests), self._cipher)

    async def remove_damaged(self, instance_id: str, at: int, unread: Unread | None = None) -> Lost:  # noqa: ARG002 - the port's shape
        self._check_open()
        kept = self._instances.get(instance_id)
        if kept is None:
            raise not_there(instance_id, self.url)
        record = kept.record
        present = sum(number > record.start_number for number in kept.pieces)
        if unread is None or (unread.execution_id, unread.pieces) != (record.execution_id, present):
            raise not_damaged(instance_id)
        children = sum(one.record.parent_id == instance_id for one in self._instances.values())
        lost = Lost(
            (unread.why,),
            record.name,
            record.status.value,
            len(kept.pieces),
            sum(delivery.event is not None for delivery in kept.inbox.values()),
            record.parent_id,
            children,
        )
        self._apply(lambda group: group.remove_damaged(instance_id), nudges=False)
        return lost

    async def keep_served(self, served: Sequence[Served], epoch: int) -> None:
        self._check_open()
        if epoch != self._epoch:
            raise LeaseLostError(f"the hub {self.url} has another owner by now: epoch {self._epoch}, not {epoch}")
        names = {each.name for each in served}
        self._served = [each for each in self._served if each.name not in names] + list(served)

    async def suspect(self, found: Mapping[str, Suspicion | None], epoch: int) -> None:  # noqa: ARG002 - the port's shape
        self._check_open()  # nobody is ever held here: this hub dies with its owner

    async def transact(self, wanted: Transact, epoch: int) -> Delivery | None:
        self._check_open()
        if epoch != self._epoch:
            raise LeaseLostError(f"the hub {self.url} has another owner by now: epoch {self._epoch}, not {epoch}")
        kept = self._instances.get(wanted.instance_id)
        place = (wanted.execution_id, wanted.task_id)
        if kept is None or place in kept.transacted:
            return None
        record = kept.record
        is_open = record.execution_id == wanted.execution_id and not record.status.is_finished
        orphans = None if record.orphans is None else self._incoming().events(record.orphans, wanted.instance_id)
        owed = rows.decode_orphans(orphans) if orphans else []
        if not is_open and place not in {(owner, task.event_id) for owner, task in owed}:
            return None
        event = commit_together(self._users_database(), lambda c: perform(c, wanted.run, wanted.seconds_max))
        kept.transacted.add(place)
        if not is_open and not (record.execution_id == wanted.execution_id and record.status is Status.FAILED):
            return None
        message = Delivery(next(self._numbers), wanted.instance_id, event, wanted.execution_id)
        return self._apply(lambda group: group.deliver(message), nudges=False)

    def _users_database(self) -> sqlite3.Connection:
        """The tables of transactional activities, and the engine's, empty, so that they are refused here, too. It lives as long as this object."""
        if self._database is None:
            self._database = prepare(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
            schema.migrate(self._database, Path(":memory:"))
            weakref.finalize(self, self._database.close)
        return self._database

    # ---- reading

    async def suspects(self) -> list[Suspect]:
        self._check_open()
        return []

    async def served(self) -> list[Served]:
        self._check_open()
        return sorted(self._served, key=lambda each: (each.name, each.version or ""))

    async def open_versions(self) -> list[tuple[str, str | None]]:
        self._check_open()
        found = {(record.name, record.version or "") for record in reading.still_open(self._instances.values())}
        return [(name, version or None) for name, version in sorted(found)]

    async def count_open(self, name: str, version: str | None) -> int:
        self._check_open()
        found = reading.still_open(self._instances.values())
        return sum(record.name == name and (record.version or None) == (version or None) for record in found)

    async def load(self, instance_ids: Sequence[str]) -> list[Loaded]:
        self._check_open()
        found = [self._instances[id] for id in dict.fromkeys(instance_ids) if id in self._instances]
        return [reading.load(kept, self._incoming(), whole=False) for kept in found]

    async def load_whole(self, instance_id: str) -> Loaded | None:
        self._check_open()
        kept = self._instances.get(instance_id)
        return None if kept is None else reading.load(kept, self._incoming(), whole=True)

    async def fetch(self, references: Sequence[bytes]) -> list[bytes]:
        self._check_open()
        return self._incoming().contents(references)

    async def get(self, instance_id: str) -> InstanceRecord | None:
        self._check_open()
        kept = self._instances.get(instance_id)
        return None if kept is None else self._incoming().row(replace(kept.record))

    async def page(
        self, wanted: InstanceFilter, limit: int, cursor: str | None = None, latest_first: bool = False
    ) -> Page:
        self._check_open()
        return finding.page(self._instances.values(), self._incoming(), wanted, limit, cursor, latest_first)

    async def count(self, wanted: InstanceFilter, by: Grouping | None = None) -> dict[str, int]:
        self._check_open()
        return finding.count(self._instances.values(), wanted, by)

    async def waiting(self, instance_id: str | None, limit: int = 1_000) -> list[Waiting]:
        self._check_open()
        return reading.waiting(self._instances.values(), self._incoming(), instance_id, limit)

    async def owner(self) -> Owner | None:
        self._check_open()
        return self._owner

    async def condition(self, is_thorough: bool = False) -> Condition:  # noqa: ARG002 - the port's shape
        self._check_open()
        return Condition()

    async def history(
        self, instance_id: str, execution_id: str | None = None, *, is_opened: bool = False
    ) -> list[bytes]:
        self._check_open()
        kept = self._instances.get(instance_id)
        stored = [] if kept is None else reading.history(kept, execution_id)
        return self._incoming().pieces(stored, instance_id, is_opened)

    async def executions(self, instance_id: str) -> list[str]:
        self._check_open()
        kept = self._instances.get(instance_id)
        if kept is None:
            return []
        return [*sorted(kept.executions, key=kept.executions.__getitem__), kept.record.execution_id]

    async def wakes(self, after: tuple[int, int] | None, limit: int) -> list[Wake]:
        self._check_open()
        return reading.wakes(self._instances.values(), after, limit)

    async def arrived(self, after: int, limit: int) -> list[Delivery]:
        self._check_open()
        return reading.arrived(self._instances.values(), self._incoming(), after, limit)

    async def children(self, parent_ids: Sequence[str], limit: int) -> list[Finished]:
        self._check_open()
        return reading.children(self._instances.values(), parent_ids, limit)

    async def ended(self, status: Status, before: int, limit: int) -> list[Finished]:
        self._check_open()
        return reading.ended(list(self._instances.values()), status, before, limit)

    async def long_pasts(self, keep: int, after: int, limit: int) -> tuple[list[str], int | None]:
        self._check_open()
        return reading.long_pasts(self._instances.values(), keep, after, limit)

    async def footprint(self) -> Footprint:
        self._check_open()
        return reading.footprint(self._instances.values(), self._purged)


def _found(contents: Mapping[bytes, bytes], digests: Iterable[bytes]) -> dict[bytes, bytes]:
    return {digest: contents[digest] for digest in digests if digest in contents}
