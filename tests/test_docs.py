"""The documents say what is true: their programs run, their links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import replayflow
from replayflow.cli import main

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md")
    for path in sorted(ROOT.glob(pattern))
    if "node_modules" not in path.parts
]


def test_the_first_program_runs_as_printed(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    program = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "first.py" in block)
    (tmp_path / "first.py").write_text(program, "utf-8")
    for _ in range(2):  # the second time it has its result already
        done = subprocess.run([sys.executable, "first.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == "Hello, Tokyo! Hello, Seattle! Hello, London!\n"
    assert len(program.strip().splitlines()) <= 20


def test_the_commands_of_the_readme_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("flows.py").touch()
    readme = (ROOT / "README.md").read_text("utf-8")
    lines = [shlex.split(line, comments=True) for line in readme.splitlines() if line.startswith("replayflow ")]
    assert len(lines) > 10
    for _, *words in lines:
        command: click.Command = main
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        command.make_context(command.name, words)  # raises UsageError where an option is none


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text("utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_files_named_in_the_architecture_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    for name in re.findall(r"`((?:core|engine|store|patterns|codec|cli|tests)/[\w/]+\.\w+)`", text):
        home = ROOT if name.startswith("tests/") else ROOT / "replayflow"
        assert (home / name).exists(), name


def test_everything_named_is_importable_and_documented() -> None:
    for name in set(replayflow.__all__) - {"Orchestration"}:  # an alias, explained where it is made
        thing = getattr(replayflow, name)
        assert thing.__doc__, f"{name} has no docstring"


def test_importing_takes_no_command_line_and_no_pydantic() -> None:
    probe = "import sys, replayflow; print([m for m in ('click', 'rich', 'pydantic', 'multiprocessing.pool') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_decision_is_in_the_list_of_them() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text("utf-8").splitlines()
    for path in sorted(folder.glob("0*.md")):
        number, _, title = path.read_text("utf-8").partition("\n")[0].removeprefix("# ").partition(". ")
        assert f"{number}. [{title}]({path.name})" in listed
