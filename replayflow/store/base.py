"""The store port: durable state as the engine and its clients see it. What a store promises is said here, and tested by one suite for all.

A store holds *instances* (a row each: what status shows), their *history* (numbered pieces, append-only, I10), an *inbox* (messages that no
history has yet), and who owns the hub.

**Writing.** All writing is `write(operations)`: one transaction for the whole group (group commit), or none of it. Within the group the operations
are applied in order; each is accepted or refused on its own, with the reason, and a refused one changes nothing (it never drags its neighbours
down). When `write` returns, what it accepted survives any crash (I6). When it raises, a `StoreError`, nothing of the group has happened.

**Ownership.** One worker owns a hub. `acquire` gives it an epoch, larger than any before; writes that carry an epoch other than the present one are
refused as a whole with `LeaseLostError`, and change nothing (I7). Clients write without one: they create, post and read, and never touch an
instance's history or state but to replace or purge one that has finished, or to begin one with the past of another.

**Messages.** A message gets a number when it is accepted, larger than all before; per receiver they are delivered in that order (I5). It stands in
the inbox until a commit lists it as consumed. One for an instance that is unknown, has finished, or is in another execution than the message asks for
is refused; but where the instance is unknown and the message has a `start`, that begins first, in the same transaction, and the message is its first;
so it does in the place of one that has finished, where the `Post` replaces such.

**Text and size.** An operation that cannot be stored is refused alone: text that is no Unicode (a lone surrogate), and an id or a tag with a NUL
character, with `InvalidArgumentError`; a value larger than the store can hold with `PayloadTooLargeError`. Reading by such text finds nothing.

**Pieces of history.** An execution begins with its start event, which the instance's row holds; the pieces that follow are numbered on from
it. When an execution gives way to the next, its start takes its place in the history, and the next one's numbers go on from there. Past executions
go, oldest first and whole, when a commit or a `Trim` says how many are kept (I10: this is retention).

**Large payloads.** Events and payloads cross the port whole. What is longer than the store's limit is kept out of line, once for all who refer to
it, in the same transaction as what refers to it first, and goes with the last that does: the contents of a hub are those that something in it
refers to, no more and no less. `get` and `page` leave references where they stand (`codec/reference.py`), and `fetch` gives what they stand for;
`load` reads what a replay and the next episode need. A start or a message may pass on a reference; where its content has gone it is refused.

**Sealed values.** A store that has a cipher seals what it writes and opens what it reads: values cross the port open. What it has no key for stays
sealed (`codec/sealed.py`), a text is "(encrypted)", and `Loaded.problem` and `Delivery.is_sealed` say so.

**Removal.** A commit that `removes` takes its instance out of the store, with its history, keys and all, if after it nothing is left in the inbox;
else the instance stays, as the commit left it. A `Purge` takes one that has finished and owes no activity, with what is in its inbox. The id is free
afterwards. The hub counts what was purged, by day and cause (I8).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from replayflow.codec import Payload
from replayflow.core.commit import Commit, Message, RowState, Start
from replayflow.core.ids import is_unicode
from replayflow.core.instance import Status
from replayflow.core.suspicion import Suspicion
from replayflow.core.transaction import Statements
from replayflow.errors import (
    InstanceExistsError,
    InvalidArgumentError,
    InvalidStateError,
    ReplayflowError,
    SealedError,
)

OnExisting = Literal["error", "return", "replace_finished", "terminate_and_replace"]
Order = Literal["created", "completed", "id"]
Grouping = Literal["status", "name"]
_POSITION_MAX = 2**63 - 1
PurgeCause = Literal["asked", "retention"]
EXECUTIONS_PER_TRIM = 500
"""How many past executions one operation takes away at the most, so that a long past does not make a long transaction."""
MICROSECONDS_PER_DAY = 86_400_000_000


# ---- what is written -------------------------------------------------------------------------------------------


class Create(Struct):
    """Start an execution on behalf of a client. Written without an epoch, it leaves a nudge in the inbox, so that the worker learns of it.

    Where an instance with the id exists: "error" refuses (`InstanceExistsError`), "return" leaves it and accepts, "replace_finished" starts the new
    execution in its place where it has finished and refuses where it has not, "terminate_and_replace" does the same but leaves an unfinished one an
    `ExecutionReplaced` message, `replacement`, in its inbox.
    """

    start: Start
    on_existing: OnExisting = "error"
    replacement: Message | None = None
    has_new_id: bool = False
    """Whether the id was made up for this, so that nothing can have it."""


class Post(Struct):
    """Leave a message. One whose `dedupe_key` the instance has had before is accepted and not delivered again, also after the end (I6).

    Keys last as long as the instance, through every continue-as-new; a replacement is another instance under the same id, and has had none.
    With `replaces_finished` the message's `start` begins also where the instance has finished, in its place.
    """

    message: Message
    dedupe_key: str | None = None
    replaces_finished: bool = False


class Park(Struct):
    """The execution is set aside with the problem, and nothing is held against it; or, with None, it is freed again.

    `messages` are what it had in memory and must not lose.
    """

    instance_id: str
    execution_id: str
    problem: bytes | None
    messages: list[Message] = []


class Purge(Struct):
    """The instance is no more, with its history, its past executions, its inbox, its keys and its tags; its id is free.

    Refused where there is none (`InstanceNotFoundError`), and (`InvalidStateError`) where it has not finished, owes the run of an activity, or is in
    another execution than `execution_id`, where that is given. `at` and `cause` are for the hub's count of what was purged.
    """

    instance_id: str
    execution_id: str | None = None
    at: int = 0
    cause: PurgeCause = "asked"


class Trim(Struct):
    """Of the instance's past executions the last `keep` stay; of those before them the oldest go, `EXECUTIONS_PER_TRIM` at the most."""

    instance_id: str
    keep: int


