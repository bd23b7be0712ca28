"""What a client can ask of entities: the part of `Client` that is about them.

An entity is read as its history tells it: its last state, who holds it, and who waits. Requests are durable when a call returns (I6).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Protocol

from replayflow.chance import new_execution_id
from replayflow.clock import Clock, to_datetime
from replayflow.codec import Codec
from replayflow.codec.sealed import is_sealed, sealed_error, shown_sealed
from replayflow.core import events
from replayflow.core.commit import Message
from replayflow.core.entity.actions import signal
from replayflow.core.entity.entity import Standing
from replayflow.core.entity.ids import AnyEntityId, EntityInstanceId, check_entity_name, check_operation, entity_id_text
from replayflow.core.events import EntityRemovalRequested, EntityStateSet
from replayflow.core.ids import check_dedupe_key
from replayflow.core.moments import due_at
from replayflow.errors import InstanceNotFoundError, InvalidArgumentError, UnknownNameError
from replayflow.registry import App
from replayflow.store import Store
from replayflow.store.base import Create, InstanceFilter, InstanceRecord, Loaded, Outcome, Post
from replayflow.store.sound import load_sound

_ENTITIES_PER_PAGE = 200


@dataclass(frozen=True, slots=True)
class EntityState:
    """An entity as it was when it was read. Times are aware and in UTC; the state is rebuilt where the client's app knows the entity."""

    id: str
    name: str
    key: str
    state: Any
    """None where it has none."""
    locked_by: str | None
    """The orchestration that has the entity to itself."""
    backlog: int
    """How many messages have come and wait: not looked at yet, in line behind the lock, or for their time."""
    problem: str | None
    """Why it is parked; None where it is not."""
    created_at: datetime
    updated_at: datetime
    damage: str | None = None
    """Why nothing of it can be believed but that it is there: what is stored of it does not read back as it was written. Only listings have such."""


class _Asker(Protocol):
    """What these verbs need of the client."""

    _store: Store
    _app: App | None
    _codec: Codec
    _clock: Clock

    def _submit(self, operation: Create | Post) -> Awaitable[Outcome]: ...


class EntityVerbs:
    """`signal_entity`, `read_entity`, `get_entity`, `list_entities` and `clean_entities` of a `Client`."""

    async def signal_entity(
        self: _Asker,
        entity_id: AnyEntityId,
        operation: str,
        input: object = None,
        *,
        at: datetime | None = None,
        delay: timedelta | None = None,
        dedupe_key: str | None = None,
    ) -> None:
        """The signal is durable, and the operation is performed once, after what this client has sent before; now, at a time or after a while.

        Nobody waits for the result. An operation that fails changes nothing, and is logged. An entity that is not there begins with its first signal.

        Raises:
            InvalidArgumentError: the id, the operation, the time or the key is none.
            UnknownNameError: this client's app has no such entity, or the entity no such operation.
            EncodeError, PayloadTooLargeError: the input cannot travel as a payload.
        """
        target = entity_id_text(entity_id)
        operation = check_operation(operation)
        check_dedupe_key(dedupe_key)
        if self._app is not None:
            self._app.entity_named(EntityInstanceId.parse(target).entity).find(operation)
        now = self._clock.now()
        due = due_at(at, delay, now)
        payload = self._codec.encode(input, f"input of operation '{operation}' of entity '{target}'")
        outcome = await self._submit(Post(signal(target, operation, payload, due, now, new_execution_id()), dedupe_key))
        if outcome.error is not None:
            raise outcome.error

    async def read_entity(self: _Asker, entity_id: AnyEntityId, *, type: object = None) -> Any:
        """The entity's state, rebuilt as `type` or as the app's entity has it; None where it has none, or is not there.

        Raises:
            InvalidArgumentError: the id is none.
            DecodeError: the state does not fit `type`.
            SealedError: it is encrypted, and the key is not at hand.
        """
        target = entity_id_text(entity_id)
        for loaded in await self._store.load([target]):
            pieces = [events.decode(loaded.record.start), *events.decode_pieces(loaded.pieces, loaded.piece_count)]
            for event in chain.from_iterable(map(reversed, reversed(pieces))):
                if isinstance(event, EntityStateSet):
                    if is_sealed(event.state):
                        raise sealed_error(event.state, f"state of entity '{target}'")
                    return _value(self, target, event.state, type)
        return None

    async def get_entity(self: _Asker, entity_id: AnyEntityId) -> EntityState | None:
        """The entity with all that is known of it; None where it is not there.

        Raises:
            InvalidArgumentError: the id is none.
        """
        for loaded in await self._store.load([entity_id_text(entity_id)]):
            return _shown(self, loaded)
        return None

    async def list_entities(
        self: _Asker, *, name: str | None = None, key_prefix: str | None = None, include_empty: bool = False
    ) -> AsyncIterator[EntityState]:
        """All entities that fit and have a state, in the order of their ids, read page by page.

        With `include_empty` also those that have none: deleted ones, and those that were only locked or called in vain so far.

        Raises:
            InvalidArgumentError: the name is none; `key_prefix` is given without a name.
        """
        async for shown in _every(self, name, key_prefix):
            if include_empty or shown.state is not None:
                yield shown

    async def clean_entities(self: _Asker, *, name: str | None = None) -> int:
        """Every entity without a state, whom nobody holds or waits for, is asked to go; returns how many were. A worker removes them.

        Nothing is lost but the dedupe keys of its signals: one that something comes for begins anew.

        Raises:
            InvalidArgumentError: the name is none.
        """
        asked = 0
        async for shown in _every(self, name, None):
            if shown.state is None and shown.locked_by is None and not shown.backlog and shown.problem is None:
                request = Message(shown.id, events.encode([EntityRemovalRequested()]))
                outcome = await self._submit(Post(request))
                if outcome.error is None:
                    asked += 1
                elif not isinstance(outcome.error, InstanceNotFoundError):  # somebody else has cleaned up
                    raise outcome.error
        return asked


