"""start and the verbs: what is asked for is durable, what makes no sense is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.terminal import accepted, databases, invoke, refused, until, worker


def status(id: str) -> str:
    found: str = accepted("show", id, "--json")["status"]
    return found


def test_start_prints_the_id_alone() -> None:
    assert invoke("start", "checkout", "--id", "o-1", "--input", "{}").stdout == "o-1\n"
    assert accepted("start", "checkout", "--json")["id"]


def test_start_keeps_input_tags_and_version() -> None:
    invoke(
        "start",
        "checkout",
        "--id",
        "o",
        "--input",
        '{"a": [1, null]}',
        "--tag",
        "a=b",
        "--tag",
        "c=d=e",
        "--version",
        "2",
    )
    state = accepted("show", "o", "--json")
    assert state["input"] == {"a": [1, None]}
    assert state["tags"] == {"a": "b", "c": "d=e"}
    assert state["version"] == "2"


def test_a_start_waits_for_its_time() -> None:
    at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    invoke("start", "approval", "--id", "late", "--at", at)
    invoke("start", "approval", "--id", "later", "--at", "+3600")
    invoke("start", "checkout", "--id", "now", "--input", '{"id": "o-1"}')
    with worker():
        until(lambda: status("now") == "COMPLETED")
        assert (status("late"), status("later")) == ("PENDING", "PENDING")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--at", "2030-01-31T08:00:00"), "has no time zone: write 2030-01-31T08:00:00Z"),
        (("--at", "tomorrow"), "+3h"),
        (("--at", "+1e300"), "+3h"),
        (("--tag", "team"), "--tag key=value"),
        (("--input", "{"), "is not JSON"),
        (("--app", "flows:app"), "no orchestrator 'unknown'"),
        (("--on-existing", "maybe"), "'maybe' is not one of"),
    ],
)
def test_a_start_that_makes_no_sense_writes_nothing(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(2, "start", "unknown", *arguments)
    assert databases() == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("start checkout --id a/b", "none of / \\ # ?"),
        ("start checkout --id @box@1", "those of entities"),
        ("start checkout --id a --tag k=\ud800", "cannot be stored"),
        ("start checkout --id a/b --signal go", "none of / \\ # ?"),
        ("start checkout --id a --signal go --dedupe-key=", "dedupe_key has 0"),
        ("run flows:approval --id a/b", "none of / \\ # ?"),
        ("schedule create a/b checkout --every 5m", "no name for a schedule"),
        ("schedule create a checkout --cron never", "cron"),
        ("entity signal @box@1 add --dedupe-key=", "dedupe_key has 0"),
    ],
)
@pytest.mark.parametrize("is_there", [False, True])
def test_what_an_empty_hub_refuses_makes_none(command: str, said: str, is_there: bool) -> None:
    """Nor does it make a hub of a file that is empty."""
    if is_there:
        Path("new.db").touch()
    assert said in refused(2, *command.split(), "--store", "new.db")
    assert not is_there or Path("new.db").stat().st_size == 0
    assert databases() == (["new.db"] if is_there else [])


def test_lengths_of_time_are_written_alike() -> None:
    for at in ("+3600", "+60m", "+1h", "+0h60m"):
        accepted("start", "checkout", "--id", at.removeprefix("+"), "--at", at, "--json")
    assert accepted("count", "--created-from", "-1h30m", "--json")["total"] == 4
    assert accepted("count", "--created-to", "-1w", "--json")["total"] == 0
    assert all(0 < left <= 3600 for left in map(seconds_to_its_start, ("3600", "60m", "1h", "0h60m")))


def seconds_to_its_start(id: str) -> float:
    [wait] = [wait for wait in accepted("show", id, "--json")["waits"] if wait["kind"] == "start"]
    return (datetime.fromisoformat(wait["until"]) - datetime.now(UTC)).total_seconds()


def test_an_app_checks_the_input_too() -> None:
    assert "expected str" in refused(2, "start", "checkout", "--app", "flows:app", "--input", '{"id": 1}')
    assert databases() == []


def test_an_id_that_is_taken_is_refused_or_returned_as_asked() -> None:
    accepted("start", "approval", "--id", "x", "--json")
    assert "error RF202" in refused(5, "start", "approval", "--id", "x")
    assert accepted("start", "approval", "--id", "x", "--json", "--on-existing", "return") == {"id": "x"}
    assert "RF20" in refused(5, "start", "approval", "--id", "x", "--on-existing", "replace-finished")


def test_a_payload_that_is_not_json_is_refused_with_the_quoting() -> None:
    accepted("start", "approval", "--id", "x", "--json")
    assert """--payload '"yes"'""" in refused(2, "raise-event", "x", "approved", "--payload", "yes")


def test_verbs_reach_an_instance_that_a_worker_runs() -> None:
    with worker():
        for id in ("a", "b", "c"):
            accepted("start", "approval", "--id", id, "--json")
        until(lambda: {status(id) for id in ("a", "b", "c")} == {"RUNNING"})

        assert "accepted" in invoke("suspend", "a", "--reason", "lunch").stdout
        until(lambda: status("a") == "SUSPENDED")
        assert "is suspended already" in refused(5, "suspend", "a")
        assert accepted("resume", "a", "--json") == {"id": "a", "requested": "resume"}
        until(lambda: status("a") == "RUNNING")
        assert "only a suspended instance" in refused(5, "resume", "a")

        for _ in range(2):
            invoke("raise-event", "a", "Approved", "--payload", '{"by": "me"}', "--dedupe-key", "once")
        assert accepted("result", "a", "--wait", "10") == {"by": "me"}
        assert "error RF203" in refused(5, "raise-event", "a", "approved")
        assert invoke("raise-event", "a", "approved", "--dedupe-key", "once").exit_code == 0
        assert "nothing to suspend" in refused(5, "suspend", "a")

        accepted("terminate", "b", "--json", "--reason", "no more", "--no-recursive")
        assert "was terminated: no more" in refused(1, "result", "b", "--wait", "10")
        accepted("cancel", "c", "--json", "--reason", "changed my mind")
        assert "RF213" in refused(1, "result", "c", "--wait", "10")
