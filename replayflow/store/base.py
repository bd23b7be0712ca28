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

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from replayflow.core.instance import Status
from replayflow.core.suspicion import Suspicion
from replayflow.store.filters import (
    Grouping,
    InstanceFilter,
    Order,
    Page,
    Place,
    cursor_of,
    end_of_prefix,
    place_of,
)
from replayflow.store.operations import (
    ACCEPTED,
    EXECUTIONS_PER_TRIM,
    MICROSECONDS_PER_DAY,
    Branch,
    Branched,
    Create,
    Delivery,
    OnExisting,
    Operation,
    Outcome,
    Park,
    Post,
    Purge,
    PurgeCause,
    Raised,
    Seen,
    Transact,
    Trim,
    id_taken,
    moved_on,
    why_it_stays,
)
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

__all__ = [
    "ACCEPTED",
    "EXECUTIONS_PER_TRIM",
    "MICROSECONDS_PER_DAY",
    "Branch",
    "Branched",
    "Condition",
    "Create",
    "Delivery",
    "Finished",
    "Footprint",
    "Grouping",
    "InstanceFilter",
    "InstanceRecord",
    "Loaded",
    "Lost",
    "OnExisting",
    "Operation",
    "Order",
    "Outcome",
    "Owner",
    "Page",
    "Park",
    "Place",
    "Post",
    "Purge",
    "PurgeCause",
    "Raised",
    "Seen",
    "Served",
    "Store",
    "Suspect",
    "Transact",
    "Trim",
    "Unread",
    "Waiting",
    "Wake",
    "cursor_of",
    "end_of_prefix",
    "id_taken",
    "moved_on",
    "place_of",
    "why_it_stays",
]


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

    async def remove_damaged(self, instance_id: str, at: int, unread: Unread | None = None) -> Lost:
        """The instance, which does not read back as it was written, is no more, with all that is kept of it; of others nothing is touched.

        Whatever its status is. `unread` says who could make no sense of it: it counts as damaged then, where nothing has come to it since.
        `at` is for the hub's count of what was purged. Returns what went.

        Raises:
            InstanceNotFoundError: there is none, by the index of ids or in the rows.
            InvalidStateError: it is sound.
            StoreCorruptError: it cannot be taken out without touching others. Nothing was changed.
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
