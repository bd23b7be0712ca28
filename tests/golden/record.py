"""python -m tests.golden.record [NAME]: what this version writes is kept under its name, its version where no other is given.

`histories/NAME/` gets an export of each scene and, in `pieces.jsonl`, the stored bytes of each episode; `hubs/NAME.db` a whole hub, with what has to
be read in it beside it in `NAME.json`. What is there under the name stays as it is: a golden history is written once.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import os
import sqlite3
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from replayflow import Client
from replayflow.testing import VirtualHub
from tests.golden import hub_scene
from tests.golden.app import app, world
from tests.golden.scenes import SCENES, SceneStore

HERE = Path(__file__).parent


class IsKeptAlready(Exception):
    """There is something under the name."""


async def record(name: str, here: Path = HERE) -> list[Path]:
    """Histories and hub are kept under the name; returns the files.

    Raises:
        IsKeptAlready: others are.
    """
    histories, hub, shown = here / "histories" / name, here / "hubs" / f"{name}.db", here / "hubs" / f"{name}.json"
    for path in (histories, hub, shown):
        if path.exists():
            raise IsKeptAlready(f"{path} is there already, and golden: give what this version writes another name")
    histories.mkdir(parents=True)
    hub.parent.mkdir(exist_ok=True)
    pieces: list[str] = []
    for scene in SCENES:
        exported, own = await play(scene)
        (histories / f"{scene}.jsonl").write_text("".join(exported), "utf-8")
        pieces += own
    (histories / "pieces.jsonl").write_text("".join(pieces), "utf-8")
    await hub_scene.fill(hub)
    _make_small(hub)
    shown.write_text(json.dumps(await contents(hub), indent=1, ensure_ascii=False) + "\n", "utf-8")
    for beside in hub.parent.glob("*.db-*"):
        beside.unlink()
    return [*sorted(histories.iterdir()), hub, shown]


async def play(scene: str) -> tuple[list[str], list[str]]:
    """The scene has been played; returns the lines of an export of it, and a line for each stored piece of its histories."""
    world.clear()
    store = SceneStore()
    async with VirtualHub(app, store=store) as hub:
        ids = await SCENES[scene](hub)
        exported = [line async for line in hub.client.export(ids)]
        own = []
        for id in ids:
            for execution_id in await store.executions(id):
                start, *pieces = await store.history(id, execution_id)
                about = {"scene": scene, "instance": id, "execution": execution_id}
                own.append(json.dumps(about | {"start": _text(start), "pieces": list(map(_text, pieces))}) + "\n")
    world.clear()
    return exported, own


async def contents(path: Path) -> dict[str, Any]:
    """What a client reads in the hub: every instance, its executions and the events of its history."""
    async with Client(hub_scene.store_at(path), app) as client:
        found = {}
        async for listed in client.list(include_entities=True):
            instance = client.get(listed.id)
            state = await instance.status()
            history = [f"{type(event).__name__} {event.event_id}" async for event in instance.history()]
            found[state.id] = {
                "name": state.name,
                "version": state.version,
                "status": state.status.value,
                "input": repr(state.input),
                "output": repr(state.output),
                "custom_status": repr(state.custom_status),
                "failure": None if state.failure is None else str(state.failure),
                "problem": state.problem,
                "tags": dict(state.tags),
                "parent": state.parent_instance_id,
                "created_at": state.created_at.isoformat(),
                "completed_at": None if state.completed_at is None else state.completed_at.isoformat(),
                "history": history,
            }
        return found


def _text(stored: bytes) -> str:
    return base64.b64encode(stored).decode()


def _make_small(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def main() -> int:
    """Exit codes: 0 it is kept; 1 there is something under the name."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.record", description=__doc__)
    parser.add_argument("name", nargs="?", default=version("replayflow"))
    asked = parser.parse_args()
    logging.getLogger("replayflow").setLevel(logging.CRITICAL)  # what is parked and fails does so on purpose
    os.environ.pop("REPLAYFLOW_ON_MISMATCH", None)
    try:
        kept = asyncio.run(record(asked.name))
    except IsKeptAlready as refusal:
        sys.stderr.write(f"{refusal}\n")
        return 1
    for path in kept:
        sys.stdout.write(f"{path.relative_to(HERE)}  {path.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
