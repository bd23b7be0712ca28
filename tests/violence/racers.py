"""Many workers that start at the same moment: `python -m tests.violence.racers PATH COUNT WHEN_OWNED`. Says who owns the hub, and who was refused."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import cast

from replayflow.errors import HubOwnedError
from replayflow.hub import TaskHub, WhenOwned
from tests.violence.app import app


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def race(path: str, when_owned: WhenOwned) -> None:
    try:
        async with TaskHub(path, app, when_owned=when_owned) as hub:
            say("serving", os.getpid())
            await hub.serve()
    except HubOwnedError as owned:
        say("refused", os.getpid(), owned)


def main(path: str, count: str, when_owned: str) -> None:
    begin, may_begin = os.pipe()
    children: list[int] = []
    for _ in range(int(count)):
        child = os.fork()  # nothing but this thread runs yet
        if child == 0:
            os.close(may_begin)
            os.read(begin, 1)  # until the other end is closed
            asyncio.run(race(path, cast("WhenOwned", when_owned)))
            os._exit(0)
        children.append(child)
    say("ready", *children)
    os.close(may_begin)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
