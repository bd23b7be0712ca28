"""The client: starts, signals and reads instances, from the worker's own process or from any other.

A client writes into the store, or, inside a hub, through the hub's worker, which spares a transaction. What a call has accepted survives
any crash (I6); what it refuses, it refuses before anything is written (I11).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from replayflow.archive.verbs import ArchiveVerbs
from replayflow.client.access import Access, Door
from replayflow.client.batches import BatchVerbs
from replayflow.client.bulk import BulkVerbs
from replayflow.client.doctor import DoctorVerbs
from replayflow.client.finding import FindingVerbs
from replayflow.client.handle import Instance
from replayflow.client.signalling import SignalVerbs
from replayflow.client.starting import creation
from replayflow.client.views import Views
from replayflow.clock import Clock, SystemClock
from replayflow.codec import Codec
from replayflow.codec.cipher import Cipher
from replayflow.core.context import OrchestrationContext
from replayflow.core.definitions import version_mismatch
from replayflow.core.ids import check_version
from replayflow.core.signatures import OWN_PREFIX
from replayflow.core.tasks import Orchestration
from replayflow.entities import EntityVerbs
from replayflow.errors import InvalidArgumentError
from replayflow.patterns.schedule_client import ScheduleVerbs
from replayflow.registry import App
from replayflow.store import Store, store_at
from replayflow.store.base import Create, OnExisting, Outcome, Post

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741


class Client(FindingVerbs, DoctorVerbs, ScheduleVerbs, EntityVerbs, SignalVerbs, BatchVerbs, BulkVerbs, ArchiveVerbs):
    """Asks a hub for work. `async with Client("orders.db") as client`, from any process; or `hub.client`.

    With an `app` it refuses names that the app lacks and rebuilds results by its annotations; without one it takes any name. `default_version` is for
    starts by name that give none; where it is not given, they have the newest version, without an app the newest that the hub's worker serves.
    `large_over_bytes` and `cipher` are as for a `TaskHub`.
    """

    def __init__(
        self,
        store: str | Path | Store | None = None,
        app: App | None = None,
        *,
        codec: Codec | None = None,
        clock: Clock | None = None,
        door: Door | None = None,
        default_version: str | None = None,
        large_over_bytes: int | None = None,
        cipher: Cipher | None = None,
    ) -> None:
        self._default_version = check_version(default_version)
        self._store = store_at(store, large_over_bytes=large_over_bytes, cipher=cipher)
        self._app = app
        self._codec = codec or Codec()
        self._clock = clock or SystemClock()
        self._access = Access(self._store, door, self._clock)
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

        `version` says whose code the instance runs, for good; without it a function's own, by name the newest. `on_existing` says what to do
        where the id is taken: "error" · "return" the instance as it is · "replace_finished" · "terminate_and_replace".

        Raises:
            UnknownNameError: this client's app has no such orchestrator.
            VersionMismatchError: it has none that serves this version.
            EncodeError, PayloadTooLargeError: the input cannot travel as a payload.
            InvalidArgumentError: an id, a time, a tag or a choice that is none.
            InstanceExistsError: the id is taken, and `on_existing` refuses it.
        """
        name, version = await self._name_and_version(orchestrator, version)
        create = creation(
            self._codec,
            name,
            input,
            now=self._clock.now(),
            instance_id=instance_id,
            version=version,
            start_at=start_at,
            tags=tags,
            on_existing=on_existing,
        )
        outcome = await self._submit(create)
        if outcome.error is not None:
            raise outcome.error
        return self._handle(create.start.instance_id, self._views.result_type(name, create.start.version))

    def get(self, instance_id: str) -> Instance[Any]:
        """The handle of an instance. Whether there is one shows when the handle is used.

        Raises:
            InvalidArgumentError: the id is no text.
        """
        if not isinstance(instance_id, str):
            raise InvalidArgumentError(f"instance_id is {instance_id!r:.80}; an instance id is text")
        return self._handle(instance_id, Any)

    # ---- what this and the verbs of schedules and entities rest on

    def _submit(self, operation: Create | Post) -> Coroutine[Any, Any, Outcome]:
        return self._access.submit(operation)

    def _handle(self, instance_id: str, result_type: Any) -> Instance[Any]:
        return Instance(self._access, self._codec, self._views, instance_id, result_type)

    async def _name_and_version(self, orchestrator: Any, version: str | None) -> tuple[str, str | None]:
        """The orchestrator's name, and the version that an instance gets that is started now.

        Raises:
            UnknownNameError, VersionMismatchError: this client's app has none such.
        """
        name, default_version = self._name(orchestrator)
        if version is not None:
            return name, self._served_version(name, version)
        return name, await self._hub_default(name) if self._app is None else default_version

    def _served_version(self, name: str, version: str | None) -> str | None:
        """The version that a caller gave, which the app has code for.

        Raises:
            VersionMismatchError: it has none.
        """
        checked = check_version(version)
        served = None if self._app is None else self._app.orchestrators
        if checked is not None and served is not None and name in served and served.serving(name, checked) is None:
            raise version_mismatch(served, name, checked)
        return checked

    def _lasting_version(self, orchestrator: Any, version: str | None) -> tuple[str, str | None]:
        """The orchestrator's name, and the version of all starts to come: the one given, or of a function that is not the newest; else None."""
        name, default = self._name(orchestrator)
        if version is not None:
            return name, self._served_version(name, version)
        newest = None if self._app is None else self._app.orchestrators.default_version(name, self._default_version)
        return name, None if default == newest else default

    async def _hub_default(self, name: str) -> str | None:
        """What a start without a version gets where no app is here to tell: the hub's worker has left it there."""
        if self._default_version is not None or name.startswith(OWN_PREFIX):
            return self._default_version
        return next(
            (each.version for each in await self._store.served() if each.name == name and each.is_default), None
        )

    def _name(self, orchestrator: Any) -> tuple[str, str | None]:
        """The orchestrator's name, and the version of a start that gives none."""
        if isinstance(orchestrator, str) and orchestrator.startswith(OWN_PREFIX):
            return orchestrator, None  # every worker has it
        if self._app is not None:
            definition = self._app.orchestrator_named(orchestrator)
            if self._default_version is None:
                return definition.name, definition.version
            fn = None if isinstance(orchestrator, str) else orchestrator
            return definition.name, self._app.orchestrators.default_version(definition.name, self._default_version, fn)
        if isinstance(orchestrator, str):
            if not orchestrator:
                raise InvalidArgumentError("an orchestrator's name cannot be empty")
            return orchestrator, None
        own = getattr(orchestrator, "__name__", None)
        if not callable(orchestrator) or own is None:
            raise InvalidArgumentError(f"{orchestrator!r:.80} is no orchestrator: pass the function or its name")
        return own, None
