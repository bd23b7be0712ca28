"""Large values: in as the orchestration's input, to an activity and back, out as its result."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random

from benchmarks.question import PEAK, Figure, Figures, Question
from replayflow import App, Client, Orchestration, OrchestrationContext, TaskHub

app = App()
_BYTES_IN_ALL = 30_000_000
_TRIPS_MAX = 100


@app.activity
async def hand_back(value: bytes) -> bytes:
    return value


@app.orchestrator
def carry(ctx: OrchestrationContext, value: bytes) -> Orchestration[bytes]:
    return (yield from ctx.call_activity(hand_back, value))


async def measure(n: int, folder: Path) -> Figures:
    async with TaskHub(folder / "payload.db", app) as hub:
        assert await (await hub.client.start(carry, b"the first")).result() == b"the first"
        noise_s = await _seconds_each(hub.client, _noise(n))
        records_s = await _seconds_each(hub.client, _records(n))
    return {
        "ms": noise_s * 1e3,
        "mb_per_s": n / noise_s / 1e6,
        "records_ms": records_s * 1e3,
        "records_mb_per_s": n / records_s / 1e6,
    }


async def _seconds_each(client: Client, value: bytes) -> float:
    trips = max(3, min(_TRIPS_MAX, _BYTES_IN_ALL // len(value)))
    began = time.perf_counter()
    for _ in range(trips):
        assert await (await client.start(carry, value)).result() == value
    return (time.perf_counter() - began) / trips


def _noise(n: int) -> bytes:
    """What nothing can make smaller, as pictures and archives are."""
    return Random(n).randbytes(n)


def _records(n: int) -> bytes:
    """The beginning of a long list of JSON records, in which much is said again and again."""
    chance = Random(n)
    lines = bytearray()
    while len(lines) < n:
        record = {"sku": f"{chance.randrange(10**9):09}", "amount": chance.randrange(10_000), "is_paid": True}
        lines += json.dumps(record).encode() + b"\n"
    return bytes(lines[:n])


QUESTION = Question(
    "payload",
    "n bytes from start to result by way of an activity, one orchestration at a time; counted once, stored four times",
    measure,
    figures=(
        Figure("ms", "noise, each", "ms"),
        Figure("mb_per_s", "noise", "MB/s", more_is_better=True),
        Figure("records_ms", "records in JSON, each", "ms"),
        Figure("records_mb_per_s", "records in JSON", "MB/s", more_is_better=True),
        PEAK,
    ),
    sizes=(1_000, 100_000, 10_000_000),
    short_sizes=(1_000, 100_000, 10_000_000),
)
