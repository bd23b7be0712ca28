"""Events: what is stored reads back as it was, and what is damaged says so."""

from __future__ import annotations

from datetime import UTC, datetime
from inspect import get_annotations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields

from replayflow.core import events
from replayflow.core.events import (
    KINDS,
    Block,
    ChildNow,
    EventRaised,
    HistoryEvent,
    MapItemFailed,
    OrchestratorStarted,
    Origin,
    ParentInstance,
    TaskCompleted,
    TaskScheduled,
    TimerCreated,
)
from replayflow.errors import FailureDetails, InvalidArgumentError, StoreCorruptError
from replayflow.retry import RetryValues

text = st.text(max_size=8)
integer = st.integers(-(2**63), 2**64 - 1)
optional_text = st.none() | text
failures: st.SearchStrategy[FailureDetails] = st.deferred(
    lambda: st.builds(
        FailureDetails,
        type=text,
        message=text,
        stack=text,
        inner=st.none() | failures,
        non_retryable=st.booleans(),
        bases=st.lists(text, max_size=3).map(tuple),
    )
)
retries = st.builds(
    RetryValues,
    max_attempts=integer,
    first_interval=integer,
    backoff=st.floats(allow_nan=False),
    max_interval=st.none() | integer,
    timeout=st.none() | integer,
    jitter=st.floats(0, 1),
    retry_on=st.none() | st.lists(text, max_size=3),
    non_retryable=st.lists(text, max_size=3),
)
parents = st.builds(
    ParentInstance,
    instance_id=text,
    execution_id=text,
    task_scheduled_id=integer,
    name=text,
    number=st.none() | integer,
)
origins = st.builds(Origin, instance_id=text, execution_id=text, until_microseconds=integer, last_id=integer)
children = st.builds(
    ChildNow, task_scheduled_id=integer, instance_id=text, execution_id=text, number=st.none() | integer
)
item_failures = st.builds(
    MapItemFailed,
    number=integer,
    attempt=integer,
    failure_details=failures,
    retry_at_microseconds=st.none() | integer,
    retry_after_microseconds=st.none() | integer,
)
BY_ANNOTATION: dict[str, st.SearchStrategy[Any]] = {
    "int": integer,
    "str": text,
    "bool": st.booleans(),
    "list[str]": st.lists(text, max_size=3),
    "bytes": st.binary(max_size=8),
    "Payload": st.none() | st.binary(max_size=8),
    "str | None": optional_text,
    "int | None": st.none() | integer,
    "FailureDetails": failures,
    "FailureDetails | None": st.none() | failures,
    "RetryValues | None": st.none() | retries,
    "ParentInstance | None": st.none() | parents,
    "Blocks": st.lists(
        st.builds(Block, calls=integer, items=integer, payloads=st.none() | st.binary(max_size=8)), max_size=3
    ),
    "int | float": integer | st.floats(allow_nan=False),
    "list[int]": st.lists(integer, max_size=3),
    "list[Payload]": st.lists(st.none() | st.binary(max_size=8), max_size=3),
    "list[MapItemFailed]": st.lists(item_failures, max_size=3),
    "list[Origin] | None": st.none() | st.lists(origins, max_size=3),
    "list[ChildNow]": st.lists(children, max_size=3),
    "dict[str, str] | None": st.none() | st.dictionaries(text, text, max_size=3),
}


def annotation(kind: type[HistoryEvent], name: str) -> str:
    """The field's annotation as its class spells it."""
    return str(next(found[name] for cls in kind.__mro__ if name in (found := get_annotations(cls))))


def some(kind: type[HistoryEvent]) -> st.SearchStrategy[HistoryEvent]:
    return st.builds(kind, **{f.name: BY_ANNOTATION[annotation(kind, f.name)] for f in fields(kind)})


any_event = st.one_of([some(kind) for kind in KINDS.values()])
chunks = st.lists(any_event, max_size=6)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_every_kind_reads_back_as_it_was_stored(kind: type[HistoryEvent]) -> None:
    @settings(max_examples=25, deadline=None)
    @given(some(kind))
    def check(event: HistoryEvent) -> None:
        (read,) = events.decode(events.encode([event]))
        assert type(read) is kind
        assert read == event

    check()


@settings(deadline=None)
@given(chunks)
def test_a_chunk_reads_back_as_it_was_stored(chunk: list[HistoryEvent]) -> None:
    assert events.decode(events.encode(chunk)) == chunk


@settings(deadline=None, max_examples=200)
@given(chunks, st.data())
def test_a_chunk_that_is_cut_is_damaged(chunk: list[HistoryEvent], data: st.DataObject) -> None:
    stored = events.encode(chunk)
    with pytest.raises(StoreCorruptError):
        events.decode(stored[: data.draw(st.integers(0, len(stored) - 1))])


