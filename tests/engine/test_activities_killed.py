"""What activities told, what was recorded and what limits allow, after the worker was killed."""

from __future__ import annotations

import signal
from functools import partial
from itertools import accumulate
from pathlib import Path

from replayflow import Client, HeartbeatRecorded, ValueRecorded
from replayflow.store.sqlite import SqliteStore
from tests.engine.kit import PATIENCE_SECONDS, history_of, until
from tests.engine.workers import Worker


async def last_told(client: Client, instance_id: str) -> int:
    return max(
        (event.detail for event in await history_of(client, instance_id) if isinstance(event, HeartbeatRecorded)),
        default=0,
    )


def let_go(file: Path) -> None:
    """Nobody hangs any longer."""
    file.with_name(f"{file.name}.go").touch()


def has_been_entered(file: Path, times: int) -> bool:
    return file.exists() and file.read_text().count("in\n") >= times


async def test_after_a_kill_an_activity_goes_on_where_its_last_written_heartbeat_says(tmp_path: Path) -> None:
    path, file = tmp_path / "hub.db", tmp_path / "file"
    written, recorded = 0, list[bytes]()
    for _ in range(3):
        with Worker(path) as worker:
            await worker.line()
            async with Client(SqliteStore(path)) as client:
                await client.start("loading", str(file), instance_id="i", on_existing="return")
                before = written
                while written <= before:
                    written = await last_told(client, "i")
                if before == 0:
                    recorded = [e.value for e in await history_of(client, "i") if isinstance(e, ValueRecorded)]
            await worker.ended(signal.SIGKILL)
        async with Client(SqliteStore(path)) as client:
            written = await last_told(client, "i")  # what was durable when it died
    let_go(file)
    with Worker(path) as worker:
        await worker.line()
        async with Client(SqliteStore(path)) as client:
            instance = client.get("i")
            begins, attempt, key, secret = await instance.result(PATIENCE_SECONDS)
            state = await instance.status()
    assert begins == written > 0
    assert attempt == 1  # nothing had failed
    assert key == f"i/{state.execution_id}/2"
    assert [secret] == recorded


async def test_a_limit_holds_over_kills(tmp_path: Path) -> None:
    path, file = tmp_path / "hub.db", tmp_path / "file"
    for number in range(3):
        with Worker(path) as worker:
            await worker.line()
            async with Client(SqliteStore(path)) as client:
                await client.start("narrow", str(file), instance_id=f"i{number}")
            await until(partial(has_been_entered, file, number + 1), "somebody inside")
            await worker.ended(signal.SIGKILL)
        with file.open("a") as out:
            out.write("out\n")  # with its worker, the one that was inside is gone
    let_go(file)
    with Worker(path) as worker:
        await worker.line()
        async with Client(SqliteStore(path)) as client:
            for number in range(3):
                assert await client.get(f"i{number}").result(PATIENCE_SECONDS) == 5
    inside = accumulate({"in": 1, "out": -1}[line] for line in file.read_text().split())
    assert set(inside) == {0, 1}
