"""Groups that are worked out ahead of their transaction: what is written is what the transaction itself would have come to."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from replayflow.codec import LARGE_OVER_BYTES
from replayflow.core.commit import Commit, RowState, Turn
from replayflow.core.events import TaskCompleted, TaskScheduled
from replayflow.core.instance import Status
from replayflow.errors import InvalidArgumentError, LeaseLostError, StoreFullError, StoreMovedError
from replayflow.store import SqliteStore
from replayflow.store.base import Create, Operation, Outcome
from replayflow.store.sqlite import ahead as ahead_module
from replayflow.store.sqlite import store as store_module
from replayflow.store.sqlite.connection import in_transaction
from tests.store.builders import OWNER, accepted, create, encoded_events, one, post, refusals

AT_WORK = RowState(Status.RUNNING, 0)
LARGE = encoded_events(bytes(2 * LARGE_OVER_BYTES))
ENDED = RowState(Status.COMPLETED, None, None, b"output", completed_at=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, synchronous="NORMAL")
    await store.open()
    yield store
    await store.close()


class Counted:
    """How many groups were worked out ahead, and written so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worked_out = self.written = 0
        work_out, write_ahead = ahead_module.work_out, ahead_module.write_ahead

        def counted_work(*args: Any) -> ahead_module.Ahead | None:
            ahead = work_out(*args)
            self.worked_out += ahead is not None
            return ahead

        def counted_write(*args: Any) -> list[Outcome] | None:
            outcomes = write_ahead(*args)
            self.written += outcomes is not None
            return outcomes

        monkeypatch.setattr(store_module, "work_out", counted_work)
        monkeypatch.setattr(store_module, "write_ahead", counted_write)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def new(id: str) -> Create:
    """A creation under an id that was made up for it."""
    return replace(create(id), has_new_id=True)


def first(id: str) -> Commit:
    return Commit(id, "x1", 1, 2, b"first", AT_WORK)


def turn(id: str, sequence: int, chunk: bytes = b"turn") -> Turn:
    return Turn(id, "x1", sequence, 3, chunk, came=TaskCompleted(1), asked=TaskScheduled(2, "a", None))


def end(id: str, sequence: int) -> Commit:
    return Commit(id, "x1", sequence, 4, b"end", ENDED)


async def begun(store: SqliteStore, *ids: str) -> int:
    """The instances are at work, under the epoch that is returned."""
    epoch = await store.acquire(OWNER)
    await accepted(store, *[operation for id in ids for operation in (new(id), first(id))], epoch=epoch)
    return epoch


def content(path: Path) -> list[tuple[str, list[Any]]]:
    """All rows of all tables."""
    with closing(sqlite3.connect(path)) as connection:
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        ]
        return [(name, sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)) for name in names]


async def chunks(store: SqliteStore, id: str) -> list[bytes]:
    return (await store.history(id, None))[1:]


async def test_what_continues_the_last_group_is_worked_out_ahead(store: SqliteStore, counted: Counted) -> None:
    epoch = await begun(store, "a", "b")
    assert counted.worked_out == 0  # nothing was known of the hub
    await accepted(store, turn("a", 2), turn("b", 2), epoch=epoch)
    await accepted(store, turn("a", 3), end("b", 3), new("c"), first("c"), epoch=epoch)
    assert (counted.worked_out, counted.written) == (2, 2)
    assert await chunks(store, "a") == [b"first", b"turn", b"turn"]
    assert await chunks(store, "b") == [b"first", b"turn", b"end"]
    assert await chunks(store, "c") == [b"first"]


@pytest.mark.parametrize(
    "operation",
    [post("a"), post("a", key="k"), create("z"), turn("unknown", 1), turn("a", 2, LARGE)],
    ids=["a post", "a post with a key", "an id of the caller's", "a stranger", "a large one"],
)
async def test_what_has_to_be_read_is_not_worked_out_ahead(
    store: SqliteStore, counted: Counted, operation: Operation
) -> None:
    epoch = await begun(store, "a", "b")
    outcomes = await store.write([operation, turn("b", 2)], epoch)
    assert counted.written == 0
    assert outcomes[1].error is None
    assert await chunks(store, "b") == [b"first", b"turn"]


