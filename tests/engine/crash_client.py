"""The client that the crash campaign kills in the middle of its requests: `python -m tests.engine.crash_client PATH NUMBER LOG`.

It writes into the log what it is about to ask, and what it was told is done; lines that are written survive its death. Each instance gets four
events that add up to 10, each with a key of its own; every fourth instance is terminated instead of getting its last.

What it was told is there (I6); what it was not told is there as a whole, or not at all; and all of it asked again, by somebody who knows no more
than the log, comes to the same as asked once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path

from replayflow import Client, InstanceNotFoundError, InvalidStateError

ITEMS = (1, 2, 3, 4)
_PAUSE_SECONDS = 0.02  # or it would ask for more than a worker does between two kills


async def main(path: str, number: str, log: str) -> None:
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(word: str, request: object, id: str) -> None:
        os.write(said, f"{word} {request} {id}\n".encode())

    async with Client(path) as client:
        for n in count():
            is_terminated = n % 4 == 3
            id = f"{'ended' if is_terminated else 'told'}-{number}-{n}"
            note("asks", "start", id)
            instance = await client.start("told", len(ITEMS), instance_id=id)
            note("told", "start", id)
            for item in ITEMS[:-1] if is_terminated else ITEMS:
                note("asks", item, id)
                await instance.raise_event("item", item, dedupe_key=f"{item}")
                note("told", item, id)
            if is_terminated:
                note("asks", "terminate", id)
                await instance.terminate()
                note("told", "terminate", id)
            await asyncio.sleep(_PAUSE_SECONDS)


async def check_what_it_was_told(client: Client, log: Path) -> None:
    """What the client was told has begun is there, but for what it may have terminated by now."""
    for id, requests in asked(log).items():
        if requests["start"] and id.startswith("told"):
            await client.get(id).status()


async def ask_again(client: Client, log: Path) -> list[str]:
    """All that the client has asked, and would have asked then, is asked again; the ids of those that complete."""
    complete: list[str] = []
    for id, requests in asked(log).items():
        if "terminate" in requests:
            with suppress(InstanceNotFoundError, InvalidStateError):  # it has ended, and may have gone, by retention
                await client.get(id).terminate()
            continue
        instance = await client.start("told", len(ITEMS), instance_id=id, on_existing="return")
        for item in ITEMS:
            await instance.raise_event("item", item, dedupe_key=f"{item}")
        complete.append(id)
    return complete


def asked(log: Path) -> dict[str, dict[str, bool]]:
    """By instance, what was asked for, and whether the client was told that it is done."""
    found: dict[str, dict[str, bool]] = {}
    if log.exists():
        for line in log.read_text().splitlines():
            word, request, id = line.split()
            found.setdefault(id, {})[request] = word == "told"
    return found


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
