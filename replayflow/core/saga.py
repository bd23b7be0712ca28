"""Sagas: work that is undone, the last first, when what follows it fails.

1. A compensation is registered before its action is asked for, in the same episode: an action that fails half-way is compensated, too.
2. While a saga undoes it is shielded: a request to cancel is heard when it is done.
3. A compensation does not fail: when its policy gives out, the instance is parked until it has been mended (docs/decisions/0008-saga.md).
4. All of this is orchestrator code: it decides the same on every replay, and keeps nothing outside the ledger (I2).
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from inspect import isgeneratorfunction, signature
from random import Random
from typing import Any, NoReturn, TypeVar, overload

from msgspec.structs import replace

from replayflow.codec import Payload
from replayflow.core.actions import AskInstance, CreateTimer, StopMap
from replayflow.core.decisions import Decisions, Diverged
from replayflow.core.definitions import CallPlan, Environment
from replayflow.core.entity.sections import LockTask
from replayflow.core.events import TaskScheduled
from replayflow.core.map.result import MapTask
from replayflow.core.sites import site_of
from replayflow.core.tasks import (
    ActivityTask,
    EventTask,
    SubOrchestrationTask,
    Task,
    TimerTask,
    leaves,
)
from replayflow.errors import (
    CompensationError,
    FailureDetails,
    InvalidArgumentError,
    OrchestratorError,
    PayloadError,
    TaskCanceledError,
    TaskError,
)
from replayflow.retry import RetryPolicy, RetryValues, next_attempt_at, stored_duration

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
_frame = sys._getframe
MENDING = "replayflow.mending"
"""The activity that a compensation without a task of its own waits for: its first attempt fails, and parks the instance; the next succeeds."""
PATIENCE = RetryPolicy(
    max_attempts=1_000,
    first_interval=timedelta(seconds=1),
    max_interval=timedelta(minutes=10),
    jitter=0.2,
    non_retryable=PayloadError,
)
"""How a compensation is retried where nobody says otherwise: at once often, then every ten minutes, for about a week. One that cannot read what it is
given never will: that parks the instance at once."""
_ONCE = RetryPolicy(max_attempts=1)
_THE_SAME: Any = object()


@dataclass(slots=True)
class _Step:
    """One thing to undo. `task` is what it undoes; `undo` a generator function, or None where `plan` has an activity."""

    name: str
    site: str
    undo: Callable[..., Any] | None
    plan: CallPlan | None
    input: Payload
    from_result: Callable[[Any], object] | None
    retry: RetryValues
    predicate: Callable[[FailureDetails], bool] | None
    task: Task[Any] | None = None

    @property
    def result(self) -> Any:
        task = self.task
        return task.result if task is not None and task.is_complete and not task.is_failed else None


class Saga:
    """Handed to the body of `ctx.saga`: what is run through it is undone where the body ends with an error."""

    __slots__ = ("_decisions", "_environment", "_is_over", "_is_parallel", "_steps", "_undo_retry")

    def __init__(
        self,
        decisions: Decisions,
        environment: Environment,
        *,
        is_parallel: bool,
        undo_retry: RetryPolicy | None,
    ) -> None:
        self._decisions = decisions
        self._environment = environment
        self._is_parallel = is_parallel
        self._undo_retry = undo_retry
        self._steps: list[_Step] = []
        self._is_over = False

    @overload
    def run(
        self,
        do: Task[R],
        undo: Callable[..., Any] | str,
        *,
        undo_input: object = ...,
        undo_retry: RetryPolicy | None = None,
    ) -> Task[R]: ...
    @overload
    def run(
        self,
        do: Callable[[], Awaitable[R]] | Callable[[Any], Awaitable[R]],
        undo: Callable[..., Any] | str,
        input: None = None,
        *,
        undo_input: object = ...,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        undo_retry: RetryPolicy | None = None,
    ) -> Task[R]: ...
    @overload
    def run(
        self,
        do: Callable[[I], Awaitable[R]] | Callable[[Any, I], Awaitable[R]],
        undo: Callable[..., Any] | str,
        input: I,
        *,
        undo_input: object = ...,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        undo_retry: RetryPolicy | None = None,
    ) -> Task[R]: ...
    @overload
    def run(
        self,
        do: Callable[[], R] | Callable[[Any], R],
        undo: Callable[..., Any] | str,
        input: None = None,
        *,
        undo_input: object = ...,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        undo_retry: RetryPolicy | None = None,
    ) -> Task[R]: ...
    @overload
    def run(
        self,
        do: Callable[[I], R] | Callable[[Any, I], R],
        undo: Callable[..., Any] | str,
        input: I,
        *,
        undo_input: object = ...,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        undo_retry: RetryPolicy | None = None,
    ) -> Task[R]: ...
    @overload
    def run(
        self,
        do: str,
        undo: Callable[..., Any] | str,
        input: object = None,
        *,
        undo_input: object = ...,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        undo_retry: RetryPolicy | None = None,
        result_type: type[R],
    ) -> Task[R]: ...
    @overload
    def run(
        self,
        do: str,
        undo: Callable[..., Any] | str,
        input: object = None,
        *,
        undo_input: object = ...,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        undo_retry: RetryPolicy | None = None,
        result_type: object = None,
    ) -> Task[Any]: ...

    def run(
        self,
        do: Any,
        undo: Any,
        input: Any = None,
        *,
        undo_input: Any = _THE_SAME,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        undo_retry: RetryPolicy | None = None,
        result_type: Any = None,
    ) -> Any:
        """The action is scheduled, and `undo` is registered; yield the task for the action's result.

        `do` is an activity (function or name), called with `input`, `retry` and `timeout` as by `ctx.call_activity`; or a task that was made in
        place: `saga.run(ctx.call_sub_orchestrator(book, trip), cancel)`. For anything else there is `add`.

        `undo` is an activity (function or name), or a generator function. An activity gets the action's `input` if `undo_input` does not give
        another, a generator function nothing. An `undo_input` that is a function is called when it comes to undoing, with the action's result, or
        with None where the action failed or nobody knows its result. `undo_retry` takes the place of the saga's own.

        An action that is under way when the saga fails is waited for before it is undone. Of a map nothing more begins then: its children at work are
        asked to cancel, and all that is at work is waited for.

        Raises:
            EncodeError, InvalidArgumentError: an input cannot travel as a payload, or is none, or `undo` cannot be called with what it gets;
                nothing is scheduled or registered.
            UnknownNameError: a function is not registered as an activity, and is no generator function.
            OrchestratorError: the saga is over.
        """
        site = site_of(_frame(1))
        self._check_open("run", site)
        if isinstance(do, Task):
            if input is not None or retry is not None or timeout is not None:
                raise InvalidArgumentError(f"{site}: {do!r} is under way: what it takes was said where it was made")
            step = self._step(undo, undo_input, None, undo_retry, site)
            step.task = do
            self._steps.append(step)
            return do
        if isgeneratorfunction(do):
            raise InvalidArgumentError(
                f"{site}: saga.run takes an activity or a task; for a generator call saga.add(undo), then `yield from` it"
            )
        plan = self._environment.activity(do)
        payload = None if input is None else self._environment.codec.encode(input, f"input of activity '{plan.name}'")
        decode = plan.decode if result_type is None else self._environment.codec.decoder(result_type)
        values, predicate = plan.retry, plan.predicate
        if retry is not None:
            values, predicate = retry.values(), retry.predicate
        limit = plan.timeout_microseconds if timeout is None else _positive(timeout)
        step = self._step(undo, undo_input, input, undo_retry, site)
        self._steps.append(step)
        step.task = self._schedule(plan.name, payload, site, values, limit, decode, predicate)
        return step.task

    def add(
        self, undo: Callable[..., Any] | str, undo_input: object = None, *, undo_retry: RetryPolicy | None = None
    ) -> None:
        """The compensation is registered for what the body did in another way; otherwise as for `run`.

        Raises:
            EncodeError, InvalidArgumentError, UnknownNameError, OrchestratorError: as for `run`.
        """
        site = site_of(_frame(1))
        self._check_open("add", site)
        given = _THE_SAME if undo_input is None and isgeneratorfunction(undo) else undo_input
        self._steps.append(self._step(undo, given, None, undo_retry, site))

    # ---- registering

    def _check_open(self, what: str, site: str) -> None:
        if self._is_over:
            raise OrchestratorError(
                f"{site}: saga.{what} was called on a saga that is over: what it does could not be undone any more"
            )

    def _step(self, undo: Any, undo_input: Any, same: object, retry: RetryPolicy | None, site: str) -> _Step:
        policy = retry or self._undo_retry
        from_result: Callable[[Any], object] | None = None
        if undo_input is not _THE_SAME and callable(undo_input):
            from_result = undo_input
        if isgeneratorfunction(undo):
            policy = policy or PATIENCE
            name = getattr(undo, "__name__", "a generator")
            called = undo
            gets = () if undo_input is _THE_SAME else (undo_input,)
            _check_call(name, undo, gets, site)
            if gets and from_result is None:
                called = partial(undo, undo_input)
            return _Step(name, site, called, None, None, from_result, policy.values(), policy.predicate)
        plan = self._environment.activity(undo)
        payload = None
        if from_result is None:
            given = same if undo_input is _THE_SAME else undo_input
            payload = None if given is None else self._encode(given, plan.name)
        values, predicate = plan.retry, plan.predicate
        if policy is not None or values is None:
            values, predicate = (policy or PATIENCE).values(), (policy or PATIENCE).predicate
        return _Step(plan.name, site, None, plan, payload, from_result, values, predicate)

    def _encode(self, value: object, name: str) -> Payload:
        return self._environment.codec.encode(value, f"input of compensation '{name}'")

    # ---- undoing

    def _undo(self) -> Generator[Task[Any], Any, None]:
        """Everything is undone. Never raises an error of a compensation's."""
        self._is_over = True
        for step in reversed(self._steps):
            self._stop_maps(step.task)
        if self._is_parallel:
            for step in reversed(self._steps):
                yield from self._await_end(step.task)
            begun = [self._begin(step) for step in reversed(self._steps) if step.undo is None]
            self._steps = [step for step in self._steps if step.undo is not None]
            yield from self._undo_in_order()
            for task in begun:
                yield from _over(task)
        else:
            yield from self._undo_in_order()

    def _undo_in_order(self) -> Generator[Task[Any], Any, None]:
        while self._steps:
            step = self._steps[-1]
            yield from self._await_end(step.task)
            if step.undo is None:
                yield from _over(self._begin(step))
            else:
                yield from self._run_through(step, step.undo)
            self._steps.pop()

    def _stop_maps(self, task: Task[Any] | None) -> None:
        """Nothing more begins of the maps that the task is made of, whenever their turn to be undone comes."""
        if task is None or task.is_complete:
            return
        for leaf in leaves(task):
            if isinstance(leaf, MapTask) and not leaf.is_complete and not leaf.is_stopping:
                leaf.is_stopping = True
                self._decisions.add(StopMap(leaf.id))

    def _await_end(self, task: Task[Any] | None) -> Generator[Task[Any], Any, None]:
        """Nobody is at work for the task any more: only then is it known what there is to undo.

        Activities are waited for. So are sub-orchestrations, which are asked to cancel: what they come to would be undone in any case; and what a
        map has at work, which has been asked to stop. Timers, events and locks are nobody's work, and given up.
        """
        if task is None or task.is_complete:
            return
        at_work = [leaf for leaf in leaves(task) if not isinstance(leaf, TimerTask | EventTask | LockTask)]
        for leaf in at_work:
            if isinstance(leaf, SubOrchestrationTask) and not leaf.is_complete:
                self._decisions.add(AskInstance("", "cancel", leaf.id))
        for leaf in at_work:
            yield from _over(leaf)
        task.cancel()

    def _begin(self, step: _Step) -> Task[Any]:
        assert step.plan is not None  # noqa: S101 - what is no generator function is an activity
        payload = step.input
        if step.from_result is not None:
            try:
                value = step.from_result(step.result)
                payload = None if value is None else self._encode(value, step.name)
            except Exception as error:
                self._fault(step, error)
        problem = self._problem(step, "was to undo at the same time") if self._is_parallel else self._problem(step)
        values = replace(step.retry, park=problem)
        limit = step.plan.timeout_microseconds
        return self._schedule(step.plan.name, payload, step.site, values, limit, None, step.predicate)

    def _run_through(self, step: _Step, undo: Callable[..., Any]) -> Generator[Task[Any], Any, None]:
        """A compensation that is a generator, from the top until it gets through."""
        began = self._decisions.now
        attempt = 0
        while True:
            attempt += 1
            try:
                yield from undo() if step.from_result is None else undo(step.from_result(step.result))
            except (TaskError, TaskCanceledError, TimeoutError) as error:
                failure = FailureDetails.of(error)
            except (GeneratorExit, Diverged, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._fault(step, error)
            else:
                return
            retry_at = next_attempt_at(
                step.retry,
                attempt=attempt,
                failure=failure,
                scheduled_at=began,
                now=self._decisions.now,
                random=Random(f"{self._decisions.instance_id}/{self._decisions.next_id}"),  # noqa: S311 - replayable
                predicate=step.predicate,
            )
            yield self._mending(step, failure) if retry_at is None else self._pause(retry_at, step.site)

    def _mending(self, step: _Step, failure: FailureDetails) -> Task[Any]:
        values = replace(_ONCE.values(), park=self._problem(step))
        return self._schedule(MENDING, self._encode(str(failure), MENDING), step.site, values, None, None, None)

    def _pause(self, until: int, site: str) -> Task[None]:
        decisions = self._decisions
        id = decisions.take_id()
        decisions.add(CreateTimer(id, until, site))
        task = TimerTask(id, "timer", None, decisions)
        decisions.open[id] = task
        return task

    def _schedule(
        self,
        name: str,
        payload: Payload,
        site: str,
        retry: RetryValues | None,
        timeout_microseconds: int | None,
        decode: Callable[..., Any] | None,
        predicate: Callable[[FailureDetails], bool] | None,
    ) -> Task[Any]:
        decisions = self._decisions
        id = decisions.take_id()
        decisions.add(TaskScheduled(id, name, payload, site, retry, timeout_microseconds))
        task: ActivityTask[Any] = ActivityTask(id, name, decode, decisions, predicate)
        decisions.open[id] = task
        return task

    def _problem(self, step: _Step, beside: str = "is left to undo besides") -> str:
        """What an instance is parked with where the compensation gives out: what it is, and what is left to undo besides.

        `beside` says what there is of the others: where they are undone at the same time, nobody knows yet which of them will be left.
        """
        left = ", ".join(f"{other.name} ({other.site})" for other in reversed(self._steps) if other is not step)
        return (
            f"compensation '{step.name}' (registered at {step.site}) failed for good"
            f"{f', and this {beside}: {left}' if left else ', the last that was left to undo'}"
        )

    def _fault(self, step: _Step, error: BaseException) -> NoReturn:
        """The code of a compensation is wrong: this episode does not count, and happens again with other code."""
        fault = CompensationError(f"{self._problem(step)}: {FailureDetails.of(error)}")
        fault.__cause__ = error
        self._decisions.fault(fault)
        raise Diverged


def run_saga(
    body: Callable[[Saga], Any],
    decisions: Decisions,
    environment: Environment,
    *,
    is_parallel: bool,
    undo_retry: RetryPolicy | None,
    site: str,
) -> Generator[Task[Any], Any, Any]:
    """The body's result; or its error, when everything that it had begun is undone."""
    if decisions.ending is not None:
        raise OrchestratorError(f"{site}: a saga was begun after continue_as_new at {decisions.ending.site}")
    saga = Saga(decisions, environment, is_parallel=is_parallel, undo_retry=undo_retry)
    outer = decisions.saga
    first_id = decisions.next_id
    decisions.saga = saga
    try:
        made = body(saga)
        result = (yield from made) if isinstance(made, Generator) else made
    except (GeneratorExit, Diverged, KeyboardInterrupt):
        raise
    except BaseException:
        decisions.shields += 1
        try:
            if saga._steps:
                decisions.note_undoing(first_id)
            _leave_line(decisions, first_id)
            yield from saga._undo()
        finally:
            decisions.shields -= 1
        raise
    finally:
        saga._is_over = True
        decisions.saga = outer
    if isinstance(outer, Saga) and not outer._is_over:
        outer._steps += saga._steps
    return result


def _leave_line(decisions: Decisions, first_id: int) -> None:
    """The locks that the body asked for, with that id or a later one, and has not got, are given up: compensations may want locks of their own."""
    section = decisions.section
    if section is not None and not section.is_granted and section.event_id >= first_id:
        lock = decisions.open.get(section.event_id)
        if lock is not None:
            lock.cancel()


def _check_call(name: str, undo: Callable[..., Any], given: tuple[Any, ...], site: str) -> None:
    """Returns where the generator function takes what it will be given: when it comes to undoing it is late to learn that it does not."""
    try:
        signature(undo).bind(*given)
    except TypeError as error:
        what = "its undo_input" if given else "nothing, where there is no undo_input"
        raise InvalidArgumentError(
            f"{site}: compensation '{name}' cannot be called: {error}. A generator function gets {what}; for a sub-orchestration "
            "give one that yields ctx.call_sub_orchestrator(...)"
        ) from None


def _over(task: Task[Any]) -> Generator[Task[Any], Any, None]:
    """The task has ended, in whatever way."""
    if not task.is_complete:
        try:
            yield task
        except Exception:  # noqa: S110 - an action may fail: that is why it is undone
            pass


def _positive(timeout: timedelta) -> int:
    if timeout <= timedelta(0):
        raise InvalidArgumentError(f"timeout is {timeout}; it must be longer than nothing")
    return stored_duration(timeout)
