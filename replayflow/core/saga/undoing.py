"""How a saga undoes what it did: what is at work is waited for, then one compensation after the other runs until it gets through."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from random import Random
from typing import Any, NoReturn

from msgspec.structs import replace

from replayflow.codec import Codec, Payload
from replayflow.core.actions import AskInstance, CreateTimer, StopMap
from replayflow.core.decisions import Decisions, Diverged
from replayflow.core.definitions import CallPlan
from replayflow.core.entity.sections import LockTask
from replayflow.core.events import TaskScheduled
from replayflow.core.map.result import MapTask
from replayflow.core.tasks import ActivityTask, EventTask, SubOrchestrationTask, Task, TimerTask, leaves
from replayflow.errors import CompensationError, FailureDetails, TaskCanceledError, TaskError
from replayflow.retry import RetryPolicy, RetryValues, next_attempt_at

MENDING = "replayflow.mending"
"""The activity that a compensation without a task of its own waits for: its first attempt fails, and parks the instance; the next succeeds."""
_ONCE = RetryPolicy(max_attempts=1)


@dataclass(slots=True)
class Step:
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


class Undoing:
    """The end of a saga that failed: each of its `steps` is undone and struck from the list, the last first."""

    __slots__ = ("_codec", "_decisions", "_is_parallel", "_steps")

    def __init__(self, steps: list[Step], decisions: Decisions, codec: Codec, *, is_parallel: bool) -> None:
        self._steps = steps
        self._decisions = decisions
        self._codec = codec
        self._is_parallel = is_parallel

    def run(self) -> Generator[Task[Any], Any, None]:
        """Everything is undone. Never raises an error of a compensation's."""
        for step in reversed(self._steps):
            self._stop_maps(step.task)
        if self._is_parallel:
            for step in reversed(self._steps):
                yield from self._await_end(step.task)
            begun = [self._begin(step) for step in reversed(self._steps) if step.undo is None]
            self._steps[:] = [step for step in self._steps if step.undo is not None]
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

    def _begin(self, step: Step) -> Task[Any]:
        assert step.plan is not None  # noqa: S101 - what is no generator function is an activity
        payload = step.input
        if step.from_result is not None:
            try:
                value = step.from_result(step.result)
                payload = None if value is None else encode_input(self._codec, value, step.name)
            except Exception as error:
                self._fault(step, error)
        problem = self._problem(step, "was to undo at the same time") if self._is_parallel else self._problem(step)
        values = replace(step.retry, park=problem)
        limit = step.plan.timeout_microseconds
        return schedule(self._decisions, step.plan.name, payload, step.site, values, limit, None, step.predicate)

    def _run_through(self, step: Step, undo: Callable[..., Any]) -> Generator[Task[Any], Any, None]:
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

    def _mending(self, step: Step, failure: FailureDetails) -> Task[Any]:
        values = replace(_ONCE.values(), park=self._problem(step))
        payload = encode_input(self._codec, str(failure), MENDING)
        return schedule(self._decisions, MENDING, payload, step.site, values, None, None, None)

    def _pause(self, until: int, site: str) -> Task[None]:
        decisions = self._decisions
        id = decisions.take_id()
        decisions.add(CreateTimer(id, until, site))
        task = TimerTask(id, "timer", None, decisions)
        decisions.open[id] = task
        return task

    def _problem(self, step: Step, beside: str = "is left to undo besides") -> str:
        """What an instance is parked with where the compensation gives out: what it is, and what is left to undo besides.

        `beside` says what there is of the others: where they are undone at the same time, nobody knows yet which of them will be left.
        """
        left = ", ".join(f"{other.name} ({other.site})" for other in reversed(self._steps) if other is not step)
        return (
            f"compensation '{step.name}' (registered at {step.site}) failed for good"
            f"{f', and this {beside}: {left}' if left else ', the last that was left to undo'}"
        )

    def _fault(self, step: Step, error: BaseException) -> NoReturn:
        """The code of a compensation is wrong: this episode does not count, and happens again with other code."""
        fault = CompensationError(f"{self._problem(step)}: {FailureDetails.of(error)}")
        fault.__cause__ = error
        self._decisions.fault(fault)
        raise Diverged


def schedule(
    decisions: Decisions,
    name: str,
    payload: Payload,
    site: str,
    retry: RetryValues | None,
    timeout_microseconds: int | None,
    decode: Callable[..., Any] | None,
    predicate: Callable[[FailureDetails], bool] | None,
) -> Task[Any]:
    """The activity is asked for, with all that is said of it here; its plan says nothing."""
    id = decisions.take_id()
    decisions.add(TaskScheduled(id, name, payload, site, retry, timeout_microseconds))
    task: ActivityTask[Any] = ActivityTask(id, name, decode, decisions, predicate)
    decisions.open[id] = task
    return task


def encode_input(codec: Codec, value: object, name: str) -> Payload:
    """What the compensation of that name is given."""
    return codec.encode(value, f"input of compensation '{name}'")


def _over(task: Task[Any]) -> Generator[Task[Any], Any, None]:
    """The task has ended, in whatever way."""
    if not task.is_complete:
        try:
            yield task
        except Exception:  # noqa: S110 - an action may fail: that is why it is undone
            pass
