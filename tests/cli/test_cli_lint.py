"""lint: what it prints, what it exits with, and that it imports nothing of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.terminal import accepted, invoke, refused

BAD = """\
import time
from replayflow import App
raise SystemExit("it was imported")
app = App()
@app.orchestrator
def main(ctx):
    print(time.time())
    ctx.create_timer(1)
"""


def test_findings_are_told_by_place_and_end_with_1(folder: Path) -> None:
    (folder / "bad.py").write_text(BAD, "utf-8")
    result = invoke("lint", "bad.py")
    assert result.exit_code == 1
    assert [line.split(" ")[:2] for line in result.stdout.splitlines()] == [
        ["bad.py:7:11:", "RFL01"],
        ["bad.py:8:5:", "RFL12"],
    ]
    assert "2 findings in 1 file" in result.stderr


def test_clean_code_ends_with_0(folder: Path) -> None:
    result = invoke("lint", "flows.py")
    assert (result.exit_code, result.stdout) == (1, result.stdout), "`busy` loops for ever"
    assert "RFL11 an endless loop without a yield" in result.stdout
    (folder / "good.py").write_text(BAD.replace("time.time()", "1").replace("ctx.create_timer(1)", "yield"), "utf-8")
    assert invoke("lint", "good.py").exit_code == 0
    assert accepted("lint", "good.py", "--json") == {"files": 1, "findings": []}


def test_the_document_has_every_finding(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "bad.py").write_text(BAD, "utf-8")
    result = invoke("lint", "deep", "--json")
    assert result.exit_code == 1
    assert (
        '"findings": [{"path": "deep/bad.py", "line": 7, "column": 11, "code": "RFL01", "message": "time.time(): '
        in result.stdout
    )


def test_the_rules_are_listed() -> None:
    assert "use ctx.current_utc_datetime" in invoke("lint", "--rules").stdout
    assert [rule["code"] for rule in accepted("lint", "--rules", "--json")["rules"]][:2] == ["RFL00", "RFL01"]


@pytest.mark.parametrize("columns", ["60", "200"])
def test_no_rule_and_no_code_is_listed_in_part(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for command in (("lint", "--rules"), ("explain",)):
        assert "\u2026" not in invoke(*command).stdout


def test_a_rule_is_explained_by_its_code() -> None:
    assert "RFL01 wall clock" in invoke("explain", "rfl01").stdout
    assert accepted("explain", "RFL12", "--json")["title"] == "forgotten yield"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((), "name files or folders"), (("nowhere.py",), "there is no file and no folder nowhere.py")],
)
def test_wrong_uses_are_refused(arguments: tuple[str, ...], says: str) -> None:
    assert says in refused(2, "lint", *arguments)
