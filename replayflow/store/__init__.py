"""Durable state: the port (`base`), its executable specification (`memory`), and its adapters; `open_store` finds one by its address."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from replayflow.errors import StoreUnavailableError
from replayflow.store.base import Store
from replayflow.store.memory import MemoryStore
from replayflow.store.sqlite import SqliteStore

DEFAULT_STORE = "replayflow.db"
_SQLITE = "sqlite:///"  # all that follows is the path, a `?` or a `#` too


def store_at(url: str | Path | Store | None) -> Store:
    """The store with the address, not yet open: a path or `sqlite:///path`, or `memory://`; without one, `$REPLAYFLOW_STORE`, else `replayflow.db`.

    A store object is its own address.

    Raises:
        StoreUnavailableError: the kind of address is not known.
    """
    if url is None:
        url = os.environ.get("REPLAYFLOW_STORE") or DEFAULT_STORE
    if isinstance(url, Path):
        return SqliteStore(url)
    if not isinstance(url, str):
        return url
    if "://" not in url:
        return SqliteStore(url)
    if url.startswith(_SQLITE) and url != _SQLITE:
        return SqliteStore(url[len(_SQLITE) :])  # as elsewhere: sqlite:///relative, sqlite:////absolute
    if urlsplit(url).scheme == "memory":
        return MemoryStore()
    raise StoreUnavailableError(
        f"no store is known for '{url}': write a path, sqlite:///path (four slashes where the path is absolute), or memory://"
    )


__all__ = ["MemoryStore", "SqliteStore", "Store", "store_at"]
