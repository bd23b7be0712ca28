"""Who is suspected when an owner dies: exactly those that the next worker would set going, and only as long as they make no progress."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replayflow.core.commit import Message
from replayflow.core.instance import Status
from replayflow.core.suspicion import Suspicion
from replayflow.errors import LeaseLostError
from replayflow.store import SqliteStore
from replayflow.store.base import Operation, Owner, Park, Post
from tests.store.builders import accepted, commit, create, post, shown

NOW = 1_000
OWNER = Owner(4711, "somewhere", NOW)


class Hub:
    """A hub whose owners come and go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SqliteStore(path)
        self.epoch = 0

    async def open(self) -> None:
        self.store = SqliteStore(self.path)
        await self.store.open()
        self.epoch = await self.store.acquire(OWNER)

    async def die(self) -> None:
        """The owner is gone without a word, and the next one comes."""
        self.store._epoch = None
        self.store._lock.release()
        await self.store.close()
        await self.open()

    async def leave(self) -> None:
        await self.store.close()
        await self.open()

    async def write(self, *operations: Operation) -> None:
        await accepted(self.store, *operations, epoch=self.epoch)

    async def held(self) -> dict[str, Suspicion]:
        return {one.instance_id: one.suspicion for one in await self.store.suspects()}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(tmp_path / "hub.db")
    await hub.open()
    yield hub
    await hub.store.close()


async def run_to(hub: Hub, id: str, wake_at: int | None, status: Status = Status.RUNNING) -> None:
    """The instance has had an episode."""
    await hub.write(create(id))
    await hub.write(commit(id, state=shown(status, wake_at)))


async def test_who_would_be_set_going_is_held_after_two_deaths_and_nobody_else(hub: Hub) -> None:
    await hub.write(create("fresh"))
    await run_to(hub, "at work", 0)
    await run_to(hub, "timer due", NOW)
    await run_to(hub, "timer later", NOW + 1)
    await run_to(hub, "waits", None)
    await run_to(hub, "owes", 0, Status.COMPLETED)
    await run_to(hub, "has mail", None)
    await hub.write(post("has mail"))
    await run_to(hub, "parked", 0)
    await run_to(hub, "suspended", None, Status.SUSPENDED)
    await hub.write(post("suspended"), post("parked"), Park("parked", "x1", b"no code"))
    await run_to(hub, "asked to resume", 0)
    await hub.write(Park("asked to resume", "x1", b"no code"))
    await hub.write(Post(Message("asked to resume", b"resume", is_control=True)))
    await hub.die()
    assert await hub.held() == {}
    await hub.die()
    assert (await hub.held()).keys() == {"fresh", "at work", "timer due", "owes", "has mail", "asked to resume"}
    assert all(not one.strikes and not one.is_watched for one in (await hub.held()).values())


async def test_who_is_watched_alone_at_a_death_has_a_strike_and_who_waits_has_none(hub: Hub) -> None:
    for id in ("a", "b"):
        await run_to(hub, id, 0)
    await hub.die()
    await hub.die()
    held = await hub.held()
    await hub.store.suspect({"a": held["a"].watched()}, hub.epoch)
    await hub.die()
    assert {id: one.strikes for id, one in (await hub.held()).items()} == {"a": 1, "b": 0}


async def test_a_stop_in_good_order_keeps_the_counts_and_blames_nobody(hub: Hub) -> None:
    await run_to(hub, "a", 0)
    await hub.die()
    await hub.die()
    await hub.store.suspect({"a": Suspicion(1, is_held=True, is_watched=True, strikes=2)}, hub.epoch)
    await hub.leave()
    assert await hub.held() == {"a": Suspicion(1, is_held=True, strikes=2)}
    await hub.leave()
    assert await hub.held() == {"a": Suspicion(1, is_held=True, strikes=2)}


async def test_progress_clears_and_so_does_having_nothing_to_do(hub: Hub) -> None:
    for id in ("moves", "stays", "ends", "is let go"):
        await run_to(hub, id, 0)
    await hub.die()
    await hub.die()
    await hub.write(commit("moves", sequence=2, state=shown(Status.RUNNING, 0)))
    await hub.write(commit("ends", sequence=2, state=shown(Status.COMPLETED, None)))
    await hub.store.suspect({"is let go": None}, hub.epoch)
    await hub.leave()
    assert (await hub.held()).keys() == {"stays"}
    await hub.die()
    assert (await hub.held()).keys() == {"stays"}
    await hub.die()  # the second death without progress since
    assert (await hub.held()).keys() == {"stays", "moves", "is let go"}


async def test_what_is_parked_is_no_longer_suspected_in_the_same_commit(hub: Hub) -> None:
    await run_to(hub, "a", 0)
    await hub.die()
    await hub.die()
    await hub.write(Park("a", "x1", b"RF134: it kills"))
    assert await hub.held() == {}
    await hub.write(Park("a", "x1", None))
    await hub.die()
    assert await hub.held() == {}


async def test_a_worker_that_has_lost_the_hub_changes_no_suspicion(hub: Hub) -> None:
    await run_to(hub, "a", 0)
    await hub.die()
    await hub.die()
    held = await hub.held()
    with pytest.raises(LeaseLostError):
        await hub.store.suspect({"a": held["a"].watched()}, hub.epoch - 1)
    with pytest.raises(LeaseLostError):
        await hub.store.suspect({"a": None}, hub.epoch - 1)
    assert await hub.held() == held
