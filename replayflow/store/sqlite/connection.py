"""SQLite as the store uses it: opening a file, one thread that writes and one that reads, and errors that say what to do.

A transaction is one function that runs on its thread from BEGIN to COMMIT: one hop for a whole group, and no statement of another between two of
its own. Durability is WAL with synchronous=FULL: a commit has reached the disk when the function returns.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from replayflow.errors import (
    InvalidArgumentError,
    NotAHubError,
    ReplayflowError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreMovedError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from replayflow.store.sqlite.place import Place
from replayflow.store.sqlite.statements import SQL

T = TypeVar("T")
SQLITE_VERSION_MIN = (3, 35, 0)  # UPDATE ... FROM and RETURNING
CACHED_STATEMENTS = 256
SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises: where a damaged schema makes its own message no text, Python's module raises that in its place."""
_BUSY_LOOK_SECONDS = 0.005


def checked_path(path: str | Path) -> Path:
    """The path, which may or may not lead to something.

    Raises:
        InvalidArgumentError: no file can have it.
    """
    try:
        is_one = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_one = False
    if not is_one:
        raise InvalidArgumentError(f"{str(path)!r:.80} is no path: it has a character that no name of a file has")
    return Path(path)


def check_file(path: Path) -> None:
    """The path can hold a hub: it is free, or a file. A new file is made readable by its owner alone.

    What is in an existing file only SQLite may look at: on POSIX systems, to open and close it here would drop all the locks that this process holds
    on it, and the next process to close the hub would delete the write-ahead log under a worker that is writing to it.

    Raises:
        StoreUnavailableError: the folder is missing, the file cannot be made, or the way to it is closed.
        StoreReadOnlyError: the folder cannot be written.
        NotAHubError: the path is a folder, or a device.
    """
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        raise StoreUnavailableError(
            f"this Python's SQLite is {sqlite3.sqlite_version}; replayflow needs {'.'.join(map(str, SQLITE_VERSION_MIN))} or newer"
        )
    try:
        _check_kind(path, Path(os.path.realpath(path)))
    except OSError as error:
        raise StoreUnavailableError(
            f"{path} cannot be opened ({error.strerror}): check the path, and the permissions on the way to it"
        ) from error


