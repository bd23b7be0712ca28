"""The memory store: the port's contract in the plainest code that keeps it. Tests compare every other store with this one.

Each group is applied to a copy of what it touches, and takes effect with the last line or not at all.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from replayflow.codec import LARGE_OVER_BYTES
from replayflow.codec.cipher import Cipher, checked_cipher
from replayflow.codec.reference import digest_of
from replayflow.core import rows
from replayflow.core.commit import Commit, Message, RowState, Start
from replayflow.core.ids import is_unicode
from replayflow.core.instance import Status
from replayflow.core.suspicion import Suspicion
from replayflow.errors import (
    HubOwnedError,
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    InvalidStateError,
    LeaseLostError,
    ReplayflowError,
    StoreUnavailableError,
)
from replayflow.store.base import (
    EXECUTIONS_PER_TRIM,
    Branch,
    Condition,
    Create,
    Delivery,
    Finished,
    Footprint,
    Grouping,
    InstanceFilter,
    InstanceRecord,
    Loaded,
    Operation,
    Order,
    Outcome,
    Owner,
    Page,
    Park,
    Place,
    Post,
    Purge,
    Served,
    Suspect,
    Transact,
    Trim,
    Waiting,
    Wake,
    cursor_of,
    id_taken,
    moved_on,
    place_of,
    why_it_stays,
)
from replayflow.store.incoming import Incoming
from replayflow.store.outgoing import GONE, Outgoing, checked_limit, passed_on_in, references_in
from replayflow.store.sqlite import schema
from replayflow.store.sqlite.guard import commit_together, perform, prepare

T = TypeVar("T")


@dataclass(slots=True)
class _Kept:
    """All that the store has of one instance id."""

    key: int
    record: InstanceRecord
    pieces: dict[int, bytes] = field(default_factory=dict)
    executions: dict[str, int] = field(default_factory=dict)
    """Where in the history each execution begins."""
    inbox: dict[int, Delivery] = field(default_factory=dict)
    dedupe_keys: set[str] = field(default_factory=set)
    arrived: dict[int, int] = field(default_factory=dict)
    """When each message in the inbox was taken."""
    transacted: set[tuple[str, int]] = field(default_factory=set)
    """The transactional activities that have had their one run, by execution and task."""

    def copy(self) -> _Kept:
        return _Kept(
            self.key,
            replace(self.record),
            dict(self.pieces),
            dict(self.executions),
            dict(self.inbox),
            set(self.dedupe_keys),
            {number: at for number, at in self.arrived.items() if number in self.inbox},
            set(self.transacted),
        )

    def references(self) -> set[bytes]:
        """All that is stored of the instance refers to."""
        record = self.record
        stored = [record.start, record.custom_status, record.output, record.orphans, *self.pieces.values()]
        stored += [delivery.event for delivery in self.inbox.values()]
        return {reference for one in stored if one is not None for reference in references_in(one)}

    @property
    def takes_messages(self) -> bool:
        return self.record.status is not Status.SUSPENDED and self.record.problem is None

    @property
    def is_purgeable(self) -> bool:
        return self.record.status.is_finished and self.record.orphans is None

    @property
    def next_number(self) -> int:
        return max([self.record.start_number, *self.pieces]) + 1


class MemoryStore:
    """A hub that lives as long as this object, whether open or not: for tests, and for work that nobody will miss."""

    def __init__(self, *, large_over_bytes: int = LARGE_OVER_BYTES, cipher: Cipher | None = None) -> None:
        self.url = "memory://"
        self._large_over_bytes = checked_limit(large_over_bytes)
        self._cipher = None if cipher is None else checked_cipher(cipher)
        self._contents: dict[bytes, bytes] = {}
        self._instances: dict[str, _Kept] = {}
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

    def _apply(self, work: Callable[[_Group], T], nudges: bool) -> T:
        """What the work did to the group has taken effect."""
        outgoing = Outgoing(self._large_over_bytes, self._cipher)
        incoming = Incoming(lambda digests: _found({**self._contents, **outgoing.contents}, digests), self._cipher)
        group = _Group(self._instances, self._keys, self._numbers, outgoing, incoming, nudges)
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
        found = {(record.name, record.version or "") for record in self._open()}
        return [(name, version or None) for name, version in sorted(found)]

    async def count_open(self, name: str, version: str | None) -> int:
        self._check_open()
        return sum(record.name == name and (record.version or None) == (version or None) for record in self._open())

    def _open(self) -> Iterator[InstanceRecord]:
        return (kept.record for kept in self._instances.values() if not kept.record.status.is_finished)

    async def load(self, instance_ids: Sequence[str]) -> list[Loaded]:
        return self._load(instance_ids, whole=False)

    async def load_whole(self, instance_id: str) -> Loaded | None:
        return next(iter(self._load([instance_id], whole=True)), None)

    def _load(self, instance_ids: Sequence[str], *, whole: bool) -> list[Loaded]:
        self._check_open()
        found = [self._instances[id] for id in dict.fromkeys(instance_ids) if id in self._instances]
        loaded = [
            Loaded(
                replace(kept.record),
                b"".join(kept.pieces[n] for n in numbers),
                len(numbers),
                [replace(kept.inbox[n], takes_messages=kept.takes_messages) for n in sorted(kept.inbox)],
            )
            for kept in found
            for numbers in [sorted(n for n in kept.pieces if n > kept.record.start_number)]
        ]
        for one in loaded:
            self._incoming().loaded(one, whole)
        return loaded

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
        order = wanted.order
        after = None if cursor is None else place_of(cursor, order)
        fitting = sorted(
            ((_place(kept, order), kept) for kept in self._instances.values() if _fits(kept.record, wanted)),
            key=itemgetter(0),
            reverse=latest_first,
        )
        if after is not None:
            if order == "id":
                after = Place(after.at, -1 if latest_first else 2**62)
            fitting = [one for one in fitting if (one[0] < after if latest_first else one[0] > after)]
        shown = fitting[:limit]
        more = cursor_of(order, shown[-1][0]) if len(fitting) > limit else None
        incoming = self._incoming()
        return Page([incoming.row(replace(kept.record)) for _, kept in shown], more)

    async def count(self, wanted: InstanceFilter, by: Grouping | None = None) -> dict[str, int]:
        self._check_open()
        records = [kept.record for kept in self._instances.values() if _fits(kept.record, wanted)]
        return dict(Counter("" if by is None else str(getattr(record, by)) for record in records))

    async def waiting(self, instance_id: str | None, limit: int = 1_000) -> list[Waiting]:
        self._check_open()
        incoming = self._incoming()
        found = [
            Waiting(
                number,
                id,
                None if delivery.event is None else incoming.events(delivery.event, id),
                kept.arrived.get(number),
                delivery.is_control,
                kept.takes_messages,
            )
            for id, kept in self._instances.items()
            if instance_id in (None, id)
            for number, delivery in kept.inbox.items()
        ]
        return sorted(found, key=lambda message: message.number)[:limit]

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
        if kept is None:
            return []
        record = kept.record
        if execution_id is None or execution_id == record.execution_id:
            stored = [record.start, *(kept.pieces[n] for n in sorted(kept.pieces) if n > record.start_number)]
        else:
            first = kept.executions.get(execution_id)
            if first is None:
                return []
            end = min((n for n in kept.executions.values() if n > first), default=record.start_number)
            stored = [kept.pieces[n] for n in sorted(kept.pieces) if first <= n < end]
        return self._incoming().pieces(stored, instance_id, is_opened)

    async def executions(self, instance_id: str) -> list[str]:
        self._check_open()
        kept = self._instances.get(instance_id)
        if kept is None:
            return []
        return [*sorted(kept.executions, key=kept.executions.__getitem__), kept.record.execution_id]

    async def wakes(self, after: tuple[int, int] | None, limit: int) -> list[Wake]:
        self._check_open()
        found = [
            Wake(kept.record.wake_at, id, (kept.record.wake_at, kept.key))
            for id, kept in self._instances.items()
            if kept.record.wake_at is not None
        ]
        return sorted((w for w in found if after is None or w.position > after), key=lambda w: w.position)[:limit]

    async def arrived(self, after: int, limit: int) -> list[Delivery]:
        self._check_open()
        found: list[Delivery] = []
        for kept in self._instances.values():
            found += [
                self._incoming().arrival(replace(d, takes_messages=kept.takes_messages))
                for number, d in kept.inbox.items()
                if number > after
            ]
        return sorted(found, key=lambda delivery: delivery.number)[:limit]

    async def children(self, parent_ids: Sequence[str], limit: int) -> list[Finished]:
        self._check_open()
        found = [
            kept
            for parent_id in parent_ids
            for kept in sorted(self._instances.values(), key=lambda kept: (kept.record.created_at, kept.key))
            if kept.record.parent_id == parent_id and kept.is_purgeable
        ]
        return [Finished(kept.record.instance_id, kept.record.execution_id) for kept in found[:limit]]

    async def ended(self, status: Status, before: int, limit: int) -> list[Finished]:
        self._check_open()
        parents = {kept.record.parent_id for kept in self._instances.values()}
        found = sorted(
            (kept.record.completed_at, kept.key, kept)
            for kept in self._instances.values()
            if kept.record.status is status
            and kept.is_purgeable
            and kept.record.instance_id not in parents
            and kept.record.completed_at is not None
            and kept.record.completed_at < before
        )
        return [Finished(kept.record.instance_id, kept.record.execution_id) for *_, kept in found[:limit]]

    async def long_pasts(self, keep: int, after: int, limit: int) -> tuple[list[str], int | None]:
        self._check_open()
        having = sorted(
            (kept for kept in self._instances.values() if kept.executions and kept.key > after),
            key=lambda kept: kept.key,
        )[:limit]
        long = [kept.record.instance_id for kept in having if len(kept.executions) > keep]
        return long, having[-1].key if len(having) == limit else None

    async def footprint(self) -> Footprint:
        self._check_open()
        ended = [kept.record for kept in self._instances.values() if kept.record.completed_at is not None]
        ended = [record for record in ended if record.status.is_finished]
        counts = Counter(record.status for record in ended)
        oldest = min((record.completed_at for record in ended if record.completed_at is not None), default=None)
        return Footprint(dict(counts), oldest, self._purged, 0, 0)


class _Group:
    """One transaction: `touched` has the instances as they will be, `removed` the ids of those that will be no more."""

    def __init__(
        self,
        instances: dict[str, _Kept],
        keys: itertools.count[int],
        numbers: itertools.count[int],
        outgoing: Outgoing,
        incoming: Incoming,
        nudges: bool,
    ) -> None:
        self._nudges = nudges
        self._outgoing = outgoing
        self._incoming = incoming
        self._instances = instances
        self._keys = keys
        self._numbers = numbers
        self.touched: dict[str, _Kept] = {}
        self.removed: set[str] = set()
        self.purged = 0

    def apply(self, operation: Operation) -> Outcome:
        passed_on = passed_on_in(operation)
        if not self._incoming.has(passed_on):
            return Outcome(error=InvalidArgumentError(GONE))
        match operation:
            case Create():
                return self._create(operation)
            case Post():
                return self._post(operation)
            case Commit():
                return self._commit(operation)
            case Park():
                return self._park(operation)
            case Purge():
                return self._purge(operation)
            case Trim():
                return self._trim(operation)
            case Branch():
                return self._branch(operation)

    def _find(self, instance_id: str) -> _Kept | None:
        kept = self.touched.get(instance_id)
        if kept is None and instance_id in self._instances and instance_id not in self.removed:
            kept = self.touched[instance_id] = self._instances[instance_id].copy()
        return kept

    def _create(self, create: Create) -> Outcome:
        start = create.start
        kept = self._find(start.instance_id)
        outcome = Outcome()
        begins = kept is None or (kept.record.status.is_finished and create.on_existing not in ("error", "return"))
        if begins and (unstorable := _unstorable(start)) is not None:
            outcome.error = unstorable
            return outcome
        if kept is None:
            self._begin(start, outcome)
            self._nudge(start.instance_id, outcome)
            return outcome
        status = kept.record.status
        if create.on_existing == "return":
            outcome.has_existed = True
        elif create.on_existing == "error" or (create.on_existing == "replace_finished" and not status.is_finished):
            outcome.error = id_taken(start.instance_id, status)
        elif status.is_finished:
            self._succeed(kept, start)
            outcome.started.append(start)
            self._nudge(start.instance_id, outcome)
        else:
            assert create.replacement is not None  # noqa: S101 - the client sends one with this choice
            self._send(create.replacement, outcome)
        return outcome

    def _post(self, post: Post) -> Outcome:
        outcome = Outcome()
        message = post.message
        kept = self._find(message.instance_id)
        if kept is not None and post.dedupe_key is not None and post.dedupe_key in kept.dedupe_keys:
            return outcome
        begins = message.start is not None and (
            kept is None or (post.replaces_finished and kept.record.status.is_finished)
        )
        if kept is None and message.start is None:
            outcome.error = InstanceNotFoundError(f"no instance '{message.instance_id}' is in the hub memory://")
        elif post.dedupe_key is not None and not is_unicode(post.dedupe_key):
            outcome.error = InvalidArgumentError(f"dedupe_key {post.dedupe_key!a:.300} is no Unicode text")
        elif begins and message.start is not None and (unstorable := _unstorable(message.start)) is not None:
            outcome.error = unstorable
        elif kept is not None and kept.record.status.is_finished and not begins:
            outcome.error = InstanceFinishedError(
                f"instance '{message.instance_id}' has finished, with status {kept.record.status}, and takes no messages"
            )
        else:
            if kept is None and message.start is not None:
                kept = self._begin(message.start, outcome)
            elif begins and kept is not None and message.start is not None:
                self._succeed(kept, message.start)
                outcome.started.append(message.start)
            if post.dedupe_key is not None and kept is not None:
                kept.dedupe_keys.add(post.dedupe_key)
            self._send(message, outcome)
        return outcome

    def _commit(self, commit: Commit) -> Outcome:
        outcome = Outcome()
        kept = self._find(commit.instance_id)
        if kept is None or kept.record.execution_id != commit.execution_id or commit.sequence != kept.next_number:
            outcome.error = LeaseLostError(
                f"instance '{commit.instance_id}' has moved on: piece {commit.sequence} of execution {commit.execution_id} does not continue it"
            )
            return outcome
        begun = [*commit.starts, *(m.start for m in commit.messages if m.start is not None)]
        if commit.next_start is not None:
            begun.insert(0, commit.next_start)
        unstorable = next(filter(None, map(_unstorable, begun)), None)
        if unstorable is not None:
            outcome.error = unstorable
            return outcome
        if commit.chunk is not None:
            kept.pieces[commit.sequence] = self._outgoing.events(commit.chunk, 0, commit.instance_id)
            kept.record.updated_at = max(commit.at, kept.record.created_at)
        if commit.state is not None:
            self._show(kept, commit.state)
        for number in commit.consumed:
            kept.inbox.pop(number, None)
        if commit.next_start is not None:
            self._succeed(kept, commit.next_start)
            if commit.past_kept is not None:
                _forget_executions(kept, commit.past_kept)
        for start in commit.starts:
            if self._find(start.instance_id) is None:
                self._begin(start, outcome)
            elif start.if_taken is not None:
                self._send(start.if_taken, outcome)
        for message in commit.messages:
            self._send(message, outcome)
        if commit.removes and not kept.inbox:
            self._remove(commit.instance_id)
        return outcome

    def _purge(self, purge: Purge) -> Outcome:
        id = purge.instance_id
        kept = self._find(id)
        if kept is None:
            return Outcome(InstanceNotFoundError(f"no instance '{id}' is in the hub memory://"))
        refusal = why_it_stays(id, kept.record.status, owes=kept.record.orphans is not None)
        if refusal is not None:
            return Outcome(refusal)
        if purge.execution_id is not None and purge.execution_id != kept.record.execution_id:
            return Outcome(InvalidStateError(f"instance '{id}' is in another execution by now"))
        self._remove(id)
        self.purged += 1
        return Outcome()

    def _trim(self, trim: Trim) -> Outcome:
        kept = self._find(trim.instance_id)
        if kept is None:
            return Outcome(InstanceNotFoundError(f"no instance '{trim.instance_id}' is in the hub memory://"))
        _forget_executions(kept, trim.keep)
        return Outcome()

    def _remove(self, instance_id: str) -> None:
        del self.touched[instance_id]
        self.removed.add(instance_id)

    def _park(self, park: Park) -> Outcome:
        outcome = Outcome()
        kept = self._find(park.instance_id)
        if kept is None or kept.record.execution_id != park.execution_id:
            outcome.error = LeaseLostError(f"instance '{park.instance_id}' has moved on")
            return outcome
        kept.record.problem = self._outgoing.text(park.problem, park.instance_id)
        for message in park.messages:
            self._send(message, outcome)
        return outcome

    def _branch(self, branch: Branch) -> Outcome:
        outcome = Outcome()
        begun = [one.start for one in branch.executions] + [*branch.starts]
        outcome.error = self._unfit(branch) or next(filter(None, map(_unstorable, begun)), None)
        if outcome.error is not None:
            return outcome
        for one in branch.executions:
            kept = self._find(one.start.instance_id)
            if kept is None:
                kept = self._begin(one.start, outcome)
            else:
                self._succeed(kept, one.start, continues=True)
                outcome.started.append(one.start)
            for number, (at, piece) in enumerate(one.pieces, kept.record.start_number + 1):
                kept.pieces[number] = self._outgoing.events(piece, 0, one.start.instance_id)
                kept.record.updated_at = max(at, kept.record.created_at)
            self._show(kept, one.state)
            self._nudge(one.start.instance_id, outcome)
        for start in branch.starts:
            if self._find(start.instance_id) is None:
                self._begin(start, outcome)
                self._nudge(start.instance_id, outcome)
            elif start.if_taken is not None:
                self._send(start.if_taken, outcome)
        for message in branch.messages:
            self._send(message, outcome)
        return outcome

    def _unfit(self, branch: Branch) -> ReplayflowError | None:
        for one in branch.executions:
            kept = self._find(one.start.instance_id)
            if one.replaces is None and kept is not None:
                return id_taken(one.start.instance_id, kept.record.status)
            if one.replaces is not None and (
                kept is None
                or (kept.record.execution_id, kept.next_number - 1) != (one.replaces, one.last)
                or not kept.record.status.is_finished
                or any(n > one.last_message and d.execution_id == one.replaces for n, d in kept.inbox.items())
            ):
                return moved_on(one.start.instance_id)
        for seen in branch.seen:
            kept = self._find(seen.instance_id)
            if kept is None or kept.record.status.is_finished == (seen.execution_id is None):
                return moved_on(seen.instance_id)
            if seen.execution_id is not None and seen.execution_id != kept.record.execution_id:
                return moved_on(seen.instance_id)
        return None

    def _begin(self, start: Start, outcome: Outcome) -> _Kept:
        self.removed.discard(start.instance_id)
        kept = self.touched[start.instance_id] = _Kept(
            next(self._keys),
            InstanceRecord(
                instance_id=start.instance_id,
                execution_id=start.execution_id,
                name=start.name,
                version=start.version,
                status=Status.PENDING,
                start=self._outgoing.events(start.event, 0, start.instance_id),
                start_number=0,
                wake_at=start.wake_at,
                created_at=start.created_at,
                updated_at=start.created_at,
                parent_id=start.parent_id,
                tags=start.tags,
            ),
        )
        outcome.started.append(self._incoming.start(start))
        return kept

    def _succeed(self, kept: _Kept, start: Start, *, continues: bool = False) -> None:
        """The next execution begins under the same id; the last one's start takes its place in the history."""
        record = kept.record
        kept.pieces[record.start_number] = record.start
        kept.executions[record.execution_id] = record.start_number
        continues = continues or record.status is Status.CONTINUED_AS_NEW
        if not continues:
            kept.dedupe_keys.clear()
        kept.record = InstanceRecord(
            instance_id=start.instance_id,
            execution_id=start.execution_id,
            name=start.name,
            version=start.version,
            status=Status.PENDING,
            start=self._outgoing.events(start.event, 0, start.instance_id),
            start_number=max(kept.pieces) + 1,
            wake_at=start.wake_at,
            created_at=record.created_at if continues else start.created_at,
            updated_at=record.updated_at if continues else max(record.updated_at, start.created_at),
            custom_status=record.custom_status if continues else None,
            orphans=record.orphans,
            parent_id=record.parent_id if continues else start.parent_id,
            tags=start.tags,
        )

    def _nudge(self, instance_id: str, outcome: Outcome) -> None:
        if not self._nudges:
            return
        self._deliver(Delivery(next(self._numbers), instance_id, None, is_control=True), outcome)

    def _send(self, message: Message, outcome: Outcome) -> None:
        kept = self._find(message.instance_id)
        if kept is None and message.start is not None:
            kept = self._begin(message.start, outcome)
        if (
            kept is None
            or kept.record.status.is_finished
            or (message.execution_id is not None and message.execution_id != kept.record.execution_id)
        ):
            outcome.dropped.append(message)
            return
        self._deliver(
            Delivery(next(self._numbers), message.instance_id, message.event, message.execution_id, message.is_control),
            outcome,
        )

    def _deliver(self, delivery: Delivery, outcome: Outcome) -> None:
        outcome.deliveries.append(self.deliver(delivery))

    def deliver(self, delivery: Delivery) -> Delivery:
        """The message stands in the inbox of its receiver, which is there."""
        kept = self._find(delivery.instance_id)
        assert kept is not None  # noqa: S101 - the caller has looked
        delivery.takes_messages = kept.takes_messages
        kept.arrived[delivery.number] = time.time_ns() // 1_000
        kept.inbox[delivery.number] = replace(delivery, event=self._stored(delivery.event, delivery.instance_id))
        return self._incoming.delivery(delivery)

    def _stored(self, encoded: bytes | None, instance_id: str) -> bytes | None:
        return None if encoded is None else self._outgoing.events(encoded, 0, instance_id)

    def _show(self, kept: _Kept, state: RowState) -> None:
        record = kept.record
        record.status = state.status
        record.wake_at = state.wake_at
        record.custom_status = self._outgoing.payload(state.custom_status, 0, record.instance_id)
        record.output = self._outgoing.payload(state.output, 0, record.instance_id)
        record.failure = self._stored(state.failure, record.instance_id)
        record.completed_at = state.completed_at
        record.orphans = self._stored(state.orphans, record.instance_id)
        record.progress = state.progress


