"""purge, verbs for many, a start with an event, and a worker's retention."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from tests.cli.terminal import accepted, databases, invoke, refused, until, worker


def statuses() -> dict[str, str]:
    return {one["id"]: one["status"] for one in accepted("list", "--json")["instances"]}


def start_some() -> None:
    for id in ("a", "b"):
        accepted("start", "approval", "--id", id, "--tag", "team=red", "--json")
    for id in ("c", "d"):
        accepted("start", "checkout", "--id", id, "--input", f'{{"id": "{id}"}}', "--json")


def all_are(**expected: str) -> bool:
    return statuses() == expected


def test_a_finished_instance_is_purged_and_others_are_refused() -> None:
    with worker():
        start_some()
        until(lambda: all_are(a="RUNNING", b="RUNNING", c="COMPLETED", d="COMPLETED"))
        assert invoke("purge", "c").stdout == "'c' is gone\n"
        assert "'a' is RUNNING: only one that has finished" in refused(5, "purge", "a")
        assert "error RF201" in refused(4, "purge", "c")
        assert accepted("purge", "d", "--no-recursive", "--json") == {"id": "d", "purged": 1}
        assert all_are(a="RUNNING", b="RUNNING")


def test_a_filter_purges_what_has_finished_once_it_is_certain() -> None:
    with worker():
        start_some()
        until(lambda: all_are(a="RUNNING", b="RUNNING", c="COMPLETED", d="COMPLETED"))
        assert accepted("purge", "--all", "--dry-run", "--json") == {"found": 2}
        assert "2 instances fit. Pass --yes" in refused(2, "purge", "--all")
        assert "2 instances fit. Pass --yes" in refused(2, "purge", "--all", "--json")
        assert accepted("purge", "--completed-to", "-1h", "--yes", "--json") == {"requested": "purge", "purged": 0}
        assert invoke("purge", "--name", "checkout", "--yes").stdout == "2 instances are gone\n"
        assert all_are(a="RUNNING", b="RUNNING")


def test_a_damaged_instance_is_purged_when_that_is_said_and_a_sound_one_is_not() -> None:
    start_some()
    [file] = [name for name in databases() if name.endswith(".db")]
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("UPDATE instance SET parent_id = 'b\x1b[2J', name = 'oops' WHERE id = 'a'")
        connection.execute("UPDATE history SET events = x'00'")
    listed = invoke("list", "--json").stdout
    [shown] = [one for one in json.loads(listed)["instances"] if one["id"] == "a"]
    assert "does not read back as it was written" in shown["problem"]
    assert invoke("list").stderr.count("does not read back") == 1
    assert "purge ID --damaged" in invoke("doctor").stdout
    assert "reads back as it was written" in refused(5, "purge", "b", "--damaged")
    assert "--damaged is for one instance" in refused(2, "purge", "--all", "--damaged")
    assert "error RF201" in refused(4, "purge", "nobody", "--damaged")
    result = invoke("purge", "a", "--damaged")
    assert (result.exit_code, result.stdout) == (0, "'a' is gone, damaged as it was\n")
    assert "lost: an instance of 'oops', PENDING, pieces of history: 0" in result.stderr
    assert "it said that 'b\\x1b[2J' had started it" in result.stderr
    assert set(statuses()) == {"b", "c", "d"}
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("UPDATE instance SET output = x'00' WHERE id = 'b'")
    gone = accepted("purge", "b", "--damaged", "--json")
    assert (gone["purged"], gone["lost"]["faults"]) == (1, ["its row does not read back as it was written"])


def test_a_verb_for_many_says_how_many_took_it_and_why_the_others_did_not() -> None:
    with worker():
        start_some()
        until(lambda: all_are(a="RUNNING", b="RUNNING", c="COMPLETED", d="COMPLETED"))
        assert invoke("suspend", "--tag", "team=red", "--yes").stdout == "suspend 2 instances: 2 accepted, 0 refused\n"
        until(lambda: all_are(a="SUSPENDED", b="SUSPENDED", c="COMPLETED", d="COMPLETED"))
        result = invoke("suspend", "--status", "suspended", "--status", "completed", "--yes")
        assert result.exit_code == 5
        assert "suspend 4 instances: 0 accepted, 4 refused" in result.stdout
        assert "2 times: it is suspended already" in result.stderr
        assert accepted("resume", "--all", "--yes", "--json") == {
            "requested": "resume",
            "found": 2,
            "done": 2,
            "refused": 0,
            "reasons": {},
        }
        until(lambda: all_are(a="RUNNING", b="RUNNING", c="COMPLETED", d="COMPLETED"))
        sent = accepted("raise-event", "approved", "--prefix", "a", "--payload", "[1]", "--yes", "--json")
        assert (sent["requested"], sent["done"]) == ("raise-event", 1)
        assert accepted("result", "a", "--wait", "10") == [1]
        assert accepted("cancel", "--all", "--yes", "--json")["done"] == 1
        until(lambda: statuses()["b"] == "CANCELED")
        assert accepted("terminate", "--all", "--yes", "--json")["found"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("terminate",), "--all"),
        (("purge", "--yes"), "--all"),
        (("raise-event",), "an ID and the event's NAME"),
        (("raise-event", "a", "b", "c"), "an ID and the event's NAME"),
        (("raise-event", "approved"), "--all"),
        (("suspend", "a", "--all"), "an id and a filter are both given"),
        (("purge", "a", "--status", "FAILED"), "an id and a filter are both given"),
        (("purge", "a", "--dry-run"), "--dry-run counts those that a filter finds"),
        (("raise-event", "a", "approved", "--all"), "an id and a filter are both given"),
        (("terminate", "--created-to", "yesterday", "--yes"), "--created-to -3h"),
        (("terminate", "--created-from", "2030-01-31T08:00:00", "--yes"), "has no time zone"),
        (("cancel", "--completed-from", "-3y", "--yes"), "--completed-from -3h"),
        (("purge", "--status", "gone", "--yes"), "'gone' is not one of"),
    ],
)
def test_a_command_that_does_not_say_who_is_meant_asks_nobody(arguments: tuple[str, ...], said: str) -> None:
    accepted("start", "approval", "--id", "a", "--json")
    assert said in refused(2, *arguments)
    assert statuses() == {"a": "PENDING"}


def test_a_start_with_an_event_starts_once_and_takes_each_event_once() -> None:
    arguments = ("start", "approval", "--id", "s", "--signal", "approved", "--payload", '"yes"', "--dedupe-key", "k")
    for _ in range(2):
        assert invoke(*arguments).stdout == "s\n"
    with worker():
        assert accepted("result", "s", "--wait", "10") == "yes"
        assert accepted(*arguments, "--json") == {"id": "s"}
        assert "error RF203" in refused(5, *arguments[:-1], "other")
        invoke(*arguments[:-1], "other", "--on-existing", "replace-finished")
        assert accepted("result", "s", "--wait", "10") == "yes"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--signal", "approved"), "--signal is for the instance with an --id"),
        (("--signal", "approved", "--id", "s", "--at", "+5"), "not with --at"),
        (("--id", "s", "--payload", "1"), "name it with --signal"),
        (("--id", "s", "--signal", "approved", "--on-existing", "return"), "'error' or 'replace_finished'"),
        (("--id", "s", "--signal", "approved", "--payload", "yes"), "is not JSON"),
    ],
)
def test_a_start_with_an_event_that_makes_no_sense_starts_nothing(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(2, "start", "approval", *arguments)
    assert databases() == [] or statuses() == {}


def test_a_worker_with_a_retention_lets_old_instances_go() -> None:
    accepted("start", "checkout", "--id", "c", "--input", '{"id": "c"}', "--json")
    accepted("start", "approval", "--id", "a", "--json")
    with worker():
        accepted("result", "c", "--wait", "10")
    with worker("--retain", "completed=0s", "--retain", "executions=3"):
        until(lambda: all_are(a="RUNNING"))


@pytest.mark.parametrize("retain", ["7d", "completed=soon", "completed", "gone=7d", "executions=x", "failed=-1d"])
def test_a_retention_that_is_none_is_refused(retain: str) -> None:
    assert "--retain is" in refused(2, "worker", "flows:app", "--retain", retain)
    assert databases() == []


def test_one_instance_is_one_instance() -> None:
    accepted("start", "approval", "--id", "a", "--json")
    assert invoke("cancel", "--all", "--dry-run").stdout == "1 instance fits; nothing was asked\n"
    assert "1 instance fits. Pass --yes to cancel it, or --dry-run to count only." in refused(2, "cancel", "--all")
    assert invoke("cancel", "--all", "--yes").stdout == "cancel 1 instance: 1 accepted, 0 refused\n"
