"""The memory store: the port's contract in the plainest code that keeps it. Tests compare every other store with this one.

Each group is applied to a copy of what it touches, and takes effect with the last line or not at all.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from replayflow.core.commit import Commit, Message, RowState, Start
from replayflow.core.ids import is_unicode
from replayflow.core.instance import Status
from replayflow.errors import (
    HubOwnedError,
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    LeaseLostError,
    StoreUnavailableError,
)
from replayflow.store.base import (
    Create,
    Delivery,
    InstanceFilter,
    InstanceRecord,
    Loaded,
    Operation,
    Outcome,
    Owner,
    Page,
    Park,
    Post,
    Wake,
    position_of,
)


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

    def copy(self) -> _Kept:
        return _Kept(
            self.key,
            replace(self.record),
            dict(self.pieces),
            dict(self.executions),
            dict(self.inbox),
            set(self.dedupe_keys),
        )

    @property
    def takes_messages(self) -> bool:
        return self.record.status is not Status.SUSPENDED and self.record.problem is None

    @property
    def next_number(self) -> int:
        return max([self.record.start_number, *self.pieces]) + 1


class MemoryStore:
    """A hub that lives as long as this object, whether open or not: for tests, and for work that nobody will miss."""

    def __init__(self) -> None:
        self.url = "memory://"
        self._instances: dict[str, _Kept] = {}
        self._keys = itertools.count(1)
        self._numbers = itertools.count(1)
        self._epoch = 0
        self._owner: Owner | None = None
        self._subscribers: list[Callable[[], None]] = []
        self._is_open = False
        self._code: dict[str, str] = {}

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        await self.release()
        self._is_open = False

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailableError(f"{self.url} is not open")

    async def acquire(self, owner: Owner) -> int:
        self._check_open()
        if self._owner is not None:
            raise HubOwnedError(f"the hub {self.url} is owned by {self._owner}")
        self._owner = owner
        self._epoch += 1
        return self._epoch

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
        group = _Group(self._instances, self._keys, self._numbers, nudges=epoch is None)
        outcomes = [group.apply(operation) for operation in operations]
        self._instances.update(group.touched)
        for instance_id in group.removed:
            self._instances.pop(instance_id, None)
        for changed in list(self._subscribers):
            asyncio.get_running_loop().call_soon(changed)
        return outcomes

    async def keep_code(self, digests: Mapping[str, str], epoch: int) -> None:
        self._check_open()
        if epoch != self._epoch:
            raise LeaseLostError(f"the hub {self.url} has another owner by now: epoch {self._epoch}, not {epoch}")
        self._code.update(digests)

    # ---- reading

    async def code(self) -> dict[str, str]:
        self._check_open()
        return dict(self._code)

    async def load(self, instance_ids: Sequence[str]) -> list[Loaded]:
        self._check_open()
        found = [self._instances[id] for id in dict.fromkeys(instance_ids) if id in self._instances]
        return [
            Loaded(
                replace(kept.record),
                b"".join(kept.pieces[n] for n in numbers),
                len(numbers),
                [replace(kept.inbox[n], takes_messages=kept.takes_messages) for n in sorted(kept.inbox)],
            )
            for kept in found
            for numbers in [sorted(n for n in kept.pieces if n > kept.record.start_number)]
        ]

    async def get(self, instance_id: str) -> InstanceRecord | None:
        self._check_open()
        kept = self._instances.get(instance_id)
        return None if kept is None else replace(kept.record)

    async def page(self, wanted: InstanceFilter, limit: int, cursor: str | None = None) -> Page:
        self._check_open()
        after = 0 if cursor is None else position_of(cursor)
        fitting = sorted(
            (kept for kept in self._instances.values() if kept.key > after and _fits(kept.record, wanted)),
            key=lambda kept: kept.key,
        )
        shown = fitting[:limit]
        return Page([replace(kept.record) for kept in shown], str(shown[-1].key) if len(fitting) > limit else None)

    async def history(self, instance_id: str, execution_id: str | None = None) -> list[bytes]:
        self._check_open()
        kept = self._instances.get(instance_id)
        if kept is None:
            return []
        record = kept.record
        if execution_id is None or execution_id == record.execution_id:
            return [record.start, *(kept.pieces[n] for n in sorted(kept.pieces) if n > record.start_number)]
        first = kept.executions.get(execution_id)
        if first is None:
            return []
        end = min((n for n in kept.executions.values() if n > first), default=record.start_number)
        return [kept.pieces[n] for n in sorted(kept.pieces) if first <= n < end]

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
                replace(d, takes_messages=kept.takes_messages) for number, d in kept.inbox.items() if number > after
            ]
        return sorted(found, key=lambda delivery: delivery.number)[:limit]


class _Group:
    """One transaction: `touched` has the instances as they will be, `removed` the ids of those that will be no more."""

    def __init__(
        self, instances: dict[str, _Kept], keys: itertools.count[int], numbers: itertools.count[int], nudges: bool
    ) -> None:
        self._nudges = nudges
        self._instances = instances
        self._keys = keys
        self._numbers = numbers
        self.touched: dict[str, _Kept] = {}
        self.removed: set[str] = set()

    def apply(self, operation: Operation) -> Outcome:
        match operation:
            case Create():
                return self._create(operation)
            case Post():
                return self._post(operation)
            case Commit():
                return self._commit(operation)
            case Park():
                return self._park(operation)

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
            outcome.error = InstanceExistsError(f"instance '{start.instance_id}' exists already, with status {status}")
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
        if kept is None and message.start is None:
            outcome.error = InstanceNotFoundError(f"no instance '{message.instance_id}' is in the hub memory://")
        elif post.dedupe_key is not None and not is_unicode(post.dedupe_key):
            outcome.error = InvalidArgumentError(f"dedupe_key {post.dedupe_key!a:.300} is no Unicode text")
        elif kept is None and message.start is not None and (unstorable := _unstorable(message.start)) is not None:
            outcome.error = unstorable
        elif kept is not None and kept.record.status.is_finished:
            outcome.error = InstanceFinishedError(
                f"instance '{message.instance_id}' has finished, with status {kept.record.status}, and takes no messages"
            )
        else:
            if kept is None and message.start is not None:
                kept = self._begin(message.start, outcome)
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
            kept.pieces[commit.sequence] = commit.chunk
            kept.record.updated_at = max(commit.at, kept.record.created_at)
        if commit.state is not None:
            _show(kept.record, commit.state)
        for number in commit.consumed:
            kept.inbox.pop(number, None)
        if commit.next_start is not None:
            if commit.forgets_past:
                _forget_past(kept)
            self._succeed(kept, commit.next_start)
        for start in commit.starts:
            if self._find(start.instance_id) is None:
                self._begin(start, outcome)
            elif start.if_taken is not None:
                self._send(start.if_taken, outcome)
        for message in commit.messages:
            self._send(message, outcome)
        if commit.removes and not kept.inbox:
            del self.touched[commit.instance_id]
            self.removed.add(commit.instance_id)
        return outcome

    def _park(self, park: Park) -> Outcome:
        outcome = Outcome()
        kept = self._find(park.instance_id)
        if kept is None or kept.record.execution_id != park.execution_id:
            outcome.error = LeaseLostError(f"instance '{park.instance_id}' has moved on")
            return outcome
        kept.record.problem = park.problem
        for message in park.messages:
            self._send(message, outcome)
        return outcome

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
                start=start.event,
                start_number=0,
                wake_at=start.wake_at,
                created_at=start.created_at,
                updated_at=start.created_at,
                parent_id=start.parent_id,
                tags=start.tags,
            ),
        )
        outcome.started.append(start)
        return kept

    def _succeed(self, kept: _Kept, start: Start) -> None:
        """The next execution begins under the same id; the last one's start takes its place in the history."""
        record = kept.record
        kept.pieces[record.start_number] = record.start
        kept.executions[record.execution_id] = record.start_number
        continues = record.status is Status.CONTINUED_AS_NEW
        if not continues:
            kept.dedupe_keys.clear()
        kept.record = InstanceRecord(
            instance_id=start.instance_id,
            execution_id=start.execution_id,
            name=start.name,
            version=start.version,
            status=Status.PENDING,
            start=start.event,
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
        kept = self._find(delivery.instance_id)
        assert kept is not None  # noqa: S101 - the caller has looked
        delivery.takes_messages = kept.takes_messages
        kept.inbox[delivery.number] = delivery
        outcome.deliveries.append(delivery)


def _forget_past(kept: _Kept) -> None:
    """Of the executions before the present one nothing is left."""
    first = kept.record.start_number
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


def _show(record: InstanceRecord, state: RowState) -> None:
    record.status = state.status
    record.wake_at = state.wake_at
    record.custom_status = state.custom_status
    record.output = state.output
    record.failure = state.failure
    record.completed_at = state.completed_at
    record.orphans = state.orphans
    record.progress = state.progress


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
    )
