"""A schedule: an orchestration that is started by the clock, whether or not anybody is there to start it.

    python -m samples.nightly_report [STORE]

A program says at each start what its schedules are; `on_existing="update"` makes the one that is there be as it says, and changes nothing where
it is so already. Runs are instances of their own, whose ids say which time they are for. Here the night is a fifth of a second long; a real one
would say `cron="0 2 * * *", zone="Europe/Berlin"` in the place of `every`, for which `pip install 'replayflow[cron]'` brings the library.
"""

import asyncio
import sys
from datetime import timedelta

from replayflow import App, Orchestration, OrchestrationContext, TaskHub

app = App()
NIGHTS = 3


@app.activity
def count_orders(shop: str) -> int:
    return 7 * len(shop)


@app.orchestrator
def nightly_report(ctx: OrchestrationContext, shop: str) -> Orchestration[str]:
    orders = yield from ctx.call_activity(count_orders, shop)
    return f"{shop}: {orders} orders"


async def main(store: str = "nightly_report.db") -> None:
    async with TaskHub(store, app) as hub:
        schedule = await hub.client.create_schedule(
            "nightly",
            nightly_report,
            "the shop in Porto",
            every=timedelta(seconds=0.2),
            overlap="skip",
            on_existing="update",
        )
        while True:
            state = await schedule.status()
            if state.last_run is not None and state.runs >= NIGHTS:
                break
            await asyncio.sleep(0.05)
        print(f"the last of at least {NIGHTS} nights")
        print(await hub.client.get(state.last_run).result())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
