"""Every question is answered at a tiny size, with the figures that it promises. How fast is nobody's business here."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import process, workloads
from benchmarks.question import percentile
from benchmarks.questions import QUESTIONS, idle

CHECKOUT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the benchmarks need Linux")

NEVER_NEGATIVE = {
    "activities_per_s",
    "instances_per_s",
    "p50_ms",
    "ms",
    "mb_per_s",
    "written_bytes",
    "recover_s",
    "peak_rss_mb",
    "seconds",
}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "_SECONDS", 0.05)
    monkeypatch.setattr(process, "_QUIET_SECONDS", 0.05)


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_comes_to_its_figures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DIR", str(tmp_path))
    question = QUESTIONS[name]
    n = max(question.n_min, 6)
    line = workloads.line(name, n)
    assert (line["system"], line["workload"], line["n"]) == ("replayflow", name, n)
    figures = {key: value for key, value in line.items() if isinstance(value, float)}
    assert {figure.key for figure in question.figures} <= figures.keys()
    assert all(math.isfinite(value) for value in figures.values())
    assert all(figures[key] >= 0 for key in NEVER_NEGATIVE & figures.keys())
    assert not list(tmp_path.iterdir()), "a measurement leaves nothing behind"


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_smallest_size_is_measured(name: str) -> None:
    assert workloads.line(name, QUESTIONS[name].n_min)["n"] == QUESTIONS[name].n_min


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_is_well_asked(name: str) -> None:
    question = QUESTIONS[name]
    keys = [figure.key for figure in question.figures]
    assert len(keys) == len(set(keys)) > 0
    assert min(question.sizes + question.short_sizes) >= question.n_min
    assert max(question.short_sizes) <= max(question.sizes)
    assert question.asks


def test_one_workload_runs_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.workloads", "chain", "3"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["activities_per_s"] > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["chian", "3"], "invalid choice: 'chian'"),
        (["chain", "0"], "for chain it is 1 or more"),
        (["chain", "many"], "invalid int"),
    ],
)
def test_what_is_no_workload_is_refused(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["workloads", *arguments])
    with pytest.raises(SystemExit, match="2"):
        workloads.main()
    assert says in capsys.readouterr().err


def test_percentiles() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert (percentile(values, 0), percentile(values, 50), percentile(values, 99)) == (1, 51, 100)
    assert percentile([7.0], 99) == 7


def test_memory_is_measured_in_bytes_and_a_peak_is_no_less() -> None:
    assert 2**20 < process.rss_bytes() <= process.peak_rss_mb() * 2**20
    held = bytearray(b"x") * (64 * 2**20)
    assert process.peak_rss_mb() > 64
    assert len(held) == 64 * 2**20


async def test_a_fresh_process_has_nothing_of_this_one() -> None:
    assert await process.in_fresh_process(os.getpid) != os.getpid()
