"""The SQLite store."""

from replayflow.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