async def test_a_refusal_is_the_same_and_changes_nothing(store: SqliteStore, counted: Counted) -> None:
    epoch = await begun(store, "a", "b")
    outcomes = await store.write([turn("a", 7), turn("b", 2), replace(turn("a", 2), execution_id="x9")], epoch)
    assert counted.written == 1
    assert refusals(outcomes) == [LeaseLostError, None, LeaseLostError]
    assert await chunks(store, "a") == [b"first"]
    await accepted(store, turn("a", 2), turn("b", 3), epoch=epoch)


async def test_what_somebody_else_has_written_is_noticed(path: Path, store: SqliteStore, counted: Counted) -> None:
    epoch = await begun(store, "a")
    other = SqliteStore(path, synchronous="NORMAL")
    await other.open()
    await accepted(other, create("theirs"), post("a"))
    await other.close()
    await accepted(store, turn("a", 2), new("mine"), first("mine"), epoch=epoch)
    assert (counted.worked_out, counted.written) == (1, 0)
    assert await chunks(store, "a") == [b"first", b"turn"]
    [loaded] = await store.load(["a"])
    assert [delivery.event for delivery in loaded.inbox] == [b"event"]
    assert await store.get("theirs") is not None
    assert await chunks(store, "mine") == [b"first"]


async def test_a_hub_that_has_another_owner_by_now_is_not_written_to(
    path: Path, store: SqliteStore, counted: Counted
) -> None:
    epoch = await begun(store, "a")
    other = SqliteStore(path, synchronous="NORMAL")
    await other.open()
    await other.acquire(OWNER, by_force=True)
    before = content(path)
    with pytest.raises(LeaseLostError):
        await store.write([turn("a", 2)], epoch)
    assert counted.worked_out == 1
    assert content(path) == before
    await other.close()


async def test_what_cannot_be_stored_is_refused_alone(store: SqliteStore, counted: Counted) -> None:
    epoch = await begun(store, "a", "b")
    outcomes = await store.write([turn("a", 2), replace(turn("b", 2), at=2**70)], epoch)
    assert refusals(outcomes) == [None, InvalidArgumentError]
    assert (await chunks(store, "a"), await chunks(store, "b")) == ([b"first", b"turn"], [b"first"])
    assert counted.written == 0
    await accepted(store, turn("a", 3), turn("b", 2), epoch=epoch)


