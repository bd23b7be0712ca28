"""Large payloads in a store: kept once, for as long as something refers to them, and read where they are needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from replayflow.codec.reference import digest_of, is_reference, reference_to
from replayflow.core import events
from replayflow.core.commit import Commit, RowState
from replayflow.core.events import (
    CustomStatusSet,
    EventRaised,
    ExecutionStarted,
    HistoryEvent,
    OrchestratorStarted,
    TaskCompleted,
    TaskScheduled,
)
from replayflow.core.instance import Status
from replayflow.errors import InvalidArgumentError, StoreCorruptError
from replayflow.store import MemoryStore, SqliteStore, Store, store_at
from replayflow.store.base import Create, Post
from replayflow.store.incoming import Incoming
from replayflow.store.outgoing import references_in
from replayflow.store.sqlite import contents
from tests.store.builders import accepted, commit, contents_of, create, message, one, record, refusals, start

LIMIT = 100
LARGE = b"\xc4" + b"x" * 500
OTHER = b"\xc4" + b"y" * 500


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Store]:
    store: Store = (
        MemoryStore(large_over_bytes=LIMIT) if request.param == "memory" else SqliteStore(path, large_over_bytes=LIMIT)
    )
    await store.open()
    yield store
    await store.close()


def piece(*facts: HistoryEvent) -> bytes:
    return events.encode([OrchestratorStarted(1), *facts])


def begins(id: str = "a", input: bytes | None = LARGE, execution: str = "x1") -> Create:
    return Create(start(id, execution, event=events.encode([ExecutionStarted("order", input, id, execution)])))


def raised(payload: bytes) -> bytes:
    return events.encode([EventRaised("e", payload)])


async def kept(store: Store) -> set[bytes]:
    found = await contents_of(store)
    assert found.kept == found.referred_to
    return found.kept


def digests(*contents: bytes) -> set[bytes]:
    return {digest_of(reference_to(content)) for content in contents}


async def test_the_same_bytes_are_kept_once(store: Store) -> None:
    ended = RowState(Status.COMPLETED, None, custom_status=LARGE, output=LARGE)
    await accepted(
        store,
        begins("a"),
        begins("b"),
        Post(message("a", raised(LARGE))),
        commit("b", chunk=piece(TaskCompleted(1, LARGE)), state=ended),
    )
    assert await kept(store) == digests(LARGE)


async def test_up_to_the_limit_a_payload_stays_where_it_is(store: Store) -> None:
    await accepted(store, begins("a", b"x" * LIMIT))
    assert await kept(store) == set()
    await accepted(store, begins("b", b"x" * (LIMIT + 1)))
    assert await kept(store) == digests(b"x" * (LIMIT + 1))


async def test_a_row_has_references_and_fetch_what_they_stand_for(store: Store) -> None:
    ended = RowState(Status.COMPLETED, None, custom_status=OTHER, output=LARGE)
    await accepted(store, begins(), commit(chunk=piece(), state=ended))
    row = await record(store)
    assert (row.output, row.custom_status) == (reference_to(LARGE), reference_to(OTHER))
    assert references_in(row.start) == {reference_to(LARGE)}
    assert await store.fetch([reference_to(OTHER), reference_to(LARGE), reference_to(OTHER)]) == [OTHER, LARGE, OTHER]


async def test_what_nobody_keeps_cannot_be_fetched(store: Store) -> None:
    with pytest.raises(StoreCorruptError, match="missing"):
        await store.fetch([reference_to(LARGE)])


async def test_what_is_told_of_a_write_is_whole(store: Store) -> None:
    begun, posted = await accepted(store, begins(), Post(message("a", raised(OTHER))))
    assert begun.started[0].event == begins().start.event
    assert [delivery.event for delivery in posted.deliveries] == [raised(OTHER)]
    assert raised(OTHER) in [delivery.event for delivery in await store.arrived(0, 10)]


async def test_history_is_whole(store: Store) -> None:
    chunk = piece(TaskScheduled(1, "f", LARGE), CustomStatusSet(OTHER))
    await accepted(store, begins(), commit(chunk=chunk))
    assert await store.history("a") == [begins().start.event, chunk]


async def test_a_message_that_waits_is_whole(store: Store) -> None:
    await accepted(store, begins(), Post(message("a", raised(LARGE))))
    assert [one.event for one in await store.waiting("a")] == [None, raised(LARGE)]


async def test_load_reads_what_a_replay_needs_and_leaves_what_is_used_up(store: Store) -> None:
    first = piece(TaskScheduled(1, "f", LARGE), TaskScheduled(2, "f", OTHER), CustomStatusSet(LARGE))
    second = piece(TaskCompleted(1, OTHER), CustomStatusSet(OTHER))
    await accepted(store, begins(), commit(sequence=1, chunk=first), commit(sequence=2, chunk=second))
    [loaded] = await store.load(["a"])
    (_, done, open_, status), (_, result, last) = events.decode_pieces(loaded.pieces, loaded.piece_count)
    assert isinstance(done, TaskScheduled)
    assert is_reference(done.input)
    assert open_ == TaskScheduled(2, "f", OTHER)
    assert isinstance(status, CustomStatusSet)
    assert is_reference(status.custom_status)
    assert (result, last) == (TaskCompleted(1, OTHER), CustomStatusSet(OTHER))
    assert loaded.record.start == begins().start.event
    whole = await store.load_whole("a")
    assert whole is not None
    assert whole.pieces == first + second


async def test_of_a_finished_instance_load_reads_nothing(store: Store) -> None:
    chunk = piece(TaskCompleted(1, LARGE))
    await accepted(store, begins(), commit(chunk=chunk, state=RowState(Status.COMPLETED, None, output=LARGE)))
    [loaded] = await store.load(["a"])
    assert references_in(loaded.record.start)
    assert LARGE not in loaded.pieces
    whole = await store.load_whole("a")
    assert whole is not None
    assert (whole.record.start, whole.pieces) == (begins().start.event, chunk)
    assert await store.load_whole("unknown") is None


async def test_a_message_that_was_consumed_refers_to_nothing(store: Store) -> None:
    _, posted = await accepted(store, begins(input=None), Post(message("a", raised(LARGE))))
    assert await kept(store) == digests(LARGE)
    numbers = [delivery.number for delivery in posted.deliveries]
    await accepted(store, commit(chunk=piece(), consumed=numbers))
    assert await kept(store) == set()


async def test_a_message_that_becomes_history_is_kept_on(store: Store) -> None:
    _, posted = await accepted(store, begins(input=None), Post(message("a", raised(LARGE))))
    numbers = [delivery.number for delivery in posted.deliveries]
    await accepted(store, commit(chunk=piece(EventRaised("e", LARGE)), consumed=numbers))
    assert await kept(store) == digests(LARGE)


async def test_the_last_reference_takes_the_content_with_it(store: Store) -> None:
    await accepted(store, begins("a"), begins("b"))
    for id, left in (("a", digests(LARGE)), ("b", set())):
        [loaded] = await store.load([id])
        nudges = [delivery.number for delivery in loaded.inbox]
        await accepted(store, replace(commit(id, chunk=piece(), consumed=nudges), removes=True))
        assert await store.get(id) is None
        assert await kept(store) == left


async def test_what_was_referred_to_in_a_forgotten_past_goes(store: Store) -> None:
    going_on = RowState(Status.CONTINUED_AS_NEW, None)

    def snapshot(execution: str, number: int, following: str) -> Commit:
        next_start = begins(input=None, execution=following).start
        ends = commit("a", execution, number, chunk=piece(), state=going_on, next_start=next_start)
        return replace(ends, past_kept=1)

    await accepted(store, begins(input=LARGE), commit(sequence=1, chunk=piece(TaskCompleted(1, OTHER))))
    await accepted(store, snapshot("x1", 2, "x2"))
    assert await kept(store) == digests(LARGE, OTHER)  # of the execution that has just ended all is there
    await accepted(store, snapshot("x2", 4, "x3"))
    assert await kept(store) == set()


async def test_a_refused_operation_leaves_nothing(store: Store) -> None:
    bad = Create(start("b\0", event=raised(LARGE)))
    late = commit(sequence=7, chunk=piece(TaskCompleted(1, OTHER)))
    outcomes = await store.write([begins(input=None), bad, late, Post(message("unknown", raised(LARGE)))])
    assert [outcome.error is None for outcome in outcomes] == [True, False, False, False]
    assert await kept(store) == set()


async def test_a_message_to_nobody_leaves_nothing(store: Store) -> None:
    await accepted(store, begins(input=None), commit(chunk=piece(), messages=[message("nobody", raised(LARGE))]))
    assert await kept(store) == set()


async def test_a_reference_can_be_passed_on(store: Store) -> None:
    await accepted(store, begins("a"))
    passed_on = begins("b", reference_to(LARGE))
    [outcome] = await accepted(store, passed_on)
    assert outcome.started[0].event == begins("b").start.event
    assert (await store.history("b"))[0] == begins("b").start.event
    assert await kept(store) == digests(LARGE)


async def test_a_reference_to_what_is_gone_is_refused_alone(store: Store) -> None:
    outcomes = await store.write([begins("a", reference_to(LARGE)), create("b")])
    assert refusals(outcomes) == [InvalidArgumentError, None]
    assert await store.get("a") is None


async def test_values_that_spell_references_are_values(store: Store) -> None:
    forged = b"\xc4\x2a" + reference_to(LARGE)  # as msgpack has bytes
    await accepted(store, begins("a", forged), Post(message("a", raised(forged))))
    assert await kept(store) == set()
    assert (await store.history("a"))[0] == begins("a", forged).start.event


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "1"])
def test_a_limit_that_is_none_is_refused(limit: int, path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="large_over_bytes"):
        SqliteStore(path, large_over_bytes=limit)
    with pytest.raises(InvalidArgumentError, match="large_over_bytes"):
        MemoryStore(large_over_bytes=limit)


def test_a_store_object_has_its_own_limit() -> None:
    with pytest.raises(InvalidArgumentError, match="beside a store object"):
        store_at(MemoryStore(), large_over_bytes=10)


async def test_filling_undoes_what_a_store_made_of_it(store: Store) -> None:
    chunk = piece(TaskScheduled(1, "f", LARGE), TaskCompleted(1, OTHER))
    await accepted(store, begins(), commit(chunk=chunk))
    if isinstance(store, SqliteStore):
        [stored] = await store._read(lambda c: c.execute("SELECT events FROM history").fetchone())
        assert len(stored) < 200
        assert await store._read(lambda c: Incoming(partial(contents.fetch, c), None).events(stored, "a")) == chunk


async def test_a_write_that_breaks_off_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(path, large_over_bytes=LIMIT)
    await store.open()
    keep = contents.keep

    def breaks_off(connection: object, outgoing: object) -> None:
        keep(connection, outgoing)  # type: ignore[arg-type]
        raise OSError("the power is gone")

    monkeypatch.setattr(contents, "keep", breaks_off)
    with pytest.raises(OSError, match="power"):
        await one(store, begins())
    assert await kept(store) == set()
    monkeypatch.setattr(contents, "keep", keep)
    await accepted(store, begins())
    assert await kept(store) == digests(LARGE)
    await store.close()


async def test_damage_of_a_content_is_told_of_and_spreads_to_nobody(path: Path) -> None:
    store = SqliteStore(path, large_over_bytes=LIMIT)
    await store.open()
    posted = Post(message("a", raised(LARGE)))
    await accepted(store, begins("a", LARGE), begins("b", OTHER), posted, Post(message("b", raised(OTHER))))
    digest = digest_of(reference_to(LARGE))
    await store._write(lambda c: c.execute("UPDATE payload SET content = x'00' WHERE digest = ?", (digest,)).rowcount)
    with pytest.raises(StoreCorruptError, match="damaged"):
        await store.load(["a"])
    arrived = {delivery.instance_id: delivery for delivery in await store.arrived(0, 9) if delivery.event is not None}
    assert arrived["a"].is_sealed
    assert (arrived["b"].is_sealed, arrived["b"].event) == (False, raised(OTHER))
    assert [loaded.record.start for loaded in await store.load(["b"])] == [begins("b", OTHER).start.event]
    await store.close()
