"""Tasks: what an orchestrator yields. Atomic ones stand for work that was asked for; composites stand for several of them.

1. A task completes once, with a value or with an error, and never changes afterwards.
2. Completing a task costs O(1) for each composite that directly has it: waiting for many is a countdown, nothing is scanned.
3. Completion travels upwards through composites with a worklist, never by recursion, so that nesting has no depth limit.
4. A composite may be built of tasks that are complete already, may be empty (`when_all`), and may share its children with others.

Tasks are msgspec structs: one is made for everything that is asked for, and msgspec makes it in C.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from replayflow.errors import (
    FailureDetails,
    InvalidArgumentError,
    NotATaskError,
    OrchestratorError,
    TaskCanceledError,
    TaskError,
)

OPEN: Any = object()
"""The value of a task that is not complete. To set the value completes it: one field and not two, since to set one of a struct is dear."""
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Task(Struct, Generic[T_co], eq=False, kw_only=True):
    """Work that an orchestrator waits for by yielding it: `value = yield task`, or `value = yield from task`, which type checkers understand."""

    _value: Any = OPEN
    _error: BaseException | None = None
    # Most tasks have no composite above them and nearly all others have one: a list is made for the second.
    _parents: Composite[Any] | list[Composite[Any]] | None = None

    def __iter__(self) -> Generator[Task[Any], Any, T_co]:
        result: T_co = yield self
        return result

    @property
    def is_complete(self) -> bool:
        return self._value is not OPEN

    @property
    def is_failed(self) -> bool:
        return self._error is not None

    @property
    def exception(self) -> BaseException | None:
        """The error that the task failed with; None where it succeeded or is not complete."""
        return self._error

    @property
    def result(self) -> T_co:
        """The task's value.

        Raises:
            OrchestratorError: the task is not complete; yield it first.
            Exception: the error that the task failed with.
        """
        if self._error is not None:
            raise self._error
        if self._value is OPEN:
            raise OrchestratorError(
                f"{self!r} has no result yet: yield it, or a composite that has it, before reading `.result`"
            )
        value: T_co = self._value
        return value

    def cancel(self) -> bool:
        """Give up waiting for the task. Afterwards it is complete, and asking for its result raises `TaskCanceledError`.

        Returns False, and changes nothing, where the task was complete already.
        """
        if self._value is not OPEN:
            return False
        # Complete first: the ends of a composite's children must find it decided.
        complete(self, None, TaskCanceledError(f"{self!r} was cancelled by the orchestrator"))
        self._abandon()
        return True

    def _abandon(self) -> None:
        """Tell whoever works on it that nobody waits any longer."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state()}>"

    def _state(self) -> str:
        return "failed" if self._error is not None else "open" if self._value is OPEN else "complete"


Orchestration: TypeAlias = Generator[Task[Any], Any, T]
"""What an orchestrator function returns: `def checkout(ctx, order) -> Orchestration[Receipt]`."""


def complete(task: Task[Any], value: object, error: BaseException | None = None) -> None:
    """The task is complete with the value or the error, and so is every composite that this completes."""
    task._value = value
    task._error = error
    parents = task._parents
    if parents is None:
        return
    task._parents = None
    waiting: list[tuple[Composite[Any], Task[Any]]] = []
    _add(waiting, parents, task)
    while waiting:
        composite, child = waiting.pop()
        if composite._value is not OPEN or not composite._is_decided_by(child):
            continue
        composite._settle()
        parents, composite._parents = composite._parents, None
        if parents is not None:
            _add(waiting, parents, composite)


def _add(
    waiting: list[tuple[Composite[Any], Task[Any]]], parents: Composite[Any] | list[Composite[Any]], child: Task[Any]
) -> None:
    if type(parents) is list:
        waiting.extend((parent, child) for parent in reversed(parents))
    else:
        waiting.append((parents, child))  # type: ignore[arg-type]


class Composite(Task[T_co]):
    """A task made of others."""

    children: list[Task[Any]]

    def __post_init__(self) -> None:
        for child in self.children:
            if child._value is OPEN:
                above = child._parents
                if above is None:
                    child._parents = self
                elif type(above) is list:
                    above.append(self)
                else:
                    child._parents = [above, self]  # type: ignore[list-item]

    def _is_decided_by(self, child: Task[Any]) -> bool:
        """Takes note that the child is complete; says whether this completes the composite."""
        raise NotImplementedError

    def _settle(self) -> None:
        """Takes the value, or None and the error, from the children."""
        raise NotImplementedError

    def _abandon(self) -> None:
        waiting: list[Task[Any]] = list(reversed(self.children))
        while waiting:
            task = waiting.pop()
            if isinstance(task, Composite):
                if task._value is OPEN:
                    # Before its children go: a race among them would find itself decided, and cancel what is below it by recursion.
                    complete(task, None, TaskCanceledError(f"{task!r} was cancelled by the orchestrator"))
                waiting.extend(reversed(task.children))
            else:
                task.cancel()


