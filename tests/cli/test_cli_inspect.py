"""list, show, history, result, explain: what they show, and that they change nothing."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from replayflow import errors
from tests.cli.terminal import accepted, databases, invoke, refused

NEEDS_AN_INSTANCE = [
    ("show", "x"),
    ("history", "x"),
    ("result", "x"),
    ("raise-event", "x", "go"),
    ("suspend", "x"),
    ("resume", "x"),
    ("cancel", "x"),
    ("terminate", "x"),
    ("rewind", "x"),
    ("restart", "x"),
    ("fork", "x"),
]


def started(id: str, *arguments: str) -> str:
    found: str = accepted("start", "approval", "--id", id, "--json", *arguments)["id"]
    return found


@pytest.mark.parametrize("arguments", [("list",), *NEEDS_AN_INSTANCE])
def test_a_missing_file_is_not_found_and_not_made(arguments: tuple[str, ...]) -> None:
    assert "there is no task hub at" in refused(4, *arguments, "--store", "none.db")
    assert databases() == []


@pytest.mark.parametrize("arguments", NEEDS_AN_INSTANCE)
def test_an_unknown_id_is_not_found(arguments: tuple[str, ...]) -> None:
    started("known")
    assert "error RF201" in refused(4, *arguments)


@pytest.mark.parametrize("arguments", [("list",), ("show", "x"), ("start", "checkout"), ("run", "flows:approval")])
def test_a_database_of_something_else_is_refused_and_left_as_it_is(arguments: tuple[str, ...], folder: Path) -> None:
    with closing(sqlite3.connect("other.db")) as connection:
        connection.execute("CREATE TABLE theirs (id INTEGER)")
    before = (folder / "other.db").read_bytes()
    assert "error RF306" in refused(3, *arguments, "--store", "other.db")
    assert (folder / "other.db").read_bytes() == before


def test_a_file_that_is_no_database_is_refused(folder: Path) -> None:
    (folder / "notes.txt").write_text("not a database, but long enough to be asked for its head", "utf-8")
    assert "RF306" in refused(3, "list", "--store", "notes.txt")


def test_an_empty_file_is_no_hub_yet(folder: Path) -> None:
    (folder / "new.db").touch()
    assert "is empty" in refused(4, "list", "--store", "new.db")
    assert (folder / "new.db").stat().st_size == 0


def test_the_memory_of_one_process_cannot_be_listed() -> None:
    assert "memory of one process" in refused(2, "list", "--store", "memory://")


def test_the_environment_names_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from replayflow.cli import main

    started("a", "--store", "elsewhere.db")
    monkeypatch.setenv("REPLAYFLOW_STORE", "elsewhere.db")
    result = CliRunner().invoke(main, ["list", "--json"])
    assert [state["id"] for state in json.loads(result.stdout)["instances"]] == ["a"]
    assert databases() == sorted(name for name in databases() if name.startswith("elsewhere"))


def test_list_filters_and_reads_on_page_by_page() -> None:
    for id in ("a-1", "a-2", "b-1"):
        started(id, "--tag", f"team={id[0]}")
    accepted("start", "other", "--id", "c-1", "--json")

    def ids(*arguments: str) -> list[str]:
        return [state["id"] for state in accepted("list", "--json", *arguments)["instances"]]

    assert ids("--prefix", "a-") == ["a-1", "a-2"]
    assert ids("--tag", "team=b") == ["b-1"]
    assert ids("--name", "other") == ["c-1"]
    assert ids("--status", "completed") == []
    assert ids("--status", "pending", "--status", "failed") == ["a-1", "a-2", "b-1", "c-1"]
    assert ids("--parked") == []
    page = accepted("list", "--json", "--limit", "3")
    assert len(page["instances"]) == 3
    assert ids("--cursor", page["cursor"]) == ["c-1"]
    assert "there are more: --cursor" in invoke("list", "--limit", "3").stderr


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_keep_to_the_width_of_the_terminal(columns: int) -> None:
    started("an-id-of-some-length", "--input", json.dumps({"text": "long " * 100}))
    started("x" * 100)
    for arguments in (("list",), ("history", "an-id-of-some-length"), ("show", "an-id-of-some-length"), ("explain",)):
        lines = invoke(*arguments, columns=columns).stdout.splitlines()
        assert lines
        assert max(map(len, lines)) <= columns
    assert "an-id-of-some-length" in invoke("list", columns=columns).stdout


def test_text_of_users_is_never_read_as_markup() -> None:
    started("[red]id[-]", "--tag", "a=[bold]b")
    assert "[red]id[-]" in invoke("list").stdout
    assert "a=[bold]b" in invoke("show", "[red]id[-]").stdout


def test_show_has_all_of_the_state() -> None:
    accepted("run", "flows:checkout", "--id", "o", "--input", '{"id": "o-1"}')
    state = accepted("show", "o", "--json")
    assert state["input"] == {"id": "o-1"}
    assert state["output"]["receipt"] == "receipt-o-1"
    assert state["custom_status"] == {"phase": "charging"}
    assert (state["status"], state["problem"], state["failure"]) == ("COMPLETED", None, None)
    assert state["completed_at"].endswith("+00:00")
    text = invoke("show", "o").stdout
    for part in ("COMPLETED", "receipt-o-1", '{"phase": "charging"}', "took"):
        assert part in text


def test_show_tells_a_failure_as_run_does() -> None:
    invoke("run", "flows:checkout", "--id", "o", "--input", '{"id": "o-1", "total": -1}')
    text = invoke("show", "o").stdout
    assert "caused by KeyError: 'card'" in text
    assert accepted("show", "o", "--json")["failure"]["inner"]["inner"]["type"] == "KeyError"


def test_a_history_tells_what_each_event_is_about() -> None:
    accepted("run", "flows:checkout", "--id", "o", "--input", '{"id": "o-1"}')
    document = accepted("history", "o", "--json")
    events = document["events"]
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    kinds = {event["event"]: event for event in events}
    assert kinds["ExecutionStarted"]["input"] == {"id": "o-1"}
    assert kinds["TaskScheduled"]["name"] == "charge"
    assert kinds["TaskScheduled"]["site"].partition(":")[0].endswith("flows.py")
    assert kinds["TaskCompleted"]["result"] == "receipt-o-1"
    assert kinds["TaskCompleted"]["task_scheduled_id"] == kinds["TaskScheduled"]["event_id"] == 1
    assert kinds["CustomStatusSet"]["custom_status"] == {"phase": "charging"}
    assert document["cursor"] is None
    text = invoke("history", "o").stdout
    for part in ("TaskScheduled", "charge", "flows.py:", "receipt-o-1", "COMPLETED"):
        assert part in text


MAPS = """
from replayflow import App, OrchestrationContext

