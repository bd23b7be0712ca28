"""What the rounds come to: medians, spreads, ratios, and which bars are met. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.contestants import OURS
from benchmarks.question import Figure
from benchmarks.runner import Answer


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def percent(self) -> float | None:
        """Half of the way from the least to the most, in percent of the median; None where that is 0."""
        return 50 * (max(self.values) - min(self.values)) / abs(self.median) if self.median else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of an answer: for each system that has it, its spread, and how many times as good replayflow is."""

    figure: Figure
    spreads: dict[str, Spread]
    ratios: dict[str, float]
    is_bar_met: bool | None
    """Whether replayflow's median meets the figure's bar; None where there is none for this n."""


def compare(answer: Answer) -> list[Comparison]:
    """The answer, figure by figure."""
    return [_compared(figure, answer) for figure in answer.question.figures]


def _compared(figure: Figure, answer: Answer) -> Comparison:
    spreads = {
        system: Spread(values)
        for system, lines in answer.lines.items()
        if (values := _values([line.get(figure.key_of(system)) for line in lines]))
    }
    ours = spreads.get(OURS)
    ratios = {}
    if ours is not None:
        for system, theirs in spreads.items():
            if system != OURS and (times := _times_as_good(figure, ours.median, theirs.median)) is not None:
                ratios[system] = times
    bar = figure.bar
    is_bar_met = None if bar is None or ours is None or answer.n < bar.n_from else bar.is_met(ours.median)
    return Comparison(figure, spreads, ratios, is_bar_met)


def _values(found: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(value for value in found if value is not None)


def _times_as_good(figure: Figure, ours: float, theirs: float) -> float | None:
    better, worse = (ours, theirs) if figure.more_is_better else (theirs, ours)
    return better / worse if worse else None
