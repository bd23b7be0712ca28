"""Values between the command line and payloads: JSON text in, JSON-able values and short texts out.

1. JSON that a user typed travels as that text, so that whoever receives it rebuilds what JSON can only spell (datetimes, bytes, keys).
2. Whatever a payload can hold is shown, in its natural text: showing never fails.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from replayflow.client import InstanceState, LargeValue
from replayflow.clock import to_datetime
from replayflow.codec import Codec, Payload, from_json, to_json
from replayflow.codec.sealed import EncryptedValue
from replayflow.core.definitions import OrchestratorDefinition
from replayflow.core.events import HistoryEvent
from replayflow.errors import DecodeError, FailureDetails, InvalidArgumentError, PayloadError

_PAYLOAD_FIELDS = (
    "input",
    "result",
    "custom_status",
    "items",
    "results",
    "cursor",
    "output",
    "state",
    "value",
    "detail",
)
_DURATIONS = {"timeout_microseconds": "timeout_seconds", "retry_after_microseconds": "retry_after_seconds"}
_RETRY_DURATIONS = ("first_interval", "max_interval", "timeout")


@dataclass(frozen=True, slots=True)
class JsonText:
    """A value that the user gave as JSON."""

    text: str

    @property
    def value(self) -> Any:
        return json.loads(self.text)


class InputCodec(Codec):
    """A codec that takes `JsonText`, too."""

    def encode(self, value: object, where: str = "value") -> Payload:
        if isinstance(value, JsonText):
            return from_json(value.text, payload_bytes_max=self.payload_bytes_max, where=where)
        return super().encode(value, where)


_limitless = Codec(payload_bytes_max=sys.maxsize, compress_over_bytes=sys.maxsize)


def check_input(definition: OrchestratorDefinition, given: JsonText | None) -> None:
    """The orchestrator takes the input, or does without one; what does not fit is refused before anything is written (I11).

    Raises:
        InvalidArgumentError: it takes none, or needs one.
        DecodeError: it does not fit the annotation.
    """
    if given is not None and not definition.takes_input:
        raise InvalidArgumentError(f"orchestrator '{definition.name}' takes no input, and one is given")
    payload = None if given is None else from_json(given.text, payload_bytes_max=sys.maxsize)
    try:
        _limitless.decode(payload, definition.input_type, f"input of orchestrator '{definition.name}'")
    except DecodeError as error:
        if given is None:
            raise InvalidArgumentError(f"{error}; give it one with --input") from None
        raise


def plain(value: object) -> Any:
    """Any value that travelled in a payload, as one that JSON has: datetimes as ISO text, dataclasses as objects, and so on."""
    if isinstance(value, LargeValue):
        return {"large_value_bytes": value.size_bytes}
    if isinstance(value, EncryptedValue):
        return {"encrypted_with": value.key_id}
    try:
        return plain_payload(_limitless.encode(value))
    except PayloadError:  # a class that is built from a payload, but makes none
        return str(value)


def text_of(value: object) -> Any:
    """As `plain`, for a line of a table: a value that was not read is a text that says so."""
    return str(value) if isinstance(value, LargeValue | EncryptedValue) else plain(value)


def plain_payload(payload: Payload) -> Any:
    """The payload's value, as one that JSON has; nested too deep for JSON it is text."""
    text = to_json(payload, payload_bytes_max=sys.maxsize)
    try:
        return json.loads(text)
    except RecursionError:
        return text


def one_line(value: Any) -> str:
    """A JSON-able value in one line for a table: text as it is, all else as JSON, nothing for null."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else " " for char in text)


# ---- documents -------------------------------------------------------------------------------------------------


def state(of: InstanceState) -> dict[str, Any]:
    """An instance as `--json` shows it: the fields of `InstanceState`."""
    return {
        **{field.name: getattr(of, field.name) for field in dataclasses.fields(of)},
        "status": str(of.status),
        "input": plain(of.input),
        "output": plain(of.output),
        "custom_status": plain(of.custom_status),
        "failure": None if of.failure is None else failure(of.failure),
        "tags": dict(of.tags),
        "maps": [dataclasses.asdict(one) for one in of.maps],
        "created_at": of.created_at.isoformat(),
        "updated_at": of.updated_at.isoformat(),
        "completed_at": None if of.completed_at is None else of.completed_at.isoformat(),
    }


def failure(of: FailureDetails) -> dict[str, Any]:
    """A failure as `--json` shows it, with what caused it in `inner`."""
    return {
        "type": of.type,
        "message": of.message,
        "stack": of.stack,
        "inner": None if of.inner is None else failure(of.inner),
        "non_retryable": of.non_retryable,
        "bases": list(of.bases),
    }


def event(number: int, of: HistoryEvent) -> dict[str, Any]:
    """An event as `--json` shows it: its number from 1, its time and class, and its fields with times in ISO text and durations in seconds."""
    shown: dict[str, Any] = {
        "number": number,
        "timestamp": of.timestamp.isoformat(),
        "event": type(of).__name__,
        "event_id": of.event_id,
    }
    for field in of.__struct_fields__:
        shown.update([_field(field, getattr(of, field))])
    shown.pop("start", None)  # the next execution's first events, as stored
    return shown


def _field(name: str, value: Any) -> tuple[str, Any]:
    if name in _PAYLOAD_FIELDS:
        return name, plain(value)
    if name in _DURATIONS:
        return _DURATIONS[name], None if value is None else value / 1e6
    if name.endswith("_microseconds"):
        return name.removesuffix("_microseconds"), None if value is None else to_datetime(value).isoformat()
    if isinstance(value, FailureDetails):
        return name, failure(value)
    if name == "failures":
        return name, [
            {field: _field(field, getattr(one, field))[1] for field in one.__struct_fields__} for one in value
        ]
    if name in ("children", "origins") and value is not None:
        return name, [dict(map(_field, one.__struct_fields__, msgspec.structs.astuple(one))) for one in value]
    if name in ("retry", "page_retry") and value is not None:
        return name, _retry(msgspec.structs.asdict(value))
    return name, msgspec.structs.asdict(value) if isinstance(value, msgspec.Struct) else value


def _retry(policy: dict[str, Any]) -> dict[str, Any]:
    for name in _RETRY_DURATIONS:
        duration = policy.pop(name)
        policy[f"{name}_seconds"] = None if duration is None else duration / 1e6
    return policy


# ---- times -----------------------------------------------------------------------------------------------------


def moment(at: datetime) -> str:
    """A time in UTC to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def duration(length: timedelta) -> str:
    """A length of time, in its two largest units: `0.12s`, `12.3s`, `3m 04s`, `5h 12m`, `3d 04h`."""
    seconds = max(0.0, length.total_seconds())
    if seconds < 10:
        return f"{seconds:.2f}s"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, whole = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {whole:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours < 24 else f"{hours // 24}d {hours % 24:02}h"


def lifetime(of: InstanceState, now: datetime) -> timedelta:
    """How long the instance took, or has lived."""
    return (of.completed_at or now) - of.created_at
