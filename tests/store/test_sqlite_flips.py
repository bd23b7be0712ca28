"""Flipped bits in a hub's file are refused, or found: a seeded sample of what `python -m tests.store.flips` does with every byte."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from replayflow.core import events
from replayflow.core.commit import RowState
from replayflow.core.events import TaskScheduled
from replayflow.core.instance import Status
from replayflow.errors import StoreCorruptError, StoreError
from replayflow.store import SqliteStore
from replayflow.store.base import InstanceFilter, Park, Post, Purge
from replayflow.store.sqlite import records, schema
from replayflow.store.sqlite.statements import SQL, WHOLE
from tests.ciphers import ToyCipher
from tests.store import flips
from tests.store.builders import (
    accepted,
    commit,
    contents_of,
    create,
    encoded_events,
    everything,
    inbox,
    message,
    one,
    post,
    shown,
    start,
)

SAMPLE_EVERY = 101


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> flips.Sound:
    path = tmp_path_factory.mktemp("flips") / "hub.db"
    asyncio.run(flips.fill(path))
    return flips.sound(path)


@pytest.mark.parametrize("part", range(4))
def test_a_flipped_bit_is_refused_or_found_and_never_served(sound: flips.Sound, part: int) -> None:
    """Four parts, so that two processes share them."""
    places = list(flips.flips(len(sound.image), SAMPLE_EVERY, seed=20))[part::4]
    wrong = {place: flips.wrong_at(sound, *place) for place in places}
    assert not {place: text for place, text in wrong.items() if text is not None}
    assert sum(sound.kinds.values()) >= len(places)


def test_a_sample_of_flips_meets_every_kind_of_answer(sound: flips.Sound) -> None:
    """A page of rows is refused, an index's is found: else the sample would say nothing."""
    for offset, bit in list(flips.flips(len(sound.image), 400, seed=3)):
        flips.wrong_at(sound, offset, bit)
    assert {"refused", "found", "no hub", "no matter"} <= sound.kinds.keys()


# ---- each part of an instance, by name -------------------------------------------------------------------------

DAMAGE: dict[str, str] = {
    "its start": "UPDATE instance SET name = 'other' WHERE id = 'a'",
    "its row": "UPDATE instance SET output = x'00' WHERE id = 'a'",
    "its problem": "UPDATE instance SET problem = x'00', problem_sum = 1 WHERE id = 'a'",
    "its history": "UPDATE history SET events = x'6368756e6c' WHERE instance = 1 AND number = 1",
    "its history, which has lost its end,": "DELETE FROM history WHERE instance = 1 AND number = 3",
    "message 3 in its inbox": "UPDATE inbox SET event = x'00' WHERE number = 3",
    "the time of its last piece": "UPDATE history SET at = at + 64 WHERE instance = 1 AND number = 3",
}


@pytest.fixture
async def store(path: Path) -> SqliteStore:
    """Two instances, and what belongs to them."""
    store = SqliteStore(path)
    await store.open()
    await accepted(store, create("a"), create("b"))
    await accepted(store, post("a"), post("b"))
    for id in "ab":
        await accepted(store, *(commit(id, sequence=number, chunk=b"chunk") for number in (1, 2)))
        await accepted(store, commit(id, sequence=3, chunk=b"chunk", state=RowState(Status.RUNNING, 7, b"custom")))
    return store


async def change(store: SqliteStore, statement: str) -> None:
    await store._write(lambda connection: connection.execute(statement).fetchall())
    store._remembered.forget()


@pytest.mark.parametrize("what", DAMAGE)
async def test_a_damaged_instance_is_refused_by_name_and_its_neighbour_is_not(store: SqliteStore, what: str) -> None:
    before = await store.load(["b"])
    await change(store, DAMAGE[what])
    with pytest.raises(StoreCorruptError) as refused:
        await store.load(["a"])
    assert str(refused.value).startswith(f"instance 'a': {what} does not read back as it was written: ")
    assert str(store.path) in str(refused.value)
    assert await store.load(["b"]) == before
    assert (await store.condition(is_thorough=True)).faults
    await store.close()


