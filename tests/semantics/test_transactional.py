"""Transactional activities: what they write and what they return is one thing, and what is not theirs to do is refused."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from replayflow import (
    ActivityContext,
    App,
    Client,
    InvalidArgumentError,
    MapResult,
    NonRetryableError,
    Orchestration,
    OrchestrationContext,
    RegistrationError,
    RetryPolicy,
    TaskHub,
    Transaction,
    race,
    when_all,
)
from replayflow.store.sqlite.guard import engine_names
from tests.semantics.kit import LIMIT, Place, failure_of, kinds, until, until_recorded

CREATE = "CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, count INTEGER NOT NULL)"
COUNT = "INSERT INTO counter VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count"
AT_ONCE = RetryPolicy(max_attempts=3, first_interval=timedelta(0))


def an_app() -> App:
    app = App()

    @app.activity(transactional=True)
    def count(tx: Transaction, name: str) -> int:
        tx.execute(CREATE)
        [(counted,)] = tx.execute(COUNT, (name,))
        return int(counted)

    @app.activity(transactional=True)
    def read(tx: Transaction) -> list[tuple[str, int]]:
        tx.execute(CREATE)
        return tx.execute("SELECT name, count FROM counter ORDER BY name")

    @app.activity(transactional=True, retry=AT_ONCE)
    def fails_twice(tx: Transaction, name: str) -> int:
        tx.execute(CREATE)
        [(counted,)] = tx.execute(COUNT, (name,))
        if tx.attempt < 3:
            raise ValueError(f"attempt {tx.attempt}")
        return int(counted)

    @app.activity(transactional=True, retry=AT_ONCE)
    def fails(tx: Transaction, name: str) -> None:
        tx.execute(CREATE)
        tx.execute(COUNT, (name,))
        raise NonRetryableError("no more of it")

    @app.activity(transactional=True)
    def returns_nonsense(tx: Transaction) -> object:
        tx.execute(CREATE)
        tx.execute(COUNT, ("nonsense",))
        return object()

    @app.activity(transactional=True, retry=AT_ONCE)
    def runs(tx: Transaction, statements: list[str]) -> int:
        tx.execute(CREATE)
        tx.execute(COUNT, ("run",))
        for statement in statements:
            tx.execute(statement)
        return tx.attempt

    @app.orchestrator
    def counts(ctx: OrchestrationContext, names: list[str]) -> Orchestration[list[int]]:
        return (yield from when_all([ctx.call_activity(count, name) for name in names]))

    @app.orchestrator
    def calls(ctx: OrchestrationContext, call: tuple[str, Any]) -> Orchestration[Any]:
        return (yield from ctx.call_activity(*call))

    @app.orchestrator
    def leaves(ctx: OrchestrationContext, name: str) -> str:
        ctx.call_activity(count, name)
        return "left"

    @app.orchestrator
    def eternal(ctx: OrchestrationContext, left: int) -> Orchestration[int]:
        counted = yield from ctx.call_activity(count, "eternal")
        ctx.call_activity(count, "left behind")
        if left:
            ctx.continue_as_new(left - 1)
        return counted

    return app


async def counted(hub: TaskHub) -> dict[str, int]:
    """What the counters have, by name."""
    reading = await hub.client.start("calls", ("read", None))
    return dict(await reading.result(LIMIT))


# ---- one commit


async def test_writes_and_result_are_there_together_and_once(place: Place) -> None:
    async with place.hub(an_app()) as hub:
        instance = await hub.client.start("counts", ["a", "b", "a", "a"])
        assert sorted(await instance.result(LIMIT)) == [1, 1, 2, 3]
        assert await counted(hub) == {"a": 3, "b": 1}
        assert (await kinds(instance)).count("TaskCompleted") == 4


async def test_the_tables_are_there_for_the_next_worker(place: Place) -> None:
    for expected in (1, 2):
        async with place.hub(an_app()) as hub:
            assert await (await hub.client.start("counts", ["a"])).result(LIMIT) == [expected]


async def test_an_error_takes_back_what_was_written_and_is_retried_as_any_other(place: Place) -> None:
    async with place.hub(an_app()) as hub:
        instance = await hub.client.start("calls", ("fails_twice", "a"))
        assert await instance.result(LIMIT) == 1
        assert (await kinds(instance)).count("TaskAttemptFailed") == 2
        failed = await failure_of(await hub.client.start("calls", ("fails", "b")))
        assert failed.inner is not None
        assert failed.inner.message == "no more of it"
        assert await counted(hub) == {"a": 1}


async def test_a_result_that_cannot_be_encoded_takes_back_what_was_written(place: Place) -> None:
    async with place.hub(an_app()) as hub:
        failed = await failure_of(await hub.client.start("calls", ("returns_nonsense", None)))
        assert "result of activity 'returns_nonsense'" in str(failed)
        assert await counted(hub) == {}


async def test_what_an_ended_execution_left_behind_runs_once(place: Place) -> None:
    async with place.hub(an_app()) as hub:
        assert await (await hub.client.start("leaves", "a")).result(LIMIT) == "left"
        assert await (await hub.client.start("eternal", 5)).result(LIMIT) == 6

        async def all_have_run() -> bool:
            return await counted(hub) == {"a": 1, "eternal": 6, "left behind": 6}

        await until(all_have_run)
    async with place.hub(an_app()) as hub:
        assert await counted(hub) == {"a": 1, "eternal": 6, "left behind": 6}


async def test_an_instance_that_was_suspended_meanwhile_has_the_result_when_it_is_resumed(place: Place) -> None:
    app = an_app()
    hold = asyncio.Event()

    @app.activity
    async def waits() -> None:
        await hold.wait()

    @app.orchestrator
    def both(ctx: OrchestrationContext) -> Orchestration[int]:
        yield from ctx.call_activity(waits)
        return (yield from ctx.call_activity("count", "a", result_type=int))

    async with place.hub(app) as hub:
        instance = await hub.client.start(both)
        await until_recorded(instance, "TaskScheduled")
        await instance.suspend()
        await until_recorded(instance, "ExecutionSuspended")
        hold.set()
        await instance.resume()
        assert await instance.result(LIMIT) == 1
        assert await counted(hub) == {"a": 1}


async def test_what_nobody_wants_any_more_before_its_turn_does_not_run(place: Place) -> None:
    app = an_app()
    ran: list[str] = []

    @app.activity(transactional=True)
    def slow(tx: Transaction, name: str) -> str:
        ran.append(name)
        time.sleep(0.2)
        return name

    @app.orchestrator
    def races(ctx: OrchestrationContext) -> Orchestration[str]:
        first = ctx.call_activity(slow, "first")
        return (yield from race([first, ctx.call_activity(slow, "second"), ctx.call_activity(slow, "third")]))

    @app.orchestrator
    def wants(ctx: OrchestrationContext, name: str) -> Orchestration[list[str]]:
        return (yield from when_all([ctx.call_activity(slow, f"{name} {n}") for n in range(20)]))

    async with place.hub(app) as hub:
        assert await (await hub.client.start(races)).result(LIMIT) == "first"
        doomed = await hub.client.start(wants, "doomed")
        await until_recorded(doomed, "TaskScheduled")
        await doomed.terminate()
        await doomed.wait(LIMIT)
        # Behind what was in line: when it has run, all that would have run has.
        assert await (await hub.client.start("counts", ["a"])).result(LIMIT) == [1]
    assert "third" not in ran
    assert len([name for name in ran if name.startswith("doomed")]) <= 5


async def test_a_result_that_its_worker_did_not_live_to_hear_is_heard_by_the_next(place: Place) -> None:
    """The worker ends while the transaction is under way: it is committed, stands in the inbox, and is not run again."""
    app = an_app()
    has_begun = threading.Event()
    runs: list[int] = []

    @app.activity(transactional=True)
    def slow(tx: Transaction) -> int:
        tx.execute(CREATE)
        tx.execute(COUNT, ("slow",))
        runs.append(tx.attempt)
        has_begun.set()
        time.sleep(0.1)
        return 7

    async with place.hub(app, grace=timedelta(0)) as hub:
        await hub.client.start("calls", ("slow", None), instance_id="slow")
        await asyncio.to_thread(has_begun.wait, LIMIT)
    async with place.hub(app) as hub:
        assert await hub.client.get("slow").result(LIMIT) == 7
        assert await counted(hub) == {"slow": 1}
    assert runs == [1]


# ---- what is refused

ENGINES = (
    "hub",
    "instance",
    "history",
    "execution",
    "inbox",
    "dedupe",
    "served",
    "suspect",
    "transacted",
    "payload",
    "payload_use",
    "purged",
    "tag",
)
FORBIDDEN = [
    *("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT s", "RELEASE s", "ROLLBACK TO s"),
    *("ATTACH ':memory:' AS other", "DETACH main", "VACUUM", "VACUUM INTO '/tmp/never-written.db'"),
    *(
        "PRAGMA journal_mode = DELETE",
        "PRAGMA synchronous = OFF",
        "PRAGMA user_version = 7",
        "PRAGMA writable_schema = ON",
    ),
    *("PRAGMA query_only", "PRAGMA wal_checkpoint", "SELECT * FROM pragma_database_list"),
    *("CREATE TEMP TABLE inbox (number)", "CREATE TEMP VIEW hub AS SELECT 1", "CREATE TABLE temp.hub (epoch)"),
    "CREATE TEMP TRIGGER t AFTER INSERT ON inbox BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE v USING fts5(text)",
    *("ANALYZE", "REINDEX", "SELECT load_extension('x')"),
    *(f"SELECT * FROM {table}" for table in ENGINES),
    *(f"SELECT count(*) FROM {table}" for table in ENGINES),
    *(f"DELETE FROM {table}" for table in ENGINES),
    *(f"DROP TABLE {table}" for table in ENGINES),
    *(f"ALTER TABLE {table} RENAME TO mine" for table in ENGINES),
    "INSERT INTO InBox (number, instance, is_control) VALUES (1, 1, 0)",
    "UPDATE instance SET status = 'COMPLETED'",
    "INSERT INTO counter SELECT id, 1 FROM instance",
    "WITH x AS (SELECT id FROM instance) SELECT * FROM x",
    "CREATE INDEX mine ON instance (name)",
    "CREATE TRIGGER mine AFTER INSERT ON history BEGIN SELECT 1; END",
    "DROP INDEX instance_wake",
    # the very text of a statement of the engine's, which its connection has prepared
    "SELECT name, digest FROM served",
]


@pytest.fixture(scope="module")
def forbidden_ran(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """What came of each forbidden statement, by store and statement; one hub for all of them."""

    async def run_all(kind: str) -> dict[tuple[str, str], str]:
        found = {}
        async with Place(kind, tmp_path_factory.mktemp("forbidden")).hub(an_app()) as hub:
            for statement in FORBIDDEN:
                failed = await failure_of(await hub.client.start("calls", ("runs", [statement])))
                assert await counted(hub) == {}, statement
                found[kind, statement] = str(failed)
            assert await (await hub.client.start("counts", ["a"])).result(LIMIT) == [1]
        return found

    return asyncio.run(run_all("memory")) | asyncio.run(run_all("sqlite"))


@pytest.mark.parametrize("statement", FORBIDDEN)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_forbidden_statement_fails_the_activity_and_leaves_nothing(
    kind: str, statement: str, forbidden_ran: dict[tuple[str, str], str]
) -> None:
    failure = forbidden_ran[kind, statement]
    if not statement.startswith("VACUUM"):  # which SQLite itself refuses in a transaction
        assert "ForbiddenStatementError" in failure
        assert repr(statement)[1:20] in failure


@pytest.mark.parametrize(
    "statements",
    [
        [
            "CREATE TABLE own (a, b)",
            "CREATE INDEX own_a ON own (a)",
            "ALTER TABLE own ADD COLUMN c",
            "ALTER TABLE own RENAME TO mine",
        ],
        [
            "CREATE TABLE own (a)",
            "CREATE VIEW seen AS SELECT a FROM own",
            "SELECT * FROM seen",
            "DROP VIEW seen",
            "DROP TABLE own",
        ],
        [
            "CREATE TABLE own (id INTEGER PRIMARY KEY AUTOINCREMENT)",
            "INSERT INTO own DEFAULT VALUES",
            "DELETE FROM own",
        ],
        ["CREATE TRIGGER t AFTER UPDATE ON counter BEGIN DELETE FROM counter; END", "DROP TRIGGER t"],
        ["PRAGMA table_info(counter)", "SELECT * FROM pragma_index_list('counter')", "SELECT name FROM sqlite_schema"],
        ["WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 9) SELECT upper(x) FROM n"],
    ],
)
async def test_tables_of_ones_own_can_be_made_and_used(place: Place, statements: list[str]) -> None:
    async with place.hub(an_app()) as hub:
        assert await (await hub.client.start("calls", ("runs", statements))).result(LIMIT) == 1


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE VIEW spy AS SELECT id FROM instance", "SELECT * FROM spy"],
        [
            "CREATE TRIGGER spy AFTER INSERT ON counter BEGIN DELETE FROM inbox; END",
            "INSERT INTO counter VALUES ('x', 1)",
        ],
    ],
)
async def test_views_and_triggers_are_no_way_to_the_engines_tables(place: Place, statements: list[str]) -> None:
    async with place.hub(an_app()) as hub:
        failed = await failure_of(await hub.client.start("calls", ("runs", statements)))
        assert "ForbiddenStatementError" in str(failed)
        assert await counted(hub) == {}


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE mine (x REFERENCES hub (next_number))"],
        ["CREATE TABLE mine (x REFERENCES Transacted (task) DEFERRABLE INITIALLY DEFERRED)"],
        ["CREATE TABLE mine (a)", "ALTER TABLE mine ADD COLUMN x REFERENCES instance (id) ON DELETE CASCADE"],
    ],
)
async def test_a_foreign_key_to_a_table_of_the_engines_is_refused(place: Place, statements: list[str]) -> None:
    """With the first two every later commit of a transactional activity would be an error of SQLite's."""
    async with place.hub(an_app()) as hub:
        failed = await failure_of(await hub.client.start("calls", ("runs", statements)))
        assert "ForbiddenStatementError" in str(failed)
        assert "refers to the engine's table" in str(failed)
        assert await counted(hub) == {}
        assert await (await hub.client.start("counts", ["a"])).result(LIMIT) == [1]


