"""A hub's files as bytes: what there is to recover from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

_numbers = count()


class Files(NamedTuple):
    """What a hub has on its disk. The shared memory beside it (`-shm`) is made anew by whoever comes first, and the lock's file has no content."""

    main: bytes
    log: bytes | None = None
    journal: bytes | None = None
    """There while the file is not yet one with a write-ahead log."""

    def lay(self, path: Path) -> None:
        """The files are at the path, which nothing has had before."""
        path.write_bytes(self.main)
        if self.log is not None:
            Path(f"{path}-wal").write_bytes(self.log)
        if self.journal is not None:
            Path(f"{path}-journal").write_bytes(self.journal)


@contextmanager
def laid(files: Files, folder: Path) -> Iterator[Path]:
    """A fresh path with the files, which are gone afterwards."""
    path = folder / f"copy{next(_numbers)}.db"
    files.lay(path)
    try:
        yield path
    finally:
        for suffix in ("", "-wal", "-shm", "-journal", "-lock"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)


class Reader:
    """Copies the files of a hub that is open in this very process.

    The main file stays open here for as long: to close it would drop the locks that SQLite has on it, which are the process's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._main: int | None = None
        self._last: Files | None = None

    def copy(self) -> Files:
        """The files now; the same object as before where nothing has changed."""
        if self._main is None and self.path.exists():
            self._main = os.open(self.path, os.O_RDONLY)
        main = b"" if self._main is None else os.pread(self._main, os.fstat(self._main).st_size, 0)
        now = Files(main, _bytes_of(f"{self.path}-wal"), _bytes_of(f"{self.path}-journal"))
        if self._last is None or now != self._last:
            self._last = now
        return self._last

    def close(self) -> None:
        """Only when SQLite has closed the hub."""
        if self._main is not None:
            os.close(self._main)
            self._main = None


def _bytes_of(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None
