"""The envelope of payloads, and what damaged or hostile bytes can do: nothing."""

from __future__ import annotations

import random
import sys
import tracemalloc
import zlib
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayflow.codec import Codec, from_json, to_json
from replayflow.errors import DecodeError

CODEC = Codec()


@dataclass
class Node:
    name: str
    parts: dict[str, list[Node] | int] | None = None


def test_small_payloads_are_plain_msgpack() -> None:
    value = {"a": [1, 2.5, None, True, "text", b"bytes"]}
    assert CODEC.encode(value) == msgpack.packb(value)
    assert CODEC.decode(msgpack.packb(value)) == value


def test_a_msgpack_timestamp_of_another_system_is_a_datetime() -> None:
    stamp = msgpack.Timestamp(1_700_000_000)
    assert CODEC.decode(msgpack.packb(stamp)) == stamp.to_datetime()


def test_none_and_the_nil_of_other_systems_are_both_none() -> None:
    assert CODEC.encode(None) is None
    assert CODEC.decode(None) is None
    assert CODEC.decode(b"\xc0") is None


def test_long_payloads_are_compressed_where_it_saves_a_tenth() -> None:
    text, noise = "abc" * 10_000, random.Random(1).randbytes(30_000)
    packed_text, packed_noise = CODEC.encode(text), CODEC.encode(noise)
    assert packed_text is not None
    assert packed_text[:2] == b"\xc1z"
    assert len(packed_text) < 1_000
    assert packed_noise == msgpack.packb(noise)
    assert CODEC.decode(packed_text) == text
    assert CODEC.decode(packed_text, str) == text
    assert CODEC.decode(packed_noise) == noise


@pytest.mark.parametrize(
    ("value", "is_compressed"),
    [
        pytest.param(random.Random(1).randbytes(2**20), False, id="noise"),
        pytest.param(bytes(2**20), True, id="zeros"),
        pytest.param(random.Random(1).randbytes(2**18) + bytes(3 * 2**18), True, id="noise at its head"),
    ],
)
def test_of_a_large_payload_samples_say_whether_it_is_compressed(value: bytes, is_compressed: bool) -> None:
    codec = Codec()
    payload = codec.encode(value)
    assert payload is not None
    assert (len(payload) < len(value)) is is_compressed
    assert codec.decode(payload) == value


def test_a_payload_of_just_the_threshold_is_not_compressed() -> None:
    codec = Codec(compress_over_bytes=100)
    assert codec.encode("a" * 98) == msgpack.packb("a" * 98)
    longer = codec.encode("a" * 99)
    assert longer is not None
    assert longer[:2] == b"\xc1z"


def test_decompression_stops_at_the_limit() -> None:
    bomb = b"\xc1z" + zlib.compress(b"\xc6" + (2**26).to_bytes(4, "big") + bytes(2**26), 9)
    codec = Codec(payload_bytes_max=2**16)
    tracemalloc.start()
    with pytest.raises(DecodeError, match="expands beyond the limit payload_bytes_max = 65,536"):
        codec.decode(bomb)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**20


def test_a_compressed_payload_of_just_the_limit_is_read() -> None:
    codec = Codec(payload_bytes_max=1_003, compress_over_bytes=10)
    assert codec.decode(codec.encode("a" * 1_000)) == "a" * 1_000


NO_BODIES = [
    b"",
    b"x",
    b"\xff" * 13,
    b"2024-13-01",
    b"2024-01-01[../../x]",
    b"2024-01-01[Europe]",
    b"1e9999999999999999999",
]

DAMAGED = [
    b"",
    b"\xc1",
    b"\xc1?",
    b"\xc1z",
    b"\xc1znot zlib",
    b"\xc1z" + zlib.compress(b"\x01")[:-1],
    b"\xc1z" + zlib.compress(b"\x01") + b"more",
    b"\xc1z" + zlib.compress(b"\xc1z"),
    b"\xc1z" + zlib.compress(b""),
    b"\xc1j",
    b"\xc1j{",
    b"\xc1j\xff",
    b"\xc1j" + b"[" * 100_000,
    b"\xc1j" + b"9" * 5_000,
    b"\x01\x02",
    b"\xa5ab",
    b"\xa1\xff",
    b"\x91" * 5_000 + b"\x01",
    b"\xdd\xff\xff\xff\xff",
    b"\xd4\x63\x00",
    b"\xd4\x01\x01",
    b"\xd7\xff" + b"\xff" * 8,
    *(msgpack.packb(msgpack.ExtType(code, body)) for code in (1, 2, 3, 5, 6, 7, 8, 9, 10, 11) for body in NO_BODIES),
]


def nested_tuples(depth: int) -> bytes:
    encoded = b"\x90"
    for _ in range(depth):
        encoded = b"\x91" + msgpack.packb(msgpack.ExtType(1, encoded))
    return encoded


@pytest.mark.parametrize(
    "payload", [*DAMAGED, nested_tuples(40), nested_tuples(3_000)], ids=lambda each: repr(each[:12])
)
def test_damaged_bytes_are_a_decode_error(payload: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^result"):
        CODEC.decode(payload, Any, "result")
    with pytest.raises(DecodeError):
        to_json(payload)


def test_claims_of_many_items_reserve_no_memory_for_each_level() -> None:
    payload = b"\xdd\x00\x00\xff\xff" * 1_000 + bytes(70_000)
    with pytest.raises(DecodeError):
        CODEC.decode(payload)


def test_what_is_no_payload_is_refused() -> None:
    broken: Any = "text"
    with pytest.raises(DecodeError, match="a payload is None or at least one byte, found str 'text'"):
        CODEC.decode(broken)


ANNOTATIONS: list[Any] = [Any, int, list[Node], Node, dict[str, Node] | list[int], tuple[set[str], ...], str | bytes]
NOISE = st.binary(max_size=200)
MARKED = st.one_of(
    NOISE,
    NOISE.map(lambda noise: b"\xc1j" + noise),
    NOISE.map(lambda noise: b"\xc1z" + zlib.compress(noise)),
    st.tuples(st.integers(-5, 14), NOISE).map(
        lambda part: bytes(msgpack.packb(msgpack.ExtType(part[0] % 128, part[1])))
    ),
    st.recursive(
        st.integers() | st.text() | st.none(),
        lambda part: st.lists(part) | st.dictionaries(st.sampled_from(["name", "parts", "x"]), part),
    ).map(lambda value: CODEC.encode(value) or b""),
)


@given(MARKED, st.sampled_from(ANNOTATIONS))
def test_arbitrary_bytes_only_ever_raise_a_decode_error(payload: bytes, annotation: Any) -> None:
    try:
        CODEC.decode(payload, annotation)
    except DecodeError:
        pass


@given(MARKED)
def test_what_can_be_decoded_can_be_shown(payload: bytes) -> None:
    try:
        CODEC.decode(payload)
    except DecodeError:
        return
    from_json(to_json(payload))


def test_a_recursive_class_meets_a_value_too_deep_for_it_with_a_decode_error() -> None:
    value: Any = {"name": "leaf"}
    for _ in range(160):
        value = {"name": "node", "parts": {"one": [value]}}
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        with pytest.raises(DecodeError, match=r"^value: nested too deep to be rebuilt as Node"):
            CODEC.decode(CODEC.encode(value), Node)
    finally:
        sys.setrecursionlimit(limit)
