"""Crashes at every point: an orchestration is run once for each place where its worker can be killed, and has to come to the same end.

What is durable changes only by commits, and so the places are: before each commit, and between it and whatever follows from it. At each the worker is
gone, with its generators and all that it held in memory; the next one starts on what is durable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

from replayflow.core.commit import Commit
from replayflow.core.events import decode, describe
from replayflow.core.instance import Status
from replayflow.errors import FailureDetails, InvalidArgumentError, LeaseLostError, UnknownNameError
from replayflow.registry import App, app_of
from replayflow.store import Store
from replayflow.store.base import Create, Delivery, Operation, Outcome, Post, Transact
from replayflow.store.memory import MemoryStore
from replayflow.testing.clock import VirtualClock
from replayflow.testing.fakes import Call
from replayflow.testing.hub import VirtualHub

_ID = "crash-everywhere"
_LIVES_MAX = 100
When = Literal["before", "after"]
_WHEN: tuple[When, When] = ("before", "after")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CrashReport:
    """What `crash_everywhere` has seen: how the orchestration ends, and at how many points its worker was killed."""

    points: int
    status: Status
    result: Any
    failure: FailureDetails | None
    most_runs: Mapping[str, int]
    """Of each activity: how often it ran at most in one of the runs. It is more than in a run without crashes where a crash came before its
    result was durable; an activity with effects has to be prepared for that."""


async def crash_everywhere(
    orchestrator: Callable[..., Any],
    input: Any = None,
    *,
    app: App | None = None,
    fakes: Mapping[Any, Any] | None = None,
    events: Sequence[tuple[str, Any] | tuple[str, Any, timedelta]] = (),
    always_replay: bool = False,
    only: tuple[int, When] | None = None,
) -> CrashReport:
    """The orchestration comes to the same end wherever its worker is killed.

    It is run once as it is, and then once for each point at which a crash can fall: before each commit, and after it. `events`, `(name, payload)`,
    are raised in their order as soon as it has started; with a third part, a time, so long after that. Fakes and activities run as often as all
    that takes: they have to give the same for the same input. With `only`, the number of a commit and "before" or "after", that point alone is tried.

    Raises:
        AssertionError: it came to another end, or to none; the message says at which point, and how to have that one alone.
        InvalidArgumentError: `only` names a point that there is not.
        UnknownNameError: the function is registered with no app, and `app` is not given.
    """
    served = app or app_of(orchestrator)
    if served is None:
        raise UnknownNameError(
            f"{getattr(orchestrator, '__name__', orchestrator)!r} is registered with no app: decorate it with @app.orchestrator, or pass app="
        )

    async def run(store: _Mortal) -> tuple[_End, list[Call]]:
        clock, calls = VirtualClock(), list[Call]()
        for _ in range(_LIVES_MAX):
            hub = VirtualHub(served, fakes=fakes, always_replay=always_replay, store=cast("Store", store), clock=clock)
            try:
                async with hub:
                    end = await _live(hub, orchestrator, input, events)
            except _Killed:
                store.revive()
            else:
                return end, [*calls, *hub.calls]
            calls += hub.calls
        raise AssertionError(f"{_ID} did not end within {_LIVES_MAX} lives")

    unharmed = _Mortal(None, "before")
    straight, calls = await run(unharmed)
    most = _counts(calls)
    points = _points(unharmed.writes, only)
    for number, when in points:
        store = _Mortal(number, when)
        try:
            end, calls = await run(store)
        except Exception as error:
            raise AssertionError(_verdict(store, unharmed.writes, f"it does not end: {error}")) from error
        if end != straight:
            raise AssertionError(_verdict(store, unharmed.writes, f"it ends otherwise: {end} and not {straight}"))
        for name, count in _counts(calls).items():
            most[name] = max(most.get(name, 0), count)
    return CrashReport(len(points), straight.status, straight.result, straight.failure, most)


def _points(writes: int, only: tuple[int, When] | None) -> list[tuple[int, When]]:
    every: list[tuple[int, When]] = [(number, when) for number in range(1, writes + 1) for when in _WHEN]
    if only is not None and only not in every:
        raise InvalidArgumentError(
            f"only={only!r:.80}: the commits have the numbers 1 to {writes}, each 'before' and 'after'"
        )
    return every if only is None else [only]


def _verdict(store: _Mortal, writes: int, what: str) -> str:
    """Where the worker was killed and what came of it, what was being written there, and how to have that point alone."""
    number, when = store.dies_at, store.when
    return (
        f"killed {when} commit {number} of {writes}, {what}\nthe commit has: {store.wrote}\n"
        f"this point alone: crash_everywhere(..., only=({number}, '{when}'))"
    )


@dataclass(frozen=True, slots=True)
class _End:
    status: Status
    result: Any
    failure: FailureDetails | None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _End):
            return NotImplemented
        return (self.status, self.result, str(self.failure)) == (other.status, other.result, str(other.failure))

    def __hash__(self) -> int:
        return hash(self.status)

    def __str__(self) -> str:
        return f"{self.status}, {self.result!r:.200}" if self.failure is None else f"{self.status}, {self.failure}"


async def _live(
    hub: VirtualHub, orchestrator: Any, input: Any, events: Sequence[tuple[str, Any] | tuple[str, Any, timedelta]]
) -> _End:
    """One life of the worker: all is asked for again, which changes nothing where it was heard before."""
    instance = await hub.client.start(orchestrator, input, instance_id=_ID, on_existing="return")
    for number, (name, payload, *after) in enumerate(events):
        state = await instance.status()
        due = max([state.created_at + wait for wait in after], default=hub.now)
        if due > hub.now:
            await hub.advance(due - hub.now)
            state = await instance.status()
        if not state.status.is_finished:
            await instance.raise_event(name, payload, dedupe_key=f"event-{number}")
    state = await instance.wait()
    return _End(state.status, state.output, state.failure)


def _counts(calls: Sequence[Call]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for call in calls:
        counts[call.activity] = counts.get(call.activity, 0) + 1
    return counts


class _Killed(LeaseLostError):
    """The process is gone: what it asks of its store from now on reaches nobody."""


class _Mortal:
    """A store whose process is killed at a write: before it is done, or after it is done and before anybody has heard of it."""

    def __init__(self, dies_at: int | None, when: When) -> None:
        self.writes = 0
        self.dies_at = dies_at
        self.when = when
        self.wrote = ""
        """What was being written when it was killed."""
        self._store = MemoryStore()
        self._is_dead = False
        self._has_died = False

    def revive(self) -> None:
        """The next process has the store; the one that died cannot reach it any more."""
        self._is_dead = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        return await self._survived(lambda: self._store.write(operations, epoch), lambda: _named(operations))

    async def transact(self, wanted: Transact, epoch: int) -> Delivery | None:
        what = f"the run of transactional activity {wanted.task_id}"
        return await self._survived(lambda: self._store.transact(wanted, epoch), lambda: what)

    async def _survived(self, write: Callable[[], Awaitable[T]], named: Callable[[], str]) -> T:
        """What the write comes to, if the process lives to hear of it."""
        if self._is_dead:
            raise _Killed("the process was killed")
        self.writes += 1
        if self._has_died or self.writes != self.dies_at:
            return await write()
        self._is_dead = self._has_died = True
        self.wrote = named()
        if self.when == "after":
            await write()
        raise _Killed("the process was killed")


def _named(operations: Sequence[Operation]) -> str:
    """What the operations write, as a history names it."""
    names: list[str] = []
    for operation in operations:
        if isinstance(operation, Create):
            names.append(f"the start of '{operation.start.name}'")
        elif isinstance(operation, Commit) and operation.chunk is not None:
            names += [describe(event) for event in decode(operation.chunk)[1:]]
        elif isinstance(operation, Post):
            names += [describe(event) for event in decode(operation.message.event)]
    return ", ".join(names) or "what nobody sees"
