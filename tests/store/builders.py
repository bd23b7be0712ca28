"""Short ways to write what a store is given, and to ask what it has."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from replayflow.codec import Payload
from replayflow.codec.reference import digest_of
from replayflow.core import events
from replayflow.core.commit import Commit, Message, RowState, Start
from replayflow.core.events import EventRaised
from replayflow.core.instance import Status
from replayflow.errors import ReplayflowError
from replayflow.store import MemoryStore, SqliteStore, Store
from replayflow.store.base import Create, InstanceFilter, InstanceRecord, OnExisting, Operation, Outcome, Owner, Post
from replayflow.store.outgoing import references_in

OWNER = Owner(4711, "somewhere", 17)
EVERYTHING = InstanceFilter()


def start(
    id: str = "a",
    execution: str = "x1",
    *,
    at: int = 1,
    name: str = "order",
    version: str | None = None,
    event: bytes | None = None,
    wake_at: int = 0,
    parent: str | None = None,
    tags: dict[str, str] | None = None,
    if_taken: Message | None = None,
) -> Start:
    event = f"start {id} {execution}".encode(errors="replace") if event is None else event
    return Start(id, execution, name, version, event, at, wake_at, parent_id=parent, tags=tags, if_taken=if_taken)


def create(id: str = "a", execution: str = "x1", on_existing: OnExisting = "error", *, at: int = 1) -> Create:
    new = start(id, execution, at=at)
    return Create(new, on_existing, Message(id, b"replaced by " + new.event, is_control=True))


def message(id: str = "a", event: bytes = b"event", *, execution: str | None = None) -> Message:
    return Message(id, event, execution)


def post(id: str = "a", event: bytes = b"event", key: str | None = None, *, execution: str | None = None) -> Post:
    return Post(message(id, event, execution=execution), key)


def commit(
    id: str = "a",
    execution: str = "x1",
    sequence: int = 1,
    *,
    at: int = 2,
    chunk: bytes | None = b"chunk",
    state: RowState | None = None,
    consumed: Sequence[int] = (),
    starts: Sequence[Start] = (),
    messages: Sequence[Message] = (),
    next_start: Start | None = None,
) -> Commit:
    return Commit(id, execution, sequence, at, chunk, state, list(consumed), list(starts), list(messages), next_start)


def shown(status: Status = Status.RUNNING, wake_at: int | None = None) -> RowState:
    completed_at = 3 if status.is_finished else None
    return RowState(status, wake_at, b"custom", b"output", b"failure", completed_at, b"orphans", b"progress")


def end(id: str = "a", execution: str = "x1", sequence: int = 1, status: Status = Status.COMPLETED) -> Commit:
    return commit(id, execution, sequence, chunk=b"the end", state=shown(status))


async def one(store: Store, operation: Operation, epoch: int | None = None) -> Outcome:
    """The outcome of a group of one."""
    [outcome] = await store.write([operation], epoch)
    return outcome


async def accepted(store: Store, *operations: Operation, epoch: int | None = None) -> list[Outcome]:
    """The outcomes of a group of which nothing is refused."""
    outcomes = await store.write(operations, epoch)
    assert refusals(outcomes) == [None] * len(operations)
    return outcomes


def refusals(outcomes: Sequence[Outcome]) -> list[type[ReplayflowError] | None]:
    return [None if outcome.error is None else type(outcome.error) for outcome in outcomes]


def numbers(outcome: Outcome) -> list[int]:
    return [delivery.number for delivery in outcome.deliveries]


async def lose_patience(store: SqliteStore) -> None:
    """The store's writes wait for others for a moment only."""
    await store._write(lambda connection: connection.execute("PRAGMA busy_timeout = 50").fetchall())


async def record(store: Store, id: str = "a") -> InstanceRecord:
    found = await store.get(id)
    assert found is not None
    return found


async def inbox(store: Store, id: str = "a") -> list[bytes | None]:
    [loaded] = await store.load([id])
    return [delivery.event for delivery in loaded.inbox]


async def all_ids(store: Store, wanted: InstanceFilter = EVERYTHING, limit: int = 1_000) -> list[str]:
    """The ids of all instances that fit, read page by page."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.page(wanted, limit, cursor)
        assert len(page.records) <= limit
        ids += [record.instance_id for record in page.records]
        cursor = page.cursor
        if cursor is None:
            return ids


async def everything(store: Store) -> object:
    """All that can be read of a store: two stores (or moments) that show the same are the same."""
    page = await store.page(EVERYTHING, 10_000)
    ids = [record.instance_id for record in page.records]
    return (
        page.records,
        await store.load(ids),
        [await store.history(id) for id in ids],
        await store.wakes(None, 10_000),
        await store.arrived(0, 10_000),
    )


# ---- large payloads


def encoded_events(*payloads: Payload) -> bytes:
    """An event with each of the payloads."""
    return events.encode([EventRaised("e", payload) for payload in payloads])


class Contents(NamedTuple):
    """Digests of large payloads: of those that are kept, and of those that something refers to."""

    kept: set[bytes]
    referred_to: set[bytes]


async def contents_of(store: Store) -> Contents:
    """What the store keeps out of line."""
    if isinstance(store, MemoryStore):
        referred = {digest_of(r) for kept in store._instances.values() for r in kept.references()}
        return Contents(set(store._contents), referred)
    assert isinstance(store, SqliteStore)
    return await store._read(_contents_in)


def _contents_in(connection: sqlite3.Connection) -> Contents:
    stored = connection.execute(
        "SELECT events FROM history UNION ALL SELECT event FROM inbox UNION ALL SELECT start FROM instance "
        "UNION ALL SELECT custom_status FROM instance UNION ALL SELECT output FROM instance "
        "UNION ALL SELECT orphans FROM instance"
    )
    referred = {digest_of(reference) for (one,) in stored if one is not None for reference in references_in(one)}
    return Contents({digest for (digest,) in connection.execute("SELECT digest FROM payload")}, referred)