async def _every(client: _Asker, name: str | None, key_prefix: str | None) -> AsyncIterator[EntityState]:
    if name is None and key_prefix is not None:
        raise InvalidArgumentError("key_prefix is given without a name: list_entities(name=..., key_prefix=...)")
    if key_prefix is not None and not isinstance(key_prefix, str):
        raise InvalidArgumentError(f"key_prefix is {key_prefix!r:.80}; it is text")
    id_prefix = None if name is None else f"@{check_entity_name(name).lower()}@{key_prefix or ''}"
    wanted = InstanceFilter(id_prefix=id_prefix, is_entity=True)
    cursor: str | None = None
    while True:
        page = await client._store.page(wanted, _ENTITIES_PER_PAGE, cursor)
        found, damaged = await load_sound(client._store, [record.instance_id for record in page.records])
        shown = [_shown(client, loaded) for loaded in found]
        shown += [
            _damaged(record, str(damaged[record.instance_id]))
            for record in page.records
            if record.instance_id in damaged
        ]
        for one in sorted(shown, key=lambda state: state.id):
            yield one
        cursor = page.cursor
        if cursor is None:
            return


def _shown(client: _Asker, loaded: Loaded) -> EntityState:
    record = loaded.record
    past = list(chain.from_iterable(events.decode_pieces(loaded.pieces, loaded.piece_count)))
    # The start stands behind the time of the first episode, which says what of it was due.
    standing = Standing().apply_all([*past[:1], *events.decode(record.start), *past[1:]])
    id = EntityInstanceId.parse(record.instance_id)
    holder = standing.line.holder
    return EntityState(
        id=record.instance_id,
        name=id.entity,
        key=id.key,
        state=_value(client, record.instance_id, standing.payload, None),
        locked_by=None if holder is None else holder.parent_instance_id,
        backlog=standing.backlog + len(loaded.inbox),
        problem=None if record.problem is None else record.problem.decode(),
        created_at=to_datetime(record.created_at),
        updated_at=to_datetime(record.updated_at),
    )


def _damaged(record: InstanceRecord, damage: str) -> EntityState:
    _, name, key = f"{record.instance_id}@@".split("@", 2)
    at = to_datetime(record.created_at)
    return EntityState(record.instance_id, name, key.rstrip("@"), None, None, 0, None, at, at, damage)


def _value(client: _Asker, entity_id: str, payload: bytes | None, type: object) -> Any:
    """The state as a value; without a `type` that is asked for, one that no longer fits the code is shown as it is stored."""
    if payload is None:
        return None
    if is_sealed(payload):
        return shown_sealed(payload)
    where = f"state of entity '{entity_id}'"
    if type is not None:
        return client._codec.decode(payload, type, where)
    try:
        definition = None if client._app is None else client._app.entity_named(EntityInstanceId.parse(entity_id).entity)
    except UnknownNameError:
        definition = None
    try:
        return client._codec.decode(payload) if definition is None else definition.decode(client._codec, payload, where)
    except Exception:
        return client._codec.decode(payload)
