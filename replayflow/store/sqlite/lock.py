"""Who may be the hub's worker: a lock of the operating system on a file beside the database.

The kernel lets go of the lock when its process ends, however it ends, so that a takeover needs no waiting and an idle worker writes nothing. The lock
belongs to the open file, not to the process: two hubs in one process exclude each other, too. A forked child closes its copy at once, or it would
hold the lock after its parent's death. The file itself stays: to remove it would let two workers lock two files of one name. Who takes a hub by
force replaces it, and the lock counts only on the file that stands at the path (`docs/decisions/0027-taking-a-hub-by-force.md`).
"""

from __future__ import annotations

import errno
import os
import sys
import weakref
from pathlib import Path

from replayflow.store.sqlite.connection import of_os_error

# Where others can write to the folder, the name may lead elsewhere, or be a pipe that nobody writes to: neither is followed or waited for.
_AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class FileLock:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        """Whether the lock has become ours; false where somebody has it, this object too. Does not wait."""
        if self._file is not None:
            return False
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | _AS_IT_IS, 0o600)
        except OSError as error:
            raise of_os_error(error, f"the lock file {self.path} cannot be opened") from error
        try:
            is_free = _lock(file)
        except OSError as error:
            os.close(file)
            raise of_os_error(error, f"the file {self.path} cannot be locked") from error
        if not is_free or not self._is_at_the_path(file):
            os.close(file)
            return False
        self._keep(file)
        return True

    def seize(self) -> None:
        """The lock is ours, whoever had it: theirs is on a file that has no name any more. One at a time may be at this.

        Raises:
            StoreError: the file cannot be made, or, on Windows, not be replaced as long as it is open.
        """
        self.release()
        new = self.path.with_name(self.path.name + "-new")
        try:
            file = os.open(new, os.O_RDWR | os.O_CREAT | _AS_IT_IS, 0o600)
        except OSError as error:
            raise of_os_error(error, f"the lock file {new} cannot be made") from error
        try:
            if not _lock(file):
                raise BlockingIOError(errno.EAGAIN, "another process has it")
            os.replace(new, self.path)  # noqa: PTH105 - as the other calls here
        except OSError as error:
            os.close(file)
            raise of_os_error(error, f"the lock file {self.path} cannot be replaced") from error
        self._keep(file)

    def is_ours(self) -> bool:
        """Whether the lock is ours, and on the file that stands at the path."""
        return self._file is not None and self._is_at_the_path(self._file)

    def _is_at_the_path(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self.path))  # noqa: PTH116 - as the other calls here
        except FileNotFoundError:
            return False

    def _keep(self, file: int) -> None:
        self._file = file
        _held.add(self)

    def release(self) -> None:
        """The lock is free, where it was ours."""
        file, self._file = self._file, None
        _held.discard(self)
        if file is not None:
            os.close(file)

    def is_taken(self) -> bool:
        """Whether somebody has the lock, this object too. To know, it is shared with whoever else looks, for less than a moment.

        Where the file cannot be opened nobody can say; then it counts as taken.
        """
        if self._file is not None:
            return True
        try:
            file = os.open(self.path, os.O_RDONLY | _AS_IT_IS)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        try:
            return not _share(file)
        except OSError:
            return True
        finally:
            os.close(file)

    def _forget(self) -> None:
        self.release()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    _share = _lock  # there is no lock that several have
else:
    import fcntl

    def _lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _share(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _forget_in_child() -> None:
    for lock in list(_held):
        lock._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
