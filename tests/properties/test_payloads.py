"""A value of any annotation comes back equal, and of the same types, where its receiver is annotated so."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Optional
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from replayflow.codec import Codec
from tests.properties.profile import programs_tried

CODEC = Codec()


class Typed(NamedTuple):
    """An annotation, and the values that it is for."""

    annotation: Any
    values: st.SearchStrategy[Any]


class Color(enum.Enum):
    RED = "red"
    BLUE = (1, 2)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: int
    y: float = 0.5


@dataclass(frozen=True)
class Key:
    number: int
    name: str = "key"


@dataclass
class Node:
    value: int
    below: list[Node] = field(default_factory=list)


_nodes: st.SearchStrategy[Node] = st.recursive(
    st.builds(Node, st.integers()),
    lambda below: st.builds(Node, st.integers(), st.lists(below, max_size=2)),
    max_leaves=4,
)
_hashable = st.sampled_from(
    [
        Typed(int, st.integers()),
        Typed(str, st.text()),
        Typed(bytes, st.binary()),
        Typed(bool, st.booleans()),
        Typed(date, st.dates()),
        Typed(UUID, st.uuids()),
        Typed(Color, st.sampled_from(Color)),
        Typed(Key, st.builds(Key, st.integers(), st.text())),
        Typed(Literal["a", "b", 3], st.sampled_from(["a", "b", 3])),
    ]
)
_others = st.sampled_from(
    [
        Typed(float, st.floats(allow_nan=False)),
        Typed(datetime, st.datetimes(timezones=st.none() | st.timezones())),
        Typed(time, st.times()),
        Typed(timedelta, st.timedeltas()),
        Typed(Decimal, st.decimals(allow_nan=False)),
        Typed(Level, st.sampled_from(Level)),
        Typed(Point, st.builds(Point, st.integers(), st.floats(allow_nan=False))),
        Typed(Node, _nodes),
        Typed(int | str | None, st.none() | st.integers() | st.text()),
        Typed(Any, st.none() | st.integers() | st.text() | st.lists(st.booleans())),
    ]
)


def _built_of(parts: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    return st.one_of(
        parts.map(lambda part: Typed(list[part.annotation], st.lists(part.values, max_size=3))),  # type: ignore[name-defined]
        parts.map(lambda part: Typed(Optional[part.annotation], st.none() | part.values)),  # noqa: UP045
        parts.map(
            lambda part: Typed(tuple[part.annotation, ...], st.lists(part.values, max_size=3).map(tuple))  # type: ignore[name-defined]
        ),
        st.tuples(parts, parts).map(
            lambda two: Typed(tuple[two[0].annotation, two[1].annotation], st.tuples(two[0].values, two[1].values))  # type: ignore[misc]
        ),
        st.tuples(_hashable, parts).map(
            lambda two: Typed(
                dict[two[0].annotation, two[1].annotation],  # type: ignore[misc]
                st.dictionaries(two[0].values, two[1].values, max_size=3),
            )
        ),
        _hashable.map(lambda part: Typed(set[part.annotation], st.sets(part.values, max_size=3))),  # type: ignore[name-defined]
        _hashable.map(
            lambda part: Typed(frozenset[part.annotation], st.frozensets(part.values, max_size=3))  # type: ignore[name-defined]
        ),
        st.lists(parts, min_size=1, max_size=3).map(_a_dataclass),
    )


def _a_dataclass(parts: list[Typed]) -> Typed:
    cls = make_dataclass("Made", [(f"field{n}", part.annotation) for n, part in enumerate(parts)])
    return Typed(cls, st.builds(cls, *(part.values for part in parts)))


typed = st.recursive(_hashable | _others, _built_of, max_leaves=4)


def test_a_value_comes_back_as_its_annotation_says() -> None:
    @programs_tried(28)
    @given(typed, st.data())
    def check(one: Typed, data: st.DataObject) -> None:
        value = data.draw(one.values, "value")
        back = CODEC.decode(CODEC.encode(value), one.annotation)
        assert back == value
        assert type(back) is type(value)
        assert spelled(back) == spelled(value)

    check()


def spelled(value: Any) -> str:
    """The value with the types of all that is in it; sets in an order of their own."""
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({sorted(map(spelled, value))})"
    if isinstance(value, dict):
        return f"{[(spelled(key), spelled(one)) for key, one in value.items()]}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({[spelled(one) for one in value]})"
    if is_dataclass(value):
        return f"{type(value).__name__}({[spelled(getattr(value, one.name)) for one in fields(value)]})"
    return f"{type(value).__name__} {value!r}"
