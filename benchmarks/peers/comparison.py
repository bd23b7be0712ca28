"""Measures in turns, A B C A B C, each measurement a process of its own, and tells how many times faster replayflow is."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.peers.catalogue import Peer
from benchmarks.peers.environments import ROOT

MEASUREMENT_SECONDS = 300
Line = dict[str, float]
Measure = Callable[[list[str]], Line]


class MeasurementFailed(Exception):
    """A command ended badly, took too long, or printed no figures; the message is what it said last."""


@dataclass(frozen=True)
class Question:
    """What is measured: a workload, the n that is asked of everybody who can, and the figures that are compared."""

    workload: str
    n: int
    figures: tuple[str, ...] = ("activities_per_s",)


QUESTIONS = [
    Question("chain", 1_000),
    Question("fan", 1_000),
    Question("fan", 10_000),
    Question("latency", 100, ("p50_ms", "p99_ms")),
    Question("long", 2_000),
    Question("recover", 100, ("recover_s",)),
]


@dataclass
class Entry:
    """One system's answers to one question: a line for each round, or what went wrong."""

    name: str
    label: str
    n: int
    command: list[str]
    lines: list[Line] = field(default_factory=list[Line])
    error: str | None = None

    def values(self, figure: str) -> list[float]:
        return [line[figure] for line in self.lines]


def entries(question: Question, peers: Iterable[Peer]) -> list[Entry]:
    """replayflow first, then every peer that has the workload, with the same n or, if that is beyond it, with its own largest."""
    ours = [sys.executable, "-m", "benchmarks.workloads", question.workload, str(question.n)]
    found = [Entry("replayflow", "replayflow", question.n, ours)]
    for peer in peers:
        n = min(question.n, peer.limits.get(question.workload, 0))
        command = peer.command(question.workload, n) if n else None
        if command is not None:
            found.append(Entry(peer.name, peer.label, n, command))
    return found


def ask(contest: Sequence[Entry], rounds: int, measure: Measure) -> None:
    """Fills the entries' lines. One that fails keeps its error, is not asked again, and stops nobody else."""
    for _ in range(rounds):
        for entry in contest:
            if entry.error is None:
                try:
                    entry.lines.append(measure(entry.command))
                except MeasurementFailed as failure:
                    entry.error = str(failure)


def measure_process(command: list[str], seconds: float = MEASUREMENT_SECONDS) -> Line:
    """Runs the command in the checkout's root and returns the JSON line that it printed last. Raises MeasurementFailed."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            err = f"no end after {seconds:g} s"
            out = _ended(process)
        except BaseException:
            _ended(process)
            raise
    if process.returncode == 0:
        try:
            line: Line = json.loads(out.strip().splitlines()[-1])
            return line
        except (IndexError, ValueError):
            err = f"no JSON line in {out!r}"
    raise MeasurementFailed(err.strip() or f"exit code {process.returncode}, without a word")


def _ended(process: subprocess.Popen[str]) -> str:
    """First asked to, for it has servers of its own to end; then made to."""
    process.terminate()
    try:
        return process.communicate(timeout=10)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def times_faster(figure: str, ours: Entry, theirs: Entry) -> float:
    """The ratio of the two medians' rates: the n may differ where a peer can't do ours."""
    return _rate(figure, ours) / _rate(figure, theirs)


def _rate(figure: str, entry: Entry) -> float:
    median = statistics.median(entry.values(figure))
    match figure:
        case "activities_per_s":
            return median
        case "recover_s":
            return entry.n / median
        case _:
            return 1 / median


HEAD = """\
| workload | system | n | median | spread | replayflow, times as fast | peak MB |
|---|---|--:|--:|--:|--:|--:|"""


def rows(question: Question, contest: Sequence[Entry]) -> list[str]:
    """The lines of the table, in Markdown, for one question; the first entry is ours."""
    return [_row(question, figure, contest[0], entry) for figure in question.figures for entry in contest]


def _row(question: Question, figure: str, ours: Entry, entry: Entry) -> str:
    what = question.workload + {"p50_ms": ", p50", "p99_ms": ", p99"}.get(figure, "")
    if entry.error is not None:
        last = entry.error.splitlines()[-1].replace("|", "\\|")
        return f"| {what} | {entry.label} | {entry.n:,} | failed: {last} | | | |"
    values = entry.values(figure)
    median = statistics.median(values)
    spread = 100 * (max(values) - min(values)) / 2 / median
    faster = "" if entry is ours or ours.error is not None else f"{_ratio(times_faster(figure, ours, entry))} x"
    unit = {"activities_per_s": "/s", "recover_s": " s"}.get(figure, " ms")
    peak = max(line["peak_rss_mb"] for line in entry.lines)
    return (
        f"| {what} | {entry.label} | {entry.n:,} | {_number(median)}{unit} | ±{spread:.0f} % | {faster} | {peak:,.0f} |"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
