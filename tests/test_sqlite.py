"""Starting in the caller's own transaction: with their rows or not at all, whatever their connection is like."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    EncodeError,
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    Limits,
    NewerSchemaError,
    NotAHubError,
    NoTransactionError,
    OrchestrationContext,
    StoreBusyError,
    StoreCorruptError,
    StoreUnavailableError,
    TaskHub,
    UnknownNameError,
    sqlite,
)
from replayflow.store.sqlite import schema

app = App()
LIMIT = 15


@app.orchestrator(name="ship")
def ship_order(ctx: OrchestrationContext, order: int) -> Any:
    return order * 2


@app.orchestrator
def basket(ctx: OrchestrationContext, size: int) -> Any:
    items: list[Any] = []
    while len(items) < size:
        items.append((yield ctx.wait_for_external_event("add")))
    return items


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A hub with a table of the caller's own in it."""
    path = tmp_path / "orders.db"

    async def make() -> None:
        async with Client(path):
            pass

    asyncio.run(make())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, total INTEGER)")
        connection.commit()
    return path


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=0.2)) as connection:
        yield connection


def order(connection: sqlite3.Connection, id: int = 1) -> None:
    connection.execute("INSERT INTO orders (id, total) VALUES (?, 10)", (id,))


def everything(path: Path) -> list[object]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def orders(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [id for (id,) in connection.execute("SELECT id FROM orders ORDER BY id")]


def worked_off(path: Path) -> dict[str, Any]:
    """What the instances come to that a worker finds in the file."""

    async def work() -> dict[str, Any]:
        async with TaskHub(path, app, limits=Limits(grace=timedelta(0))) as hub:
            found = [state.id async for state in hub.client.list()]
            return {id: await hub.client.get(id).result(LIMIT) for id in found}

    return asyncio.run(work())


def test_a_row_and_its_workflow_are_committed_together(path: Path, connection: sqlite3.Connection) -> None:
    order(connection)
    assert sqlite.start(connection, ship_order, 21, instance_id="order-1", tags={"k": "v"}) == "order-1"
    made_up = sqlite.start(connection, "ship", 1)
    connection.commit()
    assert orders(path) == [1]
    assert worked_off(path) == {"order-1": 42, made_up: 2}


def test_rolled_back_together_they_leave_no_trace(path: Path, connection: sqlite3.Connection) -> None:
    before = everything(path)
    order(connection)
    sqlite.start(connection, "basket", 2, instance_id="b")
    sqlite.raise_event(connection, "b", "add", 1)
    sqlite.signal_with_start(connection, "basket", 2, "add", 2, instance_id="b", dedupe_key="k")
    connection.rollback()
    assert everything(path) == before


def test_events_go_with_the_transaction_and_in_order(path: Path, connection: sqlite3.Connection) -> None:
    order(connection)
    sqlite.signal_with_start(connection, basket, 3, "add", "a", instance_id="b")
    sqlite.signal_with_start(connection, basket, 9, "add", "b", instance_id="b", dedupe_key="b")
    sqlite.raise_event(connection, "b", "add", "again", dedupe_key="b")
    sqlite.raise_event(connection, "b", "add", "c")
    connection.commit()
    assert worked_off(path) == {"b": ["a", "b", "c"]}
    order(connection, 2)
    with pytest.raises(InstanceFinishedError):
        sqlite.signal_with_start(connection, basket, 1, "add", "d", instance_id="b")
    sqlite.signal_with_start(connection, basket, 1, "add", "d", instance_id="b", on_existing="replace_finished")
    connection.commit()
    assert worked_off(path) == {"b": ["d"]}
    assert orders(path) == [1, 2]


async def test_a_worker_that_runs_notices_the_commit_and_goes_on_with_its_own_numbers(path: Path) -> None:
    async with TaskHub(path, app, limits=Limits(grace=timedelta(0))) as hub:
        for number in range(10):
            await hub.client.start(ship_order, number, instance_id=f"own-{number}")

            def in_thread(number: int = number) -> None:
                with closing(sqlite3.connect(path)) as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    order(connection, number)
                    sqlite.start(connection, ship_order, number, instance_id=f"theirs-{number}")
                    sqlite.start(connection, basket, 1, instance_id=f"basket-{number}")
                    sqlite.raise_event(connection, f"basket-{number}", "add", number)
                    connection.commit()

            await asyncio.to_thread(in_thread)
        for number in range(10):
            assert await hub.client.get(f"own-{number}").result(LIMIT) == 2 * number
            assert await hub.client.get(f"theirs-{number}").result(LIMIT) == 2 * number
            assert await hub.client.get(f"basket-{number}").result(LIMIT) == [number]


def test_a_refusal_leaves_the_transaction_as_it_was(path: Path, connection: sqlite3.Connection) -> None:
    order(connection)
    sqlite.start(connection, ship_order, 1, instance_id="taken")
    before = list(connection.iterdump())
    ask: list[tuple[type[Exception], Callable[[], object]]] = [
        (InstanceExistsError, lambda: sqlite.start(connection, ship_order, 1, instance_id="taken")),
        (InstanceNotFoundError, lambda: sqlite.raise_event(connection, "nobody", "add")),
        (InvalidArgumentError, lambda: sqlite.raise_event(connection, "@a@b", "add")),
        (InvalidArgumentError, lambda: sqlite.raise_event(connection, "taken", "")),
        (InvalidArgumentError, lambda: sqlite.start(connection, ship_order, 1, instance_id="a/b")),
        (InvalidArgumentError, lambda: sqlite.start(connection, ship_order, 1, tags={"k": "v\0"})),
        (InvalidArgumentError, lambda: sqlite.start(connection, 17, 1)),  # type: ignore[arg-type]
        (UnknownNameError, lambda: sqlite.start(connection, "unknown", 1, app=app)),
        (EncodeError, lambda: sqlite.start(connection, ship_order, object())),
        (
            InvalidArgumentError,
            lambda: sqlite.signal_with_start(connection, basket, 1, "add", instance_id="b", on_existing="return"),  # type: ignore[arg-type]
        ),
    ]
    for kind, call in ask:
        with pytest.raises(kind):
            call()
        assert connection.in_transaction
        assert list(connection.iterdump()) == before
    sqlite.start(connection, ship_order, 2, instance_id="free")
    connection.commit()
    assert worked_off(path) == {"taken": 2, "free": 4}


# ---- which connections


def test_outside_of_a_transaction_nothing_is_written(path: Path) -> None:
    before = everything(path)
    for isolation_level in ("DEFERRED", "IMMEDIATE", None):
        with closing(sqlite3.connect(path, isolation_level=isolation_level)) as connection:
            with pytest.raises(NoTransactionError, match="BEGIN IMMEDIATE"):
                sqlite.start(connection, ship_order, 1)
            assert not connection.in_transaction
    assert everything(path) == before


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "SAVEPOINT theirs", None])
@pytest.mark.parametrize("isolation_level", ["DEFERRED", "IMMEDIATE", "EXCLUSIVE", None])
def test_every_way_to_begin_is_a_transaction(path: Path, isolation_level: Any, begin: str | None) -> None:
    if begin is None and isolation_level is None:
        pytest.skip("nothing begins one")
    with closing(sqlite3.connect(path, isolation_level=isolation_level)) as connection:
        if begin is not None:
            connection.execute(begin)
        else:
            order(connection)
        sqlite.start(connection, ship_order, 1, instance_id="i")
        connection.commit()
    assert worked_off(path) == {"i": 2}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the attribute came with Python 3.12")
