"""One trial: a copy of the tree, broken as the mutation says, and the suite over it until something fails.

1. The source is never touched: what is broken is a copy in a folder of its own, and a subprocess imports it from there.
2. A mutation counts as killed where a test fails or hangs over it. Before the first trial the tests that are to kill have passed over an unbroken
   copy: what fails without any mutation says nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutations.patching import Mutation, mutated

ROOT = Path(__file__).parent.parent.parent
_COPIED = ("replayflow", "tests", "samples", "benchmarks", "docs", "pyproject.toml", "Makefile", "README.md")
_ALSO = ("ARCHITECTURE.md", "CHANGELOG.md", "LICENSE")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "node_modules")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_BEGUN = re.compile(r"^(tests/\S+::\S+)", re.MULTILINE)
KILLERS_SECONDS, SUITE_SECONDS = 180, 1_200


@dataclass(frozen=True, slots=True)
class Run:
    """What pytest came to: `failed` names the first test that failed, or at which it hung; None where all passed."""

    failed: str | None
    hung: bool
    output: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutation; `by` is the test that killed it, None where none did."""

    mutation: Mutation
    by: str | None
    hung: bool
    in_whole_suite: bool
    seconds: float

    def __str__(self) -> str:
        name = f"{self.mutation.name} ({self.mutation.invariant})"
        if self.by is None:
            return (
                f"SURVIVED  {name}: {self.mutation.breaks}; no test of the suite has noticed, in {self.seconds:.0f} s"
            )
        how = "hangs at" if self.hung else "killed by"
        late = ", not by the tests that it names" if self.in_whole_suite else ""
        return f"killed    {name}: {how} {self.by} in {self.seconds:.1f} s{late}"


def copy_tree(target: Path) -> None:
    """All that the tests need is in the folder, which anybody may read: some of them drop their rights."""
    target.chmod(0o755)
    for name in (*_COPIED, *_ALSO):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=_LEFT_OUT)
        elif source.exists():
            shutil.copy(source, target / name)


def tried(mutation: Mutation, folder: Path) -> Verdict:
    """The mutation has been applied to a copy in the folder, and the tests were run over that.

    Raises:
        SourceChanged: the mutation does not fit the source any more.
    """
    copy_tree(folder)
    for path, text in mutated(folder / "replayflow", mutation).items():
        path.write_text(text, "utf-8")
    began = time.monotonic()
    run = run_tests(folder, mutation.killers, KILLERS_SECONDS)
    in_whole_suite = run.failed is None
    if in_whole_suite:
        run = run_tests(folder, ("tests", "--ignore=tests/mutations", "-n", "auto"), SUITE_SECONDS)
    return Verdict(mutation, run.failed, run.hung, in_whole_suite, time.monotonic() - began)


def checked_killers(mutations: Iterable[Mutation], folder: Path) -> Run:
    """The killers have run over an unbroken copy."""
    copy_tree(folder)
    every = dict.fromkeys(killer for mutation in mutations for killer in mutation.killers)
    return run_tests(folder, (*every, "-n", "auto"), SUITE_SECONDS)


def run_tests(folder: Path, arguments: Sequence[str], seconds: int) -> Run:
    """Pytest has run in the folder, over the package that is there, until the first failure or for so long."""
    command = [sys.executable, "-m", "pytest", "-x", "-v", "--tb=short", "--color=no", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "400"}
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that a hanging test's own processes end with it
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        begun = _BEGUN.findall(output)
        return Run(begun[-1] if begun else "the collection of tests", True, output)
    if process.returncode == 0:
        return Run(None, False, output)
    failed = _FAILED.search(output)
    return Run(failed[1] if failed else f"pytest itself, which ended with {process.returncode}", False, output)
