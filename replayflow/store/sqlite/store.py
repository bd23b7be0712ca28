"""The SQLite store: one file, one worker, any number of clients.

Writes go through one thread, a transaction a group (`group.py`); reads go through aiosqlite on a connection that cannot write.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiosqlite

from replayflow.core.instance import Status
from replayflow.errors import HubOwnedError, StoreUnavailableError
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
from replayflow.store.sqlite import schema
from replayflow.store.sqlite.connection import WriterThread, check_file, connect, in_transaction, of_sqlite_error
from replayflow.store.sqlite.group import Group, Remembered
from replayflow.store.sqlite.lock import FileLock
from replayflow.store.sqlite.statements import SQL

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
        self._lock = FileLock(self.path.with_name(self.path.name + "-lock"))
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
            connection = connect(self.path, self._busy_seconds, self._synchronous)
            try:
                schema.migrate(connection, self.path)
            except BaseException:
                connection.close()
                raise
            return connection

        try:
            self._refuse_what_is_no_hub()
            connection = await asyncio.get_running_loop().run_in_executor(None, prepare)
            self._writer = WriterThread(connection, f"replayflow {self.path.name}", POLL_SECONDS)
            reader = self._reader = await aiosqlite.connect(
                self.path, timeout=self._busy_seconds, isolation_level=None, cached_statements=64
            )
            await reader.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            await self.close()
            raise of_sqlite_error(error, self.path) from error

    def _refuse_what_is_no_hub(self) -> None:
        """Looks before anything is changed: to switch the journal mode of somebody's database would be a write."""
        with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            try:
                schema.check(connection, self.path)
            except sqlite3.OperationalError as error:
                # A hub in WAL mode may need its side files made before it can be read; the writer's own check follows.
                if error.sqlite_errorname not in ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_READONLY_CANTINIT"):
                    raise

    async def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
        if self._writer is not None:
            await self.release()
            writer, self._writer = self._writer, None
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
        def work(connection: sqlite3.Connection) -> list[Outcome]:
            try:
                return in_transaction(connection, Group(operations, epoch, self.url, self._remembered).write)
            except BaseException:
                self._remembered.forget()
                raise

        return await self._write(work)

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

    # ---- reading

    async def load(self, instance_ids: Sequence[str]) -> list[Loaded]:
        async with self._snapshot() as read:
            rows = await read(SQL["records"], (json.dumps(list(instance_ids)),))
            loaded = {row[-1]: Loaded(_record(row), [], []) for row in rows}
            starts = json.dumps([[key, one.record.start_number] for key, one in loaded.items()])
            for key, events in await read(SQL["pieces"], (starts,)):
                loaded[key].pieces.append(events)
            for number, key, event, execution_id, is_control in await read(SQL["inboxes"], (json.dumps(list(loaded)),)):
                one = loaded[key]
                one.inbox.append(Delivery(number, one.record.instance_id, event, execution_id, bool(is_control)))
        return list(loaded.values())

    async def get(self, instance_id: str) -> InstanceRecord | None:
        for row in await self._read(SQL["record"], (instance_id,)):
            return _record(row)
        return None

    async def page(self, wanted: InstanceFilter, limit: int, cursor: str | None = None) -> Page:
        after = 0 if cursor is None else int(cursor)
        if wanted == InstanceFilter(is_parked=True):
            rows = await self._read(SQL["parked_page"], (after, limit + 1))
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
        except sqlite3.Error as error:
            raise of_sqlite_error(error, self.path) from error

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Any]:
        """Several statements that see one moment of the file."""
        async with self._reading:
            await self._fetch("BEGIN")
            try:
                yield self._fetch
            finally:
                if self._reader is not None:
                    await self._fetch("COMMIT")


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
        "tags": json.dumps([list(tag) for tag in wanted.tags]),
    }
