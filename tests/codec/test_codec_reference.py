"""References: what stands in the place of a payload that is kept elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayflow import Codec
from replayflow.codec.reference import differs, digest_of, is_reference, may_refer, reference_to, size_of
from replayflow.core import events
from replayflow.core.events import EventRaised
from replayflow.errors import DecodeError

values = st.recursive(st.none() | st.binary() | st.text() | st.integers(), lambda inner: st.lists(inner), max_leaves=8)


@given(st.binary())
def test_a_reference_says_what_it_stands_for(content: bytes) -> None:
    reference = reference_to(content)
    assert is_reference(reference)
    assert may_refer(events.encode([EventRaised("before", b"x"), EventRaised("named", reference)]))
    assert size_of(reference) == len(content)
    assert len(digest_of(reference)) == 32
    assert reference_to(content) == reference


@given(st.binary(), st.binary())
def test_different_contents_have_different_references(one: bytes, other: bytes) -> None:
    assert (reference_to(one) == reference_to(other)) == (one == other)


@given(values)
def test_no_value_is_taken_for_a_reference(value: Any) -> None:
    assert not is_reference(Codec().encode(value))


def test_a_value_that_spells_a_reference_stays_a_value() -> None:
    forged = reference_to(b"somebody else's")
    payload = Codec().encode(forged)
    assert not is_reference(payload)
    assert Codec().decode(payload) == forged


def test_a_reference_that_was_not_read_is_no_value() -> None:
    with pytest.raises(DecodeError, match="kept out of line, and has not been read"):
        Codec().decode(reference_to(b"content"))


def test_a_recorded_reference_is_compared_by_its_digest() -> None:
    assert not differs(b"content", reference_to(b"content"))
    assert differs(b"another", reference_to(b"content"))
    assert differs(None, reference_to(b"content"))
    assert differs(b"content", None)
    assert not differs(None, None)
