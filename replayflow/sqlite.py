"""Starting and signalling in your own transaction, where your tables and the hub are in one SQLite file.

    connection = sqlite3.connect("orders.db")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO orders (id, total) VALUES (?, ?)", (order.id, order.total))
    sqlite.start(connection, checkout, order, instance_id=f"order-{order.id}")
    connection.commit()     # both are there, or, after a rollback or a crash, neither

There is no outbox to empty and nothing to lose between the row and its workflow. The functions write with your connection and commit nothing; a
worker, in whatever process, notices the commit as it does any client's. Where one is refused your transaction stays as it was, open and usable. Keep
transactions short: while one is open the worker cannot write.

Where values are encrypted it is with the cipher that `$REPLAYFLOW_CIPHER` names: one that is given to a hub or a client is not known here, and
without the variable what these functions write is plain.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from replayflow.client import starting
from replayflow.client.access import message_of
from replayflow.client.arguments import event_of
from replayflow.clock import SystemClock
from replayflow.codec import Codec
from replayflow.core.entity.ids import is_entity_id
from replayflow.core.ids import plain
from replayflow.errors import InvalidArgumentError
from replayflow.registry import App, app_of
from replayflow.store.base import Create, OnExisting, Post
from replayflow.store.sqlite.inside import write_inside

_clock = SystemClock()


def start(
    connection: sqlite3.Connection,
    orchestrator: Callable[..., Any] | str,
    input: object = None,
    *,
    instance_id: str | None = None,
    version: str | None = None,
    start_at: datetime | timedelta | None = None,
    tags: Mapping[str, str] | None = None,
    on_existing: OnExisting = "error",
    app: App | None = None,
    codec: Codec | None = None,
) -> str:
    """The orchestration is part of the connection's transaction, and runs once that is committed; returns the instance's id.

    The arguments are those of `Client.start`. A function is known by the app that it is registered with; a name is checked where `app` is given.

    Raises:
        NoTransactionError: the connection is in no transaction.
        NotAHubError, NewerSchemaError, StoreUnavailableError: its file is no hub, or one of another version's format.
        StoreBusyError: the transaction began with a reading, and somebody else has written since: begin it with BEGIN IMMEDIATE.
        InstanceExistsError: the id is taken, and `on_existing` refuses it.
        UnknownNameError, EncodeError, PayloadTooLargeError, InvalidArgumentError: as for `Client.start`.
    """
    name, own_version = _named(orchestrator, app)
    create = starting.creation(
        codec or Codec(),
        name,
        input,
        now=_clock.now(),
        instance_id=instance_id,
        version=own_version if version is None else version,
        start_at=start_at,
        tags=tags,
        on_existing=on_existing,
    )
    _write(connection, create)
    return create.start.instance_id


def raise_event(
    connection: sqlite3.Connection,
    instance_id: str,
    name: str,
    payload: object = None,
    *,
    dedupe_key: str | None = None,
    codec: Codec | None = None,
) -> None:
    """The event is part of the connection's transaction, and reaches the instance once that is committed.

    Raises:
        NoTransactionError, NotAHubError, NewerSchemaError, StoreUnavailableError, StoreBusyError: as for `start`.
        InstanceNotFoundError, InstanceFinishedError, EncodeError, InvalidArgumentError: as for `Instance.raise_event`.
    """
    if not isinstance(instance_id, str):
        raise InvalidArgumentError(f"instance_id is {instance_id!r:.80}; an instance id is text")
    if is_entity_id(instance_id):
        raise InvalidArgumentError(f"'{instance_id}' is an entity, which takes signals and no events")
    event = event_of(codec or Codec(), name, payload, dedupe_key)
    _write(connection, Post(message_of(plain(instance_id), event, is_control=False), dedupe_key))


def signal_with_start(
    connection: sqlite3.Connection,
    orchestrator: Callable[..., Any] | str,
    input: object,
    event: str,
    payload: object = None,
    *,
    instance_id: str,
    version: str | None = None,
    tags: Mapping[str, str] | None = None,
    on_existing: Literal["error", "replace_finished"] = "error",
    dedupe_key: str | None = None,
    app: App | None = None,
    codec: Codec | None = None,
) -> None:
    """The event is part of the connection's transaction, and with it the start of the instance where there is none; see `Client.signal_with_start`.

    Raises:
        NoTransactionError, NotAHubError, NewerSchemaError, StoreUnavailableError, StoreBusyError: as for `start`.
        InstanceFinishedError, UnknownNameError, EncodeError, PayloadTooLargeError, InvalidArgumentError: as for `Client.signal_with_start`.
    """
    name, own_version = _named(orchestrator, app)
    codec = codec or Codec()
    post = starting.signal_with_start(
        codec,
        name,
        input,
        event_of(codec, event, payload, dedupe_key),
        now=_clock.now(),
        instance_id=instance_id,
        version=own_version if version is None else version,
        tags=tags,
        on_existing=on_existing,
        dedupe_key=dedupe_key,
    )
    _write(connection, post)


def _write(connection: sqlite3.Connection, operation: Create | Post) -> None:
    outcome = write_inside(connection, operation)
    if outcome.error is not None:
        raise outcome.error


def _named(orchestrator: Callable[..., Any] | str, app: App | None) -> tuple[str, str | None]:
    """The orchestrator's name, and the version that its starts have."""
    served = app or (None if isinstance(orchestrator, str) else app_of(orchestrator))
    if served is not None:
        definition = served.orchestrator_named(orchestrator)
        return definition.name, definition.version
    name = orchestrator if isinstance(orchestrator, str) else getattr(orchestrator, "__name__", None)
    if not isinstance(name, str) or not name:
        raise InvalidArgumentError(f"{orchestrator!r:.80} is no orchestrator: pass the function or its name")
    return plain(name), None


__all__ = ["raise_event", "signal_with_start", "start"]
