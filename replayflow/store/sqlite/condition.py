"""How a hub's file is: its sizes, its format, its permissions, and, on request, whether all of it can be read."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

from replayflow.store.base import Condition
from replayflow.store.sqlite.statements import SQL

_SOUND = "ok"


def condition(connection: sqlite3.Connection, path: Path, is_thorough: bool) -> Condition:
    """The file as it is now; where the look `is_thorough` every page of it is read, which takes a second for each gigabyte or so."""
    size, free = connection.execute(SQL["size"]).fetchone()
    log = Path(f"{path}-wal")
    return Condition(
        size=size,
        free=free,
        log=log.stat().st_size if log.exists() else 0,
        format=connection.execute(SQL["format"]).fetchone()[0],
        mode=stat.S_IMODE(path.stat().st_mode),
        faults=_faults(connection) if is_thorough else (),
    )


def _faults(connection: sqlite3.Connection) -> tuple[str, ...]:
    try:
        found = connection.execute(SQL["quick_check"]).fetchall()
    except sqlite3.DatabaseError as error:
        if (getattr(error, "sqlite_errorname", "") or "").split("_")[1:2] != ["CORRUPT"]:
            raise
        return (str(error),)
    return tuple(str(text) for (text,) in found if text != _SOUND)
