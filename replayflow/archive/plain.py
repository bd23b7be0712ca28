"""History events as JSON objects and back: what people read, `jq` filters, and a hub takes in again.

1. `event_from(plain_of(event))` equals the event, payloads byte for byte.
2. A payload is its value where JSON has just that value, so that it can be read and edited; else `{"$bytes": base64}` of what is stored.
3. What is read back is checked like what a store holds: field by field, by the same types.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import typing
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, TypeAlias, Union, cast

import msgspec
from msgspec import Struct

from replayflow.codec import Codec
from replayflow.core import events
from replayflow.core.events import KINDS, Block, HistoryEvent
from replayflow.errors import InvalidArgumentError, StoreCorruptError, UserError

BYTES = "$bytes"
_MARK = "$"
_KIND_OF_NAME = {cls.__name__: cls for cls in KINDS.values()}


def plain_of(event: HistoryEvent, codec: Codec) -> dict[str, Any]:
    """The event as JSON has it: `{"event": its kind, "fields": {...}}`; fields that have their default are left out."""
    return {"event": type(event).__name__, "fields": _fields_of(event, codec)}


def event_from(plain: object, codec: Codec, where: str) -> HistoryEvent:
    """The event of which `plain_of` made the object; `where` begins the messages.

    Raises:
        InvalidArgumentError: it is no event, or a field of it is missing, unknown, or of another type.
    """
    if not isinstance(plain, dict) or not isinstance(plain.get("event"), str):
        raise InvalidArgumentError(
            f'{where}: {plain!r:.80} is no event; one has the form {{"event": KIND, "fields": {{...}}}}'
        )
    cls = _KIND_OF_NAME.get(plain["event"])
    if cls is None:
        raise InvalidArgumentError(f"{where}: this version of replayflow knows no event {plain['event']!r:.80}")
    where = f"{where}, {cls.__name__}"
    try:
        event = _struct_from(plain.get("fields", {}), cls, codec, where)
        (checked,) = events.decode(events.encode([event]))
    except RecursionError:
        raise InvalidArgumentError(f"{where}: it is nested too deep") from None
    except (StoreCorruptError, InvalidArgumentError, TypeError) as error:
        raise InvalidArgumentError(
            str(error) if isinstance(error, UserError) else f"{where}: {error.__cause__ or error}"
        ) from None
    return checked


# ---- out -------------------------------------------------------------------------------------------------------


def _fields_of(struct: Any, codec: Codec) -> dict[str, Any]:
    return {
        name: _base64(getattr(struct, name)) if type_ is bytes else _out(getattr(struct, name), codec)
        for name, type_, default in _fields(type(struct))
        if not _is_same(getattr(struct, name), default)
    }


def _is_same(value: Any, default: Any) -> bool:
    """Also in type: 0.0 is not 0 where it is read back."""
    return type(value) is type(default) and bool(value == default)


def _out(value: Any, codec: Codec) -> Any:
    if isinstance(value, bytes):
        return _payload_out(value, codec)
    if isinstance(value, Struct):
        return _fields_of(value, codec)
    if isinstance(value, Block):
        return {name: _out(part, codec) for name, part in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_out(part, codec) for part in value]
    return value


def _payload_out(payload: bytes, codec: Codec) -> Any:
    with contextlib.suppress(
        Exception
    ):  # JSON lacks it in one of many ways: a date, a key that is no text, NaN, half a surrogate, too deep
        value = json.loads(_text(codec.decode(payload)))
        if not _is_marked(value) and codec.encode(value) == payload:
            return value
    return _base64(payload)


def _base64(stored: bytes) -> dict[str, str]:
    return {BYTES: base64.b64encode(stored).decode()}


def _text(value: Any) -> str:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    text.encode()  # or it could not be written
    return text


def _is_marked(value: object) -> bool:
    return isinstance(value, dict) and any(key.startswith(_MARK) for key in value)


# ---- in --------------------------------------------------------------------------------------------------------


def _in(value: Any, type_: Any, codec: Codec, where: str) -> Any:
    if type_ in (Any, bytes) and isinstance(value, dict) and BYTES in value:
        return _bytes_from(value, where)
    if type_ is Any:
        return codec.encode(value, where)
    kind = typing.get_origin(type_)
    if kind in (Union, UnionType):
        options = [option for option in typing.get_args(type_) if option is not NoneType]
        return value if value is None or len(options) != 1 else _in(value, options[0], codec, where)
    if kind in (list, tuple) and isinstance(value, list):
        inner = typing.get_args(type_)[0]
        parts = [_in(part, inner, codec, f"{where}[{i}]") for i, part in enumerate(value)]
        return parts if kind is list else tuple(parts)
    if type_ is Block or (isinstance(type_, type) and issubclass(cast("type[object]", type_), Struct)):
        return _struct_from(value, cast("_Record", type_), codec, where)
    return value


def _bytes_from(value: Mapping[str, Any], where: str) -> bytes:
    try:
        return base64.b64decode(value[BYTES], validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise InvalidArgumentError(f"{where}: what is under {BYTES!r} is not base64: {error}") from None


def _struct_from(plain: Any, cls: _Record, codec: Codec, where: str) -> Any:
    if not isinstance(plain, dict):
        raise InvalidArgumentError(f"{where}: {plain!r:.80} is no object with the fields of {cls.__name__}")
    known = _fields(cls)
    unknown = plain.keys() - {name for name, _, _ in known}
    if unknown:
        raise InvalidArgumentError(f"{where}: {cls.__name__} has no field {', '.join(sorted(unknown))}")
    values = {}
    for name, type_, default in known:
        if name in plain:
            values[name] = _in(plain[name], type_, codec, f"{where}.{name}")
        elif default is _REQUIRED:
            raise InvalidArgumentError(f"{where}: the field '{name}' is missing")
    return cls(**values)


_Record: TypeAlias = type[Struct] | type[Block]
_REQUIRED = object()
_known: dict[_Record, tuple[tuple[str, Any, Any], ...]] = {}


def _fields(cls: _Record) -> tuple[tuple[str, Any, Any], ...]:
    """Name, type and default of each field."""
    found = _known.get(cls)
    if found is None:
        found = _known[cls] = _looked_up(cls)
    return found


def _looked_up(cls: _Record) -> tuple[tuple[str, Any, Any], ...]:
    if not issubclass(cls, Struct):
        return tuple((name, hint, _REQUIRED) for name, hint in typing.get_type_hints(cls).items())
    return tuple(
        (
            field.name,
            field.type,
            _REQUIRED if field.required else msgspec.UNSET if field.default is msgspec.NODEFAULT else field.default,
        )
        for field in msgspec.structs.fields(cls)
    )
