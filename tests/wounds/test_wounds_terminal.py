"""A terminal obeys what is written to it: nothing that was stored, or given on the command line, reaches one as a command.

A listing that shows a stored escape sequence lets whoever stored it name windows, clear screens, fill clipboards and forge lines; a turned direction
of reading hides what an id is. Command lines that print what they are given have been hurt by it: pallets/click#3832.
"""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from replayflow import App, Client, TaskHub
from replayflow.cli import main, output
from tests.engine.kit import until_state
from tests.wounds.kit import EVIL, steering

APP = """
from replayflow import App
app = App()

@app.activity
async def fails(text): raise ValueError(text)

@app.activity
async def echoes(text): return text

@app.orchestrator
def meets(ctx, text):
    ctx.set_custom_status({text: [text]})
    yield ctx.call_activity("echoes", {text: text})
    told = yield ctx.wait_for_external_event("told")
    yield ctx.call_activity("fails", told)

@app.orchestrator
def asks(ctx, text):
    return (yield ctx.call_sub_orchestrator("meets", text))

@app.orchestrator
def strays(ctx, text):
    yield ctx.call_activity("nobody " + text, text)

@app.orchestrator
def maps(ctx, text):
    yield from ctx.map("fails", [text])

@app.entity
class Note:
    text: str = ""
    def put(self, text: str) -> None: self.text = text
"""
ENTITY = "@note@a\u202eb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `hostile.py`, and a hub in which every text is hostile."""
    path = tmp_path_factory.mktemp("terminal")
    (path / "hostile.py").write_text(APP, "utf-8")
    names: dict[str, Any] = {}
    exec(compile(APP, str(path / "hostile.py"), "exec"), names)  # noqa: S102 - the same text, for this process
    asyncio.run(_filled(path / "hub.db", names["app"]))
    before = list(sys.path)
    yield path
    sys.path[:] = before
    sys.modules.pop("hostile", None)


async def _filled(path: Path, app: App) -> None:
    async with TaskHub(path, app) as hub:
        client = hub.client
        tags = {"key": "\x1b[2J", "c1\x9b": EVIL.replace("\0", "")}
        for id in ("waits", "failed"):
            await client.start("asks", EVIL, instance_id=id, tags=tags)
        for name in ("strays", "maps"):
            await client.start(name, EVIL, instance_id=name)
        await client.signal_entity(ENTITY, "put", EVIL)
        await until_state(client.get("strays"), lambda state: state.problem)
        await client.get("failed:0001").raise_event("told", EVIL)
        await until_state(client.get("failed"), lambda state: state.status == "FAILED")
        await until_state(client.get("maps"), lambda state: state.status == "FAILED")
    async with Client(path) as client:
        await client.start(f"nobody {EVIL}", EVIL, instance_id="unknown", version=EVIL)
        await client.get("waits").suspend(EVIL)
        await client.get("unknown").raise_event(EVIL, EVIL)


IDS = ("waits", "failed", "strays", "maps", "unknown", "waits:0001", "failed:0001", ENTITY)
LOOKS = [
    *(
        ("list",),
        ("count", "--by", "name"),
        ("doctor",),
        ("entity", "list", "--all"),
        ("schedule", "list"),
        ("export",),
    ),
    *((verb, id) for id in IDS for verb in ("show", "history", "tree", "result")),
    ("check", "hostile.py:app"),
    *(("replay", id, "hostile.py:app") for id in IDS),
    *(("show", id, "--app", "hostile.py:app") for id in ("waits", "strays")),
    ("entity", "read", ENTITY),
]
GIVES = [
    ("show", EVIL),
    (EVIL,),
    ("list", f"--{EVIL}"),
    ("list", "--cursor", EVIL),
    ("list", "--status", EVIL),
    ("start", "name", "--id", EVIL),
    ("start", "name", "--input", EVIL),
    ("start", "name", "--at", EVIL),
    ("raise-event", EVIL, EVIL),
    ("raise-event", EVIL, "--name", f"nobody {EVIL}"),
    ("terminate", "nobody", "--reason", EVIL),
    ("explain", EVIL),
    ("check", EVIL),
    ("run", EVIL),
    ("import", EVIL),
    ("replay", EVIL, EVIL),
    ("schedule", "create", EVIL, EVIL, "--every", EVIL),
    ("lint", EVIL),
    ("purge", EVIL),
]


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_what_is_stored_steers_no_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.chdir(folder)
    shown = 0
    for command in LOOKS:
        result = CliRunner().invoke(main, [*command, *options, "--store", "hub.db"], color=True)
        assert result.exit_code in (0, 1, 2, 5), (command, result.output)
        assert "Traceback" not in result.stderr, (command, result.stderr)
        assert steering(result.output) == [], command
        shown += "\\x1b" in result.output or "\\u001b" in result.output
    assert shown > 10  # as an escape that one can read


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_what_is_given_steers_no_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.chdir(folder)
    for command in GIVES:
        store = () if command[0] in ("lint", "explain") else ("--store", "hub.db")
        result = CliRunner().invoke(main, [*command, *options, *store], color=True)
        assert result.exit_code not in (0, 70), (command, result.output)
        assert steering(result.output) == [], command


def test_documents_say_the_same_in_other_characters(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    shown = json.loads(CliRunner().invoke(main, ["show", "failed", "--json", "--store", "hub.db"]).stdout)
    assert shown["input"] == EVIL
    lines = CliRunner().invoke(main, ["export", "unknown", "--store", "hub.db"]).stdout.splitlines()
    assert json.loads(lines[1])["name"] == f"nobody {EVIL}"


def test_lines_of_the_log_steer_no_terminal() -> None:
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(output.LogLines("%(message)s"))
    record = logging.LogRecord("replayflow", logging.WARNING, __file__, 1, "instance '%s' failed", (EVIL,), None)
    handler.handle(record)
    assert steering(stream.getvalue()) == []
    assert stream.getvalue().startswith("instance 'a\\x1b]0;title\\x07")


def test_people_see_their_own_letters() -> None:
    text = "Привет, 日本 · ünïcödé 👩‍🚀 \t and\nlines"
    assert output.printable(text) == text
    assert output.printable_json(text) == text


_WRITERS = {"output", "failures", "progress", "explain"}
_ARE_CLEAN = {
    "check": {"nl"},  # a counter that is written over
    "doctor": {"label"},
    "inspect": {"failure_lines"},
}


def test_commands_write_only_through_what_cleans() -> None:
    """A new command that prints with `click.echo` or with rich's `Text` itself would pass on what it prints."""
    for path in sorted(Path(output.__file__).parent.glob("*.py")):
        if path.stem in _WRITERS:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("click.echo", "click.secho", "print", "Text"):
                    text = ast.unparse(node)
                    assert any(mark in text for mark in _ARE_CLEAN.get(path.stem, ())), f"{path.name}: {text}"