async def test_a_conflict_clause_that_rolls_all_back_ends_the_activity(place: Place) -> None:
    app = an_app()

    @app.activity(transactional=True)
    def swallows(tx: Transaction) -> str:
        tx.execute(CREATE)
        tx.execute("INSERT INTO counter VALUES ('a', 1)")
        for _ in range(2):
            try:
                tx.execute("INSERT OR ROLLBACK INTO counter VALUES ('a', 1)")
            except Exception:  # noqa: S110 - what a careless program does
                pass
        try:
            tx.execute("CREATE TABLE escaped (a)")
        except Exception:  # noqa: S110
            pass
        return "as if nothing had happened"

    async with place.hub(app) as hub:
        failed = await failure_of(await hub.client.start("calls", ("swallows", None)))
        assert "has rolled it back as a whole" in str(failed)
        tables = await hub.client.start("calls", ("runs", ["CREATE TABLE escaped (a)"]))
        assert await tables.result(LIMIT) == 1  # it was not there yet


async def test_a_denied_statement_that_is_caught_has_done_nothing(place: Place) -> None:
    app = an_app()

    @app.activity(transactional=True)
    def tries(tx: Transaction) -> int:
        tx.execute(CREATE)
        with pytest.raises(Exception, match="transaction control"):
            tx.execute("COMMIT")
        tx.executemany("INSERT INTO counter VALUES (?, ?)", [("a", 1), ("b", 2)])
        return tx.changed

    async with place.hub(app) as hub:
        assert await (await hub.client.start("calls", ("tries", None))).result(LIMIT) == 2
        assert await counted(hub) == {"a": 1, "b": 2}


