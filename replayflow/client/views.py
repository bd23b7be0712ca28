"""Instances and their histories as those who ask see them: values, not payloads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from replayflow.clock import to_datetime
from replayflow.codec import Codec
from replayflow.codec.reference import is_reference, size_of
from replayflow.codec.sealed import is_sealed, shown_sealed
from replayflow.core import events, rows
from replayflow.core.events import ExecutionStarted, HistoryEvent, MapPage, MapProgress, MapScheduled
from replayflow.core.instance import Status
from replayflow.core.map.blocks import payloads_of
from replayflow.core.map.progress import MapState, decode_progress
from replayflow.errors import FailureDetails
from replayflow.registry import App
from replayflow.store.base import InstanceRecord


@dataclass(frozen=True, slots=True)
class LargeValue:
    """What stands in a listing for a value that is kept out of line: it has not been read. The instance's `status()` has it."""

    size_bytes: int
    """How large its payload is."""

    def __str__(self) -> str:
        return f"({self.size_bytes:,} bytes, not read)"


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
    """Why the instance does not go on: why it is parked, or what is damaged of it; None where it does."""
    tags: Mapping[str, str]
    parent_instance_id: str | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    maps: tuple[MapState, ...] = ()
    """How far the maps are that are under way; `Instance.maps()` has those that are over, too."""
    damage: str | None = None
    """Why nothing of it can be believed but that it is there: what is stored of it does not read back as it was written. It has no values then. Only
    listings have such; to ask for the instance itself is a `StoreCorruptError`."""


@dataclass(frozen=True, slots=True)
class InstancePage:
    """One page of a listing; `cursor` is where the next begins, None after the last."""

    states: list[InstanceState]
    cursor: str | None


class Views:
    """Makes values of payloads, by the annotations of the app's functions where there is an app."""

    def __init__(self, codec: Codec, app: App | None) -> None:
        self._codec = codec
        self.app = app

    def with_values(self, event: HistoryEvent) -> HistoryEvent:
        """The event with its payloads decoded, as users see it."""
        for name in ("input", "result", "custom_status", "output", "state", "value", "detail"):
            payload = getattr(event, name, None)
            if isinstance(payload, bytes):
                setattr(event, name, self.shown(payload, Any))
        if isinstance(event, MapScheduled | MapPage | MapProgress):
            self._map_with_values(event)
        return event

    def _map_with_values(self, event: MapScheduled | MapPage | MapProgress) -> None:
        if isinstance(event, MapProgress):
            event.results = [self.shown(result, Any) for result in event.results]
            return
        blocks = event.items
        if any(is_sealed(block.payloads) for block in blocks):
            event.items = [self.shown(block.payloads, Any) for block in blocks]
            event.cursor = self.shown(event.cursor, Any)
            return
        calls = [self.shown(payload, Any) for payload in payloads_of(blocks)]
        event.items = calls if event.batch_size is None else [item for batch in calls for item in batch]
        event.cursor = self.shown(event.cursor, Any)

    def result_type(self, name: str, version: str | None = None) -> Any:
        """What the result of the orchestrator, in that version, is rebuilt as."""
        definition = None if self.app is None else self.app.orchestrators.serving(name, version)
        return Any if definition is None else definition.result_type

    def state(self, record: InstanceRecord) -> InstanceState:
        """The row as its readers see it."""
        if record.damage is not None:
            return _damaged(record, record.damage)
        definition = None if self.app is None else self.app.orchestrators.serving(record.name, record.version)
        started = events.decode(record.start)[0]
        assert isinstance(started, ExecutionStarted)  # noqa: S101 - every execution begins with it
        return InstanceState(
            id=record.instance_id,
            execution_id=record.execution_id,
            name=record.name,
            version=record.version,
            status=record.status,
            input=self.shown(started.input, Any if definition is None else definition.input_type),
            output=self.shown(record.output, Any if definition is None else definition.result_type)
            if record.status is Status.COMPLETED
            else None,
            custom_status=self.shown(record.custom_status, Any),
            failure=None if record.failure is None else rows.decode_failure(record.failure),
            problem=None if record.problem is None else record.problem.decode(),
            tags=record.tags or {},
            parent_instance_id=record.parent_id,
            created_at=to_datetime(record.created_at),
            updated_at=to_datetime(record.updated_at),
            completed_at=None if record.completed_at is None else to_datetime(record.completed_at),
            maps=() if record.progress is None else tuple(decode_progress(record.progress)),
        )

    def shown(self, payload: bytes | None, type: Any) -> Any:
        """The value; where it does not fit the type any more, as it is stored: looking must not fail for what has changed since."""
        if payload is not None and is_reference(payload):
            return LargeValue(size_of(payload))
        if payload is not None and is_sealed(payload):
            return shown_sealed(payload)
        try:
            return self._codec.decode(payload, type)
        except Exception:
            return self._codec.decode(payload)


def _damaged(record: InstanceRecord, damage: str) -> InstanceState:
    created_at = to_datetime(record.created_at)
    return InstanceState(
        id=record.instance_id,
        execution_id=record.execution_id,
        name=record.name,
        version=None,
        status=record.status,
        input=None,
        output=None,
        custom_status=None,
        failure=None,
        problem=damage,
        tags={},
        parent_instance_id=None,
        created_at=created_at,
        updated_at=created_at,
        completed_at=None,
        damage=damage,
    )
