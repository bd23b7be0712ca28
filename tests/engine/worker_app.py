"""The program that tests of ownership and shutdown run, and end. Run as `python -m tests.engine.worker_app PATH [WHEN_OWNED]`.

It writes a line for everything that others have to wait for.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from replayflow import ActivityContext, App, Limits, Orchestration, OrchestrationContext, TaskHub, when_all
from replayflow.hub import WhenOwned

app = App()


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def note(file: str, text: str) -> None:
    with Path(file).open("a") as out:
        out.write(f"{text}\n")


def is_there(file: str) -> bool:
    return Path(file).exists()


@app.activity
async def notes(ctx: ActivityContext, file: str) -> int:
    """Notes its key, then hangs until another file is there."""
    note(file, ctx.idempotency_key)
    while not is_there(f"{file}.go"):  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.005)
    return os.getpid()


@app.activity
async def loads(ctx: ActivityContext, file: str) -> list[Any]:
    """Says at once where it begins; goes on for ever, until another file is there."""
    begins = ctx.last_heartbeat or 0
    line = begins
    while not is_there(f"{file}.go"):
        line += 1
        ctx.heartbeat(line)
        await asyncio.sleep(0.001)
    return [begins, ctx.attempt, ctx.idempotency_key]


@app.activity(concurrency=1)
async def one_at_a_time(file: str) -> int:
    """Notes when it is inside and when it is not; hangs there until another file is there."""
    note(file, "in")
    while not is_there(f"{file}.go"):  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.005)
    note(file, "out")
    return os.getpid()


@app.activity
async def add(x: int) -> int:
    return x + 1


@app.orchestrator
def waits(ctx: OrchestrationContext) -> Orchestration[int]:
    got = yield from ctx.wait_for_external_event("go", type=int)
    return (yield from ctx.call_activity(add, got))


@app.orchestrator
def slow(ctx: OrchestrationContext, file: str) -> Orchestration[int]:
    return (yield from ctx.call_activity(notes, file))


@app.orchestrator
def loading(ctx: OrchestrationContext, file: str) -> Orchestration[list[Any]]:
    secret = ctx.record(os.urandom, 8)
    got = yield from ctx.call_activity(loads, file)
    return [*got, secret]


@app.orchestrator
def narrow(ctx: OrchestrationContext, file: str) -> Orchestration[int]:
    yield when_all([ctx.call_activity(one_at_a_time, file) for _ in range(5)])
    return 5


@app.orchestrator
def leaves(ctx: OrchestrationContext, file: str) -> str:
    ctx.call_activity(notes, file)
    return "done"


@app.orchestrator
def sums(ctx: OrchestrationContext, count: int) -> Orchestration[int]:
    got = yield from when_all([ctx.wait_for_external_event("item", type=int) for _ in range(count)])
    return sum(got)


@app.orchestrator
def sleeps(ctx: OrchestrationContext, seconds: float) -> Orchestration[str]:
    yield from ctx.create_timer(timedelta(seconds=seconds))
    return "slept"


async def main(path: str, when_owned: str) -> None:
    if when_owned == "wait":
        say("waiting")
    async with TaskHub(
        path, app, when_owned=cast("WhenOwned", when_owned), limits=Limits(grace=timedelta(seconds=0.2))
    ) as hub:
        say("serving" if hub.is_worker else "client", os.getpid())
        await hub.serve()


def run_blocking(path: str, file: str) -> Any:
    from replayflow import run

    return run(slow, file, store=path, instance_id="blocking")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "--run":
        say("result", run_blocking(*arguments[1:]))
    else:
        try:
            asyncio.run(main(arguments[0], arguments[1] if len(arguments) > 1 else "error"))
        except KeyboardInterrupt:
            say("interrupted")
