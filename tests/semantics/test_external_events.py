"""External events, end to end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from replayflow import App, Client, InstanceFinishedError, InstanceNotFoundError, OrchestrationContext, when_all
from replayflow.errors import DecodeError, EncodeError, InvalidArgumentError
from tests.semantics.kit import LIMIT, Place, kinds, until_recorded


def collector(count: int) -> App:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        got = []
        for _ in range(count):
            got.append((yield ctx.wait_for_external_event("Go")))  # noqa: PERF401 - a yield in a comprehension is none
        return got

    return app


async def test_names_compare_casefolded_and_arrivals_are_served_first_come_first_served(place: Place) -> None:
    async with place.hub(collector(4)) as hub:
        instance = await hub.client.start("main")
        for n, name in enumerate(["go", "GO", "gO", "Go"]):
            await instance.raise_event(name, n)
        assert await instance.result(LIMIT) == [0, 1, 2, 3]


async def test_events_wait_for_whoever_asks_later(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        yield ctx.wait_for_external_event("begin")
        first = yield ctx.wait_for_external_event("early")
        return [first, (yield ctx.wait_for_external_event("early"))]

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        await instance.raise_event("early", 1)
        await instance.raise_event("early", 2)
        await instance.raise_event("begin")
        assert await instance.result(LIMIT) == [1, 2]


async def test_waiters_of_a_name_are_served_in_the_order_in_which_they_began(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        waiters = [ctx.wait_for_external_event("e") for _ in range(3)]
        waiters.pop(1).cancel()
        return (yield when_all(waiters))

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        await instance.raise_event("e", "first")
        await instance.raise_event("e", "second")
        assert await instance.result(LIMIT) == ["first", "second"]


async def test_a_time_limit_raises_timeout_error_at_the_yield(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.wait_for_external_event("e", timeout=timedelta(milliseconds=20))
        except TimeoutError as error:
            return str(error), (yield ctx.wait_for_external_event("e"))

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        await until_recorded(instance, "TimerFired")
        await instance.raise_event("e", "for the second wait")
        assert await instance.result(LIMIT) == ("no event 'e' came within its time limit", "for the second wait")


async def test_an_event_in_time_cancels_the_limit(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.wait_for_external_event("e", type=int, timeout=timedelta(days=1)))

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        await instance.raise_event("e", 5)
        assert await instance.result(LIMIT) == 5
        assert "TimerCanceled" in await kinds(instance)


@pytest.mark.parametrize("saves", [True, False])
async def test_events_that_nobody_had_survive_continue_as_new_by_default(place: Place, saves: bool) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext, round: int) -> Any:
        if round == 1:
            yield ctx.wait_for_external_event("on")
            if saves:
                ctx.continue_as_new(2)
            else:
                ctx.continue_as_new(2, save_events=False)
            return None
        try:
            return (yield ctx.wait_for_external_event("e", timeout=timedelta(milliseconds=50)))
        except TimeoutError:
            return "nothing came"

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, 1)
        await instance.raise_event("e", "kept")
        await instance.raise_event("on")
        assert await instance.result(LIMIT) == ("kept" if saves else "nothing came")


async def test_no_event_is_lost_in_a_storm_of_continue_as_new(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext, got: list[int]) -> Any:
        got = [*got, (yield ctx.wait_for_external_event("e"))]
        if len(got) < 100:
            ctx.continue_as_new(got)
        return got

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, [])
        async with asyncio.TaskGroup() as senders:
            for n in range(100):
                senders.create_task(instance.raise_event("e", n))
        assert sorted(await instance.result(LIMIT)) == list(range(100))


async def test_an_event_to_an_unknown_id_is_not_found(place: Place) -> None:
    async with place.hub(App()) as hub:
        with pytest.raises(InstanceNotFoundError, match="nobody"):
            await hub.client.get("nobody").raise_event("e")


async def test_an_event_to_a_finished_instance_is_refused_but_a_repeated_key_succeeds(place: Place) -> None:
    async with place.hub(collector(1)) as hub:
        instance = await hub.client.start("main")
        await instance.raise_event("go", 1, dedupe_key="k")
        assert await instance.result(LIMIT) == [1]
        with pytest.raises(InstanceFinishedError):
            await instance.raise_event("go", 2)
        with pytest.raises(InstanceFinishedError):
            await instance.raise_event("go", 2, dedupe_key="another")
        await instance.raise_event("go", 1, dedupe_key="k")
    async with place.hub(App()) as hub:
        await hub.client.get(instance.id).raise_event("go", 1, dedupe_key="k")


async def test_a_repeated_key_is_delivered_once(place: Place) -> None:
    async with place.hub(collector(2)) as hub:
        instance = await hub.client.start("main")
        for _ in range(3):
            await instance.raise_event("go", "once", dedupe_key="k")
        await instance.raise_event("go", "then")
        assert await instance.result(LIMIT) == ["once", "then"]


async def test_what_cannot_be_sent_is_refused_before_anything_is_written(place: Place) -> None:
    async with place.hub(collector(1)) as hub:
        instance = await hub.client.start("main")
        with pytest.raises(EncodeError):
            await instance.raise_event("go", object())
        for name in ("", "x" * 257):
            with pytest.raises(InvalidArgumentError):
                await instance.raise_event(name)
        with pytest.raises(InvalidArgumentError):
            await instance.raise_event("go", dedupe_key="")
        wrong: Any = 5
        for key in (wrong, "\ud800"):
            with pytest.raises(InvalidArgumentError, match="dedupe_key is"):
                await instance.raise_event("go", dedupe_key=key)
        await instance.raise_event("go", "good")
        assert await instance.result(LIMIT) == ["good"]


async def test_orchestrations_send_each_other_events_in_order(place: Place) -> None:
    app = collector(3)

    @app.orchestrator
    def sender(ctx: OrchestrationContext, receiver: str) -> Any:
        for n in range(3):
            ctx.send_event(receiver, "go", n)
        ctx.send_event("nobody", "go")
        yield ctx.create_timer(timedelta(0))

    async with place.hub(app) as hub:
        receiver = await hub.client.start("main")
        await (await hub.client.start(sender, receiver.id)).result(LIMIT)
        assert await receiver.result(LIMIT) == [0, 1, 2]


async def test_events_wait_for_a_worker(place: Place) -> None:
    app = collector(2)
    async with place.hub(app) as hub:
        await hub.client.start("main", instance_id="i")
    store = place.store()
    async with Client(store) as client:
        await client.get("i").raise_event("go", 1)
        await client.get("i").raise_event("go", 2)
    async with place.hub(app) as hub:
        assert await hub.client.get("i").result(LIMIT) == [1, 2]


async def test_an_event_that_does_not_fit_its_annotation_names_the_event(place: Place) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        while True:
            try:
                return (yield ctx.wait_for_external_event("approved", type=bool))
            except DecodeError as error:
                ctx.set_custom_status(str(error))

    async with place.hub(app) as hub:
        instance = await hub.client.start("main")
        await instance.raise_event("approved", {"a": 1})
        await instance.raise_event("approved", True)
        assert await instance.result(LIMIT) is True
        assert "value of event 'approved': expected bool" in (await instance.status()).custom_status


async def test_a_replacement_has_had_no_dedupe_key(place: Place) -> None:
    async with place.hub(collector(1)) as hub:
        for payload in (1, 2):
            instance = await hub.client.start("main", instance_id="x", on_existing="replace_finished")
            for _ in range(2):
                await instance.raise_event("go", payload, dedupe_key="k")
            assert await instance.result(LIMIT) == [payload]


async def test_what_one_client_was_told_first_comes_before_what_another_asked_for_then(place: Place) -> None:
    app = App()

    @app.orchestrator
    def listens(ctx: OrchestrationContext) -> Any:
        first = yield ctx.wait_for_external_event("e")
        return [first, (yield ctx.wait_for_external_event("e"))]

    async with place.hub(app) as hub, Client(place.store()) as outside:
        for number in range(5):
            instance = await hub.client.start(listens, instance_id=f"i{number}")
            await outside.get(instance.id).raise_event("e", "first")  # the worker hears of it by a hint alone
            await instance.raise_event("e", "second")
            assert await instance.result(LIMIT) == ["first", "second"]


async def test_who_was_suspended_from_outside_is_resumed_from_inside(place: Place) -> None:
    app = App()

    @app.orchestrator
    def listens(ctx: OrchestrationContext) -> Any:
        return (yield ctx.wait_for_external_event("e"))

    async with place.hub(app) as hub, Client(place.store()) as outside:
        instance = await hub.client.start(listens)
        await outside.get(instance.id).suspend()
        await instance.resume()
        await instance.raise_event("e", 1)
        assert await instance.result(LIMIT) == 1
