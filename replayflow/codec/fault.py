"""Why a value cannot be encoded, and where inside it: the slow walk after the fast packer has failed.

1. Values are visited in the order in which they are packed, so that the walk ends where the packing did.
2. The walk keeps its own stack, and ends for every value, cyclic ones as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from replayflow.codec.extensions import WRITERS
from replayflow.codec.simplify import Refused, simplify
from replayflow.codec.texts import shown

DEPTH_MAX = 500
EXTENSION_DEPTH_MAX = 32
TOO_DEEP = (
    f"nested too deep: at most {DEPTH_MAX} levels, {EXTENSION_DEPTH_MAX} of them tuples or sets, can travel in a "
    "payload; make it flat, such as a list of rows"
)

_LEAVES = frozenset({type(None), bool, float, str, bytes, bytearray})
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


class _Place:
    """A value, and how the walk came to it."""

    __slots__ = ("depth", "extension_depth", "parent", "segment", "value")

    def __init__(self, value: Any, segment: str, parent: _Place | None, depth: int, extension_depth: int) -> None:
        self.value = value
        self.segment = segment
        self.parent = parent
        self.depth = depth
        self.extension_depth = extension_depth


def fault(value: object, where: str = "") -> str | None:
    """The first reason against encoding the value, with its path if `where` is given; None where there is none."""
    waiting = [_Place(value, where, None, 1, 0)]
    while waiting:
        place = waiting.pop()
        try:
            children = list(_children(place))
        except Exception as error:
            reason = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
            return f"{_path(place)}: {reason}" if where else reason
        waiting.extend(reversed(children))
    return None


def _children(place: _Place) -> Iterator[_Place]:
    plain = _plain(place.value)
    if type(plain) not in _CONTAINERS:
        return
    extension_depth = place.extension_depth + (type(plain) not in (list, dict))
    if place.depth > DEPTH_MAX or extension_depth > EXTENSION_DEPTH_MAX:
        raise Refused(
            "contains itself; only values without cycles can travel in a payload" if _is_cyclic(place) else TOO_DEEP
        )
    for segment, child in _parts(place.value, plain):
        yield _Place(child, segment, place, place.depth + 1, extension_depth)


def _plain(value: Any) -> Any:
    while type(value) not in _LEAVES and type(value) not in _CONTAINERS:
        if type(value) is memoryview:
            if not value.contiguous:
                raise Refused("a memoryview with gaps cannot travel in a payload; pass bytes(view)")
            return None
        write = WRITERS.get(type(value))
        if write is not None:
            write(value)  # a tzinfo of the user's may fail
            return None
        value = simplify(value)
    return value


def _parts(value: Any, plain: Any) -> Iterator[tuple[str, Any]]:
    names = getattr(value, "_fields", None) if isinstance(value, tuple) else None
    match plain:
        case dict() if isinstance(value, dict):
            for key, item in plain.items():
                yield f"[key {shown(key)}]", key
                yield f"[{shown(key, with_type=False)}]", item
        case dict():
            yield from ((f".{key}", item) for key, item in plain.items())
        case list() | tuple():
            yield from ((f".{names[index]}" if names else f"[{index}]", item) for index, item in enumerate(plain))
        case _:
            yield from ((f"{{{_member(item)}}}", item) for item in plain)


def _member(item: Any) -> str:
    is_short = type(item) in _LEAVES or type(item) in WRITERS
    return shown(item, with_type=False) if is_short else type(item).__name__


def _is_cyclic(place: _Place) -> bool:
    seen: set[int] = set()
    ancestor: _Place | None = place
    while ancestor is not None:
        if id(ancestor.value) in seen:
            return True
        seen.add(id(ancestor.value))
        ancestor = ancestor.parent
    return False


def _path(place: _Place) -> str:
    segments: list[str] = []
    ancestor: _Place | None = place
    while ancestor is not None:
        segments.append(ancestor.segment)
        ancestor = ancestor.parent
    if len(segments) > 24:  # the path into a cycle repeats itself
        segments[12:-12] = ["..."]
    return "".join(reversed(segments))
