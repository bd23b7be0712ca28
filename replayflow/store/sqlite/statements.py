"""The SQL of the store, by name: `statements.sql` beside this file is where it is written, and `whole.sql` what reads all of a hub.

A `walk` becomes a statement for each way through an index, `NAME forward` and `NAME back`: from the place `(:at, :key)`, which is left out, to
the position `:end` (forward, left out) or `:start` (back); and, with `size` behind the name, how many places
that gives. A `part` is the text that stands for its name in braces.

A statement whose name has a row behind it, `(?, nullif(?, ''))`, takes many rows of that form. SQLite hands the interpreter's lock to and fro with
every statement, and whoever wants it back waits beside a busy event loop: a thousand rows go in by four statements of many rows each.

Python's sqlite3 looks for an adapter for every value that is not exactly an int, a float, a str or a bytearray, which costs ten times what binding
it does. In rows, therefore, bytes go as bytearrays, and NULL goes as a value of a type that its column never has: "" for a number or a blob, 0 for
text.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from functools import reduce
from importlib.resources import files
from itertools import chain

_NAME = re.compile(r"^-- (name|walk|part): (\w+)(?: (\(.*\)))?\s*$", re.MULTILINE)
_PLACE = re.compile(r"SELECT (\w+), (\w+) FROM")
NO_BLOB = NO_NUMBER = ""
NO_TEXT = 0
_THEN = "-- then:"
_ROWS_PER_STATEMENT = (250, 50, 10, 1)


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


def _read(file: str, shared: dict[str, str]) -> tuple[dict[str, str], dict[str, Rows]]:
    """The statements of the file; its parts join the shared ones."""
    parts = _NAME.split(files("replayflow.store.sqlite").joinpath(file).read_text("utf-8"))
    each = list(zip(parts[1::4], parts[2::4], parts[3::4], map(str.strip, parts[4::4]), strict=True))
    shared.update((f"{{{name}}}", text) for kind, name, _, text in each if kind == "part")
    plain: dict[str, str] = {}
    many: dict[str, Rows] = {}
    for kind, name, row, text in each:
        if kind == "walk":
            for way, statement in zip(("forward", "back"), _both_ways(text), strict=True):
                plain[f"{name} {way}"] = statement
                plain[f"{name} {way} size"] = f"SELECT count(*) FROM (\n{statement})"  # noqa: S608 - put together once, from our own
        elif row:
            many[name] = Rows(text, row)
        elif kind == "name":
            plain[name] = reduce(lambda text, part: text.replace(*part), shared.items(), text)
    return plain, many


def _both_ways(walk: str) -> tuple[str, str]:
    """The walk forward and back. Two searches that are merged: `(at, key) > (?, ?)` would walk over all of an equal position again for each page.
    The `+` keeps a search from using the bound instead of the equality."""
    found = _PLACE.match(walk)
    assert found is not None  # noqa: S101 - every walk begins with its place
    at, key = found.groups()
    forward = (
        f"{walk} AND {at} = :at AND {key} > :key AND +{at} < :end\n"
        f"UNION ALL\n{walk} AND {at} > :at AND {at} < :end\nORDER BY 1, 2 LIMIT :limit"
    )
    back = (
        f"{walk} AND {at} = :at AND {key} < :key AND +{at} >= :start\n"
        f"UNION ALL\n{walk} AND {at} < :at AND {at} >= :start\nORDER BY 1 DESC, 2 DESC LIMIT :limit"
    )
    return forward, back


_shared: dict[str, str] = {}
SQL, ROWS = _read("statements.sql", _shared)
WHOLE, _ = _read("whole.sql", _shared)
