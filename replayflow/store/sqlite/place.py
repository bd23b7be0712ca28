"""Whether the files of an open hub still stand where they were opened.

SQLite in WAL mode does not look: when somebody removes or replaces the file it writes on into what no path leads to, and all that was accepted goes
with the last process that has it open. Prose: `docs/decisions/0027-taking-a-hub-by-force.md`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from replayflow.errors import StoreMovedError

_LOOK_SECONDS = 0.1


class Place:
    """The database, its log and its shared memory, as they are now: while a connection is open none of them changes."""

    def __init__(self, path: Path) -> None:
        real = os.path.realpath(path)  # the program may change its folder
        self._log = f"{real}-wal"
        self._files = {name: _identity(name) for name in (real, self._log, f"{real}-shm")}
        self._look_at = 0.0

    def check(self) -> None:
        """The files are those that were opened, or were so less than a tenth of a second ago.

        Raises:
            StoreMovedError: one of them is another now, or gone. So it is from then on.
        """
        now = time.monotonic()
        if now >= self._look_at:
            self.look()
            self._look_at = now + _LOOK_SECONDS

    def look(self) -> None:
        """As `check`, but now."""
        for name, opened in self._files.items():
            try:
                found = _identity(name)
            except OSError:
                continue  # nobody can say; whoever reads or writes will hear it
            if found != opened:
                what = "was removed or moved away" if found is None else "was replaced by another file"
                raise StoreMovedError(
                    f"{name} {what} while it was open: nothing is read from it or written to it any more, and what was written since then goes with "
                    "it. Put back what was there, with all its side files, or leave what is there now, and start again"
                )

    def has_the_log_of_others(self) -> bool:
        """Whether another hub's log stands where ours did. To close our connection would remove it: SQLite goes by the name."""
        try:
            return _identity(self._log) not in (None, self._files[self._log])
        except OSError:
            return True


def _identity(name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(name)  # noqa: PTH116 - a text costs half as much as a path
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
