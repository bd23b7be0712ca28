"""The file itself: what is refused is left as it was, what is full or locked goes on later, and what is made is made as a whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sqlite3
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from replayflow.core.commit import RowState
from replayflow.core.instance import Status
from replayflow.errors import (
    NewerSchemaError,
    NotAHubError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from replayflow.store import MemoryStore, SqliteStore, store_at
from replayflow.store.base import Operation
from replayflow.store.sqlite import schema
from replayflow.store.sqlite.connection import in_transaction
from replayflow.store.sqlite.reading import in_snapshot
from tests.engine.kit import until
from tests.store.builders import OWNER, accepted, all_ids, commit, create, everything, lose_patience, one, post
from tests.store.children import child, heard

BOUND_SECONDS = 10.0

# ruff: noqa: ASYNC240 - nothing else waits for the event loop here


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def a_hub(path: Path, instances: int = 1) -> None:
    """A closed hub with so many instances."""
    store = SqliteStore(path)
    await store.open()
    await accepted(store, *(create(f"i{n}") for n in range(instances)))
    await accepted(store, *(commit(f"i{n}", chunk=b"c" * 300) for n in range(instances)))
    await store.close()


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


# ---- what is no hub


def foreign(path: Path) -> None:
    change(path, "CREATE TABLE user (name)", "INSERT INTO user VALUES ('somebody')")


def foreign_application(path: Path) -> None:
    change(path, "PRAGMA application_id = 7")


def foreign_version(path: Path) -> None:
    change(path, "PRAGMA user_version = 1")


def foreign_in_wal_mode(path: Path) -> None:
    change(path, "PRAGMA journal_mode = WAL", "CREATE TABLE user (name)")


def content(text: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(text)

    return make


@pytest.mark.parametrize(
    "make",
    [
        foreign,
        foreign_application,
        foreign_version,
        foreign_in_wal_mode,
        content(b"hi"),
        content(b"a text\n" * 1_000),
        content(b"SQLite format 3"),
        content(b"SQLite format 3\x00" + b"?" * 5_000),
        content(bytes(5_000)),
    ],
)
async def test_what_is_no_hub_is_refused_and_left_as_it_is(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    before = digest(path)
    store = SqliteStore(path)
    with pytest.raises(NotAHubError, match=str(path)):
        await store.open()
    await store.close()
    assert digest(path) == before


async def test_a_hub_of_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    await a_hub(path)
    change(path, "PRAGMA user_version = 99")
    before = digest(path)
    with pytest.raises(NewerSchemaError, match=r"99.*upgrade"):
        await SqliteStore(path).open()
    assert digest(path) == before


async def test_a_folder_a_missing_folder_and_a_device_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAHubError, match="folder"):
        await SqliteStore(tmp_path).open()
    with pytest.raises(StoreUnavailableError, match="does not exist"):
        await SqliteStore(tmp_path / "missing" / "hub.db").open()
    assert list(tmp_path.iterdir()) == []
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAHubError, match="no regular file"):
        await SqliteStore(tmp_path / "pipe").open()
    with pytest.raises(StoreUnavailableError, match="cannot be made"):
        await SqliteStore(tmp_path / ("x" * 300)).open()


async def test_an_empty_file_becomes_a_hub(path: Path) -> None:
    path.touch()
    await a_hub(path)
    store = SqliteStore(path)
    await store.open()
    assert await all_ids(store) == ["i0"]
    await store.close()


async def test_a_refused_store_can_be_opened_once_the_path_is_free(path: Path) -> None:
    path.write_text("a text")
    store = SqliteStore(path)
    with pytest.raises(NotAHubError):
        await store.open()
    path.unlink()
    await store.open()
    await store.acquire(OWNER)
    await store.close()


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("hub.db", "hub.db"),
        ("sqlite:///hub.db", "hub.db"),
        ("sqlite:////tmp/hub.db", "/tmp/hub.db"),
        ("sqlite:///orders?#1.db", "orders?#1.db"),
        ("sqlite:///a%20b.db", "a%20b.db"),
    ],
)
def test_an_address_is_a_path(url: str, file: str) -> None:
    store = store_at(url)
    assert isinstance(store, SqliteStore)
    assert store.path == Path(file)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://host/hub.db", "mysql://x", "://"])
def test_an_address_of_no_known_kind_is_refused(url: str) -> None:
    with pytest.raises(StoreUnavailableError, match="no store is known"):
        store_at(url)
    assert isinstance(store_at("memory://"), MemoryStore)


async def test_a_path_of_odd_characters_is_a_path(tmp_path: Path) -> None:
    for name in ("a b?c#d%41.db", "ü'\".db", ":memory:", "file:x.db"):
        await a_hub(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 0


# ---- damage


async def damaged(path: Path, damage: Callable[[bytearray], bytes]) -> str:
    await a_hub(path, 400)
    path.write_bytes(damage(bytearray(path.read_bytes())))
    return digest(path)


async def read_all(store: SqliteStore) -> None:
    await store.open()
    await store.load([f"i{n}" for n in range(400)])


def flipped(data: bytearray) -> bytes:
    """Every page but those of the schema has its head turned round; the file opens, and what is in it cannot be read."""
    spared = {1, *schema_pages(data)}
    for page in range(len(data) // 4096):
        if page + 1 not in spared:
            for offset in range(8):
                data[page * 4096 + offset] ^= 0xFF
    return bytes(data)


def schema_pages(data: bytearray) -> list[int]:
    """The pages below the first one, which is an inner page of the schema's tree (https://sqlite.org/fileformat2.html, 1.6)."""
    assert data[100] == 5
    cells = [
        int.from_bytes(data[112 + 2 * n : 114 + 2 * n], "big") for n in range(int.from_bytes(data[103:105], "big"))
    ]
    return [int.from_bytes(data[place : place + 4], "big") for place in [*cells, 108]]


