"""Plays the engine for one execution: runs its episodes, keeps what they record, and can read it all back with a fresh generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Self

from replayflow import App, Codec
from replayflow.core import episode, events, outcome
from replayflow.core.commit import Commit, RowState, Turn
from replayflow.core.definitions import Environment, OrchestratorDefinition
from replayflow.core.events import (
    EventRaised,
    ExecutionStarted,
    HistoryEvent,
    ParentInstance,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerFired,
)
from replayflow.core.instance import Instance, Status
from replayflow.core.replay import Replay
from replayflow.core.rows import AT_WORK
from replayflow.errors import FailureDetails

SECOND = 1_000_000
BEGIN = 1_700_000_000 * SECOND
CODEC = Codec()


def encoded(value: object) -> bytes | None:
    return None if value is None else CODEC.encode(value)


def done(task_id: int, value: object = None) -> TaskCompleted:
    return TaskCompleted(task_id, encoded(value))


def failed(task_id: int, error: BaseException | None = None, *, after: int | None = None) -> TaskFailed:
    return TaskFailed(task_id, FailureDetails.of(error or ValueError("broken")), after)


def fired(task_id: int, at: int = BEGIN) -> TimerFired:
    return TimerFired(task_id, at)


def raised(name: str, value: object = None) -> EventRaised:
    return EventRaised(name, encoded(value))


def child_done(task_id: int, value: object = None) -> SubOrchestrationInstanceCompleted:
    return SubOrchestrationInstanceCompleted(task_id, encoded(value))


def child_failed(task_id: int, error: BaseException | None = None) -> SubOrchestrationInstanceFailed:
    return SubOrchestrationInstanceFailed(task_id, FailureDetails.of(error or ValueError("broken child")))


def plain(event: HistoryEvent) -> tuple[object, ...]:
    """The event as a value that compares: its kind and what is stored of it."""
    return type(event).__name__, events.encode([event])


def folded(instance: Instance) -> dict[str, Any]:
    """Everything that an instance is, for comparison. Of the heap of what is due only what is still open counts."""
    state = {name: getattr(instance, name) for name in Instance.__slots__ if name != "_due"}
    return state | {"due": sorted(instance.alarms())}


def app_with(orchestrator: Callable[..., Any], *activities: Callable[..., Any], name: str = "main") -> App:
    """An app with one orchestrator, and with activities that are never run here."""
    app = App()
    app.orchestrator(name=name)(orchestrator)
    for activity in activities:
        app.activity(activity)
    return app


@dataclass
class Stage:
    """One execution and its history so far. With `always_cold` each episode begins with a generator that has just been replayed."""

    app: App
    input: object = None
    name: str = "main"
    instance_id: str = "i"
    parent: ParentInstance | None = None
    always_cold: bool = False
    start: list[HistoryEvent] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    now: int = BEGIN
    random: Random = field(default_factory=lambda: Random(7))
    orphans: list[tuple[str, TaskScheduled]] = field(default_factory=list)
    made: list[Replay] = field(default_factory=list)
    takes_turns: bool = False
    turns: int = 0

    def __post_init__(self) -> None:
        self.environment = Environment(CODEC, self.app.activities, self.app.orchestrators)
        self._executions = count(1)
        if not self.start:
            self.start = [
                ExecutionStarted(self.name, encoded(self.input), self.instance_id, "e0", parent_instance=self.parent)
            ]
        started = self.start[0]
        assert isinstance(started, ExecutionStarted)
        self.started = started
        self.instance = Instance()
        self.row = RowState(Status.PENDING, 0)
        self.replay = self.fresh()

    @property
    def definition(self) -> OrchestratorDefinition:
        return self.app.orchestrators[self.started.name]

    def fresh(self) -> Replay:
        self.made.append(Replay(self.definition, self.started, self.environment))
        return self.made[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """No generator is left to the garbage collector, which complains of one whose clean-up yields."""
        for replay in self.made:
            replay.close()

    def run(self, *inbox: HistoryEvent, later: int = 0) -> outcome.AnyEpisode:
        """One episode, `later` microseconds after the last."""
        self.now += later
        is_first = not self.pieces
        if self.always_cold and not is_first:
            self.replay.close()
            self.replay = self.replayed()
        done = self._turn(inbox) or episode.run(
            self.instance,
            self.replay,
            inbox,
            sequence=len(self.pieces) + 1,
            now=self.now,
            random=self.random,
            new_execution_id=self._new_execution_id,
            row=self.row,
            start=events.decode(events.encode(self.start)) if is_first else (),
            orphans=self.orphans,
        )
        if done.commit is not None:
            assert done.commit.chunk is not None
            self.pieces.append(done.commit.chunk)
            self.commits.append(done.commit)
            self.row = done.commit.state or self.row
        return done

    def _turn(self, inbox: Sequence[HistoryEvent]) -> outcome.AnyEpisode | None:
        """The quick way, where the stage takes it and the engine would."""
        if (
            not self.takes_turns
            or self.row is not AT_WORK
            or len(inbox) != 1
            or not isinstance(inbox[0], TaskCompleted)
        ):
            return None
        number = len(self.pieces) + 1
        done = episode.turn(self.instance, self.replay, inbox[0], number, self.now, self._new_execution_id, self, 0)
        if not isinstance(done, Turn):
            return done
        self.turns += 1
        return outcome.PlainEpisode(done, [done.asked])

    def _new_execution_id(self) -> str:
        return f"{next(self._executions):032x}"

    def history(self) -> list[list[HistoryEvent]]:
        """The pieces as a replay reads them: the start stands behind the time of the first."""
        read = [events.decode(piece) for piece in self.pieces]
        if read:
            read[0] = [read[0][0], *events.decode(events.encode(self.start)), *read[0][1:]]
        return read

    def flat(self) -> list[tuple[object, ...]]:
        return [plain(event) for piece in self.history() for event in piece]

    def kinds(self) -> list[str]:
        """The kinds of events in the last piece, but for the time at its head."""
        return [type(event).__name__ for event in self.history()[-1][1:]]

    def replayed(self, upto: int | None = None) -> Replay:
        """A fresh generator that has lived through the first pieces of the history."""
        replay = self.fresh()
        replay.replay_all(self.history()[:upto])
        return replay

    def result(self) -> Any:
        assert self.instance.status is Status.COMPLETED, self.instance.failure
        return CODEC.decode(self.instance.output)

    def status_shown(self) -> Any:
        return CODEC.decode(self.instance.custom_status)


def successor(stage: Stage, **changes: Any) -> Stage:
    """The execution that the stage's last commit says comes next."""
    start = stage.commits[-1].next_start
    assert start is not None
    return Stage(stage.app, start=events.decode(start.event), now=stage.now, **changes)


def open_ids(replay: Replay) -> list[int]:
    return sorted(replay.decisions.open)


def waits(replay: Replay) -> Sequence[str]:
    return sorted(replay.decisions.waiting)
