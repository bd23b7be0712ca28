"""What the rounds come to: medians, spreads, ratios, bars, and how they are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine import this_machine
from benchmarks.question import Bar, Figure, Figures, Question
from benchmarks.report import bars_text_of, document_of, number, text_of
from benchmarks.runner import Answer
from benchmarks.summary import Spread, compare

RATE = Figure("per_s", "rate", "/s", more_is_better=True)
TIME = Figure("ms", "time", "ms", bar=Bar(10, is_strict=True, n_from=5), floor_key="total_ms")


async def never(n: int, folder: Path) -> Figures:
    raise AssertionError("nobody measures here")


def answer(n: int = 10, **lines: list[Figures]) -> Answer:
    return Answer(Question("made-up", "what is made up", never, (RATE, TIME), (10,), (10,)), n, lines)


def test_the_median_stands_and_the_spread_is_half_of_the_range() -> None:
    spread = Spread((100.0, 120.0, 90.0))
    assert spread.median == 100
    assert spread.percent == pytest.approx(15)
    assert Spread((0.0, 0.0)).percent is None
    assert Spread((-4.0, -2.0)).percent == pytest.approx(100 / 3)


def test_a_ratio_is_how_many_times_as_good_ours_is() -> None:
    rate, time = compare(
        answer(
            replayflow=[{"per_s": 50, "ms": 4}],
            floor=[{"per_s": 100, "total_ms": 2, "ms": 99}],
            peer=[{"per_s": 5, "ms": 40}],
        )
    )
    assert rate.ratios == {"floor": 0.5, "peer": 10}
    assert time.ratios == {"floor": 0.5, "peer": 10}


def test_ratios_are_of_medians() -> None:
    rate, _ = compare(
        answer(replayflow=[{"per_s": v} for v in (1.0, 30.0, 1000.0)], floor=[{"per_s": v} for v in (60.0, 0.0, 61.0)])
    )
    assert rate.ratios == {"floor": 0.5}


def test_nothing_is_compared_with_what_is_not_there() -> None:
    rate, time = compare(answer(replayflow=[{"per_s": 50, "ms": 4}], peer=[{"ms": 0}]))
    assert rate.ratios == {}
    assert rate.spreads.keys() == {"replayflow"}
    assert time.ratios == {"peer": 0}
    _, time = compare(answer(replayflow=[{"ms": 0}], peer=[{"ms": 1}]))
    assert time.ratios == {}, "nothing is so many times as good as what takes no time at all"


@pytest.mark.parametrize(
    ("bar", "value", "is_met"),
    [
        (Bar(10), 10, True),
        (Bar(10), 10.1, False),
        (Bar(10, is_strict=True), 10, False),
        (Bar(10, is_strict=True), 9.9, True),
    ],
)
def test_a_bar_may_be_reached_unless_it_is_strict(bar: Bar, value: float, is_met: bool) -> None:
    assert bar.is_met(value) is is_met


@pytest.mark.parametrize(("n", "is_bar_met"), [(4, None), (5, True)])
def test_a_bar_is_held_from_its_size_on(n: int, is_bar_met: bool | None) -> None:
    _, time = compare(answer(n, replayflow=[{"ms": 1}]))
    assert time.is_bar_met is is_bar_met


def test_the_bar_is_ours_to_meet() -> None:
    _, time = compare(answer(replayflow=[{"ms": 11}, {"ms": 9}, {"ms": 12}], peer=[{"ms": 1}]))
    assert time.is_bar_met is False
    _, time = compare(answer(peer=[{"ms": 11}]))
    assert time.is_bar_met is None


def test_people_see_figures_ratios_and_bars() -> None:
    asked = answer(replayflow=[{"per_s": 5000, "ms": 11}, {"per_s": 5500, "ms": 11}], other=[{"per_s": 2625}])
    asked.failures["third"] = "`third 10` failed"
    lines = text_of(asked, {"other": "other 1.0, in memory"}).splitlines()
    assert lines[1] == "made-up 10: what is made up"
    assert [line.split() for line in lines[2:5]] == [
        ["rate", "5,250", "/s", "±5", "%"],
        ["other", "1.0,", "in", "memory", "2,625", "/s", "ratio", "2.00"],
        ["time", "11.0", "ms", "±0", "%", "MISSED:", "under", "10", "ms"],
    ]
    assert lines[5].split() == ["third:", "`third", "10`", "failed"]


def test_the_bars_are_counted_at_the_end() -> None:
    met, missed, small = (
        answer(replayflow=[{"ms": 1}]),
        answer(replayflow=[{"ms": 20}]),
        answer(4, replayflow=[{"ms": 20}]),
    )
    assert bars_text_of([met, small]).strip() == "bars: 1 of 1 met"
    assert bars_text_of([met, missed]).splitlines()[1:] == [
        "bars: 1 of 2 met, missed:",
        "  made-up 10, time: 20.0 ms (bar: under 10 ms)",
    ]


def test_programs_get_every_value() -> None:
    asked = answer(replayflow=[{"per_s": 10, "ms": 1}, {"per_s": 30, "ms": 1}], floor=[{"per_s": 40, "total_ms": 4}])
    document: dict[str, Any] = json.loads(json.dumps(document_of(this_machine(), 2, [asked])))
    assert document["rounds"] == 2
    assert document["machine"]["cores"] >= 1
    assert document["machine"]["sync_ms"] > 0
    (answered,) = document["answers"]
    assert (answered["question"], answered["n"], answered["failures"]) == ("made-up", 10, {})
    rate, time = answered["figures"]
    assert rate["systems"]["replayflow"] == {"median": 20, "spread_percent": 50, "values": [10, 30]}
    assert rate["replayflow_is_times_as_good"] == {"floor": 0.5}
    assert rate["bar"] is None
    assert time["bar"] == {"text": "under 10 ms", "limit": 10, "is_met": True}
    assert time["replayflow_is_times_as_good"] == {"floor": 4}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234"), (-2.5, "-2.50")],
)
def test_numbers_have_the_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text
