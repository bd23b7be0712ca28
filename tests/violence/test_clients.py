"""Clients that die in the middle of a request: what they were told is there, the rest as a whole or not at all, and to ask again is harmless.

The crash campaign kills them many times more, while workers die, too.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from replayflow import Client, InstanceNotFoundError, TaskHub
from replayflow.core import events
from tests.engine.crash_app import app
from tests.engine.crash_client import ITEMS, ask_again, asked, check_what_it_was_told
from tests.engine.crash_hands import Process
from tests.engine.kit import until as soon
from tests.violence.violence import is_sound


async def test_a_client_that_dies_at_any_request_was_told_the_truth(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with TaskHub(path, app) as hub:
        for number, requests in enumerate((1, 8, 40)):
            log = tmp_path / f"{number}.said"
            killed = Process(tmp_path / "errors", "tests.engine.crash_client", path, number, log)
            try:
                await soon(lambda log=log, n=requests: log.exists() and log.read_text().count("told ") >= n)  # type: ignore[misc]
            finally:
                killed.end()
            await check_what_it_was_told(hub.client, log)
            await check_what_was_cut_off(hub.client, log)
            complete = await ask_again(hub.client, log)
            assert len(complete) >= 1
            for id in complete:
                assert await hub.client.get(id).result(20) == 2 * sum(ITEMS)
                raised = [e async for e in hub.client.get(id).history() if isinstance(e, events.EventRaised)]
                assert len(raised) == len(ITEMS)
    assert is_sound(path)


async def check_what_was_cut_off(client: Client, log: Path) -> None:
    """Of each instance no more is there than was asked for, and no less than was told."""
    for id, requests in asked(log).items():
        instance = client.get(id)
        try:
            await instance.status()
        except InstanceNotFoundError:
            assert not requests["start"] or "terminate" in requests
            continue
        arrived = Counter([e.input async for e in instance.history() if isinstance(e, events.EventRaised)])
        assert not arrived or set(arrived.values()) == {1}
        assert set(arrived) <= {item for item in ITEMS if str(item) in requests}
