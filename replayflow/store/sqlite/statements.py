"""The SQL of the store, by name: `statements.sql` beside this file is the one place where it is written.

A statement whose name has a number in brackets, `(17)`, takes rows of that many values. SQLite hands the interpreter's lock to and fro with every
statement, so that a thousand rows go in by a few statements of many rows each, and not by a thousand.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from importlib.resources import files
from itertools import chain

_NAME = re.compile(r"^-- name: (\w+)(?: \((\d+)\))?\s*$", re.MULTILINE)
_THEN = "-- then:"
_ROWS_PER_STATEMENT = (256, 32, 4, 1)


class Rows:
    """A statement that takes many rows."""

    def __init__(self, text: str, width: int) -> None:
        before, _, after = text.partition(_THEN)
        row = "(" + ",".join("?" * width) + ")"
        self._by_count = {count: f"{before}\n{','.join([row] * count)}\n{after}" for count in _ROWS_PER_STATEMENT}

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[object]]) -> None:
        """All rows are given to the statement, as many at a time as fit."""
        start, total = 0, len(rows)
        for count in _ROWS_PER_STATEMENT:
            while total - start >= count:
                connection.execute(self._by_count[count], list(chain.from_iterable(rows[start : start + count])))
                start += count


def _read() -> tuple[dict[str, str], dict[str, Rows]]:
    parts = _NAME.split(files("replayflow.store.sqlite").joinpath("statements.sql").read_text("utf-8"))
    plain: dict[str, str] = {}
    many: dict[str, Rows] = {}
    for name, width, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if width:
            many[name] = Rows(text.strip(), int(width))
        else:
            plain[name] = text.strip()
    return plain, many


SQL, ROWS = _read()
