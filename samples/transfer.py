"""A transfer: money goes from one account to another, in tables of the program's own in the hub's file, exactly once.

    python -m samples.transfer [STORE]

An activity runs at least once: should the process die before its result is durable, it runs again. `transfer` is transactional: what it
writes and what it returns are one commit of the hub's own database, so that no kill can move the money twice, or not at all, and no key
has to be kept for it. What it may not do, such as to end its transaction or to touch the engine's tables, is refused.

By hand, with a worker that may be killed:

    replayflow worker samples.transfer:app --store bank.db
    replayflow start pay_wages --input '[["ada", 300], ["alan", 200]]' --id wages-11 --store bank.db
    sqlite3 bank.db 'SELECT * FROM account'
"""

import asyncio
import sys
from dataclasses import dataclass

from replayflow import (
    ActivityError,
    App,
    NonRetryableError,
    Orchestration,
    OrchestrationContext,
    TaskHub,
    Transaction,
)

app = App()
TILL = "till"


@dataclass
class Transfer:
    payer: str
    payee: str
    amount: int


@app.activity(transactional=True)
def open_accounts(tx: Transaction, names: list[str]) -> None:
    tx.execute(
        "CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0))"
    )
    tx.executemany(
        "INSERT INTO account VALUES (?, ?) ON CONFLICT DO NOTHING", [(TILL, 1000), *((name, 0) for name in names)]
    )


@app.activity(transactional=True)
def transfer(tx: Transaction, order: Transfer) -> int:
    """What the payer has left. Where it is too little, nothing is moved."""
    tx.execute("UPDATE account SET balance = balance + ? WHERE name = ?", (order.amount, order.payee))
    [(left,)] = tx.execute("SELECT balance FROM account WHERE name = ?", (order.payer,))
    if left < order.amount:
        raise NonRetryableError(
            f"{order.payer} has {left}, and cannot pay {order.amount}"
        )  # takes back what was written
    tx.execute("UPDATE account SET balance = balance - ? WHERE name = ?", (order.amount, order.payer))
    return int(left) - order.amount


@app.orchestrator
def pay_wages(ctx: OrchestrationContext, wages: list[tuple[str, int]]) -> Orchestration[list[str]]:
    yield from ctx.call_activity(open_accounts, [name for name, _ in wages])
    report = []
    for name, amount in wages:
        try:
            left = yield from ctx.call_activity(transfer, Transfer(TILL, name, amount))
        except ActivityError as error:
            report.append(f"{name}: not paid, {error.details.message}")
        else:
            report.append(f"{name}: {amount} paid, {left} left")
    return report


async def main(store: str = "transfer.db") -> None:
    async with TaskHub(store, app) as hub:
        wages = [("ada", 300), ("alan", 200), ("charles", 900)]
        instance = await hub.client.start(pay_wages, wages, instance_id="wages-11", on_existing="return")
        for line in await instance.result():
            print(line)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
