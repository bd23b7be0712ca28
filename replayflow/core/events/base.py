"""What all history events are, whatever they are about: facts, decisions that have a number, and decisions that have none."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar, Self, TypeAlias

from msgspec import Struct

from replayflow.clock import to_datetime

# An encoded payload. Where a client's `history()` hands an event to a user, the value itself: users never meet an encoding.
Payload: TypeAlias = Any


class HistoryEvent(Struct, array_like=True, forbid_unknown_fields=True, dict=True):
    """One fact. `event_id` is the id of the decision that it records, or -1; `timestamp` is the time of its episode, aware and in UTC."""

    kind: ClassVar[int]
    is_decision: ClassVar[bool] = False

    @property
    def event_id(self) -> int:
        return -1

    @property
    def timestamp(self) -> datetime:
        return to_datetime(vars(self)["at_microseconds"])

    def at(self, microseconds: int) -> Self:
        """The event itself, which knows its episode's time from now on. The time stands once in a chunk and not in each event."""
        vars(self)["at_microseconds"] = microseconds
        return self


class Fact(HistoryEvent):
    """An event that came from outside the orchestrator's code."""


class Decided(HistoryEvent):
    """An event that records what the orchestrator's code decided."""

    is_decision: ClassVar[bool] = True
    event_id: int  # pyright: ignore[reportIncompatibleMethodOverride]


class Unnumbered(HistoryEvent):
    """A decision of a kind that the protocol does not know: it takes no action id, so that the numbering stays the protocol's."""

    is_decision: ClassVar[bool] = True


def microseconds(duration: timedelta | None) -> int | None:
    """The duration as events store it."""
    return None if duration is None else duration // timedelta(microseconds=1)
