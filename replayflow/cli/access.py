"""The way from a command to a hub: as a client, from any process, also while a worker owns it."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from replayflow.cli.failures import StoreMissingError
from replayflow.cli.values import InputCodec
from replayflow.client import Client
from replayflow.errors import InvalidArgumentError
from replayflow.registry import App
from replayflow.store import MemoryStore, SqliteStore, Store, store_at


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