def _found(contents: Mapping[bytes, bytes], digests: Iterable[bytes]) -> dict[bytes, bytes]:
    return {digest: contents[digest] for digest in digests if digest in contents}


def _forget_executions(kept: _Kept, keep: int) -> None:
    """Of the past executions the last `keep` stay, or more, where too many would go at once."""
    past = sorted(kept.executions.values())
    going = min(max(0, len(past) - keep), EXECUTIONS_PER_TRIM)
    first = [*past, kept.record.start_number][going]
    kept.pieces = {number: piece for number, piece in kept.pieces.items() if number >= first}
    kept.executions = {id: number for id, number in kept.executions.items() if number >= first}


def _unstorable(start: Start) -> InvalidArgumentError | None:
    """Why the start cannot be kept: text that is no Unicode, or a NUL character in its id or its tags."""
    tags = [text for tag in (start.tags or {}).items() for text in tag]
    texts = [start.instance_id, start.execution_id, start.name, start.version, start.parent_id, *tags]
    for text in texts:
        if text is not None and not is_unicode(text):
            return InvalidArgumentError(f"instance {start.instance_id!a:.300}: {text!a:.80} is no Unicode text")
    if any("\0" in text for text in [start.instance_id, *tags]):
        return InvalidArgumentError(f"instance {start.instance_id!a:.300} has a NUL character in its id or its tags")
    return None


