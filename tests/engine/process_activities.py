"""Activities that tests run in processes: a spawned process finds them here."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from replayflow import ActivityContext, App, NonRetryableError, RetryAfter

app = App()


@app.activity(executor="process")
def square(x: int) -> int:
    return x * x


@app.activity(executor="process")
def whereabouts(x: int) -> int:
    time.sleep(0.05)
    return os.getpid()


@app.activity(executor="process")
def dies(path: str) -> int:
    """Ends its process at the first call, so that a second try succeeds."""
    marker = Path(path)
    if marker.exists():
        return 1
    marker.touch()
    os._exit(7)


@app.activity(executor="process")
def waits_for_file(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.005)
    return "seen"


@app.activity(executor="process")
def exits(x: int) -> int:
    raise SystemExit(3)


@app.activity(executor="process")
def unencodable(x: int) -> object:
    return object()


@app.activity(executor="process")
def raises(x: int) -> int:
    raise KeyError("missing")


@app.activity(executor="process")
def introduces_itself(ctx: ActivityContext, x: int) -> list[object]:
    return [ctx.instance_id, ctx.task_id, ctx.attempt, ctx.idempotency_key, ctx.name, ctx.cancelled, x]


@app.activity(executor="process")
def counts_up(ctx: ActivityContext, path: str) -> list[object]:
    """Tells how far it is, and fails; the second attempt says where it begins, and with what key."""
    if ctx.last_heartbeat is None:
        for number in range(1000):
            ctx.heartbeat({"done": number})
        raise KeyError(path)
    return [ctx.attempt, ctx.last_heartbeat, ctx.idempotency_key]


@app.activity(executor="process")
def counts_and_waits(ctx: ActivityContext, path: str) -> object:
    """Tells how far it is, then hangs; the second attempt says where it begins."""
    if ctx.last_heartbeat is None:
        ctx.heartbeat(["so far"])
        Path(path).touch()
        while True:
            time.sleep(0.005)
    return ctx.last_heartbeat


@app.activity(executor="process", heartbeat_timeout=timedelta(seconds=0.5))
def falls_silent(ctx: ActivityContext, path: str) -> object:
    """Beats once, then no more; the second attempt says where it begins."""
    if ctx.last_heartbeat is None:
        ctx.heartbeat(os.getpid())
        while not Path(path).exists():
            time.sleep(0.005)
    return ctx.last_heartbeat


@app.activity(executor="process")
def leaves_its_pid(path: str) -> None:
    """Hangs, and has said which process that is."""
    Path(path).write_text(str(os.getpid()))
    while True:
        time.sleep(0.005)


@app.activity(executor="process")
def size_in_process(value: bytes) -> int:
    return len(value)


@app.activity(executor="process")
def fails_for_good(x: int) -> int:
    raise NonRetryableError("never")


@app.activity(executor="process")
def asks_for_time(ctx: ActivityContext, x: int) -> int:
    if ctx.attempt == 1:
        raise RetryAfter(0.001)
    return ctx.attempt


@app.activity(executor="process")
def notes_its_key(ctx: ActivityContext, path: str) -> str:
    """Notes attempt and key; hangs until another file is there."""
    with Path(path).open("a") as out:
        out.write(f"{ctx.attempt} {ctx.idempotency_key}\n")
    while not Path(f"{path}.go").exists():
        time.sleep(0.005)
    return ctx.idempotency_key