def truncated(data: bytearray) -> bytes:
    return bytes(data[: len(data) // 2 // 4096 * 4096])


@pytest.mark.parametrize("damage", [flipped, truncated])
async def test_a_damaged_file_is_called_so_and_not_changed(path: Path, damage: Callable[[bytearray], bytes]) -> None:
    before = await damaged(path, damage)
    store = SqliteStore(path)
    try:
        with pytest.raises(StoreCorruptError, match=r"damaged.*integrity_check"):
            await read_all(store)
    finally:
        await store.close()
    assert digest(path) == before


async def test_a_write_into_a_damaged_file_is_refused_and_changes_nothing(path: Path) -> None:
    before = await damaged(path, flipped)
    store = SqliteStore(path)
    await store.open()
    for _ in range(2):
        with pytest.raises(StoreCorruptError):
            await store.write([create("new"), commit("i7", sequence=2), post("i9")])
    await store.close()
    assert digest(path) == before


# ---- permissions


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that any user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="replayflow-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def as_nobody(path: Path) -> str:
    with child("as_nobody", path) as process:
        return " ".join(heard(process))


async def test_a_file_that_cannot_be_written_is_refused_as_read_only(public: Path) -> None:
    await a_hub(public / "hub.db")
    (public / "hub.db").chmod(0o444)
    public.chmod(0o777)
    before = digest(public / "hub.db")
    said = as_nobody(public / "hub.db")
    assert said.startswith("StoreReadOnlyError | ")
    assert "permissions" in said
    assert digest(public / "hub.db") == before


async def test_a_folder_that_cannot_be_written_is_refused(public: Path) -> None:
    await a_hub(public / "hub.db")
    (public / "hub.db").chmod(0o666)
    public.chmod(0o555)
    before = digest(public / "hub.db")
    assert as_nobody(public / "new.db").startswith("StoreReadOnlyError | ")
    assert as_nobody(public / "hub.db").split()[0] in ("StoreReadOnlyError", "StoreUnavailableError")
    assert digest(public / "hub.db") == before
    assert [entry.name for entry in public.iterdir()] == ["hub.db"]


async def test_a_file_that_cannot_be_read_is_refused(public: Path) -> None:
    await a_hub(public / "hub.db")
    (public / "hub.db").chmod(0o000)
    assert as_nobody(public / "hub.db").startswith("StoreUnavailableError | ")


async def test_whoever_may_write_can(public: Path) -> None:
    public.chmod(0o777)
    assert as_nobody(public / "hub.db") == "written"


async def test_a_new_file_is_its_owners_alone(sqlite: SqliteStore) -> None:
    await sqlite.acquire(OWNER)
    await accepted(sqlite, create("a"))
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in sqlite.path.parent.iterdir()}
    assert modes == dict.fromkeys(["hub.db", "hub.db-wal", "hub.db-shm", "hub.db-lock"], 0o600)


# ---- full, locked


async def test_a_full_store_refuses_the_group_as_a_whole_and_goes_on_when_there_is_room(sqlite: SqliteStore) -> None:
    await accepted(sqlite, create("a"))
    [(pages,)] = await sqlite._write(lambda c: c.execute("PRAGMA page_count").fetchall())
    await sqlite._write(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 3}").fetchall())
    before = await everything(sqlite)
    large: list[Operation] = [commit("a", chunk=b"c" * 100), *(create(f"i{n}") for n in range(500))]
    for _ in range(3):
        with pytest.raises(StoreFullError, match="make room"):
            await sqlite.write(large)
        assert await everything(sqlite) == before
    await accepted(sqlite, post("a", b"small"))
    await sqlite._write(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchall())
    assert (await accepted(sqlite, *large))[-1].started
    await sqlite._write(lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    assert await sqlite._write(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]


async def test_where_files_may_not_grow_nothing_is_half_written_and_it_goes_on_later(path: Path) -> None:
    with child("limited", path, 200_000) as process:
        refused, error, accepted_groups = heard(process)
        assert (refused, error) == ("refused", "StoreUnavailableError")
        assert heard(process) == ["done"]
        assert process.wait() == 0
    store = SqliteStore(path)
    await store.open()
    groups = int(accepted_groups)
    assert groups > 0
    assert await all_ids(store) == [f"{n}.{part}" for n in range(groups) for part in range(40)] + ["with room again"]
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_file_that_another_holds_for_too_long_is_busy_and_free_again(sqlite: SqliteStore) -> None:
    await accepted(sqlite, create("a"))
    await lose_patience(sqlite)
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError, match="try again"):
            await sqlite.write([post("a")])
        with pytest.raises(StoreBusyError):
            await sqlite.acquire(OWNER)
        assert await all_ids(sqlite) == ["a"]  # readers wait for nobody
        stranger.execute("ROLLBACK")
    await accepted(sqlite, post("a"))
    await sqlite.acquire(OWNER)  # the one that failed has let go of the lock


async def test_a_reader_does_not_keep_a_writer_waiting(sqlite: SqliteStore, other: SqliteStore) -> None:
    began, written = threading.Event(), threading.Event()

    def look_twice(connection: sqlite3.Connection) -> list[int]:
        counts = [connection.execute("SELECT count(*) FROM instance").fetchone()[0]]
        began.set()
        written.wait(BOUND_SECONDS)
        return [*counts, connection.execute("SELECT count(*) FROM instance").fetchone()[0]]

    looking = asyncio.ensure_future(other._read(lambda connection: in_snapshot(connection, look_twice)))
    await asyncio.to_thread(began.wait, BOUND_SECONDS)
    await accepted(sqlite, create("a"))
    written.set()
    assert await looking == [0, 0]
    assert await all_ids(other) == ["a"]


async def test_a_hub_that_cannot_be_written_any_more_is_closed_all_the_same(sqlite: SqliteStore) -> None:
    await sqlite.acquire(OWNER)
    await lose_patience(sqlite)
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        await sqlite.close()
    with pytest.raises(StoreUnavailableError):
        await sqlite.write([])
    await sqlite.open()
    assert await sqlite.acquire(OWNER) == 2


# ---- what SQLite cannot store


async def test_a_value_beyond_sqlites_limit_is_refused_alone(sqlite: SqliteStore) -> None:
    await accepted(sqlite, create("a"), create("b"))
    await sqlite._write(lambda c: c.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 20_000))
    outcomes = await sqlite.write([commit("a", chunk=b"x" * 20_001), commit("b", chunk=b"small"), post("a")])
    assert [getattr(outcome.error, "code", None) for outcome in outcomes] == ["RF113", None, None]
    assert await sqlite.history("a") == [b"start a x1"]
    assert await sqlite.history("b") == [b"start b x1", b"small"]
    await accepted(sqlite, commit("a"), commit("b", sequence=2))


