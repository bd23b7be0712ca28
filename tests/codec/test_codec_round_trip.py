"""What goes in comes out: values without an annotation, and the laws of plain types."""

from __future__ import annotations

import collections
import enum
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayflow.codec import Codec

CODEC = Codec()
BERLIN = ZoneInfo("Europe/Berlin")


def round_trip(value: object) -> Any:
    return CODEC.decode(CODEC.encode(value))


class Color(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


class Mode(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclass(frozen=True)
class Key:
    number: int


class Name(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not the text"


class Offset(tzinfo):
    def utcoffset(self, moment: datetime | None, /) -> timedelta:
        return timedelta(hours=2)

    def dst(self, moment: datetime | None, /) -> timedelta | None:
        return None

    def tzname(self, moment: datetime | None, /) -> str:
        return "two"


class Stamp(datetime):
    """A subclass, as data frame libraries have one."""


SAME = [
    None,
    True,
    0,
    -1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63),
    -(2**63) - 1,
    10**5000,
    -(10**300),
    1.5,
    math.inf,
    -math.inf,
    -0.0,
    "",
    "text",
    "\ud800",
    {"\udfff": ["\ud800", ("\ud801",)]},
    b"",
    b"\xc1z",
    [],
    [1, [2, [3]]],
    (),
    (1, ("a", [2])),
    set(),
    {1, 2, 3},
    set(range(20)),
    set(range(70_000)),
    frozenset({1, (2, frozenset({3}))}),
    {1: "int", None: "none", (1, 2): "tuple", 1.5: "float", b"b": "bytes", frozenset({1}): "frozen"},
    {date(2024, 1, 1): uuid.UUID(int=1)},
    date.min,
    time(1, 2, 3, 4),
    time(1, 2, tzinfo=UTC),
    time(1, 2, fold=1),
    time(1, 2, tzinfo=BERLIN),
    timedelta.max,
    timedelta.min,
    timedelta(microseconds=-1),
    Decimal("1.10"),
    Decimal("-0"),
    Decimal("1E+999999"),
    Decimal("Infinity"),
    uuid.UUID(int=2**128 - 1),
    1 + 2j,
    datetime.min,  # noqa: DTZ901
    datetime.max,  # noqa: DTZ901
    datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2024, 10, 27, 2, 30, fold=1),  # noqa: DTZ001
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30, seconds=-15))),
    datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
    datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
]


@pytest.mark.parametrize("value", SAME, ids=lambda value: type(value).__name__)
def test_a_plain_value_comes_back_as_it_was(value: object) -> None:
    back = round_trip(value)
    assert back == value
    assert type(back) is type(value)
    if isinstance(value, datetime | time) and isinstance(back, datetime | time):
        assert (back.fold, back.tzinfo) == (value.fold, value.tzinfo)


def test_nan_comes_back_as_nan() -> None:
    assert math.isnan(round_trip(math.nan))
    assert round_trip(Decimal("sNaN")).is_snan()


OTHERS: list[tuple[object, object]] = [
    (Color.RED, "red"),
    (Color.PAIR, (1, 2)),
    (Level.HIGH, 3),
    (Mode.READ | Mode.WRITE, 3),
    (Point(1), (1, 0)),
    (Key(1), {"number": 1}),
    ([Key(1), (Key(2),)], [{"number": 1}, ({"number": 2},)]),
    (Name("real"), "real"),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.defaultdict(list, a=[1]), {"a": [1]}),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    (bytearray(b"a"), b"a"),
    (memoryview(b"a"), b"a"),
    ([bytearray(b"a"), memoryview(b"b")], [b"a", b"b"]),
    (datetime(2024, 1, 1, tzinfo=Offset()), datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2)))),
    (Stamp(2024, 1, 1, 2, tzinfo=UTC), datetime(2024, 1, 1, 2, tzinfo=UTC)),
    ({Key(1): "one"}, [({"number": 1}, "one")]),
    ({Key(1)}, [{"number": 1}]),
]


@pytest.mark.parametrize(("value", "plain"), OTHERS, ids=lambda value: type(value).__name__)
def test_a_value_of_a_class_comes_back_as_its_plain_form(value: object, plain: object) -> None:
    back = round_trip(value)
    assert back == plain


def test_the_plain_form_of_a_subclass_has_the_plain_type() -> None:
    assert type(round_trip(Name("a"))) is str
    assert type(round_trip(Stamp(2024, 1, 1))) is datetime
    assert type(round_trip(collections.OrderedDict(a=1))) is dict


def test_an_ordered_dict_keeps_the_order_that_it_shows() -> None:
    ordered = collections.OrderedDict(a=1, b=2)
    ordered.move_to_end("a")
    assert list(round_trip(ordered)) == ["b", "a"]


def test_equal_sets_have_equal_bytes() -> None:
    assert CODEC.encode({8, 16, 24, 0}) == CODEC.encode({0, 24, 16, 8})


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**200), max_value=2**200)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.complex_numbers(allow_nan=False)
)
HASHABLE = st.recursive(SCALARS, lambda part: st.tuples(part, part) | st.frozensets(part, max_size=3), max_leaves=4)
VALUES = st.recursive(
    SCALARS,
    lambda part: (
        st.lists(part, max_size=4)
        | st.tuples(part, part)
        | st.dictionaries(HASHABLE, part, max_size=4)
        | st.sets(HASHABLE, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_any_nested_value_comes_back_as_it_was(value: object) -> None:
    back = round_trip(value)
    assert back == value
    assert type(back) is type(value)


@given(VALUES)
def test_a_payload_is_none_for_none_and_bytes_for_all_else(value: object) -> None:
    payload = CODEC.encode(value)
    assert (payload is None) == (value is None)
    assert payload is None or len(payload) > 0
