"""A worker that some of its instances kill. Run as `python -m tests.engine.poison_app PATH [mended]`; it serves until it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta

from replayflow import (
    App,
    EntityContext,
    Limits,
    MapResult,
    Orchestration,
    OrchestrationContext,
    TaskHub,
)

app = App()
is_mended = "mended" in sys.argv


def die(how: str) -> None:
    if not is_mended:
        if how == "exit":
            os._exit(7)
        os.kill(os.getpid(), signal.SIGSEGV)


@app.activity
def deadly(how: str) -> str:
    die(how)
    return f"survived {how}"


@app.activity
@app.activity
def add(x: int) -> int:
    if x < 0:
        die("exit")
    return x + 1


@app.orchestrator
def calls(ctx: OrchestrationContext, call: tuple[str, str]) -> Orchestration[str]:
    name, how = call
    return (yield from ctx.call_activity(name, how, result_type=str))


@app.orchestrator
def kills(ctx: OrchestrationContext) -> Orchestration[str]:
    """Dies in its own code, after an activity."""
    yield from ctx.call_activity(add, 1)
    die("exit")
    return "survived"


@app.orchestrator
def maps(ctx: OrchestrationContext, items: list[int]) -> Orchestration[list[int | None]]:
    result: MapResult[int] = yield from ctx.map(add, items, concurrency=2)
    return result.results


@app.orchestrator
def leaves(ctx: OrchestrationContext, how: str) -> str:
    ctx.call_activity(deadly, how)
    return "left"


@app.orchestrator
def healthy(ctx: OrchestrationContext, count: int) -> Orchestration[int]:
    total = 0
    for _ in range(count):
        total = yield from ctx.call_activity(add, total)
        yield ctx.create_timer(timedelta(milliseconds=1))
    return total


@app.entity
def grave(ctx: EntityContext[None], how: str) -> None:
    die(how)


async def main(path: str) -> None:
    limits = Limits(
        grace=timedelta(seconds=0.2),
        rest=timedelta(milliseconds=float(os.environ["REST"])),
        deaths_alone=int(os.environ["DEATHS"]),
    )
    async with TaskHub(path, app, limits=limits) as hub:
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        await hub.serve()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