app = App()


@app.activity
def odd(x: int) -> int:
    if x % 10 == 9:
        raise ValueError(f"{x} ends in nine")
    return x


@app.activity
def numbers(cursor: int | None) -> tuple[list[int], int | None]:
    first = cursor or 0
    return list(range(first, first + 4)), first + 4 if first < 4 else None


@app.activity
def evens(batch: list[int]) -> list[int]:
    return [2 * x for x in batch]


@app.orchestrator
def batch(ctx: OrchestrationContext, count: int):
    result = yield ctx.map(odd, range(count), tolerated_failures=0.1, on_item_error="collect")
    twice = yield ctx.map(evens, numbers, batch_size=3)
    return [len(result.succeeded), sum(twice.succeeded)]
"""


def test_a_map_is_shown_with_how_far_it_is_and_its_history_reads_well(folder: Path) -> None:
    (folder / "maps.py").write_text(MAPS, "utf-8")
    accepted("run", "maps:batch", "--id", "b", "--json", "--input", "40")
    shown = accepted("show", "b", "--json")["maps"]
    assert [(one["name"], one["total"], one["done"], one["failed"], one["is_over"]) for one in shown] == [
        ("odd", 40, 36, 4, True),
        ("evens", 8, 8, 0, True),
    ]
    text = invoke("show", "b").stdout
    assert "odd (task 1): 36 of 40 items done, 4 failed, over" in text
    history = invoke("history", "b").stdout
    assert "odd, 40 items" in history
    assert "[0, 1, 2, 3, 4, ...]" in history
    assert "evens, pages of numbers" in history
    assert "evens: page 0, 4 items" in history
    assert "ends in nine" in history  # the first failure of those that came together
    events = accepted("history", "b", "--json")["events"]
    (scheduled,) = [event for event in events if event["event"] == "MapScheduled" and event["name"] == "odd"]
    assert scheduled["items"] == list(range(40))
    failed = [failure for event in events for failure in event.get("failures", [])]
    assert {failure["failure_details"]["type"] for failure in failed} == {"ValueError"}
    pages = [(event["items"], event["cursor"]) for event in events if event["event"] == "MapPage"]
    assert pages == [([0, 1, 2, 3], 4), ([4, 5, 6, 7], None)]
    results = [r for e in events if e["event"] == "MapProgress" and e["task_scheduled_id"] == 2 for r in e["results"]]
    assert sorted(results) == [[0, 2, 4], [6], [8, 10, 12], [14]]


def test_a_history_is_read_in_pieces_and_by_execution() -> None:
    accepted("run", "flows:checkout", "--id", "o", "--input", '{"id": "o-1"}')
    first = accepted("history", "o", "--json", "--limit", "2")
    rest = accepted("history", "o", "--json", "--cursor", str(first["cursor"]))
    whole = accepted("history", "o", "--json", "--execution", accepted("show", "o", "--json")["execution_id"])
    assert first["events"] + rest["events"] == whole["events"]
    assert "no execution" in refused(4, "history", "o", "--execution", "none")


def test_a_result_is_there_at_the_end_and_not_before() -> None:
    started("open")
    assert "has no result yet, it is PENDING" in refused(5, "result", "open")
    assert "has not finished within" in refused(124, "result", "open", "--wait", "0.05")
    accepted("run", "flows:checkout", "--id", "o", "--input", '{"id": "o-1"}')
    assert accepted("result", "o")["receipt"] == "receipt-o-1"
    assert accepted("result", "o", "--json", "--wait", "1")["receipt"] == "receipt-o-1"
    invoke("run", "flows:checkout", "--id", "bad", "--input", '{"id": "o-1", "total": -1}')
    assert "caused by ValueError" in refused(1, "result", "bad")


@pytest.mark.parametrize("error", errors.every(), ids=lambda error: str(error.__dict__["code"]))
def test_every_code_is_explained(error: type[BaseException]) -> None:
    code = str(error.__dict__["code"])
    result = invoke("explain", code.lower())
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{code} {error.__name__}\n")
    assert accepted("explain", error.__name__, "--json")["code"] == code


def test_all_codes_are_listed_and_an_unknown_one_is_refused() -> None:
    assert len(accepted("explain", "--json")["errors"]) == len(errors.every())
    assert "RF999" in refused(2, "explain", "RF999")


@pytest.mark.parametrize(
    ("exit_code", "arguments", "code", "type"),
    [
        (4, ("show", "x", "--store", "none.db"), "RF309", "StoreUnavailableError"),
        (4, ("show", "x"), "RF201", "InstanceNotFoundError"),
        (2, ("list", "--cursor", "x"), "RF103", "InvalidArgumentError"),
        (2, ("list", "--status", "lost"), None, "BadParameter"),
        (5, ("result", "known"), "RF204", "InvalidStateError"),
    ],
)
def test_with_json_an_error_is_one_document_on_stderr(
    exit_code: int, arguments: tuple[str, ...], code: str | None, type: str
) -> None:
    started("known")
    error = json.loads(refused(exit_code, *arguments, "--json"))["error"]
    assert (error["code"], error["type"]) == (code, type)
    assert error["message"]


def test_the_help_has_the_exit_codes_and_the_environment() -> None:
    text = invoke("--help").stdout
    for part in ("Exit codes:", "124  not finished within the time limit", "raise-event"):
        assert part in text
    assert "REPLAYFLOW_STORE" in invoke("list", "--help").stdout


def test_a_large_value_is_shown_shortened_and_whole_as_json(folder: Path) -> None:
    text = "x" * 5_000 + "the end"
    started("large", "--input", json.dumps(text))
    shown = invoke("show", "large").stdout
    assert "(5,009 characters; --json shows them all)" in shown
    assert "the end" not in shown
    assert json.loads(invoke("show", "large", "--json").stdout)["input"] == text


def test_a_listing_says_of_a_large_value_that_it_was_not_read(folder: Path) -> None:
    noise = Random(1).randbytes(100_000).hex()
    started("large", "--input", json.dumps(noise))
    [listed] = json.loads(invoke("list", "--json").stdout)["instances"]
    assert listed["input"] == {"large_value_bytes": listed["input"]["large_value_bytes"]}
    assert listed["input"]["large_value_bytes"] > 65_536


def test_without_the_key_values_are_encrypted_and_all_else_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAYFLOW_CIPHER", "tests.ciphers:ToyCipher")
    started("sealed", "--input", '"the secret"')
    assert "the secret" in accepted_text("show", "sealed")
    monkeypatch.delenv("REPLAYFLOW_CIPHER")
    shown = accepted_text("show", "sealed")
    assert "(encrypted)" in shown
    assert "the secret" not in shown
    assert "(encrypted)" in accepted_text("history", "sealed")
    assert accepted("show", "sealed", "--json")["input"] == {"encrypted_with": "k1"}
    assert accepted("list", "--json")["instances"][0]["input"] == {"encrypted_with": "k1"}


def test_a_cipher_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAYFLOW_CIPHER", "nowhere")
    assert "error RF115" in refused(2, "start", "checkout")
    assert databases() == []


def accepted_text(*arguments: str) -> str:
    found = invoke(*arguments)
    assert found.exit_code == 0
    return found.stdout