def _place(kept: _Kept, order: Order) -> Place:
    record = kept.record
    at: int | str | None = record.instance_id
    if order != "id":
        at = record.created_at if order == "created" else record.completed_at
    assert at is not None  # noqa: S101 - what fits a filter by the end has ended
    return Place(at, kept.key)


def _fits(record: InstanceRecord, wanted: InstanceFilter) -> bool:
    tags = record.tags or {}
    return (
        (wanted.statuses is None or record.status in wanted.statuses)
        and (wanted.name is None or record.name == wanted.name)
        and (wanted.id_prefix is None or record.instance_id.startswith(wanted.id_prefix))
        and all(tags.get(key) == value for key, value in wanted.tags)
        and (wanted.created_from is None or record.created_at >= wanted.created_from)
        and (wanted.created_to is None or record.created_at < wanted.created_to)
        and (wanted.is_parked is None or (record.problem is not None) == wanted.is_parked)
        and (wanted.is_entity is None or record.instance_id.startswith("@") == wanted.is_entity)
        and (wanted.parent_id is None or record.parent_id == wanted.parent_id)
        and ((wanted.completed_from, wanted.completed_to) == (None, None) or record.completed_at is not None)
        and (wanted.completed_from is None or (record.completed_at or 0) >= wanted.completed_from)
        and (wanted.completed_to is None or (record.completed_at or 0) < wanted.completed_to)
    )
