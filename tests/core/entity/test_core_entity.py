"""Entities and their callers in a world without a store: every order of episodes, every crash, and what must come of it.

The world keeps what a store would: histories, and an inbox for each instance. Hypothesis chooses who moves, how much of the inbox is taken, who is
replayed from history, whose commit is lost, and who is terminated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replayflow import App, EntityContext, EntityError, EntityInstanceId, Orchestration, OrchestrationContext, when_all
from replayflow.core import episode, events
from replayflow.core.commit import Message, RowState, Start
from replayflow.core.definitions import Environment, Orchestrators
from replayflow.core.entity import entity
from replayflow.core.entity.actions import releases, signal
from replayflow.core.entity.entity import Entity, Line, Standing
from replayflow.core.events import (
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationSignaled,
    ExecutionStarted,
    ExecutionTerminated,
    HistoryEvent,
    TimerFired,
)
from replayflow.core.instance import Instance, Status
from replayflow.core.replay import Replay
from replayflow.errors import InvalidArgumentError
from tests.core.driver import BEGIN, CODEC, SECOND

app = App()
KEYS = ("a", "b", "c")
IDS = tuple(f"@counter@{key}" for key in KEYS)


@app.entity
@dataclass
class Counter_:  # noqa: N801 - beside collections.Counter
    value: int = 0

    def get(self) -> int:
        return self.value

    def set(self, value: int) -> None:
        self.value = value

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def spoil(self, ctx: EntityContext[Any]) -> None:
        self.value += 1_000
        ctx.signal_entity("@counter@a", "add", 1_000)
        raise ValueError("spoilt")


app.entities["counter"] = app.entities.pop("counter_")


@app.orchestrator
def script(ctx: OrchestrationContext, steps: list[list[Any]]) -> Orchestration[int]:
    for what, *rest in steps:
        match what:
            case "signal":
                ctx.signal_entity(rest[0], "add", 1)
            case "later":
                ctx.signal_entity(rest[0], "add", 1, delay=timedelta(seconds=rest[1]))
            case "call":
                yield ctx.call_entity(rest[0], "add", 1)
            case "spoil":
                try:
                    yield ctx.call_entity(rest[0], "spoil")
                except EntityError:
                    continue
                raise AssertionError("a spoilt operation succeeded")
            case "section":
                with (yield ctx.lock_entities(rest[0])):
                    for id in rest[0]:
                        before = yield ctx.call_entity(id, "get")
                        yield ctx.call_entity(id, "set", before + 1)
                    if rest[1] == "raise":
                        raise ValueError("in the section")
            case "wide section":
                with (yield ctx.lock_entities(rest[0])):
                    values = yield when_all([ctx.call_entity(id, "get") for id in rest[0]])
                    yield when_all([ctx.call_entity(i, "set", v + 1) for i, v in zip(rest[0], values, strict=True)])
            case "leave open":
                yield ctx.lock_entities(rest[0])
                return 1
    return 0


class Actor:
    """An instance in the world: its history and inbox, and what memory has of it."""

    def __init__(self, world: World, start: list[HistoryEvent]) -> None:
        self.world = world
        self.inbox: list[HistoryEvent] = []
        self.begin(start)

    def begin(self, start: list[HistoryEvent]) -> None:
        self.start = start
        started = start[0]
        assert isinstance(started, ExecutionStarted)
        self.started = started
        self.pieces: list[bytes] = []
        self.row = RowState(Status.PENDING, 0)
        self.instance = Instance()
        self.executor = self.fresh()

    @property
    def is_entity(self) -> bool:
        return self.started.instance_id[0] == "@"

    def fresh(self) -> Entity | Replay:
        environment = self.world.environment
        if self.is_entity:
            return Entity(app.entities["counter"], self.started, environment)
        return Replay(app.orchestrators["script"], self.started, environment)

    def history(self) -> list[list[HistoryEvent]]:
        read = [events.decode(piece) for piece in self.pieces]
        if read:
            read[0] = [read[0][0], *events.decode(events.encode(self.start)), *read[0][1:]]
        return read

    def revive(self) -> None:
        """All that memory has is gone, and is made again from the history."""
        self.executor.close()
        self.instance = Instance()
        self.executor = self.fresh()
        for piece in self.history():
            self.instance.apply_all(piece)
        if not self.instance.is_finished:  # of what has ended nobody runs the code
            for piece in self.history():
                self.executor.replay(piece)

    def run(self, taken: int, is_lost: bool = False) -> None:
        inbox, rest = self.inbox[:taken], self.inbox[taken:]
        world = self.world
        done = episode.run(
            self.instance,
            self.executor,
            [events.decode(events.encode([event]))[0] for event in inbox],
            sequence=len(self.pieces) + 1,
            now=world.now,
            random=Random(1),
            new_execution_id=world.new_id,
            row=self.row,
            start=events.decode(events.encode(self.start)) if not self.pieces else (),
        )
        if is_lost:
            self.revive()
            return
        self.inbox = rest
        commit = done.commit
        if commit is None:
            return
        assert commit.chunk is not None
        self.pieces.append(commit.chunk)
        self.row = commit.state or self.row
        for event in events.decode(commit.chunk):
            world.note(self, event)
        if self.is_entity and commit.next_start is None:
            assert isinstance(self.executor, Entity)
            assert told(self.executor.standing) == told(self.cold().standing)
        for message in commit.messages:
            world.send(message)
        if commit.next_start is not None:
            assert commit.past_kept == 1
            self.begin(events.decode(commit.next_start.event))

    def cold(self) -> Entity:
        executor = self.fresh()
        assert isinstance(executor, Entity)
        for piece in self.history():
            executor.replay(piece)
        return executor


def told(standing: Standing) -> tuple[object, ...]:
    return standing.payload, standing.line.holder, list(standing.line.waiting), standing.delayed


class World:
    def __init__(self, scripts: list[list[list[Any]]]) -> None:
        self.environment = Environment(CODEC, app.activities, app.orchestrators, entities=app.entities)
        self.now = BEGIN
        self._ids = count(1)
        self.actors: dict[str, Actor] = {}
        self.performed: Counter[str] = Counter()
        for n, steps in enumerate(scripts):
            id = f"o{n}"
            self.actors[id] = Actor(self, [ExecutionStarted("script", CODEC.encode(steps), id, self.new_id())])

    def new_id(self) -> str:
        return f"x{next(self._ids)}"

    def send(self, message: Message) -> None:
        actor = self.actors.get(message.instance_id)
        if actor is None:
            if message.start is None:
                return
            actor = self.actors[message.instance_id] = Actor(self, events.decode(message.start.event))
        if message.execution_id in (None, actor.started.execution_id) and not actor.instance.is_finished:
            actor.inbox += events.decode(message.event)

    def note(self, actor: Actor, event: HistoryEvent) -> None:
        """Counts what entities were asked for that adds one; each stands once in a history."""
        is_asked = isinstance(event, EntityOperationSignaled | EntityOperationCalled) and event.event_id == -1
        if is_asked and event.target_instance_id is None and event.operation in ("add", "set"):  # type: ignore[attr-defined]
            self.performed[actor.started.instance_id] += 1

    def movable(self) -> list[Actor]:
        return [actor for actor in self.actors.values() if actor.inbox or not actor.pieces]

    def pass_time(self) -> bool:
        """The next timer has fired; False where there is none."""
        due = [(at, a) for a in self.actors.values() if (at := a.instance.next_due()) is not None]
        if not due:
            return False
        at, actor = min(due, key=lambda pair: pair[0])
        self.now = max(self.now, at)
        fired = [TimerFired(id, when) for id, when in actor.instance.timers.items() if when <= self.now]
        actor.inbox += fired
        return True

    def come_to_rest(self) -> None:
        for _ in range(10_000):
            movable = self.movable()
            if not movable:
                if not self.pass_time():
                    return
                continue
            movable[0].run(len(movable[0].inbox))
        raise AssertionError("the world does not come to rest")


some_ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=3, unique=True)
an_id = st.sampled_from(IDS)
steps = st.one_of(
    st.tuples(st.just("signal"), an_id),
    st.tuples(st.just("later"), an_id, st.integers(-1, 3)),
    st.tuples(st.just("call"), an_id),
    st.tuples(st.just("spoil"), an_id),
    st.tuples(st.just("section"), some_ids, st.sampled_from(["end", "end", "raise"])),
    st.tuples(st.just("wide section"), some_ids),
    st.tuples(st.just("leave open"), some_ids),
)
scripts = st.lists(st.lists(steps.map(list), min_size=1, max_size=5), min_size=1, max_size=5)


@pytest.fixture(autouse=True, scope="module")
def short_histories() -> Iterator[None]:
    before = entity.SNAPSHOT_AFTER_PIECES
    entity.SNAPSHOT_AFTER_PIECES = 4
    yield
    entity.SNAPSHOT_AFTER_PIECES = before


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(scripts, st.data())
def test_whatever_happens_every_operation_counts_once_and_no_lock_stays(
    scripts: list[list[list[Any]]], data: st.DataObject
) -> None:
    world = World(scripts)
    terminated: set[str] = set()
    for _ in range(data.draw(st.integers(0, 60), label="moves")):
        movable = world.movable()
        if not movable:
            break
        actor = data.draw(st.sampled_from(movable), label="who")
        match data.draw(st.sampled_from(["run"] * 8 + ["lose", "lose", "crash", "terminate"]), label="what"):
            case "run":
                actor.run(data.draw(st.integers(min(1, len(actor.inbox)), len(actor.inbox)), label="taken"))
            case "lose":
                actor.run(len(actor.inbox), is_lost=True)
            case "crash":
                actor.revive()
            case "terminate":
                if not actor.is_entity and not actor.instance.is_finished:
                    actor.inbox.append(ExecutionTerminated())
                    terminated.add(actor.started.instance_id)
            case _:
                raise AssertionError
    world.come_to_rest()
    for id, actor in world.actors.items():
        if actor.is_entity:
            standing = actor.cold().standing
            assert standing.line.holder is None, f"{id} is locked by {standing.line.holder}"
            assert not standing.line.waiting
            assert not standing.delayed
            state = CODEC.decode(standing.payload) or {"value": 0}
            assert state == {"value": world.performed[id]}
        else:
            assert actor.instance.is_finished, f"{id} waits for ever"
            assert not actor.instance.locks or actor.row.status.is_finished
            if id not in terminated and not any("raise" in step for step in scripts[int(id[1:])]):
                assert actor.instance.status is Status.COMPLETED, actor.instance.failure
        actor.executor.close()


# ---- the line


def lock(section: str, parent: str = "o") -> EntityLockRequested:
    return EntityLockRequested(-1, section, ["@e@a"], 0, parent, "x")


def called(parent: str, execution: str = "x") -> EntityOperationCalled:
    return EntityOperationCalled(-1, "1", "get", None, None, parent, execution)


def test_who_holds_the_entity_passes_and_all_others_stand_in_line() -> None:
    line = Line()
    assert line.admits(called("b"))
    assert line.admits(lock("s1", "a"))
    assert line.admits(called("a"))
    others: list[EntityOperationCalled | EntityOperationSignaled | EntityLockRequested] = [
        called("b"),
        EntityOperationSignaled(-1, "", "get"),
        called("a", "another execution"),
        lock("s2", "c"),
        called("d"),
    ]
    assert [line.admits(other) for other in others] == [False] * 5
    assert line.release("s1") == others[:4]
    assert line.holder is not None
    assert line.holder.critical_section_id == "s2"
    assert line.release("s2") == others[4:]
    assert line.holder is None


def test_a_release_from_within_the_line_lets_nobody_pass() -> None:
    line = Line()
    line.admits(lock("s1"))
    line.admits(lock("s2"))
    line.admits(called("b"))
    assert line.release("s2") == []
    assert line.release("unknown") == []
    assert line.release("s1") == [called("b")]
    assert line.release("s1") == []


def test_a_long_line_is_not_carried_over_again_and_again() -> None:
    started = ExecutionStarted("@counter", None, "@counter@a", "x")
    environment = Environment(CODEC, {}, Orchestrators(), entities=app.entities)
    executor = Entity(app.entities["counter"], started, environment)
    executor.begin(BEGIN)
    executor.deliver(lock("s1"))
    ends = 0
    for _ in range(1_000):
        executor.deliver(EntityOperationSignaled(-1, "", "add", None, CODEC.encode(1)))
        ends += any(type(action).__name__ == "CompleteOrchestration" for action in executor.take())
    assert ends == 0
    assert executor.standing.backlog == 1_000


def test_a_timer_of_a_former_execution_rings_for_nobody() -> None:
    instance = Instance()
    instance.apply(events.TimerCreated(1, BEGIN + 5 * SECOND))
    (alarm,) = instance.alarms()
    assert instance.rings(alarm)
    assert not instance.rings(alarm._replace(at=BEGIN + SECOND))


# ---- ids


@pytest.mark.parametrize(
    ("text", "name", "key"),
    [
        ("@counter@a", "counter", "a"),
        ("@Counter@A", "counter", "A"),
        ("@mail@ada@example.org", "mail", "ada@example.org"),
    ],
)
def test_an_id_is_read_as_it_is_written(text: str, name: str, key: str) -> None:
    id = EntityInstanceId.parse(text)
    assert (id.entity, id.key, str(id)) == (name, key, f"@{name}@{key}")
    assert EntityInstanceId(name.upper(), key) == id


@pytest.mark.parametrize(
    "text",
    ["", "@", "@@", "@a", "@a@", "@@a", "a@b", "counter", "@a@b\n", "@a/b@c", "@a@\ud800", "@a@" + "x" * 300, None],
)
def test_what_is_no_id_is_refused(text: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        EntityInstanceId.parse(text)


def test_a_start_is_in_every_message_that_may_be_the_first() -> None:
    message = signal("@counter@a", "add", None, None, BEGIN, "x1")
    assert isinstance(message.start, Start)
    assert (message.start.name, message.start.instance_id, message.start.execution_id) == (
        "@counter",
        "@counter@a",
        "x1",
    )
    started = ExecutionStarted("script", None, "o", "x")
    assert [(m.instance_id, m.start) for m in releases({"s": ["@counter@a"]}, started)] == [("@counter@a", None)]
