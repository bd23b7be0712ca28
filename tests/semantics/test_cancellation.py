"""Whoever works for nobody any more learns of it: a task by its cancellation, a thread by looking, a process by its end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from replayflow import (
    ActivityCancelled,
    ActivityContext,
    App,
    Instance,
    Orchestration,
    OrchestrationContext,
    TaskHub,
    race,
)
from tests.engine import process_activities
from tests.semantics.kit import Place, until

WAYS = ["terminate", "cancel", "race", "given up", "map", "worker stops"]
CASES = [(way, executor) for way in WAYS for executor in ("async", "thread", "process")]


class Worked:
    """What an activity was told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cancelled = 0
        self.cleaned_up = 0

    def has_begun(self) -> bool:
        return self.path.exists() and bool(self.path.read_text())

    def is_told(self, executor: str) -> bool:
        if executor == "process":
            return not psutil.pid_exists(int(self.path.read_text()))
        return (self.cancelled, self.cleaned_up) == (1, 1)


def app_for(worked: Worked, executor: str) -> App:
    app = App()

    async def in_loop(path: str) -> None:
        try:
            worked.path.write_text("begun")
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            worked.cancelled += 1
            await asyncio.sleep(0)  # whoever cleans up may wait for something
            worked.cleaned_up += 1
            raise

    def in_thread(ctx: ActivityContext, path: str) -> None:
        worked.path.write_text("begun")
        try:
            while True:
                try:
                    ctx.raise_if_cancelled()
                except Exception:  # noqa: S110 - what is told goes through this
                    pass
                time.sleep(0.002)
        except ActivityCancelled:
            worked.cancelled += ctx.cancelled
            raise
        finally:
            worked.cleaned_up += 1

    if executor == "process":
        app.include(process_activities.app)
    else:
        app.activity(name="leaves_its_pid")(in_loop if executor == "async" else in_thread)

    @app.activity
    async def fails_when_begun(path: str) -> None:
        while not worked.has_begun():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.005)
        raise ValueError("over")

    @app.orchestrator
    def main(ctx: OrchestrationContext, call: list[str]) -> Orchestration[str]:
        way, path = call
        if way == "map":
            # A map that fails fast, beside the one that is at work.
            yield race(
                [
                    ctx.map("leaves_its_pid", [path], concurrency=2),
                    ctx.call_activity("fails_when_begun", path),
                ]
            )
        task = ctx.call_activity("leaves_its_pid", path)
        if way == "race":
            yield race([task, ctx.wait_for_external_event("enough")])
        elif way == "given up":
            yield ctx.wait_for_external_event("enough")
            task.cancel()
        yield ctx.wait_for_external_event("never")
        return "not reached"

    return app


async def _end(way: str, instance: Instance[Any]) -> None:
    match way:
        case "terminate":
            await instance.terminate()
        case "cancel":
            await instance.cancel()
        case "race" | "given up":
            await instance.raise_event("enough")
        case _:
            pass


@pytest.mark.parametrize(("way", "executor"), CASES)
async def test_whoever_is_at_work_learns_that_nobody_waits(
    place: Place, tmp_path: Path, way: str, executor: str
) -> None:
    worked = Worked(tmp_path / "begun")
    async with place.hub(app_for(worked, executor), grace=timedelta(0)) as hub:
        instance = await hub.client.start("main", [way, str(worked.path)])
        await until(_true(worked.has_begun))
        await _end(way, instance)
        if way != "worker stops":
            await until(_true(lambda: worked.is_told(executor)))
    await until(_true(lambda: worked.is_told(executor)))


async def test_a_thread_that_looks_ends_before_its_worker_has_gone(place: Place) -> None:
    app, ended, began = App(), threading.Event(), threading.Event()

    @app.activity
    def work(ctx: ActivityContext) -> None:
        began.set()
        while not ctx.cancelled:
            time.sleep(0.002)
        ended.set()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(work)

    async with place.hub(app, grace=timedelta(0)) as hub:
        await hub.client.start(main)
        await until(_true(began.is_set))
    assert ended.is_set()


async def test_a_process_that_was_killed_leaves_its_place_to_the_next(place: Place, tmp_path: Path) -> None:
    worked = Worked(tmp_path / "begun")

    async def square(hub: TaskHub) -> Any:
        return await (await hub.client.start("squares", 5)).result(20)

    app = app_for(worked, "process")

    @app.orchestrator
    def squares(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
        return (yield from ctx.call_activity(process_activities.square, x))

    async with place.hub(app, process_activities=1) as hub:
        instance = await hub.client.start("main", ["terminate", str(worked.path)])
        await until(_true(worked.has_begun))
        await instance.terminate()
        assert await square(hub) == 25
        assert worked.is_told("process")
        assert await square(hub) == 25


def _true(condition: Callable[[], object]) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return bool(condition())

    return holds
