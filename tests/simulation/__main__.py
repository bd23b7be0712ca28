"""Many seeds, one after the other or in two processes; or one of them, with its trace.

python -m tests.simulation --seeds 200 --steps 500
python -m tests.simulation --seed 17 --trace
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from multiprocessing import get_context

from tests.simulation.run import STEPS, Report, described, run_one, run_seed

_EVERY = 500


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--steps", type=int, default=STEPS, help="how long faults go on, in steps")
    parser.add_argument("--workers", type=int, default=1, help="in how many processes")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--only", help="with this workload alone")
    parser.add_argument("--trace", action="store_true", help="print all that happens")
    parser.add_argument("--keep-going", action="store_true", help="go on after a seed that fails")
    given = parser.parse_args(arguments)
    if given.seed is not None:
        report = run_seed(given.seed, given.steps, keeps_trace=given.trace, only=given.only)
        if given.trace:
            print(*report.trace, sep="\n")
        print(described(report, given.steps))
        return 1 if report.problem is not None else 0
    seeds = range(given.first, given.first + given.seeds)
    began = time.perf_counter()
    reports: list[Report] = []
    failed: list[int] = []
    with get_context("spawn").Pool(given.workers) if given.workers > 1 else _here() as pool:
        for report in pool.imap_unordered(
            run_one, [(seed, given.steps, given.only) for seed in seeds], 1 if given.workers == 1 else 20
        ):
            reports.append(report)
            if report.problem is not None:
                failed.append(report.seed)
                print(described(report, given.steps), flush=True)
                if not given.keep_going:
                    break
            if len(reports) % _EVERY == 0:
                print(f"{len(reports)} seeds, {time.perf_counter() - began:.0f} s, failed: {failed}", flush=True)
    seconds = time.perf_counter() - began
    print(
        f"{len(reports)} seeds, {sum(one.all_steps for one in reports):,} steps, {sum(one.events for one in reports):,} events, "
        f"{sum(one.workloads for one in reports):,} workloads in {seconds:.1f} s ({1000 * seconds / max(1, len(reports)):.0f} ms a seed); "
        f"failed: {sorted(failed) or 'none'}"
    )
    faults = sum((report.faults for report in reports), Counter[str]())
    print(", ".join(f"{count:,} {kind}" for kind, count in sorted(faults.items())))
    return 1 if failed else 0


class _here:  # noqa: N801 - stands where a pool would
    """A pool of this process alone."""

    def __enter__(self) -> _here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def imap_unordered(self, work, given, _):  # type: ignore[no-untyped-def]
        return map(work, given)


if __name__ == "__main__":
    sys.exit(main())
