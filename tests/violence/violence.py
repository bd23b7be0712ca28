"""What the tests of this folder share: workers as processes, waiting for facts, and what a hub's file has in it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from replayflow.store.sqlite.audit import faults

T = TypeVar("T")
ROOT = Path(__file__).parent.parent.parent
PATIENCE_SECONDS = 30.0
TRACE = "Traceback (most recent call last)"


def until(found: Callable[[], T | None], what: object = "it") -> T:
    """What is found, once it is something.

    Raises:
        AssertionError: it is nothing for a long time.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := found()):
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.005)
    return value


class Command:
    """`replayflow` as a process of its own; what it says on stderr is in a file. `under` are limits that it gives itself first (`under.py`)."""

    def __init__(self, folder: Path, *arguments: object, under: str = "") -> None:
        self._said = folder / f"said-{time.monotonic_ns()}"
        program = ["tests.violence.under", under] if under else ["replayflow"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REPLAYFLOW_")}
        with self._said.open("w") as said:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-m", *program, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                cwd=ROOT,
                env=environment,
            )

    @property
    def id(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        """All that it has said on stderr."""
        return self._said.read_text()

    def says(self, text: str) -> str:
        """All that it has said, once the text is in it."""

        def found() -> str | None:
            said = self.said
            if text in said:
                return said
            assert self.process.poll() is None, f"it ended without {text!r}: {said}"
            return None

        return until(found, f"{text!r}, of {self.id},")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        """It stands still: it has been seen to."""
        self.send(signal.SIGSTOP)
        until(lambda: state_of(self.id) in "Tt", f"that {self.id} is stopped")

    def stop_between_writes(self, path: Path) -> None:
        """It stands still, and not in a transaction."""
        self.stop()
        until(lambda: can_be_written(path) or self._moves_on(), "that it is stopped outside of its writes")

    def _moves_on(self) -> bool:
        self.go_on()
        time.sleep(0.001)  # so that it stands elsewhere the next time
        self.stop()
        return False

    def go_on(self) -> None:
        self.send(signal.SIGCONT)

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def state_of(process_id: int) -> str:
    """The state of a process as the kernel has it: R, S, D, T, Z; X where there is none."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except FileNotFoundError:
        return "X"
    return stat.rpartition(")")[2].split()[0]


@contextmanager
def command(folder: Path, *arguments: object, under: str = "") -> Iterator[Command]:
    """The command as a process, which is killed at the end where it has not ended."""
    started = Command(folder, *arguments, under=under)
    try:
        yield started
    finally:
        started.kill()


@contextmanager
def worker(path: Path, *arguments: object, under: str = "", folder: Path | None = None) -> Iterator[Command]:
    """A worker of the app, as a process that has begun; not all that is begun is at work."""
    serve = ("worker", "tests.violence.app:app", "--store", path, *arguments)
    with command(folder or path.parent, *serve, under=under) as started:
        yield started


@contextmanager
def at_work(path: Path, *arguments: object, under: str = "", folder: Path | None = None) -> Iterator[Command]:
    """A worker of the app that owns the hub."""
    with worker(path, *arguments, under=under, folder=folder) as started:
        started.says("serving")
        yield started


def refused(error: Command, code: str, *, exit_code: int = 3) -> str:
    """What a command says that ends, in words, with the error."""
    assert error.ended() == exit_code, error.said
    said = error.said
    assert f"error {code}" in said, said
    assert TRACE not in said, said
    return said


def contents(path: Path) -> dict[str, list[object]]:
    """All that is in the file, but for how the engine keeps it."""
    with closing(sqlite3.connect(path)) as connection:
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")
        ]
        return {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}


def can_be_written(path: Path) -> bool:
    """Whether nobody holds SQLite's write lock."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True


def is_sound(path: Path) -> bool:
    """Whether all of the hub, which nobody writes to, reads back as it was written."""
    with closing(sqlite3.connect(path)) as connection:
        return faults(connection) == ()
