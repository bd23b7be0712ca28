"""Crashes at every point: an orchestration is run once for each place where its worker can be killed, and has to come to the same end.

What is durable changes only by commits, and so the places are: before each commit, and between it and whatever follows from it. At each the worker is
gone, with its generators and all that it held in memory; the next one starts on what is durable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from replayflow.core.instance import Status
from replayflow.errors import FailureDetails, LeaseLostError, UnknownNameError
from replayflow.registry import App, app_of
from replayflow.store import Store
from replayflow.store.base import Delivery, Operation, Outcome, Transact
from replayflow.store.memory import MemoryStore
from replayflow.testing.clock import VirtualClock
from replayflow.testing.fakes import Call
from replayflow.testing.hub import VirtualHub

_ID = "crash-everywhere"
_LIVES_MAX = 100
When = Literal["before", "after"]
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
    events: Sequence[tuple[str, Any]] = (),
    always_replay: bool = False,
) -> CrashReport:
    """The orchestration comes to the same end wherever its worker is killed.

    It is run once as it is, and then once for each point at which a crash can fall: before each commit, and after it. `events` are raised, in their
    order, as soon as it has started. Fakes and activities run as often as that takes: they have to give the same for the same input.

    Raises:
        AssertionError: it came to another end; the message says at which point.
        UnknownNameError: the function is registered with no app, and `app` is not given.
    """
    served = app or app_of(orchestrator)
    if served is None:
        raise UnknownNameError(
            f"{getattr(orchestrator, '__name__', orchestrator)!r} is registered with no app: decorate it with @app.orchestrator, or pass app="
        )

    async def run(dies_at: int | None, when: When) -> tuple[_End, int, list[Call]]:
        store = _Mortal(dies_at, when)
        clock, calls = VirtualClock(), list[Call]()
        for _ in range(_LIVES_MAX):
            hub = VirtualHub(served, fakes=fakes, always_replay=always_replay, store=cast("Store", store), clock=clock)
            try:
                async with hub:
                    end = await _live(hub, orchestrator, input, events)
            except _Killed:
                store.revive()
            else:
                return end, store.writes, [*calls, *hub.calls]
            calls += hub.calls
        raise AssertionError(f"{_ID} did not end within {_LIVES_MAX} lives")

    straight, writes, calls = await run(None, "before")
    most = _counts(calls)
    points = 0
    for number in range(1, writes + 1):
        for when in ("before", "after"):
            end, _, calls = await run(number, when)
            points += 1
            if end != straight:
                raise AssertionError(
                    f"killed {when} commit {number} of {writes}, it ends otherwise: {end} and not {straight}"
                )
            for name, count in _counts(calls).items():
                most[name] = max(most.get(name, 0), count)
    return CrashReport(points, straight.status, straight.result, straight.failure, most)


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


async def _live(hub: VirtualHub, orchestrator: Any, input: Any, events: Sequence[tuple[str, Any]]) -> _End:
    """One life of the worker: all is asked for again, which changes nothing where it was heard before."""
    instance = await hub.client.start(orchestrator, input, instance_id=_ID, on_existing="return")
    if not (await instance.status()).status.is_finished:
        for number, (name, payload) in enumerate(events):
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
        self._store = MemoryStore()
        self._dies_at = dies_at
        self._when = when
        self._is_dead = False

    def revive(self) -> None:
        """The next process has the store; the one that died cannot reach it any more."""
        self._is_dead = False
        self._dies_at = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        return await self._survived(lambda: self._store.write(operations, epoch))

    async def transact(self, wanted: Transact, epoch: int) -> Delivery | None:
        return await self._survived(lambda: self._store.transact(wanted, epoch))

    async def _survived(self, write: Callable[[], Awaitable[T]]) -> T:
        """What the write comes to, if the process lives to hear of it."""
        if self._is_dead:
            raise _Killed("the process was killed")
        self.writes += 1
        if self.writes != self._dies_at:
            return await write()
        self._is_dead = True
        if self._when == "after":
            await write()
        raise _Killed("the process was killed")
