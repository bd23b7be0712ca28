"""Events as JSON: nothing is lost on the way, what JSON has can be read, and what is wrong is named."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replayflow.archive.plain import event_from, plain_of
from replayflow.codec import Codec
from replayflow.core import events
from replayflow.core.events import EventRaised, HistoryEvent, TaskCompleted, TaskScheduled
from replayflow.errors import InvalidArgumentError
from tests.core.test_core_events import any_event

codec = Codec()
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.integers() | st.just("$bytes"), inner, max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=6,
)


def through_json(event: HistoryEvent) -> HistoryEvent:
    return event_from(json.loads(json.dumps(plain_of(event, codec), ensure_ascii=False)), codec, "here")


@settings(deadline=None, max_examples=400)
@given(any_event)
def test_every_event_comes_back_as_it_was(event: HistoryEvent) -> None:
    assert events.encode([through_json(event)]) == events.encode([event])


@settings(deadline=None, max_examples=300)
@given(values)
def test_every_payload_comes_back_byte_for_byte(value: Any) -> None:
    payload = codec.encode(value)
    came = through_json(TaskCompleted(1, payload))
    assert isinstance(came, TaskCompleted)
    assert came.result == payload


@settings(deadline=None)
@given(
    st.text()
    | st.lists(st.integers(-(2**63), 2**63))
    | st.dictionaries(st.text().filter(lambda key: key[:1] != "$"), st.booleans())
)
def test_what_json_has_stands_there_as_it_is(value: Any) -> None:
    assert plain_of(TaskCompleted(1, codec.encode(value)), codec)["fields"].get("result") == value


@pytest.mark.parametrize(
    "value", [b"x", datetime(2030, 1, 1, tzinfo=UTC), (1, 2), {1: 2}, {"$bytes": "x"}, float("nan")]
)
def test_what_json_lacks_is_kept_as_bytes(value: Any) -> None:
    assert list(plain_of(EventRaised("go", codec.encode(value)), codec)["fields"]["input"]) == ["$bytes"]


def test_a_value_can_be_edited() -> None:
    plain = plain_of(TaskCompleted(1, codec.encode({"total": 3})), codec)
    plain["fields"]["result"]["total"] = 4
    assert event_from(plain, codec, "here") == TaskCompleted(1, codec.encode({"total": 4}))


GOOD = plain_of(TaskScheduled(1, "act", codec.encode(1)), codec)


@pytest.mark.parametrize(
    ("plain", "text"),
    [
        ([], "here: .* is no event"),
        ({"event": 3}, "is no event"),
        ({"event": "Nothing"}, "knows no event 'Nothing'"),
        ({"event": "HistoryEvent"}, "knows no event"),
        ({"event": "TaskScheduled", "fields": {}}, "TaskScheduled: the field 'event_id' is missing"),
        ({"event": "TaskScheduled", "fields": 3}, "no object with the fields of TaskScheduled"),
        ({**GOOD, "fields": {**GOOD["fields"], "nme": "x"}}, "TaskScheduled has no field nme"),
        ({**GOOD, "fields": {**GOOD["fields"], "name": 3}}, "Expected `str`, got `int`"),
        ({**GOOD, "fields": {**GOOD["fields"], "event_id": "x"}}, "Expected `int`, got `str`"),
        ({**GOOD, "fields": {**GOOD["fields"], "event_id": 2**70}}, "can't serialize ints"),
        (
            {**GOOD, "fields": {**GOOD["fields"], "retry": {"max_attempts": 1}}},
            r"TaskScheduled.retry: the field 'first_interval' is missing",
        ),
        ({**GOOD, "fields": {**GOOD["fields"], "input": {"$bytes": "?"}}}, r"TaskScheduled.input: .* not base64"),
        ({**GOOD, "fields": {**GOOD["fields"], "input": {"$bytes": 3}}}, "not base64"),
        ({**GOOD, "fields": {**GOOD["fields"], "name": "\ud800"}}, "surrogate"),
    ],
)
def test_what_is_no_event_is_refused_with_its_place(plain: Any, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        event_from(plain, codec, "here")


@settings(deadline=None, max_examples=300)
@given(st.data(), any_event)
def test_whatever_is_edited_is_read_or_refused(data: st.DataObject, event: HistoryEvent) -> None:
    plain = plain_of(event, codec)
    fields = plain["fields"]
    name = data.draw(st.sampled_from([*fields, "other"]))
    fields[name] = data.draw(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=3)
        | st.lists(st.integers(), max_size=2)
        | st.just({})
    )
    with contextlib.suppress(InvalidArgumentError):
        came = event_from(plain, codec, "here")
        assert events.decode(events.encode([came])) == [came]
