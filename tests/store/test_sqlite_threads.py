"""Event loops, threads and callers that give up: who is told of a change, and what is left when somebody goes."""

from __future__ import annotations

import asyncio
import errno
import gc
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from replayflow.errors import StoreError, StoreUnavailableError
from replayflow.store import SqliteStore, Store
from replayflow.store.sqlite import lock
from tests.store.builders import OWNER, accepted, all_ids, commit, create, lose_patience, one, post

BOUND_SECONDS = 2.0  # the promise is 100 ms; a test machine may be busy with others


class Ear:
    """Subscribes, and waits for the next call."""

    def __init__(self, store: Store) -> None:
        self._heard = asyncio.Event()
        self.unsubscribe = store.subscribe(self._heard.set)

    async def hears(self) -> None:
        async with asyncio.timeout(BOUND_SECONDS):
            await self._heard.wait()
        self._heard.clear()


async def test_a_subscriber_is_told_of_each_write_of_others(sqlite: SqliteStore, other: SqliteStore) -> None:
    ear = Ear(sqlite)
    await accepted(other, create("a"))
    await ear.hears()
    for _ in range(5):
        await accepted(other, post("a"))
        await ear.hears()
    ear.unsubscribe()
    ear.unsubscribe()


async def test_a_subscriber_is_told_as_soon_as_promised_by_an_idle_store(
    sqlite: SqliteStore, other: SqliteStore
) -> None:
    ear = Ear(sqlite)
    await accepted(other, create("a"))
    await ear.hears()
    loop = asyncio.get_running_loop()
    delays = []
    for _ in range(9):
        await accepted(other, post("a"))
        begun = loop.time()
        await ear.hears()
        delays.append(loop.time() - begun)
    ear.unsubscribe()
    assert (
        min(delays) < 0.1
    )  # each begins when the last look is just over: the quickest takes a whole pause between two looks


async def test_a_write_that_comes_between_two_of_the_owners_is_told_of(sqlite: SqliteStore, other: SqliteStore) -> None:
    """The owner's own transactions see the change first, and must not swallow it."""
    ear = Ear(sqlite)
    await accepted(sqlite, create("a"))
    for n in range(10):
        writes = [asyncio.ensure_future(one(sqlite, post("a"))) for _ in range(3)]
        await accepted(other, post("a", b"%d" % n))
        await asyncio.gather(*writes)
        await ear.hears()
    ear.unsubscribe()


async def test_an_owner_that_writes_without_a_pause_is_told_as_well(sqlite: SqliteStore, other: SqliteStore) -> None:
    ear = Ear(sqlite)
    await accepted(sqlite, create("a"))

    async def write_for_ever() -> None:
        while True:
            await asyncio.gather(
                *[one(sqlite, post("a")) for _ in range(3)]
            )  # one waits for the thread whenever another is done

    writing = asyncio.create_task(write_for_ever())
    for n in range(5):
        await accepted(other, post("a", b"%d" % n))
        await ear.hears()
    writing.cancel()
    ear.unsubscribe()


async def test_who_subscribes_again_is_told_again(sqlite: SqliteStore, other: SqliteStore) -> None:
    await accepted(other, create("a"))
    for _ in range(3):
        ear, second = Ear(sqlite), Ear(sqlite)
        await accepted(other, post("a"))
        await ear.hears()
        await second.hears()
        ear.unsubscribe()
        await accepted(other, post("a"))
        await second.hears()
        second.unsubscribe()


async def test_who_has_unsubscribed_is_told_no_more(sqlite: SqliteStore, other: SqliteStore) -> None:
    calls: list[str] = []
    unsubscribe = sqlite.subscribe(lambda: calls.append("gone"))
    unsubscribe()
    ear = Ear(sqlite)
    await accepted(other, create("a"))
    await ear.hears()
    ear.unsubscribe()
    assert calls == []


# ---- callers that give up


