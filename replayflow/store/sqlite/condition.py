"""How a hub's file is: its sizes, its format, its permissions, and, on request, whether all of it can be read."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

from replayflow.store.base import Condition
from replayflow.store.sqlite import audit
from replayflow.store.sqlite.statements import SQL


def condition(connection: sqlite3.Connection, path: Path, is_thorough: bool) -> Condition:
    """The file as it is now; where the look `is_thorough` all of it is read and held against its sums: some 20 seconds for each gigabyte."""
    size, free = connection.execute(SQL["size"]).fetchone()
    log = Path(f"{path}-wal")
    return Condition(
        size=size,
        free=free,
        log=log.stat().st_size if log.exists() else 0,
        format=connection.execute(SQL["format"]).fetchone()[0],
        mode=stat.S_IMODE(path.stat().st_mode),
        faults=audit.faults(connection) if is_thorough else (),
    )
