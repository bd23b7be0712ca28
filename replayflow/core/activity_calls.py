"""`ctx.call_activity`: the one call that nearly every orchestrator makes, and that all speed hangs on."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar, overload

from replayflow.core.activity_context import ActivityContext
from replayflow.core.decisions import Decisions
from replayflow.core.definitions import CallPlan, Environment
from replayflow.core.events import TaskScheduled
from replayflow.core.labels import check_tags
from replayflow.core.sites import site_of
from replayflow.core.tasks import ActivityTask, Task
from replayflow.core.transaction import Transaction
from replayflow.errors import InvalidArgumentError
from replayflow.retry import RetryPolicy, stored_duration

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
_frame = sys._getframe


class ActivityCalls:
    """The part of the context that asks for activities."""

    __slots__ = ()
    _decisions: Decisions
    _environment: Environment

    @overload
    def call_activity(
        self,
        activity: Callable[[ActivityContext, I], Awaitable[R]],
        input: I,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        activity: Callable[[ActivityContext, I], R],
        input: I,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        activity: Callable[[ActivityContext], Awaitable[R]],
        input: None = None,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        activity: Callable[[ActivityContext], R],
        input: None = None,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        activity: Callable[[Transaction, I], R],
        input: I,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        activity: Callable[[Transaction], R],
        input: None = None,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        activity: Callable[[], Awaitable[R]],
        input: None = None,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        activity: Callable[[], R],
        input: None = None,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        activity: Callable[[I], Awaitable[R]],
        input: I,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        activity: Callable[[I], R],
        input: I,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        activity: str,
        input: object = None,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        result_type: type[R],
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        activity: str,
        input: object = None,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        result_type: object = None,
    ) -> Task[Any]: ...

    def call_activity(
        self,
        activity: Any,
        input: Any = None,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        result_type: Any = None,
    ) -> Task[Any]:
        """The activity is scheduled, by function or by name, with one input; yield the task for its result.

        `retry` and `timeout` (for one attempt) take the place of what the activity was registered with. `result_type` says what the result of an
        activity called by name is rebuilt as. At the yield: `ActivityError` where the activity failed for good.

        Raises:
            EncodeError: the input cannot travel as a payload.
            UnknownNameError: the function is not registered as an activity.
            OrchestratorError: the execution has already continued as new.
        """
        decisions = self._decisions
        environment = self._environment
        plan = environment.plans.get(activity) or environment.activity(activity)
        if retry is not None or timeout is not None or result_type is not None:
            plan = _changed(
                plan, retry, timeout, None if result_type is None else environment.codec.decoder(result_type)
            )
        name = plan.name
        payload = None if input is None else environment.codec.encode(input, plan.input_title)
        checked_tags = None if tags is None else check_tags(tags)
        id = decisions.next_id
        decisions.next_id = id + 1
        then = decisions.expected
        if (
            then is not None
            and then.event_id == id
            and then.name == name
            and then.input == payload
            and decisions.ending is None
        ):
            decisions.position += 1  # as in `found`, spelled out
            decisions.expected = None
            decisions._last = then
        elif not decisions.is_replaying or not decisions.repeats_task(id, name, payload):
            decided = TaskScheduled(
                id, name, payload, site_of(_frame(1)), plan.retry, plan.timeout_microseconds, checked_tags
            )
            if decisions.is_replaying or decisions.is_sealed or decisions.ending is not None:
                decisions.add(decided)
            else:  # the same, spelled out
                decisions.made.append(decided)
        task: ActivityTask[Any] = ActivityTask(id, name, plan.decode, decisions, plan.predicate)
        decisions.open[id] = task
        return task


def _changed(
    plan: CallPlan, retry: RetryPolicy | None, timeout: timedelta | None, decode: Callable[..., Any] | None
) -> CallPlan:
    """The plan, but for what this call says otherwise."""
    if retry is not None:
        plan = replace(plan, retry=retry.values(), predicate=retry.predicate)
    if timeout is not None:
        plan = replace(plan, timeout_microseconds=_positive(timeout, "timeout"))
    return plan if decode is None else replace(plan, decode=decode)


def _positive(duration: timedelta, what: str) -> int:
    if duration <= timedelta(0):
        raise InvalidArgumentError(f"{what} is {duration}; it must be longer than nothing")
    return stored_duration(duration)
