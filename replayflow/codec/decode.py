"""From the bytes of a payload to plain values: built-in and standard-library types.

1. Any bytes whatever give a value or a `DecodeError`, in time and memory that their number bounds.
2. A mapping or set whose keys cannot be hashed (they were dataclasses, which come as dicts) comes as `Pairs` or a list
   instead.
"""

from __future__ import annotations

from typing import Any

from msgpack import unpackb

from replayflow.codec.extensions import FROZENSET, READERS, SET, TUPLE
from replayflow.codec.fault import EXTENSION_DEPTH_MAX
from replayflow.codec.payload import COMPRESSED, JSON, MARK, OUT_OF_LINE, PAYLOAD_BYTES_MAX, Payload, expand
from replayflow.codec.sealed import is_sealed, sealed_error
from replayflow.codec.texts import shown
from replayflow.errors import DecodeError

_TIMESTAMP_AS_DATETIME = 3


class Pairs(list[tuple[Any, Any]]):
    """The items of a mapping whose keys cannot be hashed."""


class _Level:
    """How bytes are unpacked inside so many extension types."""

    __slots__ = ("_depth", "_inner", "_is_careful")

    def __init__(self, depth: int, is_careful: bool) -> None:
        self._depth = depth
        self._is_careful = is_careful
        self._inner: _Level | None = None

    def unpack(self, encoded: bytes) -> Any:
        return unpackb(
            encoded,
            strict_map_key=False,
            ext_hook=self.extension,
            unicode_errors="surrogatepass",
            timestamp=_TIMESTAMP_AS_DATETIME,
            object_pairs_hook=_mapping if self._is_careful else None,
        )

    def extension(self, code: int, body: bytes) -> Any:
        """The value of an extension type; msgpack calls this."""
        read = READERS.get(code)
        if read is not None:
            return read(body)
        items = self._items(code, body)
        if code == TUPLE:
            return tuple(items)
        try:
            return set(items) if code == SET else frozenset(items)
        except TypeError:
            if self._is_careful:
                return items
            raise

    def _items(self, code: int, body: bytes) -> list[Any]:
        if code not in (TUPLE, SET, FROZENSET):
            raise ValueError(f"unknown extension type {code}")
        if self._depth >= EXTENSION_DEPTH_MAX:
            raise ValueError("nested too deep")
        if self._inner is None:
            self._inner = _Level(self._depth + 1, self._is_careful)
        items = self._inner.unpack(body)
        if type(items) is not list:
            raise ValueError(f"extension type {code} holds {shown(items)}, not a list")
        return items


def _mapping(pairs: list[tuple[Any, Any]]) -> Any:
    try:
        return dict(pairs)
    except TypeError:
        return Pairs(pairs)


_PLAIN = _Level(0, is_careful=False)
# A level of its own kind all the way down: going back to it at every depth would double the work at each.
_CAREFUL = _Level(0, is_careful=True)

# What the hot path hands to msgpack itself, to spare a call.
extension = _PLAIN.extension


def read(payload: Payload, payload_bytes_max: int = PAYLOAD_BYTES_MAX, where: str = "value") -> Any:
    """The plain value of a payload in any encoding.

    Raises:
        DecodeError: the payload is damaged, or larger than the limit when expanded.
    """
    if payload is None:
        return None
    if not isinstance(payload, bytes) or not payload:
        raise DecodeError(f"{where}: a payload is None or at least one byte, found {shown(payload)}")
    if payload[:2] == JSON:
        return _read_json(payload, payload_bytes_max, where)
    if payload[:2] == COMPRESSED:
        payload = expand(payload, payload_bytes_max, where)
    elif payload[:2] == OUT_OF_LINE:
        raise DecodeError(f"{where}: the value is kept out of line, and has not been read from the store")
    elif is_sealed(payload):
        raise sealed_error(payload, where)
    elif payload[0] == MARK:
        raise DecodeError(f"{where}: the payload has the unknown encoding {shown(payload[1:2], with_type=False)}")
    return _read_msgpack(payload, where)


def _read_msgpack(encoded: bytes, where: str) -> Any:
    try:
        try:
            return _PLAIN.unpack(encoded)
        except TypeError:  # a key that cannot be hashed
            return _CAREFUL.unpack(encoded)
    except Exception as error:  # msgpack, and the constructors of the standard library, raise of every kind
        raise DecodeError(f"{where}: the payload is damaged: {type(error).__name__}: {error!s:.200}") from error


def _read_json(payload: bytes, payload_bytes_max: int, where: str) -> Any:
    import json  # most processes never see a payload of JSON

    if len(payload) - len(JSON) > payload_bytes_max:
        raise DecodeError(f"{where}: the JSON text is over the limit payload_bytes_max = {payload_bytes_max:,}")
    try:
        return json.loads(payload[len(JSON) :].decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"{where}: the payload is not JSON text: {error}") from error
