"""An order's row and its workflow in one transaction: both are there, or neither is.

    python -m samples.order_row [STORE]

The shop's own table is in the hub's file. `sqlite.start` writes with the shop's connection, in the transaction that it is in, so that there is no
moment in which the order is there and nobody ships it, and no workflow of an order that was rolled back. The worker, here in the same process,
could be in any.

Finished workflows are kept for a week, failed ones for a month: what the shop wants to know for good is in its own table.
"""

import asyncio
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

from replayflow import ActivityContext, App, Orchestration, OrchestrationContext, Retention, TaskHub
from replayflow import sqlite as transaction

app = App()
KEPT = Retention(completed=timedelta(days=7), failed=timedelta(days=30))
CREDIT = 100


@dataclass
class Order:
    shop: str
    """The file that has the shop's tables, and the hub."""
    number: str
    total: int


class TooExpensive(Exception):
    pass


@app.activity
def ship(ctx: ActivityContext, order: Order) -> str:
    """Marks the row: to do it twice is to do it once."""
    with closing(sqlite3.connect(order.shop)) as connection, connection:
        connection.execute(
            "UPDATE orders SET parcel = coalesce(parcel, ?) WHERE number = ?", (ctx.idempotency_key, order.number)
        )
    return "shipped"


@app.orchestrator
def fulfilment(ctx: OrchestrationContext, order: Order) -> Orchestration[str]:
    yield from ctx.create_timer(timedelta(seconds=0.2))  # the packing
    return (yield from ctx.call_activity(ship, order))


def take(order: Order) -> None:
    """The order is taken, with all that follows from it, or was before.

    Raises:
        TooExpensive: nothing is left of it.
    """
    with (
        closing(sqlite3.connect(order.shop)) as connection,
        connection,
    ):  # commits, or rolls back where something is raised
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS orders (number TEXT PRIMARY KEY, total INTEGER NOT NULL, parcel TEXT)"
        )
        connection.execute("INSERT OR IGNORE INTO orders (number, total) VALUES (?, ?)", (order.number, order.total))
        transaction.start(connection, fulfilment, order, instance_id=order.number, on_existing="return")
        if order.total > CREDIT:
            raise TooExpensive(order.number)


async def main(store: str = "order_row.db") -> None:
    async with TaskHub(store, app, retention=KEPT) as hub:
        for order in (Order(store, "order-1", 30), Order(store, "order-2", 3000)):
            try:
                await asyncio.to_thread(take, order)
            except TooExpensive:
                known = [state.id async for state in hub.client.list(id_prefix=order.number)]
                print(f"{order.number}: too expensive, {len(known)} workflows")
            else:
                print(f"{order.number}: taken")
                print(f"{order.number}: {await hub.client.get(order.number).result()}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
