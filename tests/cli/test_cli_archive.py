"""export, import and replay: a hub as a file, a file as a hub, and a past execution gone through with the code at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminal import FLOWS, accepted, databases, invoke, refused

ORDER = '{"id": "o-1", "total": 3}'
ARGUMENTS = ("run", "flows:checkout", "--input", ORDER, "--id", "order-1")


@pytest.fixture
def hub(folder: Path) -> Path:
    """A hub with an instance that has completed and one that nothing has happened to."""
    assert invoke(*ARGUMENTS).exit_code == 0
    assert invoke("start", "approval", "--id", "later").exit_code == 0
    return folder


def exported(*arguments: str) -> list[Any]:
    result = invoke("export", *arguments)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def ids(lines: list[Any]) -> list[str]:
    return [line["instance"] for line in lines if "instance" in line]


@pytest.mark.usefixtures("hub")
def test_a_hub_goes_into_a_file_and_comes_out_of_it() -> None:
    assert accepted("export", "--output", "all.jsonl", "--json") == {"instances": 2, "file": "all.jsonl"}
    came = accepted("import", "all.jsonl", "--store", "new.db", "--json")
    assert came == {"instances": 2, "unfinished": 1}
    assert exported("--store", "new.db")[1:] == exported()[1:]
    assert accepted("show", "order-1", "--json", "--store", "new.db") == accepted("show", "order-1", "--json")
    assert "a worker on this hub would go on with them" in invoke("import", "all.jsonl", "--store", "newer.db").stderr


@pytest.mark.usefixtures("hub")
def test_ids_and_filters_say_what_is_exported() -> None:
    assert ids(exported("later")) == ["later"]
    assert ids(exported("later", "order-1")) == ["later", "order-1"]
    assert ids(exported("--status", "completed")) == ["order-1"]
    assert ids(exported("--prefix", "none")) == []
    assert "RF201" in refused(4, "export", "nobody")
    assert "both given" in refused(2, "export", "later", "--name", "approval")
    assert "name it by its id" in refused(2, "export", "--execution", "x")
    assert "has no execution 'x'" in refused(4, "export", "later", "--execution", "x")


@pytest.mark.usefixtures("hub")
def test_an_export_that_fails_leaves_the_file_as_it_was(folder: Path) -> None:
    (folder / "all.jsonl").write_text("before", "utf-8")
    refused(4, "export", "order-1", "nobody", "-o", "all.jsonl")
    assert (folder / "all.jsonl").read_text("utf-8") == "before"
    assert "cannot be written" in refused(2, "export", "-o", "no/such/folder.jsonl")
    assert sorted(path.name for path in folder.iterdir() if "partial" in path.name) == []
    assert invoke("export", "-o", "all.jsonl").exit_code == 0
    assert (folder / "all.jsonl").stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("hub")
def test_an_import_of_something_else_makes_no_hub(folder: Path) -> None:
    (folder / "bad.jsonl").write_text('{"some": "json"}\n', "utf-8")
    assert "bad.jsonl, line 1: this is no export" in refused(2, "import", "bad.jsonl", "--store", "new.db")
    assert "cannot be read" in refused(2, "import", "nothing.jsonl", "--store", "new.db")
    assert "new.db" not in databases()
    invoke("export", "-o", "all.jsonl")
    assert "is not empty: import into a new file" in refused(2, "import", "all.jsonl")


# ---- replay


@pytest.mark.usefixtures("hub")
def test_replay_shows_each_episode_and_where_the_code_stood() -> None:
    shown = invoke("replay", "order-1", "flows:app")
    assert shown.exit_code == 0
    assert "came     ExecutionStarted 'checkout'" in shown.stdout
    assert "decides  activity 'charge' (task 1) at" in shown.stdout
    assert "waits at" in shown.stdout
    assert "came     TaskCompleted of task 1: receipt-o-1" in shown.stdout
    assert "ended, COMPLETED" in shown.stdout
    assert "the code fits the history of 'order-1'" in shown.stderr
    assert (Path("charged.txt")).read_text("utf-8") == "o-1\n"  # it ran once, and not again


@pytest.mark.usefixtures("hub")
def test_replay_reads_a_file_as_well() -> None:
    invoke("export", "-o", "all.jsonl")
    from_file = invoke("replay", "all.jsonl", "flows:app", "--id", "order-1").stdout
    assert from_file == invoke("replay", "order-1", "flows:app").stdout
    assert "has 2 instances; say which one with --id" in refused(2, "replay", "all.jsonl", "flows:app")
    assert "has no instance 'nobody'; it has " in refused(4, "replay", "all.jsonl", "flows:app", "--id", "nobody")
    assert "has no execution 'x'" in refused(4, "replay", "all.jsonl", "flows:app", "--id", "later", "--execution", "x")


@pytest.mark.usefixtures("hub")
def test_replay_stops_where_it_is_told_and_shows_the_variables() -> None:
    shown = invoke("replay", "order-1", "flows:app", "--until", "3")
    assert "order = Order(id='o-1', total=3, due=None)" in shown.stdout
    assert "stopped after event" in shown.stderr
    assert "TaskCompleted" not in shown.stdout
    found = accepted("replay", "order-1", "flows:app", "--until", "3", "--json")
    assert found["fits"]
    assert found["variables"]["order"] == "Order(id='o-1', total=3, due=None)"
    assert "the history has" in refused(2, "replay", "order-1", "flows:app", "--until", "99")


DELEGATING = """\
from dataclasses import dataclass

