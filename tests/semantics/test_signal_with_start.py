"""An event that begins its instance: exactly one of many callers starts it, and no event is lost or doubled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    EncodeError,
    InstanceFinishedError,
    InvalidArgumentError,
    OrchestrationContext,
    SqliteStore,
    UnknownNameError,
)
from tests.semantics.kit import LIMIT, Place, kinds, until_status


def app_of_carts() -> App:
    app = App()

    @app.orchestrator
    def cart(ctx: OrchestrationContext, expected: int) -> Any:
        items: list[Any] = []
        while len(items) < expected:
            items.append((yield ctx.wait_for_external_event("add")))
        return items

    return app


async def test_the_first_event_starts_the_instance_and_the_others_find_it(place: Place) -> None:
    async with place.hub(app_of_carts()) as hub:
        for item in ("a", "b"):
            cart = await hub.client.signal_with_start("cart", 2, "add", item, instance_id="cart", tags={"k": "v"})
        assert await cart.result(LIMIT) == ["a", "b"]
        assert (await kinds(cart)).count("EventRaised") == 2
        assert (await cart.status()).tags == {"k": "v"}


async def test_of_many_callers_at_once_exactly_one_starts_it(place: Place) -> None:
    async with place.hub(app_of_carts()) as hub:
        clients = [hub.client]
        if isinstance(place.store(), SqliteStore):
            others = [Client(place.path) for _ in range(2)]
            clients += [await other.__aenter__() for other in others]
        try:
            await asyncio.gather(
                *(
                    clients[n % len(clients)].signal_with_start("cart", 30, "add", n, instance_id="cart")
                    for n in range(30)
                )
            )
        finally:
            for other in clients[1:]:
                await other.__aexit__(None, None, None)
        cart = hub.client.get("cart")
        assert sorted(await cart.result(LIMIT)) == list(range(30))
        assert (await kinds(cart)).count("ExecutionStarted") == 1


async def test_without_a_worker_it_waits_for_one(place: Place) -> None:
    store = place.store()
    async with Client(store) as client:
        await client.signal_with_start("cart", 1, "add", "kept", instance_id="cart")
        assert (await client.get("cart").status()).status == "PENDING"
    async with place.hub(app_of_carts()) as hub:
        assert await hub.client.get("cart").result(LIMIT) == ["kept"]


async def test_a_finished_instance_refuses_unless_it_may_be_replaced(place: Place) -> None:
    async with place.hub(app_of_carts()) as hub:
        cart = await hub.client.signal_with_start("cart", 1, "add", "a", instance_id="cart")
        assert await cart.result(LIMIT) == ["a"]
        with pytest.raises(InstanceFinishedError):
            await hub.client.signal_with_start("cart", 1, "add", "b", instance_id="cart")
        before = (await cart.status()).execution_id
        await hub.client.signal_with_start(
            "cart", 2, "add", "b", instance_id="cart", on_existing="replace_finished", dedupe_key="b"
        )
        await until_status(cart, "RUNNING")
        for _ in range(2):
            await hub.client.signal_with_start(
                "cart", 2, "add", "c", instance_id="cart", on_existing="replace_finished", dedupe_key="c"
            )
        assert await cart.result(LIMIT) == ["b", "c"]
        for key in ("b", "c"):
            await hub.client.signal_with_start(
                "cart", 2, "add", key, instance_id="cart", on_existing="replace_finished", dedupe_key=key
            )
        assert (await cart.status()).status == "COMPLETED", "a repeated key started it again"
        assert [type(e).__name__ async for e in cart.history(before)][-1] == "ExecutionCompleted"


async def test_a_client_elsewhere_replaces_what_the_worker_has_finished(place: Place) -> None:
    if not isinstance(place.store(), SqliteStore):
        pytest.skip("a hub in memory has one process")
    async with place.hub(app_of_carts()) as hub, Client(place.path) as client:
        for item in range(5):
            await client.signal_with_start("cart", 1, "add", item, instance_id="cart", on_existing="replace_finished")
            assert await hub.client.get("cart").result(LIMIT) is not None

            async def has_taken(item: int = item) -> bool:
                return bool(await hub.client.get("cart").result(LIMIT) == [item])

            async with asyncio.timeout(LIMIT):
                while not await has_taken():  # noqa: ASYNC110 - the end of the one before may be told first
                    await asyncio.sleep(0.005)


async def test_what_makes_no_sense_is_refused_and_nothing_begins(place: Place) -> None:
    async with place.hub(app_of_carts()) as hub:
        ask = hub.client.signal_with_start
        with pytest.raises(UnknownNameError):
            await ask("unknown", None, "add", instance_id="i")
        with pytest.raises(InvalidArgumentError):
            await ask("cart", 1, "", instance_id="i")
        with pytest.raises(InvalidArgumentError):
            await ask("cart", 1, "add", instance_id="@a@b")
        with pytest.raises(InvalidArgumentError, match="'error' or 'replace_finished'"):
            await ask("cart", 1, "add", instance_id="i", on_existing="return")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError):
            await ask("cart", 1, "add", instance_id="i", dedupe_key="")
        for input, payload in ((object(), 1), (1, object())):
            with pytest.raises(EncodeError):
                await ask("cart", input, "add", payload, instance_id="i")
        assert [state async for state in hub.client.list()] == []
