"""A program that purges a hub until it is done or killed: `python -m tests.store.purger PATH`. It says so when the first batch is gone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from replayflow import Client, SqliteStore
from replayflow.client import purging
from replayflow.store.base import Operation, Outcome


class Telling(SqliteStore):
    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        outcomes = await super().write(operations, epoch)
        sys.stdout.write("batch\n")
        sys.stdout.flush()
        return outcomes


async def main(path: str, **where: Any) -> None:
    purging.PURGED_TOGETHER = 10
    async with Client(Telling(path)) as client:
        await client.purge(**where)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
