"""The matrix finds what it is for: what is broken here on purpose is found."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from replayflow import Client
from replayflow.errors import StoreUnavailableError
from replayflow.store import SqliteStore
from replayflow.store.base import Outcome
from replayflow.store.sqlite import ahead, group, store, upgrading
from replayflow.store.sqlite import connection as connecting
from tests.store.crashes import stories
from tests.store.crashes.formats import filled, migrated
from tests.store.crashes.matrix import check_cuts, check_likeness, check_points, played
from tests.store.crashes.scenes import SCENES

SCENE = SCENES["commit all at once"]


async def test_a_group_in_two_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_two(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Any]) -> Any:
        class Split:
            count = 0

            def execute(self, *given: Any) -> sqlite3.Cursor:
                self.count += 1
                if self.count == 8:
                    connection.execute("COMMIT")
                    connection.execute("BEGIN IMMEDIATE")
                return connection.execute(*given)

            def __getattr__(self, name: str) -> Any:
                return getattr(connection, name)

        return connecting.in_transaction(connection, lambda _: work(Split()))  # type: ignore[arg-type]

    monkeypatch.setattr(group, "in_transaction", in_two)
    play = await played(SCENE, tmp_path)
    with pytest.raises(AssertionError, match=r"a crash would fall between|of no instance|is kept"):
        check_points(play, tmp_path)


async def test_a_commit_that_comes_after_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "in_transaction", _uncommitted)
    play = await played(SCENE, tmp_path)
    with pytest.raises(AssertionError):
        await check_likeness(SCENE, play, tmp_path)


async def test_a_migration_without_a_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, _ = await filled(1, tmp_path)
    monkeypatch.setattr(upgrading, "in_transaction", lambda connection, work: work(connection))
    move = await migrated(old, tmp_path)
    with pytest.raises(AssertionError, match="a crash would fall between"):
        check_points(move, tmp_path)


async def test_an_opening_that_drops_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play = await played(SCENE, tmp_path)

    def dropping(path: Path) -> None:
        Path(f"{path}-wal").unlink(missing_ok=True)

    monkeypatch.setattr(store, "check_file", dropping)
    with pytest.raises(AssertionError):
        await check_likeness(SCENE, play, tmp_path)


async def test_a_log_whose_checksums_do_not_count(tmp_path: Path) -> None:
    """If recovery took what is whole for what is right: told so, the matrix does not believe it."""
    play = await played(SCENE, tmp_path)
    play.recording.states[1] = play.recording.states[-1]
    with pytest.raises(AssertionError, match="it is not state 1"):
        check_cuts(play, tmp_path, is_thorough=False)


async def test_effects_before_their_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker hears of its commits ten milliseconds before they are made."""
    for module in (ahead, group, store):
        monkeypatch.setattr(module, "in_transaction", _uncommitted)
    whole = SqliteStore.write
    commits: set[asyncio.Task[None]] = set()

    async def commit(self: SqliteStore) -> None:
        await asyncio.sleep(0.01)
        with suppress(StoreUnavailableError):  # closed by now, which commits nothing
            await self._write(_commit)

    async def early(self: SqliteStore, operations: Sequence[Any], epoch: int | None = None) -> list[Outcome]:
        outcomes = await whole(self, operations, epoch)
        task = asyncio.create_task(commit(self))
        commits.add(task)
        task.add_done_callback(commits.discard)
        return outcomes

    monkeypatch.setattr(SqliteStore, "write", early)

    async def short(client: Client, told: stories.Heard) -> None:
        instance = await client.start("calls", instance_id="calls")
        told("start", "calls", 0)
        await instance.result(timeout=stories.PATIENCE)

    story = await stories.told(tmp_path, short)
    with pytest.raises(AssertionError, match="came before it was durable"):
        stories.check_effects(story, tmp_path)


def _commit(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("COMMIT")


def _uncommitted(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Any]) -> Any:
    """The work is done, and committed with whatever comes next."""
    _commit(connection)
    connection.execute("BEGIN IMMEDIATE")
    return work(connection)
