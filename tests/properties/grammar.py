"""Random orchestrators, as values: what an orchestrator may ask for, and how it may put that together.

A program is a list of executions, each a list of statements; tasks are what statements yield. Everything is a frozen dataclass, so that hypothesis
can shrink it, print it as code, and change one node of it. What the programs mean is written down twice: in `interpreter`, with the engine, and in
`model`, without.

1. Every program ends, if the events of its schedule come: waits that nothing answers get an event of their own (`model.with_what_is_missing`), and
   one that only chance leaves so gets it while the program runs (`driver.ended`).
2. Times of events are no whole seconds and no two are equal, those of timers and retries are whole: an event never comes at the moment of something
   else, so that the order of both is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeAlias, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")
NAMES = ("Alpha", "beta")


# ---- tasks -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Act:
    """An activity whose first `fails` attempts fail; with `attempts` it has a policy of so many, `pause` seconds apart."""

    fails: int = 0
    attempts: int = 1
    pause: int = 0
    how: Literal["async", "thread", "transaction"] = "async"


@dataclass(frozen=True)
class Timer:
    """A timer of so many seconds, or one for the time that is so many seconds after the beginning of the run."""

    seconds: int = 0
    is_absolute: bool = False


@dataclass(frozen=True)
class Wait:
    """The next event of the name, with or without a time limit in seconds."""

    name: str = "beta"
    timeout: int | None = None


@dataclass(frozen=True)
class Child:
    """A sub-orchestration."""

    body: tuple[Statement, ...] = ()


@dataclass(frozen=True)
class Call:
    """An operation of the entity that belongs to the instance; it counts, or fails."""

    fails: bool = False


@dataclass(frozen=True)
class Map:
    """A map of one of the three kinds over so many items, of which some fail."""

    kind: Literal["activities", "children", "pages"] = "activities"
    count: int = 1
    failing: frozenset[int] = frozenset()
    is_tolerant: bool = False
    width: int = 2
    on_error: Literal["fail_fast", "collect"] = "fail_fast"


@dataclass(frozen=True)
class Several:
    """A composite. Only `all` and `fast` may be of nothing."""

    kind: Literal["all", "fast", "any", "race"] = "all"
    tasks: tuple[Task, ...] = ()


Task: TypeAlias = Act | Timer | Wait | Child | Call | Map | Several


# ---- statements ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Do:
    """The task is yielded at once, by `yield` or by `yield from`."""

    task: Task
    is_from: bool = False


@dataclass(frozen=True)
class Start:
    """The task is begun, and kept for later."""

    task: Task


@dataclass(frozen=True)
class Later:
    """The task that was kept first is yielded."""


@dataclass(frozen=True)
class Cancel:
    """The task that was kept last is given up."""


@dataclass(frozen=True)
class Look:
    """The time, a random number, a UUID and a recorded value."""


@dataclass(frozen=True)
class Record:
    """A value of the world is recorded; or the function that should give it fails."""

    fails: bool = False


@dataclass(frozen=True)
class Status:
    """The custom status is set."""

    value: int = 0


@dataclass(frozen=True)
class Signal:
    """So many operations are signalled: of the instance's own entity, and of the one that all share."""

    count: int = 1


@dataclass(frozen=True)
class Locked:
    """A critical section over the own entity and the shared one, with so many additions."""

    count: int = 1


@dataclass(frozen=True)
class Fail:
    """The code itself raises."""


@dataclass(frozen=True)
class Loop:
    count: int
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Try:
    body: tuple[Statement, ...]
    caught: tuple[Statement, ...]
    after: tuple[Statement, ...]


@dataclass(frozen=True)
class Saga:
    """Actions that are undone by an activity or by a generator (`by`), the last first, where one of them or the body after them fails."""

    actions: tuple[Act, ...]
    by: Literal["activity", "generator"]
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Patched:
    """`new` where the execution has the patch, which all that begin with this code do; else `old`."""

    name: str
    new: tuple[Statement, ...]
    old: tuple[Statement, ...]


Statement: TypeAlias = (
    Do | Start | Later | Cancel | Look | Record | Status | Signal | Locked | Fail | Loop | Try | Saga | Patched
)


@dataclass(frozen=True)
class Arrival:
    """What comes from outside, so many milliseconds after the beginning: an event, before and behind which the instance may be suspended."""

    at: int
    name: str
    is_suspended: bool = False


@dataclass(frozen=True)
class Program:
    """Executions that continue each other, and what comes meanwhile."""

    executions: tuple[tuple[Statement, ...], ...]
    arrivals: tuple[Arrival, ...] = ()


# ---- strategies: what is simple stands first, for shrinking goes there -------------------------------------------