async def test_a_cancelled_read_does_not_leave_the_reader_at_an_old_moment(sqlite: SqliteStore) -> None:
    await accepted(sqlite, create("a"))
    sequence = 1
    for turns in range(30):
        for read in (sqlite.load(["a"]), sqlite.history("a"), sqlite.get("a")):
            reading = asyncio.ensure_future(read)
            for _ in range(turns // 3):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
        await accepted(sqlite, commit(sequence=sequence))
        sequence += 1
        [loaded] = await sqlite.load(["a"])
        assert loaded.piece_count == sequence - 1 == len(await sqlite.history("a")) - 1
    assert not await sqlite._read(lambda connection: connection.in_transaction)


async def test_a_read_that_is_cancelled_while_it_begins_is_rolled_back(sqlite: SqliteStore) -> None:
    """The case above by force: the reading is on its way to its thread when its caller goes."""
    busy, free = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        busy.set()
        free.wait(BOUND_SECONDS)

    holding = asyncio.ensure_future(sqlite._read(hold))
    await asyncio.to_thread(busy.wait, BOUND_SECONDS)
    reading = asyncio.ensure_future(sqlite.load(["a"]))
    await asyncio.sleep(0)
    reading.cancel()
    free.set()
    await asyncio.wait([holding, reading])
    assert reading.cancelled()
    await accepted(sqlite, create("a"))
    assert len(await sqlite.load(["a"])) == 1


async def test_an_error_of_a_cancelled_write_is_nobodys(sqlite: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    await lose_patience(sqlite)
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        writing = asyncio.ensure_future(sqlite.write([create("a")]))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        assert writing.cancelled()
        with pytest.raises(StoreError):
            await sqlite.write([create("a")])
    assert await all_ids(sqlite) == []
    assert caplog.records == []


async def test_a_read_that_sqlite_interrupts_is_a_store_error_and_the_next_one_works(sqlite: SqliteStore) -> None:
    await accepted(sqlite, create("a"))
    interrupts = True
    await sqlite._read(lambda connection: connection.set_progress_handler(lambda: interrupts, 1))
    for read in (sqlite.load(["a"]), sqlite.history("a"), sqlite.get("a")):
        with pytest.raises(StoreError, match="interrupted"):
            await read
    interrupts = False
    assert len(await sqlite.load(["a"])) == 1


async def test_the_writer_outlives_whatever_its_work_raises(sqlite: SqliteStore) -> None:
    for error in (ZeroDivisionError, KeyboardInterrupt, SystemExit, asyncio.CancelledError):

        def work(_: sqlite3.Connection, error: type[BaseException] = error) -> None:
            raise error

        with pytest.raises(error):
            await sqlite._write(work)
    await accepted(sqlite, create("a"))


async def test_writes_are_done_in_the_order_in_which_they_were_asked_for(sqlite: SqliteStore) -> None:
    await asyncio.gather(*(sqlite.write([create(f"i{n}")]) for n in range(200)))
    assert await all_ids(sqlite) == [f"i{n}" for n in range(200)]


# ---- loops and threads that end


async def test_closing_ends_the_threads(path: Path) -> None:
    before = set(threading.enumerate())
    store = SqliteStore(path)
    await store.open()
    store.subscribe(lambda: None)
    await store.write([create("a")])
    assert any("hub.db" in thread.name for thread in set(threading.enumerate()) - before)
    await store.close()
    for thread in set(threading.enumerate()) - before:
        if "hub.db" in thread.name:
            thread.join(BOUND_SECONDS)
            assert not thread.is_alive()


def test_a_store_serves_one_event_loop_after_another(path: Path) -> None:
    store = SqliteStore(path)

    async def use(id: str) -> list[str]:
        await store.open()
        await store.acquire(OWNER)
        await asyncio.gather(store.write([create(id)]), store.load([id]), store.load([id]))
        found = await all_ids(store)
        await store.close()
        return found

    assert asyncio.run(use("a")) == ["a"]
    assert asyncio.run(use("b")) == ["a", "b"]


async def test_a_lock_that_the_system_cannot_give_is_no_other_owner(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        with pytest.raises(StoreUnavailableError, match=r"hub\.db-lock cannot be locked: No locks available"):
            await sqlite.acquire(OWNER)
    await sqlite.acquire(OWNER)
    assert lock.FileLock(sqlite.path.with_name("hub.db-lock")).acquire() is False


async def test_an_error_that_nobody_waits_for_any_more_is_told_to_nobody(sqlite: SqliteStore) -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    begun, may_end = threading.Event(), threading.Event()

    def fails(_: sqlite3.Connection) -> None:
        begun.set()
        may_end.wait(10)
        raise ValueError("nobody is there")

    asked = asyncio.create_task(sqlite._write(fails))
    await asyncio.to_thread(begun.wait, 10)
    asked.cancel()
    await asyncio.wait([asked])
    may_end.set()
    del asked
    await sqlite._write(lambda _: None)  # the thread is past it
    gc.collect()
    await asyncio.sleep(0)
    assert not told