async def test_a_number_beyond_64_bits_is_refused_alone(sqlite: SqliteStore) -> None:
    outcome, neighbour = await sqlite.write([create("a", at=2**63), create("b", at=2**63 - 1)])
    assert (getattr(outcome.error, "code", None), neighbour.error) == ("RF103", None)
    assert await all_ids(sqlite) == ["b"]
    assert (await one(sqlite, create("a"))).error is None


# ---- format


def schema_of(path: Path) -> list[object]:
    with closing(sqlite3.connect(path)) as connection:
        pragmas = [connection.execute(f"PRAGMA {name}").fetchone() for name in ("user_version", "application_id")]
        return [*pragmas, *connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name")]


async def test_a_migrated_hub_has_the_schema_of_a_fresh_one(tmp_path: Path) -> None:
    """Step by step from the first version, each by a run of its own, and all at once come to the same."""
    await a_hub(tmp_path / "fresh.db", 0)
    every = schema.migrations()
    assert [number for number, _ in every] == list(range(1, len(every) + 1))
    with pytest.MonkeyPatch.context() as patch:
        for count in range(1, len(every) + 1):
            patch.setattr(schema, "migrations", lambda count=count: every[:count])
            with closing(sqlite3.connect(tmp_path / "stepped.db", isolation_level=None)) as connection:
                schema.migrate(connection, tmp_path / "stepped.db")
    assert schema_of(tmp_path / "stepped.db") == schema_of(tmp_path / "fresh.db")


async def test_a_migration_is_applied_as_a_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await a_hub(path)
    before = schema_of(path)
    broken = "CREATE TABLE extra (x);\nALTER TABLE instance ADD COLUMN extra;\nINSERT INTO nowhere VALUES (1);\n"
    first = schema.migrations()
    next = len(first) + 1
    monkeypatch.setattr(schema, "migrations", lambda: [*first, (next, broken)])
    monkeypatch.setitem(schema._SET_VERSION, next, f"PRAGMA user_version = {next}")
    with pytest.raises(StoreError, match="nowhere"):
        await SqliteStore(path).open()
    assert schema_of(path) == before
    monkeypatch.setattr(schema, "migrations", lambda: [*first, (next, broken.replace("nowhere", "extra"))])
    store = SqliteStore(path)
    await store.open()
    assert await all_ids(store) == ["i0"]
    await store.close()
    assert schema_of(path)[0] == (next,)
    monkeypatch.undo()
    with pytest.raises(NewerSchemaError):
        await SqliteStore(path).open()


async def test_a_hub_of_each_former_format_is_brought_up_to_date_with_what_is_in_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = schema.migrations()
    for number in range(1, len(every)):
        old = path.with_name(f"format{number}.db")
        with monkeypatch.context() as patch, closing(sqlite3.connect(old, isolation_level=None)) as connection:
            patch.setattr(schema, "migrations", lambda number=number: every[:number])
            schema.migrate(connection, old)
            connection.execute(
                "INSERT INTO instance (key, id, execution_id, name, status, start, start_number, created_at) "
                "VALUES (1, 'a', 'x1', 'n', 'RUNNING', x'00', 0, 1)"
            )
        store = SqliteStore(old)
        await store.open()
        row = await store.get("a")
        assert row is not None
        assert (row.instance_id, row.execution_id, row.progress) == ("a", "x1", None)
        await store.close()


def test_a_creation_that_is_interrupted_leaves_an_empty_file(path: Path) -> None:
    for stop_after in range(1, 9):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            done: list[str] = []

            def authorize(action: int, *_: object, done: list[str] = done, stop_after: int = stop_after) -> int:
                if action in (sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX):
                    done.append("")
                return sqlite3.SQLITE_DENY if len(done) >= stop_after else sqlite3.SQLITE_OK

            connection.set_authorizer(authorize)
            with pytest.raises(sqlite3.DatabaseError):
                schema.migrate(connection, path)
            connection.set_authorizer(None)
        assert schema_of(path) == [(0,), (0,)]


@pytest.mark.parametrize("statements_before", [1, 2, 3])
def test_a_hub_that_comes_up_while_the_empty_file_is_looked_at_is_a_hub(path: Path, statements_before: int) -> None:
    """The version, the application and the tables are those of one moment."""
    seen: list[str] = []

    class Slow(sqlite3.Connection):
        def execute(self, sql: str, *_: object) -> sqlite3.Cursor:
            cursor = super().execute(sql)
            seen.append(sql)
            if len(seen) == statements_before:
                with closing(sqlite3.connect(path, isolation_level=None)) as faster:
                    schema.migrate(faster, path)
            return cursor

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    with closing(sqlite3.connect(path, isolation_level=None, factory=Slow)) as connection:
        assert schema.check(connection, path) in (0, 1)


@pytest.mark.parametrize(("asked", "kept"), [("FULL", 2), ("NORMAL", 1)])
async def test_a_commit_is_on_the_disk_when_it_returns(path: Path, asked: str, kept: int) -> None:
    store = SqliteStore(path, synchronous="NORMAL") if asked == "NORMAL" else SqliteStore(path)
    await store.open()
    assert await store._write(lambda c: c.execute("PRAGMA synchronous").fetchone()) == (kept,)
    assert await store._write(lambda c: c.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
    assert await store._read(lambda c: c.execute("PRAGMA query_only").fetchone()) == (1,)
    await store.close()


def test_what_raises_is_undone_as_a_whole(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (x)")

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO t VALUES (1)")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            in_transaction(connection, work)
        assert not connection.in_transaction
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


async def test_a_cancelled_open_leaves_nothing_open(path: Path) -> None:
    for turns in range(12):
        store = SqliteStore(path)
        opening = asyncio.ensure_future(store.open())
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        opening.cancel()
        await asyncio.wait([opening])
        if opening.cancelled():
            with pytest.raises(StoreUnavailableError):
                await store.get("a")
        await store.open()
        assert await store.get("a") is None
        await store.acquire(OWNER)
        await store.close()


async def test_a_file_with_a_second_name_is_refused(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()
    path.with_name("other.db").hardlink_to(path)
    for name in (path, path.with_name("other.db")):
        with pytest.raises(StoreUnavailableError, match="hard link"):
            await SqliteStore(name).open()


# ---- what stays in memory


async def test_what_is_remembered_of_an_instance_has_none_of_its_values(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "hub.db")
    await store.open()
    values = [os.urandom(10_000), os.urandom(10_000), os.urandom(10_000)]
    before = [sys.getrefcount(value) for value in values]
    shown_at_once = RowState(Status.COMPLETED, None, values[0], values[1], completed_at=3)
    await accepted(store, create("a"), commit("a", state=shown_at_once))
    await accepted(store, create("b"), commit("b"))
    await accepted(
        store, commit("b", sequence=2, state=RowState(Status.COMPLETED, None, output=values[2], completed_at=3))
    )
    del shown_at_once
    await until(lambda: [sys.getrefcount(value) for value in values] == before)  # the thread tells before it forgets
    await store.close()
