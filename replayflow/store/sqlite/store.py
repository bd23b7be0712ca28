"""The SQLite store: one file, one worker, any number of clients.

Writes go through one thread, a transaction a group (`group.py`); reads through another, on a connection that cannot write (`reading.py`).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal, TypeVar

from replayflow.errors import HubOwnedError, LeaseLostError, StoreError, StoreUnavailableError
from replayflow.store.base import (
    Delivery,
    InstanceFilter,
    InstanceRecord,
    Loaded,
    Operation,
    Outcome,
    Owner,
    Page,
    Wake,
)
from replayflow.store.sqlite import reading, schema
from replayflow.store.sqlite.connection import (
    DatabaseThread,
    check_file,
    connect,
    connect_reader,
    in_transaction,
    of_sqlite_error,
)
from replayflow.store.sqlite.group import Remembered, write_group
from replayflow.store.sqlite.lock import FileLock
from replayflow.store.sqlite.statements import SQL
from replayflow.store.sqlite.together import Together

T = TypeVar("T")
POLL_SECONDS = 0.04  # so that a worker notices within 100 ms what a client in another process has written


class SqliteStore:
    """A hub in an SQLite file. `synchronous="NORMAL"` may lose the last commits when the machine (not the process) dies; FULL loses none."""

    def __init__(
        self,
        path: str | Path,
        *,
        busy_seconds: float = 10.0,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
    ) -> None:
        self.path = Path(path)
        self.url = f"sqlite:///{self.path}"
        self._busy_seconds = busy_seconds
        self._synchronous = synchronous
        # Beside the file itself: two ways to it (a link, a detour) must not be two locks.
        self._lock = FileLock(Path(os.path.realpath(self.path) + "-lock"))
        self._writer: DatabaseThread | None = None
        self._reader: DatabaseThread | None = None
        self._epoch: int | None = None
        self._remembered = Remembered()

    async def open(self) -> None:
        if self._writer is not None:
            return
        check_file(self.path)

        def prepare() -> tuple[sqlite3.Connection, sqlite3.Connection]:
            self._refuse_what_is_no_hub()
            connection = connect(self.path, self._busy_seconds, self._synchronous)
            try:
                schema.migrate(connection, self.path)
                return connection, connect_reader(self.path, self._busy_seconds)
            except BaseException:
                connection.close()
                raise

        try:
            preparing = asyncio.get_running_loop().run_in_executor(None, prepare)
            try:
                connection, reader = await asyncio.shield(preparing)
            except asyncio.CancelledError:
                preparing.add_done_callback(_close_opened)  # the thread goes on, and what it opens would be nobody's
                raise
            self._together = Together(self._records)
            self._remembered = Remembered()  # another connection counts the changes of the file anew
            self._writer = DatabaseThread(connection, f"replayflow {self.path.name}", POLL_SECONDS)
            self._reader = DatabaseThread(reader, f"replayflow {self.path.name}, reading", POLL_SECONDS)
        except BaseException as error:  # a cancelled caller, too, must not leave half of it open
            await self.close()
            if isinstance(error, sqlite3.Error):
                raise of_sqlite_error(error, self.path) from error
            raise

    def _refuse_what_is_no_hub(self) -> None:
        """Looks before anything is changed: to switch the journal mode of somebody's database would be a write."""
        uri = f"{self.path.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=self._busy_seconds)) as connection:
            try:
                schema.check(connection, self.path)
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

    # ---- ownership

    async def acquire(self, owner: Owner) -> int:
        if not self._lock.acquire():
            raise HubOwnedError(
                f"the hub {self.path} is owned by {await self._describe_owner()}: stop it, wait for it (when_owned='wait'), "
                "or be a client (when_owned='client')"
            )
        try:
            epoch: int = await self._write(
                lambda connection: in_transaction(
                    connection,
                    lambda c: int(
                        c.execute(SQL["take_hub"], (owner.process_id, owner.host, owner.since)).fetchall()[0][0]
                    ),
                )
            )
        except BaseException:
            self._lock.release()
            raise
        self._epoch = epoch
        return epoch

    async def release(self) -> None:
        epoch, self._epoch = self._epoch, None
        if epoch is None:
            return
        try:
            await self._write(
                lambda connection: in_transaction(connection, lambda c: c.execute(SQL["leave_hub"], (epoch,)).rowcount)
            )
        finally:
            self._lock.release()

    async def _describe_owner(self) -> str:
        for row in await self._read(lambda connection: reading.rows(connection, "owner")):
            if row[0] is not None:
                return str(Owner(*row))
        return "another worker"

    # ---- writing

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        remembered = self._remembered
        return await self._write(lambda connection: write_group(connection, operations, epoch, self.url, remembered))

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._on(self._writer, work)

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        if self._writer is None:
            raise StoreUnavailableError(f"{self.path} is not open")
        return self._writer.subscribe(changed)

    async def keep_code(self, digests: Mapping[str, str], epoch: int) -> None:
        def work(connection: sqlite3.Connection) -> None:
            present: int = connection.execute(SQL["hub"]).fetchone()[0]
            if present != epoch:
                raise LeaseLostError(f"the hub {self.url} has another owner by now (epoch {present}, ours was {epoch})")
            connection.executemany(SQL["keep_code"], list(digests.items()))

        await self._write(lambda connection: in_transaction(connection, work))

    # ---- reading

    async def code(self) -> dict[str, str]:
        return await self._read(lambda connection: dict(reading.rows(connection, "code")))

    async def load(self, instance_ids: Sequence[str]) -> list[Loaded]:
        return await self._read(
            lambda connection: reading.in_snapshot(connection, lambda c: reading.load(c, instance_ids))
        )

    async def get(self, instance_id: str) -> InstanceRecord | None:
        if self._reader is None:
            raise StoreUnavailableError(f"{self.path} is not open")
        return await self._together.get(instance_id)

    async def _records(self, instance_ids: Sequence[str]) -> dict[str, InstanceRecord]:
        return await self._read(lambda connection: reading.records(connection, instance_ids))

    async def page(self, wanted: InstanceFilter, limit: int, cursor: str | None = None) -> Page:
        return await self._read(lambda connection: reading.page(connection, wanted, limit, cursor))

    async def history(self, instance_id: str, execution_id: str | None = None) -> list[bytes]:
        return await self._read(
            lambda connection: reading.in_snapshot(connection, lambda c: reading.history(c, instance_id, execution_id))
        )

    async def executions(self, instance_id: str) -> list[str]:
        return await self._read(
            lambda connection: [id for (id,) in reading.rows(connection, "executions", (instance_id,))]
        )

    async def wakes(self, after: tuple[int, int] | None, limit: int) -> list[Wake]:
        return await self._read(lambda connection: reading.wakes(connection, after, limit))

    async def arrived(self, after: int, limit: int) -> list[Delivery]:
        return await self._read(lambda connection: reading.arrived(connection, after, limit))

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._on(self._reader, work)

    async def _on(self, thread: DatabaseThread | None, work: Callable[[sqlite3.Connection], T]) -> T:
        if thread is None:
            raise StoreUnavailableError(f"{self.path} is not open")
        try:
            return await thread.run(work)
        except sqlite3.Error as error:
            raise of_sqlite_error(error, self.path) from error


def _close_opened(opening: asyncio.Future[tuple[sqlite3.Connection, sqlite3.Connection]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        for connection in opening.result():
            connection.close()
