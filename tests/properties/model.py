"""What a program comes to, found without the engine: a small simulation of one orchestrator, its tasks and its time.

Time is counted in milliseconds since the beginning. Nothing takes time but timers, pauses between attempts, and waiting for events. Of a task it is
known when it will be complete (`due`), but for a wait, which learns it when an event comes. At one moment several may become complete, and nobody
knows in which order: there, and only there, the model asks what the engine has chosen (`choices`), and checks that it was free to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, assert_never

from tests.properties import grammar
from tests.properties.grammar import Arrival, Program, Statement
from tests.properties.interpreter import ROOT

Choices: TypeAlias = Mapping[str, int | bool]
UNDECIDED: Choices = {}


class Missing(Exception):
    """The program would wait for ever: nothing but an event of that name can help."""

    def __init__(self, name: str, now: int) -> None:
        super().__init__(f"an event {name!r} is missing from {now} ms on")
        self.name = name
        self.now = now


class Raised(Exception):
    """The program raises an error: one of those with these names."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(", ".join(sorted(names)))
        self.names = names


@dataclass(frozen=True)
class OneOf:
    """The name of one of several errors; of which nobody can say."""

    names: frozenset[str]

    def __eq__(self, other: object) -> bool:
        return other in self.names if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.names)


@dataclass(frozen=True)
class Expected:
    """What a program comes to: what it has seen, or the errors of which one ends it."""

    seen: list[Any] | None
    failure: frozenset[str] | None
    custom_status: int | None
    counted: int
    """The count of the root's own entity."""
    undone: dict[str, list[int]]
    """As the world has it, but for what the undoing was repeated."""
    ended_at: int
    is_free: bool
    """Whether anything was left to chance."""


@dataclass(eq=False)
class Task:
    """A task: `due` is when it is complete, as far as is known now."""

    due: int | None
    value: Any = None
    error: frozenset[str] | None = None
    is_sure: bool = False
    """Whether the code knows that it is complete."""
    order: int = 0
    """Of those that carried events complete: which of them it was, from 1."""
    is_gone: bool = False
    label: str = ""
    kind: str = ""
    below: list[Task] = field(default_factory=list)
    made_at: int = 0
    name: str = ""


def expected(program: Program, choices: Choices) -> Expected:
    """What the program comes to, where chance had it as in `choices`.

    Raises:
        AssertionError: chance has had it as it cannot have been.
        Missing: it waits for ever.
    """
    outcome = Outcome(choices)
    root = Execution(outcome, ROOT, 0, list(program.arrivals), defaultdict(list))
    failure: frozenset[str] | None = None
    for number, statements in enumerate(program.executions):
        root = root.next(number)
        try:
            root.body(statements)
        except Raised as raised:
            failure = raised.names
            break
    root.end()
    return Expected(
        None if failure else root.seen,
        failure,
        root.status,
        outcome.counts[ROOT],
        {label: numbers for label, numbers in outcome.undone.items() if numbers},
        root.now,
        outcome.is_free,
    )


def with_what_is_missing(program: Program, choices: Choices = UNDECIDED, since: int = 0) -> Program:
    """The program with an event more, after that time, for each wait that would have no end.

    What else chance may decide is not foreseen: where a wait has no end for that, the driver asks again, with what it has decided.
    """
    while True:
        try:
            expected(program, choices)
        except Missing as missing:
            at = max(missing.now, since, *(one.at for one in program.arrivals)) // 1000 * 1000 + 1000
            arrival = Arrival(at + len(program.arrivals) + 1, missing.name)
            program = replace(program, arrivals=(*program.arrivals, arrival))
        else:
            return program


