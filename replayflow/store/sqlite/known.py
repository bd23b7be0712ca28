"""What is known of the instances that a transaction touches: read from the file, or remembered from the transactions before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from replayflow.core.instance import PENDING, SUSPENDED, Status
from replayflow.store.sqlite.hub import Hub

REMEMBERED_MAX = 50_000

Shown: TypeAlias = tuple[
    str, int | None, bytes | None, bytes | None, bytes | None, int | None, bytes | None, bytes | None, int
]
"""What a row shows, as it is stored: status, wake_at, custom_status, output, failure, completed_at, orphans, progress, last."""
NOTHING_YET: Shown = (PENDING.text, 0, None, None, None, None, None, None, 0)
Unadded: TypeAlias = tuple[
    tuple[int, str, str, str, bytearray, int, int], tuple[str | None, str | None, str | None], Shown
]
"""A row that is still to be added. What each says for good: key, id, execution_id, name, start, created_at, is_entity; what few do: version,
parent_id, tags; and what it shows."""


@dataclass(slots=True)
class Known:
    """An instance as the transaction has it so far."""

    key: int
    execution_id: str
    status: Status
    start_number: int
    is_parked: bool
    last_number: int
    start_sum: int
    """The sum of the execution's start, from which go on those of its history and of its row."""
    sum: int
    """The sum of its history so far, start and pieces."""
    row: Unadded | None = None
    """Its row, where the transaction itself adds it and has not written it yet."""

    @property
    def takes_messages(self) -> bool:
        return self.status is not SUSPENDED and not self.is_parked


class Remembered:
    """What the last transactions left of the instances that they touched, so that the next need not read it again.

    It holds as long as nobody else has written: SQLite tells, and then, or when a transaction fails, all of it is forgotten.
    """

    def __init__(self) -> None:
        self.instances: dict[str, Known] = {}
        self.version: int | None = None
        """SQLite's count of the changes by others, as the last transaction found it."""
        self.hub: Hub | None = None
        """The hub's row as the last transaction left it, where that is known."""
        self.ahead: object = None
        """The group that was worked out ahead of its transaction: what is remembered is how that leaves the instances."""
        self.shunned = 0
        """How many more groups are not to be worked out ahead."""

    def check(self, version: int) -> None:
        """`version` is SQLite's count of the changes by others, read inside the transaction, when nobody else can write any more."""
        if version != self.version or len(self.instances) > REMEMBERED_MAX:
            self.version = version
            self.instances.clear()

    def left(self, hub: Hub) -> None:
        """The transaction is written, and has left the hub's row so."""
        self.hub = hub
        self.ahead = None

    def forget(self) -> None:
        """Nothing is known any more."""
        self.instances.clear()
        self.hub = self.ahead = None
