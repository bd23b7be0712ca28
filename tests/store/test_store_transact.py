"""A transactional activity's one run: whatever is asked twice, late, or by the wrong worker, it has happened once and as a whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from replayflow.core import rows
from replayflow.core.commit import RowState
from replayflow.core.events import TaskScheduled
from replayflow.core.instance import Status
from replayflow.core.transaction import Statements
from replayflow.errors import LeaseLostError, StoreBusyError, StoreFullError, TransactionTimeoutError
from replayflow.store import SqliteStore, Store
from replayflow.store.base import Delivery, Park, Raised, Transact
from tests.store.builders import OWNER, accepted, commit, create, end, start

Run = Callable[[Statements], bytes]
RESULT = b"the result"


class Counter:
    """What was written, by how many runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, statements: Statements) -> bytes:
        self.runs += 1
        statements.execute("CREATE TABLE IF NOT EXISTS own (run)", ())
        statements.execute("INSERT INTO own VALUES (?)", (self.runs,))
        return RESULT


def wanted(run: Run, *, execution: str = "x1", task: int = 1, id: str = "a") -> Transact:
    return Transact(id, execution, task, run, 1.0)


def owes(task: int) -> TaskScheduled:
    return TaskScheduled(task, "count", None, "", None, None)


async def written(store: Store, epoch: int) -> list[Any]:
    """What the table has, as another activity's run sees it."""
    found: list[Any] = []

    def look(statements: Statements) -> bytes:
        statements.execute("CREATE TABLE IF NOT EXISTS own (run)", ())
        found.extend(statements.execute("SELECT run FROM own ORDER BY run", ())[0])
        raise LookupError("seen")

    await store.write([create("looks")], epoch)  # which may be there
    with pytest.raises(Raised):
        await store.transact(wanted(look, id="looks"), epoch)
    return [run for (run,) in found]


@pytest.fixture
async def epoch(store: Store) -> int:
    epoch = await store.acquire(OWNER)
    await accepted(store, create(), epoch=epoch)
    return epoch


async def test_the_result_is_in_the_inbox_with_the_next_number(store: Store, epoch: int) -> None:
    delivery = await store.transact(wanted(Counter()), epoch)
    assert delivery is not None
    assert delivery == Delivery(delivery.number, "a", RESULT, "x1")
    assert await store.arrived(0, 10) == [delivery]
    [following] = await accepted(store, commit(messages=[]), epoch=epoch)
    assert not following.deliveries


async def test_it_runs_once_however_often_it_is_asked_for(store: Store, epoch: int) -> None:
    run = Counter()
    delivery = await store.transact(wanted(run), epoch)
    assert delivery is not None
    assert await store.transact(wanted(run), epoch) is None
    await accepted(store, commit(consumed=[delivery.number]), epoch=epoch)
    assert await store.transact(wanted(run), epoch) is None
    assert run.runs == 1
    assert await written(store, epoch) == [1]
    assert await store.transact(wanted(run, task=2), epoch) is not None


async def test_what_raises_has_written_nothing_and_may_run_again(store: Store, epoch: int) -> None:
    def fails(statements: Statements) -> bytes:
        Counter()(statements)
        raise ValueError("on second thoughts")

    with pytest.raises(Raised) as raised:
        await store.transact(wanted(fails), epoch)
    assert isinstance(raised.value.error, ValueError)
    assert await store.arrived(0, 10) == []
    assert await written(store, epoch) == []
    assert await store.transact(wanted(Counter()), epoch) is not None
    assert await written(store, epoch) == [1]


async def test_a_worker_that_has_lost_the_hub_runs_nothing(store: Store, epoch: int) -> None:
    run = Counter()
    with pytest.raises(LeaseLostError):
        await store.transact(wanted(run), epoch - 1)
    assert run.runs == 0


@pytest.mark.parametrize("case", ["unknown", "another execution", "ended", "replaced"])
async def test_what_nobody_waits_for_does_not_run(store: Store, epoch: int, case: str) -> None:
    run = Counter()
    task = wanted(run)
    if case == "unknown":
        task = wanted(run, id="nobody")
    elif case == "another execution":
        task = wanted(run, execution="x0")
    else:
        await accepted(store, commit(state=RowState(Status.TERMINATED, None)), epoch=epoch)
        if case == "replaced":
            await accepted(store, create("a", "x2", "replace_finished"), epoch=epoch)
    assert await store.transact(task, epoch) is None
    assert run.runs == 0
    assert await store.arrived(0, 10) == []


async def test_what_an_ended_execution_owes_runs_once_and_tells_nobody(store: Store, epoch: int) -> None:
    run = Counter()
    owed = rows.encode_orphans([("x1", owes(7))])
    state = RowState(Status.COMPLETED, 0, orphans=owed)
    await accepted(store, commit(state=state), epoch=epoch)
    assert await store.transact(wanted(run, task=7), epoch) is None
    assert await store.transact(wanted(run, task=7), epoch) is None
    assert await store.transact(wanted(run, task=8), epoch) is None
    assert run.runs == 1
    assert await store.arrived(0, 10) == []


