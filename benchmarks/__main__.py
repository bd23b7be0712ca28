"""Runs the workloads beside the yardstick, in turns, and prints medians, spreads and ratios.

    python -m benchmarks            at full size
    python -m benchmarks --short    smaller, in about a minute
    python -m benchmarks chain fan  only these

The yardstick is the toy that shows how fast durable replay can be in plain Python on the machine at hand: `bench/floor.py` in the folder `shared`
beside the checkout, or wherever `--floor` says. Each measurement is a process of its own; the two take turns, so that a noisy machine is noisy
for both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOOR = ROOT.parent / "shared" / "bench" / "floor.py"


@dataclass(frozen=True)
class Question:
    """What is measured: a workload, its sizes, and which of its figures is compared."""

    workload: str
    n: int
    n_short: int
    figure: str
    more_is_better: bool = True


QUESTIONS = [
    Question("chain", 1_000, 1_000, "activities_per_s"),
    Question("fan", 1_000, 1_000, "activities_per_s"),
    Question("fan", 10_000, 10_000, "activities_per_s"),
    Question("fan", 100_000, 30_000, "activities_per_s"),
    Question("latency", 300, 100, "p50_ms", more_is_better=False),
    Question("long", 10_000, 2_000, "activities_per_s"),
    Question("recover", 1_000, 300, "recover_s", more_is_better=False),
]


def main() -> None:
    options = _options()
    print(_machine())
    floor = options.floor if options.floor.exists() else None
    if floor is None:
        print(f"no yardstick at {options.floor}: figures without ratios")
    print(f"{'workload':<18}{'replayflow':>24}{'floor':>24}{'of the floor':>16}{'peak MB':>10}")
    for question in QUESTIONS:
        if not options.workloads or question.workload in options.workloads:
            _ask(question, question.n_short if options.short else question.n, floor, options.rounds)
    if not options.workloads or "dormant" in options.workloads:
        _ask_dormant(20_000 if options.short else 100_000)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("workloads", nargs="*", help="only these")
    parser.add_argument("--short", action="store_true", help="smaller sizes")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--floor", type=Path, default=FLOOR, help="the yardstick")
    return parser.parse_args()


def _ask(question: Question, n: int, floor: Path | None, rounds: int) -> None:
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(_measure([sys.executable, "-m", "benchmarks.workloads", question.workload, str(n)]))
        if floor is not None:
            theirs.append(_measure([sys.executable, str(floor), question.workload, str(n)]))
    mine = [line[question.figure] for line in ours]
    peak = max(line["peak_rss_mb"] for line in ours)
    ratio = ""
    if theirs:
        a, b = statistics.median(mine), statistics.median(line[question.figure] for line in theirs)
        ratio = f"{a / b if question.more_is_better else b / a:.2f}"
    floors = _figure([line[question.figure] for line in theirs], question.figure) if theirs else "-"
    name = f"{question.workload} {n:,}"
    print(f"{name:<18}{_figure(mine, question.figure):>24}{floors:>24}{ratio:>16}{peak:>10.0f}", flush=True)


def _ask_dormant(n: int) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        path = str(Path(folder) / "dormant.db")
        command = [sys.executable, "-m", "benchmarks.workloads"]
        _measure([*command, "dormant", str(n), path])
        among = _measure([*command, "open", str(n), path])
        alone = _measure([*command, "open", "0", str(Path(folder) / "alone.db")])
        size = Path(path).stat().st_size
    print(
        f"start-up to the first result beside {n:,} dormant instances: {among['first_result_s']:.3f} s "
        f"(alone {alone['first_result_s']:.3f} s), {among['peak_rss_mb'] - alone['peak_rss_mb']:.1f} MB more, "
        f"{size / n:.0f} bytes of disk each"
    )


def _measure(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    line: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return line


def _figure(values: list[float], name: str) -> str:
    middle, spread = statistics.median(values), max(values) - min(values)
    unit = {"activities_per_s": "/s", "p50_ms": " ms", "recover_s": " s"}[name]
    digits = 0 if middle > 100 else 3
    return f"{middle:,.{digits}f}{unit} (±{100 * spread / 2 / middle:.0f} %)"


def _machine() -> str:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    cores = os.cpu_count()
    return f"Python {platform.python_version()}, {cores} cores, {platform.machine()}, commit {commit.stdout.strip() or '?'}"


if __name__ == "__main__":
    main()
