"""Errors: one tree with stable codes, and failures as values."""

from __future__ import annotations

import re
from typing import Any

import pytest

import replayflow
from replayflow import (
    ActivityError,
    FailureDetails,
    NonRetryableError,
    OrchestrationCancelled,
    OrchestrationFailed,
    RetryAfter,
    SubOrchestrationError,
    errors,
)
from replayflow.errors import InvalidArgumentError, PayloadTooLargeError, ReplayflowError, every, find, qualified_name


def raised(error: BaseException, cause: BaseException | None = None, handling: BaseException | None = None) -> Any:
    try:
        if handling is not None:
            try:
                raise handling
            except BaseException:
                raise error  # noqa: B904 - the context is the point
        raise error from cause
    except BaseException as caught:
        return caught


def test_every_class_has_a_code_of_its_own_and_a_text() -> None:
    codes = [cls.__dict__["code"] for cls in every()]
    assert len(codes) == len(set(codes))
    assert codes == sorted(codes)
    assert all(re.fullmatch(r"RF\d{3}", code) for code in codes)
    assert all(cls.__doc__ for cls in every())
    public = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, BaseException)]
    assert set(every()) == set(public)


def test_every_class_has_a_public_name() -> None:
    assert {error.__name__ for error in every()} <= set(replayflow.__all__)


def test_histories_know_an_error_as_it_is_imported() -> None:
    assert {qualified_name(error) for error in every()} == {f"replayflow.errors.{error.__name__}" for error in every()}


def test_a_code_finds_its_class_in_any_case() -> None:
    assert find("rf101") is errors.RegistrationError
    assert find("RF503") is OrchestrationCancelled
    assert find("RF999") is None


def test_the_branches_say_who_must_act() -> None:
    branches = (errors.UserError, errors.StateError, errors.StoreError, errors.TaskError)
    alone = {ReplayflowError, errors.TaskCanceledError, NonRetryableError, RetryAfter}
    alone |= {OrchestrationCancelled, errors.ActivityCancelled}
    for cls in set(every()) - alone:
        assert sum(issubclass(cls, branch) for branch in branches) == 1, cls


def test_a_request_to_cancel_is_no_exception_that_code_swallows() -> None:
    assert not issubclass(OrchestrationCancelled, Exception)


def test_a_failure_keeps_type_message_stack_and_cause() -> None:
    details = FailureDetails.of(raised(ValueError("outer"), KeyError("inner")))
    assert (details.type, details.message) == ("ValueError", "outer")
    assert "test_errors.py" in details.stack
    assert details.inner is not None
    assert details.inner.type == "KeyError"
    assert str(details) == "ValueError: outer <- KeyError: 'inner'"
    assert details.is_caused_by(LookupError)
    assert not details.is_caused_by(OSError)


def test_what_a_message_ends_with_is_not_said_again_as_its_cause() -> None:
    cause = FailureDetails.of(KeyError("lost"))
    within = FailureDetails.of(ActivityError(f"activity 'find' (task 1) failed: {cause}", cause))
    whole = FailureDetails.of(SubOrchestrationError(f"sub-orchestration 'look' (task 2) failed: {within}", within))
    assert str(whole).count("KeyError: 'lost'") == 1
    assert str(whole).startswith("SubOrchestrationError: sub-orchestration 'look' (task 2) failed: ActivityError: ")
    assert "<-" not in str(whole)
    assert len([*whole.chain()]) == 3


def test_without_a_cause_the_error_that_was_being_handled_counts() -> None:
    assert FailureDetails.of(raised(ValueError(), handling=KeyError())).is_caused_by(KeyError)
    assert not FailureDetails.of(raised(ValueError(), None)).is_caused_by(KeyError)


def test_an_error_that_was_raised_from_none_has_no_cause() -> None:
    def fail() -> None:
        try:
            raise KeyError
        except KeyError:
            raise ValueError from None

    with pytest.raises(ValueError) as caught:
        fail()
    assert FailureDetails.of(caught.value).inner is None


@pytest.mark.parametrize("kind", [ActivityError, OrchestrationFailed])
def test_a_failed_task_came_from_what_it_tells_of_whatever_was_being_handled(kind: Any) -> None:
    own = FailureDetails.of(LookupError("own"))
    details = FailureDetails.of(raised(kind("failed", own), handling=OSError("another")))
    assert details.inner == own
    assert details.is_caused_by(LookupError)


def test_classes_match_by_qualified_name_of_the_class_and_its_bases() -> None:
    class Mine(KeyError): ...

    details = FailureDetails.of(Mine("x"))
    assert details.bases[:3] == (qualified_name(Mine), "builtins.KeyError", "builtins.LookupError")
    assert details.is_caused_by(Mine)
    assert details.is_caused_by(OSError, LookupError)
    assert details.matches(["builtins.BaseException"])
    assert not details.is_caused_by()


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    assert [d.message for d in FailureDetails.of(first).chain()] == ["1", "2"]


def test_a_long_chain_and_a_long_stack_are_cut() -> None:
    error: BaseException = ValueError(0)
    for n in range(100):
        error = raised(ValueError(n), error)
    assert len(list(FailureDetails.of(error).chain())) == errors.CAUSE_DEPTH_MAX

    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise ValueError

    with pytest.raises(ValueError) as caught:
        deep(500)
    assert len(FailureDetails.of(caught.value).stack) <= errors.STACK_CHARS_MAX


def test_an_error_whose_text_raises_is_recorded_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert FailureDetails.of(Mute()).message == "<no text: RuntimeError in Mute.__str__>"


@pytest.mark.parametrize(
    ("error", "final"), [(NonRetryableError(), True), (PayloadTooLargeError(), True), (ValueError(), False)]
)
def test_some_errors_are_never_retried(error: Exception, final: bool) -> None:
    assert FailureDetails.of(error).non_retryable is final


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e18])
def test_retry_after_takes_a_number_of_seconds_that_a_store_can_hold(seconds: float) -> None:
    with pytest.raises(InvalidArgumentError, match="seconds is"):
        RetryAfter(seconds)


def test_retry_after_has_a_text_of_its_own() -> None:
    assert str(RetryAfter(1.5)) == "retry after 1.5 s"
    assert str(RetryAfter(0, "slow down")) == "slow down"
