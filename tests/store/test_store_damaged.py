"""A damaged instance goes when it is asked to, whatever it was doing; a sound one does not, and of others nothing is touched."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from replayflow.core import events
from replayflow.core.commit import RowState
from replayflow.core.events import ExecutionStarted, TaskCompleted
from replayflow.core.instance import Status
from replayflow.errors import InstanceNotFoundError, InvalidStateError, StoreCorruptError
from replayflow.store import MemoryStore, SqliteStore, Store
from replayflow.store.base import Create, InstanceFilter, Lost, Unread
from tests.store.builders import accepted, commit, create, message, post, start

LARGE = b"\xc4" + b"x" * 500
TAGS = {"k": "v", "kind": "order"}
DAMAGE = {
    "its start": "UPDATE instance SET start = x'00' WHERE id = 'a'",
    "its row": "UPDATE instance SET output = x'00' WHERE id = 'a'",
    "no status": "UPDATE instance SET status = 'RUNNINF' WHERE id = 'a'",
    "no text": "UPDATE instance SET name = CAST(x'6f72646572ff' AS TEXT) WHERE id = 'a'",
    "no sums": "UPDATE instance SET start_sum = NULL, sum = 'none' WHERE id = 'a'",
    "its problem": "UPDATE instance SET problem = x'00', problem_sum = 1 WHERE id = 'a'",
    "its history": "UPDATE history SET events = x'6368756e6c' WHERE instance = 1 AND number = 1",
    "a piece is missing": "DELETE FROM history WHERE instance = 1 AND number = 3",
    "its past": "UPDATE execution SET sum = 7 WHERE instance = 1",
    "a message": "UPDATE inbox SET event = x'00' WHERE instance = 1 AND event IS NOT NULL",
    "a time": "UPDATE history SET at = at + 64 WHERE instance = 1",
    "a content": "UPDATE payload SET content = x'00' WHERE digest IN (SELECT digest FROM payload_use WHERE owner = 1)",
    "not an entity": "UPDATE instance SET is_entity = 1 WHERE id = 'a'",
}


async def changed(store: SqliteStore, statement: str) -> None:
    await store._write(lambda connection: connection.execute(statement).fetchall())
    store._remembered.forget()


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """Three instances, two of them with all that an instance may have; `c` is a child of `a`."""
    store = SqliteStore(path, large_over_bytes=100)
    await store.open()
    for id in "ab":
        begun = events.encode([ExecutionStarted("order", LARGE + id.encode(), id, "x1")])
        await accepted(store, Create(start(id, event=begun, tags=TAGS, parent="p")))
        await accepted(store, post(id, key="once"), commit(id, next_start=start(id, "x2", tags=TAGS, parent="p")))
        told = events.encode([TaskCompleted(1, LARGE + id.encode())])
        await accepted(store, commit(id, "x2", 3, chunk=told), post(id, b"waits"))
        await accepted(store, commit(id, "x2", 4, state=RowState(Status.RUNNING, 7, b"custom")))
    await accepted(store, Create(start("c", parent="a")))
    await store._write(
        lambda connection: connection.executescript(
            "INSERT INTO suspect VALUES (1, 4, 1, 0, 1, 2, 0, 0, NULL); INSERT INTO transacted VALUES (1, 'x2', 1, NULL);"
        )
    )
    yield store
    await store.close()


def rows_of(path: Path) -> dict[str, list[object]]:
    """All rows of all tables but the hub's own and the counts."""
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {
            name: connection.execute(f"SELECT * FROM {name}").fetchall()
            for name in names
            if name not in ("hub", "purged")
        }


def without_a(rows: dict[str, list[object]]) -> dict[str, list[object]]:
    return {name: [row for row in found if not is_of_a(name, row)] for name, found in rows.items()}


def is_of_a(table: str, row: object) -> bool:
    assert isinstance(row, tuple)
    match table:
        case "payload":
            return row[1] in (b"\0", LARGE + b"a")
        case "payload_use" | "instance" | "history" | "execution" | "dedupe" | "transacted" | "suspect":
            return bool(row[0] == 1)
        case "inbox":
            return bool(row[1] == 1)
        case "tag":
            return bool(row[3] == 1)
        case _:
            return False


