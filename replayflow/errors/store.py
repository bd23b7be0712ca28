"""The durable store refused: retry, or call the operator."""

from __future__ import annotations

import errno

from replayflow.errors.base import ReplayflowError


class StoreError(ReplayflowError):
    """The durable store could not do what was asked; what was committed before stands."""

    code = "RF300"


class HubOwnedError(StoreError):
    """Another worker owns the task hub; the message names its process.

    One worker at a time runs a SQLite hub. Stop the other one, use `when_owned="wait"` to take over when it ends, or be a client:
    `when_owned="client"`. From a process that does nothing and cannot be ended `when_owned="take_over"` takes the hub.
    """

    code = "RF301"


class LeaseLostError(StoreError):
    """This worker no longer owns the hub: another one took over. What it had not committed is discarded and done by the new owner."""

    code = "RF302"


class StoreFullError(StoreError):
    """The disk that holds the store is full. Nothing is lost: make room, and the worker goes on."""

    code = "RF303"


class StoreReadOnlyError(StoreError):
    """The store cannot be written: the file, its folder or the file system is read-only. Correct the permissions; nothing was changed."""

    code = "RF304"


class StoreCorruptError(StoreError):
    """The store's file is damaged: a page or a history does not read back as it was written.

    Nothing was changed. Keep the file, run `PRAGMA integrity_check` on a copy of it, and restore the last good backup. Where there is none, and one
    instance is damaged, `replayflow purge ID --damaged` takes that out, whatever its status: its history is lost, of others nothing is touched.
    """

    code = "RF305"


class NotAHubError(StoreError):
    """The file is no replayflow task hub (another SQLite database, or no database at all); it was left as it is. Check the path."""

    code = "RF306"


class NewerSchemaError(StoreError):
    """The task hub was written by a newer version of replayflow; it was left as it is. Upgrade replayflow to open it."""

    code = "RF307"


class StoreBusyError(StoreError):
    """Another process held the store's write lock for longer than the time limit. Nothing was written; try again."""

    code = "RF308"


class StoreUnavailableError(StoreError):
    """The store cannot be opened or reached: a missing folder, missing permissions, an I/O error, an unknown kind of URL."""

    code = "RF309"


class StoreMovedError(StoreError):
    """The store's file, or its log, was removed, moved away or replaced while it was open.

    What is written to an open file that no path leads to is lost, so nothing is. To replace a hub, by a backup say, end its worker and its clients
    first, and move the file together with those whose names begin with its own.
    """

    code = "RF310"


class StarvedError(StoreError):
    """The operating system gives this process no more of something that a hub needs: memory, open files, threads or processes.

    What was committed stands. Raise the limit that the message names (`ulimit -a` shows them), or do less at a time, and start again.
    """

    code = "RF311"


def starved(error: BaseException) -> StarvedError | None:
    """The error as a refusal of the operating system, with its cause; None where it is something else."""
    match error:
        case MemoryError():
            what = "memory"
        case OSError(errno=errno.ENOMEM):
            what = "memory"
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            what = "open files"
        case OSError(errno=errno.EAGAIN):
            what = "processes"
        case RuntimeError() if str(error).startswith("can't start new thread"):
            what = "threads"
        case _:
            return None
    said = str(error) or type(error).__name__
    found = StarvedError(
        f"the operating system gives this process no more {what} ({said}): what was committed stands; raise its limit, or do less at a time, and "
        "start again"
    )
    found.__cause__ = error
    return found
