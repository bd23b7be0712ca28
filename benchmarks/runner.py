"""Asks a question: all who have an answer are measured in turns, each time in a process of its own, so that a noisy machine is noisy for all."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.contestants import Contestant
from benchmarks.machine import ROOT
from benchmarks.question import Figures, Question

_SECONDS_MAX = 900.0


class MeasurementError(Exception):
    """A measurement came to nothing; the text says which, and what it wrote."""


@dataclass(slots=True)
class Answer:
    """What a question of size n came to: one line a round for each who was measured, and why some were not to the end."""

    question: Question
    n: int
    lines: dict[str, list[Figures]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def ask(question: Question, n: int, contestants: Sequence[Contestant], rounds: int) -> Answer:
    """The question is answered by all contestants that have its workload.

    Raises:
        MeasurementError: one failed that must not; replayflow must not.
    """
    answer = Answer(question, n)
    for _ in range(rounds):
        for contestant in contestants:
            command = contestant.command(question.name, n)
            if command is None or contestant.name in answer.failures:
                continue
            try:
                figures = _measured(command)
            except MeasurementError as error:
                if not contestant.may_fail:
                    raise
                answer.failures[contestant.name] = str(error)
            else:
                answer.lines.setdefault(contestant.name, []).append(figures)
    return answer


def _measured(command: list[str]) -> Figures:
    what = " ".join(command)
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"`{what}` had not ended after {_SECONDS_MAX:.0f} seconds") from None
    except OSError as error:
        raise MeasurementError(f"`{what}` cannot be run: {error}") from None
    if done.returncode:
        raise MeasurementError(f"`{what}` failed with exit code {done.returncode}:\n{done.stderr.strip()}")
    try:
        line = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise MeasurementError(f"`{what}` printed no line of JSON at its end, but {done.stdout[-200:]!r}") from None
    return {key: float(value) for key, value in line.items() if isinstance(value, int | float)}
