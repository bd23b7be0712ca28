"""New code under running orders: a change inside an orchestrator (a patch), and one that is written anew (a version).

    python -m samples.new_code [STORE]

Three deployments follow each other on one store, each with an order that is begun and not yet paid. In summer orders are wrapped: those that are
past the place are not, for `ctx.patched` is what their history says. In autumn payment comes first: that is another orchestrator under the same
name, and the orders of spring and summer keep to the code that they began with. At the end all are paid, under the code of autumn.

    replayflow check samples/new_code.py:autumn --store new_code.db
"""

import asyncio
import sys

from replayflow import App, Instance, Orchestration, OrchestrationContext, TaskHub

spring, summer, autumn = App(), App(), App()
shop = App()


@shop.activity
async def pack(item: str) -> str:
    return f"a {item}"


@shop.activity
async def wrap(parcel: str) -> str:
    return f"{parcel} in gift paper"


@shop.activity
async def ship(parcel: str) -> str:
    return f"{parcel}, shipped"


@spring.orchestrator(name="order")
def order_of_spring(ctx: OrchestrationContext, item: str) -> Orchestration[str]:
    parcel = yield from ctx.call_activity(pack, item)
    ctx.set_custom_status("waits for its payment")
    yield from ctx.wait_for_external_event("paid")
    return (yield from ctx.call_activity(ship, parcel))


@summer.orchestrator(name="order")
def order(ctx: OrchestrationContext, item: str) -> Orchestration[str]:
    parcel = yield from ctx.call_activity(pack, item)
    if ctx.patched("gift-paper"):  # when no order of spring is open any more, the question can go
        parcel = yield from ctx.call_activity(wrap, parcel)
    ctx.set_custom_status("waits for its payment")
    yield from ctx.wait_for_external_event("paid")
    return (yield from ctx.call_activity(ship, parcel))


@autumn.orchestrator(name="order", version="2")
def paid_order(ctx: OrchestrationContext, item: str) -> Orchestration[str]:
    ctx.set_custom_status("waits for its payment")
    yield from ctx.wait_for_external_event("paid")
    parcel = yield from ctx.call_activity(pack, item)
    return (yield from ctx.call_activity(ship, f"{parcel}, paid for"))


for deployed in (spring, summer, autumn):
    deployed.include(shop)
autumn.include(summer)  # the code without a version stays, for what began with it


async def begin(hub: TaskHub, id: str, item: str) -> Instance[str]:
    """The order waits for its payment, or is done already; by name it is of the newest version that is deployed."""
    instance = await hub.client.start("order", item, instance_id=id, on_existing="return")
    while True:
        state = await instance.status()
        if state.status.is_finished or state.custom_status is not None:
            return instance
        await asyncio.sleep(0.01)


async def main(store: str = "new_code.db") -> None:
    deployments = {"spring": (spring, "book"), "summer": (summer, "vase"), "autumn": (autumn, "lamp")}
    for season, (app, item) in deployments.items():
        async with TaskHub(store, app) as hub:
            await begin(hub, f"order-{season}", item)
            print(f"{season}: an order for a {item} is waiting")
    async with TaskHub(store, autumn) as hub:
        for season in deployments:
            instance = hub.client.get(f"order-{season}")
            if not (await instance.status()).status.is_finished:
                await instance.raise_event("paid", dedupe_key="paid")
            print(f"{season}: {await instance.result()}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
