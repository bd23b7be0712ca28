"""Durable state: the port (`base`), its executable specification (`memory`), and its adapters; `open_store` finds one by its address."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from replayflow.codec import LARGE_OVER_BYTES
from replayflow.codec.cipher import Cipher
from replayflow.encryption import cipher_of_environment
from replayflow.errors import InvalidArgumentError, StoreUnavailableError
from replayflow.store.base import Store
from replayflow.store.memory import MemoryStore
from replayflow.store.sqlite import SqliteStore

DEFAULT_STORE = "replayflow.db"
_SQLITE = "sqlite:///"  # all that follows is the path, a `?` or a `#` too


def store_at(
    url: str | Path | Store | None, *, large_over_bytes: int | None = None, cipher: Cipher | None = None
) -> Store:
    """The store with the address, not yet open: a path or `sqlite:///path`, or `memory://`; without one, `$REPLAYFLOW_STORE`, else `replayflow.db`.

    A store object is its own address. `large_over_bytes` says from where on payloads are kept out of line; without it the store's default does.
    Values are sealed with the `cipher`, or with that of `$REPLAYFLOW_CIPHER`.

    Raises:
        StoreUnavailableError: the kind of address is not known.
        InvalidArgumentError: the limit is none, or is given beside a store object, which has its own. So it is for the cipher.
        CipherError: there is no cipher as it was asked for.
    """
    if url is not None and not isinstance(url, str | Path):
        for name, given in (("large_over_bytes", large_over_bytes), ("cipher", cipher)):
            if given is not None:
                raise InvalidArgumentError(f"{name} is given beside a store object: give it to the store itself")
        return url
    limit = LARGE_OVER_BYTES if large_over_bytes is None else large_over_bytes
    seals = cipher_of_environment() if cipher is None else cipher
    if url is None:
        url = os.environ.get("REPLAYFLOW_STORE") or DEFAULT_STORE
    if isinstance(url, Path) or "://" not in url:
        return SqliteStore(url, large_over_bytes=limit, cipher=seals)
    if url.startswith(_SQLITE) and url != _SQLITE:
        path = url[len(_SQLITE) :]  # as elsewhere: sqlite:///relative, sqlite:////absolute
        return SqliteStore(path, large_over_bytes=limit, cipher=seals)
    if urlsplit(url).scheme == "memory":
        return MemoryStore(large_over_bytes=limit, cipher=seals)
    raise StoreUnavailableError(
        f"no store is known for '{url}': write a path, sqlite:///path (four slashes where the path is absolute), or memory://"
    )


__all__ = ["MemoryStore", "SqliteStore", "Store", "store_at"]
