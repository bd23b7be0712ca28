"""The rivals' environments, without installing them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.peers import environments
from benchmarks.peers.environments import ENVIRONMENTS, HERE, Environment


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the pins of two rivals, `hare` and `tortoise`."""
    monkeypatch.setattr(environments, "HERE", tmp_path)
    (tmp_path / "requirements-hare.txt").write_text("hare==2.0\n")
    (tmp_path / "requirements-tortoise.txt").write_text("shell==0.1\ntortoise==1.0\n")
    (tmp_path / "package.json").write_text('{"dependencies": {\n"@pond/duck": "3.1.4"\n}}')
    return tmp_path


def commands_run(monkeypatch: pytest.MonkeyPatch, fails: str = "nothing") -> list[list[str]]:
    """Nothing is run: each command is noted, and fails if it names this."""
    noted: list[list[str]] = []

    def run(command: list[str], **_: object) -> None:
        noted.append(command)
        if command[1:3] == ["-m", "venv"]:
            Path(command[-1]).mkdir(parents=True)
        if any(fails in word for word in command):
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", run)
    return noted


def test_an_environment_is_ready_once_its_installation_came_to_its_end(
    pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tortoise = Environment("tortoise", folder=pins / "peers")
    assert not tortoise.is_ready
    commands_run(monkeypatch)
    tortoise.install()
    assert tortoise.is_ready


def test_other_pins_make_an_environment_stale(pins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tortoise = Environment("tortoise", folder=pins / "peers")
    commands_run(monkeypatch)
    tortoise.install()
    (pins / "requirements-tortoise.txt").write_text("tortoise==1.1\n")
    assert not tortoise.is_ready


def test_npm_runs_no_script_of_a_package(pins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = commands_run(monkeypatch)
    Environment("hare", with_npm=True, folder=pins / "peers").install()
    assert noted[-1][:2] == ["npm", "install"]
    assert "--ignore-scripts" in noted[-1]


def test_one_that_cannot_be_installed_is_told_of_and_the_others_are(
    pins: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands_run(monkeypatch, fails="requirements-hare")
    hare, tortoise = (Environment(name, folder=pins / "peers") for name in ("hare", "tortoise"))
    assert not environments.install([hare, tortoise])
    assert (hare.is_ready, tortoise.is_ready) == (False, True)
    assert "hare is left out" in capsys.readouterr().err


def test_what_is_ready_is_not_installed_again(pins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tortoise = Environment("tortoise", folder=pins / "peers")
    commands_run(monkeypatch)
    assert environments.install([tortoise])
    noted = commands_run(monkeypatch)
    assert environments.install([tortoise])
    assert noted == []


def test_a_version_is_read_from_the_pins(pins: Path) -> None:
    assert Environment("tortoise", folder=pins).version("tortoise") == "1.0"
    assert Environment("hare", with_npm=True, folder=pins).version("@pond/duck") == "3.1.4"
    with pytest.raises(LookupError, match="turtle is not pinned for tortoise"):
        Environment("tortoise", folder=pins).version("turtle")


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda environment: environment.name)
def test_every_requirement_is_pinned_to_one_version(environment: Environment) -> None:
    lines = (HERE / f"requirements-{environment.name}.txt").read_text("utf-8").splitlines()
    assert lines
    assert all(line.count("==") == 1 for line in lines)


def test_npm_packages_are_pinned_to_one_version() -> None:
    dependencies = json.loads((HERE / "package.json").read_text("utf-8"))["dependencies"]
    assert all(version.replace(".", "").isdigit() for version in dependencies.values())
