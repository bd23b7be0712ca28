"""The msgpack extension types: how the types that msgpack lacks are written as bytes, and read back.

1. The codes and the bytes behind them are stored for ever: a code is never given another meaning.
2. Writing takes the class's own fields, never what a subclass overrides. Reading imports nothing and looks up no name
   but that of a time zone.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

from msgpack import ExtType

TUPLE = 1
SET = 2
FROZENSET = 3
_BIG_INT = 4
_DATETIME = 5
_DATE = 6
_TIME = 7
_TIMEDELTA = 8
_DECIMAL = 9
_UUID = 10
_COMPLEX = 11

_INT_MIN = -(2**63)
_INT_MAX = 2**64 - 1
_FOLD = "f"
_ZONE_KEY_CHARS_MAX = 255
_ZONE_KEY = r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*"
_THREE_INTS = struct.Struct(">iii")
_TWO_FLOATS = struct.Struct(">dd")


def extension(code: int, body: bytes) -> ExtType:
    """The extension value, without the checks of its constructor, which cost more than writing it."""
    return ExtType._make((code, body))


def write_int(value: int) -> ExtType | int:
    """The int itself where msgpack has it, else its bytes as an extension."""
    if _INT_MIN <= value <= _INT_MAX:
        return value
    return extension(_BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _read_int(body: bytes) -> int:
    return int.from_bytes(body, "big", signed=True)


# A point in time is its ISO text, an "f" before it where fold is 1. A zone with a key is kept as that key,
# `2024-10-27T02:30:00[Europe/Berlin]`, and the wall clock with its fold is then what counts, as in Python; any other
# tzinfo is kept as the offset that it gives.


def _write_datetime(value: datetime) -> ExtType:
    key = _zone_key(value.tzinfo)
    text = datetime.isoformat(value) if key is None else f"{datetime.isoformat(value.replace(tzinfo=None))}[{key}]"
    return extension(_DATETIME, (_FOLD + text if value.fold else text).encode())


def _write_time(value: time) -> ExtType:
    key = _zone_key(value.tzinfo)
    text = time.isoformat(value) if key is None else f"{time.isoformat(value.replace(tzinfo=None))}[{key}]"
    return extension(_TIME, (_FOLD + text if value.fold else text).encode())


def _read_datetime(body: bytes) -> datetime:
    iso, zone, fold = _split(body)
    value = datetime.fromisoformat(iso)
    return value if zone is None and not fold else value.replace(tzinfo=zone or value.tzinfo, fold=fold)


def _read_time(body: bytes) -> time:
    iso, zone, fold = _split(body)
    value = time.fromisoformat(iso)
    return value if zone is None and not fold else value.replace(tzinfo=zone or value.tzinfo, fold=fold)


def _split(body: bytes) -> tuple[str, tzinfo | None, int]:
    text = body.decode("ascii")
    iso, bracket, key = text.removeprefix(_FOLD).partition("[")
    return iso, (_zone(key[:-1]) if bracket else None), int(text.startswith(_FOLD))


def _zone_key(zone: tzinfo | None) -> str | None:
    if zone is None:
        return None
    module = sys.modules.get("zoneinfo")  # a value can only have a ZoneInfo where the module was imported
    if module is None or not isinstance(zone, module.ZoneInfo):
        return None
    key: object = getattr(zone, "key", None)  # None where the zone was read from a file
    return key if isinstance(key, str) else None


def _zone(key: str) -> tzinfo:
    from zoneinfo import ZoneInfo  # few payloads have a zone, and the import reads the interpreter's configuration

    if len(key) > _ZONE_KEY_CHARS_MAX or not re.fullmatch(
        _ZONE_KEY, key
    ):  # looking for a long one costs hundreds of times its length
        raise ValueError(f"no time zone is called {key!r:.80}")
    return ZoneInfo(key)


def _write_date(value: date) -> ExtType:
    return extension(_DATE, date.isoformat(value).encode())


def _read_date(body: bytes) -> date:
    return date.fromisoformat(body.decode("ascii"))


def _write_timedelta(value: timedelta) -> ExtType:
    return extension(_TIMEDELTA, _THREE_INTS.pack(value.days, value.seconds, value.microseconds))


def _read_timedelta(body: bytes) -> timedelta:
    days, seconds, microseconds = _THREE_INTS.unpack(body)
    return timedelta(days, seconds, microseconds)


def _write_decimal(value: Decimal) -> ExtType:
    return extension(_DECIMAL, Decimal.__str__(value).encode())


def _read_decimal(body: bytes) -> Decimal:
    return Decimal(body.decode("ascii"))


def _write_uuid(value: UUID) -> ExtType:
    return extension(_UUID, value.bytes)


def _read_uuid(body: bytes) -> UUID:
    return UUID(bytes=body)


def _write_complex(value: complex) -> ExtType:
    return extension(_COMPLEX, _TWO_FLOATS.pack(value.real, value.imag))


def _read_complex(body: bytes) -> complex:
    return complex(*_TWO_FLOATS.unpack(body))


WRITERS: dict[type, Callable[[Any], Any]] = {
    int: write_int,
    datetime: _write_datetime,
    date: _write_date,
    time: _write_time,
    timedelta: _write_timedelta,
    Decimal: _write_decimal,
    UUID: _write_uuid,
    complex: _write_complex,
}

READERS: dict[int, Callable[[bytes], Any]] = {
    _BIG_INT: _read_int,
    _DATETIME: _read_datetime,
    _DATE: _read_date,
    _TIME: _read_time,
    _TIMEDELTA: _read_timedelta,
    _DECIMAL: _read_decimal,
    _UUID: _read_uuid,
    _COMPLEX: _read_complex,
}
