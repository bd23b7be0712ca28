"""rewind, restart and fork on the command line: what they print, what they refuse, and that a worker goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.terminal import accepted, invoke, process, refused, until

BANK = """
from pathlib import Path

from replayflow import App, OrchestrationContext

app = App()


@app.activity
def reserve(order: str) -> str:
    return f"reserved {order}"


@app.activity
def charge(order: str) -> str:
    if not Path("bank.open").exists():
        raise ConnectionError("the bank is closed")
    return f"paid {order}"


@app.orchestrator
def pay(ctx: OrchestrationContext, order: str):
    held = yield ctx.call_activity(reserve, order)
    paid = yield ctx.call_activity(charge, order)
    return [held, paid]
"""


@pytest.fixture(autouse=True)
def failed(folder: Path) -> None:
    """`o-1` has failed: the bank is closed."""
    (folder / "bank.py").write_text(BANK, "utf-8")
    assert invoke("run", "bank.py:pay", "--input", '"o-1"', "--id", "o-1").exit_code == 1


def history_of(id: str) -> list[str]:
    return [event["event"] for event in accepted("history", id, "--json")["events"]]


def worked_off() -> dict[str, object]:
    """What the instances come to, by id, when the bank is open and a worker has seen to them."""
    Path("bank.open").touch()
    with process("worker", "bank.py:app") as started:
        started.says("serving")
        ids = [state["id"] for state in accepted("list", "--json")["instances"]]
        return {id: accepted("result", id, "--wait", "10") for id in ids}


def test_a_failed_instance_is_rewound_and_a_worker_goes_on_with_it() -> None:
    assert "'o-1' was rewound" in invoke("rewind", "o-1", "--reason", "it opens soon").stdout
    assert history_of("o-1")[-1] == "ExecutionRewound"
    shown = invoke("history", "o-1", columns=200).stdout
    assert "to before event 7 of execution" in shown
    assert "it opens soon" in shown
    assert "only an instance that has failed can be rewound" in refused(5, "rewind", "o-1")
    assert worked_off() == {"o-1": ["reserved o-1", "paid o-1"]}


def test_a_rewind_says_what_it_did_as_json_and_takes_an_event() -> None:
    assert "events 1 to 9" in refused(2, "rewind", "o-1", "--at", "10")
    assert "is not a valid integer" in refused(2, "rewind", "o-1", "--at", "first")
    assert accepted("rewind", "o-1", "--at", "5", "--json") == {"id": "o-1", "rewound": True}
    assert history_of("o-1")[-1] == "ExecutionRewound"
    assert history_of("o-1").count("TaskScheduled") == 1


def test_a_restart_begins_anew_under_the_same_id_or_another() -> None:
    assert invoke("restart", "o-1").stdout == "o-1\n"
    assert accepted("restart", "o-1", "--id", "o-2", "--input", '"x"', "--set-tag", "a=b", "--json") == {"id": "o-2"}
    assert "under its own id it can be restarted when it has finished" in refused(5, "restart", "o-1")
    assert "error RF202" in refused(5, "restart", "o-1", "--id", "o-2")
    assert accepted("show", "o-2", "--json")["tags"] == {"a": "b"}
    assert worked_off() == {"o-1": ["reserved o-1", "paid o-1"], "o-2": ["reserved x", "paid x"]}


def test_those_that_have_failed_are_rewound_or_restarted_together() -> None:
    accepted("restart", "o-1", "--id", "o-2", "--json")
    accepted("terminate", "o-2", "--json")
    assert "1 instance fits. Pass --yes" in refused(2, "rewind", "--all")
    assert invoke("rewind", "--name", "pay", "--yes").stdout == "rewind 1 instance: 1 accepted, 0 refused\n"
    assert history_of("o-1")[-1] == "ExecutionRewound"
    with process("worker", "bank.py:app") as started:
        started.says("serving")
        until(lambda: [one["status"] for one in accepted("list", "--json")["instances"]] == ["FAILED", "TERMINATED"])
    done = accepted("restart", "--all", "--status", "failed", "--status", "terminated", "--yes", "--json")
    assert (done["requested"], done["found"], done["done"]) == ("restart", 2, 2)
    assert worked_off() == {id: ["reserved o-1", "paid o-1"] for id in ("o-1", "o-2")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rewind",), "Say who is meant"),
        (("rewind", "--all", "--at", "3"), "--at is for one instance"),
        (("restart", "--all", "--id", "x"), "--id is for one instance"),
        (("restart", "--all", "--set-tag", "a=b"), "--set-tag is for one instance"),
        (("restart", "--all", "--input-file", "x.json"), "--input-file is for one instance"),
        (("restart", "o-1", "--name", "pay"), "an id and a filter are both given"),
    ],
)
def test_many_are_not_mixed_with_what_is_for_one(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(2, *arguments)
    assert history_of("o-1")[-1] == "ExecutionCompleted"


def test_a_fork_has_other_results_where_they_are_given() -> None:
    assert invoke("fork", "o-1", "--id", "f-1", "--set-result", '2="paid in cash"').stdout == "f-1\n"
    assert accepted("fork", "o-1", "--id", "f-2", "--set-result", '1="held"', "--json") == {"id": "f-2"}
    invoke("fork", "o-1", "--id", "f-3", "--at", "1", "--input", '"other"')
    accepted("rewind", "o-1", "--json")
    assert "from event 5 of o-1" in invoke("history", "f-2", columns=200).stdout
    assert worked_off() == {
        "o-1": ["reserved o-1", "paid o-1"],
        "f-1": ["reserved o-1", "paid in cash"],
        "f-2": ["held", "paid o-1"],
        "f-3": ["reserved other", "paid other"],
    }


def test_a_dry_run_exits_with_whether_the_code_fits(folder: Path) -> None:
    fits = invoke("fork", "o-1", "--dry-run", "--app", "bank.py:app")
    assert (fits.exit_code, "the code does what the 6 events say" in fits.stdout) == (0, True)
    (folder / "other.py").write_text(BANK.replace("call_activity(charge", "call_activity(reserve"), "utf-8")
    parts = invoke("fork", "o-1", "--dry-run", "--app", "other.py:app")
    assert parts.exit_code == 1
    assert "in the episode that begins with event 4: instance 'o-1': the history has activity 'charge'" in parts.stdout
    said = invoke("fork", "o-1", "--dry-run", "--app", "other.py:app", "--json")
    assert (said.exit_code, '"fits": false' in said.stdout, '"event": 4' in said.stdout) == (1, True, True)
    assert len(accepted("list", "--json")["instances"]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--dry-run",), "--dry-run needs the code: --app MODULE:APP"),
        (("--set-result", "1"), "write it as --set-result"),
        (("--set-result", "x=1"), "write it as --set-result"),
        (("--set-result", "1=cash"), "--set-result '1=\"a text\"'"),
        (("--set-result", "1=1", "--set-result", "1=2"), "gives task 1 two results"),
        (("--set-result", "7=1"), "task 7: what is kept"),
        (("--at", "0"), "event 0: the history of instance 'o-1' has events 1 to 9"),
        (("--input", '"x"'), "a fork with another input needs `at`"),
        (("--input", "3", "--at", "1", "--app", "bank.py:app"), "expected str"),
        (("--execution", "none"), "has no execution 'none'"),
        (("--id", "a/b"), "an instance id has no control characters"),
    ],
)
def test_a_fork_that_makes_no_sense_writes_nothing(arguments: tuple[str, ...], said: str) -> None:
    result = invoke("fork", "o-1", *arguments)
    assert result.exit_code in (2, 4)
    assert said in result.stderr
    assert result.stdout == ""
    assert len(accepted("list", "--json")["instances"]) == 1
