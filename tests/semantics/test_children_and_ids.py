"""Sub-orchestrations, instance ids, and what happens where an id is taken."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from replayflow import (
    App,
    InstanceExistsError,
    OrchestrationContext,
    OrchestrationTerminated,
    RetryPolicy,
    SubOrchestrationError,
    when_all,
)
from replayflow.errors import EncodeError, InvalidArgumentError, UnknownNameError
from tests.semantics.kit import LIMIT, Place, failure_of, until, until_status


def family() -> App:
    app = App()

    @app.orchestrator
    def child(ctx: OrchestrationContext, x: int) -> Any:
        yield ctx.create_timer(timedelta(0))
        return [x, ctx.instance_id, ctx.parent_instance_id]

    @app.orchestrator
    def parent(ctx: OrchestrationContext) -> Any:
        return (yield when_all([ctx.call_sub_orchestrator(child, n) for n in range(2)]))

    @app.orchestrator
    def named(ctx: OrchestrationContext, child_id: str) -> Any:
        try:
            return (yield ctx.call_sub_orchestrator(child, 1, instance_id=child_id))
        except SubOrchestrationError as error:
            return str(error)

    @app.orchestrator
    def rounds(ctx: OrchestrationContext, before: list[str]) -> Any:
        _, id, _ = yield ctx.call_sub_orchestrator(child, 0)
        if len(before) < 3:
            ctx.continue_as_new([*before, id])
        return [*before, id]

    @app.orchestrator
    def waits(ctx: OrchestrationContext) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    return app


async def test_a_child_is_called_by_its_parent_and_action(place: Place) -> None:
    async with place.hub(family()) as hub:
        instance = await hub.client.start("parent", instance_id="p")
        assert await instance.result(LIMIT) == [[0, "p:0001", "p"], [1, "p:0002", "p"]]
        assert (await hub.client.get("p:0001").status()).parent_instance_id == "p"


async def test_children_of_every_execution_have_ids_of_their_own(place: Place) -> None:
    async with place.hub(family()) as hub:
        ids = await (await hub.client.start("rounds", [], instance_id="p")).result(LIMIT)
        assert ids[0] == "p:0001"
        assert len(set(ids)) == 4
        assert all(id.startswith("p:0001:") for id in ids[1:])


async def test_a_default_id_that_grows_too_long_becomes_a_hash(place: Place) -> None:
    async with place.hub(family()) as hub:
        results = await (await hub.client.start("parent", instance_id="p" * 256)).result(LIMIT)
        assert [len(id) for _, id, _ in results] == [64, 64]


async def test_an_explicit_id_is_taken_as_it_is_and_a_taken_one_fails_that_call(place: Place) -> None:
    async with place.hub(family()) as hub:
        assert await (await hub.client.start("named", "my child")).result(LIMIT) == [
            1,
            "my child",
            (await first(hub.client.list(name="named"))).id,
        ]
        assert "taken" in await (await hub.client.start("named", "my child")).result(LIMIT)


async def first(items: Any) -> Any:
    return await anext(items)


async def test_a_child_is_tried_again_under_an_id_of_its_own(place: Place) -> None:
    app = App()

    @app.orchestrator
    def child(ctx: OrchestrationContext) -> Any:
        if not ctx.instance_id.endswith(":3"):
            raise ValueError(ctx.instance_id)
        return ctx.instance_id

    @app.orchestrator
    def parent(ctx: OrchestrationContext, attempts: int) -> Any:
        policy = RetryPolicy(max_attempts=attempts, first_interval=timedelta(milliseconds=5))
        return (yield ctx.call_sub_orchestrator(child, retry=policy))

    async with place.hub(app) as hub:
        assert await (await hub.client.start(parent, 3, instance_id="p")).result(LIMIT) == "p:0001:3"
        assert "q:0001:2" in str(await failure_of(await hub.client.start(parent, 2, instance_id="q")))


# ---- ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "instance_id", ["", "x" * 257, "@a", "a/b", "a\\b", "a#b", "a?b", "a\nb", "a\x00b", "a\x7fb", "a\x9fb", 5, b"a"]
)
async def test_an_id_that_is_none_is_refused_before_anything_is_written(place: Place, instance_id: Any) -> None:
    async with place.hub(family()) as hub:
        with pytest.raises(InvalidArgumentError, match="instance_id"):
            await hub.client.start("waits", instance_id=instance_id)
        assert [state async for state in hub.client.list()] == []


@pytest.mark.parametrize("instance_id", ["x" * 256, "a b", "a@b", "ä漢👩‍🚀", "a:b", "a%20b", "..", "a'b\"c;--"])
async def test_any_other_text_is_an_id(place: Place, instance_id: str) -> None:
    async with place.hub(family()) as hub:
        instance = await hub.client.start("waits", instance_id=instance_id)
        await hub.client.get(instance_id).raise_event("go", "there")
        assert await instance.result(LIMIT) == "there"


async def test_what_is_refused_at_the_start_leaves_nothing(place: Place) -> None:
    app = family()
    async with place.hub(app) as hub:
        with pytest.raises(UnknownNameError):
            await hub.client.start("no such name")
        with pytest.raises(EncodeError):
            await hub.client.start("waits", object())
        with pytest.raises(InvalidArgumentError):
            await hub.client.start("waits", tags={"a": 1})  # type: ignore[dict-item]
        with pytest.raises(InvalidArgumentError):
            await hub.client.start("waits", on_existing="perhaps")  # type: ignore[call-overload]
        assert [state async for state in hub.client.list()] == []


# ---- on_existing ---------------------------------------------------------------------------------------------


async def test_on_existing_error_refuses_an_id_that_is_taken(place: Place) -> None:
    async with place.hub(family()) as hub:
        instance = await hub.client.start("waits", instance_id="i")
        with pytest.raises(InstanceExistsError, match="'i'"):
            await hub.client.start("waits", instance_id="i")
        await instance.raise_event("go")
        await instance.wait(LIMIT)
        with pytest.raises(InstanceExistsError, match="COMPLETED"):
            await hub.client.start("waits", instance_id="i")


async def test_on_existing_return_leaves_it_as_it_is(place: Place) -> None:
    async with place.hub(family()) as hub:
        before = await (await hub.client.start("waits", instance_id="i")).status()
        again = await hub.client.start("waits", "other input", instance_id="i", on_existing="return")
        assert (await again.status()).execution_id == before.execution_id
        await again.raise_event("go", 1)
        assert await again.result(LIMIT) == 1
        once_more = await hub.client.start("waits", instance_id="i", on_existing="return")
        assert await once_more.result(LIMIT) == 1


async def test_on_existing_replace_finished_replaces_what_has_finished_alone(place: Place) -> None:
    async with place.hub(family()) as hub:
        instance = await hub.client.start("waits", instance_id="i", on_existing="replace_finished")
        before = (await instance.status()).execution_id
        with pytest.raises(InstanceExistsError):
            await hub.client.start("waits", instance_id="i", on_existing="replace_finished")
        await instance.raise_event("go", 1)
        assert await instance.result(LIMIT) == 1
        again = await hub.client.start("waits", instance_id="i", on_existing="replace_finished")
        assert (await again.status()).execution_id != before
        await again.raise_event("go", 2)
        assert await again.result(LIMIT) == 2


@pytest.mark.parametrize("finished", [True, False])
async def test_on_existing_terminate_and_replace_replaces_in_any_case(place: Place, finished: bool) -> None:
    async with place.hub(family()) as hub:
        instance = await hub.client.start("waits", instance_id="i", on_existing="terminate_and_replace")
        before = (await instance.status()).execution_id
        if finished:
            await instance.raise_event("go", 1)
            await instance.wait(LIMIT)
        again = await hub.client.start("waits", instance_id="i", on_existing="terminate_and_replace")

        async def is_new() -> bool:
            return (await again.status()).execution_id != before

        await until(is_new)
        await again.raise_event("go", 2)
        assert await again.result(LIMIT) == 2
        past = [type(event).__name__ async for event in instance.history(before)]
        assert ("ExecutionReplaced" in past) is not finished


async def test_children_of_a_replacement_have_ids_of_their_own(place: Place) -> None:
    async with place.hub(family()) as hub:
        await (await hub.client.start("parent", instance_id="p")).result(LIMIT)
        again = await hub.client.start("parent", instance_id="p", on_existing="replace_finished")
        results = await again.result(LIMIT)
        assert all(id.startswith("p:000") and len(id) > 6 for _, id, _ in results)


async def test_a_replaced_child_tells_its_parent_that_it_was_terminated(place: Place) -> None:
    app = family()

    @app.orchestrator
    def parent_of_waiter(ctx: OrchestrationContext) -> Any:
        yield ctx.call_sub_orchestrator("waits", instance_id="c")

    async with place.hub(app) as hub:
        instance = await hub.client.start(parent_of_waiter)
        await until_status_of(hub, "c")
        await hub.client.start("waits", instance_id="c", on_existing="terminate_and_replace")
        assert "terminated" in str(await failure_of(instance))


async def until_status_of(hub: Any, id: str) -> None:
    async def is_there() -> bool:
        return [state async for state in hub.client.list(id_prefix=id, status="RUNNING")] != []

    await until(is_there)


# ---- termination and cancellation in families ----------------------------------------------------------------


def tree() -> App:
    app = App()

    @app.orchestrator
    def leaf(ctx: OrchestrationContext) -> Any:
        yield ctx.wait_for_external_event("never")

    @app.orchestrator
    def middle(ctx: OrchestrationContext) -> Any:
        yield ctx.call_sub_orchestrator(leaf)

    @app.orchestrator
    def top(ctx: OrchestrationContext) -> Any:
        yield ctx.call_sub_orchestrator(middle)

    return app


async def test_termination_recurses_by_default(place: Place) -> None:
    async with place.hub(tree()) as hub:
        instance = await hub.client.start("top", instance_id="t")
        await until_status_of(hub, "t:0001:0001")
        await instance.terminate("enough")
        with pytest.raises(OrchestrationTerminated, match="enough"):
            await instance.result(LIMIT)
        for id in ("t:0001", "t:0001:0001"):
            assert (await hub.client.get(id).wait(LIMIT)).status == "TERMINATED"


async def test_termination_without_recursion_leaves_the_children(place: Place) -> None:
    async with place.hub(tree()) as hub:
        instance = await hub.client.start("top", instance_id="t")
        await until_status_of(hub, "t:0001:0001")
        await instance.terminate(recursive=False)
        await until_status(instance, "TERMINATED")
        child = hub.client.get("t:0001")
        assert (await child.status()).status == "RUNNING"
        await child.terminate()
        await until_status(child, "TERMINATED")


async def test_cancellation_recurses(place: Place) -> None:
    async with place.hub(tree()) as hub:
        instance = await hub.client.start("top", instance_id="t")
        await until_status_of(hub, "t:0001:0001")
        await instance.cancel("not wanted")
        for id in ("t", "t:0001", "t:0001:0001"):
            assert (await hub.client.get(id).wait(LIMIT)).status == "CANCELED"


async def test_a_terminated_child_fails_the_call(place: Place) -> None:
    async with place.hub(tree()) as hub:
        instance = await hub.client.start("top", instance_id="t")
        await until_status_of(hub, "t:0001:0001")
        await hub.client.get("t:0001:0001").terminate()
        assert (await failure_of(instance)).is_caused_by(SubOrchestrationError)


@pytest.mark.parametrize("on_existing", ["error", "return", "replace_finished"])
async def test_code_does_not_run_for_an_instance_that_is_refused(place: Place, on_existing: Any) -> None:
    app = App()
    ran: list[str] = []

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        ran.append(ctx.execution_id)
        yield ctx.wait_for_external_event("go")

    async with place.hub(app) as hub:
        await hub.client.start("main", instance_id="x")

        async def has_run() -> bool:
            return bool(ran)

        await until(has_run)
    (its_own,) = ran
    async with place.hub(app) as hub:
        try:
            await hub.client.start("main", instance_id="x", on_existing=on_existing)
        except InstanceExistsError:
            assert on_existing != "return"
        assert set(ran) == {its_own}  # which may have been replayed: the first worker was not there for long
