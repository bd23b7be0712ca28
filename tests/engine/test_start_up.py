"""Starting costs what is due, not what is there: sleepers stay in the store until their time, and all of them wake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    App,
    Codec,
    Limits,
    Orchestration,
    OrchestrationContext,
    OrchestrationTerminated,
    SqliteStore,
    when_any,
)
from replayflow.core import events
from replayflow.core.commit import Commit, RowState, Start
from replayflow.core.instance import Status
from replayflow.engine import alarms
from replayflow.store.base import Create, Loaded, Operation
from tests.engine.kit import TestClock, ToldStore, audit, hub_on, turns, until, until_state

app = App()
HOUR = 3_600_000_000


@app.orchestrator
def sleeps(ctx: OrchestrationContext, microseconds: int) -> Orchestration[str]:
    yield from ctx.create_timer(timedelta(microseconds=microseconds))
    return "woke"


@app.orchestrator
def waits(ctx: OrchestrationContext) -> Orchestration[str]:
    return (yield from ctx.wait_for_external_event("go", type=str))


@app.orchestrator
def either(ctx: OrchestrationContext) -> Orchestration[str]:
    event, deadline = ctx.wait_for_external_event("go", type=str), ctx.create_timer(timedelta(hours=1))
    winner = yield from when_any([event, deadline])
    return event.result if winner is event else "too late"


class CountingStore(SqliteStore):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.loaded: list[str] = []

    async def load(self, instance_ids: Any) -> list[Loaded]:
        self.loaded += instance_ids
        return await super().load(instance_ids)


def dormant(count: int, now: int, due: set[int]) -> Iterator[Operation]:
    """Instances as a worker leaves them: every second waits for an event, the others for a timer that is due where `due` says so."""
    for i in range(count):
        id, execution_id = f"d{i}", f"e{i}"
        timer = i % 2 == 0
        at = now - 1 if i in due else now + HOUR + i
        delay = at - (now - 10)
        started = events.ExecutionStarted(
            name="sleeps" if timer else "waits",
            input=Codec().encode(delay) if timer else None,
            instance_id=id,
            execution_id=execution_id,
        )
        chunk: list[events.HistoryEvent] = [events.OrchestratorStarted(now - 10)]
        if timer:
            chunk.append(events.TimerCreated(1, at))
        yield Create(
            Start(
                instance_id=id,
                execution_id=execution_id,
                name=started.name,
                version=None,
                event=events.encode([started]),
                created_at=now - 10,
            )
        )
        state = RowState(Status.RUNNING, at if timer else None)
        yield Commit(id, execution_id, 1, now - 10, events.encode(chunk), state)


async def test_of_twenty_thousand_sleepers_only_those_that_are_due_are_loaded(tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "hub.db")
    now = time.time_ns() // 1000
    due = {10, 4_444, 19_998}
    await store.open()
    operations = list(dormant(20_000, now, due))
    for i in range(0, len(operations), 4_000):
        outcomes = await store.write(operations[i : i + 4_000], None)
        assert not any(outcome.error for outcome in outcomes)
    numbers = [delivery.number for delivery in await store.arrived(0, 100_000)]
    assert len(numbers) == 20_000  # the nudges of their creation, long since seen
    for i in range(20_000):
        operations[2 * i + 1] = Commit(f"d{i}", f"e{i}", 2, now - 10, None, consumed=[numbers[i]])
    for i in range(0, 20_000, 4_000):
        outcomes = await store.write(operations[2 * i + 1 : 2 * (i + 4_000) : 2], None)
        assert not any(outcome.error for outcome in outcomes)
    await store.close()
    began = time.monotonic()
    async with hub_on(store, app) as hub:
        for i in due:
            assert await hub.client.get(f"d{i}").result(20) == "woke"
        seconds = time.monotonic() - began
        await turns(100)
        assert sorted(store.loaded) == sorted(f"d{i}" for i in due)
        await hub.client.get("d7").raise_event("go", "hello")
        assert await hub.client.get("d7").result(5) == "hello"
        assert len(store.loaded) == len(due) + 1
    print(f"20,000 asleep: opened, and those due have ended, after {seconds * 1000:.0f} ms")
    assert seconds < 10


@pytest.mark.parametrize("known", [1, 3, 10])
async def test_more_sleepers_than_are_known_all_wake_in_order_and_in_time(
    known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms, "SLEEPERS_KNOWN_MAX", known)
    store, clock = ToldStore(), TestClock()
    minute = 60_000_000
    async with hub_on(store, app, clock=clock) as hub:
        for i in range(40):
            await hub.client.start(sleeps, minute * (1 + (i * 7) % 40), instance_id=f"s{i}")
    monkeypatch.setattr(alarms, "LOOK_SECONDS_MAX", 0.005)
    clock.advance(timedelta(seconds=30))
    async with hub_on(store, app, clock=clock) as hub:
        await turns(50)
        assert not store.loads
        for step in range(1, 41):
            clock.advance(timedelta(minutes=1))
            expected = {f"s{i}" for i in range(40) if 1 + (i * 7) % 40 <= step}
            await until(lambda expected=expected: expected <= set(store.loads), f"those of minute {step}")  # type: ignore[misc]
            assert set(store.loads) == expected
        for i in range(40):
            assert await hub.client.get(f"s{i}").result(5) == "woke"
        await audit(hub.client)


@pytest.mark.parametrize("known", [2, 1_000])
async def test_sleepers_that_leave_the_memory_wake_too(known: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "SLEEPERS_KNOWN_MAX", known)
    async with hub_on(ToldStore(), app, Limits(warm_instances=2)) as hub:
        started = [await hub.client.start(sleeps, 20_000 + 3_000 * ((i * 7) % 30)) for i in range(30)]
        for one in started:
            assert await one.result(10) == "woke"
        await audit(hub.client)


async def test_many_sleepers_of_one_moment_all_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "SLEEPERS_KNOWN_MAX", 3)
    monkeypatch.setattr(alarms, "LOOK_SECONDS_MAX", 0.005)
    store, clock = ToldStore(), TestClock()
    at = datetime.now(UTC) + timedelta(hours=1)
    async with hub_on(store, app, clock=clock) as hub:
        started = [await hub.client.start(waits, start_at=at, instance_id=f"w{i}") for i in range(20)]
    async with hub_on(store, app, clock=clock) as hub:
        await turns(50)
        clock.advance(timedelta(hours=2))
        for one in started:
            again = hub.client.get(one.id)
            await again.raise_event("go", one.id)
            assert await again.result(5) == one.id


async def test_a_clock_that_jumps_forward_fires_what_it_passed_and_one_that_jumps_back_fires_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alarms, "LOOK_SECONDS_MAX", 0.005)
    clock = TestClock()
    async with hub_on(ToldStore(), app, clock=clock) as hub:
        day = await hub.client.start(sleeps, 24 * HOUR)
        week = await hub.client.start(sleeps, 7 * 24 * HOUR)
        clock.advance(timedelta(days=1, seconds=1))
        assert await day.result(5) == "woke"
        clock.advance(timedelta(days=-3))
        with pytest.raises(TimeoutError):
            await week.result(0.05)
        short = await hub.client.start(sleeps, 1_000)
        assert await short.result(5) == "woke"
        clock.advance(timedelta(days=30))
        assert await week.result(5) == "woke"
        for one in (day, week):
            history = [event async for event in one.history()]
            assert sum(isinstance(event, events.TimerFired) for event in history) == 1
            times = [event.now_microseconds for event in history if isinstance(event, events.OrchestratorStarted)]
            assert times == sorted(times)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_start_in_the_future_survives_restarts_and_begins_in_time(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms, "LOOK_SECONDS_MAX", 0.005)
    store: Any = ToldStore() if kind == "memory" else SqliteStore(tmp_path / "hub.db")
    clock = TestClock()
    async with hub_on(store, app, clock=clock) as hub:
        for id in ("plain", "signalled", "ended", "suspended"):
            one = await hub.client.start(waits, instance_id=id, start_at=timedelta(hours=1))
            assert (await one.status()).status == "PENDING"
        await hub.client.get("signalled").raise_event("go", "before it began")
        await hub.client.get("ended").terminate("not needed")
        with pytest.raises(OrchestrationTerminated, match="not needed"):
            await hub.client.get("ended").result(5)
        await turns(50)
        assert (await hub.client.get("signalled").status()).status == "PENDING"
    async with hub_on(store, app, clock=clock) as hub:
        await turns(50)
        assert (await hub.client.get("plain").status()).status == "PENDING"
        clock.advance(timedelta(minutes=59))
        await asyncio.sleep(0.05)
        assert (await hub.client.get("signalled").status()).status == "PENDING"
        clock.advance(timedelta(minutes=2))
        assert await hub.client.get("signalled").result(5) == "before it began"
        await hub.client.get("plain").raise_event("go", "after")
        assert await hub.client.get("plain").result(5) == "after"
        await hub.client.get("suspended").terminate()
        await hub.client.get("suspended").wait(5)
        await audit(hub.client)


async def test_an_instance_without_its_code_can_be_ended() -> None:
    """One that is parked for good, because nobody has its code any more, must not stay for ever."""
    store = ToldStore()
    gone = App()

    @gone.activity
    async def hangs() -> None:
        await asyncio.Event().wait()

    @gone.orchestrator
    def forgotten(ctx: OrchestrationContext) -> Orchestration[None]:
        yield from ctx.call_activity(hangs)

    async with hub_on(store, gone) as hub:
        await hub.client.start(forgotten, instance_id="began")
        await hub.client.start(forgotten, instance_id="later", start_at=timedelta(hours=1))
    async with hub_on(store, app) as hub:
        await until(lambda: "began" in store.loads)
        await turns(100)
        assert "no orchestrator 'forgotten'" in ((await hub.client.get("began").status()).problem or "")
        for id in ("began", "later"):
            one = hub.client.get(id)
            await one.terminate("nobody knows it")
            with pytest.raises(OrchestrationTerminated, match="nobody knows it"):
                await one.result(5)
            assert (await one.status()).problem is None
        await audit(hub.client)


async def test_a_parked_instance_keeps_its_messages_and_goes_on_with_the_code() -> None:
    store, other = ToldStore(), App()
    async with hub_on(store, app) as hub:
        await hub.client.start(waits, instance_id="one")
    async with hub_on(store, other) as hub:
        one = hub.client.get("one")
        await one.raise_event("go", "kept")
        await until_state(one, lambda state: state.problem is not None)
        await one.suspend()
        await one.resume()
        with pytest.raises(TimeoutError, match="parked: no orchestrator 'waits'"):
            await one.result(0.05)
    async with hub_on(store, app) as hub:
        assert await hub.client.get("one").result(5) == "kept"
        assert (await hub.client.get("one").status()).problem is None
        await audit(hub.client)
