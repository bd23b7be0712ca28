"""What needs processes of their own: workers, Ctrl-C, kill -9, and reading while a worker runs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from tests.cli.terminal import accepted, databases, process, refused, until, worker

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")


def is_held() -> bool:
    return Path("held.txt").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_says_what_it_serves_and_stops_clean(number: signal.Signals) -> None:
    with process("worker", "flows:app") as serving:
        line = serving.says("serving flows:app on sqlite:///replayflow.db")
        assert f"process {serving.id}" in line
        serving.says("orchestrators: approval, busy, checkout, gated")
        serving.says("activities: charge, held")
        serving.send(number)
        code, stdout, stderr = serving.ended()
    assert (code, stdout) == (0, "")
    assert "stopped" in stderr


def test_a_worker_that_stops_lets_running_activities_end(folder: Path) -> None:
    with worker() as serving:
        accepted("start", "gated", "--id", "g", "--input", '"gate"', "--json")
        until(is_held)
        serving.send(signal.SIGINT)
        serving.says("stopping: running activities have 10 s to end")
        (folder / "gate").touch()
        assert serving.ended()[0] == 0
    assert accepted("result", "g") == ["receipt-first", "gate"]


def test_a_second_signal_ends_a_worker_at_once_and_loses_nothing(folder: Path) -> None:
    with worker("--grace", "600") as serving:
        accepted("start", "gated", "--id", "g", "--input", '"gate"', "--json")
        until(is_held)
        serving.send(signal.SIGINT)
        serving.says("stopping")
        assert serving.insist(signal.SIGINT) == 130
    (folder / "gate").touch()
    with worker():
        assert accepted("result", "g", "--wait", "10") == ["receipt-first", "gate"]
    assert (folder / "charged.txt").read_text("utf-8") == "first\n"


def test_a_signal_that_is_delivered_twice_is_one_request(folder: Path) -> None:
    with worker() as serving:
        accepted("start", "gated", "--id", "g", "--input", '"gate"', "--json")
        until(is_held)
        for _ in range(2):
            serving.send(signal.SIGTERM)
        serving.says("stopping")
        (folder / "gate").touch()
        assert serving.ended()[0] == 0


def test_a_second_worker_is_refused_or_takes_over() -> None:
    with worker() as first, process("worker", "flows:app", "--when-owned", "wait") as second:
        second.says(f"waiting: the hub replayflow.db is owned by process {first.id}")
        text = refused(3, "worker", "flows:app")
        assert "error RF301" in text
        assert f"process {first.id}" in text
        assert "when_owned" not in text
        assert "replayflow start" in refused(3, "run", "flows:approval")
        first.kill()
        second.says("serving")
        second.send(signal.SIGTERM)
        assert second.ended()[0] == 0


def test_a_worker_tells_scripts_what_it_serves_in_one_document() -> None:
    with process("worker", "flows:app", "--json") as serving:
        until(lambda: "replayflow.db" in databases())
        until(lambda: refused_worker(serving.id))
        accepted("start", "checkout", "--id", "o", "--input", '{"id": "o-1"}', "--json")
        accepted("result", "o", "--wait", "10")
        serving.send(signal.SIGTERM)
        code, stdout, stderr = serving.ended()
    assert code == 0
    assert json.loads(stdout) == {
        "store": "sqlite:///replayflow.db",
        "process_id": serving.id,
        "orchestrators": ["approval", "busy", "checkout", "gated"],
        "activities": ["charge", "held"],
        "entities": [],
    }
    assert "charging o-1" in stderr


def refused_worker(owner: int) -> bool:
    with process("worker", "flows:app") as second:
        return f"process {owner}" in second.ended()[2]


def test_reading_works_while_a_worker_owns_the_hub() -> None:
    with worker():
        accepted("start", "approval", "--id", "a", "--json")
        accepted("start", "unknown", "--id", "u", "--json")
        until(lambda: accepted("list", "--parked", "--json")["instances"])
        [parked] = accepted("list", "--parked", "--json")["instances"]
        assert parked["id"] == "u"
        assert "no orchestrator 'unknown'" in parked["problem"]
        until(lambda: accepted("show", "a", "--json")["status"] == "RUNNING")
        assert accepted("history", "a", "--json")["events"]


def test_an_interrupted_run_says_how_to_go_on_and_does(folder: Path) -> None:
    with process("run", "flows.py:gated", "--input", '"gate"', "--store", "my hub.db", "--grace", "0") as running:
        until(is_held)
        running.send(signal.SIGINT)
        code, stdout, stderr = running.ended()
    assert (code, stdout) == (130, "")
    assert "Traceback" not in stderr
    (folder / "gate").touch()
    command = shlex.split(stderr.partition("goes on with: ")[2])
    assert command[0] == "replayflow"
    assert accepted(*command[1:]) == ["receipt-first", "gate"]
    assert (folder / "charged.txt").read_text("utf-8") == "first\n"


def test_a_run_that_was_killed_goes_on_where_it_was(folder: Path) -> None:
    arguments = ("run", "flows.py:gated", "--input", '"gate"')
    with process(*arguments) as running:
        until(is_held)
        running.kill()
    (folder / "gate").touch()
    with process(*arguments) as running:
        code, stdout, stderr = running.ended()
    assert code == 0, stderr
    assert json.loads(stdout) == ["receipt-first", "gate"]
    assert (folder / "charged.txt").read_text("utf-8") == "first\n"


def test_code_that_keeps_the_loop_busy_can_still_be_interrupted() -> None:
    with process("run", "flows.py:busy") as running:
        until(is_held)
        assert running.insist(signal.SIGINT) == 130


def test_a_terminal_shows_how_far_a_run_is_in_one_line(folder: Path) -> None:
    import pty

    child, terminal = pty.fork()
    if child == 0:
        os.environ["COLUMNS"] = "100"
        os.execv(  # noqa: S606 - a terminal of its own, no shell
            sys.executable, [sys.executable, "-m", "replayflow", "run", "flows.py:gated", "--input", '"gate"']
        )
    shown = b""
    while chunk := _read(terminal):
        shown += chunk
        if b"activities 1/2" in shown:
            (folder / "gate").touch()
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    text = shown.decode()
    for part in ("gated", "activities 1/2", "RUNNING", "holding", "receipt-first"):
        assert part in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # how the end of a terminal shows on Linux
        return b""
