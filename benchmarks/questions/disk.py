"""What an event takes on the disk beyond the values that it carries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.flows import app, chain, fan
from benchmarks.question import Bar, Figure, Figures, Question
from replayflow import Client, Codec, Orchestration, OrchestrationContext, OrchestratorStarted, TaskHub

Orchestrator = Callable[[OrchestrationContext, int], Orchestration[int]]
_PAYLOADS = ("input", "result", "custom_status")


async def measure(n: int, folder: Path) -> Figures:
    async with TaskHub(folder / "empty.db", app):
        pass
    empty = _size(folder / "empty.db")
    return {
        "chain_bytes_per_event": await _bytes_per_event(folder / "chain.db", empty, chain, range(n)),
        "fan_bytes_per_event": await _bytes_per_event(folder / "fan.db", empty, fan, [5 * n]),
    }


async def _bytes_per_event(path: Path, empty: int, orchestrator: Orchestrator, inputs: Sequence[int]) -> float:
    """What the orchestrations leave in a file that has `empty` bytes to begin with, shared out among their events."""
    async with TaskHub(path, app) as hub:
        instances = await asyncio.gather(*[hub.client.start(orchestrator, x) for x in inputs])
        await asyncio.gather(*[instance.result() for instance in instances])
    events, payload_bytes = await _contents(path, [instance.id for instance in instances])
    return (_size(path) - empty - payload_bytes) / events


def _size(path: Path) -> int:
    """Of the file and what SQLite has beside it, once the hub is closed."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))


async def _contents(path: Path, ids: list[str]) -> tuple[int, int]:
    """How many events the histories have, the marks of episodes not counted, and how many bytes their payloads."""
    codec, count, payload_bytes = Codec(), 0, 0
    async with Client(path, app) as client:
        for id in ids:
            async for event in client.get(id).history():
                if not isinstance(event, OrchestratorStarted):
                    count += 1
                    for name in _PAYLOADS:
                        payload_bytes += len(codec.encode(getattr(event, name, None)) or b"")
    return count, payload_bytes


QUESTION = Question(
    "disk",
    "the file's size for each event beyond its payload, of n chains of five, and of one fan of 5 n; the marks of episodes do not count as events",
    measure,
    figures=(
        Figure("chain_bytes_per_event", "chain, each event", "bytes", bar=Bar(120, n_from=100)),
        Figure("fan_bytes_per_event", "fan, each event", "bytes", bar=Bar(120, n_from=100)),
    ),
    sizes=(2_000,),
    short_sizes=(1_000,),
)