def test_a_connection_without_autocommit_is_always_in_one(path: Path) -> None:
    with closing(sqlite3.connect(path, autocommit=False)) as connection:  # type: ignore[call-overload]
        sqlite.start(connection, ship_order, 1, instance_id="i")
        connection.rollback()
        sqlite.start(connection, ship_order, 2, instance_id="j")
        connection.commit()
    with closing(sqlite3.connect(path, autocommit=True)) as connection, pytest.raises(NoTransactionError):  # type: ignore[call-overload]
        sqlite.start(connection, ship_order, 3)
    assert worked_off(path) == {"j": 4}


def test_factories_of_the_callers_do_not_matter_and_are_left_as_they_were(path: Path) -> None:
    def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
        return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}

    for number, row_factory in enumerate((sqlite3.Row, as_dict)):
        with closing(
            sqlite3.connect(path, detect_types=sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES)
        ) as connection:
            connection.row_factory = row_factory
            connection.text_factory = bytes
            order(connection, number)
            sqlite.start(connection, basket, 1, instance_id=f"b-{number}")
            sqlite.raise_event(connection, f"b-{number}", "add", number)
            with pytest.raises(InstanceExistsError):
                sqlite.start(connection, ship_order, 2, instance_id=f"b-{number}")
            assert (connection.row_factory, connection.text_factory) == (row_factory, bytes)
            connection.commit()
    assert worked_off(path) == {"b-0": [0], "b-1": [1]}


