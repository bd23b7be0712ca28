"""The laws of rewind and fork, on random orchestrators.

A program is a tree of steps; its activities are named by their places in it, and those in `broken` fail. What a program comes to depends on nothing
but its steps and on what is broken, so that two runs of it can be compared.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replayflow import (
    App,
    Instance,
    Limits,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailed,
    RetryPolicy,
    Saga,
    TaskHub,
    when_all,
)
from tests.semantics.kit import LIMIT

Step: TypeAlias = tuple[Any, ...]
AGAIN = RetryPolicy(max_attempts=2, first_interval=timedelta(milliseconds=1))
simple: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("activity"), st.booleans()),
    st.tuples(st.just("together"), st.integers(1, 4)),
    st.tuples(st.just("map"), st.integers(1, 5), st.integers(1, 3), st.sampled_from(["fail_fast", "collect"])),
    st.tuples(st.just("children"), st.integers(1, 4), st.integers(1, 3), st.sampled_from(["fail_fast", "collect"])),
    st.tuples(st.just("timer")),
    st.tuples(st.just("status"), st.integers(0, 2)),
    st.tuples(st.just("look")),
)


def blocks(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    several = st.lists(steps, min_size=1, max_size=3)
    return st.one_of(st.tuples(st.just("child"), several), st.tuples(st.just("saga"), several))


def with_handlers(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    several = st.lists(steps, min_size=1, max_size=3)
    return st.one_of(blocks(steps), st.tuples(st.just("try"), several))


programs = st.lists(st.recursive(simple, blocks, max_leaves=5), min_size=1, max_size=4)
handling_programs = st.lists(st.recursive(simple, with_handlers, max_leaves=5), min_size=1, max_size=4)
breakages = st.sets(st.integers(0, 11), max_size=4)


def body(ctx: OrchestrationContext, steps: list[Step], place: str) -> Generator[Any, Any, list[Any]]:
    seen: list[Any] = []
    for number, step in enumerate(steps):
        here = f"{place}.{number}"
        match step:
            case ("activity", retries):
                seen.append((yield ctx.call_activity("work", here, retry=AGAIN if retries else None)))
            case ("together", count):
                seen.append((yield when_all([ctx.call_activity("work", f"{here}.{i}") for i in range(count)])))
            case ("map", count, width, on_error):
                items = [f"{here}.{i}" for i in range(count)]
                result = yield ctx.map("work", items, concurrency=width, on_item_error=on_error)
                seen.append(result.succeeded)
            case ("children", count, width, on_error):
                given: list[tuple[list[Step], str]] = [([("activity", False)], f"{here}.{i}") for i in range(count)]
                result = yield ctx.map("main", given, concurrency=width, on_item_error=on_error)
                seen.append(result.succeeded)
            case ("timer",):
                yield ctx.create_timer(timedelta(milliseconds=1))
            case ("status", value):
                ctx.set_custom_status(value)
            case ("look",):
                seen.append(ctx.random.random())
            case ("child", below):
                seen.append((yield ctx.call_sub_orchestrator("main", [below, here])))
            case ("saga", below):
                seen.append((yield from ctx.saga(partial(guarded, ctx, below, here))))
            case ("try", below):
                try:
                    seen.append((yield from body(ctx, below, here)))
                except Exception as error:
                    seen.append(type(error).__name__)
            case _:
                raise AssertionError(step)
    return seen


def guarded(ctx: OrchestrationContext, steps: list[Step], place: str, saga: Saga) -> Generator[Any, Any, Any]:
    done = yield from saga.run("work", "undo", f"{place}.do")
    return [done, (yield from body(ctx, steps, place))]


class World:
    """An app for all programs, and what it did."""

    def __init__(self, broken: set[int]) -> None:
        self.app = App()
        self.broken = broken
        self.standing: Counter[str] = Counter()
        """What was done and not undone."""
        self.done: Counter[str] = Counter()

        @self.app.activity
        async def work(name: str) -> str:
            if sum(name.encode()) % 12 in self.broken:
                raise ValueError(f"{name} is broken")
            self.done[name] += 1
            self.standing[name] += 1
            return f"r{name}"

        @self.app.activity
        async def undo(name: str) -> None:
            self.standing[name] -= self.standing[name] > 0  # an action that failed half-way is undone, too

        @self.app.orchestrator
        def main(ctx: OrchestrationContext, given: tuple[list[Any], str]) -> Any:
            steps, place = given
            return (yield from body(ctx, [tuple(step) for step in steps], place))


def limits(is_cold: bool) -> Limits:
    return Limits(grace=timedelta(seconds=2), warm_instances=1 if is_cold else 1000)


async def end_of(instance: Instance[Any]) -> tuple[str, Any]:
    try:
        return "completed", await instance.result(LIMIT)
    except OrchestrationFailed as failed:
        return "failed", str(failed.details)


async def straight(program: list[Step], broken: set[int]) -> tuple[tuple[str, Any], World]:
    world = World(broken)
    async with TaskHub(MemoryStore(), world.app) as hub:
        return await end_of(await hub.client.start("main", [program, "p"], instance_id="i")), world


def without_random(value: Any) -> Any:
    """Random numbers are those of an execution: another run has others."""
    if isinstance(value, list | tuple):
        return [without_random(one) for one in value]
    return None if isinstance(value, float) else value


def test_rewound_and_mended_it_comes_to_what_a_straight_run_comes_to() -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(programs, breakages, st.booleans(), st.booleans())
    def check(program: list[Step], broken: set[int], in_steps: bool, is_cold: bool) -> None:
        async def run() -> None:
            expected, straightly = await straight(program, set())
            world = World(set(broken))
            async with TaskHub(MemoryStore(), world.app, limits=limits(is_cold)) as hub:
                instance = await hub.client.start("main", [program, "p"], instance_id="i")
                end = await end_of(instance)
                completed = {name for name, count in world.done.items() if count}
                while end[0] == "failed":
                    if in_steps and world.broken:
                        world.broken.discard(min(world.broken))  # one thing at a time, and a rewind after each
                    else:
                        world.broken.clear()
                    await instance.rewind()
                    end = await end_of(instance)
                assert without_random(end) == without_random(expected)
                text = str(program)
                if "saga" not in text:  # one that was undone leaves the children behind that it had then
                    assert {state.status async for state in hub.client.list()} <= {"COMPLETED", "CANCELED"}
                    if "map" not in text and "children" not in text:  # these lose what was at work when they failed
                        assert all(world.done[name] == 1 for name in completed), "what had completed was done again"
            # What a saga had undone is done anew: all that the straight run has done stands here, too.
            assert straightly.standing.keys() == (+world.standing).keys()

        asyncio.run(run())

    check()


def test_forked_at_any_point_with_nothing_edited_it_comes_to_the_same_end() -> None:
    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(handling_programs, breakages, st.booleans())
    def check(program: list[Step], broken: set[int], is_cold: bool) -> None:
        async def run() -> None:
            world = World(broken)
            async with TaskHub(MemoryStore(), world.app, limits=limits(is_cold)) as hub:
                source = await hub.client.start("main", [program, "p"], instance_id="i")
                end = await end_of(source)
                count = len([event async for event in source.history()])
                # `forked` cuts anywhere; a dozen points, spread over the history, for each of the programs.
                for at in sorted({*range(1, count + 1, max(1, count // 10)), count}):
                    check = await source.fork(at=at, dry_run=True)
                    assert check.fits, check
                    fork = await source.fork(at=at)
                    assert without_children(await end_of(fork), fork.id) == without_children(end, "i"), at

        asyncio.run(run())

    check()


def without_children(end: tuple[str, Any], id: str) -> Any:
    """Failures name the instances that they come from; of a fork that is the fork."""
    return without_random(end) if end[0] == "completed" else (end[0], str(end[1]).replace(id, "i"))
