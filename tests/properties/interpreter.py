"""Programs of the grammar, run by the engine: one app for each program, and the world outside of it.

Whatever an orchestrator does gets a label: who does it, in which execution, and a number that counts up. So each run of a program gives the same
label to the same thing, with an engine or without one.

The world outlives workers. It knows which activities have run, and who was first where several could be (`choices`), which the model cannot know.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, TypeAlias, assert_never

from replayflow import (
    ActivityContext,
    App,
    EntityContext,
    OrchestrationContext,
    RetryPolicy,
    Saga,
    Task,
    Transaction,
    race,
    when_all,
    when_any,
)
from replayflow.core.tasks import Race, WhenAll, WhenAny
from replayflow.testing.clock import BEGIN
from tests.properties import grammar
from tests.properties.grammar import Arrival, Program, Statement, nodes

SHARED = "@tally@shared"
ROOT = "p"
PAGE = 2
CREATE = "CREATE TABLE IF NOT EXISTS ran (label TEXT PRIMARY KEY, count INTEGER NOT NULL)"
COUNT = "INSERT INTO ran VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count"
Pages: TypeAlias = dict[tuple[int, frozenset[int]], Callable[..., Any]]


@dataclass
class World:
    """What is outside of the engine, and outlives it."""

    attempts: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Of each activity, by its label, the attempts that have run."""
    undone: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Of each saga, by its label, the numbers of the actions that were undone by an activity."""
    choices: dict[str, int | bool] = field(default_factory=dict)
    """Which task of a composite was the first, by the composite's label; and which `cancel` came in time. What was seen last counts: a worker
    that is killed has seen what never was."""
    late: list[Arrival] = field(default_factory=list)
    """What has come besides the program's arrivals, since chance had it that nothing of those would end a wait."""
    is_mended: bool = False
    """Whether no activity fails any more."""


def app_of(program: Program, world: World) -> App:
    """The program as an app whose orchestrator is `main`."""
    app = App()
    children = [node for node in nodes(program) if isinstance(node, grammar.Child)]

    def done(label: str, fails: int, attempt: int) -> str:
        world.attempts[label].append(attempt)
        if attempt <= fails and not world.is_mended:
            raise ValueError(f"{label}, attempt {attempt}")
        return f"r{label}"

    @app.activity(name="async")
    async def work(ctx: ActivityContext, given: tuple[str, int]) -> str:
        return done(*given, ctx.attempt)

    @app.activity(name="thread")
    def work_in_thread(ctx: ActivityContext, given: tuple[str, int]) -> str:
        return done(*given, ctx.attempt)

    @app.activity(name="transaction", transactional=True)
    def work_in_transaction(tx: Transaction, given: tuple[str, int]) -> str:
        label, fails = given
        tx.execute(CREATE)
        [(count,)] = tx.execute(COUNT, (label,))
        done(label, fails, tx.attempt)
        return f"r{label}" if count == 1 else f"{label} was done {count} times"

    @app.activity
    async def undo(given: tuple[str, int]) -> None:
        saga, number = given
        world.undone[saga].append(number)

    @app.activity
    async def item(given: tuple[int, bool]) -> int:
        return item_result(*given)

    def item_result(number: int, fails: bool) -> int:
        if fails and not world.is_mended:
            raise ValueError(f"item {number}")
        return number

    @app.orchestrator
    def item_child(ctx: OrchestrationContext, given: tuple[int, bool]) -> int:
        return item_result(*given)

    pages: Pages = {}
    for node in nodes(program):
        if isinstance(node, grammar.Map) and node.kind == "pages" and (node.count, node.failing) not in pages:
            page = pages[node.count, node.failing] = page_of(node.count, node.failing)
            app.activity(name=f"pages {len(pages)}")(page)

    @app.entity
    def tally(ctx: EntityContext[int | None], amount: int = 0) -> int:
        if ctx.operation == "add":
            ctx.state = (ctx.state or 0) + amount
        elif ctx.operation != "get":
            ctx.state = 1_000_000  # what failed has changed nothing
            raise LookupError(ctx.operation)
        return ctx.state or 0

    @app.orchestrator
    def main(ctx: OrchestrationContext, given: tuple[int, list[Any]]) -> Any:
        number, seen = given
        walk = Walk(ctx, Compiled(world, children, pages), ROOT, number, seen)
        yield from walk.body(program.executions[number])
        if number + 1 < len(program.executions):
            ctx.continue_as_new([number + 1, walk.seen])
            return None
        return walk.seen

    @app.orchestrator
    def below(ctx: OrchestrationContext, given: tuple[int, str]) -> Any:
        number, scope = given
        walk = Walk(ctx, Compiled(world, children, pages), scope, 0, [])
        yield from walk.body(children[number].body)
        return walk.seen

    return app


