"""The client: starts, signals and reads instances, from the worker's own process or from any other.

A client writes into the store, or, inside a hub, through the hub's worker, which spares a transaction. What a call has accepted survives
any crash (I6); what it refuses, it refuses before anything is written (I11).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, overload

from replayflow.clock import Clock, SystemClock, to_datetime, to_microseconds
from replayflow.codec import Codec
from replayflow.core import episode, events
from replayflow.core.blocks import payloads_of
from replayflow.core.commit import Ending, Message, Start
from replayflow.core.context import OrchestrationContext, check_event_name, check_tags
from replayflow.core.entity_ids import is_entity_id
from replayflow.core.events import (
    EventRaised,
    ExecutionCancelRequested,
    ExecutionReplaced,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    MapPage,
    MapProgress,
    MapScheduled,
    OrchestratorStarted,
)
from replayflow.core.ids import check_instance_id, check_version
from replayflow.core.instance import Status
from replayflow.core.map_progress import MapState, MapStates
from replayflow.core.signatures import OWN_PREFIX
from replayflow.core.tasks import Orchestration
from replayflow.entities import EntityVerbs
from replayflow.errors import (
    FailureDetails,
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    InvalidStateError,
    OrchestrationCanceled,
    OrchestrationFailed,
    OrchestrationTerminated,
)
from replayflow.patterns.schedule_client import ScheduleVerbs
from replayflow.registry import App
from replayflow.store import Store, store_at
from replayflow.store.base import Create, InstanceFilter, InstanceRecord, OnExisting, Outcome, Post

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741
_LOOK_SECONDS_MAX = 2.0
_TIME_MIN = to_microseconds(datetime.min.replace(tzinfo=UTC))
_TIME_MAX = to_microseconds(datetime.max.replace(tzinfo=UTC))
PAGE_SIZE = 200


@dataclass(frozen=True, slots=True)
class InstanceState:
    """An instance as it was when it was read. Times are aware and in UTC; values are rebuilt where the client's app knows their types."""

    id: str
    execution_id: str
    name: str
    version: str | None
    status: Status
    input: Any
    output: Any
    custom_status: Any
    failure: FailureDetails | None
    problem: str | None
    """Why the instance is parked; None where it is not."""
    tags: Mapping[str, str]
    parent_instance_id: str | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class InstancePage:
    """One page of a listing; `cursor` is where the next begins, None after the last."""

    states: list[InstanceState]
    cursor: str | None


class Door(Protocol):
    """The way into a hub: straight into the store, or through the worker in this process."""

    async def submit(self, operation: Create | Post) -> Outcome: ...
    def expect_end(self, instance_id: str) -> asyncio.Future[Ending]: ...
    def forget_end(self, instance_id: str, future: asyncio.Future[Ending]) -> None: ...
    def is_at_work(self, instance_id: str) -> bool: ...


