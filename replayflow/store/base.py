"""The store port: durable state as the engine and its clients see it. What a store promises is said here, and tested by one suite for all.

A store holds *instances* (a row each: what status shows), their *history* (numbered pieces, append-only, I10), an *inbox* (messages that no
history has yet), and who owns the hub.

**Writing.** All writing is `write(operations)`: one transaction for the whole group (group commit), or none of it. Within the group the operations
are applied in order; each is accepted or refused on its own, with the reason, and a refused one changes nothing (it never drags its neighbours
down). When `write` returns, what it accepted survives any crash (I6). When it raises, a `StoreError`, nothing of the group has happened.

**Ownership.** One worker owns a hub. `acquire` gives it an epoch, larger than any before; writes that carry an epoch other than the present one are
refused as a whole with `LeaseLostError`, and change nothing (I7). Clients write without one: they create, post and read, and never touch an
instance's history or state but to replace one that has finished.

**Messages.** A message gets a number when it is accepted, larger than all before; per receiver they are delivered in that order (I5). It stands in
the inbox until a commit lists it as consumed. One for an instance that is unknown, has finished, or is in another execution than the message asks for
is refused; but where the instance is unknown and the message has a `start`, that begins first, in the same transaction, and the message is its first.

**Text and size.** An operation that cannot be stored is refused alone: text that is no Unicode (a lone surrogate), and an id or a tag with a NUL
character, with `InvalidArgumentError`; a value larger than the store can hold with `PayloadTooLargeError`. Reading by such text finds nothing.

**Pieces of history.** An execution begins with its start event, which the instance's row holds; the pieces that follow are numbered on from
it. When an execution gives way to the next, its start takes its place in the history, and the next one's numbers go on from there. Of an instance
whose commit `forgets_past` the executions before the one that ends are gone then, with their pieces (I10: this is retention).

**Removal.** A commit that `removes` takes its instance out of the store, with its history, keys and all, if after it nothing is left in the inbox;
else the instance stays, as the commit left it. The id is free afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from replayflow.codec import Payload
from replayflow.core.commit import Commit, Message, Start
from replayflow.core.instance import Status
from replayflow.errors import InvalidArgumentError, ReplayflowError

OnExisting = Literal["error", "return", "replace_finished", "terminate_and_replace"]
_CURSOR_DIGITS_MAX = 18  # so that every position fits 64 bits


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
    """

    message: Message
    dedupe_key: str | None = None


class Park(Struct):
    """The execution is set aside with the problem, or, with None, freed again. `messages` are what it had in memory and must not lose."""

    instance_id: str
    execution_id: str
    problem: bytes | None
    messages: list[Message] = []


Operation: TypeAlias = Create | Post | Commit | Park


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


class Page(Struct):
    records: list[InstanceRecord]
    cursor: str | None
    """Where the next page begins; None after the last."""


class Wake(Struct):
    """An instance that wants to be looked at, and when; `position` is where to read on."""

    at: int
    instance_id: str
    position: tuple[int, int]


class Owner(Struct, frozen=True):
    """The worker that holds a hub."""

    process_id: int
    host: str
    since: int

    def __str__(self) -> str:
        return f"process {self.process_id} on {self.host}"


def position_of(cursor: str) -> int:
    """The position that a page's cursor stands for.

    Raises:
        InvalidArgumentError: it is none.
    """
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= _CURSOR_DIGITS_MAX):
        raise InvalidArgumentError(f"cursor is {cursor!r:.80}; pass what the page before gave as its `cursor`")
    return int(cursor)


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

    async def acquire(self, owner: Owner) -> int:
        """This store object owns the hub, under the epoch returned. A crash of the process releases it at once.

        Raises:
            HubOwnedError: another one owns it, or this one does already; the message names it.
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

    async def load(self, instance_ids: Sequence[str]) -> list[Loaded]:
        """The instances with their present history and inbox, in the order asked for, each once; those that do not exist are left out."""
        ...

    async def get(self, instance_id: str) -> InstanceRecord | None:
        """The instance's row; None where there is none."""
        ...

    async def page(self, wanted: InstanceFilter, limit: int, cursor: str | None = None) -> Page:
        """At most `limit` instances, one at least, in the order in which their ids were first created, from where `cursor` says.

        Raises:
            InvalidArgumentError: the cursor is none that a page gave.
        """
        ...

    async def history(self, instance_id: str, execution_id: str | None = None) -> list[bytes]:
        """The pieces of an execution (the present one without an id), its start first; empty where there is none."""
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

    async def code(self) -> dict[str, str]:
        """The digests of the orchestrators' code, by name, that were kept last."""
        ...

    async def keep_code(self, digests: Mapping[str, str], epoch: int) -> None:
        """The digests are kept, beside those of other names. Only the owner may.

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
