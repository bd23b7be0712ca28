"""What type checkers say of user code: right uses are understood, wrong ones are found, by mypy and by pyright."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RIGHT = HERE / "typing_right.py"
# Each line that ends in `# wrong` has to be an error, and no other line may be one.
WRONG = """
from datetime import timedelta
from typing import Any

from replayflow import App, Client, Orchestration, OrchestrationContext, RetryPolicy, Saga, Task, when_all

app = App()


@app.activity
async def number(x: int) -> int:
    return x


@app.activity
def nothing() -> None: ...


@app.orchestrator
def child(ctx: OrchestrationContext, x: int) -> Orchestration[str]:
    yield ctx.create_timer(timedelta(1))
    return str(x)


@app.orchestrator
def parent(ctx: OrchestrationContext, x: int) -> Orchestration[str]:
    ctx.call_activity(number, "text")  # wrong
    ctx.call_activity(number)  # wrong
    ctx.call_activity(nothing, 5)  # wrong
    ctx.call_activity(number, x, retries=3)  # wrong
    ctx.call_activity(number, x, retry=3)  # wrong
    ctx.call_activity(number, x, timeout=3)  # wrong
    ctx.call_activity(5, x)  # wrong
    ctx.create_timer(3)  # wrong
    ctx.continue_as_new(x, save_events=True, keep=True)  # wrong
    ctx.wait_for_external_event(5)  # wrong
    ctx.instance_id = "other"  # wrong
    text: str = yield from ctx.call_activity(number, x)  # wrong
    right: int = yield from ctx.call_activity(number, x)
    texts: list[str] = yield from when_all([ctx.call_activity(number, x)])  # wrong
    flag: bool = yield from ctx.wait_for_external_event("e", type=str)  # wrong
    other: int = yield from ctx.call_sub_orchestrator(child, x)  # wrong
    ctx.call_entity(5, "add")  # wrong
    ctx.signal_entity("@a@b", "add", 1, after=3)  # wrong
    ctx.lock_entities("@a@b", "@a@c")  # wrong
    recorded: str = ctx.record(abs, 5)  # wrong
    ctx.record(abs)  # wrong
    ctx.record(chr, "text")  # wrong
    ctx.record(5)  # wrong
    typed: str = ctx.record(lambda: object(), type=int)  # wrong
    amount: str = yield from ctx.call_entity("@a@b", "add", result_type=int)  # wrong
    ctx.call_activity("by name", x, result_type=int)
    ctx.map(number, ["text"])  # wrong
    ctx.map(number, [x], batch_size=2)  # wrong
    ctx.map(number, [x], on_item_error="perhaps")  # wrong
    mapped: list[str] = (yield from ctx.map(number, [x])).succeeded  # wrong
    saga: Saga
    saga = Saga()  # wrong
    saga.run(number, nothing, "text")  # wrong
    saga.run(number, 5, x)  # wrong
    saga.run(number)  # wrong
    saga.run(number, nothing, x, retry=3)  # wrong
    ctx.saga(5)  # wrong
    lie: str = yield from saga.run(number, nothing, x)  # wrong
    return right  # wrong


@app.orchestrator
def yields_no_task(ctx: OrchestrationContext) -> Orchestration[None]:
    yield 5  # wrong


@app.activity(timeout=5)  # wrong
def limited() -> None: ...


@app.activity(rate="10/s")  # wrong
def hurried() -> None: ...


@app.activity(concurrency="3")  # wrong
def crowded() -> None: ...


RetryPolicy(3)  # wrong
RetryPolicy(max_attempts=3)
when_all([1, 2])  # wrong


async def calls(client: Client) -> None:
    text: int = await (await client.start(parent, 1)).result()  # wrong
    await client.start(parent, 1, on_existing="perhaps")  # wrong
    await client.start(parent, 1, start_at=5)  # wrong
"""
MARKED = {n for n, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# wrong")}


def mypy(*paths: Path) -> str:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    command += ["--config-file", "", "--python-version", "3.11", *map(str, paths)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300).stdout


def pyright(directory: Path, path: Path) -> list[tuple[int, str]]:
    settings = {"include": [path.name], "pythonVersion": "3.11", "typeCheckingMode": "standard"}
    (directory / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    command += ["--project", str(directory / "pyrightconfig.json")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    said = json.loads(ran.stdout)
    assert said["summary"]["filesAnalyzed"] == 1, ran.stdout
    return [
        (found["range"]["start"]["line"] + 1, found["message"])
        for found in said["generalDiagnostics"]
        if found["severity"] == "error"
    ]


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "wrong_uses.py"
    path.write_text(WRONG)
    return path


def test_mypy_understands_right_uses() -> None:
    assert mypy(RIGHT) == ""


def test_pyright_understands_right_uses(tmp_path: Path) -> None:
    copied = tmp_path / RIGHT.name
    copied.write_text(RIGHT.read_text())
    assert pyright(tmp_path, copied) == []


def test_mypy_finds_wrong_uses(wrong: Path) -> None:
    said = mypy(wrong)
    assert {int(n) for n in re.findall(r"wrong_uses\.py:(\d+): error", said)} == MARKED, said


def test_pyright_finds_wrong_uses(tmp_path: Path, wrong: Path) -> None:
    found = pyright(tmp_path, wrong)
    assert {line for line, _ in found} == MARKED, found
