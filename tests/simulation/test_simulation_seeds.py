"""The share of the simulation that every run of the suite has: two hundred worlds, each with its own mixture of faults."""

from __future__ import annotations

import pytest

from tests.simulation.run import bury_all, described, run_seed

SEEDS, CHUNK = 200, 20


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_whatever_goes_wrong_everything_comes_to_the_right_end(first: int) -> None:
    reports = [run_seed(seed) for seed in range(first, first + CHUNK)]
    bury_all()
    failed = [described(report) for report in reports if report.problem is not None]
    assert not failed, "\n\n".join(failed)
    assert all(report.steps == 500 for report in reports)
    assert sum(report.events for report in reports) > 100 * CHUNK
