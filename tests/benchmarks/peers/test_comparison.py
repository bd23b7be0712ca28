"""Measuring in turns, the table's arithmetic, and a peer that fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.peers import Peer
from benchmarks.peers.comparison import (
    Entry,
    Line,
    MeasurementFailed,
    Question,
    ask,
    entries,
    measure_process,
    rows,
    times_faster,
)
from benchmarks.peers.environments import Environment


def peer(name: str, **limits: int) -> Peer:
    return Peer(name, f"{name} 1.0", Environment(name), (f"on_{name}",), limits)


def entry(name: str, *values: float, n: int = 10, figure: str = "activities_per_s") -> Entry:
    return Entry(name, f"{name} 1.0", n, [name], [{figure: value, "peak_rss_mb": 50.0} for value in values])


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_everybody_who_can_is_asked_for_the_same_n_and_the_others_for_their_largest() -> None:
    contest = entries(Question("chain", 1_000), [peer("hare", chain=5_000), peer("tortoise", chain=200), peer("snail")])
    assert [(each.name, each.n) for each in contest] == [("replayflow", 1_000), ("hare", 1_000), ("tortoise", 200)]
    assert contest[0].command == [sys.executable, "-m", "benchmarks.workloads", "chain", "1000"]
    assert contest[2].command[-2:] == ["chain", "200"]


def test_measurements_take_turns() -> None:
    asked: list[str] = []

    def measure(command: list[str]) -> Line:
        asked.append(command[0])
        return {"activities_per_s": 1.0}

    ask([entry("a"), entry("b"), entry("c")], 2, measure)
    assert asked == ["a", "b", "c", "a", "b", "c"]


def test_a_peer_that_fails_is_not_asked_again_and_stops_nobody_else() -> None:
    asked: list[str] = []

    def measure(command: list[str]) -> Line:
        asked.append(command[0])
        if command == ["b"]:
            raise MeasurementFailed("Traceback\nConnectionError: no server")
        return {"activities_per_s": 1.0}

    contest = [entry("a"), entry("b"), entry("c")]
    ask(contest, 2, measure)
    assert asked == ["a", "b", "c", "a", "c"]
    assert [len(each.lines) for each in contest] == [2, 0, 2]
    assert contest[1].error == "Traceback\nConnectionError: no server"


def test_the_error_of_a_peer_is_in_the_table_and_the_others_figures_are_too() -> None:
    ours, failed, theirs = entry("replayflow", 900.0), entry("b"), entry("c", 300.0)
    failed.error = "Traceback\nConnectionError: no | server"
    table = rows(Question("chain", 10), [ours, failed, theirs])
    assert r"failed: ConnectionError: no \| server" in table[1]
    assert cells(table[2])[3:6] == ["300/s", "±0 %", "3.0 x"]


def test_no_ratio_is_told_when_replayflow_itself_failed() -> None:
    ours = entry("replayflow")
    ours.error = "AssertionError"
    table = rows(Question("chain", 10), [ours, entry("c", 300.0)])
    assert "failed: AssertionError" in table[0]
    assert cells(table[1])[3:6] == ["300/s", "±0 %", ""]


def test_a_row_has_the_median_and_half_the_spread() -> None:
    table = rows(Question("chain", 10), [entry("replayflow", 800.0, 1_000.0, 1_200.0)])
    assert cells(table[0]) == ["chain", "replayflow 1.0", "10", "1,000/s", "±20 %", "", "50"]


def test_each_figure_of_a_question_has_its_rows() -> None:
    def latency(name: str, p50: float, p99: float) -> Entry:
        return Entry(name, name, 10, [], [{"p50_ms": p50, "p99_ms": p99, "peak_rss_mb": 1.0}])

    contest = [latency("replayflow", 2.0, 4.0), latency("b", 10.0, 60.0)]
    table = [cells(row) for row in rows(Question("latency", 10, ("p50_ms", "p99_ms")), contest)]
    assert [(row[0], row[3], row[5]) for row in table] == [
        ("latency, p50", "2 ms", ""),
        ("latency, p50", "10 ms", "5.0 x"),
        ("latency, p99", "4 ms", ""),
        ("latency, p99", "60 ms", "15 x"),
    ]


@pytest.mark.parametrize(
    ("figure", "ours", "theirs", "expected"),
    [
        pytest.param("activities_per_s", (1_000, 900.0), (200, 90.0), 10, id="rates need no n"),
        pytest.param("p50_ms", (100, 2.0), (10, 5.0), 2.5, id="times for one need no n"),
        pytest.param("recover_s", (1_000, 2.0), (1_000, 8.0), 4, id="times for all"),
        pytest.param("recover_s", (1_000, 2.0), (100, 2.0), 10, id="times for all, of fewer"),
        pytest.param("activities_per_s", (10, 50.0), (10, 100.0), 0.5, id="a peer may be faster"),
    ],
)
def test_rates_are_compared(figure: str, ours: tuple[int, float], theirs: tuple[int, float], expected: float) -> None:
    pair = [entry(name, value, n=n, figure=figure) for name, (n, value) in (("ours", ours), ("theirs", theirs))]
    assert times_faster(figure, *pair) == pytest.approx(expected)


def test_a_measurement_is_the_last_line_that_its_process_prints() -> None:
    program = "print('warming up'); print('{\"activities_per_s\": 2.5}')"
    assert measure_process([sys.executable, "-c", program]) == {"activities_per_s": 2.5}


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise AssertionError('5 activities are missing')", "5 activities are missing"),
        ("raise SystemExit(3)", "exit code 3"),
        ("print('all is well')", "no JSON line"),
        ("", "no JSON line"),
    ],
)
def test_a_measurement_without_figures_says_why(program: str, said: str) -> None:
    with pytest.raises(MeasurementFailed, match=said):
        measure_process([sys.executable, "-c", program])


def test_a_measurement_without_an_end_is_asked_to_stop_and_can_clear_up(tmp_path: Path) -> None:
    cleared = tmp_path / "cleared"
    program = (
        "import pathlib, signal, sys\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(cleared)!r}).touch(), sys.exit(1)))\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
        "signal.pause()\n"
    )
    with pytest.raises(MeasurementFailed, match="no end after 2 s"):
        measure_process([sys.executable, "-c", program], seconds=2)
    assert (tmp_path / "ready").exists()
    assert cleared.exists()