class Outcome:
    """What all the instances of a run have in common."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.undone: defaultdict[str, list[int]] = defaultdict(list)
        self.is_free = False

    def choice(self, label: str, allowed: list[Any], *, is_seen: bool = True) -> Any:
        """How chance had it; the first that is allowed where it never came to that, since nobody waited so long."""
        if len(allowed) > 1:
            self.is_free = True
        chosen = self.choices.get(label, allowed[0])
        if not is_seen:
            return chosen if chosen in allowed else allowed[0]
        assert chosen in allowed, f"{label}: {chosen!r} was chosen, and it can only have been one of {allowed}"
        return chosen


class Execution:
    """One execution of an orchestrator, run from event to event."""

    def __init__(
        self,
        outcome: Outcome,
        scope: str,
        now: int,
        arrivals: list[Arrival],
        buffered: defaultdict[str, list[int]],
        number: int = 0,
        seen: list[Any] | None = None,
        status: int | None = None,
    ) -> None:
        self.outcome = outcome
        self.scope = scope
        self.now = now
        self.arrivals = arrivals
        self.buffered = buffered
        self.carried: list[tuple[int, str]] = []
        """What the execution before left: it comes when the code waits for the first time, one event at a time, as in the Durable Task Framework."""
        self.number = number
        self.seen: list[Any] = [] if seen is None else seen
        self.status = status
        self.kept: list[Task] = []
        self._waiting: list[Task] = []
        self._races: list[Task] = []
        self._decided: list[Task] = []
        self._begun: list[tuple[str, int, str]] = []
        """What the innermost saga would undo: of which saga it is, its number there, and what undoes it."""
        self._count = self._carried = 0

    def next(self, number: int) -> Execution:
        """The execution that continues this one."""
        self.end()
        heir = Execution(
            self.outcome, self.scope, self.now, self.arrivals, defaultdict(list), number, self.seen, self.status
        )
        buffered = [(at, name) for name, numbers in self.buffered.items() for at in numbers]
        heir.carried = sorted([*self.carried, *buffered])
        return heir

    def end(self) -> None:
        """Whether a race that is won at this very moment was decided before it, nobody knows, and so not what it has cancelled."""
        if any(race.due == self.now and not self.is_complete_for_sure(race) for race in self._decided):
            self.outcome.is_free = True

    def label(self) -> str:
        self._count += 1
        return f"{self.scope}.{self.number}.{self._count}"

    def add_to_own(self) -> int:
        self.outcome.counts[self.scope] += 1
        return self.outcome.counts[self.scope]

    # ---- statements

    def body(self, statements: Iterable[Statement]) -> None:
        for statement in statements:
            self.run(statement)

    def run(self, statement: Statement) -> None:
        match statement:
            case grammar.Do(task, _):
                self.see(self.make(task))
            case grammar.Start(task):
                self.kept.append(self.make(task))
            case grammar.Later():
                if self.kept:
                    self.see(self.kept.pop(0))
            case grammar.Cancel():
                if self.kept:
                    self.cancel(self.kept.pop(), self.label())
            case grammar.Look():
                self.seen.append([self.now, True])
            case grammar.Record(fails):
                if fails:
                    raise Raised(frozenset({"RecordError"}))
                self.seen.append("first")
            case grammar.Status(value):
                self.status = value
            case grammar.Signal(count):
                for _ in range(count):
                    self.add_to_own()
            case grammar.Locked(count):
                self.wait_no_time()
                self.seen.append([count, self.add_to_own()])
            case grammar.Fail():
                raise Raised(frozenset({"ValueError"}))
            case grammar.Loop(count, body):
                for _ in range(count):
                    self.body(body)
            case grammar.Try(body, caught, after):
                self.attempt(body, caught, after)
            case grammar.Saga(actions, by, body):
                self.saga(actions, by, body)
            case grammar.Patched(_, new, _):
                self.body(new)
            case _:
                assert_never(statement)

    def attempt(self, body: tuple[Statement, ...], caught: tuple[Statement, ...], after: tuple[Statement, ...]) -> None:
        """No `finally` of the model's own: what it ends with for want of an event is no error of the program."""
        error: Raised | None = None
        try:
            try:
                self.body(body)
            except Raised as raised:
                self.seen.append(["caught", OneOf(raised.names)])
                self.body(caught)
        except Raised as raised:
            error = raised
        self.body(after)
        if error is not None:
            raise error

    def see(self, task: Task) -> None:
        self.wait_for(task)
        value, error = self.end_of(task)
        if error is not None:
            raise Raised(error)
        self.seen.append(value)

    def saga(self, actions: tuple[grammar.Act, ...], by: str, body: tuple[Statement, ...]) -> None:
        """One that ends well inside another is undone with that one."""
        label = self.label()
        outer, self._begun = self._begun, []
        try:
            for number, action in enumerate(actions):
                task = self.make(action)
                self._begun.append((label, number, by))
                self.see(task)
            self.body(body)
        except Raised:
            self.undo()
            self._begun = outer
            raise
        self._begun = outer + self._begun

    def undo(self) -> None:
        for label, number, by in reversed(self._begun):
            self.wait_no_time()
            if by == "activity":
                self.outcome.undone[label].append(number)
            else:
                self.seen.append(["undone", number, self.add_to_own()])

    def cancel(self, task: Task, label: str) -> None:
        if self.is_complete_for_sure(task):
            allowed = [False]
        elif task.due is not None and task.due <= self.now:
            allowed = [True, False]
        else:
            allowed = [True]
        was_in_time = self.outcome.choice(label, allowed)
        if was_in_time:
            self.give_up(task, self.now)
        self.seen.append(["cancelled", was_in_time])

    # ---- tasks

    def make(self, node: grammar.Task) -> Task:
        now = self.now
        match node:
            case grammar.Act(fails, attempts, pause, _):
                label = self.label()
                retries = min(fails, attempts - 1)
                due = now + sum(pause * 1000 * 2**n for n in range(retries))
                return Task(due, f"r{label}", frozenset({"ActivityError"}) if fails >= attempts else None)
            case grammar.Timer(seconds, is_absolute):
                return Task(max(now, seconds * 1000) if is_absolute else now + seconds * 1000)
            case grammar.Wait(name, timeout):
                return self.wait(name.casefold(), timeout)
            case grammar.Child(body):
                return self.child(body)
            case grammar.Call(fails):
                return Task(now, None, frozenset({"EntityError"})) if fails else Task(now, self.add_to_own())
            case grammar.Map(kind, count, failing, is_tolerant, _, _):
                lost = sorted(n for n in failing if n < count)
                results = [None if n in failing else n for n in range(count)]
                is_failed = bool(lost) and not is_tolerant
                return Task(
                    now,
                    [results, lost],
                    frozenset({"MapError"}) if is_failed else None,
                    is_sure=count == 0 and kind != "pages",
                )
            case grammar.Several(kind, below):
                label = self.label()
                made = Task(None, label=label, kind=kind, below=[self.make(one) for one in below], made_at=now)
                if kind == "race":
                    self._races.append(made)
                self.look_at(made)
                self.settle_races(now, is_new=True)
                return made
            case _:
                assert_never(node)

    def wait(self, name: str, timeout: int | None) -> Task:
        if self.buffered[name]:
            return Task(self.now, self.buffered[name].pop(0), is_sure=True)
        due = None if timeout is None else self.now + timeout * 1000
        task = Task(due, error=frozenset({"TimeoutError"}), name=name)
        self._waiting.append(task)
        return task

    def child(self, body: tuple[Statement, ...]) -> Task:
        execution = Execution(self.outcome, self.label(), self.now, [], defaultdict(list))
        try:
            execution.body(body)
        except Raised:
            return Task(execution.now, error=frozenset({"SubOrchestrationError"}))
        return Task(execution.now, execution.seen)

    # ---- time

    def wait_for(self, task: Task) -> None:
        """It is complete, and so is what was due before. For what is complete the code does not wait."""
        while self.carried and not self.is_complete_for_sure(task):
            self.deliver_carried(*self.carried.pop(0))
        self.look_at(task)
        while not self.is_complete_for_sure(task):
            self.step_towards(task)

    def step_towards(self, task: Task) -> None:
        """Time goes on until the next event has come, or the task is complete."""
        self.look_at(task)
        at = None if task.due is None else max(task.due, self.now)
        if self.arrivals and (at is None or self.arrivals[0].at < at):
            self.deliver(self.arrivals.pop(0))
            return
        if at is None:
            raise Missing(next(name for name in names_in(task)), self.now)
        self.settle_races(at)
        self.now = at
        task.is_sure = True

    def wait_no_time(self) -> None:
        """The code waits for an entity or for an activity: what the execution before left comes meanwhile."""
        while self.carried:
            self.deliver_carried(*self.carried.pop(0))
        self.settle_races(self.now)

    def deliver(self, arrival: Arrival) -> None:
        self.settle_races(arrival.at)
        name = arrival.name.casefold()
        number = arrival.at
        for task in self._waiting:
            if task.name == name and not task.is_gone and (task.due is None or task.due > arrival.at):
                task.due, task.error, task.value = arrival.at, None, number
                self._waiting.remove(task)
                break
        else:
            self.buffered[name].append(number)

    def deliver_carried(self, number: int, name: str) -> None:
        for task in self._waiting:
            if task.name == name and not task.is_gone:
                self._carried += 1
                task.due, task.error, task.value, task.is_sure, task.order = self.now, None, number, True, self._carried
                self._waiting.remove(task)
                self.settle_races(self.now, is_new=True)
                break
        else:
            self.buffered[name].append(number)

    def settle_races(self, until: int, *, is_new: bool = False) -> None:
        """The losers of races that are decided by then wait for nothing any more."""
        for made in list(self._races):
            self.look_at(made)
            if made.is_gone:
                self._races.remove(made)
            elif made.due is not None and (made.due <= until if not is_new else self.is_complete_for_sure(made)):
                self._races.remove(made)
                self._decided.append(made)
                winner = made.below[self.first(made, is_seen=False)]
                for loser in made.below:
                    if loser is not winner:
                        self.give_up(loser, made.due)

    def give_up(self, task: Task, at: int | None) -> None:
        """The code gives the task up: what of it is not complete waits for nothing any more. Of what is due just then, nobody knows whether it is."""
        if task.due == at and not task.is_sure:
            self.outcome.is_free = True
        task.is_gone = True
        if task.name and not (task.error is None and task.due is not None):
            task.due = None
        for below in task.below:
            self.give_up(below, at)

    def look_at(self, task: Task) -> None:
        """When a composite is complete, as far as is known now."""
        if not task.kind:
            return
        for one in task.below:
            self.look_at(one)
        dues = [None if one.due is None else max(one.due, task.made_at) for one in task.below]
        known = [due for due in dues if due is not None]
        if task.kind in ("any", "race"):
            task.due = min(known, default=None)
            return
        task.due = None if len(known) < len(dues) else max(known, default=task.made_at)
        if task.kind == "fast":
            failed = [due for one, due in zip(task.below, dues, strict=True) if due is not None and self.fails(one)]
            task.due = min([*failed, *([] if task.due is None else [task.due])], default=None)

    def fails(self, task: Task) -> bool:
        return self.end_of(task, is_seen=False)[1] is not None

    def end_of(self, task: Task, *, is_seen: bool = True) -> tuple[Any, frozenset[str] | None]:
        """What the task comes to, at its due: a value, or the names of errors."""
        if not task.kind:
            return task.value, task.error
        if task.kind in ("any", "race"):
            first = self.first(task, is_seen=is_seen)
            value, error = self.end_of(task.below[first], is_seen=is_seen)
            if error is not None and task.kind == "race":
                return None, error
            return [first, value if error is None else ["failed", OneOf(error)]], None
        over = [one for one in task.below if one.due is not None and task.due is not None and one.due <= task.due]
        ends = [self.end_of(one, is_seen=is_seen) for one in over]
        failures = [error for _, error in ends if error is not None]
        if not failures:
            return [value for value, _ in ends], None
        if task.kind == "all":
            return None, failures[0]
        self.outcome.is_free |= len(failures) > 1
        return None, frozenset[str]().union(*failures)

    def first(self, task: Task, *, is_seen: bool) -> int:
        """Which of the tasks was the first."""
        known = [n for n, one in enumerate(task.below) if self.is_complete_from_the_start(one)]
        sure = sorted(known, key=lambda n: self.order(task.below[n]))
        due = task.due
        tied = [n for n, one in enumerate(task.below) if one.due is not None and max(one.due, task.made_at) == due]
        choice: int = self.outcome.choice(task.label, sure[:1] or tied, is_seen=is_seen)
        return choice

    def order(self, task: Task) -> int:
        """When it was complete, among those that carried events have completed; 0 for one that was so from the start."""
        if not task.kind:
            return task.order
        each = [self.order(one) for one in task.below if self.is_complete_from_the_start(one)]
        return min(each) if task.kind in ("any", "race") else max(each, default=0)

    def is_complete_from_the_start(self, task: Task) -> bool:
        if not task.kind:
            return task.is_sure
        each = [self.is_complete_from_the_start(one) for one in task.below]
        return any(each) if task.kind in ("any", "race") else all(each)

    def is_complete_for_sure(self, task: Task) -> bool:
        if not task.kind or task.is_sure:
            return task.is_sure or (task.due is not None and task.due < self.now)
        each = [self.is_complete_for_sure(one) for one in task.below]
        return any(each) if task.kind in ("any", "race") else all(each)


def names_in(task: Task) -> Iterable[str]:
    if task.name and task.due is None and not task.is_gone:
        yield task.name
    for below in task.below:
        yield from names_in(below)
