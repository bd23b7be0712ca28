"""How the tests use the command line: in this process, or as processes of their own, each in a folder with a `flows.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from replayflow.cli import main

PATIENCE_SECONDS = 20.0
FLOWS = """
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from replayflow import App, OrchestrationContext, when_all

app = App()


@dataclass
class Order:
    id: str
    total: int = 0
    due: datetime | None = None


@app.activity
def charge(order: Order) -> str:
    print("charging", order.id)
    with Path("charged.txt").open("a") as file:
        file.write(order.id + "\\n")
    if order.total < 0:
        try:
            {}["card"]
        except KeyError as error:
            raise ValueError("a negative total") from error
    return f"receipt-{order.id}"


@app.activity
def held(gate: str) -> str:
    Path("held.txt").touch()
    while not Path(gate).exists():
        time.sleep(0.02)
    return gate


@app.orchestrator
def checkout(ctx: OrchestrationContext, order: Order):
    ctx.set_custom_status({"phase": "charging"})
    receipt = yield ctx.call_activity(charge, order)
    return {"receipt": receipt, "due": order.due, "type": type(order).__name__}


@app.orchestrator
def gated(ctx: OrchestrationContext, gate: str):
    ctx.set_custom_status("holding")
    first = yield ctx.call_activity(charge, Order("first"))
    last = yield ctx.call_activity(held, gate)
    return [first, last]


@app.orchestrator
def approval(ctx: OrchestrationContext):
    return (yield ctx.wait_for_external_event("approved"))


@app.orchestrator
def busy(ctx: OrchestrationContext):
    Path("held.txt").touch()
    while True:
        pass


if __name__ == "__main__":
    raise SystemExit("the guard does not hold")
"""


def invoke(*arguments: str, stdin: str | None = None, columns: int | None = None) -> Result:
    """The command, run in this process."""
    env = {"COLUMNS": None if columns is None else str(columns), "REPLAYFLOW_STORE": None}
    return CliRunner().invoke(main, list(arguments), input=stdin, env=env)


def accepted(*arguments: str, **options: Any) -> Any:
    """The JSON document that the command prints; it has to succeed."""
    result = invoke(*arguments, **options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(exit_code: int, *arguments: str, **options: Any) -> str:
    """What the command says on stderr; it has to fail with the exit code, in words, and print nothing."""
    result = invoke(*arguments, **options)
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


class Process:
    """`replayflow` as a process of its own, whose stderr is read line by line."""

    def __init__(self, *arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "REPLAYFLOW_STORE"}
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "replayflow", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.lines: list[str] = []

    @property
    def id(self) -> int:
        return self._popen.pid

    def says(self, text: str) -> str:
        """The first line of stderr, from where reading stands, that has the text."""
        assert self._popen.stderr is not None
        for line in self._popen.stderr:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"it ended without {text!r}: {self.lines}")

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def insist(self, number: signal.Signals) -> int:
        """The signal again and again, until it has ended; returns the exit code. Those that come at once count as one."""

        def has_ended() -> bool:
            self.send(number)
            return self._popen.poll() is not None

        until(has_ended)
        return int(self._popen.returncode)

    def ended(self) -> tuple[int, str, str]:
        """Exit code, stdout, and what is left of stderr."""
        stdout, stderr = self._popen.communicate(timeout=PATIENCE_SECONDS)
        return self._popen.returncode, stdout, stderr

    def kill(self) -> None:
        self._popen.kill()
        self._popen.communicate()


@contextmanager
def process(*arguments: str) -> Iterator[Process]:
    """The command as a process, which is killed at the end where it has not ended."""
    started = Process(*arguments)
    try:
        yield started
    finally:
        started.kill()


@contextmanager
def worker(*arguments: str) -> Iterator[Process]:
    """A worker of `flows.py` that is at work."""
    with process("worker", "flows.py:app", *arguments) as started:
        started.says("serving")
        yield started


def until(holds: Callable[[], Any]) -> None:
    """Returns when it holds, which has to be soon."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def databases() -> list[str]:
    """The files of the folder that are not the user's."""
    return sorted(path.name for path in Path.cwd().iterdir() if ".db" in path.name)
