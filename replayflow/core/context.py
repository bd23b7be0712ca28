"""The context: all that an orchestrator may ask of the world. Everything it answers replays.

1. A call schedules when it is made, not when it is yielded.
2. Values are encoded at the call that passes them: what cannot be stored fails there, before an id is taken or anything is written (I11).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from datetime import datetime
from logging import Logger, LoggerAdapter, getLogger
from random import Random
from typing import Any, TypeVar, overload

from replayflow.clock import to_datetime
from replayflow.core import ids, origins
from replayflow.core.actions import CompleteOrchestration, CreateSubOrchestration
from replayflow.core.activity_calls import ActivityCalls
from replayflow.core.decisions import Decisions
from replayflow.core.definitions import CallPlan, Environment
from replayflow.core.entity.calls import EntityCalls
from replayflow.core.events import ExecutionStarted
from replayflow.core.labels import check_tags
from replayflow.core.map.maps import MapContext
from replayflow.core.recording import RecordContext
from replayflow.core.replay_logger import ReplaySafeLogger
from replayflow.core.saga import Saga, run_saga
from replayflow.core.sites import site_of
from replayflow.core.tasks import Orchestration, SubOrchestrationTask, Task
from replayflow.core.timers_and_events import TimersAndEvents
from replayflow.errors import OrchestratorError
from replayflow.retry import RetryPolicy

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
_frame = sys._getframe


class OrchestrationContext(ActivityCalls, TimersAndEvents, MapContext, EntityCalls, RecordContext):
    """Handed to an orchestrator as its first argument; belongs to one execution of one instance."""

    __slots__ = ("_decisions", "_environment", "_logger", "_random", "_started", "_uuids")

    def __init__(self, started: ExecutionStarted, decisions: Decisions, environment: Environment) -> None:
        self._started = started
        self._decisions = decisions
        self._environment = environment
        self._random: Random | None = None
        self._logger: ReplaySafeLogger | None = None
        self._uuids = 0

    # ---- who and when

    @property
    def instance_id(self) -> str:
        return self._started.instance_id

    @property
    def execution_id(self) -> str:
        """The id of this execution: a new one after every continue-as-new."""
        return self._started.execution_id

    @property
    def name(self) -> str:
        """The orchestrator's registered name."""
        return self._started.name

    @property
    def version(self) -> str | None:
        return self._started.version

    @property
    def parent_instance_id(self) -> str | None:
        """The instance that called this one as a sub-orchestration; None where a client started it."""
        parent = self._started.parent_instance
        return None if parent is None or parent.event else parent.instance_id

    @property
    def tags(self) -> Mapping[str, str]:
        return self._started.tags or {}

    @property
    def is_replaying(self) -> bool:
        """Whether what runs now has run before: true while history is replayed, false for what is decided anew."""
        return self._decisions.is_replaying

    @property
    def current_utc_datetime(self) -> datetime:
        """The time of the episode, aware and in UTC; the same on every replay."""
        return to_datetime(self._decisions.now)

    @property
    def random(self) -> Random:
        """A random generator seeded per execution; the same numbers on every replay. After a rewind, and in a fork, it goes on as it would have."""
        if self._random is None:
            self._random = Random("/".join(origins.root(self._started)))  # noqa: S311 - replayable, not secret
        return self._random

    @property
    def logger(self) -> LoggerAdapter[Logger]:
        """A logger that is silent while replaying."""
        if self._logger is None:
            self._logger = ReplaySafeLogger(getLogger(f"replayflow.orchestrator.{self.name}"), self._decisions)
        return self._logger

    def new_uuid(self) -> str:
        """A UUIDv5 in text form, the same on every replay (made by durabletask-python's formula)."""
        count = self._uuids
        self._uuids = count + 1
        whose, _ = origins.identity_at(self._started, self._decisions.now)
        return ids.new_uuid(whose, self.current_utc_datetime, count)

    @overload
    def call_sub_orchestrator(
        self,
        orchestrator: Callable[[OrchestrationContext, I], Orchestration[R]],
        input: I,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        retry: RetryPolicy | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_sub_orchestrator(
        self,
        orchestrator: Callable[[OrchestrationContext], Orchestration[R]],
        input: None = None,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        retry: RetryPolicy | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_sub_orchestrator(
        self,
        orchestrator: Callable[..., Any] | str,
        input: object = None,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        retry: RetryPolicy | None = None,
        tags: Mapping[str, str] | None = None,
        result_type: object = None,
    ) -> Task[Any]: ...

    def call_sub_orchestrator(
        self,
        orchestrator: Any,
        input: Any = None,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        retry: RetryPolicy | None = None,
        tags: Mapping[str, str] | None = None,
        result_type: Any = None,
    ) -> Task[Any]:
        """Another orchestration is started as a child of this one; yield the task for its result.

        Without `instance_id` the child is called `{this id}:{action id:04x}`. An explicit id that is taken fails the call. At the yield:
        `SubOrchestrationError` where the child failed, was terminated, or could not be started. Terminating this instance terminates it, too.

        Raises:
            EncodeError, UnknownNameError, OrchestratorError: as for `call_activity`.
            InvalidArgumentError: the instance id is none, or the version no text.
        """
        decisions = self._decisions
        environment = self._environment
        plan: CallPlan = environment.orchestrator(orchestrator)
        payload = environment.codec.encode(input, f"input of sub-orchestration '{plan.name}'")
        if instance_id is not None:
            instance_id = ids.check_instance_id(instance_id)
        version = ids.check_version(version)
        decisions.refuse_in_section(f"{site_of(_frame(1))}: sub-orchestration '{plan.name}'")
        id = decisions.take_id()
        started = self._started
        decisions.add(
            CreateSubOrchestration(
                id,
                instance_id or ids.child_id(started.instance_id, started.execution_id, id, started.is_first),
                plan.name,
                payload,
                version=version or plan.version,
                site=site_of(_frame(1)),
                retry=None if retry is None else retry.values(),
                tags=None if tags is None else check_tags(tags),
            )
        )
        decode = plan.decode if result_type is None else environment.codec.decoder(result_type)
        predicate = None if retry is None else retry.predicate
        task: SubOrchestrationTask[Any] = SubOrchestrationTask(id, plan.name, decode, decisions, predicate)
        decisions.open[id] = task
        return task

    # ---- other code under a running instance

    def patched(self, name: str) -> bool:
        """Whether this execution runs the code as the patch has it: `if ctx.patched("ship-first"): new ... else: old ...`.

        True for executions that come to the place now or later, and recorded; False for those whose history is past it, which go on as they
        were. The first answer for a name counts for the whole execution: a loop that was running does not change over, `continue_as_new` does. When
        `replayflow check` shows that no instance needs the old branch, it and the call can go.

        Raises:
            InvalidArgumentError: the name is none.
        """
        return self._decisions.patched(ids.check_patch(name), site_of(_frame(1)))

    # ---- undoing

    def saga(
        self,
        body: Callable[[Saga], Generator[Any, Any, R]],
        *,
        parallel: bool = False,
        undo_retry: RetryPolicy | None = None,
    ) -> Orchestration[R]:
        """`result = yield from ctx.saga(body)` is the result of `body(saga)`, a generator that works with `yield from saga.run(do, undo, input)`.

        Where the body ends with an error, a request to cancel among them, everything that it had begun is undone, the last first or with
        `parallel` at once, and then the error is raised here. Undoing is not interrupted by requests to cancel, which are heard afterwards. A
        compensation is retried by `undo_retry` (without it by the activity's own policy, or for about a week); when that gives out the instance is
        parked with what is left to undo, and goes on from there when it is resumed or a worker starts.

        Raises:
            OrchestratorError: the execution has already continued as new; in the body, where it calls `continue_as_new`.
        """
        return run_saga(
            body,
            self._decisions,
            self._environment,
            is_parallel=parallel,
            undo_retry=undo_retry,
            site=site_of(_frame(1)),
        )

    # ---- the execution itself

    def continue_as_new(self, input: object = None, *, save_events: bool = True, version: str | None = None) -> None:
        """When the orchestrator returns, the instance starts again from the top with the input and an empty history.

        Events that have come and were not waited for go with it, unless `save_events` is false. Nothing may follow this call but the return.

        Raises:
            OrchestratorError: it was called before in this execution, or inside a saga.
            EncodeError: the input cannot travel as a payload.
            InvalidArgumentError: the version is no text.
        """
        decisions = self._decisions
        if decisions.is_sealed:
            return
        site = site_of(_frame(1))
        if decisions.recording:
            raise OrchestratorError(
                f"{site}: continue_as_new was called by the function that ctx.record called: call it outside"
            )
        if decisions.ending is not None:
            raise OrchestratorError(f"{site}: continue_as_new was called already, at {decisions.ending.site}")
        if decisions.saga is not None:
            raise OrchestratorError(
                f"{site}: continue_as_new was called inside a saga, whose compensations would be forgotten: call it when ctx.saga has returned"
            )
        version = ids.check_version(version)
        encoded = self._environment.codec.encode(input, "input of continue_as_new")
        decisions.saves_events = save_events
        decisions.ending = CompleteOrchestration(
            decisions.take_id(), "CONTINUED_AS_NEW", encoded, new_version=version or self.version, site=site
        )

    def set_custom_status(self, value: object) -> None:
        """The value shows as `custom_status` to whoever asks for the instance's status, until it is set again.

        Raises:
            EncodeError: the value cannot travel as a payload.
        """
        self._decisions.set_custom_status(self._environment.codec.encode(value, "custom status"))