@settings(deadline=None)
@given(chunks, st.binary(min_size=1, max_size=4))
def test_a_chunk_with_something_behind_it_is_damaged(chunk: list[HistoryEvent], behind: bytes) -> None:
    with pytest.raises(StoreCorruptError):
        events.decode(events.encode(chunk) + behind)


def test_pieces_are_told_apart_by_the_time_that_each_begins_with() -> None:
    first, second = [OrchestratorStarted(1), TaskCompleted(1)], [OrchestratorStarted(2)]
    assert events.decode_pieces(events.encode(first) + events.encode(second), 2) == [first, second]
    for headless in ([], [TaskCompleted(1)]):
        with pytest.raises(StoreCorruptError, match=r"piece 2 of 2 .* does not begin with an episode's time"):
            events.decode_pieces(events.encode(first) + events.encode(headless), 2)


@settings(deadline=None, max_examples=500)
@given(st.lists(any_event, min_size=1, max_size=3), st.data())
def test_damaged_bytes_give_a_corrupt_store_and_no_other_error(chunk: list[HistoryEvent], data: st.DataObject) -> None:
    stored = bytearray(events.encode(chunk))
    for _ in range(data.draw(st.integers(1, 3))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    try:
        events.decode(bytes(stored))  # a changed letter in a text cannot be seen
    except StoreCorruptError:
        pass


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=40))
def test_bytes_of_another_making_give_a_corrupt_store_and_no_other_error(stored: bytes) -> None:
    try:
        events.decode(stored)
    except StoreCorruptError:
        pass


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(b"\x91\x91\x0e", id="a field is missing"),
        pytest.param(b"\x91\x92\xcd\x03\xe7\x01", id="unknown kind"),
        pytest.param(b"\x01", id="no array"),
        pytest.param(b"\x91\x90", id="an empty array"),
        pytest.param(b"\x91\xdd\xff\xff\xff\xff", id="an array of four thousand million"),
        pytest.param(b"\x91\xc6\xff\xff\xff\xff", id="four thousand million bytes"),
        pytest.param(b"\x91" * 3000, id="nested three thousand deep"),
        pytest.param(b"\x91\xc1", id="a byte that msgpack never writes"),
        pytest.param(b"\x91\x95\x0e\x01\x02\x03\x04", id="more fields than the kind has"),
    ],
)
def test_what_no_encoder_writes_is_damaged(stored: bytes) -> None:
    with pytest.raises(StoreCorruptError, match=r"damaged|cut off"):
        events.decode(stored)


def test_an_event_bears_the_time_that_it_was_given() -> None:
    moment = datetime(2024, 2, 29, 12, 30, 0, 5, tzinfo=UTC)
    event = TaskCompleted(1)
    assert event.at(int(moment.timestamp()) * 1_000_000 + 5) is event
    assert event.timestamp == moment
    assert event == TaskCompleted(1)
    assert events.encode([event]) == events.encode([TaskCompleted(1)])


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="lone surrogate"):
        events.encode([EventRaised("\ud800")])


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_a_number_that_no_history_can_hold_is_refused(value: int) -> None:
    with pytest.raises(InvalidArgumentError, match="number that cannot be stored"):
        events.encode([TaskCompleted(value)])


def test_an_old_row_with_fewer_fields_reads_with_their_defaults() -> None:
    (read,) = events.decode(b"\x91\x94\x06\x01\xa1a\xc0")
    assert read == TaskScheduled(1, "a", None)


def test_decisions_have_their_action_id_and_facts_have_none() -> None:
    assert TaskScheduled(3, "a", None).event_id == 3
    assert TaskCompleted(3).event_id == -1
    assert TimerCreated(1, 0).fire_at == datetime(1970, 1, 1, tzinfo=UTC)


def test_kinds_have_the_numbers_of_the_protocol() -> None:
    protocol = {
        3: "ExecutionStarted",
        4: "ExecutionCompleted",
        5: "ExecutionTerminated",
        6: "TaskScheduled",
        7: "TaskCompleted",
        8: "TaskFailed",
        9: "SubOrchestrationInstanceCreated",
        10: "SubOrchestrationInstanceCompleted",
        11: "SubOrchestrationInstanceFailed",
        12: "TimerCreated",
        13: "TimerFired",
        14: "OrchestratorStarted",
        15: "OrchestratorCompleted",
        16: "EventSent",
        17: "EventRaised",
        18: "GenericEvent",
        20: "ContinueAsNew",
        21: "ExecutionSuspended",
        22: "ExecutionResumed",
        23: "EntityOperationSignaled",
        24: "EntityOperationCalled",
        25: "EntityOperationCompleted",
        26: "EntityOperationFailed",
        27: "EntityLockRequested",
        28: "EntityLockGranted",
        29: "EntityUnlockSent",
        30: "ExecutionRewound",
    }
    assert {number: kind.__name__ for number, kind in KINDS.items() if number < 100} == protocol


def test_a_value_that_no_event_can_have_is_refused() -> None:
    with pytest.raises(TypeError, match="type object is unsupported"):
        events.encode([TaskCompleted(1, object())])