async def test_a_transaction_that_was_kept_is_refused(place: Place) -> None:
    app = an_app()
    kept: list[Transaction] = []

    @app.activity(transactional=True)
    def keeps(tx: Transaction) -> None:
        kept.append(tx)

    async with place.hub(app) as hub:
        await (await hub.client.start("calls", ("keeps", None))).result(LIMIT)
        with pytest.raises(Exception, match="is over: use it inside"):
            kept[0].execute("SELECT 1")
        with pytest.raises(Exception, match="is over: use it inside"):
            kept[0].executemany("SELECT 1", [])


# ---- time


@pytest.mark.parametrize("way", ["statement", "python", "call"])
async def test_time_is_limited(place: Place, way: str) -> None:
    app = an_app()
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"

    @app.activity(transactional=True, timeout=timedelta(seconds=0.05))
    def takes_long(tx: Transaction) -> None:
        tx.execute(CREATE)
        tx.execute(COUNT, ("late",))
        if way == "python":
            time.sleep(0.06)
        else:
            tx.execute(endless)

    @app.orchestrator
    def asks(ctx: OrchestrationContext) -> Orchestration[None]:
        timeout = timedelta(seconds=0.02) if way == "call" else None
        yield from ctx.call_activity(takes_long, timeout=timeout)

    async with place.hub(app) as hub:
        failed = await failure_of(await hub.client.start(asks))
        assert "TransactionTimeoutError" in str(failed)
        assert "0.02 s" in str(failed) if way == "call" else "0.05 s" in str(failed)
        assert await counted(hub) == {}


