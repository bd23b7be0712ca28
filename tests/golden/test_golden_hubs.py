"""Golden hubs: files that former versions wrote are read as they were, and what is open in them runs to its right end, also through kills."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import pytest

from replayflow import Client, EncryptedValue
from replayflow.errors import LeaseLostError
from replayflow.store import SqliteStore, Store
from replayflow.store.base import Delivery, Operation, Outcome, Transact
from replayflow.testing.clock import VirtualClock
from tests.golden.app import app, world
from tests.golden.hub_scene import A_YEAR_LATER, ENDS, LARGE, finish, hub_on, store_at
from tests.golden.record import HERE, contents

HUBS = sorted((HERE / "hubs").glob("*.db"))
T = TypeVar("T")
When = Literal["before", "after"]
WHEN: tuple[When, When] = ("before", "after")
KILLS_EACH = 5


@pytest.fixture(params=HUBS, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a golden hub: the file itself is only read."""
    world.clear()
    path: Path = request.param
    shutil.copy(path, tmp_path / path.name)
    return tmp_path / path.name


async def test_what_is_in_a_golden_hub_is_read_as_it_was(golden: Path) -> None:
    shown = json.loads((HERE / "hubs" / f"{golden.stem}.json").read_text("utf-8"))
    assert await contents(golden) == shown
    assert await contents(golden) == shown  # once it has the present format, too


async def test_without_the_key_all_but_what_is_sealed_is_read(golden: Path) -> None:
    async with Client(store_at(golden, is_sealed=False), app) as client:
        assert (await client.get("large").status()).output == f"BEFORE{LARGE}"
        sealed = await client.get("sealed done").status()
        assert isinstance(sealed.output, EncryptedValue)
        assert (await client.get("sealed").status()).tags == {"in": "the clear"}


async def ends(path: Path) -> dict[str, tuple[str, Any]]:
    async with Client(store_at(path), app) as client:
        found = {}
        for id in ENDS:
            state = await client.get(id).status()
            found[id] = (state.status.value, state.output)
        assert (await client.get("unknown").status()).problem is not None
        assert await client.read_entity("@tally@a") == 1004
        assert await client.read_entity("@tally@b") == 15
        heard = [event async for event in client.get("listener").history() if type(event).__name__ == "EventRaised"]
        assert len(heard) == 2  # the repeated key was not heard again
        return found


async def test_what_is_open_in_a_golden_hub_runs_to_its_end(golden: Path) -> None:
    async with hub_on(store_at(golden), app, VirtualClock(A_YEAR_LATER)) as hub:
        await finish(hub)
    assert await ends(golden) == ENDS


# ---- kills


class Killed(LeaseLostError):
    """The process is gone: what it asks of its store reaches nobody."""


class Mortal:
    """A store whose process is killed at one of its writes, before or after it is done. The file is left as by a kill: owned by nobody alive."""

    def __init__(self, store: SqliteStore, dies_at: int | None = None, when: When = "before") -> None:
        self.writes = 0
        self._store = store
        self._dies_at = dies_at
        self._when = when
        self._is_dead = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        return await self._survived(lambda: self._store.write(operations, epoch))

    async def transact(self, wanted: Transact, epoch: int) -> Delivery | None:
        return await self._survived(lambda: self._store.transact(wanted, epoch))

    async def _survived(self, write: Callable[[], Awaitable[T]]) -> T:
        if self._is_dead:
            raise Killed("the process was killed")
        self.writes += 1
        if self.writes != self._dies_at:
            return await write()
        self._is_dead = True
        if self._when == "after":
            await write()
        raise Killed("the process was killed")

    async def close(self) -> None:
        if self._is_dead:
            self._store._epoch = None  # so that it takes no leave
            self._store._lock.release()
        await self._store.close()


async def finished(path: Path, dies_at: int | None = None, when: When = "before") -> int:
    """What is in the hub has gone on, until its worker was killed, or else to the end; returns how many writes it took."""
    store = Mortal(store_at(path), dies_at, when)
    try:
        async with hub_on(cast("Store", store), app, VirtualClock(A_YEAR_LATER)) as hub:
            await finish(hub)
    except Killed:
        assert dies_at is not None
    return store.writes


async def test_a_golden_hub_comes_to_the_same_end_wherever_its_worker_is_killed(golden: Path, tmp_path: Path) -> None:
    straight = tmp_path / "straight.db"
    shutil.copy(golden, straight)
    writes = await finished(straight)
    assert writes > 2 * KILLS_EACH
    for number in range(1, writes, -(-writes // KILLS_EACH)):
        for when in WHEN:
            killed = tmp_path / f"killed-{when}-{number}.db"
            shutil.copy(golden, killed)
            assert await finished(killed, number, when) == number
            await finished(killed)
            assert await ends(killed) == ENDS, f"killed {when} write {number} of {writes}"
