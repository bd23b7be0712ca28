"""Who is measured, and how each is called."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.peers import Peer, catalogue, environments, installed
from benchmarks.peers.catalogue import POSTGRES, all_peers
from benchmarks.peers.comparison import QUESTIONS
from benchmarks.peers.environments import ROOT, Environment

RIVALS = ROOT / "benchmarks" / "peers" / "rivals"
PEER = Peer("tortoise", "Tortoise 1.0", Environment("tortoise"), ("on_tortoise", "fast"), {"chain": 200})


def ready(environment: Environment, folder: Path) -> None:
    """What an installation into this folder leaves last."""
    there = replace(environment, folder=folder)
    (folder / there.name).mkdir()
    there._stamp.write_text(there._pins(), "utf-8")


def test_a_command_is_the_script_in_its_own_environment_with_workload_and_n() -> None:
    python = str(ROOT / ".peers" / "tortoise" / "bin" / "python")
    expected = [python, "-m", "benchmarks.peers.rivals.on_tortoise", "fast", "chain", "200"]
    assert PEER.command("chain", 200) == expected


@pytest.mark.parametrize(("workload", "n"), [("idle", 0), ("chain", 201), ("recover", 1), ("dormant", 10)])
def test_there_is_no_command_for_what_a_peer_cannot_do(workload: str, n: int) -> None:
    assert PEER.command(workload, n) is None


@pytest.mark.parametrize("peer", all_peers(), ids=lambda peer: peer.name)
def test_a_peer_has_a_limit_for_exactly_the_workloads_of_its_script(peer: Peer) -> None:
    script = ast.parse((RIVALS / f"{peer.script[0]}.py").read_text("utf-8"))
    tables = [
        node.value
        for node in script.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "WORKLOADS"
    ]
    (table,) = tables
    assert isinstance(table, ast.Dict)
    assert {key.value for key in table.keys if isinstance(key, ast.Constant)} == set(peer.limits)


def test_every_question_has_a_peer_that_can_do_all_of_it() -> None:
    for question in QUESTIONS:
        assert any(peer.command(question.workload, question.n) for peer in all_peers()), question


def test_a_label_says_the_version_that_is_pinned() -> None:
    labels = {peer.name: peer.label for peer in all_peers()}
    assert labels["dbos-sqlite"] == f"DBOS {environments.DBOS.version('dbos')}, SQLite WAL"
    assert labels["durabletask"].endswith(", in memory, not durable")
    assert environments.RESTATE.version("@restatedev/restate-server") in labels["restate"]


def test_what_is_not_installed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [replace(peer, environment=replace(peer.environment, folder=tmp_path)) for peer in all_peers()]
    monkeypatch.setattr(catalogue, "all_peers", lambda: known)
    assert installed() == []
    ready(environments.DURABLETASK, tmp_path)
    assert [peer.name for peer in installed()] == ["durabletask"]


def test_postgresql_is_measured_if_a_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [replace(peer, environment=replace(peer.environment, folder=tmp_path)) for peer in all_peers()]
    monkeypatch.setattr(catalogue, "all_peers", lambda: known)
    ready(environments.DBOS, tmp_path)
    monkeypatch.delenv(POSTGRES, raising=False)
    assert [peer.name for peer in installed()] == ["dbos-sqlite"]
    monkeypatch.setenv(POSTGRES, "postgresql://bench@127.0.0.1/bench")
    assert [peer.name for peer in installed()] == ["dbos-sqlite", "dbos-postgres"]
