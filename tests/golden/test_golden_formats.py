"""Every format that a hub ever had is still opened: what is in it is there, and what is open goes on to its right end."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from replayflow import Client
from replayflow.store import SqliteStore
from replayflow.store.sqlite import schema
from replayflow.testing import VirtualHub
from tests.golden.app import app, world
from tests.golden.formats import FORMATS, load, make

DUMPS = sorted(FORMATS.glob("*.sql"))


@pytest.fixture(params=DUMPS, ids=lambda path: path.stem)
def hub_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    world.clear()
    dump: Path = request.param
    load(dump.read_text("utf-8"), tmp_path / "hub.db")
    return tmp_path / "hub.db"


def schema_of(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    query = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name"
    return [tuple(row) for row in connection.execute(query)]


def test_every_format_has_its_dump() -> None:
    assert [int(path.stem) for path in DUMPS] == [number for number, _ in schema.migrations()], (
        "python -m tests.golden.formats writes down the format of a new migration"
    )


def test_no_migration_makes_another_format_than_it_made_once(tmp_path: Path) -> None:
    """A migration that has been applied somewhere is never edited: files that it made are not made again."""
    for dump in DUMPS:
        load(dump.read_text("utf-8"), tmp_path / f"{dump.stem}.db")
        with (
            closing(sqlite3.connect(tmp_path / f"{dump.stem}.db")) as then,
            closing(sqlite3.connect(":memory:", isolation_level=None)) as now,
        ):
            make(now, int(dump.stem))
            assert schema_of(then) == schema_of(now), dump.name


async def test_what_is_in_a_hub_of_a_former_format_is_read(hub_file: Path) -> None:
    async with Client(hub_file, app) as client:
        shown = {state.id: (state.status, state.input, state.output, dict(state.tags)) async for state in client.list()}
        assert shown == {
            "done": ("COMPLETED", "then", "BEFORETHEN", {}),
            "waits": ("RUNNING", 2, None, {"team": "red"}),
            "fresh": ("PENDING", "fresh", None, {}),
        }
        assert [state.id async for state in client.list(tags={"team": "red"})] == ["waits"]
        assert [state.id async for state in client.list(status="COMPLETED")] == ["done"]
        assert len([event async for event in client.get("done").history()]) == 9


async def test_what_is_open_in_a_hub_of_a_former_format_goes_on(hub_file: Path) -> None:
    async with VirtualHub(app, store=SqliteStore(hub_file)) as hub:
        await hub.client.get("waits").raise_event("go", "never", dedupe_key="once")  # had before, says the hub
        await hub.settle()
        assert (await hub.client.get("waits").status()).status == "RUNNING"
        await hub.restart()
        await hub.client.get("waits").raise_event("go", "on", dedupe_key="twice")
        assert await hub.client.get("waits").result() == [2, "on"]
        assert await hub.client.get("fresh").result() == "BEFOREFRESH"
        assert await hub.client.get("done").result() == "BEFORETHEN"
        heard = [event async for event in hub.client.get("waits").history() if type(event).__name__ == "EventRaised"]
        assert len(heard) == 2
