"""What a transactional activity is given: the hub's own database, for as long as the activity runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]


class Statements(Protocol):
    """Runs statements inside the transaction, and refuses what is forbidden there."""

    def execute(self, statement: str, parameters: Parameters) -> tuple[list[tuple[Any, ...]], int]: ...
    def execute_many(self, statement: str, rows: Iterable[Parameters]) -> int: ...


class Transaction:
    """The hub's own database in one transaction, in which the activity's writes and its result become durable together, exactly once.

    For tables of the program's own, in the hub's file: the engine's can be neither read nor written. What the activity writes is rolled back when it
    raises. It is over when the activity returns; who keeps it is refused.

    `instance_id`, `task_id`, `attempt` (which counts from 1) and `idempotency_key` are those of the activity, as an `ActivityContext` has them.
    """

    __slots__ = ("_statements", "attempt", "changed", "idempotency_key", "instance_id", "task_id")

    def __init__(
        self, statements: Statements, instance_id: str, task_id: int, attempt: int, idempotency_key: str
    ) -> None:
        self._statements = statements
        self.instance_id = instance_id
        self.task_id = task_id
        self.attempt = attempt
        self.idempotency_key = idempotency_key
        self.changed = 0
        """How many rows the last statement has inserted, updated or deleted."""

    def execute(self, statement: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Runs one SQL statement with its parameters bound, and returns all of its rows.

        Raises:
            ForbiddenStatementError: it ends or nests the transaction, touches the engine's tables, or is otherwise not for here.
            TransactionTimeoutError: the activity's time is up.
            sqlite3.Error: what SQLite says of it.
        """
        rows, self.changed = self._statements.execute(statement, parameters)
        return rows

    def executemany(self, statement: str, rows: Iterable[Parameters]) -> None:
        """Runs one SQL statement for each row of parameters; as `execute`, but for statements that return nothing."""
        self.changed = self._statements.execute_many(statement, rows)