def _check_kind(path: Path, real: Path) -> None:
    if not path.parent.is_dir():
        raise StoreUnavailableError(f"{path} cannot be made: the folder {path.parent} does not exist")
    try:
        os.close(os.open(real, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass
    except PermissionError as error:
        if not os.access(real.parent, os.X_OK):
            raise  # nobody can say whether it is there
        raise StoreReadOnlyError(f"{path} cannot be made: the folder {real.parent} cannot be written") from error
    except OSError as error:
        raise of_os_error(error, f"{path} cannot be made") from error
    found = real.stat()
    if stat.S_ISDIR(found.st_mode):
        raise NotAHubError(f"{path} is a folder; a task hub is a file")
    if not stat.S_ISREG(found.st_mode):
        raise NotAHubError(f"{path} is no regular file, and so no task hub")
    if found.st_nlink > 1:
        raise StoreUnavailableError(
            f"{path} has another name (a hard link): SQLite's side files and the worker's lock go by the name, and two would not know of each other; "
            "remove the other name"
        )


def check_length(connection: sqlite3.Connection, path: Path) -> None:
    """The file is whole pages. SQLite itself takes the rest of a page that was cut for zeros, and would serve them.

    While there is a log the last page may be half written: a checkpoint that was killed, which the next one does again.

    Raises:
        StoreCorruptError: its last page was cut.
    """
    log = path.with_name(path.name + "-wal")

    def has_log() -> bool:
        return log.exists() and log.stat().st_size > 0

    page_bytes: int = connection.execute("PRAGMA page_size").fetchone()[0]
    if (
        not has_log() and path.stat().st_size % page_bytes != 0 and not has_log()
    ):  # others may be at it between two looks
        raise _damaged(path, "it ends in the middle of a page, and was cut")


def connect(path: Path, busy_seconds: float, synchronous: str) -> sqlite3.Connection:
    """A connection for the writing thread, in WAL mode."""
    connection = sqlite3.connect(
        path, timeout=busy_seconds, isolation_level=None, check_same_thread=False, cached_statements=CACHED_STATEMENTS
    )
    try:
        _use_wal(connection, busy_seconds)
        if synchronous == "NORMAL":
            connection.execute("PRAGMA synchronous = NORMAL")
        else:
            connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """A connection for the reading thread, which cannot write."""
    connection = sqlite3.connect(
        path, timeout=busy_seconds, isolation_level=None, check_same_thread=False, cached_statements=CACHED_STATEMENTS
    )
    try:
        connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """The file is in WAL mode. Where several want to make it so at once, SQLite tells all but one that it is busy, and does not wait as it should."""
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_LOOK_SECONDS)
        else:
            return


def in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """The work is committed as a whole, or, where it raises, undone as a whole."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk may have rolled back already
            connection.execute("ROLLBACK")
        raise
    return result


class DatabaseThread:
    """One thread with one connection. What it is given runs in order, and never two at a time.

    While somebody subscribes it looks every `poll_seconds` whether another connection has changed the file: a read of shared memory, not of the disk.
    Not more often: whoever waits for what it has done goes on at that moment, and needs the interpreter's lock more. And before all that it does it
    looks whether the file is still at its place.
    """

    def __init__(self, connection: sqlite3.Connection, place: Place, name: str, poll_seconds: float) -> None:
        self._connection = connection
        self._place = place
        self._poll_seconds = poll_seconds
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._subscribers: list[Callable[[], None]] = []
        self._version = self._data_version()
        self._look_at = 0.0
        self._closed: asyncio.Future[None] = self._loop.create_future()
        # Each is written by one thread alone, so that none is ever lost.
        self._given = self._done = 0
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        """Whether all that it was given is done. For the event loop's thread, which gives."""
        return self._given == self._done

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What the work returns, once the thread has done it; or what it raises. It is done in any case, also where the caller is cancelled."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._give(work, future)
        return await future  # cancelled with its caller: what the work came to is then told to nobody, an error neither

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        self._subscribers.append(changed)
        if len(self._subscribers) == 1:
            nobody = self._loop.create_future()
            nobody.cancel()
            self._give(lambda _: None, nobody)  # wakes the thread, so that it begins to look

        def unsubscribe() -> None:
            if changed in self._subscribers:
                self._subscribers.remove(changed)

        return unsubscribe

    async def close(self) -> None:
        """All that was given is done, the connection is closed and the thread has ended."""
        self._work.put(None)
        await self._closed

    def _give(self, work: Callable[[sqlite3.Connection], Any], future: asyncio.Future[Any]) -> None:
        self._given += 1
        self._work.put((work, future))

    def _run(self) -> None:
        while True:
            try:
                item = self._work.get(timeout=self._seconds_to_look())
            except Empty:
                self._look()
                continue
            if item is None:
                break
            self._do(*item)
            del item  # or what it was would be kept until something else comes
            if self._seconds_to_look() == 0:
                self._look()
        if self._place.has_the_log_of_others():
            self._tell(_settle, self._closed, None)
            threading.Event().wait()  # for ever: the connection is left to the end of the process, which closes it without removing anything
        try:
            self._connection.close()
        finally:
            self._tell(_settle, self._closed, None)

    def _do(self, work: Callable[[sqlite3.Connection], Any], future: asyncio.Future[Any]) -> None:
        try:
            self._place.check()
            result = work(self._connection)
        except BaseException as error:
            self._done += 1
            self._tell(_settle_error, future, error)
        else:
            self._done += 1
            self._tell(_settle, future, result)

    def _seconds_to_look(self) -> float | None:
        """For how long nobody need look; None where nobody subscribes."""
        return max(0.0, self._look_at - time.monotonic()) if self._subscribers else None

    def _look(self) -> None:
        self._look_at = time.monotonic() + self._poll_seconds
        try:
            self._place.check()
        except StoreMovedError:
            version = None  # whoever is told asks for something, and hears it
        else:
            version = self._data_version()
        if version != self._version:
            self._version = version
            self._tell(self._notify)

    def _data_version(self) -> int | None:
        try:
            version: int = self._connection.execute(SQL["database_changes"]).fetchone()[0]
        except sqlite3.Error:
            return None  # somebody holds the file; whoever reads next will see
        return version

    def _notify(self) -> None:
        for changed in list(self._subscribers):
            changed()

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            pass  # the event loop was closed over our head: nobody is left to be told


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _settle_error(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def of_sqlite_error(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> ReplayflowError:
    """The error as users meet it: what it means for them, and what to do."""
    if isinstance(error, UnicodeDecodeError) or "Could not decode" in str(error):
        return _damaged(path, "what should be text is none")
    name = getattr(error, "sqlite_errorname", "") or ""
    match name.split("_")[1:2]:
        case ["FULL"] | ["IOERR"] if name in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"):
            return StoreFullError(f"the disk that holds {path} is full: nothing was written; make room, and it goes on")
        case ["READONLY"]:
            return StoreReadOnlyError(
                f"{path} cannot be written ({error}): check the permissions of the file and of its folder"
            )
        case ["NOTADB"]:
            return NotAHubError(f"{path} is no SQLite database, and so no task hub; it was left as it is")
        case ["CORRUPT"]:
            return _damaged(path, str(error))
        case ["BUSY"] | ["LOCKED"]:
            return StoreBusyError(f"another process held {path} for too long: nothing was written; try again")
        case ["CANTOPEN"] if _is_only_readable(path):
            return StoreReadOnlyError(
                f"{path} cannot be written ({error}), and whoever opens a hub has to make files beside it: check whether the disk may be "
                "written, and the permissions of the file and of its folder"
            )
        case ["CANTOPEN"]:
            return StoreUnavailableError(f"{path} cannot be opened ({error}): check the path and its permissions")
        case ["IOERR"] if name == "SQLITE_IOERR_SHORT_READ":
            return _damaged(path, "it, or its log, is shorter than it was")
        case ["IOERR"]:
            return StoreUnavailableError(
                f"{path} cannot be read or written ({error}, {name}): check the disk, "
                "whether it has failed or may not be written, and the limits on what this process may write"
            )
        case _:
            return StoreError(f"{path}: {error}{f' ({name})' if name else ''}")


def _is_only_readable(path: Path) -> bool:
    folder = Path(os.path.realpath(path)).parent
    return os.access(path, os.R_OK) and not (os.access(path, os.W_OK) and os.access(folder, os.W_OK))


def _damaged(path: Path, how: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"{path} is damaged ({how}): nothing was changed; keep a copy, run PRAGMA integrity_check on it, and restore the last good backup"
    )


def of_os_error(error: OSError, what: str) -> StoreError:
    """The operating system's refusal as users meet it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFullError(f"{what}: the disk is full")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreReadOnlyError(f"{what}: {error.strerror}")
    return StoreUnavailableError(f"{what}: {error.strerror}")
