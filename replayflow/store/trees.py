"""Encoded events as trees: what is done with payloads on their way into a store and out of it is done to the leaves.

No kind of event has to be known for that, but for the texts of failures, which are no payloads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, get_args

import msgspec

from replayflow.core.events import KINDS, MapItemFailed, MapProgress
from replayflow.errors import FailureDetails

Leaf: TypeAlias = "bytes | str"

encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_decode_pieces = msgspec.msgpack.Decoder(list[list[list[Any]]]).decode
_ARRAY = b"\xdd"  # with a length of four bytes


def tree_of(encoded: bytes) -> Any:
    """The events as lists of lists; None where the bytes are no msgpack."""
    try:
        return _decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def trees_of(pieces: bytes, count: int) -> list[list[list[Any]]] | None:
    """So many pieces of history, which stand one behind the other; None where they are none."""
    try:
        return _decode_pieces(_ARRAY + count.to_bytes(4, "big") + pieces)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def leaves(tree: Any) -> Iterator[bytes]:
    """Every string of bytes in the tree."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        for value in node.values() if type(node) is dict else node if type(node) is list else ():
            if type(value) is bytes:
                yield value
            elif type(value) is list or type(value) is dict:
                waiting.append(value)


def change_leaves(tree: Any, change: Callable[[bytes], Leaf]) -> None:
    """Every string of bytes in the tree is what `change` makes of it."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        places: Iterable[tuple[Any, Any]] = node.items() if type(node) is dict else ()
        if type(node) is list:
            places = enumerate(node)
        for place, value in places:
            if type(value) is bytes:
                node[place] = change(value)
            elif type(value) is list or type(value) is dict:
                waiting.append(value)


def change_texts(tree: Any, change: Callable[[str], Leaf]) -> None:
    """Every message and every stack of a failure in the events is what `change` makes of it."""
    for event in tree if type(tree) is list else ():
        for details in _failures_in(event):
            while details is not None:
                for place in (_MESSAGE, _STACK):
                    if type(details[place]) is str and details[place]:
                        details[place] = change(details[place])
                details = details[_INNER] if len(details) > _INNER else None


def _failures_in(event: Any) -> Iterator[Any]:
    if type(event) is not list or not event:
        return
    if event[0] == MapProgress.kind:
        yield from (failed[_OF_ITEM] for failed in event[_FAILED_ITEMS])
    place = _DETAILS_AT.get(event[0])
    if place is not None and place < len(event):
        yield event[place]


def _place_of(cls: type[msgspec.Struct], name: str) -> int:
    return cls.__struct_fields__.index(name)


def _details_at() -> dict[int, int]:
    """Where an event of each kind that has details of a failure has them; its kind stands before its fields."""
    return {
        kind: number
        for kind, cls in KINDS.items()
        for number, field in enumerate(msgspec.structs.fields(cls), 1)
        if field.type is FailureDetails or FailureDetails in get_args(field.type)
    }


_DETAILS_AT = _details_at()
_MESSAGE, _STACK, _INNER = (_place_of(FailureDetails, name) for name in ("message", "stack", "inner"))
_FAILED_ITEMS = 1 + _place_of(MapProgress, "failures")
_OF_ITEM = _place_of(MapItemFailed, "failure_details")