def page_of(count: int, failing: frozenset[int]) -> Callable[..., Any]:
    """An activity that gives the items of a map, a few at a time."""

    async def page(cursor: int | None) -> tuple[list[tuple[int, bool]], int | None]:
        begin = cursor or 0
        end = min(begin + PAGE, count)
        return [(n, n in failing) for n in range(begin, end)], None if end == count else end

    return page


def own_entity(scope: str) -> str:
    return f"@tally@{scope}"


class Compiled(NamedTuple):
    """What the executions of a program have in common."""

    world: World
    children: list[grammar.Child]
    pages: Pages


class Walk:
    """One execution of an orchestrator on its way through the program."""

    def __init__(
        self,
        ctx: OrchestrationContext,
        compiled: Compiled,
        scope: str,
        execution: int,
        seen: list[Any],
    ) -> None:
        self.ctx = ctx
        self.world = compiled.world
        self.compiled = compiled
        self.scope = scope
        self.execution = execution
        self.seen = seen
        self.kept: list[Task[Any]] = []
        self.own = own_entity(scope)
        self._count = 0
        self._labels: dict[int, str] = {}
        self._made: list[Task[Any]] = []  # so that no two have the same `id()`

    def label(self) -> str:
        self._count += 1
        return f"{self.scope}.{self.execution}.{self._count}"

    # ---- statements

    def body(self, statements: tuple[Statement, ...]) -> Generator[Any, Any, None]:
        for statement in statements:
            yield from self.run(statement)

    def run(self, statement: Statement) -> Generator[Any, Any, None]:
        ctx, seen = self.ctx, self.seen
        match statement:
            case grammar.Do(task, is_from):
                yield from self.see(self.make(task), is_from)
            case grammar.Start(task):
                self.kept.append(self.make(task))
            case grammar.Later():
                if self.kept:
                    yield from self.see(self.kept.pop(0))
            case grammar.Cancel():
                if self.kept:
                    label = self.label()
                    was_in_time = self.kept.pop().cancel()
                    self.chosen(label, was_in_time)
                    seen.append(["cancelled", was_in_time])
            case grammar.Look():
                seen.append(self.look())
            case grammar.Record(fails):
                seen.append(ctx.record(self.world_says, fails, name="world"))
            case grammar.Status(value):
                ctx.set_custom_status(value)
            case grammar.Signal(count):
                for _ in range(count):
                    ctx.signal_entity(self.own, "add", 1)
                    ctx.signal_entity(SHARED, "add", 1)
            case grammar.Locked(count):
                yield from self.locked(count)
            case grammar.Fail():
                raise ValueError("as the program says")
            case grammar.Loop(count, body):
                for _ in range(count):
                    yield from self.body(body)
            case grammar.Try(body, caught, after):
                try:
                    yield from self.body(body)
                except Exception as error:
                    seen.append(["caught", type(error).__name__])
                    yield from self.body(caught)
                finally:
                    yield from self.body(after)
            case grammar.Saga(actions, by, body):
                yield from ctx.saga(partial(self.guarded, actions, by, body, self.label()))
            case grammar.Patched(name, new, old):
                yield from self.body(new if ctx.patched(name) else old)
            case _:
                assert_never(statement)

    def see(self, task: Task[Any], is_from: bool = False) -> Generator[Any, Any, None]:
        try:
            if is_from:
                yield from task
            else:
                yield task
        finally:
            self.note_winners()
        self.seen.append(shown(task))

    def look(self) -> list[Any]:
        """The time since the beginning, in milliseconds; and whether chance is the same on every replay."""
        ctx = self.ctx
        chances = [ctx.random.random(), ctx.new_uuid()]
        passed = ctx.current_utc_datetime - BEGIN
        return [passed / timedelta(milliseconds=1), ctx.record(list, chances, name="chances") == chances]

    def world_says(self, fails: bool) -> str:
        if fails:
            raise ValueError("nothing to be read")
        return "replayed" if self.ctx.is_replaying else "first"

    def locked(self, count: int) -> Generator[Any, Any, None]:
        ctx = self.ctx
        with (yield ctx.lock_entities([SHARED, self.own])):
            before = yield ctx.call_entity(SHARED, "get")
            for _ in range(count):
                yield ctx.call_entity(SHARED, "add", 1)
            now = yield ctx.call_entity(SHARED, "get")
            self.seen.append([now - before, (yield ctx.call_entity(self.own, "add", 1))])

    def guarded(
        self, actions: tuple[grammar.Act, ...], by: str, body: tuple[Statement, ...], label: str, saga: Saga
    ) -> Generator[Any, Any, None]:
        for number, action in enumerate(actions):
            task = self.act(action)
            if by == "activity":
                yield from self.see(saga.run(task, "undo", undo_input=(label, number)))
            else:
                yield from self.see(saga.run(task, self.undoing(number)))
        yield from self.body(body)

    def undoing(self, number: int) -> Callable[[], Generator[Any, Any, None]]:
        def undo() -> Generator[Any, Any, None]:
            count = yield self.ctx.call_entity(self.own, "add", 1)
            self.seen.append(["undone", number, count])

        return undo

    # ---- tasks

    def make(self, node: grammar.Task) -> Task[Any]:
        ctx = self.ctx
        match node:
            case grammar.Act():
                return self.act(node)
            case grammar.Timer(seconds, is_absolute):
                after = timedelta(seconds=seconds)
                return ctx.create_timer(BEGIN + after if is_absolute else after)
            case grammar.Wait(name, timeout):
                return ctx.wait_for_external_event(
                    name, timeout=None if timeout is None else timedelta(seconds=timeout)
                )
            case grammar.Child():
                return ctx.call_sub_orchestrator("below", (self.compiled.children.index(node), self.label()))
            case grammar.Call(fails):
                return ctx.call_entity(self.own, "fail" if fails else "add", 1)
            case grammar.Map(kind, count, failing, is_tolerant, width, on_error):
                return ctx.map(
                    "item_child" if kind == "children" else "item",
                    self.compiled.pages[count, failing]
                    if kind == "pages"
                    else [(n, n in failing) for n in range(count)],
                    concurrency=width,
                    tolerated_failures=1.0 if is_tolerant else 0,
                    on_item_error=on_error,
                )
            case grammar.Several(kind, below):
                label = self.label()
                tasks = [self.make(one) for one in below]
                made: Task[Any]
                if kind == "any":
                    made = when_any(tasks)
                elif kind == "race":
                    made = race(tasks)
                else:
                    made = when_all(tasks, fail_fast=kind == "fast")
                self._labels[id(made)] = label
                self._made.append(made)
                return made
            case _:
                assert_never(node)

    def act(self, node: grammar.Act) -> Task[Any]:
        policy = RetryPolicy(max_attempts=node.attempts, first_interval=timedelta(seconds=node.pause))
        return self.ctx.call_activity(node.how, (self.label(), node.fails), retry=policy if node.attempts > 1 else None)

    # ---- what the model cannot know

    def note_winners(self) -> None:
        """Who was first, also where nobody has asked: who lost a race hears no event any more."""
        for made in self._made:
            if isinstance(made, WhenAny | Race) and made._winner is not None:
                self.chosen(self._labels[id(made)], made.children.index(made._winner))

    def chosen(self, label: str, choice: int | bool) -> None:
        if not self.ctx._decisions.is_sealed:  # else the generator is only being thrown away
            self.world.choices[label] = choice


def shown(task: Task[Any]) -> Any:
    """What a complete task came to, as a payload: of composites with who was first."""
    if isinstance(task, WhenAll):
        return [shown(child) for child in task.children]
    if isinstance(task, WhenAny | Race):
        winner = task._winner
        assert winner is not None
        first = task.children.index(winner)
        return [first, ["failed", type(winner.exception).__name__] if winner.is_failed else shown(winner)]
    value = task.result
    if hasattr(value, "failures"):
        return [value.results, [failure.index for failure in value.failures]]
    return value
