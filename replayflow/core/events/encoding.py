"""Events as they are stored, and back."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TypeAlias, Union

import msgspec

from replayflow.core.events import entities, executions, maps, messages, tasks
from replayflow.core.events.base import HistoryEvent
from replayflow.core.events.executions import OrchestratorStarted
from replayflow.core.ids import plain
from replayflow.errors import InvalidArgumentError, StoreCorruptError


def _kinds() -> dict[int, type[HistoryEvent]]:
    found: dict[int, type[HistoryEvent]] = {}
    for subject in (executions, tasks, messages, entities, maps):
        for cls in vars(subject).values():
            if isinstance(cls, type) and issubclass(cls, HistoryEvent) and cls.__module__ == subject.__name__:
                tag = cls.__struct_config__.tag
                assert isinstance(tag, int)  # noqa: S101 - every kind has its number
                cls.kind = tag
                found[tag] = cls
    return found


KINDS = _kinds()


def _plain(value: object) -> str:
    """Text of a caller's own class as it will read back. Whoever takes text in makes it so; what is forgotten must not end the worker."""
    if isinstance(value, str):
        return plain(value)
    raise TypeError(f"an event has none of that: type {type(value).__name__} is unsupported")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_Any: TypeAlias = Union[tuple(KINDS.values())]  # type: ignore[valid-type]  # noqa: UP007 - known when the module is read
_decoder: msgspec.msgpack.Decoder[list[HistoryEvent]] = msgspec.msgpack.Decoder(list[_Any])
_pieces_decoder: msgspec.msgpack.Decoder[list[list[HistoryEvent]]] = msgspec.msgpack.Decoder(list[list[_Any]])
_TIMES: frozenset[type[HistoryEvent]] = frozenset({OrchestratorStarted})
_first = itemgetter(0)
_ARRAY = b"\xdd"  # with a length of four bytes


def encode(events: Sequence[HistoryEvent]) -> bytes:
    """The events as they are stored.

    Raises:
        InvalidArgumentError: a text in them is no Unicode, or a whole number has more than 64 bits.
    """
    try:
        return _encoder.encode(events)
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{error.object!a:.300} has a lone surrogate, and is no Unicode text") from error
    except OverflowError as error:
        raise InvalidArgumentError(f"an event has a number that cannot be stored: {error}") from error


def decode(chunk: bytes) -> list[HistoryEvent]:
    """The events of a stored chunk.

    Raises:
        StoreCorruptError: the bytes are no chunk that `encode` made.
    """
    try:
        return _decoder.decode(chunk)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreCorruptError(f"a stored piece of history is damaged: {error}") from error


def decode_pieces(pieces: bytes, count: int) -> list[list[HistoryEvent]]:
    """The events of so many stored pieces of history, which come one behind the other, piece by piece.

    Raises:
        StoreCorruptError: they are not so many pieces that episodes wrote.
    """
    try:
        found = _pieces_decoder.decode(_ARRAY + count.to_bytes(4, "big") + pieces)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreCorruptError(f"a stored history of {count} pieces is damaged: {error}") from error
    if not all(found) or not _TIMES.issuperset(map(type, map(_first, found))):
        number = next(n for n, piece in enumerate(found, 1) if not piece or type(piece[0]) is not OrchestratorStarted)
        raise StoreCorruptError(f"piece {number} of {count} of a stored history does not begin with an episode's time")
    return found