class Transact(Struct):
    """One run of a transactional activity: `run` is given statements that are part of the transaction, and returns its result's event, encoded."""

    instance_id: str
    execution_id: str
    task_id: int
    run: Callable[[Statements], bytes]
    seconds_max: float


class Raised(Exception):
    """The activity itself has failed, not the store; `error` is how."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class Branched(Struct):
    """An execution that begins with a past: the pieces, each with its time, follow its start, and `state` is what its row shows after them.

    It takes the place of the execution `replaces`, which has finished, whose last piece is `last`, and for which no message has come that has a
    higher number than `last_message`; what the instance has beside its history stays
    (its keys, its inbox, when it was created, whose child it is). Where `replaces` is None it is the first of an instance of its own.
    """

    start: Start
    pieces: Sequence[tuple[int, bytes]]
    state: RowState
    replaces: str | None = None
    last: int = 0
    last_message: int = 0


class Seen(Struct):
    """An instance as it was read: it has finished, in that execution; or, where there is none, it has not finished."""

    instance_id: str
    execution_id: str | None = None


class Branch(Struct):
    """Begin executions that have a past: all of them, or none.

    Refused where an instance is not what it was when it was read (`InvalidStateError`), or the id of a new one is taken (`InstanceExistsError`).
    `starts` and `messages` are as in a commit. Written without an epoch, it leaves a nudge in the inbox of each instance that begins so.
    """

    executions: Sequence[Branched]
    seen: Sequence[Seen] = ()
    starts: Sequence[Start] = ()
    messages: Sequence[Message] = ()


Operation: TypeAlias = Create | Post | Commit | Park | Purge | Trim | Branch


class Delivery(Struct):
    """A message in an inbox: its number, and what the receiver needs of it."""

    number: int
    instance_id: str
    event: bytes | None
    """The encoded event; None is a nudge: the instance is new, or has another execution."""
    execution_id: str | None = None
    is_control: bool = False
    takes_messages: bool = True
    """Whether the receiver is neither suspended nor parked."""
    is_sealed: bool = False
    """Whether it has a value that cannot be read: the key is not at hand, or it is damaged. To load the receiver shows why."""


class Outcome(Struct):
    """What became of one operation."""

    error: ReplayflowError | None = None
    """Why it was refused; None where it was accepted."""
    deliveries: list[Delivery] = []
    """The messages that it put into inboxes."""
    started: list[Start] = []
    """The executions that it began, but for the one of a `next_start`. Their messages are in `deliveries`."""
    dropped: list[Message] = []
    """Messages that nobody can receive."""
    has_existed: bool = False
    """For a `Create` that accepts an instance as it is: there was one."""


ACCEPTED = Outcome()
"""What nearly every commit comes to: accepted, and nothing follows for others. Nobody writes into it."""


# ---- what is read ----------------------------------------------------------------------------------------------


class InstanceRecord(Struct):
    """An instance's row. Times are microseconds since 1970."""

    instance_id: str
    execution_id: str
    name: str
    version: str | None
    status: Status
    start: bytes
    """The present execution's first events, encoded."""
    start_number: int
    """The number that the start has, or will have, in the history."""
    wake_at: int | None
    created_at: int
    updated_at: int
    """When the last piece was added, and not before `created_at`."""
    completed_at: int | None = None
    custom_status: Payload = None
    output: Payload = None
    failure: bytes | None = None
    problem: bytes | None = None
    orphans: bytes | None = None
    parent_id: str | None = None
    tags: dict[str, str] | None = None
    progress: bytes | None = None


