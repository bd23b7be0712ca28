"""A long migration, and those who wait for it: the one says in a file beside the hub that it goes on, the others wait for as long as it does.

1. The file helps to wait, and decides nothing: who migrates is decided by SQLite's own lock, so that a file that a crash left behind holds nobody up.
2. Whoever waits gives up when nothing has moved for `busy_seconds`, and says whose migration that is.
"""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from replayflow.errors import StoreBusyError
from replayflow.store.sqlite.connection import in_transaction

_logger = logging.getLogger("replayflow")
_LOOK_SECONDS = 0.1
_SAID_EVERY_SECONDS = 0.5
_STEPS_PER_TICK = 10_000  # of SQLite's machine: about a millisecond
_TEXT_BYTES_MAX = 500
_AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Upgrade:
    """One opening of a hub of an older format."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, busy_seconds: float, unwanted: threading.Event
    ) -> None:
        self._connection = connection
        self._path = path
        self._file = Path(os.path.realpath(path) + "-upgrade")
        self._busy_seconds = busy_seconds
        self._unwanted = unwanted

    def run(self, work: Callable[[sqlite3.Connection], None], is_done: Callable[[], bool], wanted: int) -> None:
        """The work is committed, by us or by somebody who was faster; `wanted` is the format that the hub has then.

        Raises:
            StoreBusyError: somebody else has been writing, and does not go on; or nobody wants to know any more.
        """
        self._connection.execute("PRAGMA busy_timeout = 0")  # we wait ourselves
        try:
            seen, moved = self._said(), time.monotonic()
            has_told = False
            while not is_done():
                try:
                    in_transaction(self._connection, lambda connection: self._at_work(connection, work, wanted))
                except sqlite3.OperationalError as error:
                    if getattr(error, "sqlite_errorname", None) != "SQLITE_BUSY":
                        raise
                else:
                    return
                said = self._said()
                if said != seen:
                    seen, moved = said, time.monotonic()
                    if said is not None and not has_told:
                        has_told = True
                        _logger.warning("%s is being brought up to date by %s: waiting", self._path, _who(said))
                if self._unwanted.wait(_LOOK_SECONDS) or time.monotonic() - moved > self._busy_seconds:
                    raise StoreBusyError(self._refusal(said, wanted))
        finally:
            self._connection.execute(_busy_timeout(self._busy_seconds))

    def _at_work(self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], None], wanted: int) -> None:
        with self._saying(connection, wanted):
            work(connection)

    @contextmanager
    def _saying(self, connection: sqlite3.Connection, wanted: int) -> Iterator[None]:
        """Meanwhile the file says that it goes on, as long as SQLite is at work. Where nobody wants it any more, the work is interrupted."""
        said, ticks = 0.0, 0

        def tick() -> bool:
            nonlocal said, ticks
            if time.monotonic() - said >= _SAID_EVERY_SECONDS:
                said, ticks = time.monotonic(), ticks + 1
                self._say(f"{wanted} {ticks} {os.getpid()} {socket.gethostname()}")
            return self._unwanted.is_set()

        tick()
        connection.set_progress_handler(tick, _STEPS_PER_TICK)
        try:
            yield
        finally:
            connection.set_progress_handler(None, 0)
            with suppress(OSError):
                self._file.unlink()

    def _say(self, text: str) -> None:
        with suppress(OSError):  # it is for those who wait; whether we can go on is another matter
            file = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _AS_IT_IS, 0o600)
            try:
                os.write(file, text.encode())
            finally:
                os.close(file)

    def _said(self) -> str | None:
        """What the file says; None where there is none, or nothing in it."""
        try:
            file = os.open(self._file, os.O_RDONLY | _AS_IT_IS)
        except OSError:
            return None
        try:
            return os.read(file, _TEXT_BYTES_MAX).decode("utf-8", "replace") or None
        except OSError:
            return None
        finally:
            os.close(file)

    def _refusal(self, said: str | None, wanted: int) -> str:
        still = f"for {self._busy_seconds:g} s"
        if said is None:
            return (
                f"{self._path} has to be brought up to date (to format {wanted}), but another process has been writing to it {still}: nothing was "
                "written; stop what works with it (a worker of an older version, say), or wait, and open it again"
            )
        return (
            f"{self._path} is being brought up to date by {_who(said)}, which has not moved {still}: nothing was written; where that process stands "
            "still, end it, and the next that opens the hub does the whole again: nothing is lost"
        )


def _busy_timeout(seconds: float) -> str:
    """A pragma takes no parameters; this one gets a whole number."""
    return f"PRAGMA busy_timeout = {int(seconds * 1_000)}"


def _who(said: str) -> str:
    """Who is at work, and at what, as the file says it."""
    parts = said.split(" ", 3)
    if len(parts) < 4 or not all(part.isdigit() for part in parts[:3]):
        return "another process"
    return f"process {parts[2]} on {parts[3]!r:.100} (to format {parts[0]})"