class Client(ScheduleVerbs, EntityVerbs):
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
        self._door = door

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
        id = _new_instance_id(now) if instance_id is None else check_instance_id(instance_id)
        wake_at = _moment(start_at, now)
        checked = _checked_tags(tags)
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
            replacement = _message(id, ExecutionReplaced(start.event, reason), is_control=True)
        outcome = await self._submit(Create(start, on_existing, replacement, has_new_id=instance_id is None))
        if outcome.error is not None:
            raise outcome.error
        return Instance(self, id, self._result_type(name))

    def get(self, instance_id: str) -> Instance[Any]:
        """The handle of an instance. Whether there is one shows when the handle is used."""
        return Instance(self, instance_id, Any)

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
            statuses=_statuses(status),
            name=name,
            id_prefix=id_prefix or None,
            tags=tuple(sorted((_checked_tags(tags) or {}).items())),
            created_from=None if created_from is None else _aware(created_from, "created_from"),
            created_to=None if created_to is None else _aware(created_to, "created_to"),
            is_parked=parked,
            is_entity=None if include_entities else False,
        )
        page = await self._store.page(wanted, limit, cursor)
        return InstancePage([self._state(record) for record in page.records], page.cursor)

    # ---- what handles ask for

    async def _submit(self, operation: Create | Post) -> Outcome:
        if self._door is not None:
            return await self._door.submit(operation)
        return (await self._store.write([operation]))[0]

    async def _post(
        self, instance_id: str, event: HistoryEvent, *, is_control: bool, dedupe_key: str | None = None
    ) -> None:
        outcome = await self._submit(Post(_message(instance_id, event, is_control), dedupe_key))
        if outcome.error is not None:
            raise outcome.error

    async def _record(self, instance_id: str) -> InstanceRecord:
        record = await self._store.get(instance_id)
        if record is None:
            raise InstanceNotFoundError(f"no instance '{instance_id}' is in the hub {self._store.url}")
        return record

    async def _end(self, instance_id: str, timeout: float | None) -> InstanceRecord | Ending:
        """How the instance ended, when it has."""
        if self._door is not None:
            return await self._end_here(self._door, instance_id, timeout)
        changed = asyncio.Event()
        unsubscribe = self._store.subscribe(changed.set)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                changed.clear()
                record = await self._record(instance_id)
                if record.status.is_finished:
                    return record
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(_still(record, timeout))
                try:
                    async with asyncio.timeout(_LOOK_SECONDS_MAX if left is None else min(left, _LOOK_SECONDS_MAX)):
                        await changed.wait()
                except TimeoutError:
                    pass
        finally:
            unsubscribe()

    async def _end_here(self, door: Door, instance_id: str, timeout: float | None) -> InstanceRecord | Ending:
        # The waiter is registered first: an end that comes while the row is read must not be missed.
        ended = door.expect_end(instance_id)
        try:
            if not door.is_at_work(instance_id):
                record = await self._record(instance_id)
                if record.status.is_finished:
                    return record
            if timeout is None:
                return await ended
            async with asyncio.timeout(timeout):
                return await ended
        except TimeoutError:
            raise TimeoutError(_still(await self._record(instance_id), timeout)) from None
        finally:
            if not ended.done():
                door.forget_end(instance_id, ended)
            elif not ended.cancelled():
                ended.exception()  # seen, whether or not it was waited for

    async def _history(self, instance_id: str, execution_id: str | None) -> AsyncIterator[HistoryEvent]:
        pieces = await self._store.history(instance_id, execution_id)
        if not pieces:
            record = await self._record(instance_id)
            raise InstanceNotFoundError(
                f"instance '{instance_id}' has no execution '{execution_id}'; the present one is '{record.execution_id}'"
            )
        record = await self._record(instance_id)
        start = events.decode(pieces[0])
        if len(pieces) == 1:
            for event in start:
                yield event.at(record.created_at)
        for i, piece in enumerate(pieces[1:]):
            first, *decoded = events.decode(piece)
            assert isinstance(first, OrchestratorStarted)  # noqa: S101 - every piece begins with its time
            yield first.at(first.now_microseconds)
            for event in [*start, *decoded] if i == 0 else decoded:
                yield event.at(first.now_microseconds)

    # ---- values

    def _with_values(self, event: HistoryEvent) -> HistoryEvent:
        """The event with its payloads decoded, as users see it."""
        for name in ("input", "result", "custom_status", "output", "state"):
            payload = getattr(event, name, None)
            if isinstance(payload, bytes):
                setattr(event, name, self._shown(payload, Any))
        if isinstance(event, MapScheduled | MapPage | MapProgress):
            self._map_with_values(event)
        return event

    def _map_with_values(self, event: MapScheduled | MapPage | MapProgress) -> None:
        if isinstance(event, MapProgress):
            event.results = [self._shown(result, Any) for result in event.results]
            return
        calls = [self._shown(payload, Any) for payload in payloads_of(event.items)]
        event.items = calls if event.batch_size is None else [item for batch in calls for item in batch]
        event.cursor = self._shown(event.cursor, Any)

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

    def _result_type(self, name: str) -> Any:
        definition = None if self._app is None else self._app.orchestrators.get(name)
        return Any if definition is None else definition.result_type

    def _state(self, record: InstanceRecord) -> InstanceState:
        definition = None if self._app is None else self._app.orchestrators.get(record.name)
        started = events.decode(record.start)[0]
        assert isinstance(started, ExecutionStarted)  # noqa: S101 - every execution begins with it
        return InstanceState(
            id=record.instance_id,
            execution_id=record.execution_id,
            name=record.name,
            version=record.version,
            status=record.status,
            input=self._shown(started.input, Any if definition is None else definition.input_type),
            output=self._shown(record.output, Any if definition is None else definition.result_type)
            if record.status is Status.COMPLETED
            else None,
            custom_status=self._shown(record.custom_status, Any),
            failure=None if record.failure is None else episode.decode_failure(record.failure),
            problem=None if record.problem is None else record.problem.decode(),
            tags=record.tags or {},
            parent_instance_id=record.parent_id,
            created_at=to_datetime(record.created_at),
            updated_at=to_datetime(record.updated_at),
            completed_at=None if record.completed_at is None else to_datetime(record.completed_at),
        )

    def _shown(self, payload: bytes | None, type: Any) -> Any:
        """The value; where it does not fit the type any more, as it is stored: looking must not fail for what has changed since."""
        try:
            return self._codec.decode(payload, type)
        except Exception:
            return self._codec.decode(payload)


