"""list, count, tree, show and doctor: what they find, how they say it, and what they refuse."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from replayflow import SqliteStore, Wait, WaitKind
from replayflow.cli import waiting
from tests import menagerie
from tests.cli.terminal import accepted, invoke, refused

CODE = "from tests.menagerie import app as make\napp = make(2)\n"


@pytest.fixture
def hub(folder: Path) -> Path:
    """A hub with instances in every state, in the working directory, where `replayflow` finds it."""
    (folder / "zoo.py").write_text(CODE, "utf-8")
    asyncio.run(menagerie.fill(SqliteStore(folder / "replayflow.db")))
    return folder / "replayflow.db"


def ids(*arguments: str) -> list[str]:
    return [state["id"] for state in accepted("list", "--json", *arguments)["instances"]]


# ---- list, count


def test_list_takes_every_filter(hub: Path) -> None:
    children = ids("--parent", "parent")
    assert len(children) == 20
    assert ids("--parent", "parent", "--status", "failed", "--status", "running") == [
        id for id in children if id not in ids("--parent", "parent", "--status", "completed")
    ]
    assert ids("--parent", "parent", "--newest", "--limit", "1000") == list(reversed(children))
    assert ids("--tag", "kind=maps") == ["maps"]
    assert ids("--parked") == ["changes"]
    assert ids("--created-from", "-1h", "--prefix", "suspended") == ["suspended"]
    assert ids("--created-to", "-1h") == []
    assert ids("--completed-from", "2020-01-01T00:00:00Z", "--name", "completes") == ["completes"]
    assert "@counter@a" in ids("--entities", "--limit", "1000")


def test_pages_of_ids_go_on_by_a_cursor_that_a_shell_takes(hub: Path) -> None:
    first = accepted("list", "--json", "--prefix", "parent:", "--limit", "3")
    assert [state["id"] for state in first["instances"]] == ["parent:0001", "parent:0002", "parent:0003"]
    assert ids("--prefix", "parent:", "--limit", "1", "--cursor", first["cursor"]) == ["parent:0004"]
    assert "with the same filter" in refused(2, "list", "--cursor", first["cursor"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("list", "--created-from", "yesterday"), "--created-from is 'yesterday'"),
        (("list", "--completed-to", "2026-01-01T00:00:00"), "has no time zone"),
        (("count", "--created-to", "-2y"), "--created-to -3h"),
        (("count", "--by", "colour"), "'colour' is not one of"),
        (("doctor", "--event", "long"), "--event is 'long'"),
        (("doctor", "--late", "-1"), "--late is '-1'"),
        (("doctor", "none:app"), "no module 'none'"),
        (("tree", "x", "--depth", "-1"), "--depth"),
        (("show", "x", "--app", "none:app"), "no module 'none'"),
    ],
)
def test_what_is_no_filter_or_no_code_is_refused(arguments: tuple[str, ...], says: str) -> None:
    assert says in refused(2, *arguments)


@pytest.mark.parametrize("command", [("count",), ("tree", "x"), ("doctor",)])
def test_a_missing_hub_is_not_made(command: tuple[str, ...], folder: Path) -> None:
    assert "there is no task hub at" in refused(4, *command)
    assert not list(folder.glob("*.db"))


def test_count_counts_by_status_and_name(hub: Path) -> None:
    counted = accepted("count", "--by", "status", "--json")
    assert counted["total"] == sum(counted["counts"].values()) == accepted("count", "--json")["total"]
    assert counted["counts"]["SUSPENDED"] == 1
    assert accepted("count", "--by", "name", "--parent", "parent", "--json")["counts"] == {"child": 20}
    assert invoke("count", "--parent", "parent").stdout == "20\n"
    lines = invoke("count", "--by", "name").stdout.splitlines()
    assert lines[0].split() == ["count", "name"]
    assert lines[-1].split()[-2:] == ["in", "all"]


# ---- tree


def test_tree_draws_who_started_whom_and_folds_the_rest(hub: Path) -> None:
    drawn = invoke("tree", "parent", "--children", "2")
    assert "there are more: --children and --depth" in drawn.stderr
    assert "there are more" not in invoke("tree", "holds").stderr
    lines = drawn.stdout.splitlines()
    assert [line.split()[0] for line in lines[:1]] == ["grandparent"]
    assert "── parent " in lines[1]
    assert lines[2].rstrip().endswith("FAILED  ValueError: an odd child")
    assert "18 more: " in lines[-1]
    document = accepted("tree", "grandparent", "--json", "--depth", "1")
    [parent] = document["tree"]["children"]
    assert (parent["id"], parent["children"], sum(parent["folded"].values())) == ("parent", [], 20)
    assert [one["id"] for one in accepted("tree", "parent:0002", "--json")["ancestors"]] == ["grandparent", "parent"]
    assert "error RF201" in refused(4, "tree", "none")


# ---- show


def waits(id: str, *arguments: str) -> list[str]:
    """The lines that say what the instance waits for, but for the worker that all wait for."""
    marker = "waits for  "
    lines = [line.strip() for line in invoke("show", id, *arguments).stdout.splitlines() if line.startswith(marker)]
    assert lines[0].startswith(
        "waits for  a worker: none serves this hub; start one with: replayflow worker MODULE:APP"
    )
    return [line.removeprefix(marker) for line in lines[1:]]


def test_show_says_what_is_waited_for(hub: Path) -> None:
    [event] = waits("holds")
    assert event.startswith("an event from outside; which one says its code: --app MODULE:APP, for ")
    [event] = waits("holds", "--app", "zoo:app")
    assert event.startswith("event 'go', for ")
    message, _ = waits("listens")
    assert message.startswith("its turn to take in: cancel (nobody is there), for ")
    [call] = waits("calls")
    assert call.startswith("operation 'add' of entity '@counter@a' (held by holds), for ")
    [retry] = waits("tries_again")
    assert retry.startswith("attempt 2 of 'fails' (task 1), for ")
    assert "(in 23h 59m)" in retry
    assert waits("suspended")[0].startswith("replayflow resume suspended: it is suspended, for ")
    assert waits("changes")[0].startswith("its problem to be mended")
    assert waits("withdrawn", "--app", "zoo:app")[0] == "other code than this: this app has no orchestrator 'withdrawn'"
    assert "waits for" not in invoke("show", "completes").stdout


def test_what_killed_its_worker_is_not_said_to_be_tried_again_by_a_start() -> None:
    now = datetime.now(UTC)

    def said(problem: str) -> str:
        [(_, text)] = waiting.lines([Wait(WaitKind.REPAIR, "", now, detail=problem)], "a", "o.db", has_app=False)
        return text

    assert said("RF134: 3 workers died") == "its problem to be mended; then: replayflow resume a --store o.db"
    assert "a worker's start tries it again" in said("the history has nothing more here")


def test_show_has_its_waits_as_json(hub: Path) -> None:
    [worker, activity] = accepted("show", "works", "--json")["waits"]
    assert worker["kind"] == "worker"
    assert (activity["kind"], activity["name"], activity["task_id"], activity["attempt"]) == (
        "activity",
        "never_ends",
        1,
        1,
    )
    assert accepted("show", "completes", "--json")["waits"] == []


# ---- doctor


def test_doctor_says_what_is_wrong_and_what_to_do_and_exits_with_1(hub: Path) -> None:
    result = invoke("doctor", "zoo:app", "--event", "0", "--activity", "0", "--message", "0", "--integrity")
    assert result.exit_code == 1
    for text in (
        "problem: no worker serves this hub",
        "start one: replayflow worker MODULE:APP --store ",
        "problem: 1 instance of 'changes' is parked",
        "problem: 1 instance of 'withdrawn' has no code",
        "problem: activity 'never_ends' is under way",
        "notice: schedule 'nightly' is paused: holidays",
        "replayflow schedule resume nightly --store ",
        "format 10, whole",
    ):
        assert text in result.stdout
    document = json.loads(invoke("doctor", "--json").stdout)
    assert document["problems"] == sum(finding["is_problem"] for finding in document["findings"]) > 0
    assert document["store"]["faults"] == []


def test_a_sound_hub_has_no_problems(folder: Path) -> None:
    accepted("start", "checkout", "--id", "a", "--json", "--at", "+3600")
    result = invoke("doctor")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "no problems")


def test_permissions_that_let_everybody_write_are_a_problem(folder: Path) -> None:
    accepted("start", "checkout", "--id", "a", "--json", "--at", "+3600")
    (folder / "replayflow.db").chmod(0o666)
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "everybody on this machine can write the store's file" in result.stdout
