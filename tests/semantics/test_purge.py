"""Purging: what has finished goes as a whole, with what it started; what has not stays. And what comes late for what is gone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    Instance,
    InstanceNotFoundError,
    InvalidArgumentError,
    InvalidStateError,
    OrchestrationContext,
    SqliteStore,
    TaskHub,
    when_all,
)
from replayflow.client import purging
from tests.semantics.kit import LIMIT, Place, history, until, until_status


def app_of_trees() -> tuple[App, asyncio.Event]:
    app, gate = App(), asyncio.Event()

    @app.activity
    async def work(x: int) -> int:
        return x

    @app.activity
    async def lasting() -> None:
        await gate.wait()

    @app.orchestrator
    def leaf(ctx: OrchestrationContext, x: int) -> Any:
        return (yield ctx.call_activity(work, x))

    @app.orchestrator
    def tree(ctx: OrchestrationContext, depth: int) -> Any:
        below = "tree" if depth > 1 else "leaf"
        results = yield when_all([ctx.call_sub_orchestrator(below, depth - 1) for _ in range(2)])
        return sum(results) + 1

    @app.orchestrator
    def waits(ctx: OrchestrationContext) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    @app.orchestrator
    def leaves_a_child(ctx: OrchestrationContext) -> Any:
        ctx.call_sub_orchestrator("waits", instance_id="child")
        yield ctx.call_sub_orchestrator("leaf", 1)

    @app.orchestrator
    def owes(ctx: OrchestrationContext) -> Any:
        ctx.call_activity(lasting)
        yield ctx.call_activity(work, 1)

    @app.orchestrator
    def fails(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(work, 1)
        raise ValueError("as told")

    @app.orchestrator
    def again(ctx: OrchestrationContext, left: int) -> Any:
        yield ctx.call_activity(work, left)
        if left:
            ctx.continue_as_new(left - 1)

    return app, gate


async def ids(hub: TaskHub) -> list[str]:
    return [state.id async for state in hub.client.list()]


async def done(hub: TaskHub, name: str, input: Any = None, **options: Any) -> Instance[Any]:
    instance = await hub.client.start(name, input, **options)
    await instance.wait(LIMIT)
    return instance


async def test_a_purged_instance_is_unknown_and_its_id_is_free(place: Place) -> None:
    app, _ = app_of_trees()
    async with place.hub(app) as hub:
        instance = await done(hub, "leaf", 1, instance_id="i", tags={"k": "v"})
        before = (await instance.status()).execution_id
        assert await instance.purge() == 1
        for ask in (instance.status, instance.purge, instance.result, instance.wait):
            with pytest.raises(InstanceNotFoundError):
                await ask()
        assert [state async for state in hub.client.list(tags={"k": "v"})] == []
        again = await hub.client.start("leaf", 2, instance_id="i")
        assert await again.result(LIMIT) == 2
        assert (await again.status()).execution_id != before
        with pytest.raises(InstanceNotFoundError):
            await history(again, before)


async def test_a_tree_goes_with_its_root_and_only_that(place: Place) -> None:
    app, _ = app_of_trees()
    async with place.hub(app) as hub:
        await done(hub, "tree", 3, instance_id="a")
        await done(hub, "tree", 1, instance_id="b")
        assert len(await ids(hub)) == 15 + 3
        assert await hub.client.get("a").purge() == 15
        assert await ids(hub) == ["b", "b:0001", "b:0002"]
        assert await hub.client.get("b").purge(recursive=False) == 1
        assert await ids(hub) == ["b:0001", "b:0002"]


async def test_a_tree_that_is_larger_than_a_page_goes_page_by_page(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "PURGED_TOGETHER", 2)
    app, _ = app_of_trees()
    async with place.hub(app) as hub:
        await done(hub, "tree", 4, instance_id="a")
        await done(hub, "tree", 2, instance_id="b")
        assert await hub.client.get("a").purge() == 31
        assert await hub.client.purge() == 7
        assert await ids(hub) == []


async def test_what_has_not_finished_is_refused_with_its_state_and_nothing_of_its_tree_goes(place: Place) -> None:
    app, _ = app_of_trees()
    async with place.hub(app) as hub:
        instance = await hub.client.start("waits", instance_id="i")
        with pytest.raises(InvalidStateError, match=r"'i' is (PENDING|RUNNING): only one that has finished"):
            await instance.purge()
        await instance.suspend()
        await until_status(instance, "SUSPENDED")
        with pytest.raises(InvalidStateError, match="SUSPENDED"):
            await instance.purge()
        with pytest.raises(InvalidArgumentError, match="entity"):
            await hub.client.get("@e@k").purge()
        assert await hub.client.purge() == 0
        assert await hub.client.purge(status="SUSPENDED") == 0
        assert await ids(hub) == ["i"]


async def test_a_child_that_goes_on_stays_and_its_late_end_hurts_nobody(place: Place) -> None:
    app, _ = app_of_trees()
    async with place.hub(app) as hub:
        parent = await done(hub, "leaves_a_child", instance_id="p")
        child = hub.client.get("child")
        assert await parent.purge() == 2
        assert await ids(hub) == ["child"]
        again = await hub.client.start("waits", instance_id="p")
        await until_status(again, "RUNNING")
        await child.raise_event("go", "the child's")
        assert await child.result(LIMIT) == "the child's"
        await again.raise_event("go", "the parent's")
        assert await again.result(LIMIT) == "the parent's"
        kinds = [type(event).__name__ for event in await history(again)]
        assert "SubOrchestrationInstanceCompleted" not in kinds


async def test_a_child_may_go_before_its_parent_has_ended(place: Place) -> None:
    app = App()

    @app.orchestrator
    def child(ctx: OrchestrationContext, x: int) -> Any:
        return x

    @app.orchestrator
    def parent(ctx: OrchestrationContext) -> Any:
        first = yield ctx.call_sub_orchestrator(child, 1, instance_id="c")
        yield ctx.wait_for_external_event("go")
        return [first, (yield ctx.call_sub_orchestrator(child, 2, instance_id="c"))]

    async with place.hub(app) as hub:
        instance = await hub.client.start(parent, instance_id="p")
        await until(lambda: _is_there(hub, "c"))
        assert await hub.client.get("c").result(LIMIT) == 1
        assert await hub.client.purge() == 1
    async with place.hub(app) as hub:
        instance = hub.client.get("p")
        await instance.raise_event("go")
        assert await instance.result(LIMIT) == [1, 2]


async def _is_there(hub: TaskHub, id: str) -> bool:
    return id in await ids(hub)


async def test_an_instance_that_owes_the_run_of_an_activity_stays_until_it_has_run(place: Place) -> None:
    app, gate = app_of_trees()
    async with place.hub(app) as hub:
        instance = await done(hub, "owes", instance_id="i")
        with pytest.raises(InvalidStateError, match="has not had its run"):
            await instance.purge()
        assert await hub.client.purge() == 0
        gate.set()

        async def goes() -> int:
            return await hub.client.purge()

        assert await until(goes) == 1


async def test_every_past_execution_goes_with_it(place: Place) -> None:
    app, _ = app_of_trees()
    async with place.hub(app) as hub:
        instance = await done(hub, "again", 3, instance_id="i")
        executions = [(await instance.status()).execution_id]
        assert await instance.purge() == 1
        again = await done(hub, "again", 0, instance_id="i")
        for execution in executions:
            with pytest.raises(InstanceNotFoundError):
                await history(again, execution)


async def test_a_purge_by_a_filter_takes_what_fits_and_has_finished(place: Place) -> None:
    app, _ = app_of_trees()
    async with place.hub(app) as hub:
        for number in range(3):
            await done(hub, "leaf", number, instance_id=f"leaf-{number}", tags={"team": "red" if number else "blue"})
        await done(hub, "fails", instance_id="failed")
        await hub.client.start("waits", instance_id="open")
        now = datetime.now(UTC)
        assert await hub.client.purge(dry_run=True) == 4
        assert await hub.client.purge(completed_to=now - timedelta(hours=1)) == 0
        assert await hub.client.purge(completed_from=now + timedelta(hours=1)) == 0
        assert await hub.client.purge(name="leaf", tags={"team": "red"}, dry_run=True) == 2
        assert await hub.client.purge(name="leaf", tags={"team": "red"}) == 2
        assert await hub.client.purge(status=["FAILED", "RUNNING"]) == 1
        assert await hub.client.purge(id_prefix="open") == 0
        assert await ids(hub) == ["leaf-0", "open"]
        assert await hub.client.purge(created_from=now - timedelta(hours=1), completed_to=now + timedelta(hours=1)) == 1


async def test_a_filter_that_is_none_is_refused_and_nothing_goes(place: Place) -> None:
    app, _ = app_of_trees()
    async with place.hub(app) as hub:
        await done(hub, "leaf", 1)
        wrong: list[dict[str, Any]] = [
            {"status": "ENDED"},
            {"completed_to": datetime.now()},  # noqa: DTZ005
            {"completed_before": datetime.now(UTC)},
        ]
        for where in wrong:
            with pytest.raises(InvalidArgumentError):
                await hub.client.purge(**where)
        assert len(await ids(hub)) == 1


async def test_a_circle_of_parents_ends(place: Place) -> None:
    app = App()

    @app.orchestrator
    def one(ctx: OrchestrationContext, child: str | None) -> Any:
        if child is not None:
            yield ctx.call_sub_orchestrator(one, None, instance_id=child)

    async with place.hub(app) as hub:
        await done(hub, "one", "b", instance_id="a")
        assert await hub.client.get("a").purge(recursive=False) == 1
        await done(hub, "one", "a", instance_id="c")  # 'a' is a child of 'c' now, and 'b' one of 'a'
        await hub.client.get("c").purge(recursive=False)
        assert await hub.client.get("a").purge() == 2
        assert await ids(hub) == []


async def test_any_process_may_purge_what_the_worker_serves(place: Place) -> None:
    """The worker forgets what it knew: a new instance under the id runs, and is found again after a restart."""
    if not isinstance(place.store(), SqliteStore):
        pytest.skip("a hub in memory has one process")
    app, _ = app_of_trees()
    async with place.hub(app) as hub, Client(place.path) as client:
        for round in range(5):
            instance = await hub.client.start("leaf", round, instance_id="i")
            assert await instance.result(LIMIT) == round
            assert await client.get("i").purge() == 1
            again = await client.start("again", 2, instance_id="i")
            await again.wait(LIMIT)
            assert await client.purge(id_prefix="i") == 1


async def test_a_result_that_comes_after_the_purge_of_a_terminated_instance_is_dropped(place: Place) -> None:
    app, gate = app_of_trees()
    release = asyncio.Event()

    @app.activity
    async def stubborn() -> str:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            await release.wait()
        return "too late"

    @app.orchestrator
    def asks(ctx: OrchestrationContext) -> Any:
        return (yield ctx.call_activity(stubborn))

    async with place.hub(app) as hub:
        instance = await hub.client.start(asks, instance_id="i")
        await until_status(instance, "RUNNING")
        await instance.terminate()
        await instance.wait(LIMIT)
        assert await instance.purge() == 1
        again = await hub.client.start("waits", instance_id="i")
        await until_status(again, "RUNNING")
        release.set()
        await again.raise_event("go", 1)
        assert await again.result(LIMIT) == 1
        assert "TaskCompleted" not in [type(event).__name__ for event in await history(again)]
