"""What cannot travel is refused whole, with its path, and leaves nothing behind."""

from __future__ import annotations

import enum
import io
import pathlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import InitVar, dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayflow.codec import Codec
from replayflow.errors import EncodeError, PayloadTooLargeError

CODEC = Codec()


class Custom:
    pass


@dataclass
class Item:
    name: str
    photo: object = None


@dataclass
class Order:
    items: list[Item]


@dataclass
class Scaled:
    value: int
    scale: InitVar[int] = 1


class Pair(NamedTuple):
    left: object
    right: object


class Wrapped(enum.Enum):
    CUSTOM = Custom()


class BrokenZone(tzinfo):
    def utcoffset(self, moment: datetime | None, /) -> timedelta:
        raise OSError("no zone today")

    def dst(self, moment: datetime | None, /) -> timedelta | None:
        return None

    def tzname(self, moment: datetime | None, /) -> str:
        return "broken"


@dataclass
class Reentrant:
    """Its attribute is computed by encoding: a call from within a call."""

    value: int = 1
    encoded: bytes | None = field(init=False)

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            return {"value": (1,), "encoded": CODEC.encode([(2,), {3}])}
        return super().__getattribute__(name)


def generator() -> Iterator[int]:
    yield 1


def cyclic() -> list[object]:
    cycle: list[object] = []
    cycle.append({"again": (cycle,)})
    return cycle


def nested(depth: int, wrap: Callable[[object], object]) -> object:
    value: object = 1
    for _ in range(depth):
        value = wrap(value)
    return value


REFUSED: list[tuple[object, str]] = [
    (Custom(), "input: a value of type test_codec_refusals.Custom cannot travel"),
    (Custom, "input: the class Custom cannot travel"),
    (len, "input: a value of type builtin_function_or_method cannot travel"),
    (generator(), "input: a value of type generator cannot travel"),
    (ValueError("x"), "input: a value of type ValueError is an exception"),
    (io.StringIO(), "input: a value of type _io.StringIO cannot travel"),
    (pathlib.PurePosixPath("a"), "input: a value of type pathlib.PurePosixPath cannot travel"),
    (..., "input: a value of type ellipsis cannot travel"),
    (range(3), "input: a value of type range cannot travel"),
    (Order([Item("a"), Item("b", Custom())]), "input.items[1].photo: a value of type"),
    ({"a": {"b": [1, Custom()]}}, "input['a']['b'][1]: "),
    ({"a": 1, Custom(): 2}, "input[key Custom <Custom>]: "),
    ((1, (2, Custom())), "input[1][1]: "),
    ({frozenset({Custom()})}, "input{frozenset}{Custom}: "),
    (Pair(1, Custom()), "input.right: "),
    ([Wrapped.CUSTOM], "input[0]: "),
    ([Scaled(1)], "input[0]: the dataclass Scaled has the InitVar 'scale'"),
    ([datetime(2024, 1, 1, tzinfo=BrokenZone())], "input[0]: OSError: no zone today"),
    ([memoryview(b"abcd")[::2]], "input[0]: a memoryview with gaps"),
    ({"\ud800": [Custom()]}, "[0]: a value of type"),
    (cyclic(), "contains itself"),
    (nested(2_000, lambda value: [value]), "nested too deep: at most 500 levels"),
    (nested(100_000, lambda value: {"a": value}), "nested too deep: at most 500 levels"),
    (nested(33, lambda value: (value,)), "nested too deep"),
    (nested(1_000, lambda value: (value,)), "nested too deep"),
    (nested(1_000, lambda value: frozenset({value})), "nested too deep"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=lambda each: type(each).__name__)
def test_a_value_that_cannot_travel_is_refused_with_its_path(value: object, message: str) -> None:
    with pytest.raises(EncodeError) as caught:
        CODEC.encode(value, "input")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600


def test_long_runs_of_lists_between_tuples_are_too_deep() -> None:
    value: object = 1
    for _ in range(20):
        value = (value,)
        for _ in range(400):
            value = [value]
    with pytest.raises(EncodeError, match="nested too deep"):
        CODEC.encode(value)


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}])
def test_five_hundred_levels_travel(wrap: Callable[[object], object]) -> None:
    value = nested(500, wrap)
    assert CODEC.decode(CODEC.encode(value)) == value


def test_thirty_two_levels_of_tuples_travel() -> None:
    value = nested(32, lambda each: (each,))
    assert CODEC.decode(CODEC.encode(value)) == value


def test_a_refused_value_leaves_nothing_in_the_next_payload() -> None:
    clean = Codec().encode(["next", (1,)])
    for broken in (["left over", Custom()], ("left over", {Custom()}), {"left": (1, [Custom()])}, ["\ud800", Custom()]):
        with pytest.raises(EncodeError):
            CODEC.encode(broken)
        assert CODEC.encode(["next", (1,)]) == clean


PARTS = st.recursive(
    st.integers() | st.text() | st.just(Custom()),
    lambda part: st.lists(part, max_size=3) | st.tuples(part, part) | st.dictionaries(st.text(), part, max_size=3),
)


@given(PARTS, st.lists(st.integers() | st.tuples(st.text(), st.text())))
def test_encoding_never_leaves_a_packer_dirty(maybe_broken: object, sound: list[object]) -> None:
    before = CODEC.encode(sound)
    try:
        CODEC.encode(maybe_broken)
    except EncodeError:
        pass
    assert CODEC.encode(sound) == before
    assert CODEC.decode(before) == sound


def test_encoding_may_be_called_while_encoding() -> None:
    back = CODEC.decode(CODEC.encode([(Reentrant(), 7)]))
    (inner, seven), *_ = back
    assert seven == 7
    assert inner["value"] == (1,)
    assert CODEC.decode(inner["encoded"]) == [(2,), {3}]


def test_threads_do_not_meet_in_a_packer() -> None:
    def work(seed: int) -> bool:
        value = [{"seed": seed, "parts": tuple(range(seed % 50)), "set": {seed, "x"}}] * 20
        for _ in range(100):
            if CODEC.decode(CODEC.encode(value), list[dict[str, Any]]) != value:
                return False
            with pytest.raises(EncodeError):
                CODEC.encode([value, (Custom(),)])
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(16)))


def test_a_value_over_the_limit_is_refused_before_compression() -> None:
    codec = Codec(payload_bytes_max=100)
    assert codec.decode(codec.encode(b"x" * 98)) == b"x" * 98
    with pytest.raises(
        PayloadTooLargeError, match=r"^result: 101 bytes when encoded, over the limit payload_bytes_max"
    ):
        codec.encode(b"x" * 99, "result")
    with pytest.raises(PayloadTooLargeError):
        Codec(payload_bytes_max=10_000, compress_over_bytes=10).encode("a" * 20_000)