async def test_an_end_that_was_decided_before_the_result_was_heard_does_not_run_it_again(
    store: Store, epoch: int
) -> None:
    """The end says that the task is owed: its result came while the end was on its way."""
    run = Counter()
    assert await store.transact(wanted(run, task=7), epoch) is not None
    owed = rows.encode_orphans([("x1", owes(7))])
    await accepted(store, commit(state=RowState(Status.COMPLETED, 0, orphans=owed)), epoch=epoch)
    assert await store.transact(wanted(run, task=7), epoch) is None
    assert run.runs == 1


async def test_marks_of_an_execution_that_still_owes_survive_the_next_ones_runs(store: Store, epoch: int) -> None:
    run = Counter()
    owed = rows.encode_orphans([("x1", owes(7)), ("x1", owes(8))])
    ending = commit(state=RowState(Status.CONTINUED_AS_NEW, 0, orphans=owed), next_start=start("a", "x2"))
    await accepted(store, ending, epoch=epoch)
    await store.transact(wanted(run, task=7), epoch)
    await store.transact(wanted(run, execution="x2", task=1), epoch)
    await store.transact(wanted(run, task=7), epoch)
    assert run.runs == 2
    await store.transact(wanted(run, task=8), epoch)
    assert run.runs == 3


async def test_a_parked_instance_has_its_result_wait(store: Store, epoch: int) -> None:
    await accepted(store, Park("a", "x1", b"no code"), epoch=epoch)
    delivery = await store.transact(wanted(Counter()), epoch)
    assert delivery is not None
    assert not delivery.takes_messages


async def test_what_swallows_its_time_limit_is_rolled_back_all_the_same(store: Store, epoch: int) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"

    def swallows(statements: Statements) -> bytes:
        Counter()(statements)
        with pytest.raises(TransactionTimeoutError):
            statements.execute(endless, ())
        return RESULT

    with pytest.raises(Raised) as raised:
        await store.transact(Transact("a", "x1", 1, swallows, 0.02), epoch)
    assert isinstance(raised.value.error, TransactionTimeoutError)
    assert await written(store, epoch) == []


@pytest.mark.parametrize("deferred", ["", "DEFERRABLE INITIALLY DEFERRED"])
async def test_a_broken_foreign_key_is_the_activitys_failure_also_at_the_end(
    store: Store, epoch: int, deferred: str
) -> None:
    def breaks(statements: Statements) -> bytes:
        Counter()(statements)
        statements.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)", ())
        statements.execute(f"CREATE TABLE child (parent INTEGER REFERENCES parent (id) {deferred})", ())
        statements.execute("INSERT INTO child VALUES (1)", ())
        return RESULT

    with pytest.raises(Raised) as raised:
        await store.transact(wanted(breaks), epoch)
    assert isinstance(raised.value.error, sqlite3.IntegrityError)
    assert await written(store, epoch) == []
    assert await store.arrived(0, 10) == []
    assert await store.transact(wanted(Counter()), epoch) is not None


async def test_the_next_group_is_not_under_the_authorizer(store: Store, epoch: int) -> None:
    def is_denied(statements: Statements) -> bytes:
        statements.execute("DELETE FROM inbox", ())
        return RESULT

    with pytest.raises(Raised):
        await store.transact(wanted(is_denied), epoch)
    await accepted(store, commit(), end(sequence=2), epoch=epoch)


async def test_a_busy_file_runs_nothing_and_a_full_one_keeps_nothing(sqlite: SqliteStore) -> None:
    epoch = await sqlite.acquire(OWNER)
    await accepted(sqlite, create(), epoch=epoch)
    run = Counter()
    await sqlite.transact(wanted(run, task=9), epoch)
    await sqlite._write(lambda _: sqlite._users_connection().execute("PRAGMA busy_timeout = 20").fetchall())
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError):
            await sqlite.transact(wanted(run), epoch)
        other.execute("ROLLBACK")
    assert run.runs == 1

    def fills(statements: Statements) -> bytes:
        statements.execute("INSERT INTO own VALUES (zeroblob(100000))", ())
        return RESULT

    [[pages]] = await sqlite._write(lambda c: c.execute("PRAGMA page_count").fetchall())
    limit = f"PRAGMA max_page_count = {pages}"
    await sqlite._write(lambda _: sqlite._users_connection().execute(limit).fetchall())
    with pytest.raises(StoreFullError):  # the store's trouble, and not the activity's failure
        await sqlite.transact(wanted(fills), epoch)
    await sqlite._write(lambda _: sqlite._users_connection().execute("PRAGMA max_page_count = 100000").fetchall())
    assert await sqlite.transact(wanted(fills), epoch) is not None


async def test_what_a_failed_execution_owes_tells_its_result_all_the_same(store: Store, epoch: int) -> None:
    orphans = rows.encode_orphans([("x1", owes(1))])
    for id, status in (("b", Status.FAILED), ("c", Status.COMPLETED)):
        ended = commit(id, "x1", 1, state=RowState(status, 0, completed_at=1, orphans=orphans))
        await accepted(store, create(id, "x1"), ended, epoch=epoch)
    run = Counter()
    delivery = await store.transact(wanted(run, id="b"), epoch)
    assert delivery is not None
    assert delivery == Delivery(delivery.number, "b", RESULT, "x1")
    assert await store.transact(wanted(run, id="b"), epoch) is None
    assert await store.transact(wanted(run, id="c"), epoch) is None  # which nobody can rewind
    assert run.runs == 2
