"""What a question is: a workload of one size n, the figures that it comes to, and the bars that they are held against."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Figures = dict[str, float]
"""What one measurement came to, by the keys of the question's figures."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure may be at most; with `is_strict` it has to stay under that. Where n is below `n_from`, the bar is not held against it."""

    limit: float
    is_strict: bool = False
    n_from: int = 0

    def is_met(self, value: float) -> bool:
        return value < self.limit if self.is_strict else value <= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a measurement: `key` in the line that it prints, `label` and `unit` as people read it.

    `floor_key` is the floor's name for the same thing, where it is another one.
    """

    key: str
    label: str
    unit: str = ""
    more_is_better: bool = False
    bar: Bar | None = None
    floor_key: str | None = None

    def key_of(self, system: str) -> str:
        return self.floor_key if system == "floor" and self.floor_key is not None else self.key


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how it is measured: `measure(n, folder)` has an empty folder and a process to itself."""

    name: str
    asks: str
    measure: Callable[[int, Path], Awaitable[Figures]]
    figures: tuple[Figure, ...]
    sizes: tuple[int, ...]
    short_sizes: tuple[int, ...]
    n_min: int = 1


PEAK = Figure("peak_rss_mb", "peak memory", "MB")


def rate(key: str = "activities_per_s", label: str = "activities") -> Figure:
    return Figure(key, label, "/s", more_is_better=True)


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of the values lie below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]
