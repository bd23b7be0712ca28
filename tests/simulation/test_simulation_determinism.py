"""A seed is a world: the same in every run, in every process, whatever the order of sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.simulation.run import bury_all, run_seed

SEEDS = (3, 5, 8)
_PROGRAM = f"from tests.simulation.run import run_seed; print(*[run_seed(seed).digest for seed in {SEEDS}])"


def digests() -> list[str]:
    found = [run_seed(seed).digest for seed in SEEDS]
    bury_all()
    return found


def test_the_same_seed_is_the_same_world_in_this_process_and_in_others() -> None:
    here = digests()
    assert here == digests()
    assert len(set(here)) == len(here)
    for hash_seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        root = Path(__file__).parent.parent.parent
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, env=environment, cwd=root, check=True
        )
        assert done.stdout.split() == here


def test_what_is_traced_does_not_change_what_happens() -> None:
    kept, short = run_seed(5, 200, keeps_trace=True), run_seed(5, 200)
    bury_all()
    assert kept.digest == short.digest
    assert len(kept.trace) >= len(short.trace)