class WhenAll(Composite[list[T]]):
    _fail_fast: bool
    _missing: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        failed = False
        for child in self.children:
            if child._value is OPEN:
                self._missing += 1
            elif child._error is not None:
                failed = True
        if not self._missing or (failed and self._fail_fast):
            self._settle()

    def _is_decided_by(self, child: Task[Any]) -> bool:
        # A task that stands in the list twice was registered, and reports, twice.
        self._missing -= 1
        return self._missing == 0 or (self._fail_fast and child._error is not None)

    def _settle(self) -> None:
        errors = [child._error for child in self.children if child._error is not None]
        if not errors:
            self._value = [child._value for child in self.children]
            return
        self._value, self._error = None, errors[0]
        if isinstance(errors[0], TaskError):
            errors[0].failures = errors


class _First(Composite[T]):
    """Decided by the first child that completes; of those that were complete from the start, by the first in the list."""

    _winner: Task[Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._winner = next((child for child in self.children if child._value is not OPEN), None)
        if self._winner is not None:
            self._settle()

    def _is_decided_by(self, child: Task[Any]) -> bool:
        self._winner = child
        return True


class WhenAny(_First[Task[T]]):
    def _settle(self) -> None:
        self._value = self._winner


class Race(_First[T]):
    def _settle(self) -> None:
        winner = self._winner
        assert winner is not None  # noqa: S101 - set by whatever decided the race
        self._value, self._error = winner._value, winner._error
        for child in self.children:
            if child is not winner:
                child.cancel()


def when_all(tasks: Iterable[Task[T]], *, fail_fast: bool = False) -> Task[list[T]]:
    """A task that is complete when all of them are; its result has theirs, in order. Of no tasks it is complete at once, with [].

    Where some fail, it raises the first failure in list order, whose `.failures` has every one; it waits for all before it does, or with
    `fail_fast` raises as soon as one has failed.
    """
    return WhenAll(_tasks(tasks, "when_all"), fail_fast)


def when_any(tasks: Iterable[Task[T]]) -> Task[Task[T]]:
    """A task that is complete when one of them is; its result is that task, failed or not. The others go on.

    Raises:
        InvalidArgumentError: there is nothing to wait for.
    """
    return WhenAny(_some(tasks, "when_any"))


def race(tasks: Iterable[Task[T]]) -> Task[T]:
    """A task that ends as the first of them ends, with its value or its error; the others are cancelled.

    Raises:
        InvalidArgumentError: there is nothing to wait for.
    """
    return Race(_some(tasks, "race"))


def _some(tasks: Iterable[Task[T]], where: str) -> list[Task[T]]:
    children = _tasks(tasks, where)
    if not children:
        raise InvalidArgumentError(f"{where}([]) would wait for ever: give it at least one task")
    return children


def _tasks(tasks: Iterable[Task[T]], where: str) -> list[Task[T]]:
    if isinstance(tasks, Task):
        raise NotATaskError(f"{where}(...) takes a list of tasks, and was given one task: {where}([{tasks!r}])")
    children = list(tasks)
    for i, child in enumerate(children):
        if type(child) is not ActivityTask and not isinstance(child, Task):
            raise NotATaskError(
                f"{where}(...): item {i} is {child!r:.80}, which is no task; ctx.call_activity and its kin return tasks"
            )
    return children


class Ledger(Protocol):
    """Whose task it is: `decisions.Decisions`, as tasks know it. One method a kind of task that nobody waits for any longer."""

    def abandon_task(self, task: Pending[Any]) -> None: ...
    def abandon_timer(self, task: TimerTask) -> None: ...
    def abandon_event(self, task: EventTask[Any]) -> None: ...
    def abandon_entity_call(self, task: Pending[Any]) -> None: ...
    def abandon_section(self, task: Pending[Any]) -> None: ...


class Pending(Task[T_co]):
    """A task that stands for one thing asked for: `id` is its action id, `name` what was asked for, `decode` makes its value from a payload.

    `ledger` is that of the execution to which it belongs.
    """

    id: int
    name: str
    decode: Callable[..., Any] | None
    ledger: Ledger
    predicate: Callable[[FailureDetails], bool] | None = None
    label: ClassVar[str] = "task"

    def _abandon(self) -> None:
        self.ledger.abandon_task(self)

    @property
    def title(self) -> str:
        """What the task is, as messages name it."""
        return f"{self.label} '{self.name}' (task {self.id})"

    def __repr__(self) -> str:
        return f"<{self.title} {self._state()}>"


class ActivityTask(Pending[T_co]):
    label: ClassVar[str] = "activity"


class SubOrchestrationTask(Pending[T_co]):
    label: ClassVar[str] = "sub-orchestration"


class TimerTask(Pending[None]):
    """A durable timer: complete when its time has come; `cancel()` drops it."""

    def _abandon(self) -> None:
        self.ledger.abandon_timer(self)

    @property
    def title(self) -> str:
        return f"timer (task {self.id})"


class EventTask(Pending[T_co]):
    """A wait for one external event; it takes no action id, and `timer` ends it where it has a time limit."""

    timer: TimerTask | None = None

    def _abandon(self) -> None:
        self.ledger.abandon_event(self)

    @property
    def title(self) -> str:
        return f"event '{self.name}'"


def leaves(task: Task[Any]) -> Iterator[Pending[Any]]:
    """The tasks that the task is made of: itself, where it is no composite."""
    waiting = [task]
    while waiting:
        found = waiting.pop()
        if isinstance(found, Composite):
            waiting.extend(reversed(found.children))
        elif isinstance(found, Pending):
            yield found
