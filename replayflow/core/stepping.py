"""An orchestrator gone through once more, episode by episode: what came, what it decided, and where it waited.

Nothing is written, and nobody is called: the code runs over its history, as in every replay.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from replayflow.core.decisions import FAULTS
from replayflow.core.definitions import Environment, OrchestratorDefinition
from replayflow.core.events import ExecutionStarted, HistoryEvent, TaskCompleted
from replayflow.core.replay import Replay
from replayflow.core.sites import waiting_frame
from replayflow.errors import UserError


@dataclass(frozen=True, slots=True)
class ReplayedEpisode:
    """One episode as it was recorded, and where the code at hand stands after it.

    `first` is the number of its first event, as a listing of the history counts, from 1. `stands` says in words where the code waits, or that it
    has ended; None where it does not fit: `problem` says why, and nothing follows.
    """

    first: int
    events: Sequence[HistoryEvent]
    stands: str | None
    variables: Callable[[], dict[str, Any]]
    """The variables of the user's innermost generator, by name, as they are until the next episode is asked for; none where it has ended."""
    problem: UserError | None = None

    @property
    def last(self) -> int:
        """The number of its last event."""
        return self.first + len(self.events) - 1


def replayed(
    definition: OrchestratorDefinition,
    started: ExecutionStarted,
    pieces: Sequence[Sequence[HistoryEvent]],
    environment: Environment,
    before: Callable[[int], None] | None = None,
) -> Generator[ReplayedEpisode, None, None]:
    """The episodes, each after the code has run through it. The first piece has the start in it.

    `before` is called with the number of each event, before it reaches the code: for a debugger.
    """
    replay = _Watched(definition, started, environment)
    first = 1
    try:
        for piece in pieces:
            if before is not None:
                replay.watch({id(event): first + i for i, event in enumerate(piece)}, before)
            try:
                replay.replay(piece)
            except (UserError, *FAULTS) as problem:
                yield ReplayedEpisode(first, piece, None, dict, problem)
                return
            yield ReplayedEpisode(first, piece, replay.stands(), replay.variables)
            first += len(piece)
    finally:
        replay.close()


class _Watched(Replay):
    """A replay that says, before an event reaches the code, which one it is."""

    __slots__ = ("_before", "_numbers")

    def __init__(self, definition: OrchestratorDefinition, started: ExecutionStarted, environment: Environment) -> None:
        super().__init__(definition, started, environment)
        self._numbers: dict[int, int] = {}
        self._before: Callable[[int], None] = lambda _: None

    def watch(self, numbers: dict[int, int], before: Callable[[int], None]) -> None:
        self._numbers, self._before = numbers, before

    def replay(self, piece: Sequence[HistoryEvent]) -> None:
        if len(piece) == 3 and type(piece[1]) is TaskCompleted:
            self._tell(piece[1])  # the short way through a replay does without `deliver`
        super().replay(piece)

    def deliver(self, event: HistoryEvent) -> None:
        self._tell(event)
        super().deliver(event)

    def variables(self) -> dict[str, Any]:
        frame = waiting_frame(self._generator)
        return {} if frame is None else dict(frame.f_locals)

    def _tell(self, event: HistoryEvent) -> None:
        number = self._numbers.pop(id(event), None)
        if number is not None:
            self._before(number)
