"""The scenes of which histories are kept: each plays something on a hub, and says whose histories are worth keeping.

Time is virtual and the store in memory. `SCENES` has them by name; together they have every kind of event that there is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import TypeAlias

import pytest

from replayflow import StuckError
from replayflow.core.commit import Commit, Message
from replayflow.core.entity import entity
from replayflow.core.events import (
    ContinueAsNew,
    EntityOperationSignaled,
    GenericEvent,
    HistoryEvent,
    OrchestratorCompleted,
    encode,
)
from replayflow.store.base import Operation, Outcome, Post
from replayflow.store.memory import MemoryStore
from replayflow.testing import VirtualHub
from tests.golden.app import HOUR, Order, world

Scene: TypeAlias = Callable[[VirtualHub], Awaitable[list[str]]]
SCENES: dict[str, Scene] = {}
FIRST = Order("o-1", ["tea", "cup", "lid"], Decimal("9.90"))


def scene(played: Scene) -> Scene:
    """The scene is one of all."""
    SCENES[played.__name__] = played
    return played


class SceneStore(MemoryStore):
    """Where an entity is about to go because it is empty, a signal comes for it in the last moment: it stays, and its history with it."""

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        for operation in operations:
            if isinstance(operation, Commit) and operation.removes:
                await self.send(operation.instance_id, EntityOperationSignaled(-1, "late", "add", None, b"\x07"))
        return await super().write(operations, epoch)

    async def send(self, instance_id: str, *came: HistoryEvent) -> None:
        """The events come for the instance, from somebody who is no client of ours."""
        await super().write([Post(Message(instance_id, encode(came)))])


@contextmanager
def short_memory() -> Iterator[None]:
    """Histories of entities begin anew soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entity, "SNAPSHOT_AFTER_PIECES", 6)
        yield


@scene
async def one_execution(hub: VirtualHub) -> list[str]:
    await hub.client.start("listens", "go", instance_id="listener")
    for id in ("order", "in-vain"):
        world.broken = {"never"} if id == "in-vain" else set()
        instance = await hub.client.start("order", FIRST, instance_id=id, tags={"kind": id})
        await instance.raise_event("approved", True, dedupe_key="once")
        await instance.result()
    return ["order", "in-vain", "listener"]


@scene
async def executions(hub: VirtualHub) -> list[str]:
    instance = await hub.client.start("rounds", 0, instance_id="rounds")
    await instance.raise_event("go", "early")
    await instance.result()
    await hub.client.start("sleeps", 3, instance_id="replaced")
    await hub.settle()
    again = await hub.client.start("sleeps", 1, instance_id="replaced", on_existing="terminate_and_replace")
    await again.result()
    await hub.client.get("replaced").restart()
    await hub.client.get("replaced").result()
    return ["rounds", "replaced"]


@scene
async def verbs(hub: VirtualHub) -> list[str]:
    suspended = await hub.client.start("listens", "go", instance_id="suspended")
    await hub.settle()
    await suspended.suspend("for a look")
    await suspended.raise_event("go", [1, None])
    await hub.settle()
    await suspended.resume("seen")
    await suspended.result()
    terminated = await hub.client.start("sleeps", 5, instance_id="terminated")
    await hub.settle()
    await terminated.terminate("enough")
    await terminated.wait()
    cancelled = await hub.client.start("cleans_up", instance_id="cancelled")
    await hub.settle()
    await cancelled.cancel("no more")
    await cancelled.wait()
    return ["suspended", "terminated", "cancelled"]


@scene
async def families(hub: VirtualHub) -> list[str]:
    world.broken = {"black sheep"}
    await (await hub.client.start("family", ["ann", "ben"], instance_id="family")).result()
    return [state.id async for state in hub.client.list()]


@scene
async def batches(hub: VirtualHub) -> list[str]:
    await (await hub.client.start("batch", 5, instance_id="batch")).result()
    return [state.id async for state in hub.client.list()]


@scene
async def sagas(hub: VirtualHub) -> list[str]:
    world.broken = {"UNDO CHILD", "undo child"}
    undone = await hub.client.start("trip", 1, instance_id="trip")
    with pytest.raises(StuckError, match="failed for good"):
        await undone.result()
    world.clear()
    await undone.resume("mended")
    await undone.result()
    return [state.id async for state in hub.client.list()]


@scene
async def branches(hub: VirtualHub) -> list[str]:
    world.broken = {"b", "b below"}
    failed = await hub.client.start("fragile", "b", instance_id="rewound")
    await failed.wait()
    await failed.rewind("mended")
    world.clear()
    await hub.settle()
    await hub.client.get("rewound:0002").raise_event("go")
    await failed.result()
    fork = await failed.fork(at=6, instance_id="forked", results={1: "OTHERWISE"})
    await hub.settle()
    async for state in hub.client.list(parent="forked"):
        if not state.status.is_finished:
            await hub.client.get(state.id).raise_event("go")
    await fork.result()
    return [state.id async for state in hub.client.list()]


@scene
async def entities(hub: VirtualHub) -> list[str]:
    with short_memory():
        for n in range(3):
            await hub.client.signal_entity("@tally@a", "add", 10 * n)
            await hub.settle()
        await hub.client.signal_entity("@tally@a", "spoil")
        await hub.client.start("counts", "a", instance_id="counts")
        await hub.client.start("asks", "a", instance_id="asks")
        await hub.client.get("counts").result()
        await hub.client.signal_entity("@tally@b", "add", 100)
        await hub.advance(2 * HOUR)
        await hub.client.signal_entity("@tally@c", "add", 1)
        await hub.client.signal_entity("@tally@c", "delete")
        await hub.settle()
        await hub.client.clean_entities()
        await hub.settle()
        await hub.advance(2 * HOUR)
    return [state.id async for state in hub.client.list(include_entities=True)]


@scene
async def schedules(hub: VirtualHub) -> list[str]:
    await hub.client.create_schedule("hourly", "works", "nightly", every=HOUR)
    await hub.advance(timedelta(minutes=150))
    schedule = hub.client.get_schedule("hourly")
    await schedule.pause("holidays")
    await hub.advance(timedelta(hours=3))
    await schedule.resume()
    await hub.advance(timedelta(hours=1))
    return [state.id async for state in hub.client.list()]


@scene
async def foreign_events(hub: VirtualHub) -> list[str]:
    """Kinds of the protocol's that we never write are read, kept, and mean nothing."""
    instance = await hub.client.start("listens", "go", instance_id="foreign")
    await hub.settle()
    store = hub.store
    assert isinstance(store, SceneStore)
    await store.send("foreign", GenericEvent("a text"), OrchestratorCompleted(), ContinueAsNew(b"\x01"))
    await hub.settle()
    await instance.raise_event("go")
    await instance.result()
    return ["foreign"]
