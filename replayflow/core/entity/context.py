"""What an operation of an entity may ask. All that it asks for happens with the operation's commit, or, where the operation raises, not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from logging import Logger, getLogger
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from replayflow.clock import to_datetime
from replayflow.core.entity.ids import AnyEntityId, EntityInstanceId

S = TypeVar("S")
T = TypeVar("T")


class Performer(Protocol):
    """The entity that performs the operation."""

    @property
    def now(self) -> int: ...
    def load_state(self) -> Any: ...
    def decode_state(self, type: Any) -> Any: ...
    def send_signal(
        self, entity_id: AnyEntityId, operation: str, input: object, at: datetime | None, delay: timedelta | None
    ) -> None: ...
    def start_orchestration(
        self,
        orchestrator: Callable[..., Any] | str,
        input: object,
        instance_id: str | None,
        version: str | None,
        tags: Mapping[str, str] | None,
    ) -> str: ...


class EntityContext(Generic[S]):
    """Handed to an operation; belongs to that operation alone. `EntityContext[int]` says what the state of a function's entity is rebuilt as.

    `operation` is the operation's name, `caller_instance_id` the orchestration that called it, None for a signal.
    """

    __slots__ = ("_is_loaded", "_performer", "_state", "caller_instance_id", "entity_id", "operation")

    def __init__(
        self, performer: Performer, entity_id: EntityInstanceId, operation: str, caller_instance_id: str | None
    ) -> None:
        self._performer = performer
        self._is_loaded = False
        self._state: Any = None
        self.entity_id = entity_id
        self.operation = operation
        self.caller_instance_id = caller_instance_id

    @property
    def current_utc_datetime(self) -> datetime:
        """The time of the episode, aware and in UTC."""
        return to_datetime(self._performer.now)

    @property
    def logger(self) -> Logger:
        """The logger of the entity's name."""
        return getLogger(f"replayflow.entity.{self.entity_id.entity}")

    # ---- state

    @property
    def state(self) -> S:
        """The entity's state, None where it has none; to be set, or changed in place. Of a class it is the instance."""
        if not self._is_loaded:
            self._state = self._performer.load_state()
            self._is_loaded = True
        return cast("S", self._state)

    @state.setter
    def state(self, value: S | None) -> None:
        self.set_state(value)

    @overload
    def get_state(self, type: type[T]) -> T | None: ...
    @overload
    def get_state(self, type: type[T], default: T) -> T: ...
    @overload
    def get_state(self, type: object = None, default: Any = None) -> Any: ...

    def get_state(self, type: Any = None, default: Any = None) -> Any:
        """The state, rebuilt as `type`, or `default` where there is none. To change it, set it.

        Raises:
            DecodeError: the state does not fit the type.
        """
        found = self.state if type is None or self._is_loaded else self._performer.decode_state(type)
        return default if found is None else found

    def set_state(self, state: object) -> None:
        """The state is this; with None the entity has none, and `clean_entities` removes it."""
        self._state = state
        self._is_loaded = True

    # ---- others

    def signal_entity(
        self,
        entity_id: AnyEntityId,
        operation: str,
        input: object = None,
        *,
        at: datetime | None = None,
        delay: timedelta | None = None,
    ) -> None:
        """The operation is asked of an entity, this one or another, now, at a time or after a while; nobody waits for it.

        Raises:
            EncodeError, InvalidArgumentError: as for `OrchestrationContext.signal_entity`.
        """
        self._performer.send_signal(entity_id, operation, input, at, delay)

    def start_orchestration(
        self,
        orchestrator: Callable[..., Any] | str,
        input: object = None,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """An orchestration begins, by function or by name; returns its id. Where `instance_id` is taken, nothing happens.

        Raises:
            UnknownNameError: the function is not registered as an orchestrator.
            EncodeError, InvalidArgumentError: the input cannot travel, or the id or a tag is none.
        """
        return self._performer.start_orchestration(orchestrator, input, instance_id, version, tags)