class Instance(Generic[T]):
    """The handle of one instance: `id`, and everything that can be asked of it."""

    def __init__(self, client: Client, id: str, result_type: Any) -> None:
        self._client = client
        self._result_type = result_type
        self.id = id

    def __repr__(self) -> str:
        return f"<Instance '{self.id}'>"

    async def status(self) -> InstanceState:
        """The instance as it is now.

        Raises:
            InstanceNotFoundError: there is none with the id. So do all methods of the handle.
        """
        return self._client._state(await self._client._record(self.id))

    async def wait(self, timeout: float | timedelta | None = None) -> InstanceState:
        """The instance as it is when it has finished, in whatever way.

        Raises:
            TimeoutError: it has not finished within `timeout` (seconds); it goes on.
        """
        _refuse_for_entities(self.id, "wait")
        await self._client._end(self.id, _seconds(timeout))
        return await self.status()

    async def result(self, timeout: float | timedelta | None = None) -> T:
        """The output, when the instance has completed.

        Raises:
            OrchestrationFailed: it ended with an error; `.details` has it.
            OrchestrationTerminated, OrchestrationCanceled: it was ended from outside.
            TimeoutError: it has not finished within `timeout` (seconds); it goes on.
        """
        _refuse_for_entities(self.id, "result")
        end = await self._client._end(self.id, _seconds(timeout))
        match end.status:
            case Status.COMPLETED:
                result: T = self._client._codec.decode(end.output, self._type(end), f"result of instance '{self.id}'")
                return result
            case Status.FAILED:
                assert end.failure is not None  # noqa: S101 - what failed has a failure
                details = episode.decode_failure(end.failure)
                raise OrchestrationFailed(f"instance '{self.id}' failed: {details}", details)
            case Status.CANCELED:
                raise OrchestrationCanceled(f"instance '{self.id}' was cancelled{_because(self._reason(end))}")
            case _:
                raise OrchestrationTerminated(f"instance '{self.id}' was terminated{_because(self._reason(end))}")

    async def raise_event(self, name: str, payload: object = None, *, dedupe_key: str | None = None) -> None:
        """The event is durable in the instance's inbox, and reaches whoever waits for its name (case does not matter), now or later.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceFinishedError: it has finished; unless it has had this `dedupe_key` before, which succeeds silently.
            EncodeError, InvalidArgumentError: the payload cannot travel, or the name is none.
        """
        _refuse_for_entities(self.id, "raise_event")
        check_event_name(name)
        if dedupe_key is not None and not 0 < len(dedupe_key) <= 256:
            raise InvalidArgumentError(f"dedupe_key has {len(dedupe_key)} characters; it has 1 to 256")
        encoded = self._client._codec.encode(payload, f"payload of event '{name}'")
        await self._client._post(self.id, EventRaised(name, encoded), is_control=False, dedupe_key=dedupe_key)

    async def suspend(self, reason: str = "") -> None:
        """The orchestrator runs no further until `resume`; what comes for it meanwhile waits.

        Raises:
            InvalidStateError: it has finished, or is suspended already.
        """
        record = await self._open("suspend")
        if record.status is Status.SUSPENDED:
            raise InvalidStateError(f"instance '{self.id}' is suspended already")
        await self._ask("suspend", ExecutionSuspended(self._reasoned(reason)))

    async def resume(self, reason: str = "") -> None:
        """A suspended instance goes on; one that is parked is tried again.

        Raises:
            InvalidStateError: it is not suspended or parked, and no request to suspend it is under way.
        """
        record = await self._open("resume")
        if record.problem is None and record.status is not Status.SUSPENDED and not await self._is_being_suspended():
            raise InvalidStateError(
                f"instance '{self.id}' is {record.status}: only a suspended instance, or a parked one, can be resumed"
            )
        await self._ask("resume", ExecutionResumed(self._reasoned(reason)))

    async def terminate(self, reason: str = "", recursive: bool = True) -> None:
        """The instance ends as soon as a worker sees the request, its running activities are cancelled, and with `recursive` its children end, too.

        Raises:
            InvalidStateError: it has finished.
            InvalidArgumentError: it is an entity, which has no end. So it is for `cancel`, `wait`, `result` and `raise_event`.
        """
        _refuse_for_entities(self.id, "terminate")
        await self._open("terminate")
        await self._ask("terminate", ExecutionTerminated(self._reasoned(reason), recursive))

    async def cancel(self, reason: str = "") -> None:
        """`OrchestrationCancelled` is raised at the orchestrator's current yield, so that it can undo what it did.

        Raises:
            InvalidStateError: it has finished.
        """
        _refuse_for_entities(self.id, "cancel")
        await self._open("cancel")
        await self._ask("cancel", ExecutionCancelRequested(self._reasoned(reason)), is_control=False)

    async def history(self, execution_id: str | None = None) -> AsyncIterator[HistoryEvent]:
        """The events of the present execution, or of a past one of the instance, in order.

        Inputs and results are values, as they come without an annotation: dataclasses and models as dicts, enums as their values.
        """
        async for event in self._client._history(self.id, execution_id):
            yield self._client._with_values(event)

    async def maps(self) -> list[MapState]:
        """How far each `ctx.map` of the present execution is, in the order in which they were asked for. Reads the instance's history."""
        states = MapStates()
        async for event in self._client._history(self.id, None):
            states.take(event)
        return states.now()

    async def _open(self, verb: str) -> InstanceRecord:
        record = await self._client._record(self.id)
        if record.status.is_finished:
            raise InvalidStateError(
                f"instance '{self.id}' has finished, with status {record.status}: there is nothing to {verb}"
            )
        return record

    async def _ask(self, verb: str, request: HistoryEvent, *, is_control: bool = True) -> None:
        """The request is durable. An instance that has ended since it was looked at refuses it like one that had ended before."""
        try:
            await self._client._post(self.id, request, is_control=is_control)
        except InstanceFinishedError as error:
            raise InvalidStateError(f"{error}: there is nothing to {verb}") from None

    async def _is_being_suspended(self) -> bool:
        for loaded in await self._client._store.load([self.id]):
            for delivery in loaded.inbox:
                if delivery.event is not None and isinstance(events.decode(delivery.event)[0], ExecutionSuspended):
                    return True
        # The request may have become history between the two looks.
        return (await self._client._record(self.id)).status is Status.SUSPENDED

    def _reasoned(self, reason: str) -> bytes | None:
        return self._client._codec.encode(reason or None, "reason")

    def _reason(self, end: InstanceRecord | Ending) -> str:
        reason = self._client._codec.decode(end.output) if end.output is not None else None
        if reason is None and end.failure is not None:
            return episode.decode_failure(end.failure).message
        return reason if isinstance(reason, str) else ""

    def _type(self, end: InstanceRecord | Ending) -> Any:
        return self._client._result_type(end.name) if self._result_type is Any else self._result_type


