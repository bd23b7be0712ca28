"""Retry policies: what they accept, what is stored of them, and when the next attempt is."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayflow import FailureDetails, RetryPolicy
from replayflow.core import events
from replayflow.core.events import TaskScheduled
from replayflow.errors import InvalidArgumentError
from replayflow.retry import DELAY_MICROSECONDS_MAX, RetryValues, next_attempt_at

SECOND = 1_000_000
FAILURE = FailureDetails.of(ValueError("x"))


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": -1},
        {"backoff": 0.5},
        {"backoff": float("nan")},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"jitter": float("nan")},
        {"first_interval": timedelta(-1)},
        {"max_interval": timedelta(-1)},
        {"timeout": timedelta(-1)},
        # What would be stored, and could not be read again; or not be stored at all.
        {"max_attempts": float("inf")},
        {"max_attempts": 2.5},
        {"max_attempts": True},
        {"max_attempts": 2**63},
        {"backoff": Decimal(2)},
        {"backoff": "2"},
        {"jitter": Fraction(1, 2)},
        {"first_interval": 5},
        {"timeout": 1.5},
    ],
    ids=repr,
)
def test_a_value_outside_its_range_is_refused_by_name(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InvalidArgumentError, match=name):
        RetryPolicy(**options)


@pytest.mark.parametrize(
    "options", [{"max_attempts": 2**63 - 1}, {"backoff": 10**30}, {"backoff": 2}, {"jitter": 1}], ids=repr
)
def test_values_that_are_accepted_come_back_from_the_store(options: dict[str, Any]) -> None:
    values = RetryPolicy(**options).values()
    (task,) = events.decode(events.encode([TaskScheduled(1, "x", None, retry=values)]))
    assert isinstance(task, TaskScheduled)
    assert task.retry == values


def test_classes_are_stored_by_qualified_name_and_predicates_not_at_all() -> None:
    assert RetryPolicy(retry_on=KeyError).values().retry_on == ["builtins.KeyError"]
    assert RetryPolicy(retry_on=(KeyError, OSError)).values().retry_on == ["builtins.KeyError", "builtins.OSError"]
    assert RetryPolicy(retry_on=()).values().retry_on == []
    assert RetryPolicy(non_retryable=KeyError).values().non_retryable == ["builtins.KeyError"]

    def predicate(failure: FailureDetails) -> bool:
        return True

    assert RetryPolicy(retry_on=predicate).values().retry_on is None
    assert RetryPolicy(retry_on=predicate).predicate is predicate
    assert RetryPolicy(retry_on=KeyError).predicate is None


def test_retry_on_no_class_at_all_retries_nothing() -> None:
    assert at(RetryPolicy(retry_on=())) is None


@pytest.mark.parametrize("duration", [timedelta.max, timedelta(days=400_000)])
def test_the_longest_durations_can_be_stored(duration: timedelta) -> None:
    values = RetryPolicy(first_interval=duration, max_interval=duration, timeout=duration).values()
    (read,) = events.decode(events.encode([TaskScheduled(1, "a", None, retry=values)]))
    assert isinstance(read, TaskScheduled)
    assert read.retry == values


def at(policy: RetryPolicy, **options: Any) -> int | None:
    values = policy.values()
    given: dict[str, Any] = {
        "attempt": 1,
        "failure": FAILURE,
        "scheduled_at": 0,
        "now": 0,
        "random": Random(1),
        "predicate": policy.predicate,
    }
    return next_attempt_at(values, **{**given, **options})


def test_a_wait_that_grows_without_bound_is_held_to_a_year() -> None:
    assert at(RetryPolicy(max_attempts=10**6), attempt=5_000) == DELAY_MICROSECONDS_MAX
    assert at(RetryPolicy(max_attempts=10**6, backoff=float("inf")), attempt=3) == DELAY_MICROSECONDS_MAX


@pytest.mark.parametrize("backoff", [1.0, 2.0, float("inf")])
def test_no_first_interval_is_no_wait(backoff: float) -> None:
    policy = RetryPolicy(max_attempts=10**6, first_interval=timedelta(0), backoff=backoff)
    assert [at(policy, attempt=n) for n in (1, 2, 5_000)] == [0, 0, 0]


def test_the_budget_counts_from_when_the_task_was_scheduled() -> None:
    policy = RetryPolicy(timeout=timedelta(seconds=10))
    assert at(policy, scheduled_at=0, now=9 * SECOND) == 10 * SECOND
    assert at(policy, scheduled_at=0, now=9 * SECOND + 1) is None


@given(
    st.integers(1, 400),
    st.floats(1, 10),
    st.floats(0, 1),
    st.timedeltas(timedelta(0), timedelta(days=3)),
    st.none() | st.timedeltas(timedelta(0), timedelta(days=30)),
    st.integers(0, 2**32),
)
def test_the_wait_lies_between_its_share_of_chance_and_its_bound(
    attempt: int, backoff: float, jitter: float, first: timedelta, bound: timedelta | None, seed: int
) -> None:
    policy = RetryPolicy(max_attempts=500, first_interval=first, backoff=backoff, jitter=jitter, max_interval=bound)
    wait = at(policy, attempt=attempt, random=Random(seed))
    assert wait is not None
    assert 0 <= wait <= (DELAY_MICROSECONDS_MAX if bound is None else bound // timedelta(microseconds=1))
    assert wait == at(policy, attempt=attempt, random=Random(seed)), "chance is what was handed in"


def test_values_read_back_from_their_row() -> None:
    values = RetryPolicy(retry_on=KeyError, jitter=0.5, timeout=timedelta(1)).values()
    assert msgspec.convert(msgspec.to_builtins(values), RetryValues) == values
