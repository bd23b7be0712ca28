"""A saga: when a part of an order fails, what the parts before it did is undone, the last one first.

    python -m samples.order_saga [STORE]

`ctx.saga` registers how each part is undone before it begins, so that a payment whose receipt was lost is given back, too. Should the
process die in the middle of the undoing, the undoing goes on. An order's number is its instance's id, so that an order is never handled
twice, however often it is sent.

By hand, with a worker that may be killed, and a request to cancel while the order is being packed:

    replayflow worker samples.order_saga:app --store orders.db
    replayflow start order_saga --input '{"number": "o-3", "item": "a kite", "destination": "Lisbon",
        "packing_seconds": 20}' --id o-3 --store orders.db
    replayflow cancel o-3 --store orders.db
"""

import asyncio
import sys
from dataclasses import dataclass

from replayflow import ActivityError, App, NonRetryableError, Orchestration, OrchestrationContext, Saga, TaskHub

app = App()


@dataclass
class Order:
    number: str
    item: str
    destination: str
    packing_seconds: float = 0.01


@dataclass
class Outcome:
    shipped: bool
    message: str


@app.activity
def reserve(order: Order) -> str:
    print(f"  {order.number}: {order.item} is reserved")
    return f"reservation of {order.item}"


@app.activity
def charge(order: Order) -> str:
    print(f"  {order.number}: the card is charged")
    return f"payment for {order.number}"


@app.activity
async def ship(order: Order) -> str:
    if order.destination == "Atlantis":
        raise NonRetryableError("no carrier goes to Atlantis")
    await asyncio.sleep(order.packing_seconds)
    print(f"  {order.number}: on its way to {order.destination}")
    return f"parcel to {order.destination}"


@app.activity
def release(order: Order) -> None:
    print(f"  {order.number}: {order.item} is released")


@app.activity
def refund(order: Order) -> None:
    print(f"  {order.number}: the card gets its money back")


@app.activity
def call_back(order: Order) -> None:
    print(f"  {order.number}: the parcel is called back, if there is one")


@app.orchestrator
def order_saga(ctx: OrchestrationContext, order: Order) -> Orchestration[Outcome]:
    def body(saga: Saga) -> Orchestration[str]:
        yield from saga.run(reserve, release, order)
        yield from saga.run(charge, refund, order)
        return (yield from saga.run(ship, call_back, order))

    try:
        parcel = yield from ctx.saga(body)
    except ActivityError as error:
        return Outcome(False, error.details.message)
    return Outcome(True, parcel)


async def main(store: str = "order_saga.db") -> None:
    async with TaskHub(store, app) as hub:
        for order in (Order("order-1", "a compass", "Lisbon"), Order("order-2", "a diving bell", "Atlantis")):
            instance = await hub.client.start(order_saga, order, instance_id=order.number, on_existing="return")
            outcome = await instance.result()
            print(f"{order.number}: {'shipped' if outcome.shipped else 'not shipped'}, {outcome.message}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
