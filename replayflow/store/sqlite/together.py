"""Reading many rows at once for many who each want one.

A thousand callers that ask for one row each cost a thousand trips to the reader's thread. Here those who ask while a reading is under way
share the next one. Nobody is answered from a reading that began before the question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from replayflow.errors import StoreCorruptError
from replayflow.store.base import InstanceRecord

TOGETHER_MAX = 500


class Together:
    def __init__(
        self, read: Callable[[Sequence[str]], Awaitable[Mapping[str, InstanceRecord | StoreCorruptError]]]
    ) -> None:
        self._read = read
        self._asked: dict[str, asyncio.Future[InstanceRecord | None]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def get(self, instance_id: str) -> InstanceRecord | None:
        """The instance's row; None where there is none."""
        future = self._asked.get(instance_id)
        if future is None:
            future = self._asked[instance_id] = asyncio.get_running_loop().create_future()
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_on())
        # Several may wait for one answer, and one of them may be cancelled. (A shield would log, as of Python 3.14, what nobody hears any more.)
        await asyncio.wait([future])
        return future.result()

    async def _read_on(self) -> None:
        try:
            while self._asked:
                ids = list(self._asked)[:TOGETHER_MAX]
                futures = {id: self._asked.pop(id) for id in ids}
                try:
                    found = await self._read(ids)
                except BaseException as error:
                    for future in futures.values():
                        future.set_exception(error)
                        future.exception()  # whoever waited may be gone, and then nobody need be told
                    if not isinstance(error, Exception):
                        raise
                else:
                    for id, future in futures.items():
                        record = found.get(id)
                        if isinstance(record, StoreCorruptError):
                            future.set_exception(record)
                            future.exception()
                        else:
                            future.set_result(record)
        finally:
            self._reader = None
