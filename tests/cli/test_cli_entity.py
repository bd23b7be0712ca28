"""entity: list, read, signal, clean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.terminal import accepted, databases, invoke, refused, until, worker

ENTITIES = """

from replayflow import EntityContext

@app.entity
@dataclass
class Stock:
    left: int = 0

    def put(self, n: int) -> int:
        self.left += n
        return self.left


@app.orchestrator
def hold(ctx: OrchestrationContext):
    with (yield ctx.lock_entities(["@stock@held"])):
        yield ctx.call_entity("@stock@held", "put", 1)
        yield ctx.wait_for_external_event("go")
"""


@pytest.fixture(autouse=True)
def entities(folder: Path) -> None:
    with (folder / "flows.py").open("a", encoding="utf-8") as file:
        file.write(ENTITIES)


def left(id: str) -> int:
    return int(accepted("entity", "read", id)["left"])


def test_signals_are_performed_by_the_worker_and_state_is_read() -> None:
    assert (
        "signal 'put' was sent to '@stock@bolts'"
        in invoke("entity", "signal", "@stock@bolts", "put", "--input", "3").output
    )
    assert refused(4, "entity", "read", "@stock@nuts")
    with worker():
        accepted("entity", "signal", "@Stock@bolts", "put", "--input", "4", "--json", "--dedupe-key", "k")
        accepted("entity", "signal", "@Stock@bolts", "put", "--input", "4", "--json", "--dedupe-key", "k")
        until(lambda: accepted("entity", "read", "@stock@bolts") == {"left": 7})
    known = accepted("entity", "read", "@stock@bolts", "--json")
    assert (known["id"], known["state"], known["backlog"]) == ("@stock@bolts", {"left": 7}, 0)
    history = accepted("history", "@stock@bolts", "--json")["events"]
    assert [e["state"] for e in history if e["event"] == "EntityStateSet"][-1] == {"left": 7}
    assert "put" in invoke("history", "@stock@bolts").stdout


def test_entities_and_instances_are_listed_apart() -> None:
    with worker():
        invoke("start", "hold", "--id", "holder")
        invoke("entity", "signal", "@stock@a", "put", "--input", "1")
        until(lambda: len(accepted("entity", "list", "--json")["entities"]) == 2)
        listed = {e["id"]: e for e in accepted("entity", "list", "--json")["entities"]}
        assert listed["@stock@held"]["locked_by"] == "holder"
        assert listed["@stock@a"]["locked_by"] is None
        assert [i["id"] for i in accepted("list", "--json")["instances"]] == ["holder"]
        assert len(accepted("list", "--entities", "--json")["instances"]) == 3
        assert "holder" in invoke("entity", "list").stdout
        assert accepted("entity", "list", "--name", "stock", "--prefix", "h", "--limit", "1", "--json")["more"] is False
        assert accepted("entity", "list", "--limit", "1", "--json")["more"] is True
        assert "lock" in invoke("history", "holder").stdout.lower()


def test_cleaning_asks_the_empty_ones_to_go() -> None:
    with worker():
        invoke("entity", "signal", "@stock@a", "put", "--input", "1")
        invoke("entity", "signal", "@stock@b", "put", "--input", "1")
        until(lambda: len(accepted("entity", "list", "--json")["entities"]) == 2)
        invoke("entity", "signal", "@stock@a", "delete")
        until(lambda: [e["id"] for e in accepted("entity", "list", "--json")["entities"]] == ["@stock@b"])
        assert accepted("entity", "clean", "--json") == {"asked": 1}
        until(lambda: len(accepted("entity", "list", "--all", "--json")["entities"]) == 1)
        assert "0 empty entities" in invoke("entity", "clean").stdout


def test_a_signal_waits_for_its_time() -> None:
    at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    invoke("entity", "signal", "@stock@a", "put", "--input", "1", "--at", at)
    invoke("entity", "signal", "@stock@a", "put", "--input", "1", "--at", "+3600")
    invoke("entity", "signal", "@stock@a", "put", "--input", "5", "--at", "+0.01")
    with worker():
        until(lambda: accepted("entity", "read", "@stock@a", "--json")["state"] == {"left": 5})
    assert accepted("entity", "read", "@stock@a", "--json")["backlog"] == 2


def test_entities_without_a_state_are_not_denied() -> None:
    accepted("entity", "signal", "@stock@a", "put", "--json")
    assert "--all lists the others" in invoke("entity", "list").stderr
    assert "@stock@a" in invoke("entity", "list", "--all").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("signal", "stock@a", "put"), "is written @name@key"),
        (("signal", "@stock@a", "burn", "--app", "flows:app"), "has no operation 'burn'; it has: delete, put"),
        (("signal", "@shop@a", "put", "--app", "flows:app"), "no entity 'shop'"),
        (("signal", "@stock@a", "put", "--input", "{"), "is not JSON"),
        (("signal", "@stock@a", "put", "--at", "soon"), "+3h"),
    ],
)
def test_a_signal_that_makes_no_sense_writes_nothing(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(2, "entity", *arguments)
    assert databases() == []


def test_looking_makes_no_database() -> None:
    for arguments in (("list",), ("read", "@stock@a"), ("clean",)):
        assert "there is no task hub at" in refused(4, "entity", *arguments)
    assert databases() == []


def test_verbs_of_orchestrations_are_refused() -> None:
    invoke("entity", "signal", "@stock@a", "put", "--input", "1")
    for verb in ("terminate", "cancel"):
        assert "is an entity" in refused(2, verb, "@stock@a")