def instance_id_for(name: str, input: bytes | None) -> str:
    """The id of "this orchestrator with this input": the same call finds the same instance again."""
    return f"{name}-{hashlib.sha256(input or b'').hexdigest()[:24]}"


def _refuse_for_entities(instance_id: str, verb: str) -> None:
    if is_entity_id(instance_id):
        raise InvalidArgumentError(
            f"{verb}: '{instance_id}' is an entity, which has no end and takes no events: signal it, or read it; "
            "where its state has to go, signal it a 'delete'"
        )


def _new_instance_id(now: int) -> str:
    """An id that nobody has: the time, so that ids sort by age and are added at one end of an index, and chance."""
    return f"{now:014x}{os.urandom(9).hex()}"


def _message(instance_id: str, event: HistoryEvent, is_control: bool) -> Message:
    return Message(instance_id, events.encode([event]), is_control=is_control)


def _statuses(wanted: Status | str | Iterable[Status | str] | None) -> frozenset[Status] | None:
    if wanted is None:
        return None
    several = [wanted] if isinstance(wanted, str) else list(wanted)
    try:
        return frozenset(Status(str(status).upper()) for status in several)
    except ValueError as error:
        raise InvalidArgumentError(f"{error}; a status is one of {', '.join(Status)}") from None


def _checked_tags(tags: Mapping[str, str] | None) -> dict[str, str] | None:
    return check_tags(tags) if tags else None


def _moment(when: datetime | timedelta | None, now: int) -> int:
    if when is None:
        return 0
    if isinstance(when, timedelta):
        at = now + when // timedelta(microseconds=1)
        if not _TIME_MIN <= at <= _TIME_MAX:
            raise InvalidArgumentError(f"start_at is {when} from now, which no calendar has")
        return at
    return _aware(when, "start_at")


def _aware(moment: datetime, what: str) -> int:
    if not isinstance(moment, datetime):
        raise InvalidArgumentError(f"{what} is {moment!r:.80}; it is a datetime with a time zone")
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InvalidArgumentError(
            f"{what} is {moment!r}, which is naive: give it a time zone, such as datetime.now(UTC)"
        )
    return to_microseconds(moment)


def _seconds(timeout: float | timedelta | None) -> float | None:
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout


def _still(record: InstanceRecord, timeout: float | None) -> str:
    parked = "" if record.problem is None else f", parked: {record.problem.decode()}"
    return f"instance '{record.instance_id}' has not finished within {timeout:g} s: it is {record.status}{parked}"


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