# ---- registration, and maps


def test_every_table_of_the_engines_is_known_to_be_its_own() -> None:
    assert engine_names() >= set(ENGINES)


def test_what_cannot_be_transactional_is_refused_at_registration() -> None:
    app = App()

    async def coroutine(tx: Transaction) -> None: ...
    def plain(tx: Transaction) -> None: ...
    def bare(name: str) -> None: ...
    def with_context(ctx: ActivityContext, name: str) -> None: ...

    with pytest.raises(RegistrationError, match="`async def`: a transactional activity is a plain function"):
        app.activity(transactional=True)(coroutine)
    with pytest.raises(RegistrationError, match="exclude each other"):
        app.activity(transactional=True, executor="thread")(plain)
    with pytest.raises(RegistrationError, match="transactional=True instead of"):
        app.activity(executor="transaction")(plain)
    with pytest.raises(RegistrationError, match="annotate its first parameter with Transaction"):
        app.activity(transactional=True)(bare)
    with pytest.raises(RegistrationError, match="annotate its first parameter with Transaction"):
        app.activity(transactional=True)(with_context)
    with pytest.raises(RegistrationError, match="only a transactional one has"):
        app.activity(plain)
    with pytest.raises(RegistrationError, match="10 s at the most"):
        app.activity(transactional=True, timeout=timedelta(seconds=11))(plain)
    assert not app.activities


