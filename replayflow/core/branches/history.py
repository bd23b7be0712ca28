"""What is cut, and what a cut leaves: the history of one execution, the children that are open in it, and what has to be told once more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from replayflow.core import events, origins
from replayflow.core.events import (
    Decided,
    EntityOperationCalled,
    ExecutionStarted,
    HistoryEvent,
    MapProgress,
    OrchestratorStarted,
    Payload,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
)
from replayflow.core.instance import Instance
from replayflow.errors import InvalidArgumentError

Piece = list[HistoryEvent]


@dataclass(slots=True)
class History:
    """The history of one execution: what it began with, and its pieces, each with the time of its episode at the head.

    Events are numbered as `Instance.history()` yields them, from 1: those of the start stand behind the time of the first piece.
    """

    start: list[HistoryEvent]
    pieces: list[Piece]

    @property
    def started(self) -> ExecutionStarted:
        first = self.start[0]
        assert isinstance(first, ExecutionStarted)  # noqa: S101 - every execution begins with it
        return first

    @property
    def count(self) -> int:
        """How many events there are."""
        return len(self.start) + sum(map(len, self.pieces))

    def number_of(self, piece: int) -> int:
        """The number of the piece's first event."""
        return 1 + sum(map(len, self.pieces[:piece])) + (len(self.start) if piece else 0)

    def place_of(self, number: int) -> tuple[int, int]:
        """The piece that has the event, and how many events of the piece come up to it, itself included. Those of the start are none of its own."""
        if not 1 <= number <= self.count:
            raise InvalidArgumentError(
                f"event {number}: the history of instance '{self.started.instance_id}' has events 1 to {self.count}; "
                "`replayflow history` numbers them"
            )
        first, index = 1, 0
        for index, piece in enumerate(self.pieces):
            following = first + len(piece) + (0 if index else len(self.start))
            if number < following:
                break
            first = following
        up_to = number - first + 1
        if index == 0:
            up_to = max(1, up_to - len(self.start))
        return index, up_to

    def fold(self, started: ExecutionStarted | None = None) -> Instance:
        """What the instance came to; with `started` as an execution that began so would be."""
        instance = Instance()
        start = self.start if started is None else [started, *self.start[1:]]
        if not self.pieces:
            return instance
        first = self.pieces[0]
        instance.apply_pieces([[first[0], *start, *first[1:]], *self.pieces[1:]])
        return instance


@dataclass(slots=True)
class Call:
    """A sub-orchestration that is open where a history was cut: who is at it, and of what it is a call."""

    task_id: int
    instance_id: str
    execution_id: str
    created: SubOrchestrationInstanceCreated | None = None
    number: int | None = None
    """The number of the call, where the task is a map."""
    is_stopped: bool = False
    """Whether it was asked to end, when its map was over."""
    had_its_turn: bool = True
    """False for a call of a map that began after the cut, and begins again when it is its turn."""

    def answer(self, output: Payload) -> HistoryEvent:
        """What its parent is told where it has completed with the output."""
        if self.number is not None:
            return MapProgress(self.task_id, [self.number], [output], [])
        return SubOrchestrationInstanceCompleted(self.task_id, output)

    def is_at(self, started: ExecutionStarted, parent_id: str) -> bool:
        """Whether the instance that began so is the child that was called here."""
        parent = started.parent_instance
        return parent is not None and (parent.instance_id, parent.task_scheduled_id, parent.number) == (
            parent_id,
            self.task_id,
            self.number,
        )


@dataclass(slots=True)
class Cut:
    """The first part of a history, and what the rest of it leaves to be told once more."""

    kept: History
    event: int
    """The number of the first event that was left out."""
    facts: list[HistoryEvent] = field(default_factory=list)
    """What came from outside and is still wanted, in order."""
    asks: list[EntityOperationCalled] = field(default_factory=list)
    """Operations that failed, and changed nothing: they are asked for again."""
    calls: list[Call] = field(default_factory=list)
    """Sub-orchestrations whose end is not among the facts."""

    def origins(self, source: ExecutionStarted) -> list[events.Origin] | None:
        """Whose past it is; None where there is none."""
        if not self.kept.pieces:
            return None
        last = self.kept.pieces[-1][0]
        assert isinstance(last, OrchestratorStarted)  # noqa: S101 - every piece begins with its time
        return origins.prolonged(source, last.now_microseconds, _last_id(self.kept.pieces))


def _last_id(pieces: Iterable[Piece]) -> int:
    return max((e.event_id for piece in pieces for e in piece if isinstance(e, Decided)), default=0)
