"""The answers as people read them, and as programs do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.contestants import OURS
from benchmarks.machine import Machine
from benchmarks.question import Bar, Figure
from benchmarks.runner import Answer
from benchmarks.summary import Comparison, Spread, compare

_LABEL_WIDTH = 42
_VALUE_WIDTH = 17
_SPREAD_WIDTH = 8


def text_of(answer: Answer, labels: Mapping[str, str]) -> str:
    """A headline, then a line for each figure, with the other systems below ours."""
    lines = [f"\n{_title(answer)}: {answer.question.asks}"]
    for comparison in compare(answer):
        for system, spread in comparison.spreads.items():
            is_ours = system == OURS
            label = f"  {comparison.figure.label}" if is_ours else f"    {labels.get(system, system)}"
            remark = _verdict(comparison) if is_ours else _ratio(comparison, system)
            value = f"{number(spread.median)} {comparison.figure.unit}"
            lines.append(
                f"{label:<{_LABEL_WIDTH}}{value:>{_VALUE_WIDTH}}{_percent(spread):>{_SPREAD_WIDTH}}  {remark}".rstrip()
            )
    lines += [f"    {labels.get(system, system)}: {failure}" for system, failure in answer.failures.items()]
    return "\n".join(lines)


def bars_text_of(answers: Sequence[Answer]) -> str:
    """How many bars are met, and which are not."""
    held = [(a, c) for a in answers for c in compare(a) if c.is_bar_met is not None]
    missed = [f"  {_title(a)}, {c.figure.label}: {_found(c)}" for a, c in held if not c.is_bar_met]
    return "\n".join([f"\nbars: {len(held) - len(missed)} of {len(held)} met{', missed:' if missed else ''}", *missed])


def document_of(machine: Machine, rounds: int, answers: Sequence[Answer]) -> dict[str, Any]:
    """All that was measured, in the values of JSON."""
    return {"machine": asdict(machine), "rounds": rounds, "answers": [_answer_document(answer) for answer in answers]}


def number(value: float) -> str:
    """The value with three or four digits that count."""
    size = abs(value)
    digits = 0 if size >= 100 or value == 0 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"


def _title(answer: Answer) -> str:
    return f"{answer.question.name} {answer.n:,}"


def _percent(spread: Spread) -> str:
    return "" if spread.percent is None or len(spread.values) < 2 else f"±{spread.percent:.0f} %"


def _verdict(comparison: Comparison) -> str:
    bar = comparison.figure.bar
    if bar is None or comparison.is_bar_met is None:
        return ""
    return f"{'met' if comparison.is_bar_met else 'MISSED'}: {_bar_text(bar, comparison.figure)}"


def _ratio(comparison: Comparison, system: str) -> str:
    times = comparison.ratios.get(system)
    return "" if times is None else f"ratio {times:.2f}"


def _found(comparison: Comparison) -> str:
    bar = comparison.figure.bar
    assert bar is not None
    value = f"{number(comparison.spreads[OURS].median)} {comparison.figure.unit}"
    return f"{value} (bar: {_bar_text(bar, comparison.figure)})"


def _bar_text(bar: Bar, figure: Figure) -> str:
    return f"{'under' if bar.is_strict else 'at most'} {bar.limit:,g} {figure.unit}"


def _answer_document(answer: Answer) -> dict[str, Any]:
    return {
        "question": answer.question.name,
        "n": answer.n,
        "asks": answer.question.asks,
        "figures": [_comparison_document(comparison) for comparison in compare(answer)],
        "failures": dict(answer.failures),
    }


def _comparison_document(comparison: Comparison) -> dict[str, Any]:
    figure, bar = comparison.figure, comparison.figure.bar
    return {
        "key": figure.key,
        "label": figure.label,
        "unit": figure.unit,
        "more_is_better": figure.more_is_better,
        "systems": {
            system: {"median": spread.median, "spread_percent": spread.percent, "values": list(spread.values)}
            for system, spread in comparison.spreads.items()
        },
        "replayflow_is_times_as_good": dict(comparison.ratios),
        "bar": None
        if bar is None or comparison.is_bar_met is None
        else {"text": _bar_text(bar, figure), "limit": bar.limit, "is_met": comparison.is_bar_met},
    }