async def test_a_map_over_one_is_refused_with_what_to_do_instead(place: Place) -> None:
    app = an_app()

    @app.orchestrator
    def mapped(ctx: OrchestrationContext) -> Orchestration[MapResult[int]]:
        return (yield from ctx.map("count", ["a", "b"], result_type=int))

    @app.orchestrator
    def one(ctx: OrchestrationContext, name: str) -> Orchestration[int]:
        return (yield from ctx.call_activity("count", name, result_type=int))

    @app.orchestrator
    def over_children(ctx: OrchestrationContext) -> Orchestration[int]:
        result = yield from ctx.map(one, ["a", "b", "c"])
        return len(result.results)

    async with place.hub(app) as hub:
        failed = await failure_of(await hub.client.start(mapped))
        assert failed.type == InvalidArgumentError.__name__
        assert "map over an orchestrator that does" in failed.message
        assert await (await hub.client.start(over_children)).result(LIMIT) == 3
        assert await counted(hub) == {"a": 1, "b": 1, "c": 1}


# ---- the hub's file


async def test_other_programs_see_the_tables_in_the_hubs_file(place: Place) -> None:
    async with place.hub(an_app()) as hub:
        await (await hub.client.start("counts", ["a", "a"])).result(LIMIT)
        if place.path.exists():
            with closing(sqlite3.connect(place.path)) as connection:
                assert connection.execute("SELECT * FROM counter").fetchall() == [("a", 2)]
            async with Client(place.path) as client:
                assert await (await client.start("counts", ["a"])).result(LIMIT) == [3]


def fails_beside_it(app: App, broken: list[str]) -> None:
    """An orchestrator whose activity fails while transactional ones are yet to run, as long as there is something in `broken`."""

    @app.activity(transactional=True)
    def fail(tx: Transaction) -> None:
        if broken:
            raise ValueError("broken")

    @app.orchestrator
    def counts_beside(ctx: OrchestrationContext, names: list[str]) -> Orchestration[list[Any]]:
        tasks: list[Any] = [ctx.call_activity(fail), *(ctx.call_activity("count", name) for name in names)]
        return (yield from when_all(tasks, fail_fast=True))


async def test_what_ran_after_its_instance_had_failed_is_not_run_again_by_a_rewind(place: Place) -> None:
    app, broken = an_app(), ["yes"]
    fails_beside_it(app, broken)
    async with place.hub(app) as hub:
        instance = await hub.client.start("counts_beside", ["a", "b", "c"], instance_id="i")
        await failure_of(instance)
        await until_recorded(instance, "TaskCompleted", 3)
        broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == [None, 1, 1, 1]
        assert await instance.purge() == 1  # and nothing is owed any more


async def test_a_rewind_that_comes_at_any_moment_runs_none_twice(place: Place) -> None:
    app, broken = an_app(), ["yes"]
    fails_beside_it(app, broken)
    names = [f"n{number}" for number in range(10)]
    async with place.hub(app) as hub:
        instance = await hub.client.start("counts_beside", names, instance_id="i")
        await failure_of(instance)
        for _ in range(5):
            await instance.rewind()  # while some are still to run
            await failure_of(instance)
        broken.clear()
        await instance.rewind()
        assert await instance.result(LIMIT) == [None] + [1] * len(names)
