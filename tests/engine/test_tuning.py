"""The interpreter's settings: ours while a worker runs and sooner turns while its store is at work, those of the program before and after."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from replayflow import App, MemoryStore, Orchestration, OrchestrationContext, TaskHub
from replayflow.engine.tuning import STORE_AT_WORK


@pytest.fixture(autouse=True)
def program() -> Iterator[tuple[float, tuple[int, int, int]]]:
    """A program that has set nothing."""
    turns, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(0.005)
    gc.set_threshold(700, 10, 10)
    yield sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(turns)
    gc.set_threshold(*thresholds)


def app_that_looks() -> tuple[App, list[float]]:
    app, seen = App(), list[float]()

    @app.orchestrator
    def looks(ctx: OrchestrationContext) -> Orchestration[None]:
        yield ctx.call_activity(look)

    @app.activity
    async def look() -> None:
        seen.append(sys.getswitchinterval())

    return app, seen


async def test_a_program_that_has_set_nothing_has_its_settings_back(
    program: tuple[float, tuple[int, int, int]],
) -> None:
    app, seen = app_that_looks()
    async with TaskHub(MemoryStore(), app) as hub:
        await (await hub.client.start("looks")).result()
        assert gc.get_threshold() != program[1]
    assert max(seen) < program[0]
    assert (sys.getswitchinterval(), gc.get_threshold()) == program


async def test_threads_take_turns_sooner_while_any_store_is_at_work() -> None:
    app, _ = app_that_looks()
    async with TaskHub(MemoryStore(), app) as hub:
        await (await hub.client.start("looks")).result()
        idle = sys.getswitchinterval()
        with STORE_AT_WORK:
            busy = sys.getswitchinterval()
            with STORE_AT_WORK:
                assert sys.getswitchinterval() == busy
            assert sys.getswitchinterval() == busy < idle
        assert sys.getswitchinterval() == idle


async def test_what_the_program_sets_stays(program: tuple[float, tuple[int, int, int]]) -> None:
    sys.setswitchinterval(0.003)
    own = sys.getswitchinterval()
    gc.set_threshold(5_000, 20, 20)
    app, seen = app_that_looks()
    async with TaskHub(MemoryStore(), app) as hub:
        await (await hub.client.start("looks")).result()
        with STORE_AT_WORK:
            assert sys.getswitchinterval() == own
    assert set(seen) == {own}
    assert (sys.getswitchinterval(), gc.get_threshold()) == (own, (5_000, 20, 20))


async def test_what_the_program_sets_while_a_worker_runs_stays() -> None:
    app, _ = app_that_looks()
    async with TaskHub(MemoryStore(), app) as hub:
        await (await hub.client.start("looks")).result()
        sys.setswitchinterval(0.002)
        own = sys.getswitchinterval()
        with STORE_AT_WORK:
            assert sys.getswitchinterval() == own
            sys.setswitchinterval(0.001)
            own = sys.getswitchinterval()
        assert sys.getswitchinterval() == own


async def test_where_a_worker_ends_while_its_store_is_at_work_the_program_has_its_settings_back(
    program: tuple[float, tuple[int, int, int]],
) -> None:
    with STORE_AT_WORK:
        app, _ = app_that_looks()
        async with TaskHub(MemoryStore(), app) as hub:
            await (await hub.client.start("looks")).result()
        assert sys.getswitchinterval() == program[0]
    assert sys.getswitchinterval() == program[0]
