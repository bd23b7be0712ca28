"""The context: all that an orchestrator may ask of the world. Everything it answers replays.

1. A call schedules when it is made, not when it is yielded.
2. Values are encoded at the call that passes them: what cannot be stored fails there, before an id is taken or anything is written (I11).
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from logging import Logger, LoggerAdapter, getLogger
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from replayflow.clock import to_datetime, to_microseconds
from replayflow.core import ids, origins
from replayflow.core.actions import CompleteOrchestration, CreateSubOrchestration, CreateTimer, SendEvent
from replayflow.core.decisions import Decisions, settle
from replayflow.core.definitions import CallPlan, Environment
from replayflow.core.entity_calls import EntityCalls
from replayflow.core.events import ExecutionStarted, TaskScheduled, microseconds
from replayflow.core.maps import MapContext
from replayflow.core.recording import RecordContext
from replayflow.core.saga import Saga, run_saga
from replayflow.core.sites import site_of
from replayflow.core.tasks import ActivityTask, EventTask, Orchestration, SubOrchestrationTask, Task, TimerTask
from replayflow.core.transaction import Transaction
from replayflow.errors import ActivityCancelled, InvalidArgumentError, OrchestratorError
from replayflow.retry import RetryPolicy, stored_duration

if TYPE_CHECKING:
    _Adapter = LoggerAdapter[Logger]
else:
    _Adapter = LoggerAdapter

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
_frame = sys._getframe
EVENT_NAME_CHARS_MAX = 256
_TIME_MIN = to_microseconds(datetime.min.replace(tzinfo=UTC))
_TIME_MAX = to_microseconds(datetime.max.replace(tzinfo=UTC))


class Heart(Protocol):
    """What an activity's context beats upon."""

    def beat(self, detail: object) -> None: ...
    def last(self) -> Any: ...


