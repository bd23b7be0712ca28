"""One measurement, in this process: the workload of a question, of size n. Prints one JSON line.

python -m benchmarks.workloads chain 1000
python -m benchmarks.workloads --help      what there is
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

from benchmarks.process import peak_rss_mb
from benchmarks.question import Figures
from benchmarks.questions import QUESTIONS


def main() -> None:
    options = _options()
    print(json.dumps(line(options.workload, options.n)))


def line(workload: str, n: int) -> dict[str, str | int | float]:
    """What a measurement prints: system, workload, n, then its figures, with the seconds that all took and the process's peak of memory."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        began = time.perf_counter()
        figures = asyncio.run(_measure(workload, n, Path(folder)))
        figures["seconds"] = time.perf_counter() - began
    figures["peak_rss_mb"] = peak_rss_mb()
    rounded = {key: round(value, 4) for key, value in figures.items()}
    return {"system": "replayflow", "workload": workload, "n": n, **rounded}


async def _measure(workload: str, n: int, folder: Path) -> Figures:
    return await QUESTIONS[workload].measure(n, folder)


def _options() -> argparse.Namespace:
    asks = "\n".join(f"  {question.name:<10}{question.asks}" for question in QUESTIONS.values())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.workloads",
        description="One measurement, printed as a line of JSON.",
        epilog=f"workloads:\n{asks}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workload", choices=QUESTIONS, metavar="workload")
    parser.add_argument("n", type=int, help="its size")
    options = parser.parse_args()
    n_min = QUESTIONS[options.workload].n_min
    if options.n < n_min:
        parser.error(f"n is {options.n}; for {options.workload} it is {n_min} or more")
    return options


if __name__ == "__main__":
    main()
