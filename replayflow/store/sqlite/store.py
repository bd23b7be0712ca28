"""The SQLite store: one file, one worker, any number of clients.

Writes go through one thread, a transaction a group (`group.py`); reads go through aiosqlite on a connection that cannot write.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiosqlite

from replayflow.core.ids import is_unicode
from replayflow.core.instance import Status
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
    position_of,
)
from replayflow.store.sqlite import schema
from replayflow.store.sqlite.connection import WriterThread, check_file, connect, in_transaction, of_sqlite_error
from replayflow.store.sqlite.group import Remembered, write_group
from replayflow.store.sqlite.lock import FileLock
from replayflow.store.sqlite.statements import SQL
from replayflow.store.sqlite.together import Together

T = TypeVar("T")
POLL_SECONDS = 0.04  # so that a worker notices within 100 ms what a client in another process has written
_SMALLEST = -(2**62)


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
        self._writer: WriterThread | None = None
        self._reader: aiosqlite.Connection | None = None
        self._reading = asyncio.Lock()
        self._epoch: int | None = None
        self._remembered = Remembered()

    async def open(self) -> None:
        if self._writer is not None:
            return
        check_file(self.path)

        def prepare() -> sqlite3.Connection:
            self._refuse_what_is_no_hub()
            connection = connect(self.path, self._busy_seconds, self._synchronous)
            try:
                schema.migrate(connection, self.path)
            except BaseException:
                connection.close()
                raise
            return connection

        try:
            preparing = asyncio.get_running_loop().run_in_executor(None, prepare)
            try:
                connection = await asyncio.shield(preparing)
            except asyncio.CancelledError:
                preparing.add_done_callback(_close_opened)  # the thread goes on, and what it opens would be nobody's
                raise
            self._reading = asyncio.Lock()  # one of this event loop
            self._together = Together(self._records)
            self._remembered = Remembered()  # another connection counts the changes of the file anew
            self._writer = WriterThread(connection, f"replayflow {self.path.name}", POLL_SECONDS)
            reader = self._reader = await aiosqlite.connect(
                self.path, timeout=self._busy_seconds, isolation_level=None, cached_statements=64
            )
            await reader.execute("PRAGMA query_only = ON")
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
        for row in await self._read(SQL["owner"]):
            if row[0] is not None:
                return str(Owner(*row))
        return "another worker"

    # ---- writing

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        remembered = self._remembered
        return await self._write(lambda connection: write_group(connection, operations, epoch, self.url, remembered))

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._writer is None:
            raise StoreUnavailableError(f"{self.path} is not open")
        try:
            return await self._writer.run(work)
        except sqlite3.Error as error:
            raise of_sqlite_error(error, self.path) from error

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
        return dict(await self._read(SQL["code"]))

    async def load(self, instance_ids: Sequence[str]) -> list[Loaded]:
        async with self._snapshot() as read:
            # SQLite ends a JSON text at a NUL character; an id that is cut off there is another's.
            wanted = [id for id in dict.fromkeys(instance_ids) if "\0" not in id]
            rows = await read(SQL["records"], (json.dumps(wanted),))
            loaded = {row[-1]: Loaded(_record(row), b"", 0, []) for row in rows}
            starts = json.dumps([[key, one.record.start_number] for key, one in loaded.items()])
            for key, count, pieces in await read(SQL["pieces"], (starts,)):
                loaded[key].pieces, loaded[key].piece_count = pieces, count
            for number, key, event, execution_id, is_control in await read(SQL["inboxes"], (json.dumps(list(loaded)),)):
                record = loaded[key].record
                takes = record.problem is None and record.status is not Status.SUSPENDED
                loaded[key].inbox.append(
                    Delivery(number, record.instance_id, event, execution_id, bool(is_control), takes)
                )
        found = {one.record.instance_id: one for one in loaded.values()}
        return [found[id] for id in wanted if id in found]

    async def get(self, instance_id: str) -> InstanceRecord | None:
        if self._reader is None:
            raise StoreUnavailableError(f"{self.path} is not open")
        return await self._together.get(instance_id)

    async def _records(self, instance_ids: Sequence[str]) -> dict[str, InstanceRecord]:
        rows = await self._read(SQL["records"], (_json_of_ids(instance_ids),))
        return {row[0]: _record(row) for row in rows}

    async def page(self, wanted: InstanceFilter, limit: int, cursor: str | None = None) -> Page:
        after = 0 if cursor is None else position_of(cursor)
        if wanted == InstanceFilter(is_parked=True, is_entity=wanted.is_entity):
            rows = await self._read(SQL["parked_page"], (after, limit + 1, wanted.is_entity))
        else:
            rows = await self._read(SQL["page"], _bindings(wanted, after, limit + 1))
        more = len(rows) > limit
        rows = rows[:limit]
        return Page([_record(row) for row in rows], str(rows[-1][-1]) if more else None)

    async def history(self, instance_id: str, execution_id: str | None = None) -> list[bytes]:
        async with self._snapshot() as read:
            rows = await read(SQL["record"], (instance_id,))
            if not rows:
                return []
            record, key = _record(rows[0]), rows[0][-1]
            if execution_id is None or execution_id == record.execution_id:
                pieces = await read(SQL["pieces_between"], (key, record.start_number + 1, 2**62))
                return [record.start, *(piece for (piece,) in pieces)]
            for first, following in await read(SQL["past_execution"], (key, execution_id)):
                end = record.start_number if following is None else following
                return [piece for (piece,) in await read(SQL["pieces_between"], (key, first, end))]
            return []

    async def wakes(self, after: tuple[int, int] | None, limit: int) -> list[Wake]:
        rows = await self._read(SQL["wakes"], (*(after or (_SMALLEST, 0)), limit))
        return [Wake(at, id, (at, key)) for at, key, id in rows]

    async def arrived(self, after: int, limit: int) -> list[Delivery]:
        rows = await self._read(SQL["arrived"], (after, limit))
        return [
            Delivery(number, id, event, execution_id, bool(is_control), bool(takes))
            for number, id, event, execution_id, is_control, takes in rows
        ]

    async def _read(self, sql: str, parameters: Any = ()) -> list[Any]:
        async with self._reading:
            return await self._fetch(sql, parameters)

    async def _fetch(self, sql: str, parameters: Any = ()) -> list[Any]:
        if self._reader is None:
            raise StoreUnavailableError(f"{self.path} is not open")
        try:
            return list(await self._reader.execute_fetchall(sql, parameters))
        except UnicodeEncodeError:
            return []  # no row has what cannot be stored
        except sqlite3.Error as error:
            raise of_sqlite_error(error, self.path) from error

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Any]:
        """Several statements that see one moment of the file."""
        async with self._reading:
            try:
                await self._fetch("BEGIN")
                yield self._fetch
            finally:
                # Also for a caller that was cancelled while BEGIN was under way: this waits in line behind it. Where there is no transaction
                # (BEGIN was refused, an error has ended it) it does nothing, and so hides no error.
                if self._reader is not None:
                    await self._reader.rollback()


def _close_opened(opening: asyncio.Future[sqlite3.Connection]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _json_of_ids(instance_ids: Sequence[str]) -> str:
    """The ids as SQLite's JSON functions take them. It ends a text at a NUL character, and what is cut off there would be another's id."""
    return json.dumps([id for id in instance_ids if "\0" not in id and is_unicode(id)])


def _record(row: Sequence[Any]) -> InstanceRecord:
    return InstanceRecord(
        instance_id=row[0],
        execution_id=row[1],
        name=row[2],
        version=row[3],
        status=Status(row[4]),
        start=row[5],
        start_number=row[6],
        wake_at=row[7],
        created_at=row[8],
        updated_at=row[9],
        completed_at=row[10],
        custom_status=row[11],
        output=row[12],
        failure=row[13],
        problem=row[14],
        orphans=row[15],
        parent_id=row[16],
        tags=None if row[17] is None else json.loads(row[17]),
    )


def _bindings(wanted: InstanceFilter, after: int, limit: int) -> dict[str, object]:
    return {
        "after": after,
        "limit": limit,
        "statuses": None if wanted.statuses is None else json.dumps(sorted(wanted.statuses)),
        "name": wanted.name,
        "id_prefix": wanted.id_prefix,
        "created_from": wanted.created_from,
        "created_to": wanted.created_to,
        "is_parked": None if wanted.is_parked is None else int(wanted.is_parked),
        "is_entity": None if wanted.is_entity is None else int(wanted.is_entity),
        "tags": json.dumps([list(tag) for tag in wanted.tags]),
    }
