"""Maps on the engine: nothing before it is durable, nothing twice, nothing without bound, whatever the store does meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    MapProgress,
    MapResult,
    MapScheduled,
    Orchestration,
    OrchestrationContext,
    SqliteStore,
)
from replayflow.core.commit import Commit
from replayflow.engine import windows
from replayflow.errors import LeaseLostError, StoreBusyError
from tests.engine.kit import ToldStore, history_of, hub_on, turns, until, until_state


class Work:
    """An app whose activity notes what it runs, and holds back what it is told to."""

    def __init__(self) -> None:
        self.app = App()
        self.runs: Counter[int] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.app.activity(name="double")(self.double)
        self.app.orchestrator(name="main")(main)

    async def double(self, x: int) -> int:
        self.runs[x] += 1
        await self.gate.wait()
        return 2 * x


def main(ctx: OrchestrationContext, input: list[int]) -> Orchestration[int]:
    count, concurrency = input
    result: MapResult[int] = yield ctx.map("double", range(count), concurrency=concurrency)
    return sum(result.succeeded)


async def numbers_of(client: Client, id: str) -> list[int]:
    return [n for event in await history_of(client, id) if isinstance(event, MapProgress) for n in event.numbers]


async def test_no_call_starts_before_its_map_is_durable() -> None:
    work, store = Work(), ToldStore()
    async with hub_on(store, work.app) as hub:
        with store.holding():
            starting = asyncio.create_task(hub.client.start("main", [5, 5], instance_id="i"))
            await until(lambda: store.attempts)
            await turns()
            assert not work.runs
        assert await (await starting).result(10) == 20


async def test_no_call_of_a_page_starts_before_the_page_is_durable() -> None:
    work, store = Work(), ToldStore()
    asked = []

    @work.app.activity
    async def pages(cursor: int | None) -> tuple[list[int], int | None]:
        asked.append(cursor)
        store.gate.clear()
        return [cursor or 0], 1 if cursor is None else None

    @work.app.orchestrator
    def paged(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map("double", pages)).succeeded

    async with hub_on(store, work.app) as hub:
        instance = await hub.client.start(paged, instance_id="i")
        for count in (1, 2):
            await until(lambda count=count: len(asked) == count)  # type: ignore[misc]
            await turns()
            assert sum(work.runs.values()) == count - 1
            store.gate.set()
        assert await instance.result(10) == [0, 2]


async def test_the_window_moves_while_results_are_on_their_way_to_the_disk() -> None:
    work, store = Work(), ToldStore()
    work.gate.clear()
    async with hub_on(store, work.app) as hub:
        instance = await hub.client.start("main", [100, 3], instance_id="i")
        await until(lambda: len(work.runs) == 3)
        with store.holding():
            work.gate.set()
            await until(lambda: len(work.runs) == 100)
        assert await instance.result(10) == 9_900
        # Of those that gathered behind the first commit there is one event.
        past = await history_of(hub.client, "i")
        assert len([event for event in past if isinstance(event, MapProgress)]) <= 3


async def test_the_window_stops_when_too_much_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "RESULTS_AHEAD_MAX", 20)
    work, store = Work(), ToldStore()
    work.gate.clear()
    async with hub_on(store, work.app) as hub:
        instance = await hub.client.start("main", [1_000, 3], instance_id="i")
        await until(lambda: len(work.runs) == 3)
        with store.holding():
            work.gate.set()
            await until(lambda: len(work.runs) >= 20)
            await turns(200)
            assert len(work.runs) <= 3 + 2 * 20 + 3
        assert await instance.result(10) == 999_000
        past = await history_of(hub.client, "i")
        assert max(len(event.numbers) for event in past if isinstance(event, MapProgress)) <= 20 + 3
        assert set(work.runs.values()) == {1}


async def test_large_results_stop_the_window_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "RESULT_BYTES_AHEAD_MAX", 100_000)
    app, store = App(), ToldStore()
    runs = []

    @app.activity
    async def large(x: int) -> bytes:
        runs.append(x)
        return x.to_bytes(2, "big") * 5_000

    @app.orchestrator
    def sizes(ctx: OrchestrationContext) -> Any:
        return sum(len(r) for r in (yield ctx.map(large, range(200), concurrency=2)).succeeded)

    async with hub_on(store, app) as hub:
        instance = await hub.client.start(sizes, instance_id="i")
        assert await instance.result(20) == 200 * 10_000
        past = await history_of(hub.client, "i")
        assert max(len(event.numbers) for event in past if isinstance(event, MapProgress)) <= 12
        assert sorted(runs) == list(range(200))


@pytest.mark.parametrize("how", ["busy", "refused"])
async def test_results_of_a_commit_that_was_not_written_are_kept_and_no_call_runs_twice(how: str) -> None:
    work, store = Work(), ToldStore()
    work.gate.clear()
    refused: list[Commit] = []

    def refuses(commit: Commit) -> bool:
        if commit.sequence > 1 and len(refused) < 3:
            refused.append(commit)
            return True
        return False

    async with hub_on(store, work.app) as hub:
        instance = await hub.client.start("main", [200, 10], instance_id="i")
        await until(lambda: len(work.runs) == 10)
        if how == "busy":
            store.fail_with(*[StoreBusyError("told to")] * 3)
        else:
            store.refuses = refuses
        work.gate.set()
        assert await instance.result(20) == 39_800
        assert set(work.runs.values()) == {1}
        assert sorted(await numbers_of(hub.client, "i")) == list(range(200))


async def test_a_store_that_refuses_for_long_stops_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "RESULTS_AHEAD_MAX", 20)
    work, store = Work(), ToldStore()
    work.gate.clear()
    async with hub_on(store, work.app) as hub:
        instance = await hub.client.start("main", [10_000, 10], instance_id="i")
        await until(lambda: len(work.runs) == 10)
        store.fail_always(StoreBusyError("told to"))
        work.gate.set()
        await until(lambda: store.attempts > 6)
        assert len(work.runs) < 150
        store.work()
        assert await instance.result(30) == 2 * sum(range(10_000))
        assert set(work.runs.values()) == {1}


async def test_a_worker_that_lost_its_hub_leaves_the_rest_to_the_next() -> None:
    work, store = Work(), ToldStore()
    work.gate.clear()
    with pytest.raises(LeaseLostError):  # noqa: PT012 - raised when the hub is left, at the latest
        async with hub_on(store, work.app) as hub:
            await hub.client.start("main", [30, 5], instance_id="i")
            await until(lambda: len(work.runs) == 5)
            store.fail_always(LeaseLostError("told to"))
            work.gate.set()
            await hub.serve()
    store.work()
    async with hub_on(store, work.app) as hub:
        assert await hub.client.get("i").result(10) == 870
        assert sorted(await numbers_of(hub.client, "i")) == list(range(30))


async def test_an_instance_that_is_parked_while_calls_run_loses_nothing() -> None:
    work, store = Work(), ToldStore()
    work.gate.clear()
    is_right = True

    @work.app.orchestrator
    def changing(ctx: OrchestrationContext) -> Any:
        result: MapResult[int] = yield ctx.map("double" if is_right else "other", range(40), concurrency=4)
        return sum(result.succeeded)

    async with hub_on(store, work.app) as hub:
        instance = await hub.client.start(changing, instance_id="i")
        await until(lambda: len(work.runs) == 4)
        is_right = False
        store.refuses = lambda commit: commit.sequence == 2  # the generator is gone, and replays as other code
        work.gate.set()
        await until_state(instance, lambda state: state.problem)
    is_right, store.refuses = True, lambda _: False
    async with hub_on(store, work.app) as hub:
        assert await hub.client.get("i").result(10) == 1_560
        assert sorted(await numbers_of(hub.client, "i")) == list(range(40))


async def test_a_map_of_fifty_thousand_in_one_instance(tmp_path: Path) -> None:
    work, n = Work(), 50_000
    async with hub_on(SqliteStore(tmp_path / "hub.db", synchronous="NORMAL"), work.app) as hub:
        began = time.monotonic()
        instance = await hub.client.start("main", [n, 100], instance_id="i")
        assert await instance.result(60) == n * (n - 1)
        print(f"{n:,} items: {time.monotonic() - began:.2f} s")
        past = await history_of(hub.client, "i")
        assert [event.count for event in past if isinstance(event, MapScheduled)] == [n]
        assert len(past) < n // 20
        assert sorted(await numbers_of(hub.client, "i")) == list(range(n))
        assert set(work.runs.values()) == {1}
