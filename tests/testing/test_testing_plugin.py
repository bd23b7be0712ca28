"""The pytest plugin: a user's test has the hub as a fixture, without an import."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import replayflow

USERS_TEST = """
import asyncio
from replayflow import App

app = App()

@app.orchestrator
def hello(ctx):
    return f"hello from {ctx.current_utc_datetime.year}"

def test_hello(virtual_hub):
    async def main():
        async with virtual_hub(app) as hub:
            assert await hub.run(hello) == "hello from 2030"
    asyncio.run(main())
"""
ROOT = Path(replayflow.__file__).parent.parent


def test_a_users_test_has_the_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(USERS_TEST, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "replayflow.testing.plugin", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_pytest_finds_the_plugin_by_itself() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"replayflow": "replayflow.testing.plugin"}
