"""Random programs come to what the model says, however they are run and wherever they are killed."""

from __future__ import annotations

import asyncio
import tempfile
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import laws
from tests.properties.driver import Run, Way, When, run
from tests.properties.grammar import TOPICS, Program, mixed
from tests.properties.model import with_what_is_missing
from tests.properties.profile import programs_tried

RUN_SECONDS_MAX = 120.0
STRAIGHT = Way()
SIDES: tuple[When, ...] = ("before", "after")
WAYS = {
    "replayed before every step": Way(always_replay=True),
    "with one generator in memory": Way(warm_instances=1),
    "with all payloads out of line": Way(large_over_bytes=1),
    "sealed": Way(is_sealed=True),
}
FILES = {
    "in a file": Way(is_file=True),
    "in a file, sealed and out of line": Way(is_file=True, large_over_bytes=1, is_sealed=True, warm_instances=1),
}
EVERY_WRITE = {
    "killed after every write": Way(dies_at=0),
    "killed after every write, replayed before every step": Way(dies_at=0, always_replay=True),
}


def ran(program: Program, way: Way = STRAIGHT) -> Run:
    """What the program comes to when it is run so."""

    async def bounded(path: Path) -> Run:
        async with asyncio.timeout(RUN_SECONDS_MAX):
            return await run(program, way, path)

    if not way.is_file:
        return asyncio.run(bounded(Path()))
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(bounded(Path(folder) / "hub.db"))


def goes(program: Program, way: Way) -> None:
    """The program comes to the same in this way as in the plain one."""
    straight = ran(program)
    should_be = laws.check(program, straight)
    other = ran(program, way)
    laws.check(program, other, is_killed=way.dies_at is not None)
    if not should_be.is_free and way.dies_at is None:
        laws.are_alike(program, straight, other)


@pytest.mark.parametrize("topic", TOPICS.values(), ids=list(TOPICS))
def test_a_program_comes_to_what_the_model_says(topic: st.SearchStrategy[Program]) -> None:
    @programs_tried(30)
    @given(topic.map(with_what_is_missing))
    def check(program: Program) -> None:
        laws.check(program, ran(program))

    check()


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_so_it_does_however_it_is_run(way: Way) -> None:
    @programs_tried(20)
    @given(mixed.map(with_what_is_missing))
    def check(program: Program) -> None:
        goes(program, way)

    check()


@pytest.mark.parametrize("way", FILES.values(), ids=list(FILES))
def test_so_it_does_in_a_file(way: Way) -> None:
    @programs_tried(6, share=0.2)
    @given(mixed.map(with_what_is_missing))
    def check(program: Program) -> None:
        goes(program, way)

    check()


@pytest.mark.parametrize("way", EVERY_WRITE.values(), ids=list(EVERY_WRITE))
def test_so_it_does_where_a_worker_is_killed_after_every_write(way: Way) -> None:
    @programs_tried(10, share=0.3)
    @given(mixed.map(with_what_is_missing))
    def check(program: Program) -> None:
        goes(program, way)

    check()


@pytest.mark.parametrize("is_file", [False, True], ids=["memory", "file"])
def test_so_it_does_wherever_it_is_killed(is_file: bool) -> None:
    """One run for each write, and for each side of it."""

    @programs_tried(2 if is_file else 8, share=0.02 if is_file else 0.1)
    @given(mixed.map(with_what_is_missing))
    def check(program: Program) -> None:
        straight = ran(program)
        laws.check(program, straight)
        for write, side in product(range(1, straight.writes + 1), SIDES):
            killed = ran(program, Way(is_file=is_file, dies_at=write, dies=side))
            assert killed.lives <= 2
            laws.check(program, killed, is_killed=True)

    check()