async def test_what_never_came_to_its_transaction_is_not_built_on(
    store: SqliteStore, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = await begun(store, "a")

    def moved() -> None:
        raise StoreMovedError("for a moment")

    with monkeypatch.context() as patch:
        patch.setattr(store._place, "check", moved)
        with pytest.raises(StoreMovedError):
            await store.write([turn("a", 2)], epoch)
    assert (counted.worked_out, counted.written) == (1, 0)
    [outcome] = await store.write([turn("a", 3)], epoch)
    assert isinstance(outcome.error, LeaseLostError)  # piece 2 is not there
    await accepted(store, turn("a", 2), epoch=epoch)
    assert await chunks(store, "a") == [b"first", b"turn"]


@pytest.mark.parametrize("broken", ["Ahead", "Group", "_Script"])
@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()], ids=repr)
async def test_what_was_not_worked_out_to_its_end_is_not_built_on(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, broken: str, error: BaseException
) -> None:
    epoch = await begun(store, "a")

    def breaks(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(ahead_module, broken, breaks)
        try:
            await store.write([turn("a", 2), new("b"), first("b")], epoch)
        except KeyboardInterrupt:
            assert await chunks(store, "a") == [b"first"]
        else:
            assert await chunks(store, "a") == [b"first", b"turn"]  # in its transaction, where there was room
    written = await chunks(store, "a")
    [outcome] = await store.write([turn("a", len(written) + 2)], epoch)
    assert isinstance(outcome.error, LeaseLostError)
    await accepted(store, turn("a", len(written) + 1), epoch=epoch)
    assert await chunks(store, "a") == [*written, b"turn"]


@pytest.mark.parametrize("statement", ["INSERT INTO history", "COMMIT"])
async def test_after_a_transaction_that_failed_the_file_is_asked(
    store: SqliteStore, counted: Counted, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    epoch = await begun(store, "a")
    with _full_disk(monkeypatch, statement), pytest.raises(StoreFullError):
        await store.write([turn("a", 2)], epoch)
    assert counted.worked_out == 1
    [outcome] = await store.write([turn("a", 3)], epoch)
    assert isinstance(outcome.error, LeaseLostError)
    await accepted(store, turn("a", 2), epoch=epoch)
    await accepted(store, turn("a", 3), epoch=epoch)
    assert counted.written == 2
    assert await chunks(store, "a") == [b"first", b"turn", b"turn"]


async def test_a_group_is_written_also_where_its_caller_is_gone(store: SqliteStore, counted: Counted) -> None:
    epoch = await begun(store, "a")
    caller = asyncio.ensure_future(store.write([turn("a", 2)], epoch))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await accepted(store, turn("a", 3), epoch=epoch)
    assert await chunks(store, "a") == [b"first", b"turn", b"turn"]


async def test_who_comes_while_the_thread_is_at_work_is_worked_out_there(store: SqliteStore, counted: Counted) -> None:
    epoch = await begun(store, "a")
    free = threading.Event()
    at_work = asyncio.ensure_future(store._write(lambda _: free.wait()))
    await asyncio.sleep(0)
    writes = [asyncio.ensure_future(store.write([turn("a", number)], epoch)) for number in (2, 3, 4)]
    await asyncio.sleep(0)
    assert counted.worked_out == 0
    free.set()
    assert [outcome.error for [outcome] in await asyncio.gather(*writes)] == [None] * 3
    await at_work
    await accepted(store, turn("a", 5), epoch=epoch)
    assert counted.written == 1
    assert await chunks(store, "a") == [b"first", *[b"turn"] * 4]


async def test_the_owner_can_be_a_client_meanwhile(store: SqliteStore, counted: Counted) -> None:
    epoch = await begun(store, "a")
    await one(store, post("a"))
    await accepted(store, turn("a", 2), epoch=epoch)
    assert counted.written == 1
    await accepted(store, create("b"))
    await accepted(store, turn("a", 3), new("c"), first("c"), epoch=epoch)
    assert counted.written == 2


ids = st.sampled_from("abc")
steps = st.lists(
    st.lists(
        st.tuples(st.just("begin"), ids)
        | st.tuples(st.sampled_from(["turn", "end", "step"]), ids, st.integers(1, 4))
        | st.tuples(st.just("wrong"), ids),
        min_size=1,
        max_size=5,
    ),
    min_size=2,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(groups=steps)
def test_whatever_is_written_is_what_transactions_themselves_would_have_come_to(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[tuple[Any, ...]]]
) -> None:
    folder = tmp_path_factory.mktemp("ahead")
    came = [
        asyncio.run(_played(folder / f"{name}.db", groups, is_ahead=name == "ahead")) for name in ("ahead", "within")
    ]
    assert came[0] == came[1]
    assert content(folder / "ahead.db") == content(folder / "within.db")


async def _played(path: Path, groups: Sequence[Sequence[tuple[Any, ...]]], *, is_ahead: bool) -> list[list[Any]]:
    store = SqliteStore(path, synchronous="NORMAL")
    await store.open()
    epoch = await begun(store, "z")
    known: set[str] = set()
    came = []
    for group in groups:
        operations: list[Operation] = []
        for what, id, *number in group:
            if what == "begin" and id not in known:
                known.add(id)
                operations += [new(id), first(id)]
            elif what == "turn":
                operations.append(turn(id, number[0]))
            elif what == "end":
                operations.append(end(id, number[0]))
            elif what == "step":
                operations.append(Commit(id, "x1", number[0], 3, b"step", AT_WORK))
            elif what == "wrong":
                operations.append(replace(turn(id, 2), at=2**70))
        if not is_ahead:
            store._remembered.shunned = 1
        outcomes = await store.write(operations, epoch)
        came.append([(type(one.error), str(one.error), len(one.started)) for one in outcomes])
    await store.close()
    return came


@contextmanager
def _full_disk(monkeypatch: pytest.MonkeyPatch, statement: str) -> Iterator[None]:
    """The first such statement finds no room."""

    class Full:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        def execute(self, text: str, *parameters: Any) -> Any:
            if text.startswith(statement):
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorname = "SQLITE_FULL"
                raise error
            return self._connection.execute(text, *parameters)

    def full(connection: sqlite3.Connection, work: Any) -> Any:
        return in_transaction(Full(connection), work)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ahead_module, "in_transaction", full)
        yield


def test_what_stands_in_for_a_connection_knows_nothing() -> None:
    script = ahead_module._Script()
    for ask in (script.execute("SELECT 1").fetchone, script.fetchall, lambda: script.executemany("DELETE", [])):
        with pytest.raises(ahead_module._MustRead):
            ask()
