"""A long import that goes on where it was, and a service that may only be asked so often.

    python -m samples.importer [STORE]

`load` tells with each line how far it is and what it has added up: a heartbeat. Half-way its first attempt loses its connection; the next one begins
where the last heartbeat says, and so does one after the process was killed. `look_up` asks a service that allows ten requests within 200
milliseconds, and one at a time for each country: the worker keeps to that, whoever calls, and however many orchestrations there are.
"""

import asyncio
import random
import sys
from dataclasses import dataclass
from datetime import timedelta

from replayflow import (
    ActivityContext,
    App,
    Orchestration,
    OrchestrationContext,
    Quota,
    Rate,
    RetryPolicy,
    TaskHub,
    when_all,
)

app = App()
LINES = 400
CITIES = {
    "Bergen": "no", "Oslo": "no", "Tromsø": "no", "Trondheim": "no", "Aarhus": "dk", "Odense": "dk",
    "Lund": "se", "Malmö": "se", "Umeå": "se", "Turku": "fi", "Oulu": "fi", "Vaasa": "fi",
}  # fmt: skip


@dataclass
class Request:
    city: str
    country: str


@dataclass
class Report:
    batch: str
    lines: int
    total: int
    countries: list[str]


@app.activity(
    retry=RetryPolicy(max_attempts=5, first_interval=timedelta(milliseconds=100)),
    timeout=timedelta(hours=1),
    heartbeat_timeout=timedelta(seconds=30),
)
async def load(ctx: ActivityContext, lines: int) -> int:
    done, total = ctx.last_heartbeat or (0, 0)
    if done:
        ctx.logger.info("goes on at line %s", done)
    for line in range(done, lines):
        if line == lines // 2 and ctx.attempt == 1:
            raise ConnectionError("the source hung up")
        total += line
        await asyncio.sleep(0.001)  # reading and storing the line
        ctx.heartbeat((line + 1, total))
    return total


service = Quota(rate=Rate(10, per=timedelta(milliseconds=200)))


@app.activity(concurrency=1, key=lambda request: request.country, quota=service)
async def look_up(request: Request) -> str:
    await asyncio.sleep(0.01)  # the service takes its time
    return request.country


def ticket() -> str:
    return f"batch-{random.randrange(10**6):06}"


@app.orchestrator
def importer(ctx: OrchestrationContext, lines: int) -> Orchestration[Report]:
    batch = ctx.record(ticket)  # another number each time, but only once: a replay reads what was recorded
    ctx.set_custom_status(batch)
    total = yield from ctx.call_activity(load, lines)
    countries = yield from when_all(
        [ctx.call_activity(look_up, Request(city, country)) for city, country in CITIES.items()]
    )
    return Report(batch, lines, total, sorted(set(countries)))


async def main(store: str = "importer.db") -> None:
    async with TaskHub(store, app) as hub:
        instance = await hub.client.start(importer, LINES, instance_id="import-1", on_existing="return")
        print((await instance.status()).custom_status or "imports", flush=True)
        report = await instance.result()
        print(f"{report.lines} lines, {report.total:,} in all, from {', '.join(report.countries)}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
