"""Versions of code under instances that run: each keeps to its own, and what nobody serves waits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    Instance,
    OrchestrationContext,
    TaskHub,
    VersioningOptions,
    VersionMismatchError,
)
from tests.semantics.kit import LIMIT, Place, failure_of, history, kinds, until, until_recorded


def code(label: str) -> Callable[..., Any]:
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity("echo", label)
        go = yield ctx.wait_for_external_event("go")
        return [label, ctx.version, go]

    return main


def changed(ctx: OrchestrationContext) -> Any:
    yield ctx.call_activity("other", "changed")
    yield ctx.wait_for_external_event("go")


def app_with(*versions: str | None, **codes: Callable[..., Any]) -> App:
    """An app whose orchestrator 'main' has these versions, each with its label; `codes` are in the place of some."""
    app = App()

    @app.activity
    async def echo(text: str) -> str:
        return text

    @app.activity
    async def other(text: str) -> str:
        return text

    for version in versions:
        label = version or "none"
        app.orchestrator(name="main", version=version)(codes.get(f"v{label}") or code(label))
    return app


def strict(place: Place, app: App, version: str | None, failure: str = "reject") -> TaskHub:
    return TaskHub(
        place.store(),
        app,
        versioning=VersioningOptions(version=version, match_strategy="strict", failure_strategy=failure),
    )


async def begun(hub: TaskHub, id: str, version: str | None = None) -> Instance[Any]:
    """An instance that has done its activity and waits."""
    instance = await hub.client.start("main", instance_id=id, version=version)
    await until_recorded(instance, "TaskCompleted")
    return instance


async def ended(hub: TaskHub, id: str) -> Any:
    instance = hub.client.get(id)
    await instance.raise_event("go", id)
    return await instance.result(LIMIT)


async def problem_of(instance: Instance[Any]) -> str:
    async def problem() -> str | None:
        return (await instance.status()).problem

    found: str = await until(problem)
    return found


# ---- side by side --------------------------------------------------------------------------------------------


async def test_each_instance_runs_the_code_of_its_version_before_and_after_a_restart(place: Place) -> None:
    app = app_with("1", "2")
    async with place.hub(app) as hub:
        for id, version in (("a", "1"), ("b", "2"), ("c", None)):
            await begun(hub, id, version)
        assert [(await hub.client.get(id).status()).version for id in "abc"] == ["1", "2", "2"]
        await begun(hub, "warm", "1")
        assert await ended(hub, "warm") == ["1", "1", "warm"]
    async with place.hub(app_with("1", "2", "3")) as hub:
        assert [await ended(hub, id) for id in "abc"] == [["1", "1", "a"], ["2", "2", "b"], ["2", "2", "c"]]
        assert await ended(hub, (await begun(hub, "d")).id) == ["3", "3", "d"]


@pytest.mark.parametrize("later", [(None, "2"), ("none", "2")])
async def test_instances_from_before_versions_keep_to_the_code_without_one_or_to_the_oldest(
    place: Place, later: tuple[str | None, ...]
) -> None:
    """Where the old code is given a version of its own, it is found by that."""
    old = code("none")
    async with place.hub(app_with(None, vnone=old)) as hub:
        await begun(hub, "old")
    app = app_with("2")
    app.orchestrator(name="main", version=None if later[0] is None else "1")(old)
    async with place.hub(app) as hub:
        assert await ended(hub, "old") == ["none", None, "old"]
        assert await ended(hub, (await begun(hub, "new")).id) == ["2", "2", "new"]


async def test_a_version_that_the_app_lacks_is_refused_and_nothing_is_written(place: Place) -> None:
    async with place.hub(app_with("1", "2")) as hub:
        with pytest.raises(VersionMismatchError, match="no code for instances of 'main' of version '3'"):
            await hub.client.start("main", instance_id="i", version="3")
        assert [state async for state in hub.client.list()] == []


async def test_a_start_by_function_runs_that_function(place: Place) -> None:
    app = App()

    @app.orchestrator(name="main", version="1")
    def first(ctx: OrchestrationContext) -> str:
        return f"first {ctx.version}"

    @app.orchestrator(name="main", version="2")
    def second(ctx: OrchestrationContext) -> str:
        return f"second {ctx.version}"

    async with place.hub(app) as hub:
        assert await (await hub.client.start(first)).result(LIMIT) == "first 1"
        assert await (await hub.client.start(second)).result(LIMIT) == "second 2"
        assert await (await hub.client.start("main")).result(LIMIT) == "second 2"


async def test_children_and_maps_run_the_version_that_is_asked_for_or_the_newest(place: Place) -> None:
    app = App()

    @app.orchestrator
    def parent(ctx: OrchestrationContext) -> Any:
        asked = yield ctx.call_sub_orchestrator("child", version="1")
        newest = yield ctx.call_sub_orchestrator("child")
        mapped = yield ctx.map("child", [1, 2])
        return [asked, newest, mapped.results]

    for version in ("1", "2"):
        app.orchestrator(name="child", version=version)(lambda ctx: ctx.version)
    async with place.hub(app) as hub:
        assert await (await hub.client.start(parent)).result(LIMIT) == ["1", "2", ["2", "2"]]
    versioning = VersioningOptions(default_version="1")
    async with TaskHub(place.store(), app, versioning=versioning) as hub:
        assert await (await hub.client.start(parent)).result(LIMIT) == ["1", "1", ["1", "1"]]
        assert (await (await hub.client.start("child")).wait(LIMIT)).version == "1"


async def test_continue_as_new_takes_an_instance_over_to_other_code(place: Place) -> None:
    app = App()

    @app.orchestrator(name="main", version="1")
    def first(ctx: OrchestrationContext) -> None:
        ctx.continue_as_new("from the first", version="2")

    @app.orchestrator(name="main", version="2")
    def second(ctx: OrchestrationContext, input: str) -> Any:
        yield ctx.wait_for_external_event("go")
        return [input, ctx.version]

    async with place.hub(app) as hub:
        instance = await hub.client.start(first, instance_id="i")
        await until_recorded(instance, "OrchestratorStarted")
    async with place.hub(app) as hub:
        assert await ended(hub, "i") == ["from the first", "2"]
        assert (await hub.client.get("i").status()).version == "2"


async def test_a_client_without_an_app_starts_what_the_worker_calls_the_newest(place: Place) -> None:
    store = place.store()
    async with TaskHub(store, app_with("1", "2", "10")) as hub:

        async def is_told() -> bool:
            return bool(await store.served())

        await until(is_told)
        client = Client(store)
        assert (await (await client.start("main")).status()).version == "10"
        assert (await (await client.start("main", version="2")).status()).version == "2"
        assert (await (await client.start("unheard of")).status()).version is None
        assert (await (await Client(store, default_version="1").start("main")).status()).version == "1"
        assert hub.is_worker


# ---- what is not served --------------------------------------------------------------------------------------


async def test_an_instance_whose_version_has_no_code_waits_and_goes_on_when_it_has(place: Place) -> None:
    async with place.hub(app_with("1")) as hub:
        await begun(hub, "i")
    async with place.hub(app_with("2")) as hub:
        await hub.client.get("i").raise_event("go", "kept")
        assert "it has the versions '2'" in await problem_of(hub.client.get("i"))
        assert (await hub.client.get("i").status()).status == "RUNNING"
    async with place.hub(app_with("1", "2")) as hub:
        assert await hub.client.get("i").result(LIMIT) == ["1", "1", "kept"]
        assert (await hub.client.get("i").status()).problem is None


async def test_a_worker_that_rejects_parks_what_is_another_version_s(place: Place) -> None:
    app = app_with(None)
    async with strict(place, app, "1") as hub:
        await begun(hub, "old", "1")
    async with strict(place, app, "2") as hub:
        new = await hub.client.start("main", instance_id="new", version="1")
        assert "takes that version alone" in await problem_of(new)
        await hub.client.get("old").raise_event("go", "old")
        assert "of version '1' of 'main'" in await problem_of(hub.client.get("old"))
        await begun(hub, "theirs", "2")
        assert await ended(hub, "theirs") == ["none", "2", "theirs"]
    async with strict(place, app, "1") as hub:
        assert await hub.client.get("old").result(LIMIT) == ["none", "1", "old"]
        assert await ended(hub, "new") == ["none", "1", "new"]


async def test_a_worker_that_fails_what_is_another_version_s_fails_it_whole(place: Place) -> None:
    app = app_with(None)

    @app.orchestrator(version="2")
    def parent(ctx: OrchestrationContext) -> Any:
        yield ctx.call_sub_orchestrator("main", version="1", instance_id="child")

    async with strict(place, app, "1") as hub:
        await begun(hub, "old", "1")
    async with strict(place, app, "2", "fail") as hub:
        await hub.client.get("old").raise_event("go", 1)
        details = await failure_of(hub.client.get("old"))
        assert details.type == "VersionMismatchError"
        assert details.bases[0] == "replayflow.errors.VersionMismatchError"
        details = await failure_of(await hub.client.start(parent))
        assert details.is_caused_by(VersionMismatchError)
        assert (await hub.client.get("child").status()).status == "FAILED"
        assert await kinds(hub.client.get("child")) == ["OrchestratorStarted", "ExecutionStarted", "ExecutionCompleted"]


async def test_an_instance_that_was_never_begun_fails_too_after_a_restart(place: Place) -> None:
    async with strict(place, app_with(None), "2") as hub:
        waiting = await hub.client.start("main", instance_id="i", version="1")
        await problem_of(waiting)
    async with strict(place, app_with(None), "2", "fail") as hub:
        assert (await failure_of(hub.client.get("i"))).type == "VersionMismatchError"
        assert (await hub.client.get("i").status()).problem is None


async def test_older_ones_are_taken_where_that_is_said(place: Place) -> None:
    versioning = VersioningOptions(version="2.0", match_strategy="current_or_older")
    async with TaskHub(place.store(), app_with(None), versioning=versioning) as hub:
        for version in ("1.9", "2"):
            await begun(hub, version, version)
            assert await ended(hub, version) == ["none", version, version]
        newer = await hub.client.start("main", version="2.1")
        assert "takes that and older ones" in await problem_of(newer)


async def test_at_its_start_a_worker_names_what_nobody_here_serves(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with place.hub(app_with("1", "2")) as hub:
        for n in range(3):
            await begun(hub, f"one-{n}", "1")
        await begun(hub, "two", "2")
        done = await begun(hub, "done", "1")
        await ended(hub, done.id)
    caplog.clear()
    async with place.hub(app_with("2")):

        async def is_said() -> bool:
            return "no code here serves" in caplog.text

        await until(is_said)
    assert "no code here serves 3 open instances: 3 of 'main' of version '1'; they wait for" in caplog.text
    caplog.clear()
    async with place.hub(App()) as hub:
        await until(is_said)
    assert "serves 4 open instances: 3 of 'main' of version '1', 1 of 'main' of version '2'" in caplog.text


async def test_a_worker_that_serves_all_says_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    store = place.store()
    async with TaskHub(store, app_with("1", "2")) as hub:
        await begun(hub, "i", "1")
    caplog.clear()
    async with TaskHub(store, app_with(None, "2")) as hub:

        async def is_through() -> bool:
            return any(each.version is None and each.name == "main" for each in await store.served())

        await until(is_through)
    assert not [record for record in caplog.records if "no code here serves" in record.message]


async def test_changed_code_of_one_version_is_tried_against_what_sleeps_of_it_and_of_no_other(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with place.hub(app_with("1", "2")) as hub:
        await begun(hub, "one", "1")
        await begun(hub, "two", "2")
    async with place.hub(app_with("1", "2", v1=changed)) as hub:
        assert "activity 'echo' (task 1)" in await problem_of(hub.client.get("one"))
        assert (await hub.client.get("two").status()).problem is None
    async with place.hub(app_with("1", "2")) as hub:
        assert await ended(hub, "one") == ["1", "1", "one"]
        assert await ended(hub, "two") == ["2", "2", "two"]


async def test_a_version_of_its_own_is_tried_against_what_ran_without_one(place: Place) -> None:
    async with place.hub(app_with(None)) as hub:
        await begun(hub, "i", "1")
    async with place.hub(app_with(None, "1", v1=changed)) as hub:
        assert "activity 'echo' (task 1)" in await problem_of(hub.client.get("i"))


# ---- schedules -----------------------------------------------------------------------------------------------


async def test_a_schedule_follows_the_newest_version_unless_it_was_made_for_one(place: Place) -> None:
    def reporting(*versions: str) -> App:
        app = App()
        for version in versions:
            app.orchestrator(name="report", version=version)(lambda ctx: ctx.version)
        return app

    async def run_of(hub: TaskHub, name: str) -> Any:
        instance = await hub.client.get_schedule(name).trigger()

        async def has_begun() -> bool:
            return any([state.id == instance.id async for state in hub.client.list()])

        await until(has_begun)
        return await instance.result(LIMIT)

    every = timedelta(days=1)
    async with place.hub(reporting("1")) as hub:
        await hub.client.create_schedule("newest", "report", every=every)
        await hub.client.create_schedule("pinned", "report", every=every, version="1")
        with pytest.raises(VersionMismatchError):
            await hub.client.create_schedule("wrong", "report", every=every, version="7")
        assert [await run_of(hub, name) for name in ("newest", "pinned")] == ["1", "1"]
    async with place.hub(reporting("1", "2")) as hub:
        assert [await run_of(hub, name) for name in ("newest", "pinned")] == ["2", "1"]
        await hub.client.get_schedule("pinned").update(version="2")
        assert await run_of(hub, "pinned") == "2"


# ---- patches -------------------------------------------------------------------------------------------------


async def test_a_patch_is_for_those_that_come_to_it_and_stays_with_each(place: Place) -> None:
    def before(ctx: OrchestrationContext) -> Any:
        yield ctx.wait_for_external_event("first")
        done = yield ctx.call_activity("echo", "old")
        yield ctx.wait_for_external_event("go")
        return [done, (yield ctx.call_activity("echo", "old end"))]

    def after(ctx: OrchestrationContext) -> Any:
        yield ctx.wait_for_external_event("first")
        done = yield ctx.call_activity("other" if ctx.patched("better") else "echo", "new")
        yield ctx.wait_for_external_event("go")
        return [done, (yield ctx.call_activity("echo", "new end" if ctx.patched("better") else "old end"))]

    async with place.hub(app_with(None, vnone=before)) as hub:
        for id in ("past", "not yet"):
            await hub.client.start("main", instance_id=id)
        await hub.client.get("past").raise_event("first")
        await until_recorded(hub.client.get("past"), "TaskCompleted")
    async with place.hub(app_with(None, vnone=after)) as hub:
        await hub.client.start("main", instance_id="new")
        for id in ("not yet", "new"):
            await hub.client.get(id).raise_event("first")
            await until_recorded(hub.client.get(id), "TaskCompleted")
    async with place.hub(app_with(None, vnone=after)) as hub:
        assert await ended(hub, "past") == ["old", "old end"]
        for id in ("not yet", "new"):
            assert await ended(hub, id) == ["new", "new end"]
            marks = [event for event in await history(hub.client.get(id)) if type(event).__name__ == "PatchMarked"]
            assert len(marks) == 1
            assert "test_versions.py:" in getattr(marks[0], "site", "")
