"""Random programs whose history is taken up again: mended and rewound, forked, carried to another hub, or met by other code."""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast, get_args

from hypothesis import given
from hypothesis import strategies as st

from replayflow import Client, HistoryEvent, Limits, MemoryStore, SqliteStore, Status
from replayflow.errors import InvalidStateError
from replayflow.store import Store
from replayflow.testing import VirtualHub
from replayflow.testing.clock import VirtualClock
from tests import scratch
from tests.properties import laws
from tests.properties.driver import Mortal, Run, Way, begin, ended, history_of, run
from tests.properties.grammar import (
    Act,
    Arrival,
    Do,
    Map,
    Program,
    Statement,
    Task,
    Try,
    Wait,
    changed_at,
    nested,
    nodes,
    plain_programs,
    programs,
    tasks,
)
from tests.properties.interpreter import ROOT, World, app_of
from tests.properties.model import expected, with_what_is_missing
from tests.properties.profile import programs_tried

POINTS = 8
LAST = "omega"
WHOLE_DAY = timedelta(days=1)


# ---- mended and rewound


def mended(program: Program) -> Program:
    """The program without what fails in it."""
    changed = program
    for place, node in enumerate(nodes(program)):
        if isinstance(node, Act):
            changed = changed_at(changed, place, replace(node, fails=0))
        elif isinstance(node, Map):
            changed = changed_at(changed, place, replace(node, failing=frozenset()))
    return changed


def test_a_failed_program_that_is_mended_and_rewound_comes_to_what_it_should_have() -> None:
    @programs_tried(17, share=0.5)
    @given(plain_programs)
    def check(program: Program) -> None:
        async def rewind(hub: VirtualHub, world: World) -> None:
            instance = hub.client.get(ROOT)
            world.is_mended = True
            if (await instance.status()).status is Status.FAILED:
                await instance.rewind()
                await instance.wait()

        rewound = asyncio.run(run(program, Way(), Path(), rewind))
        should_be = expected(mended(program), rewound.world.choices)
        assert (rewound.status, rewound.output) == (Status.COMPLETED, should_be.seen)
        assert rewound.custom_status == should_be.custom_status
        for pieces in rewound.pieces:
            laws.folds_alike(pieces)

    check()


# ---- forked


def test_forked_at_any_point_with_nothing_edited_the_code_does_what_it_did() -> None:
    @programs_tried(14, share=0.5)
    @given(programs.map(with_what_is_missing), st.data())
    def check(program: Program, data: st.DataObject) -> None:
        async def fork(hub: VirtualHub, world: World) -> None:
            instance = hub.client.get(ROOT)
            for execution in await hub.store.executions(ROOT):
                count = len(await history_of(hub, ROOT, execution))
                for at in points(data, count):
                    with suppress(InvalidStateError):  # inside a critical section nobody can begin
                        fits = await instance.fork(at=at, execution_id=execution, dry_run=True)
                        assert fits.fits, fits

        asyncio.run(run(program, Way(), Path(), fork))

    check()


def points(data: st.DataObject, count: int) -> list[int]:
    return sorted({1, count, *data.draw(st.lists(st.integers(1, count), max_size=POINTS), "points")})


# ---- carried to another hub


def test_what_is_exported_and_imported_is_the_same_in_either_store() -> None:
    @programs_tried(10, share=0.3)
    @given(programs.map(with_what_is_missing), st.booleans())
    def check(program: Program, is_file: bool) -> None:
        first = asyncio.run(run(program, Way(), Path()))
        with tempfile.TemporaryDirectory(dir=scratch.memory()) as folder:
            store: Store = SqliteStore(Path(folder) / "hub.db") if is_file else MemoryStore()
            again = asyncio.run(imported(first, store))
        assert [line for line in map(json.loads, again) if "exported_at" not in line] == [
            line for line in map(json.loads, first.export) if "exported_at" not in line
        ]

    check()


async def imported(first: Run, store: Store) -> list[str]:
    async with Client(store) as client:
        await client.import_history(first.export)
        return [line async for line in client.export()]


# ---- met by other code


def kept_open(program: Program) -> Program:
    """The program with a last wait behind it, to which it comes in any case."""
    *others, last = program.executions
    waiting: tuple[Statement, ...] = (Try(last, (), ()), Do(Wait(LAST)))
    return Program((*(as_tried(body) for body in others), waiting), program.arrivals)


def as_tried(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    return (Try(body, (), ()),)


def with_one_node_changed(program: Program, data: st.DataObject) -> Program:
    of_tasks, of_statements = get_args(Task), get_args(Statement)
    places = [(n, node) for n, node in enumerate(nodes(program)) if isinstance(node, of_tasks + of_statements)]
    place, node = data.draw(st.sampled_from(places), "place")
    needed: st.SearchStrategy[Any] = tasks if isinstance(node, of_tasks) else nested(tasks)
    if isinstance(node, Act):
        needed = st.builds(Act, how=st.sampled_from(("async", "thread")))  # as the actions of a saga have to be
    return cast("Program", changed_at(program, place, data.draw(needed, "other")))


def test_other_code_parks_or_goes_on_and_never_damages() -> None:
    """I9: what is there of the history stays; the right code goes on with it, unless other code has in the meantime."""

    @programs_tried(28)
    @given(programs.map(kept_open), st.data(), st.booleans())
    def check(program: Program, data: st.DataObject, always_replay: bool) -> None:
        program = with_what_is_missing(program)
        *arrivals, last = program.arrivals
        assert last.name == LAST
        other = with_one_node_changed(program, data)
        asyncio.run(met_by(program, replace(program, arrivals=tuple(arrivals)), other, last, always_replay))

    check()


async def met_by(whole: Program, open_part: Program, other: Program, last: Arrival, always_replay: bool) -> None:
    world = World()
    store = Mortal(MemoryStore(), None, "after")
    clock = VirtualClock()

    def hub_with(program: Program, world: World) -> VirtualHub:
        return VirtualHub(
            app_of(program, world),
            store=cast("Store", store),
            clock=clock,
            always_replay=always_replay,
            limits=Limits(grace=timedelta(0)),
        )

    async with hub_with(whole, world) as hub:
        await begin(hub, open_part, store)
        await hub.advance(timedelta(microseconds=last.at * 1000))
        before = await everything(hub)
    async with hub_with(other, World()) as hub:
        await hub.settle()
        state = await hub.client.get(ROOT).status()
        after = await everything(hub)
        for id, history in before.items():
            assert after[id][: len(history)] == history, "what has happened is as it was"
    if after != before:
        assert state.problem is None, "what is parked does nothing"
        return
    async with hub_with(whole, world) as hub:
        instance = hub.client.get(ROOT)
        await hub.settle()
        assert (await instance.status()).problem is None
        whole = await ended(hub, whole, store, world)
        state = await instance.status()
        should_be = expected(whole, world.choices)
        assert (state.status, state.output) == (Status.COMPLETED, should_be.seen)


async def everything(hub: VirtualHub) -> dict[tuple[str, str], list[HistoryEvent]]:
    """Every history that there is."""
    ids = [state.id async for state in hub.client.list(id_prefix=ROOT)]
    return {
        (id, execution): await history_of(hub, id, execution)
        for id in ids
        for execution in await hub.store.executions(id)
    }