class Loaded(Struct):
    """An instance with the history of its present execution and its inbox, all at one moment.

    `pieces` are the pieces of history after the start, one behind the other in order, and `piece_count` is how many.
    """

    record: InstanceRecord
    pieces: bytes
    piece_count: int
    inbox: list[Delivery]
    problem: SealedError | None = None
    """Why the instance cannot be run by what was loaded: a value of it is sealed, and the key that opens it is not at hand."""


class InstanceFilter(Struct, frozen=True):
    """Which instances: those that fit all that is given. Times are microseconds since 1970, from inclusive, to exclusive."""

    statuses: frozenset[Status] | None = None
    name: str | None = None
    id_prefix: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    created_from: int | None = None
    created_to: int | None = None
    is_parked: bool | None = None
    is_entity: bool | None = None
    """Whether the id begins with `@`."""
    completed_from: int | None = None
    completed_to: int | None = None
    parent_id: str | None = None

    @property
    def order(self) -> Order:
        """What a listing by this filter is sorted by: the end, where a window of it is given; the id, where ids are all that is asked of; else the
        beginning. So an index in that order finds what fits, however much of it there is.
        """
        if self.completed_from is not None or self.completed_to is not None:
            return "completed"
        is_of_ids = (self.id_prefix or self.is_entity) and self == InstanceFilter(
            id_prefix=self.id_prefix, is_entity=self.is_entity
        )
        return "id" if is_of_ids else "created"


class Page(Struct):
    records: list[InstanceRecord]
    cursor: str | None
    """Where the next page begins; None after the last."""


class Place(NamedTuple):
    """Where an instance stands in a listing: by the position and, among equals, in the order in which ids were first created."""

    at: int | str
    key: int


class Waiting(Struct, frozen=True):
    """A message that no history has yet."""

    number: int
    instance_id: str
    event: bytes | None
    """The encoded event; None is a nudge: a worker has not yet seen that the instance begins."""
    since: int | None
    """When the store took it, in microseconds since 1970; None where that is not known."""
    is_control: bool
    takes_messages: bool
    """Whether the receiver is neither suspended nor parked."""


class Condition(Struct, frozen=True):
    """How the store itself is. Sizes are bytes."""

    size: int = 0
    free: int = 0
    """What of the size is room for more."""
    log: int = 0
    """What is written and not yet in its place: the write-ahead log."""
    format: int = 0
    """The number of the format that the store is written in."""
    mode: int | None = None
    """The permissions of the store's file, as in `stat`; None where there is none."""
    faults: tuple[str, ...] = ()
    """What a check of the whole store has found."""


class Finished(Struct):
    """An instance that has finished and owes nothing: what a purge needs of it."""

    instance_id: str
    execution_id: str


class Footprint(Struct):
    """How large a hub is, and how much of it has finished. Counts by status are read from an index; bytes are those of the main file."""

    finished: dict[Status, int]
    """How many instances have finished, by status."""
    oldest_end: int | None
    """When the first of them to finish did, in microseconds since 1970."""
    purged: int
    """How many have been purged in the hub's life."""
    total_bytes: int
    free_bytes: int
    """How many of the bytes hold nothing, and are used again before the file grows."""


class Wake(Struct):
    """An instance that wants to be looked at, and when; `position` is where to read on."""

    at: int
    instance_id: str
    position: tuple[int, int]


class Suspect(Struct, frozen=True):
    """An instance that may have killed the workers before this one, and what is held against it."""

    instance_id: str
    suspicion: Suspicion


class Served(Struct, frozen=True):
    """The code that a worker runs instances of a name and version with, by its digest; the default is the version of those started without one."""

    name: str
    version: str | None
    digest: str
    is_default: bool = False


class Owner(Struct, frozen=True):
    """The worker that holds a hub."""

    process_id: int
    host: str
    since: int

    def __str__(self) -> str:
        return f"process {self.process_id} on {self.host}"


def id_taken(instance_id: str, status: Status) -> InstanceExistsError:
    """Why an instance cannot begin under the id."""
    return InstanceExistsError(f"instance '{instance_id}' exists already, with status {status}")


def moved_on(instance_id: str) -> InvalidStateError:
    """Why nothing can be built on what was read of the instance."""
    return InvalidStateError(f"instance '{instance_id}' has moved on since it was read")


