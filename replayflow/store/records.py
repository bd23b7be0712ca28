"""What is read: instances as a store has them, and what is known of the store itself."""

from __future__ import annotations

from msgspec import Struct

from replayflow.codec import Payload
from replayflow.core.instance import Status
from replayflow.core.suspicion import Suspicion
from replayflow.errors import SealedError
from replayflow.store.operations import Delivery


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
    """When the last piece that is kept was added, and not before `created_at`."""
    completed_at: int | None = None
    custom_status: Payload = None
    output: Payload = None
    failure: bytes | None = None
    problem: bytes | None = None
    orphans: bytes | None = None
    parent_id: str | None = None
    tags: dict[str, str] | None = None
    progress: bytes | None = None
    damage: str | None = None
    """Why nothing of it can be believed but that it is there; it has no values then. Only a page has such rows."""


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


class Wake(Struct):
    """An instance that wants to be looked at, and when; `position` is where to read on."""

    at: int
    instance_id: str
    position: tuple[int, int]


class Finished(Struct):
    """An instance that has finished and owes nothing: what a purge needs of it."""

    instance_id: str
    execution_id: str


class Unread(Struct, frozen=True):
    """An execution as somebody has found it who could not make sense of it, though it reads back as it was written."""

    execution_id: str
    pieces: int
    """How many pieces of history it had."""
    why: str


class Lost(Struct, frozen=True):
    """What went with a damaged instance, as far as it could be read: none of it can be believed."""

    faults: tuple[str, ...]
    """What was wrong with it, the first few."""
    name: str
    status: str
    pieces: int
    """How many pieces of history, of all its executions."""
    messages: int
    """How many messages it had not taken in."""
    parent_id: str | None
    """Whose child it said it was: that instance may wait for it for ever."""
    children: int
    """How many instances say that it started them: they stay, and tell nobody of their end."""


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