async def test_a_listing_marks_what_is_damaged_and_shows_the_others(store: SqliteStore) -> None:
    await change(store, "UPDATE instance SET output = x'00' WHERE id = 'a'")
    a, b = (await store.page(InstanceFilter(), 10)).records
    assert a.damage is not None
    assert "does not read back as it was written" in a.damage
    assert (a.instance_id, a.output, a.custom_status, b.damage, b.custom_status) == ("a", None, None, None, b"custom")
    await store.close()


async def test_text_that_is_none_any_more_is_damage(store: SqliteStore) -> None:
    await change(store, "UPDATE instance SET name = CAST(x'6f72646572ff' AS TEXT) WHERE id = 'a'")
    with pytest.raises(StoreCorruptError, match="instance 'a': its row"):
        await store.get("a")
    assert [record.damage is None for record in (await store.page(InstanceFilter(), 10)).records] == [False, True]
    await store.close()


async def test_nothing_is_begun_in_the_place_of_what_is_damaged(store: SqliteStore) -> None:
    """Its orphans would go on in the next execution's row, with a sum that fits them."""
    end = commit("a", sequence=4, chunk=b"the end", state=shown(Status.COMPLETED))
    await accepted(store, end)
    await change(store, "UPDATE instance SET orphans = x'00' WHERE id = 'a'")
    refused, other = await store.write([create("a", "x2", "replace_finished"), create("c")])
    assert isinstance(refused.error, StoreCorruptError)
    assert other.error is None
    assert (await one(store, Purge("a"))).error is not None  # it owes
    await store.close()


async def test_a_status_that_is_none_refuses_what_is_for_the_instance_and_keeps_what_others_send(
    store: SqliteStore,
) -> None:
    await change(store, "UPDATE instance SET status = 'RUNNINF' WHERE id = 'a'")
    parked, sent = await store.write(
        [Park("a", "x1", b"no"), commit("b", sequence=4, messages=[message("a", b"from b")])]
    )
    assert isinstance(parked.error, StoreCorruptError)
    assert [delivery.instance_id for delivery in sent.deliveries] == ["a"]
    await store.close()


async def test_what_was_refused_once_for_damage_is_refused_again(store: SqliteStore) -> None:
    """What is said of a damaged instance for one group's sake is not remembered as what it is."""
    await change(store, "UPDATE instance SET status = 'RUNNINF' WHERE id = 'a'")
    for operation in (Park("a", "x1", b"no"), post("a"), commit("a", sequence=4), Park("a", "x1", b"no")):
        assert isinstance((await one(store, operation)).error, StoreCorruptError)
    assert [delivery.instance_id for delivery in await store.arrived(4, 10)] == []
    await store.close()


async def test_a_count_that_is_no_number_is_damage(store: SqliteStore) -> None:
    await change(store, "INSERT INTO purged VALUES (0, 'asked', 'many', 1)")
    await accepted(store, commit("b", sequence=4, state=RowState(Status.COMPLETED, None, completed_at=3), consumed=[4]))
    with pytest.raises(StoreCorruptError, match="the count of what was purged"):
        await store.write([Purge("b")])
    await store.close()


async def test_a_damaged_counter_stops_all_writing(store: SqliteStore) -> None:
    """A number that is given twice loses a message."""
    await change(store, "UPDATE hub SET next_number = next_number - 1")
    with pytest.raises(StoreCorruptError, match="the hub's own row"):
        await store.write([create("c")])
    assert [one.record.instance_id for one in await store.load(["a", "b"])] == ["a", "b"]
    await store.close()


async def test_a_wake_up_whose_row_says_earlier_comes_earlier(store: SqliteStore) -> None:
    """The index alone would have the instance sleep."""
    await store.close()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        # An index entry of another time, as a flipped bit makes it: the row is changed behind the index's back.
        [(root,)] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'instance_wake'").fetchall()
        connection.execute("UPDATE sqlite_schema SET type = 'hidden' WHERE name = 'instance_wake'")
        sql = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'instance_wake'").fetchone()[0]
        connection.execute("DELETE FROM sqlite_schema WHERE name = 'instance_wake'")
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute("UPDATE instance SET wake_at = 5 WHERE id = 'a'")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_schema VALUES ('index', 'instance_wake', 'instance', ?, ?)", (root, sql))
        connection.execute("PRAGMA writable_schema = RESET")
    await store.open()
    assert [(wake.at, wake.instance_id) for wake in await store.wakes(None, 10)] == [(5, "a"), (7, "b")]
    await store.close()


