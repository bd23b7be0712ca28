"""The census: every source file of Python's standard library, parsed and measured in a batch that survives kill -9.

    python -m samples.census [ROOT] [--store PATH] [--fresh]      count, or go on counting where the last run was stopped
    python -m samples.census_demonstration                        kill a census in the middle, resume it, and audit its history

One file is one activity. Parsing is work for the processor, so the activities run in processes, one for each core. Chunks of sixteen files
would save a quarter of the time, and a kill would then cost up to sixteen files for each process instead of one.
"""

import argparse
import asyncio
import os
import shlex
import sys
import sysconfig
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from replayflow import (
    App,
    Instance,
    Limits,
    Orchestration,
    OrchestrationContext,
    ReplayflowError,
    RetryPolicy,
    TaskCompleted,
    TaskHub,
    TaskScheduled,
    when_all,
)
from samples.census_report import Report, SourceFacts, facts_of, report_of, show, source_paths

RUN_LOG = "CENSUS_RUN_LOG"
LOOK_SECONDS = 0.2
INTERRUPTED = 130

app = App()


@dataclass(slots=True)
class Source:
    root: str
    path: str


@app.activity
def list_sources(root: str) -> list[str]:
    return source_paths(Path(root))


# A process of the pool that dies fails the files that the pool is at; they deserve another try, the census goes on.
@app.activity(executor="process", retry=RetryPolicy(max_attempts=3, first_interval=timedelta(seconds=0.1)))
def measure(source: Source) -> SourceFacts:
    _note_run(source.path)
    return facts_of(Path(source.root), source.path)


@app.orchestrator
def census(ctx: OrchestrationContext, root: str) -> Orchestration[Report]:
    paths = yield from ctx.call_activity(list_sources, root)
    measured = yield from when_all([ctx.call_activity(measure, Source(root, path)) for path in paths])
    return report_of(measured)


def id_of(root: Path) -> str:
    """The id of the root's census: the same command finds the same instance again."""
    return f"census-{uuid5(NAMESPACE_URL, root.as_uri())}"


@dataclass(slots=True)
class Standing:
    """How many files have a durable result, of how many."""

    done: int
    total: int


async def standing_of(instance: Instance[Report]) -> Standing:
    """How far the census has got, by its durable history."""
    measured: set[int] = set()
    done = 0
    async for event in instance.history():
        match event:
            case TaskScheduled(event_id=id, name="measure"):
                measured.add(id)
            case TaskCompleted(task_scheduled_id=id) if id in measured:
                done += 1
    return Standing(done, len(measured))


# ---- the command -----------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    root: Path = options.root.resolve()
    if not root.is_dir():
        print(f"census: {root} is no folder", file=sys.stderr)
        return 2
    try:
        asyncio.run(_count(root, options.store, is_fresh=options.fresh))
    except KeyboardInterrupt:
        print(f"\nstopped; what is measured stays measured. To go on:\n    {_command(options)}")
        return INTERRUPTED
    except ReplayflowError as error:
        print(f"census: {error}", file=sys.stderr)
        return 1
    return 0


async def _count(root: Path, store: str, *, is_fresh: bool) -> None:
    console = _Console(highlight=False)
    limits = Limits(process_activities=os.cpu_count() or 1)
    async with TaskHub(store, app, limits=limits) as hub:
        instance = await hub.client.start(
            census,
            str(root),
            instance_id=id_of(root),
            on_existing="terminate_and_replace" if is_fresh else "return",
        )
        # Until a worker has replaced it, the history is still that of the census before.
        begun_from = Standing(0, 0) if is_fresh else await standing_of(instance)
        report = await _follow(instance, begun_from, console)
    print()
    show(report)


async def _follow(instance: Instance[Report], first: Standing, console: Console) -> Report:
    """Shows how far the census has got, on a terminal as a bar, until the report is there."""
    if first.done == 0:
        console.print("Counting. Stop it whenever you like: the same command goes on where it was.")
    elif first.done < first.total:
        console.print(f"Going on: {first.done:,} of {first.total:,} files are measured already.")
    else:
        console.print("All is counted already; --fresh counts anew.")
    begun = time.monotonic()
    report = None
    with _bar(console) as bar:
        line = bar.add_task("measuring", total=None, rate=0.0)
        while report is None:
            with suppress(TimeoutError):
                report = await instance.result(timeout=LOOK_SECONDS)
            now = await standing_of(instance)
            rate = (now.done - first.done) / (time.monotonic() - begun)
            bar.update(line, completed=now.done, total=now.total or None, rate=rate)
    return report


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} files/s"),
        console=console,
        disable=not console.is_terminal,  # a log file is no place for a bar
    )


class _Console(Console):
    """Leaves the cursor as it is: after a kill -9 nobody would be there to show it again."""

    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002 - the signature is rich's
        return False


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m samples.census", description="Measure every Python file of a folder."
    )
    parser.add_argument(
        "root",
        type=Path,
        nargs="?",
        default=Path(sysconfig.get_path("stdlib")),
        help="the folder; without one, the standard library",
    )
    parser.add_argument("--store", default="census.db", help="where the census is kept (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="begin anew, whatever the store has")
    return parser.parse_args(arguments)


def _command(options: argparse.Namespace) -> str:
    root = [] if options.root == Path(sysconfig.get_path("stdlib")) else [str(options.root)]
    return shlex.join(["python", "-m", "samples.census", *root, "--store", options.store])


def _note_run(path: str) -> None:
    """One line for every execution, outside the store, for an auditor who does not take the history's word."""
    log = os.environ.get(RUN_LOG)
    if log is not None:
        with Path(log).open("a") as file:
            file.write(f"{os.getpid()} {path}\n")


if __name__ == "__main__":
    # The process pool finds functions by module and name: those of this module, not of a script called __main__.
    from samples.census import main as run

    sys.exit(run())
