"""The client: starts, signals and reads instances, from the worker's own process or from any other.

A client writes into the store, or, inside a hub, through the hub's worker, which spares a transaction. What a call has accepted survives
any crash (I6); what it refuses, it refuses before anything is written (I11).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from replayflow.archive.verbs import ArchiveVerbs
from replayflow.client.access import Access, Door, message_of
from replayflow.client.arguments import aware, checked_tags, moment, new_instance_id, statuses
from replayflow.client.handle import Instance
from replayflow.client.views import InstancePage, InstanceState, Views
from replayflow.clock import Clock, SystemClock
from replayflow.codec import Codec
from replayflow.core import events
from replayflow.core.commit import Start
from replayflow.core.context import OrchestrationContext
from replayflow.core.events import ExecutionReplaced, ExecutionStarted
from replayflow.core.ids import check_instance_id, check_version
from replayflow.core.instance import Status
from replayflow.core.signatures import OWN_PREFIX
from replayflow.core.tasks import Orchestration
from replayflow.entities import EntityVerbs
from replayflow.errors import InvalidArgumentError
from replayflow.patterns.schedule_client import ScheduleVerbs
from replayflow.registry import App
from replayflow.store import Store, store_at
from replayflow.store.base import Create, InstanceFilter, OnExisting, Outcome, Post

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741
PAGE_SIZE = 200


class Client(ScheduleVerbs, EntityVerbs, ArchiveVerbs):
    """Asks a hub for work. `async with Client("orders.db") as client`, from any process; or `hub.client`.

    With an `app` it refuses names that the app lacks and rebuilds results by its annotations; without one it takes any name.
    """

    def __init__(
        self,
        store: str | Path | Store | None = None,
        app: App | None = None,
        *,
        codec: Codec | None = None,
        clock: Clock | None = None,
        door: Door | None = None,
    ) -> None:
        self._store = store_at(store)
        self._app = app
        self._codec = codec or Codec()
        self._clock = clock or SystemClock()
        self._access = Access(self._store, door)
        self._views = Views(self._codec, app)

    async def __aenter__(self) -> Self:
        await self._store.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._store.close()

    # ---- starting

    @overload
    async def start(
        self,
        orchestrator: Callable[[OrchestrationContext, I], Orchestration[T]],
        input: I,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        start_at: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        on_existing: OnExisting = "error",
    ) -> Instance[T]: ...
    @overload
    async def start(
        self,
        orchestrator: Callable[[OrchestrationContext], Orchestration[T]],
        input: None = None,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        start_at: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        on_existing: OnExisting = "error",
    ) -> Instance[T]: ...
    @overload
    async def start(
        self,
        orchestrator: Callable[..., Any] | str,
        input: object = None,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        start_at: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        on_existing: OnExisting = "error",
    ) -> Instance[Any]: ...

    async def start(
        self,
        orchestrator: Any,
        input: Any = None,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        start_at: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        on_existing: OnExisting = "error",
    ) -> Instance[Any]:
        """The orchestration is durable and will run, now or at `start_at`; returns its handle.

        `on_existing` says what to do where the id is taken: "error" · "return" the instance as it is · "replace_finished" · "terminate_and_replace".

        Raises:
            UnknownNameError: this client's app has no such orchestrator.
            EncodeError, PayloadTooLargeError: the input cannot travel as a payload.
            InvalidArgumentError: an id, a time, a tag or a choice that is none.
            InstanceExistsError: the id is taken, and `on_existing` refuses it.
        """
        name, default_version = self._name(orchestrator)
        if on_existing not in ("error", "return", "replace_finished", "terminate_and_replace"):
            raise InvalidArgumentError(
                f"on_existing is {on_existing!r}; it is 'error', 'return', 'replace_finished' or 'terminate_and_replace'"
            )
        now = self._clock.now()
        id = new_instance_id(now) if instance_id is None else check_instance_id(instance_id)
        wake_at = moment(start_at, now)
        checked = checked_tags(tags)
        started = ExecutionStarted(
            name=name,
            input=self._codec.encode(input, f"input of orchestrator '{name}'"),
            instance_id=id,
            execution_id=os.urandom(16).hex(),
            version=default_version if version is None else check_version(version),
            scheduled_start_microseconds=wake_at or None,
            tags=checked,
            is_first=on_existing in ("error", "return"),
        )
        start = Start(
            instance_id=id,
            execution_id=started.execution_id,
            name=name,
            version=started.version,
            event=events.encode([started]),
            decoded=[started],
            created_at=now,
            wake_at=wake_at,
            tags=checked,
        )
        replacement = None
        if on_existing == "terminate_and_replace":
            reason = self._codec.encode("replaced by a new execution")
            replacement = message_of(id, ExecutionReplaced(start.event, reason), is_control=True)
        outcome = await self._submit(Create(start, on_existing, replacement, has_new_id=instance_id is None))
        if outcome.error is not None:
            raise outcome.error
        return self._handle(id, self._views.result_type(name))

    def get(self, instance_id: str) -> Instance[Any]:
        """The handle of an instance. Whether there is one shows when the handle is used."""
        return self._handle(instance_id, Any)

    # ---- listing

    async def list(
        self,
        *,
        status: Status | str | Iterable[Status | str] | None = None,
        name: str | None = None,
        id_prefix: str | None = None,
        tags: Mapping[str, str] | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        parked: bool | None = None,
        include_entities: bool = False,
    ) -> AsyncIterator[InstanceState]:
        """All instances that fit, in the order of their creation, read page by page. Entities are left out unless they are asked for.

        Raises:
            InvalidArgumentError: a status or a time that is none.
        """
        cursor: str | None = None
        while True:
            page = await self.list_page(
                status=status,
                name=name,
                id_prefix=id_prefix,
                tags=tags,
                created_from=created_from,
                created_to=created_to,
                parked=parked,
                include_entities=include_entities,
                limit=PAGE_SIZE,
                cursor=cursor,
            )
            for state in page.states:
                yield state
            cursor = page.cursor
            if cursor is None:
                return

    async def list_page(
        self,
        *,
        status: Status | str | Iterable[Status | str] | None = None,
        name: str | None = None,
        id_prefix: str | None = None,
        tags: Mapping[str, str] | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        parked: bool | None = None,
        include_entities: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> InstancePage:
        """At most `limit` of the instances that fit, and where to read on.

        Raises:
            InvalidArgumentError: a status, a time, a limit or a cursor that is none.
        """
        if limit < 1:
            raise InvalidArgumentError(f"limit is {limit}; a page has at least one place")
        if cursor is not None and not cursor.isdecimal():
            raise InvalidArgumentError(f"cursor is {cursor!r:.80}; pass what the page before gave as its `cursor`")
        wanted = InstanceFilter(
            statuses=statuses(status),
            name=name,
            id_prefix=id_prefix or None,
            tags=tuple(sorted((checked_tags(tags) or {}).items())),
            created_from=None if created_from is None else aware(created_from, "created_from"),
            created_to=None if created_to is None else aware(created_to, "created_to"),
            is_parked=parked,
            is_entity=None if include_entities else False,
        )
        page = await self._store.page(wanted, limit, cursor)
        return InstancePage([self._views.state(record) for record in page.records], page.cursor)

    # ---- what this and the verbs of schedules and entities rest on

    async def _submit(self, operation: Create | Post) -> Outcome:
        return await self._access.submit(operation)

    def _handle(self, instance_id: str, result_type: Any) -> Instance[Any]:
        return Instance(self._access, self._codec, self._views, instance_id, result_type)

    def _name(self, orchestrator: Any) -> tuple[str, str | None]:
        if isinstance(orchestrator, str) and orchestrator.startswith(OWN_PREFIX):
            return orchestrator, None  # every worker has it
        if self._app is not None:
            definition = self._app.orchestrator_named(orchestrator)
            return definition.name, definition.version
        if isinstance(orchestrator, str):
            if not orchestrator:
                raise InvalidArgumentError("an orchestrator's name cannot be empty")
            return orchestrator, None
        name = getattr(orchestrator, "__name__", None)
        if not callable(orchestrator) or name is None:
            raise InvalidArgumentError(f"{orchestrator!r:.80} is no orchestrator: pass the function or its name")
        return name, None
