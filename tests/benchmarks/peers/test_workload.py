"""What the rivals' scripts have in common."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers.workload import Figures, main, percentiles, rss_peak_mb

folders: list[Path] = []


@pytest.fixture(autouse=True)
def _sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


async def count(n: int, folder: Path) -> Figures:
    folders.append(folder)
    (folder / "kept.db").touch()
    return {"activities_per_s": n / 3}


def test_a_script_prints_one_line_in_the_form_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["on_tortoise", "fast", "chain", "10"])
    main("tortoise", {"chain": count})
    line = json.loads(capsys.readouterr().out)
    assert (line["system"], line["workload"], line["n"], line["activities_per_s"]) == ("tortoise", "chain", 10, 3.3333)
    assert line["seconds"] >= 0
    assert line["peak_rss_mb"] > 1
    assert not folders[-1].exists()


def test_percentiles_are_in_milliseconds() -> None:
    assert percentiles([i / 1000 for i in range(100, 0, -1)]) == {"p50_ms": 51, "p99_ms": 100}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_a_group_is_that_of_all_its_processes() -> None:
    assert rss_peak_mb([os.getpgrp()]) > 1
    assert rss_peak_mb([]) == 0
