"""What a worker may use."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from replayflow.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a worker may use. Counts are of things at work at one time; `grace` is how long running activities get when the worker stops.

    `warm_instances` bounds the generators in memory: the one that nothing has happened to for longest is dropped, and replayed when it is needed.

    An instance that has killed so many workers as `deaths_alone` while it ran alone is parked (RF134). `rest` is how long a worker does without such
    suspects before it lets the first of them run; it grows with every death.
    """

    async_activities: int = 1_000
    thread_activities: int = 32
    process_activities: int = 2
    warm_instances: int = 20_000
    grace: timedelta = timedelta(seconds=10)
    deaths_alone: int = 3
    rest: timedelta = timedelta(milliseconds=250)

    def __post_init__(self) -> None:
        for name in ("async_activities", "thread_activities", "process_activities", "warm_instances", "deaths_alone"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"Limits: {name} is {getattr(self, name)}; it is 1 or more")
        for name in ("grace", "rest"):
            if getattr(self, name) < timedelta(0):
                raise InvalidArgumentError(f"Limits: {name} is {getattr(self, name)}; a duration cannot be negative")