# ---- beside somebody who writes --------------------------------------------------------------------------------


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, place: str, statement: str, write: Callable[[], Awaitable[object]]
) -> None:
    """Once, just after the rows of that statement were read at that place, somebody else has written."""
    loop, read, written = asyncio.get_running_loop(), records.fetched, list[object]()

    def then_written(connection: sqlite3.Connection, text: str, parameters: Any = ()) -> list[Any]:
        found = read(connection, text, parameters)
        if text == statement and not written:
            written.append(asyncio.run_coroutine_threadsafe(_awaited(write()), loop).result(10))
        return found

    monkeypatch.setattr(f"replayflow.store.sqlite.{place}.fetched", then_written)


async def _awaited(awaitable: Awaitable[object]) -> object:
    return await awaitable


async def test_the_thorough_look_sees_one_moment(
    store: SqliteStore, other: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance that continues as new between the reading of its row and that of its history is not damaged."""
    goes_on = commit("a", sequence=4, next_start=start("a", "x2"))
    meanwhile(monkeypatch, "audit", WHOLE["all_instances"], lambda: accepted(other, goes_on))
    assert (await store.condition(is_thorough=True)).faults == ()
    assert [one.record.execution_id for one in await store.load(["a"])] == ["x2"]  # it has been written
    await store.close()


async def test_waiting_messages_and_what_they_refer_to_are_of_one_moment(
    path: Path, other: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large message that is taken in just then was not damaged."""
    store = SqliteStore(path, large_over_bytes=100)
    await store.open()
    large = encoded_events(b"\xc4" + b"x" * 500)
    await accepted(store, create("a"), post("a", large))
    taken = commit("a", consumed=[1, 2])
    meanwhile(monkeypatch, "records", SQL["waiting_since"], lambda: accepted(other, taken))
    assert large in [message.event for message in await store.waiting(None)]
    assert await inbox(store) == []
    await store.close()


# ---- what is sound ---------------------------------------------------------------------------------------------


async def test_a_content_that_is_kept_longer_than_it_is_used_is_no_damage(path: Path) -> None:
    """What an orphan was given is sealed once more with the row that says so, and stays noted when the row has it no more, until history is cut."""
    store = SqliteStore(path, large_over_bytes=100, cipher=ToyCipher())
    await store.open()
    await accepted(store, create("a"))
    owed = events.encode([TaskScheduled(1, "f", b"\xc4" + b"x" * 500)])
    for number, orphans in enumerate((owed, None), 1):
        over = RowState(Status.COMPLETED, None, completed_at=1, orphans=orphans)
        await accepted(store, commit("a", sequence=number, state=over))
    found = await contents_of(store)
    assert len(found.kept - found.referred_to) == 1
    assert (await store.condition(is_thorough=True)).faults == ()
    await store.close()


# ---- what callers give -----------------------------------------------------------------------------------------


class Text(str):
    """Text of a caller's own class, as libraries have it."""


async def test_text_of_a_class_of_its_own_has_the_sum_of_what_it_reads_back_as(store: SqliteStore) -> None:
    await accepted(store, post("a", b"event", Text("k")), post("b", b"event", "k"))
    await accepted(store, post("a", b"again", "k"))
    assert b"again" not in await inbox(store, "a")
    assert (await store.condition(is_thorough=True)).faults == ()
    await store.close()


# ---- the write-ahead log ---------------------------------------------------------------------------------------


def of_both(path: Path) -> tuple[bytes, bytes]:
    """The bytes of the file and of its log."""
    return path.read_bytes(), Path(f"{path}-wal").read_bytes()


def write_both(path: Path, image: bytes, log: bytearray) -> None:
    path.write_bytes(image)
    Path(f"{path}-wal").write_bytes(log)


async def test_a_flipped_frame_ends_the_log_at_a_commit(path: Path, tmp_path: Path) -> None:
    """SQLite's own checksums: what was committed before the frame is there, and nothing of what came behind it."""
    store = SqliteStore(path)
    await store.open()
    await store._write(lambda connection: connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall())
    await store._write(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    moments = [await everything(store)]
    for number in range(8):
        await accepted(store, create(f"i{number}"), Post(message(f"i{number}"), f"key {number}"))
        moments.append(await everything(store))
    image, log = of_both(path)
    await store.close()
    chosen = random.Random(7)
    found: set[int] = set()
    for attempt in range(25):
        flipped = bytearray(log)
        flipped[chosen.randrange(len(log))] ^= 1 << chosen.randrange(8)
        copy = tmp_path / f"copy{attempt}.db"
        write_both(copy, image, flipped)
        again = SqliteStore(copy)
        await again.open()
        now = await everything(again)
        assert now in moments
        found.add(moments.index(now))
        assert (await again.condition(is_thorough=True)).faults == ()
        await again.close()
    assert len(found) > 3


# ---- from an older format --------------------------------------------------------------------------------------

OLD = """
INSERT INTO instance (key, id, execution_id, name, status, start, start_number, wake_at, created_at, tags, problem)
VALUES (1, 'a', 'x2', 'order', 'RUNNING', x'0102', 3, 9, 1, '{"kind":"old"}', x'7768790a'),
       (2, 'b', 'x1', 'order', 'PENDING', x'03', 0, 0, 2, NULL, NULL);
INSERT INTO execution VALUES (1, 'x1', 0);
INSERT INTO history VALUES (1, 0, 1, x'aa'), (1, 1, 2, x'bb'), (1, 2, 3, x'cc'), (1, 4, 4, x'dd'), (1, 5, 6, x'ee');
INSERT INTO inbox (number, instance, event, is_control, at) VALUES (1, 1, x'ff', 0, 3), (2, 2, NULL, 1, NULL);
INSERT INTO dedupe VALUES (1, 'k');
INSERT INTO transacted VALUES (1, 'x2', 1);
INSERT INTO suspect VALUES (2, 0, 1, 0, 1, 2, 0, 0);
INSERT INTO served VALUES ('order', '', 'digest', 1);
INSERT INTO purged VALUES (1, 'asked', 3);
UPDATE hub SET next_key = 3, next_number = 3, epoch = 4;
"""


@pytest.fixture
def old(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub of format 9, which knew no sums."""
    every = schema.migrations()
    with monkeypatch.context() as patch, closing(sqlite3.connect(path, isolation_level=None)) as connection:
        patch.setattr(schema, "migrations", lambda: every[:9])
        schema.migrate(connection, path)
        connection.executescript(OLD)
    return path


async def test_a_hub_without_sums_has_them_once_it_is_opened(old: Path) -> None:
    store = SqliteStore(old)
    await store.open()
    assert (await store.condition(is_thorough=True)).faults == ()
    a, b = await store.load(["a", "b"])
    assert (a.record.updated_at, a.pieces, a.record.problem, b.record.updated_at) == (6, b"\xdd\xee", b"why\n", 2)
    assert await store.history("a", "x1") == [b"\xaa", b"\xbb", b"\xcc"]
    assert (await store.footprint()).purged == 3
    assert [suspect.instance_id for suspect in await store.suspects()] == ["b"]
    await accepted(store, commit("a", "x2", 6), commit("b", "x1", 1, consumed=[2]), create("c"))
    assert (await store.condition(is_thorough=True)).faults == ()
    await change(store, "UPDATE history SET sum = NULL WHERE number = 6")
    with pytest.raises(StoreCorruptError):
        await store.load(["a"])
    await store.close()


def test_what_an_older_version_writes_into_a_hub_with_sums_is_refused(old: Path) -> None:
    """Its first statement in every transaction, as it was: a worker that still runs while another process brings the file up to date."""
    connection: Any
    with closing(sqlite3.connect(old, isolation_level=None)) as connection:
        first = "SELECT epoch, next_key, next_number, data_version FROM hub, pragma_data_version"
        assert connection.execute(first).fetchone()[:3] == (4, 3, 3)
        schema.migrate(connection, old)
        with pytest.raises(sqlite3.OperationalError, match="ambiguous column name: data_version"):
            connection.execute(first)


async def test_a_damaged_schema_is_refused_when_the_hub_is_opened(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()
    break_schema(path)
    with pytest.raises(StoreError):
        await store.open()


def break_schema(path: Path) -> None:
    """The name of a table is no text any more, and so is SQLite's message about it."""
    image = bytearray(path.read_bytes())
    image[image.index(b"CREATE TABLE inbox") + 13] ^= 0x80
    path.write_bytes(image)
