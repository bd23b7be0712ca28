"""The SQL of the store, by name: `statements.sql` beside this file is the one place where it is written.

A statement whose name has a row behind it, `(?, nullif(?, ''))`, takes many rows of that form. SQLite hands the interpreter's lock to and fro with
every statement, and whoever wants it back waits beside a busy event loop: a thousand rows go in by ten statements of many rows each.

Python's sqlite3 looks for an adapter for every value that is not exactly an int, a float, a str or a bytearray, which costs ten times what binding
it does. In rows, therefore, bytes go as bytearrays, and NULL goes as a value of a type that its column never has: "" for a number or a blob, 0 for
text.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from importlib.resources import files
from itertools import chain

_NAME = re.compile(r"^-- name: (\w+)(?: (\(.*\)))?\s*$", re.MULTILINE)
NO_BLOB = NO_NUMBER = ""
NO_TEXT = 0
_THEN = "-- then:"
_ROWS_PER_STATEMENT = (100, 10, 1)


class Rows:
    """A statement that takes many rows."""

    def __init__(self, text: str, row: str) -> None:
        before, _, after = text.partition(_THEN)
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
    for name, row, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if row:
            many[name] = Rows(text.strip(), row)
        else:
            plain[name] = text.strip()
    return plain, many


SQL, ROWS = _read()