@pytest.mark.parametrize("what", DAMAGE)
async def test_all_of_it_goes_and_nothing_of_others(store: SqliteStore, what: str) -> None:
    before = rows_of(store.path)
    assert all(any(is_of_a(name, row) for row in before[name]) for name in ("tag", "suspect", "inbox", "payload"))
    await changed(store, DAMAGE[what])
    lost = await store.remove_damaged("a", 3)
    assert lost.faults
    assert (lost.status, lost.messages, lost.parent_id, lost.children) == (
        "RUNNINF" if what == "no status" else "RUNNING",
        2,
        "p",
        1,
    )
    assert rows_of(store.path) == without_a(before)
    assert await store.get("a") is None
    assert (await store.footprint()).purged == 1
    await changed(store, "DELETE FROM tag WHERE instance NOT IN (SELECT key FROM instance)")
    assert (await store.condition(is_thorough=True)).faults == ()
    await accepted(store, create("a"))


async def test_what_is_sound_stays(store: SqliteStore) -> None:
    await changed(store, DAMAGE["its row"])
    before = rows_of(store.path)
    for id, kind in (("b", InvalidStateError), ("c", InvalidStateError), ("nobody", InstanceNotFoundError)):
        with pytest.raises(kind):
            await store.remove_damaged(id, 3)
    assert rows_of(store.path) == before


async def test_the_worker_goes_on_with_what_is_there(store: SqliteStore) -> None:
    """What its last transactions left in memory of the instance is forgotten with it."""
    await changed(store, "UPDATE history SET events = x'00' WHERE instance = 1")
    await store.remove_damaged("a", 3)
    late, sent, other = await store.write(
        [commit("a", "x2", 5), commit("b", "x2", 5, messages=[message("a", b"late")]), create("d")]
    )
    assert late.error is not None
    assert [dropped.event for dropped in sent.dropped] == [b"late"]
    assert other.error is None


# ---- where an index has another value than the row -------------------------------------------------------------


async def flipped(store: SqliteStore, sound: bytes, damaged: bytes) -> None:
    """The bytes stand so in the rows' own table alone: an id, an execution's id, a name and a status follow one another there."""
    await store.close()
    image = store.path.read_bytes()
    assert image.count(sound) == 1
    store.path.write_bytes(image.replace(sound, damaged))
    await store.open()


@pytest.mark.parametrize(
    ("damaged", "id"),
    [
        (b"ax2orderRUNNINF", "a"),
        (b"ax2oqderRUNNING", "a"),
        (b"ax2\xefrderRUNNING", "a"),
        (b"qx2orderRUNNING", "q"),
        (b"qx2orderRUNNING", "a"),
        (b"\xe1x2orderRUNNING", "\\udce1"),
    ],
)
async def test_it_goes_though_an_index_has_another_value(store: SqliteStore, damaged: bytes, id: str) -> None:
    before = rows_of(store.path)
    await flipped(store, b"ax2orderRUNNING", damaged)
    assert (await store.remove_damaged(id, 3)).faults
    assert rows_of(store.path) == without_a(before)
    assert [row.instance_id for row in (await store.page(InstanceFilter(), 9)).records] == ["b", "c"]
    assert (await store.condition(is_thorough=True)).faults == ()


async def test_the_indexes_are_not_made_anew_while_another_row_is_damaged(store: SqliteStore) -> None:
    """The other would be found by the id that it shows, and another could begin under its own."""
    await changed(store, "UPDATE instance SET output = x'00' WHERE id = 'b'")
    await flipped(store, b"ax2orderRUNNING", b"ax2orderRUNNINF")
    before = rows_of(store.path)
    with pytest.raises(StoreCorruptError, match=r"'a' cannot be taken out while another is damaged, too: instance 'b'"):
        await store.remove_damaged("a", 3)
    assert rows_of(store.path) == before
    await store.remove_damaged("b", 3)
    await store.remove_damaged("a", 3)
    assert (await store.footprint()).purged == 2


# ---- what nobody can make sense of -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_what_cannot_be_made_sense_of_goes_unless_something_has_come_since(kind: str, path: Path) -> None:
    store: Store = MemoryStore() if kind == "memory" else SqliteStore(path)
    await store.open()
    await accepted(store, create("a"), post("a"), create("b"), commit("a", chunk=b"no events"))
    for unread in (None, Unread("x2", 1, "why"), Unread("x1", 0, "why")):
        with pytest.raises(InvalidStateError):
            await store.remove_damaged("a", 3, unread)
    with pytest.raises(InstanceNotFoundError):
        await store.remove_damaged("c", 3, Unread("x1", 1, "why"))
    lost = await store.remove_damaged("a", 3, Unread("x1", 1, "why"))
    assert lost == Lost(("why",), "order", "PENDING", 1, 1, None, 0)
    assert [row.instance_id for row in (await store.page(InstanceFilter(), 9)).records] == ["b"]
    assert (await store.footprint()).purged == 1
    assert {delivery.instance_id for delivery in await store.arrived(0, 9)} == {"b"}
    await store.close()
