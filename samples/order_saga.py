"""A saga: when a step fails, what the steps before it did is undone, the last one first.

    python -m samples.order_saga [STORE]

It needs no special machinery: the orchestrator remembers how to undo what it did in a plain list, and a plain `except` goes through it.
Should the process die in the middle of the undoing, the undoing goes on. An order's number is its instance's id, so that an order is
never handled twice, however often it is sent.
"""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass

from replayflow import ActivityError, App, NonRetryableError, Orchestration, OrchestrationContext, Task, TaskHub

app = App()


@dataclass
class Order:
    number: str
    item: str
    destination: str


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
def ship(order: Order) -> str:
    if order.destination == "Atlantis":
        raise NonRetryableError("no carrier goes to Atlantis")
    print(f"  {order.number}: on its way to {order.destination}")
    return f"parcel to {order.destination}"


@app.activity
def release(reservation: str) -> None:
    print(f"  undone: {reservation}")


@app.activity
def refund(payment: str) -> None:
    print(f"  undone: {payment}")


@app.orchestrator
def order_saga(ctx: OrchestrationContext, order: Order) -> Orchestration[Outcome]:
    undo: list[Callable[[], Task[None]]] = []
    try:
        reservation = yield from ctx.call_activity(reserve, order)
        undo.append(lambda: ctx.call_activity(release, reservation))
        payment = yield from ctx.call_activity(charge, order)
        undo.append(lambda: ctx.call_activity(refund, payment))
        parcel = yield from ctx.call_activity(ship, order)
    except ActivityError as error:
        for step in reversed(undo):
            yield from step()
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
