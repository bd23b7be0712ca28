"""The context of an activity: the attempt that it is, whether anybody still waits for it, and its heart."""

from __future__ import annotations

from collections.abc import Callable
from logging import getLogger
from typing import Any, Protocol

from replayflow.errors import ActivityCancelled


class Heart(Protocol):
    """What an activity's context beats upon."""

    def beat(self, detail: object) -> None: ...
    def last(self) -> Any: ...


class ActivityContext:
    """What an activity may ask about the attempt that it is; pass it by annotating the activity's first parameter with this class.

    `attempt` counts from 1. `idempotency_key` is the same for every attempt and after every restart: give it to services that de-duplicate.
    """

    __slots__ = ("_heart", "_is_cancelled", "attempt", "idempotency_key", "instance_id", "logger", "name", "task_id")

    def __init__(
        self,
        instance_id: str,
        task_id: int,
        attempt: int,
        idempotency_key: str,
        name: str,
        is_cancelled: Callable[[], bool],
        heart: Heart,
    ) -> None:
        self.instance_id = instance_id
        self.task_id = task_id
        self.attempt = attempt
        self.idempotency_key = idempotency_key
        self.name = name
        self.logger = getLogger(f"replayflow.activity.{name}")
        self._is_cancelled = is_cancelled
        self._heart = heart

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any longer: a long activity in a thread looks now and then, and stops.

        True after a time limit, when the orchestration was ended or has given the activity up, and when the worker stops and its grace is over. An
        `async def` is told by a `CancelledError`; a process is killed.
        """
        return self._is_cancelled()

    def raise_if_cancelled(self) -> None:
        """Returns where somebody waits for the result.

        Raises:
            ActivityCancelled: nobody does any longer.
        """
        if self._is_cancelled():
            raise ActivityCancelled(f"nobody waits for activity '{self.name}' (task {self.task_id}) any longer")

    def heartbeat(self, detail: object = None) -> None:
        """The activity is alive and, with a detail, has come so far: the next attempt finds the last detail in `last_heartbeat`.

        May be called from any thread, and often: what is said between two writings, a second apart and in a long run up to ten, costs an encoding.
        After a failure or a time limit the next attempt has the very last detail, after the death of the worker the last one that was written.
        Without a detail the last one stays as it was. Where the activity was registered with a `heartbeat_timeout`, beats have to follow each other
        within that time.

        Raises:
            EncodeError: the detail cannot travel as a payload.
        """
        self._heart.beat(detail)

    @property
    def last_heartbeat(self) -> Any:
        """The last detail that an earlier attempt told, in this worker or another; None where none did. Dataclasses and models come as dicts."""
        return self._heart.last()
