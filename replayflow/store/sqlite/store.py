"""The SQLite store: one file, one worker, any number of clients.

Writes go through one thread, a transaction a group (`group.py`); reads through another, on a connection that cannot write (`reading.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal, TypeVar

from replayflow.codec import LARGE_OVER_BYTES
from replayflow.codec.cipher import Cipher, checked_cipher
from replayflow.core.instance import Status
from replayflow.core.suspicion import Suspicion
from replayflow.errors import (
    HubOwnedError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreUnavailableError,
    starved,
)
from replayflow.store.base import (
    Condition,
    Delivery,
    Finished,
    Footprint,
    Grouping,
    InstanceFilter,
    InstanceRecord,
    Loaded,
    Lost,
    Operation,
    Outcome,
    Owner,
    Page,
    Served,
    Suspect,
    Transact,
    Unread,
    Waiting,
    Wake,
)
from replayflow.store.outgoing import checked_limit
from replayflow.store.sqlite import finding, hub, reading, removing, schema, suspects, transactions
from replayflow.store.sqlite.ahead import Ahead, work_out, write_ahead
from replayflow.store.sqlite.condition import condition
from replayflow.store.sqlite.connection import (
    SQLITE_ERRORS,
    DatabaseThread,
    check_file,
    check_length,
    checked_path,
    connect,
    connect_reader,
    in_transaction,
    of_sqlite_error,
)
from replayflow.store.sqlite.group import write_group
from replayflow.store.sqlite.guard import prepare
from replayflow.store.sqlite.known import Remembered
from replayflow.store.sqlite.lock import FileLock
from replayflow.store.sqlite.place import Place
from replayflow.store.sqlite.statements import SQL
from replayflow.store.sqlite.sums import of_row
from replayflow.store.sqlite.together import Together

T = TypeVar("T")
_LOCK_TRIES = 3
_LOCK_AGAIN_SECONDS = 0.01
POLL_SECONDS = 0.04  # so that a worker notices within 100 ms what a client in another process has written


class SqliteStore:
    """A hub in an SQLite file. `synchronous="NORMAL"` may lose the last commits when the machine (not the process) dies; FULL loses none.

    Payloads of more than `large_over_bytes` are kept out of line, once for all who refer to them. With a `cipher` values are sealed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        busy_seconds: float = 10.0,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        large_over_bytes: int = LARGE_OVER_BYTES,
        cipher: Cipher | None = None,
    ) -> None:
        self.path = checked_path(path)
        self.url = f"sqlite:///{self.path}"
        self._busy_seconds = busy_seconds
        self._synchronous = synchronous
        self._large_over_bytes = checked_limit(large_over_bytes)
        self._cipher = None if cipher is None else checked_cipher(cipher)
        # Beside the file itself: two ways to it (a link, a detour) must not be two locks.
        self._lock = FileLock(Path(os.path.realpath(self.path) + "-lock"))
        self._writer: DatabaseThread | None = None
        self._reader: DatabaseThread | None = None
        self._users: sqlite3.Connection | None = None
        self._epoch: int | None = None
        self._remembered = Remembered()

    async def open(self) -> None:
        if self._writer is not None:
            return
        check_file(self.path)
        unwanted = threading.Event()

        def prepare() -> tuple[sqlite3.Connection, sqlite3.Connection, Place]:
            self._refuse_what_is_no_hub()
            connection = connect(self.path, self._busy_seconds, self._synchronous)
            try:
                schema.migrate(connection, self.path, self._busy_seconds, unwanted)
                return connection, connect_reader(self.path, self._busy_seconds), Place(self.path)
            except BaseException:
                connection.close()
                raise

        try:
            preparing = asyncio.get_running_loop().run_in_executor(None, prepare)
            try:
                await asyncio.wait([preparing])
                connection, reader, self._place = preparing.result()
            except asyncio.CancelledError:
                unwanted.set()
                preparing.add_done_callback(_close_opened)  # the thread goes on, and what it opens would be nobody's
                raise
            self._together = Together(self._records)
            self._remembered = Remembered()  # another connection counts the changes of the file anew
            self._writer = DatabaseThread(connection, self._place, f"replayflow {self.path.name}", POLL_SECONDS)
            self._reader = DatabaseThread(reader, self._place, f"replayflow {self.path.name}, reading", POLL_SECONDS)
        except BaseException as error:  # a cancelled caller, too, must not leave half of it open
            await self.close()
            if isinstance(error, SQLITE_ERRORS):
                raise of_sqlite_error(error, self.path) from error
            if (refusal := starved(error)) is not None:
                raise refusal from error
            raise

    def _refuse_what_is_no_hub(self) -> None:
        """Looks before anything is changed: to switch the journal mode of somebody's database would be a write."""
        uri = f"{Path(os.path.realpath(self.path)).as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=self._busy_seconds)) as connection:
            try:
                schema.check(connection, self.path)
                check_length(connection, Path(os.path.realpath(self.path)))
            except sqlite3.OperationalError as error:
                # A hub in WAL mode may need its side files made before it can be read; the writer's own check follows.
                if error.sqlite_errorname not in ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_READONLY_CANTINIT"):
                    raise

    async def close(self) -> None:
        reader, self._reader = self._reader, None
        try:
            if reader is not None:
                await reader.close()
            await self.release()
        except (StoreError, sqlite3.Error):
            pass  # the lock is free, and that alone counts: who had it last stays written in a file that nobody can write
        finally:
            writer, self._writer = self._writer, None
            if writer is not None:
                await writer.close()
            self._lock.release()  # of somebody who was cancelled while the writer took the hub for him
            users, self._users = self._users, None
            if users is not None:
                users.close()

    # ---- ownership

    async def acquire(self, owner: Owner, *, by_force: bool = False) -> int:
        has_died = True
        if not await self._lock_within_moments():
            if not by_force or self._lock.is_ours():
                raise await self._owned()
            has_died = False

        def take(connection: sqlite3.Connection) -> int | None:
            if not has_died:
                self._lock.seize()
            return _take(connection, owner, has_died) if self._lock.is_ours() else None

        try:
            epoch = await self._write(lambda connection: in_transaction(connection, take))
            if epoch is None:  # somebody has replaced the lock file since we locked it
                raise await self._owned()
        except StoreBusyError as error:
            self._lock.release()
            raise StoreBusyError(
                f"{self.path} cannot be taken: another process has been writing to it all the time, or stands still in the middle of a write; "
                f"where it is the owner, {await self._describe_owner()}, end that process, and the hub is free at once"
            ) from error
        except BaseException:
            self._lock.release()
            raise
        self._epoch = epoch
        return epoch

    async def _owned(self) -> HubOwnedError:
        return HubOwnedError(
            f"the hub {self.path} is owned by {await self._describe_owner()}: stop it, wait for it (when_owned='wait'), "
            "be a client (when_owned='client'), or, where it does nothing and cannot be ended, take its hub from it (when_owned='take_over')"
        )

    async def confirm(self, epoch: int) -> None:
        await self._read(lambda connection: hub.read_as_owner(connection, epoch, self.url))

    async def _lock_within_moments(self) -> bool:
        """Whether the lock has become ours. Somebody who looks who has it keeps others from it for less than a moment."""
        for _ in range(_LOCK_TRIES):
            if self._lock.acquire():
                return True
            await asyncio.sleep(_LOCK_AGAIN_SECONDS)
        return self._lock.acquire()

    async def release(self) -> None:
        epoch, self._epoch = self._epoch, None
        if epoch is None:
            return
        try:
            await self._write(lambda connection: in_transaction(connection, lambda c: _leave(c, epoch)))
        finally:
            self._lock.release()

    async def owner(self) -> Owner | None:
        noted = await self._noted_owner()
        # Who has died is still noted; the lock tells.
        return noted if noted is not None and self._lock.is_taken() else None

    async def _noted_owner(self) -> Owner | None:
        return (await self._read(hub.read))[0].owner

    async def _describe_owner(self) -> str:
        return str(await self._noted_owner() or "another worker")

    # ---- writing

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        remembered = self._remembered
        ahead: Ahead | None = None
        if epoch is not None and self._writer is not None and self._writer.is_idle:
            ahead = work_out(operations, epoch, self.url, remembered, self._large_over_bytes, self._cipher)

        def work(connection: sqlite3.Connection) -> list[Outcome]:
            if ahead is not None:
                outcomes = write_ahead(connection, ahead, remembered)
                if outcomes is not None:
                    return outcomes
            if (
                epoch is None
            ):  # the owner writes, and looks, all the time; what a client is told is accepted must not be nowhere
                self._place.look()
            return write_group(
                connection, operations, epoch, self.url, remembered, self._large_over_bytes, self._cipher
            )

        return await self._write(work)

    async def remove_damaged(self, instance_id: str, at: int, unread: Unread | None = None) -> Lost:
        def work(connection: sqlite3.Connection) -> Lost:
            self._place.look()
            self._remembered.forget()
            return removing.remove_damaged(connection, instance_id, at, self.url, unread)

        return await self._write(work)

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._on(self._writer, work)

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        if self._writer is None:
            raise StoreUnavailableError(f"{self.path} is not open")
        return self._writer.subscribe(changed)

    async def keep_served(self, served: Sequence[Served], epoch: int) -> None:
        def write(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["forget_served"], (json.dumps([each.name for each in served]),))
            rows = [(each.name, each.version or "", each.digest, int(each.is_default)) for each in served]
            connection.executemany(SQL["keep_served"], [(*row, of_row(*row)) for row in rows])

        await self._write_as_owner(epoch, write)

    async def suspect(self, found: Mapping[str, Suspicion | None], epoch: int) -> None:
        await self._write_as_owner(epoch, lambda c: suspects.suspect(c, found))

    async def transact(self, wanted: Transact, epoch: int) -> Delivery | None:
        return await self._write(
            lambda _: transactions.transact(
                self._users_connection(), wanted, epoch, self.url, self._large_over_bytes, self._cipher
            )
        )

    def _users_connection(self) -> sqlite3.Connection:
        """For the writing thread: the connection of users' statements. What they leave behind on it is never the engine's."""
        if self._users is None:
            self._users = prepare(connect(self.path, self._busy_seconds, self._synchronous))
        return self._users

    async def _write_as_owner(self, epoch: int, write: Callable[[sqlite3.Connection], object]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            hub.read_as_owner(connection, epoch, self.url)
            write(connection)

        await self._write(lambda connection: in_transaction(connection, work))

    # ---- reading

    async def served(self) -> list[Served]:
        return await self._read(reading.served)

    async def open_versions(self) -> list[tuple[str, str | None]]:
        return await self._read(reading.open_versions)

    async def count_open(self, name: str, version: str | None) -> int:
        return await self._read(lambda connection: reading.count_open(connection, name, version))

    async def suspects(self) -> list[Suspect]:
        return await self._read(suspects.held)

    async def load(self, instance_ids: Sequence[str]) -> list[Loaded]:
        return await self._load(instance_ids, whole=False)

    async def load_whole(self, instance_id: str) -> Loaded | None:
        return next(iter(await self._load([instance_id], whole=True)), None)

    async def _load(self, instance_ids: Sequence[str], *, whole: bool) -> list[Loaded]:
        return await self._read(
            lambda connection: reading.in_snapshot(
                connection, lambda c: reading.load(c, instance_ids, self._cipher, whole)
            )
        )

    async def get(self, instance_id: str) -> InstanceRecord | None:
        if self._reader is None:
            raise StoreUnavailableError(f"{self.path} is not open")
        return await self._together.get(instance_id)

    async def _records(self, instance_ids: Sequence[str]) -> dict[str, InstanceRecord | StoreCorruptError]:
        return await self._read(lambda connection: reading.records(connection, instance_ids, self._cipher))

    async def page(
        self, wanted: InstanceFilter, limit: int, cursor: str | None = None, latest_first: bool = False
    ) -> Page:
        return await self._read(
            lambda connection: reading.in_snapshot(
                connection,
                lambda c: reading.shown(c, finding.page(c, wanted, limit, cursor, latest_first), self._cipher),
            )
        )

    async def count(self, wanted: InstanceFilter, by: Grouping | None = None) -> dict[str, int]:
        return await self._read(
            lambda connection: reading.in_snapshot(connection, lambda c: finding.count(c, wanted, by))
        )

    async def waiting(self, instance_id: str | None, limit: int = 1_000) -> list[Waiting]:
        return await self._read(
            lambda connection: reading.in_snapshot(
                connection, lambda c: reading.waiting(c, instance_id, limit, self._cipher)
            )
        )

    async def condition(self, is_thorough: bool = False) -> Condition:
        return await self._read(
            lambda connection: reading.in_snapshot(connection, lambda c: condition(c, self.path, is_thorough))
        )

    async def history(
        self, instance_id: str, execution_id: str | None = None, *, is_opened: bool = False
    ) -> list[bytes]:
        return await self._read(
            lambda connection: reading.in_snapshot(
                connection, lambda c: reading.history(c, instance_id, execution_id, self._cipher, is_opened)
            )
        )

    async def fetch(self, references: Sequence[bytes]) -> list[bytes]:
        return await self._read(
            lambda connection: reading.in_snapshot(connection, lambda c: reading.fetch(c, references, self._cipher))
        )

    async def executions(self, instance_id: str) -> list[str]:
        return await self._read(
            lambda connection: reading.in_snapshot(connection, lambda c: reading.executions(c, instance_id))
        )

    async def wakes(self, after: tuple[int, int] | None, limit: int) -> list[Wake]:
        return await self._read(lambda connection: reading.wakes(connection, after, limit))

    async def arrived(self, after: int, limit: int) -> list[Delivery]:
        return await self._read(
            lambda connection: reading.in_snapshot(connection, lambda c: reading.arrived(c, after, limit, self._cipher))
        )

    async def children(self, parent_ids: Sequence[str], limit: int) -> list[Finished]:
        return await self._read(lambda connection: reading.children(connection, parent_ids, limit))

    async def ended(self, status: Status, before: int, limit: int) -> list[Finished]:
        return await self._read(lambda connection: reading.ended(connection, status, before, limit))

    async def long_pasts(self, keep: int, after: int, limit: int) -> tuple[list[str], int | None]:
        return await self._read(lambda connection: reading.long_pasts(connection, keep, after, limit))

    async def footprint(self) -> Footprint:
        return await self._read(lambda connection: reading.in_snapshot(connection, reading.footprint))

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._on(self._reader, work)

    async def _on(self, thread: DatabaseThread | None, work: Callable[[sqlite3.Connection], T]) -> T:
        if thread is None:
            raise StoreUnavailableError(f"{self.path} is not open")
        try:
            return await thread.run(work)
        except SQLITE_ERRORS as error:
            raise of_sqlite_error(error, self.path) from error
        except MemoryError as error:
            raise starved(error) or error from error


def _take(connection: sqlite3.Connection, owner: Owner, has_died: bool) -> int:
    """The hub is this owner's; returns its new epoch. What the last one's death means is concluded first: its name is gone afterwards."""
    suspects.conclude(connection, owner.since, has_died)
    own, _ = hub.read(connection)
    hub.change(
        connection,
        own._replace(epoch=own.epoch + 1, owner_pid=owner.process_id, owner_host=owner.host, owner_since=owner.since),
    )
    return own.epoch + 1


def _leave(connection: sqlite3.Connection, epoch: int) -> None:
    """The hub has no owner, where it is still that one's."""
    own, _ = hub.read(connection)
    if own.epoch == epoch:
        hub.change(connection, own._replace(owner_pid=None, owner_host=None, owner_since=None))


def _close_opened(opening: asyncio.Future[tuple[sqlite3.Connection, sqlite3.Connection, Place]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        for connection in opening.result()[:2]:
            connection.close()
