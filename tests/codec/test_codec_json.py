"""JSON in and out: payloads of other systems, and payloads shown to people and scripts."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayflow.codec import Codec, from_json, to_json
from replayflow.errors import DecodeError, PayloadTooLargeError

CODEC = Codec()


class Color(enum.Enum):
    PAIR = (1, 2)


@dataclass
class Upload:
    body: bytes
    at: datetime
    keep: timedelta
    price: Decimal
    counts: dict[int, float]
    color: Color = Color.PAIR


@dataclass(frozen=True)
class Key:
    number: int


def test_a_payload_from_json_is_decoded_as_any_other() -> None:
    payload = from_json(' {"a": [1, 2.5, "x", null, true]} ')
    assert payload == b'\xc1j{"a": [1, 2.5, "x", null, true]}'
    assert CODEC.decode(payload) == {"a": [1, 2.5, "x", None, True]}
    assert CODEC.decode(from_json("[1, 2]"), tuple[int, float]) == (1, 2.0)
    assert from_json("null") is None


def test_an_annotation_reads_what_json_can_only_spell() -> None:
    text = """{"body": "YWI=", "at": "2024-05-06T07:08:00Z", "keep": 60, "price": "1.10", "counts": {"-1": 2, "5": 0.5},
               "color": [1, 2]}"""
    upload = CODEC.decode(from_json(text), Upload)
    at, keep = datetime(2024, 5, 6, 7, 8, tzinfo=UTC), timedelta(seconds=60)
    assert upload == Upload(b"ab", at, keep, Decimal("1.10"), {-1: 2.0, 5: 0.5}, Color.PAIR)


def test_base64_text_is_bytes_only_in_json() -> None:
    assert CODEC.decode(from_json('"YWI="'), bytes) == b"ab"
    for text in ('"YWI"', '"é"', "1"):
        with pytest.raises(DecodeError, match="expected bytes"):
            CODEC.decode(from_json(text), bytes)
    with pytest.raises(DecodeError, match="expected bytes, found str 'YWI='"):
        CODEC.decode(CODEC.encode("YWI="), bytes)


@pytest.mark.parametrize("key", ["x", "", "-", "1.5", "²", "9" * 50])
def test_only_a_key_that_spells_an_int_is_one(key: str) -> None:
    with pytest.raises(DecodeError, match="expected int"):
        CODEC.decode(from_json(json.dumps({key: 1})), dict[int, int])


@pytest.mark.parametrize("text", ["", "{", "nul", "[" * 100_000, "9" * 5_000])
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(DecodeError, match=r"^input: the text is not JSON: "):
        from_json(text, where="input")


def test_json_over_the_limit_is_refused() -> None:
    with pytest.raises(PayloadTooLargeError):
        from_json(json.dumps("a" * 100), payload_bytes_max=100)
    with pytest.raises(DecodeError, match="over the limit"):
        Codec(payload_bytes_max=10).decode(from_json(json.dumps("a" * 100)))


SHOWN: list[tuple[object, str]] = [
    (None, "null"),
    (True, "true"),
    (1, "1"),
    (1.0, "1.0"),
    (float("nan"), '"NaN"'),
    (float("-inf"), '"-Infinity"'),
    (2**2048, f'"{hex(2**2048)}"'),
    (10**300, str(10**300)),
    ("é", '"é"'),
    ("\ud800", r'"\ud800"'),
    (b"ab", '"YWI="'),
    ((1, [2]), "[1, [2]]"),
    ({3, 1, 2}, "[1, 2, 3]"),
    (frozenset(), "[]"),
    ({}, "{}"),
    ({1: "a", None: "b", (1, 2): "c", "d": {}}, '{"1": "a", "null": "b", "[1, 2]": "c", "d": {}}'),
    (datetime(2024, 1, 2, 3, tzinfo=UTC), '"2024-01-02T03:00:00+00:00"'),
    (date(2024, 1, 2), '"2024-01-02"'),
    (time(1, 2), '"01:02:00"'),
    (timedelta(minutes=1), "60.0"),
    (Decimal("1.10"), '"1.10"'),
    (UUID(int=0), f'"{UUID(int=0)}"'),
    (1 + 2j, '"(1+2j)"'),
    ({Key(1): 2}, '{"{\\"number\\": 1}": 2}'),
]


@pytest.mark.parametrize(("value", "text"), SHOWN, ids=lambda each: type(each).__name__)
def test_what_json_lacks_is_shown_as_its_natural_text(value: object, text: str) -> None:
    assert to_json(CODEC.encode(value)) == text


def test_the_deepest_value_is_shown() -> None:
    value: Any = 1
    for _ in range(500):
        value = [value]
    assert to_json(CODEC.encode(value)) == "[" * 500 + "1" + "]" * 500


def test_a_compressed_payload_is_shown() -> None:
    assert to_json(CODEC.encode("a" * 100_000)) == f'"{"a" * 100_000}"'


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**300), 2**300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
)


@given(JSON_VALUES)
def test_json_values_go_in_and_out_unchanged(value: object) -> None:
    text = json.dumps(value)
    assert CODEC.decode(from_json(text)) == value
    assert json.loads(to_json(from_json(text))) == value
    assert json.loads(to_json(CODEC.encode(value))) == value
