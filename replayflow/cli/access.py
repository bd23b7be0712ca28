"""The way from a command to a hub: as a client, from any process, also while a worker owns it."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from replayflow.cli.failures import StoreMissingError
from replayflow.cli.values import InputCodec
from replayflow.client import Client
from replayflow.errors import InvalidArgumentError
from replayflow.registry import App
from replayflow.store import MemoryStore, SqliteStore, Store, store_at

T = TypeVar("T")


@asynccontextmanager
async def open_client(url: str | None, app: App | None = None, *, creates: bool = False) -> AsyncIterator[Client]:
    """A client of the store; one that does not exist is made where the command `creates`.

    Raises:
        StoreMissingError: it does not exist; nothing was made.
        StoreError: it cannot be opened.
    """
    store = shared_store(url)
    if not creates:
        _check_presence(store)
    async with Client(store, app, codec=InputCodec()) as client:
        yield client


async def asked_of_a_hub(url: str | None, app: App | None, ask: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """What `ask` comes to with a client of the store, which is made where it does not exist.

    What an empty hub refuses makes none: it is asked of one in memory first (I11).

    Raises:
        StoreError: the store cannot be opened.
    """
    if _is_new(shared_store(url)):
        async with Client(MemoryStore(), app, codec=InputCodec()) as client:
            await ask(client)
    async with open_client(url, app, creates=True) as client:
        return await ask(client)


@asynccontextmanager
async def open_store(url: str | None) -> AsyncIterator[Store]:
    """The store itself, which is there already, for what reads more than a client shows.

    Raises:
        StoreMissingError: it does not exist; nothing was made.
        StoreError: it cannot be opened.
    """
    store = shared_store(url)
    _check_presence(store)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def shared_store(url: str | None) -> Store:
    """The store at the address, if other processes can reach it, too."""
    store = store_at(url)
    if isinstance(store, MemoryStore):
        raise InvalidArgumentError(
            "memory:// is the memory of one process, and no other command sees it: use a file, --store orders.db"
        )
    return store


def _is_new(store: Store) -> bool:
    """Whether there is nothing at its path, or a file that is empty."""
    try:
        return isinstance(store, SqliteStore) and store.path.stat().st_size == 0
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # to open it says why it cannot be


def _check_presence(store: Store) -> None:
    if not isinstance(store, SqliteStore):
        return
    path = store.path
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise StoreMissingError(
            f"there is no task hub at {path.absolute()}: name one with --store or $REPLAYFLOW_STORE; "
            "run, worker, start, schedule create and entity signal make one"
        ) from None
    except OSError:
        return  # to open it says why it cannot be
    if stat.S_ISREG(found.st_mode) and found.st_size == 0:
        raise StoreMissingError(f"the file {path.absolute()} is empty: no worker and no client has made it a task hub")