class ActivityContext:
    """What an activity may ask about the attempt that it is; pass it by annotating the activity's first parameter with this class.

    `attempt` counts from 1. `idempotency_key` is the same for every attempt and after every restart: give it to services that de-duplicate.
    """

    __slots__ = ("_heart", "_is_cancelled", "attempt", "idempotency_key", "instance_id", "logger", "name", "task_id")

    def __init__(
        self,
        instance_id: str,
        task_id: int,
        attempt: int,
        idempotency_key: str,
        name: str,
        is_cancelled: Callable[[], bool],
        heart: Heart,
    ) -> None:
        self.instance_id = instance_id
        self.task_id = task_id
        self.attempt = attempt
        self.idempotency_key = idempotency_key
        self.name = name
        self.logger = getLogger(f"replayflow.activity.{name}")
        self._is_cancelled = is_cancelled
        self._heart = heart

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any longer: a long activity in a thread looks now and then, and stops.

        True after a time limit, when the orchestration was ended or has given the activity up, and when the worker stops and its grace is over. An
        `async def` is told by a `CancelledError`; a process is killed.
        """
        return self._is_cancelled()

    def raise_if_cancelled(self) -> None:
        """Returns where somebody waits for the result.

        Raises:
            ActivityCancelled: nobody does any longer.
        """
        if self._is_cancelled():
            raise ActivityCancelled(f"nobody waits for activity '{self.name}' (task {self.task_id}) any longer")

    def heartbeat(self, detail: object = None) -> None:
        """The activity is alive and, with a detail, has come so far: the next attempt finds the last detail in `last_heartbeat`.

        May be called from any thread, and often: what is said between two writings, a second apart and in a long run up to ten, costs an encoding.
        After a failure or a time limit the next attempt has the very last detail, after the death of the worker the last one that was written.
        Without a detail the last one stays as it was. Where the activity was registered with a `heartbeat_timeout`, beats have to follow each other
        within that time.

        Raises:
            EncodeError: the detail cannot travel as a payload.
        """
        self._heart.beat(detail)

    @property
    def last_heartbeat(self) -> Any:
        """The last detail that an earlier attempt told, in this worker or another; None where none did. Dataclasses and models come as dicts."""
        return self._heart.last()


class ReplaySafeLogger(_Adapter):
    """A logger that is silent while the orchestrator is replaying, so that each line is logged once per worker that lives through it.

    It is silent, too, while a generator that is not needed any more is closed: its `finally` runs again when the orchestration really gets there.
    """

    def __init__(self, logger: Logger, decisions: Decisions) -> None:
        super().__init__(logger, {"instance_id": decisions.instance_id})
        self._decisions = decisions

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is logging's
        decisions = self._decisions
        return not (decisions.is_replaying or decisions.is_sealed) and super().isEnabledFor(level)


class OrchestrationContext(MapContext, EntityCalls, RecordContext):
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

    # ---- work

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
            decisions.found(then)
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
            ids.check_instance_id(instance_id)
        ids.check_version(version)
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

    # ---- time and events

    def create_timer(self, fire_at: datetime | timedelta) -> TimerTask:
        """A durable timer that completes at the time, or after the duration; one in the past completes at once. `.cancel()` drops it.

        Raises:
            InvalidArgumentError: the datetime is naive, or the time is after the year 9999.
        """
        return self._timer(self._moment(fire_at), site_of(_frame(1)))

    @overload
    def wait_for_external_event(
        self, name: str, *, type: type[R], timeout: timedelta | datetime | None = None
    ) -> Task[R]: ...
    @overload
    def wait_for_external_event(
        self, name: str, *, type: object = None, timeout: timedelta | datetime | None = None
    ) -> Task[Any]: ...

    def wait_for_external_event(
        self, name: str, *, type: Any = None, timeout: timedelta | datetime | None = None
    ) -> Task[Any]:
        """A task that completes with the payload of the next event of the name (case does not matter), rebuilt as `type`.

        Events that came before are served first, oldest first; several waiters are served in the order in which they began to wait. With `timeout`
        the wait fails with `TimeoutError` when that time has passed.

        Raises:
            InvalidArgumentError: the name is none, or the time limit is a naive datetime.
        """
        decisions = self._decisions
        check_event_name(name)
        fire_at = None if timeout is None else self._moment(timeout)
        decode = None if decisions.is_sealed else self._environment.codec.decoder(Any if type is None else type)
        task: EventTask[Any] = EventTask(0, name, decode, decisions)
        event = decisions.take_event(name.casefold())
        if event is not None:
            settle(task, event.input)
            return task
        if fire_at is not None:
            decisions.limit(task, self._timer(fire_at, site_of(_frame(1))))
        decisions.waiting.setdefault(name.casefold(), []).append(task)
        return task

    def send_event(self, instance_id: str, name: str, payload: object = None) -> None:
        """An event is on its way to the instance, delivered exactly once.

        One for an instance that is unknown or has finished is dropped, with a warning.

        Raises:
            EncodeError, InvalidArgumentError, OrchestratorError: as elsewhere; nothing is sent.
        """
        ids.check_instance_id(instance_id)
        check_event_name(name)
        encoded = self._environment.codec.encode(payload, f"payload of event '{name}'")
        self._decisions.add(SendEvent(self._decisions.take_id(), instance_id, name, encoded, site_of(_frame(1))))

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
        ids.check_version(version)
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

    # ---- helpers

    def _timer(self, fire_at: int, site: str) -> TimerTask:
        decisions = self._decisions
        id = decisions.take_id()
        decisions.add(CreateTimer(id, fire_at, site))
        task = TimerTask(id, "timer", None, decisions)
        decisions.open[id] = task
        return task

    def _moment(self, when: datetime | timedelta) -> int:
        if isinstance(when, timedelta):
            at = self._decisions.now + (microseconds(when) or 0)
            if at > _TIME_MAX:
                raise InvalidArgumentError(f"{when!r} from now is after the year 9999, which no time can be")
            return max(at, _TIME_MIN)
        if not isinstance(when, datetime):
            raise InvalidArgumentError(f"a timer takes a datetime or a timedelta, and was given {when!r:.80}")
        if when.tzinfo is None or when.utcoffset() is None:
            raise InvalidArgumentError(
                f"{when!r} is naive: a timer needs a datetime with a time zone, such as ctx.current_utc_datetime + timedelta(hours=1)"
            )
        return to_microseconds(when.astimezone(UTC))


def check_event_name(name: object) -> str:
    """The event's name, if it is one.

    Raises:
        InvalidArgumentError: it is no text, empty, or longer than 256 characters.
    """
    if not isinstance(name, str) or not 0 < len(name) <= EVENT_NAME_CHARS_MAX:
        raise InvalidArgumentError(
            f"{name!r:.80} is no event name: it is text of 1 to {EVENT_NAME_CHARS_MAX} characters"
        )
    return name


def _changed(
    plan: CallPlan, retry: RetryPolicy | None, timeout: timedelta | None, decode: Callable[..., Any] | None
) -> CallPlan:
    """The plan, but for what this call says otherwise."""
    if retry is not None:
        plan = replace(plan, retry=retry.values(), predicate=retry.predicate)
    if timeout is not None:
        plan = replace(plan, timeout_microseconds=_positive(timeout, "timeout"))
    return plan if decode is None else replace(plan, decode=decode)


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags, if they are text by text that can be stored.

    Raises:
        InvalidArgumentError: they are not.
    """
    if not isinstance(tags, Mapping):
        raise InvalidArgumentError(f"tags are {tags!r:.80}; they are a mapping of text by text")
    for key, value in tags.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidArgumentError(f"tags are text by text, and {key!r:.80}: {value!r:.80} is not")
        if "\0" in key + value or not ids.is_unicode(key + value):
            raise InvalidArgumentError(f"the tag {key!a:.80}: {value!a:.80} has a character that cannot be stored")
    return dict(tags)


def _positive(duration: timedelta, what: str) -> int:
    if duration <= timedelta(0):
        raise InvalidArgumentError(f"{what} is {duration}; it must be longer than nothing")
    return stored_duration(duration)
