"""The handle of a schedule, and what a client has to have so that there can be one.

A schedule is an instance, `schedule:NAME`, and its verbs are events: what a call has accepted survives any crash (I6), and a schedule that sleeps, or
has no worker, finds it later. What is wrong is refused before anything is written (I11).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal, Protocol, get_args

from replayflow.clock import Clock, to_datetime
from replayflow.codec import Codec
from replayflow.codec.sealed import EncryptedValue, sealed_error
from replayflow.core.instance import Status
from replayflow.core.labels import check_tags
from replayflow.errors import (
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    InvalidStateError,
)
from replayflow.patterns.schedule import (
    ID_PREFIX,
    REQUEST,
    Misfire,
    Overlap,
    Plan,
    Request,
    State,
    amended,
    run_id,
)
from replayflow.patterns.timing import before

BACKFILL_MAX = 10_000
_AS_IT_IS: Any = object()


class InstanceLike(Protocol):
    """The state of an instance, as far as schedules look at it."""

    @property
    def id(self) -> str: ...
    @property
    def status(self) -> Status: ...
    @property
    def input(self) -> Any: ...
    @property
    def problem(self) -> str | None: ...
    @property
    def created_at(self) -> datetime: ...


class Asks(Protocol):
    """What schedules need of a client."""

    _codec: Codec
    _clock: Clock

    def _lasting_version(self, orchestrator: Any, version: str | None) -> tuple[str, str | None]: ...
    def get(self, instance_id: str) -> Any: ...
    def list(self, *, status: Iterable[Status | str], name: str, large: bool) -> AsyncIterator[Any]: ...
    async def start(
        self,
        orchestrator: str,
        input: object,
        *,
        instance_id: str,
        on_existing: Literal["replace_finished", "terminate_and_replace"],
    ) -> Any: ...


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """A schedule as it was when it was read. Times are aware and in UTC."""

    name: str
    orchestrator: str
    input: Any
    every: timedelta | None
    cron: str | None
    zone: str
    start_at: datetime | None
    end_at: datetime | None
    jitter: timedelta
    overlap: Overlap
    misfire: Misfire
    catch_up_max: int
    grace: timedelta
    tags: Mapping[str, str]
    is_paused: bool
    reason: str
    """What whoever paused or resumed it gave as the reason."""
    next_at: datetime | None
    """The next scheduled time, before jitter; None while it is paused, and after the last."""
    running: list[str]
    """The runs that have not ended, but for those that may overlap."""
    waiting: str | None
    """The run that begins when no other is running."""
    last_run: str | None
    runs: int
    """How many runs it has started."""
    skipped: int
    """How many times had no run since another had not ended."""
    status: Status
    problem: str | None
    created_at: datetime


class Schedule:
    """The handle of one schedule: `name`, and everything that can be asked of it."""

    def __init__(self, client: Asks, name: str) -> None:
        self._client = client
        self.name = name

    def __repr__(self) -> str:
        return f"<Schedule '{self.name}'>"

    @property
    def instance_id(self) -> str:
        """The id of the instance that the schedule is."""
        return ID_PREFIX + self.name

    def run_id(self, time: datetime) -> str:
        """The id of the run at the scheduled time."""
        return run_id(self.name, time)

    async def status(self) -> ScheduleState:
        """The schedule as it is now.

        Raises:
            InstanceNotFoundError: there is none of the name. So do all methods of the handle.
        """
        return shown(self._client, await self._instance())

    async def pause(self, reason: str = "") -> None:
        """No time has a run from now on until `resume`; runs that have begun go on.

        Raises:
            InvalidStateError: the schedule has ended. So do all verbs.
        """
        await self._ask(Request("pause", _reason(reason)))

    async def resume(self, reason: str = "") -> None:
        """Times have their runs again, from now on; those that passed meanwhile have none (`backfill` runs them)."""
        await self._ask(Request("resume", _reason(reason)))

    async def trigger(self, *, overlap: Overlap | None = None) -> Any:
        """A run of the present time begins, paused or not; returns its handle.

        Where another run has not ended, `overlap`, or the schedule's own policy, says what happens; a run that is skipped never exists.
        """
        policy = None if overlap is None else one_of(overlap, Overlap, "overlap")
        now = to_datetime(self._client._clock.now())
        await self._ask(Request("trigger", at=now, overlap=policy))
        return self._client.get(self.run_id(now))

    async def backfill(self, start: datetime, end: datetime, *, overlap: Overlap = "allow") -> int:
        """The scheduled times of a past range, both ends included, have their runs, paused or not; returns how many times that are.

        A time that has had its run has no second one. By default the runs begin side by side, a hundred at a time.

        Raises:
            InvalidArgumentError: the range is not past, ends before it begins, or has more than 10,000 times.
        """
        start, end = aware(start, "start"), aware(end, "end")
        if not start <= end <= to_datetime(self._client._clock.now()):
            raise InvalidArgumentError(
                f"a backfill is for the past, from a start to an end; it was given {start} to {end}"
            )
        timing = (await self._state()).plan.timing
        after = before(start)
        count = 0
        for time in islice(timing.times(after), BACKFILL_MAX + 1):
            if time > end:
                break
            count += 1
        if count > BACKFILL_MAX:
            raise InvalidArgumentError(f"the range has more than {BACKFILL_MAX} times; backfill it in parts")
        await self._ask(Request("backfill", at=after, until=end, overlap=one_of(overlap, Overlap, "overlap")))
        return count

    async def update(
        self,
        *,
        orchestrator: Callable[..., Any] | str = _AS_IT_IS,
        input: object = _AS_IT_IS,
        every: timedelta = _AS_IT_IS,
        cron: str = _AS_IT_IS,
        zone: str = _AS_IT_IS,
        start_at: datetime | None = _AS_IT_IS,
        end_at: datetime | None = _AS_IT_IS,
        jitter: timedelta = _AS_IT_IS,
        overlap: Overlap = _AS_IT_IS,
        misfire: Misfire = _AS_IT_IS,
        catch_up_max: int = _AS_IT_IS,
        grace: timedelta = _AS_IT_IS,
        tags: Mapping[str, str] = _AS_IT_IS,
        version: str | None = _AS_IT_IS,
    ) -> None:
        """What is given is as given, the rest as it was; runs that have begun are left alone. Where two updates give the same, the later one counts.

        An interval takes the place of a cron expression and the other way round. Where the times change, those that are over have no run.

        Raises:
            UnknownNameError, EncodeError, InvalidArgumentError, ScheduleError: as for `create_schedule`.
        """
        client = self._client
        plan = (await self._state()).plan
        times = _given(zone=zone, start_at=start_at, end_at=end_at, jitter=jitter)
        if every is not _AS_IT_IS or cron is not _AS_IT_IS:
            times |= {
                "every": None if every is _AS_IT_IS else every,
                "cron": None if cron is _AS_IT_IS else cron,
                "anchor": to_datetime(client._clock.now()),
            }
        if times.get("start_at") is not None:
            times["anchor"] = times["start_at"] = aware(times["start_at"], "start_at")
        rest = _given(overlap=overlap, misfire=misfire, catch_up_max=catch_up_max, grace=grace)
        if orchestrator is not _AS_IT_IS:
            rest["orchestrator"], rest["version"] = client._lasting_version(orchestrator, None)
        if version is not _AS_IT_IS:
            called = rest.get("orchestrator", plan.orchestrator)
            _, rest["version"] = client._lasting_version(called, version)
        if input is not _AS_IT_IS:
            rest["input"] = encoded(client, input, rest.get("orchestrator", plan.orchestrator))
        if tags is not _AS_IT_IS:
            rest["tags"] = check_tags(tags)
        only = (*times, *rest)
        if only:
            wanted = replace(plan, timing=replace(plan.timing, **times), **rest)
            checked(amended(plan, wanted, only))
            await self._ask(Request("update", plan=wanted, only=only))

    async def delete(self, reason: str = "") -> None:
        """The schedule ends as soon as a worker sees the request; runs that have begun go on."""
        await self._instance()
        await self._client.get(self.instance_id).terminate(reason)

    async def _instance(self) -> InstanceLike:
        try:
            found: InstanceLike = await self._client.get(self.instance_id).status()
        except InstanceNotFoundError:
            raise InstanceNotFoundError(f"no schedule '{self.name}' is in the hub") from None
        return found

    async def _state(self) -> State:
        return _state(self._client, await self._instance())

    async def _ask(self, request: Request) -> None:
        if await self._client.get(self.instance_id)._is_being_terminated():
            raise InvalidStateError(f"schedule '{self.name}' is being deleted: there is nothing to {request.verb}")
        try:
            await self._client.get(self.instance_id).raise_event(REQUEST, request)
        except InstanceNotFoundError:
            raise InstanceNotFoundError(f"no schedule '{self.name}' is in the hub") from None
        except InstanceFinishedError:
            raise InvalidStateError(f"schedule '{self.name}' has ended: there is nothing to {request.verb}") from None


def shown(client: Asks, instance: InstanceLike) -> ScheduleState:
    """The schedule that the instance is, as users see it."""
    state = _state(client, instance)
    plan, timing = state.plan, state.plan.timing
    return ScheduleState(
        name=state.name,
        orchestrator=plan.orchestrator,
        input=client._codec.decode(plan.input),
        every=timing.every,
        cron=timing.cron,
        zone=timing.zone,
        start_at=timing.start_at,
        end_at=timing.end_at,
        jitter=timing.jitter,
        overlap=plan.overlap,
        misfire=plan.misfire,
        catch_up_max=plan.catch_up_max,
        grace=plan.grace,
        tags=plan.tags,
        is_paused=state.is_paused,
        reason=state.reason,
        next_at=None if state.is_paused or instance.status.is_finished else state.next_at,
        running=list(state.running),
        waiting=None if state.waiting is None else run_id(state.name, state.waiting),
        last_run=state.last_run,
        runs=state.runs,
        skipped=state.skipped,
        status=instance.status,
        problem=instance.problem,
        created_at=instance.created_at,
    )


def _state(client: Asks, instance: InstanceLike) -> State:
    """The schedule's own state: the input of its present execution, rebuilt also where the client's app does not know its type."""
    if isinstance(instance.input, State):
        return instance.input
    if isinstance(instance.input, EncryptedValue):
        raise sealed_error(instance.input, "the state of a schedule")
    state: State = client._codec.decode(client._codec.encode(instance.input), State)
    return state


def checked(plan: Plan) -> Plan:
    """The plan, if a schedule can have it.

    Raises:
        InvalidArgumentError, ScheduleError: it cannot; the message says why.
    """
    plan.timing.check()
    one_of(plan.overlap, Overlap, "overlap")
    one_of(plan.misfire, Misfire, "misfire")
    if type(plan.catch_up_max) is not int or not 1 <= plan.catch_up_max <= 1_000:
        raise InvalidArgumentError(f"catch_up_max is {plan.catch_up_max!r:.80}; it is a whole number from 1 to 1000")
    if not isinstance(plan.grace, timedelta) or plan.grace < timedelta(0):
        raise InvalidArgumentError(f"grace is {plan.grace!r:.80}; it is a timedelta that is not negative")
    return plan


def encoded(client: Asks, input: object, orchestrator: str) -> bytes | None:
    """The input of a schedule's runs as a payload."""
    payload: bytes | None = client._codec.encode(input, f"input of orchestrator '{orchestrator}'")
    return payload


def one_of(choice: Any, choices: Any, what: str) -> Any:
    """The choice, if it is one; `choices` is a `Literal`.

    Raises:
        InvalidArgumentError: it is none.
    """
    if choice not in get_args(choices):
        raise InvalidArgumentError(f"{what} is {choice!r:.80}; it is one of {', '.join(get_args(choices))}")
    return choice


def aware(moment: datetime, what: str) -> datetime:
    """The moment in UTC, if it says where it is.

    Raises:
        InvalidArgumentError: it has no time zone.
    """
    if not isinstance(moment, datetime) or moment.tzinfo is None or moment.utcoffset() is None:
        raise InvalidArgumentError(f"{what} is {moment!r:.80}; it is a datetime with a time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidArgumentError(f"{what} is {moment}; in UTC that is in no calendar") from None


def _reason(reason: object) -> str:
    if not isinstance(reason, str):
        raise InvalidArgumentError(f"the reason is {reason!r:.80}; it is text")
    return reason


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not _AS_IT_IS}
