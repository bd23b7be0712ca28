"""check: what it prints, what it exits with, and that it only looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.terminal import FLOWS, accepted, databases, invoke, refused, until, worker


def begun(*ids: str) -> None:
    """Instances of 'approval' that wait."""
    with worker():
        for id in ids:
            accepted("start", "approval", "--id", id, "--json")
            until(lambda one=id: accepted("show", one, "--json")["status"] == "RUNNING")  # type: ignore[misc]


def changed(folder: Path) -> None:
    text = FLOWS.replace('yield ctx.wait_for_external_event("approved")', 'yield ctx.call_activity(held, "gate")')
    (folder / "changed.py").write_text(text, "utf-8")


def test_code_that_fits_is_said_to_and_exits_with_0(folder: Path) -> None:
    begun("a", "b")
    result = invoke("check", "flows.py:app")
    assert result.exit_code == 0, result.output
    assert result.stdout.split("\n")[0].split() == ["name", "version", "open", "fit", "do", "not", "fit", "parked"]
    assert result.stdout.split("\n")[1].split() == ["approval", "2", "2", "0", "0"]
    assert result.stdout.endswith("\nthe code fits 2 open instances\n")
    assert "a fits\nb fits" in invoke("check", "flows.py:app", "--all").stdout


def test_code_that_does_not_fit_exits_with_1_and_says_what_differs_where_and_what_to_do(folder: Path) -> None:
    begun("a", "b")
    changed(folder)
    result = invoke("check", "changed.py:app")
    assert result.exit_code == 1
    assert "approval: 2 of 2\n" in result.stdout
    assert "the history has nothing more here" in result.stdout
    assert "the code now asks for activity 'held' (task 1) at" in result.stdout
    assert "instances: a, b\n" in result.stdout
    assert "what next: put the old code back; or keep it beside the new one as another version" in result.stdout
    assert "ctx.patched" in result.stdout
    found = invoke("check", "changed.py:app", "--json")
    assert found.exit_code == 1
    assert '"misfits": 2' in found.stdout
    accepted("check", "flows.py:app", "--json")


def test_a_name_that_is_also_an_id_is_said(folder: Path) -> None:
    accepted("start", "elsewhere", "--id", "elsewhere", "--json")
    result = invoke("check", "flows.py:app")
    assert "no orchestrator 'elsewhere' is registered" in result.stdout


def test_an_input_that_the_code_no_longer_reads_is_not_put_down_to_the_order_of_its_calls(folder: Path) -> None:
    code = """\
from datetime import timedelta

from replayflow import App, Orchestration, OrchestrationContext

app = App()


@app.orchestrator
def listens(ctx: OrchestrationContext, number: int) -> Orchestration[str]:
    yield ctx.create_timer(timedelta(hours=1))
    return "done"
"""
    (folder / "reads.py").write_text(code, "utf-8")
    (folder / "read_otherwise.py").write_text(code.replace("number: int", "number: str"), "utf-8")
    run = ("run", "reads.py:listens", "--id", "a", "--input", "1", "--timeout", "0.2", "--grace", "0")
    assert invoke(*run).exit_code == 124
    result = invoke("check", "read_otherwise.py:app")
    assert result.exit_code == 1
    assert "what next: let the annotation take the old input, too" in result.stdout


def test_the_document_has_every_instance(folder: Path) -> None:
    begun("a")
    document = accepted("check", "flows.py:app", "--json")
    assert document["checked"] == 1
    assert document["groups"] == [{"name": "approval", "version": None, "open": 1, "fit": 1, "misfits": 0, "parked": 0}]
    (one,) = document["instances"]
    assert (one["id"], one["status"], one["fits"], one["problem"], one["what_next"]) == (
        "a",
        "RUNNING",
        True,
        None,
        None,
    )


def test_a_hub_without_a_match_says_so(folder: Path) -> None:
    begun("a")
    assert "nothing that is open fits these options" in invoke("check", "flows.py:app", "--name", "other").stderr
    assert "nothing that is open" in invoke("check", "flows.py:app", "--version", "7").stderr
    accepted("terminate", "a", "--json")


def test_wrong_uses_are_refused(folder: Path) -> None:
    assert "there is no task hub at" in refused(4, "check", "flows.py:app", "--store", "none.db")
    assert databases() == []
    assert "there is no module" in refused(2, "check", "nowhere:app")
    assert "an App is wanted here" in refused(2, "check", "flows.py:checkout")
    assert "0 is not in the range" in refused(2, "check", "flows.py:app", "--limit", "0")
    assert "memory of one process" in refused(2, "check", "flows.py:app", "--store", "memory://")


def test_a_worker_takes_its_versions(folder: Path) -> None:
    begun()
    accepted("start", "approval", "--id", "old", "--version", "1", "--json")
    with worker("--version", "2", "--match", "strict"):
        until(lambda: accepted("show", "old", "--json")["problem"] is not None)
    with worker("--version", "2", "--match", "current-or-older"):
        until(lambda: accepted("show", "old", "--json")["problem"] is None)
    with worker("--version", "2", "--match", "strict", "--on-mismatch", "fail"):
        accepted("raise-event", "old", "approved", "--json")
        until(lambda: accepted("show", "old", "--json")["status"] == "FAILED")
    assert "give version=" in refused(2, "worker", "flows.py:app", "--match", "current-or-older")


def test_replay_goes_through_the_code_of_the_instance_s_version(folder: Path) -> None:
    begun()
    accepted("start", "approval", "--id", "old", "--version", "1", "--json")
    with worker():
        until(lambda: accepted("show", "old", "--json")["status"] == "RUNNING")
    (folder / "both.py").write_text(
        FLOWS.replace("@app.orchestrator\ndef approval", '@app.orchestrator(version="1")\ndef approval')
        + '\n@app.orchestrator(name="approval", version="2")\ndef other(ctx):\n    yield ctx.call_activity(held, "x")\n',
        "utf-8",
    )
    assert accepted("replay", "old", "both.py:app", "--json")["fits"]
    (folder / "new.py").write_text(
        (folder / "both.py").read_text("utf-8").replace('version="1"', 'version="3"'), "utf-8"
    )
    assert "RF135" in refused(2, "replay", "old", "new.py:app")


def test_what_cannot_be_read_here_is_said_to_need_its_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAYFLOW_CIPHER", "tests.ciphers:ToyCipher")
    accepted("start", "gated", "--id", "a", "--input", '"the secret"', "--json")
    accepted("check", "flows.py:app", "--json")
    monkeypatch.delenv("REPLAYFLOW_CIPHER")
    result = invoke("check", "flows.py:app")
    assert result.exit_code == 1
    assert "a value is encrypted with key 'k1', which is not at hand" in result.stdout
    assert "what next: nothing is known of these yet: check them again with the key" in result.stdout
