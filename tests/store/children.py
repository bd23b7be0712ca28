"""Starting and stopping the processes of `process.py`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def child(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a command of `process.py`; killed at the end where it still runs."""
    command = [sys.executable, "-m", "tests.store.process", *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    with process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> list[str]:
    """The words of the line that the process says next."""
    assert process.stdout is not None
    return process.stdout.readline().split()


def tell(process: subprocess.Popen[str]) -> None:
    """The process goes on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
