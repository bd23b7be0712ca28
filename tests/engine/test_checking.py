"""What a check finds: each way in which code can fail to fit what is open, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import App, Codec, MemoryStore, OrchestrationContext, SqliteStore, StoreCorruptError, TaskHub
from replayflow.engine.checking import Verdict, check_open
from replayflow.store import Store
from tests.engine.kit import TestClock, until_state, until_suspended
from tests.semantics.kit import until_recorded


@dataclass
class Numbers:
    state: int = 0

    def add(self, by: int) -> None:
        self.state += by


@dataclass
class Lists:
    state: list[str] = field(default_factory=list)

    def add(self, by: int) -> None:
        raise AssertionError("nothing is performed by a check")


def waits(ctx: OrchestrationContext, n: int) -> Any:
    yield ctx.call_activity("echo", n)
    yield ctx.wait_for_external_event("go")


def sleeps(ctx: OrchestrationContext, n: int) -> Any:
    yield ctx.create_timer(timedelta(days=n))


def app_with(main: Callable[..., Any] | None = waits, nap: Callable[..., Any] = sleeps, counter: Any = Numbers) -> App:
    app = App()

    @app.activity
    async def echo(n: int) -> int:
        return n

    @app.activity
    async def other(n: int) -> int:
        return n

    if main is not None:
        app.orchestrator(name="main")(main)
    app.orchestrator(name="nap")(nap)
    app.entity(name="counter")(counter)
    return app


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "hub.db")


async def lived_in(store: Store) -> None:
    """One instance of each sort: it waits, sleeps, is suspended, has ended, is for later; and an entity with a state."""
    async with TaskHub(store, app_with()) as hub:
        for id in ("waits", "suspended", "ended"):
            instance = await hub.client.start("main", 1, instance_id=id)
            await until_recorded(instance, "TaskCompleted")
        await hub.client.get("suspended").suspend()
        await until_suspended(hub.client.get("suspended"))
        await hub.client.get("ended").raise_event("go")
        await hub.client.get("ended").result(5)
        await until_recorded(await hub.client.start("nap", 1, instance_id="sleeps"), "TimerCreated")
        await hub.client.start("main", 1, instance_id="later", start_at=timedelta(days=1))
        await hub.client.signal_entity("@counter@a", "add", 1)
        async with asyncio.timeout(10):
            while await hub.client.read_entity("@counter@a") is None:  # noqa: ASYNC110 - an entity tells nobody of its state
                await asyncio.sleep(0.005)


async def verdicts(store: Store, app: App, **options: Any) -> dict[str, Verdict]:
    await store.open()
    try:
        return {one.instance_id: one async for batch in check_open(store, app, Codec(), **options) for one in batch}
    finally:
        await store.close()


async def test_code_that_is_as_it_was_fits_all_that_is_open(store: Store) -> None:
    await lived_in(store)
    found = await verdicts(store, app_with())
    assert sorted(found) == ["@counter@a", "later", "sleeps", "suspended", "waits"]
    assert all(one.fits and not one.warnings for one in found.values()), found


async def test_a_difference_has_both_sides_and_their_lines(store: Store) -> None:
    def changed(ctx: OrchestrationContext, n: int) -> Any:
        yield ctx.call_activity("other", n)

    def woken(ctx: OrchestrationContext, n: int) -> Any:
        yield ctx.wait_for_external_event("wake up")

    await lived_in(store)
    found = await verdicts(store, app_with(changed, woken))
    assert [id for id, one in found.items() if one.fits] == ["later", "@counter@a"]
    for id in ("waits", "suspended"):
        assert found[id].then.startswith(
            "the history has activity 'echo' (task 1), asked for at engine/test_checking.py:"
        )
        assert found[id].now.startswith("the code now asks for activity 'other' (task 1) at engine/test_checking.py:")
    assert "timer (task 1)" in found["sleeps"].then
    assert "asks for nothing more here, and waits for" in found["sleeps"].now


async def test_names_that_nobody_serves_and_states_and_inputs_that_do_not_fit_are_found(store: Store) -> None:
    def takes_text(ctx: OrchestrationContext, n: list[str]) -> Any:
        yield ctx.call_activity("echo", n)

    await lived_in(store)
    lacking = await verdicts(store, app_with(None))
    assert "no orchestrator 'main'" in str(lacking["waits"].problem)
    assert "no orchestrator 'main'" in str(lacking["later"].problem)
    found = await verdicts(store, app_with(takes_text, counter=Lists))
    assert "expected list[str], found int" in str(found["later"].problem)
    assert not found["waits"].fits
    assert type(found["@counter@a"].problem).__name__ == "EntityStateError"
    assert found["sleeps"].fits


async def test_another_input_fits_with_a_warning_that_goes_nowhere_else(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def other_input(ctx: OrchestrationContext, n: int) -> Any:
        yield ctx.call_activity("echo", n + 1)
        yield ctx.wait_for_external_event("go")

    await lived_in(store)
    caplog.clear()
    found = await verdicts(store, app_with(other_input))
    assert found["waits"].fits
    assert "with another input then" in found["waits"].warnings[0]
    assert found["sleeps"].warnings == ()
    assert not caplog.records
    assert logging.getLogger("replayflow").propagate


async def test_a_parked_instance_is_tried_as_it_would_be_and_says_what_it_is_parked_with(store: Store) -> None:
    await lived_in(store)
    async with TaskHub(store, app_with(None)) as hub:
        waiting = hub.client.get("waits")
        await waiting.raise_event("go")
        await until_state(waiting, lambda state: state.problem is not None)
    found = await verdicts(store, app_with())
    assert found["waits"].fits
    assert "no orchestrator 'main'" in (found["waits"].parked or "")
    assert found["suspended"].parked is None


async def test_it_writes_nothing_and_works_beside_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    await lived_in(SqliteStore(path))
    before = path.read_bytes()
    assert len(await verdicts(SqliteStore(path), app_with())) == 5
    assert path.read_bytes() == before
    async with TaskHub(path, app_with()) as hub:
        assert len(await verdicts(SqliteStore(path), app_with(None))) == 5
        await hub.client.get("waits").raise_event("go")
        await hub.client.get("waits").result(5)


async def test_only_what_is_asked_for_is_checked(store: Store) -> None:
    app = App()
    for version in (None, "1", "2"):
        app.orchestrator(name="main", version=version)(waits)
    app.activity(name="echo")(lambda n: n)
    async with TaskHub(store, app, clock=TestClock()) as hub:
        for n in range(450):
            later = timedelta(days=1)
            version = (None, "1", "2")[n % 3]
            await hub.client.start(
                waits if version is None else "main", n, instance_id=f"i{n}", version=version, start_at=later
            )
    assert len(await verdicts(store, app)) == 450
    assert {one.version for one in (await verdicts(store, app, version="1")).values()} == {"1"}
    assert {one.version for one in (await verdicts(store, app, version="")).values()} <= {None, "2"}
    assert len(await verdicts(store, app, limit=210)) == 210
    assert await verdicts(store, app, name="another") == {}


async def test_a_history_that_cannot_be_read_is_a_verdict_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    await lived_in(store)
    load = store.load

    async def damaged(ids: Any) -> Any:
        if "waits" in ids:
            raise StoreCorruptError("a stored piece of history is damaged")
        return await load(ids)

    monkeypatch.setattr(store, "load", damaged)
    found = await verdicts(store, app_with())
    assert len(found) == 5
    assert [id for id, one in found.items() if not one.fits] == ["waits"]