def test_a_damaged_text_is_refused_as_damage(path: Path) -> None:
    """What is no UTF-8 any more is read with another factory for text, also through the caller's connection."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        sqlite.start(connection, "basket", 1, instance_id="a")
        connection.execute("COMMIT")
        connection.execute("UPDATE instance SET status = CAST(x'52554eff' AS TEXT) WHERE id = 'a'")
        connection.text_factory = bytes
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreCorruptError, match="instance 'a'"):
            sqlite.start(connection, "basket", 1, instance_id="a", on_existing="replace_finished")
        assert connection.in_transaction
        assert connection.text_factory is bytes
        sqlite.start(connection, "basket", 1, instance_id="b")
        connection.execute("COMMIT")


def test_what_is_no_connection_is_refused(path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"sqlite3\.Connection"):
        sqlite.start(str(path), ship_order, 1)  # type: ignore[arg-type]
    connection = sqlite3.connect(path)
    connection.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        sqlite.start(connection, ship_order, 1)


# ---- which files


def test_a_file_that_is_no_hub_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path / "other.db", ":memory:"):
        with closing(sqlite3.connect(place)) as connection:
            connection.execute("CREATE TABLE orders (id INTEGER)")
            connection.execute("BEGIN")
            with pytest.raises(NotAHubError, match="no task hub"):
                sqlite.start(connection, ship_order, 1)
            assert connection.in_transaction


@pytest.mark.parametrize(("step", "kind"), [(1, NewerSchemaError), (-1, StoreUnavailableError)])
def test_a_hub_of_another_format_is_refused(path: Path, step: int, kind: type[Exception]) -> None:
    version = schema.migrations()[-1][0] + step
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
        order(connection)
        with pytest.raises(kind, match=str(version)):
            sqlite.start(connection, ship_order, 1)


def test_a_temporary_table_that_hides_the_hubs_is_refused(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TEMP TABLE inbox (number INTEGER)")
    order(connection)
    with pytest.raises(InvalidArgumentError, match="'inbox'"):
        sqlite.start(connection, ship_order, 1)


# ---- who else writes


def test_a_transaction_that_has_read_and_is_out_of_date_has_to_begin_again(
    path: Path, connection: sqlite3.Connection
) -> None:
    connection.execute("BEGIN")
    assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)
    with closing(sqlite3.connect(path)) as faster:
        order(faster)
        sqlite.start(faster, ship_order, 1, instance_id="theirs")
        faster.commit()
    with pytest.raises(StoreBusyError, match="BEGIN IMMEDIATE"):
        sqlite.start(connection, ship_order, 2, instance_id="ours")
    assert connection.in_transaction
    connection.rollback()
    connection.execute("BEGIN IMMEDIATE")
    sqlite.start(connection, ship_order, 2, instance_id="ours")
    connection.commit()
    assert worked_off(path) == {"theirs": 2, "ours": 4}


def test_a_transaction_that_has_read_does_not_wait_for_a_writer(path: Path, connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM orders").fetchone()
    with closing(sqlite3.connect(path)) as writer:
        order(writer)
        with pytest.raises(StoreBusyError):
            sqlite.start(connection, ship_order, 2)
        writer.rollback()
    sqlite.start(connection, ship_order, 2, instance_id="i")
    connection.commit()
    assert worked_off(path) == {"i": 4}


async def test_workers_clients_and_callers_who_all_write_never_share_a_number(path: Path) -> None:
    def caller(name: str) -> None:
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            for number in range(20):
                connection.execute("BEGIN IMMEDIATE")
                sqlite.signal_with_start(connection, basket, 60, "add", f"{name}-{number}", instance_id="b")
                connection.commit() if number % 4 else connection.rollback()

    async with TaskHub(path, app, limits=Limits(grace=timedelta(0))) as hub, Client(path) as client:

        async def asks(name: str, by: Client) -> None:
            for number in range(15):
                await by.signal_with_start(basket, 60, "add", f"{name}-{number}", instance_id="b")

        await asyncio.gather(
            asyncio.to_thread(caller, "c"),
            asyncio.to_thread(caller, "d"),
            asks("w", hub.client),
            asks("x", client),
        )
        expected = {f"{name}-{n}" for name in "cd" for n in range(20) if n % 4} | {
            f"{name}-{n}" for name in "wx" for n in range(15)
        }
        items = await hub.client.get("b").result(LIMIT)
        assert len(items) == 60
        assert set(items) == expected
        for name in "cdwx":  # in order per sender
            own = [int(item[2:]) for item in items if item[0] == name]
            assert own == sorted(own)


def test_a_process_that_dies_in_the_middle_leaves_neither(path: Path) -> None:
    program = f"""
import os, sqlite3
from replayflow import sqlite
for number in range(3):
    connection = sqlite3.connect({str(path)!r})
    connection.execute("INSERT INTO orders (id) VALUES (?)", (number,))
    sqlite.start(connection, "ship", number, instance_id=f"order-{{number}}")
    if number == 2:
        os.kill(os.getpid(), 9)
    connection.commit()
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -9
    assert orders(path) == [0, 1]
    assert worked_off(path) == {"order-0": 0, "order-1": 2}
