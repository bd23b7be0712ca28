"""Many report, one counts: entities that take in readings, and a section that reads two of them at one moment.

    python -m samples.aggregator [STORE]

A station is an entity: it has a state, and does one thing at a time, however many report to it at once. A reading that makes no sense fails its
operation and changes nothing, which the log tells with a traceback. `compare` locks two stations, so that no reading comes between its two looks.
From the command line, while `replayflow worker samples/aggregator.py:app --store aggregator.db` serves:

    replayflow entity signal @station@oslo report --input -3.5 --store aggregator.db
    replayflow entity list --store aggregator.db
"""

import asyncio
import sys
from dataclasses import dataclass

from replayflow import App, EntityContext, EntityInstanceId, Orchestration, OrchestrationContext, TaskHub

app = App()


@app.entity
@dataclass
class Station:
    count: int = 0
    total: float = 0.0
    highest: float | None = None

    def report(self, ctx: EntityContext["Station"], celsius: float) -> None:
        if celsius < -273.15:
            raise ValueError(f"{celsius} is colder than anything can be")
        self.count += 1
        self.total += celsius
        if self.highest is None or celsius > self.highest:
            self.highest = celsius
            ctx.signal_entity("@records@all", "highest", (ctx.entity_id.key, celsius))

    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0


@app.entity
def records(ctx: EntityContext[dict[str, float] | None], reading: tuple[str, float]) -> None:
    """One entity hears of every station's record: a function, for what needs no class."""
    key, celsius = reading
    ctx.state = {**(ctx.state or {}), key: celsius}


@app.orchestrator
def compare(ctx: OrchestrationContext, keys: list[str]) -> Orchestration[str]:
    warm, cold = (EntityInstanceId("station", key) for key in keys)
    with (yield ctx.lock_entities([warm, cold])):
        there = yield from ctx.call_entity(warm, "mean", result_type=float)
        here = yield from ctx.call_entity(cold, "mean", result_type=float)
    return f"{warm.key} is {there - here:.1f} degrees warmer than {cold.key}"


async def main(store: str = "aggregator.db") -> None:
    async with TaskHub(store, app) as hub:
        readings = [("rome", 20 + n % 7) for n in range(70)] + [("oslo", n % 5 - 2) for n in range(70)]
        for n, (key, celsius) in enumerate(readings):  # the key makes a second run harmless
            await hub.client.signal_entity(f"@station@{key}", "report", float(celsius), dedupe_key=f"reading-{n}")
        await hub.client.signal_entity("@station@oslo", "report", -300.0)
        print(await (await hub.client.start(compare, ["rome", "oslo"])).result())
        async for station in hub.client.list_entities(name="station"):
            print(f"{station.key}: {station.state.count} readings, at most {station.state.highest} degrees")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
