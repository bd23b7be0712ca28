"""What the workers serve that are stopped, starved and killed here: `replayflow worker tests.violence.app:app`."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from replayflow import ActivityContext, App, Orchestration, OrchestrationContext, Transaction, when_all

app = App()
WEIGHT = 500_000


def note(folder: str, name: str, text: object) -> None:
    """A line more is in the file; other processes may write into it, too."""
    with (Path(folder) / name).open("a") as file:
        file.write(f"{text}\n")


def is_there(folder: str, name: str) -> bool:
    return (Path(folder) / name).exists()


@app.activity
async def add(x: int) -> int:
    return x + 1


@app.activity
async def held(ctx: ActivityContext, folder: str) -> int:
    """Notes its key, and hangs until `go` is there."""
    note(folder, "held", ctx.idempotency_key)
    while not is_there(folder, "go"):  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.005)
    return os.getpid()


@app.activity
def held_in_thread(ctx: ActivityContext, folder: str) -> int:
    note(folder, "held", ctx.idempotency_key)
    while not is_there(folder, "go"):
        time.sleep(0.005)
    return os.getpid()


@app.activity(executor="process")
def held_in_process(ctx: ActivityContext, folder: str) -> int:
    note(folder, "held", ctx.idempotency_key)
    while not is_there(folder, "go"):
        time.sleep(0.005)
    return os.getppid()


@app.activity
async def heavy(folder: str) -> bytes:
    """Something that takes room, once `go` is there."""
    note(folder, "held", "heavy")
    while not is_there(folder, "go"):  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.005)
    return os.urandom(WEIGHT)


@app.activity(transactional=True)
def deposit(tx: Transaction, amount: int) -> int:
    tx.execute("CREATE TABLE IF NOT EXISTS account (amount INTEGER NOT NULL)")
    tx.execute("INSERT INTO account VALUES (?)", (amount,))
    [(balance,)] = tx.execute("SELECT sum(amount) FROM account")
    return int(balance)


@app.activity
async def hog(megabytes: int) -> int:
    return len(bytearray(megabytes << 20))


@app.activity
def in_thread(x: int) -> int:
    return x + 1


@app.activity(executor="process")
def in_process(x: int) -> int:
    return x + 1


@app.activity
def forks(how: tuple[str, str]) -> int:
    """Forks in the way that is asked for; the exit code of what it has forked. Of one that stays the id is noted."""
    way, folder = how
    if is_there(folder, "left"):
        return 0  # once is enough
    if way == "fork":
        process = get_context("fork").Process(target=gc.collect)
        process.start()
        process.join()
        return int(process.exitcode or 0)
    child = os.fork()
    if child == 0:
        if way == "closes":  # as the end of a program does
            for each in gc.get_objects():
                if isinstance(each, sqlite3.Connection):
                    each.close()
        elif way == "stays":
            note(folder, "left", os.getpid())
            time.sleep(600)
        gc.collect()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@app.orchestrator
def one(ctx: OrchestrationContext, call: tuple[str, Any]) -> Orchestration[Any]:
    return (yield from ctx.call_activity(*call))


@app.orchestrator
def hogs(ctx: OrchestrationContext, megabytes: int) -> Orchestration[int]:
    """Takes the memory itself."""
    taken = bytearray(megabytes << 20)
    return (yield from ctx.call_activity(add, len(taken)))


@app.orchestrator
def waits(ctx: OrchestrationContext) -> Orchestration[int]:
    got = yield from ctx.wait_for_external_event("go", type=int)
    return (yield from ctx.call_activity(add, got))


@app.orchestrator
def holds(ctx: OrchestrationContext, folder: str) -> Orchestration[list[Any]]:
    """Waits in every kind of activity at once, then for an event, then saves."""
    pids = yield from when_all([ctx.call_activity(each, folder) for each in (held, held_in_thread, held_in_process)])
    saved = yield from ctx.call_activity(deposit, 1)
    return [*pids, saved]


@app.orchestrator
def chain(ctx: OrchestrationContext, length: int) -> Orchestration[int]:
    count = 0
    for _ in range(length):
        count = yield from ctx.call_activity(add, count)
    return count


@app.orchestrator
def weighs(ctx: OrchestrationContext, folder: str) -> Orchestration[int]:
    return len((yield from ctx.call_activity(heavy, folder)))


@app.orchestrator
def fills(ctx: OrchestrationContext, length: int) -> Orchestration[int]:
    """A history that grows by some kilobytes with each event that it is sent."""
    got = 0
    for _ in range(length):
        got += len((yield from ctx.wait_for_external_event("more", type=bytes)))
    return got