def weighted(*choices: tuple[int, st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """One of them, as often as its number says; `one_of` would look into what it is given, and weigh all that it finds there alike."""
    return st.sampled_from([strategy for weight, strategy in choices for _ in range(weight)]).flatmap(_itself)


def _itself(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    return strategy


places = st.sampled_from(("async", "thread", "transaction"))
acts: st.SearchStrategy[Act] = weighted(
    (3, st.builds(Act, how=places)),
    (1, st.builds(Act, fails=st.integers(0, 3), attempts=st.integers(1, 3), pause=st.integers(0, 2), how=places)),
)
timers = st.builds(Timer, seconds=st.integers(0, 4), is_absolute=st.booleans())
limited_waits = st.builds(Wait, name=st.sampled_from(NAMES), timeout=st.integers(0, 4))
waits = limited_waits | st.builds(Wait, name=st.sampled_from(NAMES))
calls: st.SearchStrategy[Call] = weighted((4, st.builds(Call)), (1, st.builds(Call, st.just(True))))
maps = st.builds(
    Map,
    kind=st.sampled_from(("activities", "children", "pages")),
    count=st.integers(0, 4),
    failing=weighted((2, st.just(frozenset[int]())), (1, st.frozensets(st.integers(0, 3), max_size=2))),
    is_tolerant=st.booleans(),
    width=st.integers(1, 3),
    on_error=st.sampled_from(("fail_fast", "collect")),
)


def composites(of: st.SearchStrategy[Task]) -> st.SearchStrategy[Task]:
    return st.one_of(
        st.builds(Several, kind=st.sampled_from(("all", "fast")), tasks=st.lists(of, max_size=3).map(tuple)),
        st.builds(
            Several, kind=st.sampled_from(("any", "race")), tasks=st.lists(of, min_size=1, max_size=3).map(tuple)
        ),
    )


def tasks_of(leaves: st.SearchStrategy[Task]) -> st.SearchStrategy[Task]:
    """Leaves, composites of them, and composites of these."""
    below = weighted((3, leaves), (1, composites(leaves)))
    return weighted((5, leaves), (3, composites(below)))


def statements_of(tasks: st.SearchStrategy[Task]) -> st.SearchStrategy[Statement]:
    """Statements that hold no others."""
    return weighted(
        (9, st.builds(Do, tasks, st.booleans())),
        (3, st.builds(Start, tasks)),
        (2, st.just(Later())),
        (1, st.just(Cancel())),
        (2, st.just(Look())),
        (2, st.just(Record())),
        (1, st.builds(Status, st.integers(0, 2))),
        (1, st.builds(Signal, st.integers(1, 2))),
        (1, st.builds(Locked, st.integers(0, 2))),
        (1, st.sampled_from((Fail(), Record(fails=True)))),
    )


def blocks_of(statements: st.SearchStrategy[Statement]) -> st.SearchStrategy[Statement]:
    several = bodies_of(statements)
    return weighted(
        (1, st.builds(Loop, st.integers(0, 3), several)),
        (3, st.builds(Try, several, several, several)),
        (
            2,
            st.builds(Saga, st.lists(acts, max_size=2).map(tuple), st.sampled_from(("activity", "generator")), several),
        ),
        (1, st.builds(Patched, st.sampled_from(("one", "two")), several, several)),
    )


def bodies_of(statements: st.SearchStrategy[Statement], size: int = 3) -> st.SearchStrategy[tuple[Statement, ...]]:
    return st.lists(statements, max_size=size).map(tuple)


def nested(tasks: st.SearchStrategy[Task]) -> st.SearchStrategy[Statement]:
    """Statements, blocks of them, and blocks of these."""
    simple = statements_of(tasks)
    below = weighted((3, simple), (1, blocks_of(simple)))
    return weighted((3, simple), (1, blocks_of(below)))


# What children do: they hear no events, so that each of their waits is limited.
_in_child: st.SearchStrategy[Task] = weighted((4, acts), (2, timers), (1, limited_waits), (2, calls), (1, maps))
_children: st.SearchStrategy[Task] = st.builds(Child, bodies_of(nested(tasks_of(_in_child))))
_grandchildren: st.SearchStrategy[Task] = st.builds(Child, bodies_of(nested(tasks_of(_in_child | _children))))
leaves: st.SearchStrategy[Task] = weighted(
    (5, acts), (2, timers), (4, waits), (2, calls), (1, maps), (2, _children), (1, _grandchildren)
)
tasks = tasks_of(leaves)
bodies = st.lists(nested(tasks), min_size=1, max_size=6).map(tuple)


def _scheduled(found: Sequence[tuple[int, str, bool]]) -> tuple[Arrival, ...]:
    """No two come at the same time, and none at a whole second."""
    ordered = enumerate(sorted(found, key=lambda one: one[0]))
    return tuple(Arrival(second * 1000 + n + 1, name, is_suspended) for n, (second, name, is_suspended) in ordered)


arrivals = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(NAMES), st.booleans()), max_size=4).map(_scheduled)
programs = st.builds(Program, weighted((3, bodies.map(lambda body: (body,))), (1, st.tuples(bodies, bodies))), arrivals)


def programs_about(statements: st.SearchStrategy[Statement], arrivals_min: int = 0) -> st.SearchStrategy[Program]:
    """Programs that do little but one thing, and do it often."""
    body = st.lists(statements, min_size=4, max_size=8).map(tuple)
    times = st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(NAMES), st.booleans()), min_size=arrivals_min, max_size=8
    )
    return st.builds(
        Program, weighted((2, body.map(lambda one: (one,))), (1, st.tuples(body, body))), times.map(_scheduled)
    )


