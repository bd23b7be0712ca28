"""What a process does to a hub's files, statement by statement: each is a point at which it may be killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from weakref import ref

import pytest

from tests.store.crashes.contents import Contents, contents_now
from tests.store.crashes.files import Files, Reader
from tests.store.crashes.log import FRAME, commits_in, page_size

FEW_PAGES = 8
_connect = sqlite3.connect


class _Traced(sqlite3.Connection):
    """One that can be referred to weakly: what SQLite calls must not keep it alive."""


class Point(NamedTuple):
    """A moment in the life of a process: what it had on disk, and which of the committed states that was."""

    before: str
    """The statement that was next."""
    files: Files
    state: int


class Recording:
    """The points that were passed, and the states that were committed one after another. At the point `dies_at` the process is killed."""

    def __init__(self, path: Path, pages: int | None = None, dies_at: int | None = None) -> None:
        self.path = path
        self.points: list[Point] = []
        self.states: list[Contents] = []
        self.transactions = 0
        self._pages = pages
        self._dies_at = dies_at
        self._reader = Reader(path)
        self._error: BaseException | None = None
        self._lock = threading.RLock()
        self._noted: list[tuple[bytes, int]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Whatever is done to the hub meanwhile is recorded. The hub is closed within."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite3, "connect", self._connected)
            self.passed("the first")
            try:
                yield
                self.passed("the last")
            finally:
                self._reader.close()
        if self._error is not None:
            raise self._error

    def passed(self, what: str) -> Point:
        """A point that is no statement: something was told, or has begun."""
        self._look(what, is_moment=True)
        return self.points[-1]

    def _connected(self, database: Any, *args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = _connect(database, *args, factory=_Traced, **options)
        if str(database) == str(self.path):
            if self._pages is not None:
                connection.execute(f"PRAGMA cache_size = {self._pages}")
            # The log is not begun anew while somebody copies it beside the main file.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.set_trace_callback(partial(self._reached, ref(connection)))
        return connection

    def _reached(self, connection: ref[sqlite3.Connection], statement: str) -> None:
        """SQLite calls this before each statement, and before each of a trigger's."""
        if threading.current_thread().name.endswith("reading") or self._error is not None:
            return
        try:
            open = connection()
            self._look(statement, is_inside=open is not None and open.in_transaction)
        except BaseException as error:  # which SQLite would not let through
            self._error = error

    def _look(self, statement: str, *, is_inside: bool = False, is_moment: bool = False) -> None:
        with self._lock:
            # First: another thread may commit meanwhile, and then the files have at least what was seen.
            state = None if is_inside else contents_now(self.path)
            files = self._reader.copy()
            self._add(statement, files, state, is_inside, is_moment)

    def _add(self, statement: str, files: Files, state: Contents | None, is_inside: bool, is_moment: bool) -> None:
        if state is not None:
            self._note_state(state, None if is_moment else files.log)
        begins = statement.startswith(("BEGIN", "SAVEPOINT"))
        self.transactions += begins and not is_inside
        if is_inside or begins or is_moment or files is not self.points[-1].files:
            self.points.append(Point(statement, files, len(self.states) - 1))
            if len(self.points) == self._dies_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def _note_state(self, state: Contents, log: bytes | None) -> None:
        if not self.states or state != self.states[-1]:
            self.states.append(state)
        if log is not None and (not self._noted or len(log) >= len(self._noted[-1][0])):  # else the hub has been closed
            self._noted.append((log, len(self.states) - 1))

    def state_of_commits(self, log: bytes) -> dict[int, int]:
        """Which state it is after so many commits in the log, which is the last that was copied."""
        last = [slice(end - FRAME - page_size(log), end) for end in commits_in(log)]
        # A frame's checksum is of all before it, too.
        return {sum(noted[frame] == log[frame] for frame in last): state for noted, state in self._noted}
