"""The hub's own row: who owns it, and the next number of everything that is numbered. Every transaction reads it first."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from replayflow.errors import LeaseLostError
from replayflow.store.records import Owner
from replayflow.store.sqlite import sums
from replayflow.store.sqlite.damage import damaged
from replayflow.store.sqlite.statements import SQL


class Hub(NamedTuple):
    epoch: int
    next_key: int
    next_number: int
    owner_pid: int | None = None
    owner_host: str | None = None
    owner_since: int | None = None

    @property
    def owner(self) -> Owner | None:
        """Who has noted itself as the owner, and has not taken leave."""
        if self.owner_pid is None or self.owner_host is None or self.owner_since is None:
            return None
        return Owner(self.owner_pid, self.owner_host, self.owner_since)


def read(connection: sqlite3.Connection) -> tuple[Hub, int]:
    """The row, and SQLite's count of the changes by others: in a transaction, as of its beginning.

    Raises:
        StoreCorruptError: the row does not read back as it was written.
    """
    *row, sum = connection.execute(SQL["hub"]).fetchone() or (None,)
    if not row or not sums.fits(row, sum):
        raise damaged(connection, "the hub's own row")
    version: int = connection.execute(SQL["database_changes"]).fetchone()[0]
    return Hub(*row), version


def read_as_owner(connection: sqlite3.Connection, epoch: int | None, url: str) -> tuple[Hub, int]:
    """As `read`, by who may write under that epoch; None is a client.

    Raises:
        LeaseLostError: the hub's epoch is another.
    """
    hub, version = read(connection)
    if epoch is not None and hub.epoch != epoch:
        taker = "" if hub.owner is None else f", {hub.owner}"
        raise LeaseLostError(
            f"the hub {url} has another owner by now{taker} (epoch {hub.epoch}, ours was {epoch}): nothing was written"
        )
    return hub, version


def change(connection: sqlite3.Connection, hub: Hub) -> None:
    """The row is this one."""
    connection.execute(SQL["change_hub"], (*hub, sums.of_row(*hub)))