_retried = st.builds(Act, fails=st.integers(1, 2), attempts=st.just(3), pause=st.integers(0, 2), how=places)
_short_waits = st.builds(Wait, st.sampled_from(NAMES), st.integers(1, 2))
_heard: st.SearchStrategy[Statement] = weighted(
    (4, st.builds(Try, st.builds(Do, _short_waits).map(lambda one: (one,)), st.just(()), st.just(()))),
    (2, st.builds(Do, composites(_short_waits | timers))),
    (2, st.builds(Start, _short_waits)),
    (1, st.just(Later())),
    (1, st.just(Cancel())),
    (2, st.builds(Do, st.builds(Timer, st.integers(1, 2)))),
)
_asked: st.SearchStrategy[Statement] = weighted(
    (
        3,
        st.builds(Do, st.builds(Several, st.just("all"), st.lists(st.builds(Call), min_size=2, max_size=3).map(tuple))),
    ),
    (2, st.builds(Signal, st.integers(1, 2))),
    (2, st.builds(Do, st.builds(Call))),
    (1, st.builds(Locked, st.integers(0, 2))),
    (1, st.builds(Start, _children | calls)),
    (1, st.just(Later())),
)
TOPICS: dict[str, st.SearchStrategy[Program]] = {
    "anything": programs,
    "events": programs_about(_heard, 3),
    "entities": programs_about(_asked),
    "retries": programs_about(nested(tasks_of(weighted((4, _retried), (1, timers), (1, maps))))),
}
mixed = weighted((3, programs), *((1, topic) for topic in list(TOPICS.values())[1:]))


# Plain programs: nothing in them depends on the time, on an event, on who is first, or on how often it is done.
_plain_acts = st.builds(
    Act, fails=st.sampled_from((0, 0, 1, 3)), attempts=st.integers(1, 2), how=st.sampled_from(("async", "thread"))
)
_plain_maps = st.builds(
    Map,
    st.sampled_from(("activities", "children", "pages")),
    st.integers(0, 3),
    st.frozensets(st.integers(0, 3), max_size=1),
)
_plain_tasks = st.one_of(
    _plain_acts,
    st.builds(Several, st.just("all"), st.lists(_plain_acts, max_size=3).map(tuple)),
    st.builds(Timer),
    _plain_maps,
)


def plain_blocks_of(statements: st.SearchStrategy[Statement]) -> st.SearchStrategy[Statement]:
    several = bodies_of(statements)
    return st.one_of(
        statements,
        st.builds(Loop, st.integers(0, 2), several),
        st.builds(Do, st.builds(Child, several)),
        st.builds(Saga, st.lists(_plain_acts, max_size=2).map(tuple), st.just("activity"), several),
    )


_plain: st.SearchStrategy[Statement] = (
    st.builds(Do, _plain_tasks) | st.just(Record()) | st.builds(Status, st.integers(0, 2))
)
plain_programs = st.lists(plain_blocks_of(plain_blocks_of(_plain)), min_size=1, max_size=5).map(
    lambda body: Program((tuple(body),))
)


# ---- walking ---------------------------------------------------------------------------------------------------


def nodes(node: Any) -> Iterator[Any]:
    """The node and all below it, in the order of the text."""
    if is_dataclass(node):
        yield node
        for field in fields(node):
            yield from nodes(getattr(node, field.name))
    elif isinstance(node, tuple):
        for one in node:
            yield from nodes(one)


def size_of(node: Any) -> int:
    return sum(1 for _ in nodes(node))


def changed_at(node: Any, place: int, new: Any) -> Any:
    """The tree with another node in the place of the one that `nodes` gives as number `place`, from 0."""
    left = place

    def walk(one: Any) -> Any:
        nonlocal left
        if is_dataclass(one) and not isinstance(one, type):
            left -= 1
            if left == -1:
                return new
            found = {field.name: walk(getattr(one, field.name)) for field in fields(one)}
            return replace(one, **found)
        if isinstance(one, tuple):
            return tuple(walk(each) for each in one)
        return one

    return walk(node)
