"""What tests have other processes do: `python -m tests.store.process COMMAND PATH ...`. Each says "ready" and then listens."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

from replayflow.errors import StoreError
from replayflow.store.base import Owner
from replayflow.store.sqlite import SqliteStore
from tests.store.builders import create, post


def say(*words: object) -> None:
    print(*words, flush=True)


@asynccontextmanager
async def opened(path: str) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def own(path: str) -> None:
    """Owns the hub until it is told, or killed."""
    async with opened(path) as store:
        epoch = await store.acquire(Owner(os.getpid(), "here", 1))
        say("ready", epoch)
        sys.stdin.readline()


async def own_and_write(path: str) -> None:
    """Owns the hub, and stands in the middle of a write for ever."""
    async with opened(path) as store:
        await store.acquire(Owner(os.getpid(), "here", 1))

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            say("ready")
            sys.stdin.readline()

        await store._write(write)


async def fork(path: str) -> None:
    """Owns the hub, and has a forked child that outlives it."""
    async with opened(path) as store:
        await store.acquire(Owner(os.getpid(), "here", 1))
        (down, up), (heard, said) = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.close(up)
            os.write(said, b"!")
            os.read(down, 1)  # by now the parent is dead
            sys.stdin.readline()
            os._exit(0)
        os.read(heard, 1)
        say("ready", child)
        await asyncio.Event().wait()


async def posts(path: str, id: str, sender: str, times: str) -> None:
    """Posts as a client, one message a transaction."""
    async with opened(path) as store:
        say("ready")
        sys.stdin.readline()
        for n in range(int(times)):
            [outcome] = await store.write([post(id, f"{sender} {n}".encode())])
            assert outcome.error is None
        say("done")


async def churn(path: str) -> None:
    """Creates instances in groups for ever, and says which are accepted."""
    async with opened(path) as store:
        say("ready")
        for n in count():
            await store.write([create(f"{n}.{part}") for part in range(40)])
            say(n)


async def open_fresh(path: str) -> None:
    """Opens a path that many open at the same time."""
    say("ready")
    sys.stdin.readline()
    async with opened(path) as store:
        say("opened", len(await store.arrived(0, 1)))


async def limited(path: str, bytes_max: str) -> None:
    """Writes until no file may grow any more, then once more when they may."""
    async with opened(path) as store:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(bytes_max), hard))
        accepted = 0
        try:
            for accepted in count():
                await store.write([create(f"{accepted}.{part}") for part in range(40)])
        except StoreError as error:
            say("refused", type(error).__name__, accepted)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await store.write([create("with room again")])
        say("done")


async def as_nobody(path: str) -> None:
    """Opens and writes without the powers of root, and says how that went."""
    if os.getuid() == 0:
        with tempfile.TemporaryDirectory() as folder:
            async with opened(f"{folder}/hub.db"):
                pass  # has all modules loaded that may be out of reach from here on
        os.setgid(65534)
        os.setuid(65534)
    try:
        async with opened(path) as store:
            await store.write([create("new")])
            say("written")
    except StoreError as error:
        say(type(error).__name__, "|", error)


COMMANDS: dict[str, Callable[..., Awaitable[None]]] = {
    command.__name__: command for command in (own, own_and_write, fork, posts, churn, open_fresh, limited, as_nobody)
}


async def main() -> None:
    await COMMANDS[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    asyncio.run(main())
