"""What the body of `ctx.saga` is handed, and how the body is run. How what it did is undone is in `undoing`."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator
from datetime import timedelta
from functools import partial
from inspect import isgeneratorfunction, signature
from typing import Any, TypeVar, overload

from replayflow.core.decisions import Decisions, Diverged
from replayflow.core.definitions import Environment
from replayflow.core.saga.undoing import Step, Undoing, encode_input, schedule
from replayflow.core.sites import site_of
from replayflow.core.tasks import Task
from replayflow.errors import InvalidArgumentError, OrchestratorError, PayloadError
from replayflow.retry import RetryPolicy, stored_duration

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
_frame = sys._getframe
PATIENCE = RetryPolicy(
    max_attempts=1_000,
    first_interval=timedelta(seconds=1),
    max_interval=timedelta(minutes=10),
    jitter=0.2,
    non_retryable=PayloadError,
)
"""How a compensation is retried where nobody says otherwise: at once often, then every ten minutes, for about a week. One that cannot read what it is
given never will: that parks the instance at once."""
_THE_SAME: Any = object()


class Saga:
    """Handed to the body of `ctx.saga`: what is run through it is undone where the body ends with an error."""

    __slots__ = ("_decisions", "_environment", "_is_over", "_steps", "_undo_retry")

    def __init__(self, decisions: Decisions, environment: Environment, undo_retry: RetryPolicy | None) -> None:
        self._decisions = decisions
        self._environment = environment
        self._undo_retry = undo_retry
        self._steps: list[Step] = []
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
        step.task = schedule(self._decisions, plan.name, payload, site, values, limit, decode, predicate)
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

    def _check_open(self, what: str, site: str) -> None:
        if self._is_over:
            raise OrchestratorError(
                f"{site}: saga.{what} was called on a saga that is over: what it does could not be undone any more"
            )

    def _step(self, undo: Any, undo_input: Any, same: object, retry: RetryPolicy | None, site: str) -> Step:
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
            return Step(name, site, called, None, None, from_result, policy.values(), policy.predicate)
        plan = self._environment.activity(undo)
        payload = None
        if from_result is None:
            given = same if undo_input is _THE_SAME else undo_input
            payload = None if given is None else encode_input(self._environment.codec, given, plan.name)
        values, predicate = plan.retry, plan.predicate
        if policy is not None or values is None:
            values, predicate = (policy or PATIENCE).values(), (policy or PATIENCE).predicate
        return Step(plan.name, site, None, plan, payload, from_result, values, predicate)


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
    saga = Saga(decisions, environment, undo_retry)
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
            saga._is_over = True
            yield from Undoing(saga._steps, decisions, environment.codec, is_parallel=is_parallel).run()
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


def _positive(timeout: timedelta) -> int:
    if timeout <= timedelta(0):
        raise InvalidArgumentError(f"timeout is {timeout}; it must be longer than nothing")
    return stored_duration(timeout)
