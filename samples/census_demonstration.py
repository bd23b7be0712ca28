"""The census, killed with SIGKILL in the middle, resumed, and audited: by its history, by a log of what really ran, by counting again.

    python -m samples.census_demonstration

1. The worker is a process of its own. What is known of it comes through a client, from the durable history, never from the worker itself.
2. Every execution of an activity leaves a line in a log outside the store, so that work that was done twice cannot hide.
3. Each promise is checked and said in one line; one that is broken makes the exit code 1.
"""

import asyncio
import os
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from platform import python_version

from replayflow import Client, Instance, InstanceNotFoundError, TaskCompleted, TaskScheduled
from samples.census import RUN_LOG, Standing, app, id_of, standing_of
from samples.census_report import Report, facts_of, report_of, show, source_paths

KILL_AT = 0.4
LOOK_SECONDS = 0.02
WORKER_SECONDS_MAX = 120
# After a kill -9 Python's own helper process cleans up, and warns that it had to.
AFTER_A_KILL = "ignore::UserWarning:multiprocessing.resource_tracker"


class BrokenPromiseError(Exception):
    """What had to happen did not."""


@dataclass(slots=True)
class Ledger:
    """What the durable history says: which file each task is for, and the results that stand there for it, encoded."""

    files: dict[int, str] = field(default_factory=dict)
    results: dict[int, list[object]] = field(default_factory=dict)

    @property
    def done(self) -> set[str]:
        return {self.files[id] for id in self.results}


def demonstrate(root: Path) -> int:
    """The whole story, told in plain lines; 0 where every promise was kept, 1 where one was broken."""
    with tempfile.TemporaryDirectory(prefix="census-") as folder:
        try:
            return asyncio.run(_demonstrate(root, Path(folder) / "census.db", Path(folder) / "runs.log"))
        except BrokenPromiseError as error:
            _say(f"BROKEN  {error}")
            return 1


async def _demonstrate(root: Path, store: Path, log: Path) -> int:
    begun = time.monotonic()
    async with Client(store, app) as client:
        instance = client.get(id_of(root))
        _say(f"A census of {root} by Python {python_version()}: every source file is one durable activity.")
        _say("")
        await _first_life(root, store, log, instance)
        at_the_kill = await _ledger(instance)
        _say(f"  in the store at that moment: {len(at_the_kill.files):,} activities asked for,", end=" ")
        _say(f"{len(at_the_kill.results):,} results; the other {_open(at_the_kill):,} are still to do")
        await _second_life(root, store, log)
        report: Report = await instance.result(timeout=1)
        at_the_end = await _ledger(instance)
    _say("")
    is_kept = audit(root, at_the_kill, at_the_end, log, report)
    _say("")
    show(report)
    _say("")
    _say(f"{'Every promise was kept' if is_kept else 'PROMISES WERE BROKEN, see above'}; {_seconds(begun)} in all.")
    return 0 if is_kept else 1


# ---- two lives -------------------------------------------------------------------------------------------------


async def _first_life(root: Path, store: Path, log: Path, instance: Instance[Report]) -> None:
    worker = await _start_worker(root, store, log)
    _say(f"First life: a worker begins, process {worker.pid}")
    try:
        standing = await _reach(KILL_AT, instance, worker)
    finally:
        await _kill(worker)
    _say(f"  {standing.done / standing.total:.0%} of the results are durable: kill -9 {worker.pid}")


async def _second_life(root: Path, store: Path, log: Path) -> None:
    begun = time.monotonic()
    worker = await _start_worker(root, store, log)
    _say(f"Second life: the same command, process {worker.pid}")
    try:
        async with asyncio.timeout(WORKER_SECONDS_MAX):
            code = await worker.wait()
    except TimeoutError:
        raise BrokenPromiseError(f"the second worker has not finished within {WORKER_SECONDS_MAX} s") from None
    finally:
        await _kill(worker)
    if code != 0:
        raise BrokenPromiseError(f"the second worker ended with exit code {code}")
    _say(f"  it went on by itself and finished in {_seconds(begun)}")


async def _start_worker(root: Path, store: Path, log: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "samples.census", str(root), "--store", str(store)),
        cwd=Path(__file__).parent.parent,
        env={**os.environ, RUN_LOG: str(log), "PYTHONWARNINGS": AFTER_A_KILL},
        stdout=asyncio.subprocess.DEVNULL,
    )


async def _reach(share: float, instance: Instance[Report], worker: asyncio.subprocess.Process) -> Standing:
    """The share of the results is durable, and the worker has not ended."""
    async with asyncio.timeout(WORKER_SECONDS_MAX):
        while worker.returncode is None:
            try:
                standing = await standing_of(instance)
            except InstanceNotFoundError:
                pass  # the worker has not come so far
            else:
                if 0 < standing.total <= standing.done / share:
                    return standing
            await asyncio.sleep(LOOK_SECONDS)
    raise BrokenPromiseError(f"the first worker ended by itself, with exit code {worker.returncode}, before the kill")


async def _kill(worker: asyncio.subprocess.Process) -> None:
    if worker.returncode is None:
        worker.kill()
        await worker.wait()


# ---- the audit -------------------------------------------------------------------------------------------------


async def _ledger(instance: Instance[Report]) -> Ledger:
    ledger = Ledger()
    async for event in instance.history():
        match event:
            case TaskScheduled(event_id=id, name="measure"):
                ledger.files[id] = event.input["path"]
            case TaskCompleted(task_scheduled_id=id) if id in ledger.files:
                ledger.results.setdefault(id, []).append(event.result)
    return ledger


def audit(root: Path, at_the_kill: Ledger, at_the_end: Ledger, log: Path, report: Report) -> bool:
    """Says of each promise whether it was kept; whether all were."""
    paths = source_paths(root)
    runs = Counter(line.partition(" ")[2] for line in log.read_text().splitlines())
    again = {path for path, count in runs.items() if count > 1}
    _say(f"The audit: {len(paths):,} files, {runs.total():,} executions, {len(again)} of them for the second time")
    checks: list[tuple[str, Callable[[], bool]]] = [
        (
            f"{len(at_the_kill.results):,} results were durable at the kill; all of them stand in the history, unchanged",
            lambda: all(at_the_end.results.get(id) == results for id, results in at_the_kill.results.items()),
        ),
        (f"none of these {len(at_the_kill.results):,} files was measured again", lambda: not again & at_the_kill.done),
        (
            f"every file was measured, {len(again)} of them twice: under way at the kill, their results not durable yet",
            lambda: max(runs.values()) <= 2 and runs.keys() == set(paths),
        ),
        (
            "every file is one task, and every task has exactly one result in the history",
            lambda: (
                sorted(at_the_end.files.values()) == paths
                and at_the_end.results.keys() == at_the_end.files.keys()
                and all(len(results) == 1 for results in at_the_end.results.values())
            ),
        ),
        (
            "the report equals one that was counted again, directly, without the engine",
            lambda: report == report_of(facts_of(root, path) for path in paths),
        ),
    ]
    verdicts = [check() for _, check in checks]
    for (promise, _), is_kept in zip(checks, verdicts, strict=True):
        _say(f"  {'ok    ' if is_kept else 'BROKEN'}  {promise}")
    return all(verdicts)


def _open(ledger: Ledger) -> int:
    return len(ledger.files) - len(ledger.results)


def _seconds(begun: float) -> str:
    return f"{time.monotonic() - begun:.1f} s"


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)


if __name__ == "__main__":
    sys.exit(demonstrate(Path(sysconfig.get_path("stdlib"))))
