"""Random programs come to what the model says, however they are run and wherever they are killed."""

from __future__ import annotations

import asyncio
import tempfile
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import scratch
from tests.properties import laws
from tests.properties.driver import Run, Way, When, run
from tests.properties.grammar import (
    TOPICS,
    Act,
    Arrival,
    Call,
    Cancel,
    Child,
    Do,
    Fail,
    Later,
    Locked,
    Look,
    Map,
    Program,
    Saga,
    Several,
    Signal,
    Start,
    Statement,
    Timer,
    Wait,
    mixed,
)
from tests.properties.model import expected, with_what_is_missing
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
SLOW = Child((Do(Child((Fail(),))),))
"""It takes no time, and yet an activity is faster: the engine lets that win where the model, which cannot know, has the first in the list."""

# Each is the least that shows one thing going wrong, so that nothing of it is left to the choice of programs.
LEAST = {
    "chance and time": Program(((Look(), Do(Timer(2)), Look(), Do(Act())),)),
    "an event is had once": Program(
        ((Do(Wait()), Do(Timer(3)), Do(Wait(timeout=1)), Do(Wait(timeout=1))),),
        (Arrival(1001, "beta"), Arrival(2002, "beta")),
    ),
    "an event outlives its execution": Program(((Do(Timer(3)),), (Do(Wait()),)), (Arrival(1001, "beta", True),)),
    "events outlive their execution in the order in which they came": Program(
        ((Do(Timer(3)), Do(Wait("Alpha"))), (Do(Several("race", (Wait("Alpha"), Wait("beta")))),)),
        (Arrival(1001, "Alpha"), Arrival(1002, "beta"), Arrival(1003, "Alpha")),
    ),
    "who loses a race waits no longer": Program(
        ((Do(Several("race", (Wait(), Timer(1)))), Do(Wait())),), (Arrival(2001, "beta"),)
    ),
    "who has lost a race that nobody looks at waits no longer": Program(
        ((Start(Several("race", (Several("any", (SLOW, Wait())), Act()))), Do(Timer(1)), Do(Wait(timeout=3))),),
        (Arrival(1001, "beta"),),
    ),
    "messages come in order": Program(((Signal(2), Do(Several("all", (Call(), Call()))), Locked(2)),)),
    "attempts are counted": Program(((Do(Act(fails=2, attempts=3, pause=1)), Look()),)),
    "a transaction runs once": Program(((Do(Act(how="transaction")), Do(Act(1, 2, 0, "transaction"))),)),
    "the last is undone first": Program(((Saga((Act(), Act()), "activity", (Fail(),)),),)),
    "what ended well is undone with what is around it": Program(
        ((Saga((), "generator", (Saga((Act(),), "activity", ()), Fail())),),)
    ),
    "what was left comes while locks are waited for": Program(
        ((Do(Timer(2)),), (Locked(0), Start(Wait()), Cancel())), (Arrival(1001, "beta"),)
    ),
    "what was left comes when the code waits, and not before": Program(
        ((Do(Timer(2)),), (Start(Several("race", (Act(), Wait()))), Do(Several()), Do(Timer(1)), Later())),
        (Arrival(1001, "beta"),),
    ),
    "each has its own result": Program(((Do(Act()), Do(Act()), Do(Child((Do(Act()),))), Do(Map("children", 3))),)),
}


def ran(program: Program, way: Way = STRAIGHT) -> Run:
    """What the program comes to when it is run so."""

    async def bounded(path: Path) -> Run:
        async with asyncio.timeout(RUN_SECONDS_MAX):
            return await run(program, way, path)

    if not way.is_file:
        return asyncio.run(bounded(Path()))
    with tempfile.TemporaryDirectory(dir=scratch.memory()) as folder:
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
    @programs_tried(20)
    @given(topic.map(with_what_is_missing))
    def check(program: Program) -> None:
        laws.check(program, ran(program))

    check()


@pytest.mark.parametrize("way", [*WAYS.values(), *EVERY_WRITE.values()], ids=[*WAYS, *EVERY_WRITE])
@pytest.mark.parametrize("program", LEAST.values(), ids=list(LEAST))
def test_the_least_programs_go_every_way(program: Program, way: Way) -> None:
    goes(program, way)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            (Do(Several("race", (Timer(1), Several("all", (Timer(1), Timer(2)))))),), id="what a race cancels"
        ),
        pytest.param((Start(Several("race", (Act(), Act()))), Locked()), id="what it cancels before locks are there"),
        pytest.param((Start(Several("race", (Act(), Timer(3)))), Do(Act())), id="what it cancels before the end"),
        pytest.param((Do(Several("fast", (Wait(timeout=0), Call(fails=True)))),), id="which error is the first"),
    ],
)
def test_the_model_knows_what_depends_on_chance(body: tuple[Statement, ...]) -> None:
    """Two runs of these need not have decided alike: it is a matter of what is complete first, of what is due at one moment."""
    assert expected(Program((body,)), {}).is_free


def test_a_wait_that_chance_leaves_without_an_event_gets_one_late() -> None:
    """The model lets the child win, which fails; and so has nobody wait. In the run it is the activity that wins."""
    program = with_what_is_missing(Program(((Do(Several("race", (SLOW, Act()))), Do(Wait())),)))
    straight = ran(program)
    laws.check(program, straight)
    assert (len(program.arrivals), len(straight.program.arrivals)) == (0, 1)


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_so_it_does_however_it_is_run(way: Way) -> None:
    @programs_tried(14)
    @given(mixed.map(with_what_is_missing))
    def check(program: Program) -> None:
        goes(program, way)

    check()


@pytest.mark.parametrize("way", FILES.values(), ids=list(FILES))
def test_so_it_does_in_a_file(way: Way) -> None:
    @programs_tried(4, share=0.2)
    @given(mixed.map(with_what_is_missing))
    def check(program: Program) -> None:
        goes(program, way)

    check()


@pytest.mark.parametrize("way", EVERY_WRITE.values(), ids=list(EVERY_WRITE))
def test_so_it_does_where_a_worker_is_killed_after_every_write(way: Way) -> None:
    @programs_tried(7, share=0.3)
    @given(mixed.map(with_what_is_missing))
    def check(program: Program) -> None:
        goes(program, way)

    check()


@pytest.mark.parametrize("is_file", [False, True], ids=["memory", "file"])
def test_so_it_does_wherever_it_is_killed(is_file: bool) -> None:
    """One run for each write, and for each side of it."""

    @programs_tried(1 if is_file else 5, share=0.02 if is_file else 0.1)
    @given(mixed.map(with_what_is_missing))
    def check(program: Program) -> None:
        straight = ran(program)
        laws.check(program, straight)
        for write, side in product(range(1, straight.writes + 1), SIDES):
            killed = ran(program, Way(is_file=is_file, dies_at=write, dies=side))
            assert killed.lives <= 2
            laws.check(program, killed, is_killed=True)

    check()