from replayflow import App, Orchestration, OrchestrationContext

app = App()


@dataclass
class Order:
    id: str


@app.orchestrator
def listens(ctx: OrchestrationContext, order: Order) -> Orchestration[str]:
    greeting = "hello " + order.id
    return (yield from ctx.wait_for_external_event("go"))
"""


def test_a_task_that_is_waited_for_with_yield_from_is_waited_for_in_the_user_s_code(folder: Path) -> None:
    (folder / "delegating.py").write_text(DELEGATING, "utf-8")
    run = ("run", "delegating.py:listens", "--id", "a", "--input", '{"id": "o"}', "--timeout", "0.2", "--grace", "0")
    assert invoke(*run).exit_code == 124
    shown = invoke("replay", "a", "delegating.py:app", "--until", "2")
    assert "/delegating.py:16 for <event 'go' open>" in shown.stdout
    assert "  greeting = 'hello o'" in shown.stdout.splitlines()
    assert "self" not in shown.stdout
    assert "asked for at delegating.py:16" in invoke("show", "a", "--app", "delegating.py").stdout
    debugged = invoke("replay", "a", "delegating.py:app", "--pdb", stdin="n\np order.id\nq\n").stdout
    assert "-> greeting = " in debugged
    assert "'o'" in debugged
    assert "<string>" not in debugged


@pytest.mark.usefixtures("hub")
def test_code_that_does_not_fit_ends_with_1_and_both_lines(folder: Path) -> None:
    changed = FLOWS.replace("ctx.call_activity(charge, order)", 'ctx.wait_for_external_event("paid")')
    (folder / "changed.py").write_text(changed, "utf-8")
    shown = invoke("replay", "order-1", "changed.py:app")
    assert shown.exit_code == 1
    assert "from event 1 on the code does not fit" in shown.stderr
    assert "activity 'charge' (task 1), asked for at" in shown.stderr
    assert "what next: put the old code back" in shown.stderr
    found = invoke("replay", "order-1", "changed.py:app", "--json")
    assert found.exit_code == 1
    assert not json.loads(found.stdout)["fits"]


@pytest.mark.usefixtures("hub")
def test_replay_of_what_has_not_begun_or_is_not_there() -> None:
    assert "nothing has happened to it yet" in invoke("replay", "later", "flows:app").stderr
    assert "RF201" in refused(4, "replay", "nobody", "flows:app")
    assert "--id is for a file" in refused(2, "replay", "nobody", "flows:app", "--id", "x")
    assert "do not go together" in refused(2, "replay", "later", "flows:app", "--pdb", "--json")
    invoke("start", "elsewhere", "--id", "other")
    assert "the app has no orchestrator 'elsewhere'" in refused(2, "replay", "other", "flows:app")
    invoke("entity", "signal", "@counter@all", "add", "--input", "1")
    assert "is an entity" in refused(2, "replay", "@counter@all", "flows:app")


@pytest.mark.usefixtures("hub")
def test_the_debugger_stops_in_the_code_and_not_in_ours() -> None:
    shown = invoke("replay", "order-1", "flows:app", "--until", "5", "--pdb", stdin="n\np receipt\nc\n")
    assert shown.exit_code == 0
    assert "flows.py" in shown.stdout
    assert "'receipt-o-1'" in shown.stdout
    assert "the code fits the history" in shown.stderr
    quit_early = invoke("replay", "order-1", "flows:app", "--pdb", stdin="q\n")
    assert quit_early.exit_code == 0
    assert "ended, COMPLETED" not in quit_early.stdout
