"""Sealed values in a store: nothing of them is in the file, they open for who has the key, and whoever has not is told."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replayflow.codec.reference import is_reference
from replayflow.codec.sealed import UNREADABLE, is_sealed
from replayflow.core import events, rows
from replayflow.core.commit import RowState
from replayflow.core.events import (
    CustomStatusSet,
    EventRaised,
    ExecutionStarted,
    HistoryEvent,
    MapItemFailed,
    MapProgress,
    OrchestratorStarted,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
)
from replayflow.core.instance import Status
from replayflow.errors import CipherError, FailureDetails, InvalidArgumentError, SealedError
from replayflow.store import MemoryStore, SqliteStore, Store, store_at
from replayflow.store.base import Create, Park, Post
from replayflow.store.sqlite import records, sums
from tests.ciphers import ToyCipher
from tests.store.builders import accepted, commit, contents_of, message, record, start

SECRET = b"\xc4the secret"
LARGE = b"\xc4the secret" * 100
FAILURE = FailureDetails(
    "ValueError", "the secret", "the secret", FailureDetails("KeyError", "the secret"), bases=("builtins.ValueError",)
)
HISTORY = [
    OrchestratorStarted(1),
    TaskScheduled(1, "f", SECRET),
    TaskCompleted(1, LARGE),
    TaskFailed(2, FAILURE),
    MapProgress(3, [1], [SECRET], [MapItemFailed(0, 1, FAILURE)]),
]


def opened_store(kind: str, path: Path, cipher: ToyCipher | None) -> Store:
    return MemoryStore(cipher=cipher) if kind == "memory" else SqliteStore(path, large_over_bytes=100, cipher=cipher)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Store]:
    store = opened_store(request.param, path, ToyCipher())
    await store.open()
    yield store
    await store.close()


async def seen_with(store: Store, cipher: ToyCipher | None) -> Store:
    """The same hub, seen by somebody who has other keys."""
    if isinstance(store, MemoryStore):
        other = MemoryStore(cipher=cipher)
        other._instances, other._contents, other._is_open = store._instances, store._contents, True
        return other
    assert isinstance(store, SqliteStore)
    client = SqliteStore(store.path, cipher=cipher)
    await client.open()
    return client


def begins(id: str = "a", input: bytes | None = SECRET) -> Create:
    return Create(start(id, event=events.encode([ExecutionStarted("order", input, id, "x1")])))


def ended(status: Status = Status.COMPLETED, output: bytes = SECRET) -> RowState:
    return RowState(status, None, custom_status=SECRET, output=output, failure=rows.encode_failure(FAILURE))


async def filled(store: Store) -> None:
    """An instance that has a secret in every place."""
    chunk = events.encode(HISTORY)
    posted = Post(message("a", events.encode([EventRaised("e", SECRET)])))
    await accepted(store, begins(), posted, commit(chunk=chunk), Park("a", "x1", b"the secret"))


async def test_nothing_of_a_value_is_in_the_file(path: Path) -> None:
    store = SqliteStore(path, large_over_bytes=100, cipher=ToyCipher())
    await store.open()
    await filled(store)
    await accepted(store, begins("b"), commit("b", state=ended(), chunk=events.encode(HISTORY)))
    assert (await contents_of(store)).kept
    written = b"".join(file.read_bytes() for file in path.parent.glob("hub.db*"))
    assert b"order" in written
    assert b"the secret" not in written
    await store.close()


async def test_who_has_the_key_sees_no_difference(store: Store) -> None:
    await filled(store)
    [loaded] = await store.load(["a"])
    [piece] = events.decode_pieces(loaded.pieces, loaded.piece_count)
    opened: list[HistoryEvent] = list(piece)
    assert opened[2:] == HISTORY[2:]
    assert loaded.problem is None
    assert loaded.record.problem == b"the secret"
    assert await store.history("a") == [begins().start.event, events.encode(HISTORY)]
    assert events.encode([EventRaised("e", SECRET)]) in [delivery.event for delivery in await store.arrived(0, 9)]
    await accepted(store, begins("b"), commit("b", state=ended(), chunk=events.encode(HISTORY)))
    row = await record(store, "b")
    assert (row.output, row.custom_status) == (SECRET, SECRET)
    assert row.failure is not None
    assert rows.decode_failure(row.failure) == FAILURE


@pytest.mark.parametrize(
    "cipher", [None, ToyCipher("another"), ToyCipher(secret=b"wrong")], ids=["no", "other", "wrong"]
)
async def test_who_has_not_the_key_is_told_and_sees_what_is_no_secret(store: Store, cipher: ToyCipher | None) -> None:
    await filled(store)
    other = await seen_with(store, cipher)
    [loaded] = await other.load(["a"])
    assert isinstance(loaded.problem, SealedError)
    assert "key 'k1'" in str(loaded.problem)
    assert "the secret" not in str(loaded.problem)
    [piece] = events.decode_pieces(loaded.pieces, loaded.piece_count)
    [_, scheduled, _, failed, progress] = piece
    assert isinstance(scheduled, TaskScheduled)
    assert isinstance(failed, TaskFailed)
    assert isinstance(progress, MapProgress)
    assert (scheduled.name, is_sealed(scheduled.input)) == ("f", True)
    assert (failed.failure_details.type, failed.failure_details.message) == ("ValueError", UNREADABLE)
    assert failed.failure_details.inner is not None
    assert failed.failure_details.inner.message == UNREADABLE
    assert progress.failures[0].failure_details.stack == UNREADABLE
    row = await record(other)
    assert (row.name, row.problem) == ("order", UNREADABLE.encode())
    assert [delivery.is_sealed for delivery in await other.arrived(0, 9) if delivery.event is not None] == [True]
    await other.close()


async def test_what_is_out_of_line_needs_the_key_too(store: Store) -> None:
    await accepted(store, begins("a"), commit(state=ended(output=LARGE), chunk=events.encode(HISTORY)))
    output = (await record(store)).output
    if isinstance(store, SqliteStore):
        assert is_reference(output)
        assert output is not None
        assert await store.fetch([output]) == [LARGE]
        other = await seen_with(store, None)
        with pytest.raises(SealedError, match="key 'k1'"):
            await other.fetch([output])
        await other.close()


def move_start(connection: sqlite3.Connection) -> None:
    """The start of `a` stands in the row of `b`, with sums that fit: by somebody who knows them, and not by accident."""
    [(start,)] = connection.execute("SELECT start FROM instance WHERE id = 'a'")
    [row] = records.rows(connection, "record", ("b",))
    start_sum = sums.of_start(start, row[sums.KEY], *row[:4], row[8], row[16], row[17], 0)
    shown = sums.of_shown(start_sum, row[4], row[7], *[None] * 6, 0)
    connection.execute(
        "UPDATE instance SET start = ?, start_sum = ?, sum = ? WHERE id = 'b'", (start, start_sum, shown)
    )


async def test_a_value_opens_only_where_it_was_sealed(path: Path) -> None:
    store = SqliteStore(path, cipher=ToyCipher())
    await store.open()
    await accepted(store, begins("a"), begins("b", b"\xc4other"))
    await store._write(move_start)
    [a, b] = await store.load(["a", "b"])
    assert a.problem is None
    assert "does not open" in str(b.problem)
    await store.close()


async def test_equal_large_values_cannot_be_told_from_what_is_kept(path: Path) -> None:
    store = SqliteStore(path, large_over_bytes=100, cipher=ToyCipher())
    await store.open()
    await accepted(store, begins("a", LARGE), begins("b", LARGE))
    assert len((await contents_of(store)).kept) == 2
    chunk = events.encode([OrchestratorStarted(1), TaskCompleted(1, LARGE)])
    await accepted(store, begins("c", None), commit("c", chunk=chunk, state=ended(output=LARGE)))
    assert len((await contents_of(store)).kept) == 3  # in its row and in its history it is the same
    await store.close()


async def test_a_large_value_that_a_row_shows_again_is_not_sealed_again(path: Path) -> None:
    store = SqliteStore(path, large_over_bytes=100, cipher=ToyCipher())
    await store.open()
    told = events.encode([OrchestratorStarted(1), CustomStatusSet(LARGE)])
    await accepted(store, begins(), commit(chunk=told, state=RowState(Status.RUNNING, 0, LARGE)))
    for n in range(2, 6):
        waits = RowState(Status.RUNNING, n, LARGE)
        await accepted(store, commit(sequence=n, chunk=events.encode([OrchestratorStarted(n)]), state=waits))
    orphans = events.encode([TaskScheduled(7, "f", LARGE + b"7")])
    for n, owed in enumerate([orphans, orphans, None], 6):
        over = RowState(Status.COMPLETED, 0, LARGE, LARGE[:-1], None, 1, owed)
        await accepted(store, commit(sequence=n, chunk=events.encode([OrchestratorStarted(n)]), state=over))
    found = await contents_of(store)
    assert len(found.kept) == 3  # status, output, and what an orphan was given
    row = await record(store)
    assert [await store.fetch([one]) for one in (row.custom_status, row.output) if one] == [[LARGE], [LARGE[:-1]]]
    await store.close()


async def test_a_next_execution_has_the_large_status_that_the_row_shows(path: Path) -> None:
    store = SqliteStore(path, large_over_bytes=100, cipher=ToyCipher())
    await store.open()
    told = events.encode([OrchestratorStarted(1), CustomStatusSet(LARGE)])
    await accepted(store, begins(), commit(chunk=told, state=RowState(Status.RUNNING, 0, LARGE)))
    carried = [ExecutionStarted("order", None, "a", "x2"), CustomStatusSet(LARGE)]
    ends = commit(
        sequence=2,
        chunk=events.encode([OrchestratorStarted(2)]),
        state=RowState(Status.CONTINUED_AS_NEW, None, LARGE),
        next_start=start("a", "x2", event=events.encode(carried)),
    )
    await accepted(store, ends)
    shown = RowState(Status.RUNNING, 0, LARGE)
    await accepted(store, commit("a", "x2", 4, chunk=events.encode([OrchestratorStarted(4)]), state=shown))
    found = await contents_of(store)
    assert found.kept == found.referred_to
    assert len(found.kept) == 1
    await store.close()


async def test_a_large_value_that_cannot_be_opened_is_sealed_anew(path: Path) -> None:
    store = SqliteStore(path, large_over_bytes=100, cipher=ToyCipher())
    await store.open()
    shown = RowState(Status.RUNNING, 0, LARGE)
    await accepted(store, begins(), commit(chunk=events.encode([OrchestratorStarted(1)]), state=shown))
    await store.close()
    store = SqliteStore(path, large_over_bytes=100, cipher=ToyCipher("k2"))
    await store.open()
    await accepted(store, commit(sequence=2, chunk=events.encode([OrchestratorStarted(2)]), state=shown))
    now = (await record(store)).custom_status
    assert now is not None
    assert await store.fetch([now]) == [LARGE]
    await store.close()


async def test_the_newest_key_seals_and_all_open(store: Store) -> None:
    await accepted(store, begins("old"))
    both = await seen_with(store, ToyCipher("k1", "k2"))
    await accepted(both, begins("new"))
    if isinstance(both, MemoryStore) and isinstance(store, MemoryStore):
        store._instances = both._instances
    assert [one.problem for one in await both.load(["old", "new"])] == [None, None]
    new = await seen_with(store, ToyCipher("k2"))
    old_problem, new_problem = [one.problem for one in await new.load(["old", "new"])]
    assert "'k1'" in str(old_problem)
    assert new_problem is None
    for one in (both, new):
        await one.close()


async def test_what_was_there_before_the_cipher_is_read(path: Path) -> None:
    plain = SqliteStore(path)
    await plain.open()
    await accepted(plain, begins("a"))
    await plain.close()
    store = SqliteStore(path, cipher=ToyCipher())
    await store.open()
    [loaded] = await store.load(["a"])
    assert (loaded.problem, loaded.record.start) == (None, begins("a").start.event)
    await store.close()


async def test_a_cipher_that_fails_writes_nothing(path: Path) -> None:
    class Broken(ToyCipher):
        def seal(self, content: bytes, context: bytes) -> tuple[str, bytes]:
            raise ConnectionError(f"the vault did not answer for {content!r}")

    store = SqliteStore(path, cipher=Broken())
    await store.open()
    with pytest.raises(CipherError, match="failed to seal: ConnectionError") as failed:
        await store.write([begins()])
    assert "the secret" not in str(failed.value)
    assert await store.get("a") is None
    await store.close()


def test_what_is_no_cipher_is_refused(path: Path) -> None:
    for no_cipher in (b"key", ToyCipher, object()):
        with pytest.raises(CipherError, match="`seal` and `open`"):
            SqliteStore(path, cipher=no_cipher)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="cipher is given beside a store object"):
        store_at(MemoryStore(), cipher=ToyCipher())


async def test_a_message_that_waits_is_opened_for_who_has_the_key(store: Store) -> None:
    told = events.encode([EventRaised("go", SECRET)])
    await accepted(store, begins(), Post(message("a", told)))
    assert [one.event for one in await store.waiting("a")] == [None, told]
    [_, seen] = await (await seen_with(store, None)).waiting("a")
    assert seen.event is not None
    assert seen.event != told
    assert SECRET not in seen.event
