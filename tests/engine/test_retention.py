"""Retention: what is old enough goes, what is not stays, and a hub without one, or with nothing due, is not written to."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    App,
    InvalidArgumentError,
    OrchestrationContext,
    Retention,
    SqliteStore,
    Status,
    StoreFullError,
    SubOrchestrationError,
    TaskHub,
)
from replayflow.engine import retention as retaining
from replayflow.store import MemoryStore, Store
from replayflow.store.base import Finished, Purge, Trim
from tests.engine.kit import NO_GRACE, TestClock, ToldStore, until, until_state
from tests.semantics.kit import until as until_true

SOON = timedelta(milliseconds=5)
DAY = timedelta(days=1)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "hub.db")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retaining, "PURGED_TOGETHER", 2)
    monkeypatch.setattr(retaining, "PASTS_PER_LOOK", 2)


def app_of_ends() -> App:
    app = App()

    @app.orchestrator
    def ends(ctx: OrchestrationContext, how: str) -> Any:
        if how == "FAILED":
            raise ValueError("as told")
        if how != "COMPLETED":
            yield ctx.wait_for_external_event("never")

    @app.orchestrator
    def again(ctx: OrchestrationContext, left: int) -> Any:
        if left:
            ctx.continue_as_new(left - 1)
        else:
            yield ctx.wait_for_external_event("go")

    return app


async def ended(hub: TaskHub, how: str, id: str) -> None:
    instance = await hub.client.start("ends", how, instance_id=id)
    if how == "TERMINATED":
        await instance.terminate()
    elif how == "CANCELED":
        await instance.cancel()
    await instance.wait(15)


async def ids(hub: TaskHub) -> set[str]:
    return {state.id async for state in hub.client.list()}


async def until_left(hub: TaskHub, expected: set[str]) -> None:
    async def are_left() -> bool:
        return await ids(hub) == expected

    await until_true(are_left)


async def test_each_end_has_its_own_age(store: Store) -> None:
    clock = TestClock()
    kept = Retention(completed=DAY, failed=3 * DAY, terminated=2 * DAY, every=SOON)
    async with TaskHub(store, app_of_ends(), clock=clock, limits=NO_GRACE, retention=kept) as hub:
        for how in ("COMPLETED", "FAILED", "TERMINATED", "CANCELED"):
            for number in range(5):
                await ended(hub, how, f"{how}-{number}")
        await hub.client.start("ends", "RUNNING", instance_id="open")

        def those(*ends: str) -> set[str]:
            return {f"{how}-{number}" for how in ends for number in range(5)} | {"open"}

        assert await ids(hub) == those("COMPLETED", "FAILED", "TERMINATED", "CANCELED")
        clock.advance(DAY)
        await until_left(hub, those("FAILED", "TERMINATED", "CANCELED"))
        clock.advance(DAY)
        await until_left(hub, those("FAILED", "CANCELED"))
        clock.advance(DAY)
        await until_left(hub, those("CANCELED"))
        assert (await store.footprint()).purged == 15


async def test_what_was_there_before_is_found_by_the_worker_that_has_a_retention(store: Store) -> None:
    clock = TestClock()
    async with TaskHub(store, app_of_ends(), clock=clock, limits=NO_GRACE) as hub:
        for number in range(5):
            await ended(hub, "COMPLETED", f"i-{number}")
        clock.advance(1000 * DAY)
        assert len(await ids(hub)) == 5
    async with TaskHub(store, app_of_ends(), clock=clock, limits=NO_GRACE, retention=Retention(finished=DAY)) as hub:
        await until_left(hub, set())


async def test_of_a_tree_the_leaves_go_first_and_a_child_that_stays_keeps_its_parent(store: Store) -> None:
    app = app_of_ends()

    @app.orchestrator
    def parent(ctx: OrchestrationContext) -> Any:
        yield ctx.call_sub_orchestrator("ends", "COMPLETED")
        try:
            yield ctx.call_sub_orchestrator("ends", "FAILED")
        except SubOrchestrationError:
            return "all the same"

    clock = TestClock()
    kept = Retention(completed=DAY, failed=3 * DAY, every=SOON)
    async with TaskHub(store, app, clock=clock, limits=NO_GRACE, retention=kept) as hub:
        instance = await hub.client.start(parent, instance_id="p")
        assert await instance.result(15) == "all the same"
        clock.advance(2 * DAY)
        await until_left(hub, {"p", "p:0002"})
        clock.advance(2 * DAY)
        await until_left(hub, set())
        again = await hub.client.start(parent, instance_id="p")
        assert await again.result(15) == "all the same"


async def test_past_executions_are_kept_to_the_last(store: Store) -> None:
    kept = Retention(executions=3, every=SOON)
    async with TaskHub(store, app_of_ends(), limits=NO_GRACE, retention=kept) as hub:
        for id, executions in (("long", 12), ("short", 2), ("none", 0), ("other", 5), ("fifth", 4)):
            instance = await hub.client.start("again", executions, instance_id=id)
            await until_state(instance, lambda state: state.status == "RUNNING" and state.input == 0)

        async def nobody_has_more() -> bool:
            return (await store.long_pasts(3, 0, 100))[0] == []

        await until_true(nobody_has_more)
        assert (await store.long_pasts(2, 0, 100))[0] == ["long", "other", "fifth"]
        instance = hub.client.get("long")
        await instance.raise_event("go")
        assert (await instance.wait(15)).status == "COMPLETED"


async def test_without_a_retention_nothing_is_looked_for_and_with_nothing_due_nothing_is_written() -> None:
    looks: list[str] = []

    class Watched(ToldStore):
        async def ended(self, status: Status, before: int, limit: int) -> list[Finished]:
            looks.append(status)
            return await super().ended(status, before, limit)

    told = Watched()
    async with TaskHub(told, app_of_ends(), limits=NO_GRACE) as hub:
        await ended(hub, "COMPLETED", "i")
    assert looks == []
    async with TaskHub(
        told, app_of_ends(), limits=NO_GRACE, retention=Retention(finished=DAY, executions=1, every=SOON)
    ):
        before = len(told.written)
        await until(lambda: len(looks) >= 4 * 5, "some looks")
        assert told.written[before:] == []


async def test_a_store_that_refuses_for_a_while_is_purged_later() -> None:
    told = ToldStore()
    clock = TestClock()
    async with TaskHub(
        told, app_of_ends(), clock=clock, limits=NO_GRACE, retention=Retention(finished=DAY, every=SOON)
    ) as hub:
        for number in range(4):
            await ended(hub, "COMPLETED", f"i-{number}")
        told.failing = lambda operations: (
            StoreFullError("full") if any(isinstance(o, Purge | Trim) for o in operations) else None
        )
        before = told.attempts
        clock.advance(2 * DAY)
        await until(lambda: told.attempts >= before + 3, "some attempts")
        assert len(await ids(hub)) == 4
        told.work()
        await until_left(hub, set())


@pytest.mark.parametrize(
    "wrong",
    [
        {"completed": 7},
        {"failed": timedelta(-1)},
        {"finished": "7d"},
        {"executions": -1},
        {"executions": True},
        {"every": timedelta(0)},
    ],
)
def test_a_retention_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"Retention: {next(iter(wrong))} is"):
        Retention(**wrong)


def test_a_hub_takes_no_other_retention() -> None:
    with pytest.raises(InvalidArgumentError, match="retention is 7"):
        TaskHub("memory://", retention=7)  # type: ignore[arg-type]
