"""run: the result, the refusals, and how it goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from replayflow.client import instance_id_for
from replayflow.codec import Codec
from tests.cli.terminal import FLOWS, accepted, databases, invoke, refused

ORDER = '{"id": "o-1", "total": 5}'
RESULT = {"receipt": "receipt-o-1", "due": None, "type": "Order"}


def test_the_result_is_the_only_thing_on_stdout() -> None:
    result = invoke("run", "flows.py:checkout", "--input", ORDER)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == RESULT
    assert "charging o-1" in result.stderr


def test_a_second_run_returns_the_result_and_runs_nothing_again() -> None:
    accepted("run", "flows:checkout", "--input", ORDER)
    again = invoke("run", "flows:checkout", "--input", '{ "id":"o-1",\n"total":5 }')
    assert json.loads(again.stdout) == RESULT
    assert "has ended before, COMPLETED" in again.stderr
    assert Path("charged.txt").read_text("utf-8") == "o-1\n"


def test_the_default_id_is_that_of_the_library() -> None:
    accepted("run", "flows:checkout", "--input", ORDER)
    expected = instance_id_for("checkout", Codec().encode({"id": "o-1", "total": 5}))
    assert [state["id"] for state in accepted("list", "--json")["instances"]] == [expected]


def test_what_json_can_only_spell_is_rebuilt_from_the_annotation() -> None:
    document = accepted("run", "flows:checkout", "--input", '{"id": "o-1", "due": "2030-01-31T08:00:00+01:00"}')
    assert document["due"] == "2030-01-31T08:00:00+01:00"
    assert document["type"] == "Order"


def test_the_input_comes_from_stdin_or_a_file(folder: Path) -> None:
    (folder / "order.json").write_text(ORDER, "utf-8-sig")
    assert accepted("run", "flows:checkout", "--input", "-", "--id", "a", stdin=ORDER) == RESULT
    assert accepted("run", "flows:checkout", "--input-file", "order.json", "--id", "b") == RESULT


def test_a_failure_shows_its_causes_and_the_users_lines_alone() -> None:
    text = refused(1, "run", "flows:checkout", "--input", '{"id": "o-1", "total": -1}')
    assert "error RF211" in text
    assert "ActivityError: activity 'charge' (task 1) failed\n" in text
    assert "caused by ValueError: a negative total" in text
    assert "caused by KeyError: 'card'" in text
    assert 'raise ValueError("a negative total") from error' in text
    assert "replayflow/engine" not in text.replace("\\", "/")
    assert "replayflow explain RF211" in text


def test_a_failure_is_one_document_with_json() -> None:
    text = refused(1, "run", "flows:checkout", "--json", "--input", '{"id": "o-1", "total": -1}')
    error = json.loads(text.splitlines()[-1])["error"]  # what the code prints comes before
    assert (error["code"], error["type"]) == ("RF211", "OrchestrationFailed")
    assert error["details"]["inner"]["type"] == "ValueError"


def test_a_timeout_leaves_the_instance_as_it_is(folder: Path) -> None:
    arguments = ("run", "flows:gated", "--input", '"gate"', "--id", "g")
    assert "has not finished" in refused(124, *arguments, "--timeout", "0.3", "--grace", "0")
    assert accepted("show", "g", "--json")["status"] == "RUNNING"
    (folder / "gate").touch()
    assert accepted(*arguments) == ["receipt-first", "gate"]
    assert (folder / "charged.txt").read_text("utf-8") == "first\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--input", "alice"), """--input '"alice"'"""),
        (("--input", "{'id': 1}"), "single quotes"),
        (("--input", "-"), "the text on stdin is not JSON"),
        (("--input-file", "nowhere.json"), "cannot be read"),
        (("--input", "1", "--input-file", "x"), "both given"),
        (("--input", '{"id": 7}'), "checkout'.id: expected str"),
        (("--input", ORDER, "--id", "a/b"), "none of / \\ # ?"),
        (("--timeout", "soon"), "not a valid float"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(2, "run", "flows:checkout", *arguments, stdin="{")
    if "--id" not in arguments:
        assert databases() == []


def test_an_input_that_nobody_takes_is_refused() -> None:
    assert "takes no input" in refused(2, "run", "flows:approval", "--input", "1")


def test_an_input_that_is_needed_is_asked_for() -> None:
    assert "give it one with --input" in refused(2, "run", "flows:checkout")
    assert accepted("list", "--json")["instances"] == []
    assert "give it one with --input" in refused(2, "start", "checkout", "--app", "flows:app")


def test_an_id_of_another_orchestrator_is_refused() -> None:
    accepted("start", "approval", "--id", "x", "--json")
    assert "is one of 'approval'" in refused(5, "run", "flows:checkout", "--input", ORDER, "--id", "x")


def test_an_instance_that_the_code_does_not_fit_ends_the_run(folder: Path) -> None:
    refused(124, "run", "flows:gated", "--input", '"gate"', "--id", "g", "--timeout", "0.3", "--grace", "0")
    del sys.modules["flows"]
    (folder / "flows.py").write_text(FLOWS.replace('charge, Order("first")', "held, gate"), "utf-8")
    (folder / "gate").touch()
    text = refused(5, "run", "flows:gated", "--input", '"gate"', "--id", "g")
    assert "is parked" in text
    assert "activity 'charge'" in text


def test_a_store_in_memory_serves_one_run() -> None:
    assert accepted("run", "flows:checkout", "--input", ORDER, "--store", "memory://") == RESULT
    assert databases() == []
