"""Rewind: salaries of which one cannot be paid. The account is mended, the run goes on from there, and nobody is paid twice.

    python -m samples.payroll [STORE]

The accounts are in a text file beside the store, a name and an account in each line. One is missing at first, so that the run fails when all
others are paid. By hand, the same with a worker, an editor and the command line:

    replayflow worker samples.payroll:app --store payroll.db
    replayflow start payroll --input '{"month": "August", "accounts": "payroll.accounts"}' --id august --store payroll.db
    replayflow show august --store payroll.db
    replayflow rewind august --reason "Grace has an account now" --store payroll.db

Where the code was mended, and not the accounts: whether it still does what the history says, before anything is rewound:

    replayflow fork august --dry-run --app samples.payroll:app --store payroll.db
"""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from replayflow import App, Instance, Orchestration, OrchestrationContext, OrchestrationFailed, TaskHub

app = App()
SALARIES = {"Ada": 5_200, "Grace": 4_700, "Edsger": 3_900, "Barbara": 3_500}


@dataclass
class Payroll:
    month: str
    accounts: str


@dataclass
class Payment:
    name: str
    amount: int
    accounts: str


@app.activity
def pay(payment: Payment) -> int:
    lines = Path(payment.accounts).read_text("utf-8").splitlines()
    account = dict(line.split(maxsplit=1) for line in lines).get(payment.name)
    if account is None:
        raise LookupError(f"{payment.name} has no account")
    print(f"  {payment.amount:,} to {payment.name}, {account}")
    return payment.amount


@app.activity
def close_books(total: int) -> str:
    return f"{total:,} in all"


@app.orchestrator
def payroll(ctx: OrchestrationContext, run: Payroll) -> Orchestration[str]:
    payments = [Payment(name, amount, run.accounts) for name, amount in SALARIES.items()]
    # All are tried, whoever fails; then the run fails, and says who could not be paid.
    paid = yield from ctx.map(pay, payments, on_item_error="collect")
    books = yield from ctx.call_activity(close_books, sum(paid.succeeded))
    return f"{run.month}: {len(paid.succeeded)} salaries paid, {books}"


async def mended_result(instance: Instance[str], accounts: Path) -> str:
    """What the run comes to, with the account entered that is missing."""
    try:
        return await instance.result()
    except OrchestrationFailed as failed:
        print(f"not all are paid: {failed.details.message}")
    with accounts.open("a", encoding="utf-8") as file:
        file.write("Grace PT50-0004\n")
    await instance.rewind("Grace has an account now")
    return await instance.result()


async def main(store: str = "payroll.db") -> None:
    accounts = Path(store).with_suffix(".accounts")
    if not accounts.exists():
        accounts.write_text("Ada PT50-0001\nEdsger PT50-0002\nBarbara PT50-0003\n", "utf-8")
    async with TaskHub(store, app) as hub:
        run = Payroll("July", str(accounts))
        instance = await hub.client.start(payroll, run, instance_id="july", on_existing="return")
        print(await mended_result(instance, accounts))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
