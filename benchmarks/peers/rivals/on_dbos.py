"""The workloads on DBOS, in one process beside its database: SQLite in WAL mode, or the PostgreSQL of `$REPLAYFLOW_BENCH_POSTGRES`.

python -m benchmarks.peers.rivals.on_dbos sqlite chain 200

What was chosen for speed, and which of DBOS's own pages it is from:
- An activity is a step ("Steps"): one checkpoint, one write. A child workflow or a queued one costs several.
- Everything is a coroutine ("Workflows"), and a fan is `asyncio.gather` of steps.
- `max_executor_threads` and `sys_db_pool_size` ("DBOS Configuration"): the defaults, threads without limit and 20 connections, are slower for
  work as small as this. `THREADS` is the fastest of 1, 2, 4, 8, 10, 20 and 64; README.md has the figures.
- `notification_listener_polling_interval_sec` is 10 ms and not a second: SQLite has no LISTEN/NOTIFY, so that an event is found by asking.
- Events are sent by `send_bulk_async`, in one transaction.
- Logs at ERROR, no tracing, no conductor.
DBOS leaves SQLite in its rollback journal. WAL mode is faster and stays with the file, so the file is put into it first; `synchronous` is FULL
by default, which is what ours has.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
from dbos import DBOS, DBOSConfig, SendMessage, SetWorkflowID
from psycopg.sql import SQL, Identifier
from sqlalchemy import make_url

from benchmarks.peers.workload import Figures, Workload, main, percentiles, rate

THREADS = {"sqlite": 1, "postgres": 4}
POSTGRES = "REPLAYFLOW_BENCH_POSTGRES"
waiting: list[int] = []  # which workflows of this process have their 20 results behind them


@DBOS.step()
async def add_one(x: int) -> int:
    return x + 1


@DBOS.workflow()
async def chain(x: int) -> int:
    for _ in range(5):
        x = await add_one(x)
    return x


@DBOS.workflow()
async def long(n: int) -> int:
    x = 0
    for _ in range(n):
        x = await add_one(x)
    return x


@DBOS.workflow()
async def fan(n: int) -> int:
    return sum(await asyncio.gather(*[add_one(i) for i in range(n)]))


@DBOS.workflow()
async def wait(x: int) -> int:
    for _ in range(20):
        x = await add_one(x)
    waiting.append(x)
    more: int = await DBOS.recv_async("go", timeout_seconds=3600)
    return x + more


async def measure_chain(n: int, url: str) -> Figures:
    with _launched(url):
        await chain(0)
        began = time.perf_counter()
        handles = await asyncio.gather(*[DBOS.start_workflow_async(chain, i) for i in range(n)])
        assert await asyncio.gather(*[handle.get_result() for handle in handles]) == [i + 5 for i in range(n)]
        return rate(5 * n, began)


async def measure_fan(n: int, url: str) -> Figures:
    with _launched(url):
        await chain(0)
        began = time.perf_counter()
        assert await fan(n) == n * (n + 1) // 2
        return rate(n, began)


async def measure_latency(n: int, url: str) -> Figures:
    with _launched(url):
        await chain(0)
        times = []
        for i in range(n):
            began = time.perf_counter()
            assert await chain(i) == i + 5
            times.append(time.perf_counter() - began)
    return percentiles(times)


async def measure_long(n: int, url: str) -> Figures:
    with _launched(url):
        await chain(0)
        began = time.perf_counter()
        assert await long(n) == n
        return rate(n, began)


async def measure_recover(n: int, url: str) -> Figures:
    """The first process ends where it stands, its workflows waiting; this one recovers them as it launches."""
    first = ["-m", "benchmarks.peers.rivals.on_dbos", "leave", str(n), url]
    assert await (await asyncio.create_subprocess_exec(sys.executable, *first)).wait() == 0
    began = time.perf_counter()
    with _launched(url):
        await DBOS.send_bulk_async([SendMessage(f"w{i}", 1000, topic="go") for i in range(n)])
        # One query for all of them asks less of the database than a handle for each, which would ask by itself.
        while len(done := await DBOS.list_workflows_async(workflow_id_prefix="w", status="SUCCESS")) < n:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        figures = {"recover_s": time.perf_counter() - began}
        assert {state.workflow_id: state.output for state in done} == {f"w{i}": i + 1020 for i in range(n)}
    return figures


async def leave(n: int, url: str) -> None:
    """Ends the process, without a word to DBOS, once n workflows wait for their events."""
    with _launched(url):
        for i in range(n):
            with SetWorkflowID(f"w{i}"):
                await DBOS.start_workflow_async(wait, i)
        while len(waiting) < n:  # noqa: ASYNC110 - not measured
            await asyncio.sleep(0.01)
        os._exit(0)


@contextmanager
def _launched(url: str) -> Iterator[None]:
    threads = THREADS["sqlite" if url.startswith("sqlite") else "postgres"]
    DBOS(
        config=DBOSConfig(
            name="bench",
            application_version="1",  # recovery asks for the version that a workflow was started by
            executor_id="bench",
            system_database_url=url,
            sys_db_pool_size=threads,
            max_executor_threads=threads,
            notification_listener_polling_interval_sec=0.01,
            log_level="ERROR",
        )
    )
    DBOS.launch()
    try:
        yield
    finally:
        DBOS.destroy()


def _on(database: str, measure: Callable[[int, str], Awaitable[Figures]]) -> Workload:
    async def run(n: int, folder: Path) -> Figures:
        with _sqlite(folder) if database == "sqlite" else _postgres() as url:
            return await measure(n, url)

    return run


@contextmanager
def _sqlite(folder: Path) -> Iterator[str]:
    path = folder / "dbos.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma journal_mode=wal").fetchone() == ("wal",)
    yield f"sqlite:///{path}"


@contextmanager
def _postgres() -> Iterator[str]:
    """A database of its own on the server, gone afterwards."""
    server = make_url(os.environ[POSTGRES]).set(drivername="postgresql")
    name = f"replayflow_bench_{uuid.uuid4().hex}"
    with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(SQL("create database {}").format(Identifier(name)))
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(SQL("drop database {} with (force)").format(Identifier(name)))


WORKLOADS = {
    "chain": measure_chain,
    "fan": measure_fan,
    "latency": measure_latency,
    "long": measure_long,
    "recover": measure_recover,
}

if __name__ == "__main__":
    if sys.argv[1] == "leave":
        asyncio.run(leave(int(sys.argv[2]), sys.argv[3]))
    main(f"dbos-{sys.argv[1]}", {name: _on(sys.argv[1], measure) for name, measure in WORKLOADS.items()})