_LETTERS: dict[Order, str] = {"created": "c", "completed": "e", "id": "i"}


def cursor_of(order: Order, place: Place) -> str:
    """The text that stands for the place in a listing of that order."""
    return f"{_LETTERS[order]}{place.at}" if order == "id" else f"{_LETTERS[order]}{place.at}.{place.key}"


def place_of(cursor: str, order: Order) -> Place:
    """The place that a page's cursor stands for, in a listing of that order.

    Raises:
        InvalidArgumentError: it is none, or one of a listing in another order.
    """
    if isinstance(cursor, str) and cursor[:1] == _LETTERS[order] and cursor[1:] and is_unicode(cursor):
        if order == "id":
            return Place(cursor[1:], 0)
        at, _, key = cursor[1:].partition(".")
        if _is_number(at) and _is_number(key):
            return Place(int(at), int(key))
    raise InvalidArgumentError(
        f"cursor is {cursor!r:.80}; pass what the page before gave as its `cursor`, with the same filter"
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _POSITION_MAX


def end_of_prefix(prefix: str) -> str | None:
    """The least text above all that begin with the prefix; None where there is none."""
    stem = prefix.rstrip(chr(sys.maxunicode))
    if not stem:
        return None
    last = ord(stem[-1])
    return stem[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)  # between them are no characters


def why_it_stays(instance_id: str, status: Status, *, owes: bool) -> InvalidStateError | None:
    """Why the instance cannot be purged; None where it can."""
    if not status.is_finished:
        return InvalidStateError(f"instance '{instance_id}' is {status}: only one that has finished can be purged")
    if owes:
        return InvalidStateError(
            f"instance '{instance_id}' has finished, with status {status}, but an activity that it scheduled last has not had its run: "
            "it can be purged after that"
        )
    return None


class Store(Protocol):
    """The port. Every method may raise `StoreError`; none leaves anything half-done."""

    @property
    def url(self) -> str:
        """The store's address, as messages show it."""
        ...

    async def open(self) -> None:
        """The store can be used. Creates it where it is not there; brings one of an older version up to date, as a whole or not at all.

        Raises:
            NotAHubError, NewerSchemaError, StoreCorruptError, StoreReadOnlyError, StoreFullError, StoreUnavailableError: nothing was changed.
        """
        ...

    async def close(self) -> None:
        """Nothing is open any more; a hub that was acquired is released. Safe to call twice; until it is opened again, every other use is a
        `StoreUnavailableError`."""
        ...

    async def acquire(self, owner: Owner, *, by_force: bool = False) -> int:
        """This store object owns the hub, under the epoch returned. A crash of the process releases it at once.

        Where the owner before died, what was in flight is under one more suspicion, in the same transaction (`core/suspicion.py`).
        `by_force` the hub is taken from another owner, which writes nothing any more; nobody is under suspicion for that.

        Raises:
            HubOwnedError: another one owns it, or this one does already; the message names it.
            StoreBusyError: the owner stands in the middle of a write, and no force takes that from it.
        """
        ...

    async def confirm(self, epoch: int) -> None:
        """The epoch is the hub's.

        Raises:
            LeaseLostError: it is another; the message names who has the hub now.
        """
        ...

    async def release(self) -> None:
        """The hub has no owner, where it was this one. The worker's writes are over."""
        ...

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        """The group is durable: see the module's head. One outcome for each operation, in order.

        Raises:
            LeaseLostError: the epoch is not the hub's; nothing was written.
            StoreFullError, StoreBusyError, StoreReadOnlyError, StoreCorruptError, StoreUnavailableError: nothing was written.
        """
        ...

    async def transact(self, wanted: Transact, epoch: int) -> Delivery | None:
        """The activity has run once and for all: what it wrote, a mark that it has run, and its result in its execution's inbox are one transaction.

        Returns the result's delivery; None where it did not run, having run before or being wanted no more, or where an ended execution owed it
        that has not failed: one that has may be rewound, and then has a use for it.
        Wanted is what the present, open execution asked for, or what the row still owes for an ended one. While it runs nothing else is written.

        Raises:
            Raised: the activity has failed, took too long, or did what is forbidden: nothing was written.
            LeaseLostError: the epoch is not the hub's; nothing was written.
        """
        ...

    async def load(self, instance_ids: Sequence[str]) -> list[Loaded]:
        """The instances with their present history and inbox, in the order asked for, each once; those that do not exist are left out.

        Of large payloads it has those that a replay and the next episode need.
        """
        ...

    async def load_whole(self, instance_id: str) -> Loaded | None:
        """As `load`, for one instance, with all large payloads; None where there is none."""
        ...

    async def get(self, instance_id: str) -> InstanceRecord | None:
        """The instance's row; None where there is none. Large payloads in it are references."""
        ...

    async def page(
        self, wanted: InstanceFilter, limit: int, cursor: str | None = None, latest_first: bool = False
    ) -> Page:
        """At most `limit` instances that fit, where there are any, in the order that the filter has (`order`), from where `cursor` says.

        One that is replaced while its listing is read moves to the end, and may be met twice; none is passed over that was there before.

        Raises:
            InvalidArgumentError: the cursor is none that a page gave for such a filter.
        """
        ...

    async def count(self, wanted: InstanceFilter, by: Grouping | None = None) -> dict[str, int]:
        """How many instances fit, by status or by name; without `by`, under the one key "". What there is none of is left out."""
        ...

    async def waiting(self, instance_id: str | None, limit: int = 1_000) -> list[Waiting]:
        """The messages that stand in the instance's inbox, or, with None, in any: the oldest first."""
        ...

    async def owner(self) -> Owner | None:
        """Whose worker has the hub now; None where nobody has it, also where its worker has died."""
        ...

    async def condition(self, is_thorough: bool = False) -> Condition:
        """How the store itself is; where the look `is_thorough` all of it is read and checked."""
        ...

    async def history(
        self, instance_id: str, execution_id: str | None = None, *, is_opened: bool = False
    ) -> list[bytes]:
        """The pieces of an execution (the present one without an id), its start first; empty where there is none.

        Raises:
            SealedError: it is to be `is_opened`, and a value is sealed with a key that is not at hand.
        """
        ...

    async def fetch(self, references: Sequence[bytes]) -> list[bytes]:
        """The payloads that the references stand for, in their order.

        Raises:
            StoreCorruptError: one is not there, or has other bytes than the reference says.
            SealedError: one is sealed, and the key is not at hand.
        """
        ...

    async def executions(self, instance_id: str) -> list[str]:
        """The ids of the instance's executions, oldest first, the present one last; empty where there is no such instance."""
        ...

    async def wakes(self, after: tuple[int, int] | None, limit: int) -> list[Wake]:
        """The instances that want to be looked at, in order of time, from where `after` says."""
        ...

    async def arrived(self, after: int, limit: int) -> list[Delivery]:
        """The messages with a number above `after`, in order."""
        ...

    async def children(self, parent_ids: Sequence[str], limit: int) -> list[Finished]:
        """At most `limit` of the instances that these have started, that have finished and owe nothing: one parent's after the other's, the
        eldest first."""
        ...

    async def ended(self, status: Status, before: int, limit: int) -> list[Finished]:
        """The instances that finished before that time with that status and owe nothing, those that finished first before the others. Of a tree
        the leaves come first: one that has started another that is still there is left out."""
        ...

    async def long_pasts(self, keep: int, after: int, limit: int) -> tuple[list[str], int | None]:
        """Of the next `limit` instances with a past execution, the ids of those that have more than `keep`; and where to read on, from 0 at first."""
        ...

    async def footprint(self) -> Footprint:
        """How large the hub is, and how much in it has finished."""
        ...

    async def served(self) -> list[Served]:
        """What was kept last of the code that workers serve."""
        ...

    async def open_versions(self) -> list[tuple[str, str | None]]:
        """The names and versions that instances which have not finished bear, sorted. Their number is what it costs, not that of the instances."""
        ...

    async def count_open(self, name: str, version: str | None) -> int:
        """How many instances of the name and version have not finished."""
        ...

    async def keep_served(self, served: Sequence[Served], epoch: int) -> None:
        """This is kept in the place of what was kept of the same names. Only the owner may.

        Raises:
            LeaseLostError: the epoch is not the hub's; nothing was written.
        """
        ...

    async def suspects(self) -> list[Suspect]:
        """The instances that are held: they may have killed the workers before, and run only while they are watched."""
        ...

    async def suspect(self, found: Mapping[str, Suspicion | None], epoch: int) -> None:
        """That is what is held against these, of those that were held; None is nothing any more.

        Raises:
            LeaseLostError: the epoch is not the hub's; nothing was written.
        """
        ...

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """`changed` is called, in the event loop, within 100 ms after somebody has written through another store object; it is a hint, and may
        come for nothing.

        Returns what ends the subscription.
        """
        ...
