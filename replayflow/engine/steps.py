"""Operations on their way to the disk, and whom to tell what became of them."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from replayflow.core.commit import Commit
from replayflow.core.events import HistoryEvent
from replayflow.core.outcome import AnyEpisode
from replayflow.engine.live import Live
from replayflow.errors import ReplayflowError
from replayflow.store.base import Outcome, Park


class Owner(Protocol):
    """Whoever sees to what follows."""

    def committed(self, live: Live, commit: Commit, done: AnyEpisode, outcome: Outcome) -> None: ...
    def not_committed(self, live: Live, commit: Commit, loose: list[HistoryEvent], error: ReplayflowError) -> None: ...
    def reload_if_in(self, live: Live) -> None: ...
    def follow(self, outcome: Outcome) -> None: ...


class ParkingOwner(Protocol):
    """Whoever has the instances in memory."""

    def parked(self, parking: Parking, error: ReplayflowError | None) -> None: ...


class Step(Struct, eq=False):
    """An episode on its way to the disk. `loose` is what it took in that only memory has, `reading` which reading of the instance it stands on."""

    _owner: Owner
    _live: Live
    operation: Commit
    _done: AnyEpisode
    _loose: list[HistoryEvent]
    _reading: int

    def settle(self, outcome: Outcome | None, error: ReplayflowError | None) -> None:
        live = self._live
        if live.reading != self._reading:
            return  # the instance was read again meanwhile: what became of this step is in what was read, or will be refused
        live.is_busy = False
        refused = error if outcome is None else outcome.error
        if refused is None and outcome is not None:
            self._owner.committed(live, self.operation, self._done, outcome)
        elif refused is not None:
            self._owner.not_committed(live, self.operation, self._loose, refused)
        if live.must_reload and not live.is_busy:
            live.must_reload = False
            self._owner.reload_if_in(live)


class Parking(Struct, eq=False):
    """An instance on its way aside. `held` was in its mailbox, which gathers what comes meanwhile. `is_called` says that it is wanted back."""

    _owner: ParkingOwner
    live: Live
    operation: Park
    problem: str
    held: list[HistoryEvent]
    is_called: bool

    def settle(self, outcome: Outcome | None, error: ReplayflowError | None) -> None:
        self._owner.parked(self, error if outcome is None else outcome.error)
