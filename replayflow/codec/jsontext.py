"""Payloads from JSON text, and payloads shown as JSON text.

1. A payload from JSON text keeps the text itself, so that whoever decodes it knows that bytes and keys can only be
   spelled in it.
2. What is shown is strict JSON whatever the value: no NaN, no unpaired surrogates; and it is written without recursion,
   however deep the value.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

from replayflow.codec.decode import Pairs, read
from replayflow.codec.payload import JSON, PAYLOAD_BYTES_MAX, Payload, refuse_beyond
from replayflow.errors import DecodeError

# Above it the decimal digits of an int cost quadratic time, and the interpreter may refuse them.
_DECIMAL_BITS_MAX = 2048


def from_json(text: str, *, payload_bytes_max: int = PAYLOAD_BYTES_MAX, where: str = "value") -> Payload:
    """The JSON text as a payload.

    Raises:
        DecodeError: the text is not JSON.
        PayloadTooLargeError: it is over the limit.
    """
    import json  # most processes never see JSON, and every one pays for what is imported at the top

    encoded = text.strip().encode("utf-8", "surrogatepass")
    refuse_beyond(len(encoded), payload_bytes_max, where)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"{where}: the text is not JSON: {error}") from error
    return None if value is None else JSON + encoded


def to_json(payload: Payload, *, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> str:
    """The payload's plain value as JSON text for people and scripts: what JSON lacks as its natural text.

    Points in time are ISO text, a timedelta its seconds, bytes base64 text, Decimal, UUID and complex their text;
    tuples and sets are lists, keys are text. Floats without a JSON form are the texts "NaN", "Infinity" and
    "-Infinity"; ints of over 2,048 bits are hexadecimal text.

    Raises:
        DecodeError: the payload is damaged, or larger than the limit when expanded.
    """
    return _text(read(payload, payload_bytes_max))


class _Piece(str):
    """Text that is written as it is."""

    __slots__ = ()


def _text(value: Any) -> str:
    pieces: list[str] = []
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind is _Piece:
            pieces.append(item)
        elif kind is list or kind is tuple:
            waiting.extend(_enclosed("[]", (("", part) for part in item)))
        elif kind is set or kind is frozenset:
            waiting.extend(_enclosed("[]", (("", part) for part in sorted(item, key=_text))))
        elif kind is dict or kind is Pairs:
            entries = item.items() if kind is dict else item
            waiting.extend(_enclosed("{}", ((f"{_key(key)}: ", part) for key, part in entries)))
        else:
            pieces.append(_SCALARS[kind](item))
    return "".join(pieces)


def _enclosed(brackets: str, parts: Iterable[tuple[str, Any]]) -> Iterator[Any]:
    """The parts between their brackets, last one first: they are waiting on a stack."""
    pieces: list[Any] = []
    comma = ""
    for key, part in parts:
        pieces.append(_Piece(comma + key))
        pieces.append(part)
        comma = ", "
    return iter([_Piece(brackets[1]), *reversed(pieces), _Piece(brackets[0])])


def _key(key: Any) -> str:
    text = _text(key)
    return text if text.startswith('"') else _quoted(text)


def _quoted(text: str) -> str:
    import json

    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(text)  # with escapes, since unpaired surrogates cannot be printed
    return json.dumps(text, ensure_ascii=False)


def _float(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _int(value: int) -> str:
    return str(value) if value.bit_length() <= _DECIMAL_BITS_MAX else _quoted(hex(value))


def _iso(value: datetime | date | time) -> str:
    return _quoted(value.isoformat())


def _seconds(value: timedelta) -> str:
    return repr(value.total_seconds())


def _base64(value: bytes) -> str:
    return _quoted(binascii.b2a_base64(value, newline=False).decode())


class _Scalars(dict[type, Callable[[Any], str]]):
    def __missing__(self, kind: type) -> Callable[[Any], str]:
        return lambda value: _quoted(str(value))


_SCALARS = _Scalars(
    {
        type(None): lambda _: "null",
        bool: lambda value: "true" if value else "false",
        int: _int,
        float: _float,
        str: _quoted,
        bytes: _base64,
        datetime: _iso,
        date: _iso,
        time: _iso,
        timedelta: _seconds,
    }
)
