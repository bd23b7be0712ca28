"""The orchestrator of schedules: one execution for each thing that happens to a schedule (docs/decisions/0009-schedules.md).

1. An execution only waits; when something has come it acts, works out the next time, and continues as new. What it worked out is the input of the
   next execution, and is never worked out again (I2).
2. "This time is dealt with" and "its run exists" are one commit: no run is lost or doubled (I5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal, TypeAlias

from replayflow.core.context import OrchestrationContext
from replayflow.core.definitions import OrchestratorDefinition
from replayflow.core.detached import ask_to_end, park, start_instance
from replayflow.core.tasks import Orchestration, Task, when_any
from replayflow.errors import ScheduleError, UserError
from replayflow.patterns.timing import Timing

SCHEDULE = "replayflow.schedule"
"""The name of the orchestrator that every schedule is an instance of."""
ID_PREFIX = "schedule:"
TAG = "schedule"
"""The tag that a schedule's runs bear, with the schedule's name."""
REQUEST = "replayflow.request"
ENDED = "replayflow.ended"
STARTS_PER_EXECUTION = 100
_OF_TIMING = frozenset(field.name for field in fields(Timing))

Overlap: TypeAlias = Literal["skip", "buffer_one", "allow", "cancel", "terminate"]
Misfire: TypeAlias = Literal["run_once", "skip", "catch_up"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a schedule runs, when, and what it does where a run is late or the one before has not ended. `input` is a payload."""

    orchestrator: str
    timing: Timing
    input: bytes | None = None
    version: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    overlap: Overlap = "skip"
    misfire: Misfire = "run_once"
    catch_up_max: int = 10
    grace: timedelta = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Range:
    """Scheduled times that are still to be run: after the one, up to the other."""

    after: datetime
    until: datetime
    overlap: Overlap


@dataclass(frozen=True, slots=True)
class State:
    """A schedule between two executions. All times up to `after` are dealt with; `next_at` is the scheduled time after that, as it was worked out."""

    name: str
    plan: Plan
    after: datetime
    next_at: datetime | None = None
    is_paused: bool = False
    reason: str = ""
    running: tuple[str, ...] = ()
    """The runs that have not ended, but for those that may overlap."""
    waiting: datetime | None = None
    """The scheduled time of the run that begins when none is running."""
    is_asked_to_end: bool = False
    """Whether the runs have been asked to make room for the one that waits."""
    ranges: tuple[Range, ...] = ()
    last_run: str | None = None
    runs: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks of a schedule. Of a plan the fields in `only` are meant, those of its timing among them; all, where none are named."""

    verb: Literal["pause", "resume", "trigger", "update", "backfill"]
    reason: str = ""
    at: datetime | None = None
    until: datetime | None = None
    overlap: Overlap | None = None
    plan: Plan | None = None
    only: tuple[str, ...] = ()


def amended(plan: Plan, wanted: Plan, only: tuple[str, ...]) -> Plan:
    """The plan with the named fields of the other, so that two updates that name different ones both hold; the other itself where none are named."""
    if not only:
        return wanted
    timing = replace(plan.timing, **{name: getattr(wanted.timing, name) for name in only if name in _OF_TIMING})
    if timing.start_at is not None:
        timing = replace(timing, anchor=timing.start_at)
    return replace(
        plan, timing=timing.check(), **{name: getattr(wanted, name) for name in only if name not in _OF_TIMING}
    )


def run_id(name: str, time: datetime) -> str:
    """The id of the run at the scheduled time: `nightly:2026-11-24T01:00:00Z`."""
    return f"{name}:{time.astimezone(UTC).isoformat().removesuffix('+00:00')}Z"


def schedule(ctx: OrchestrationContext, state: State) -> Orchestration[None]:
    """One execution: whatever comes first is seen to, and the next execution waits for the next."""
    ended: Task[tuple[str, str]] = ctx.wait_for_external_event(ENDED, type=tuple[str, str])
    request: Task[Request] = ctx.wait_for_external_event(REQUEST, type=Request)
    if not state.ranges:
        waits: list[Task[Any]] = [ended, request]
        if state.next_at is not None and not state.is_paused:
            waits.append(ctx.create_timer(state.next_at + state.plan.timing.delay(state.name, state.next_at)))
        yield when_any(waits)
    desk = _Desk(ctx, state)
    try:
        desk.see_to(ended, desk.has_ended)
        desk.see_to(request, desk.is_asked)
        desk.look_at_the_clock()
        desk.work_off()
        following = desk.state.plan.timing.after(desk.state.after)
    except UserError as problem:  # the zone is missing here, or this library cannot read what another one could
        raise park(ctx, ScheduleError(f"schedule '{state.name}': {problem}")) from None
    ctx.continue_as_new(replace(desk.state, next_at=following))


class _Desk:
    """What an execution does when something has come: `state` becomes what the next one begins with."""

    def __init__(self, ctx: OrchestrationContext, state: State) -> None:
        self._ctx = ctx
        self.state = state

    def see_to(self, task: Task[Any], answer: Callable[[Any], None]) -> None:
        if not task.is_complete:
            return
        try:
            answer(task.result)
        except ScheduleError:
            raise
        except Exception as error:  # an event that somebody else has raised, in the form of ours
            self._ctx.logger.warning("schedule '%s' was sent what it does not understand: %s", self.state.name, error)

    # ---- what comes

    def has_ended(self, told: tuple[str, str]) -> None:
        """A run has ended: the one that waits for it begins."""
        state = self.state
        self.state = replace(state, running=tuple(id for id in state.running if id != told[0]))
        if state.waiting is not None and not self.state.running:
            self.state = replace(self.state, waiting=None, is_asked_to_end=False)
            self._start(state.waiting, is_followed=True)

    def is_asked(self, request: Request) -> None:
        now = self._ctx.current_utc_datetime
        match request.verb:
            case "pause":
                self.state = replace(self.state, is_paused=True, reason=request.reason)
            case "resume" if self.state.is_paused:
                self.state = replace(self.state, is_paused=False, reason=request.reason)
                self._begin_anew(now)  # what passed meanwhile was not wanted: it is not missed
            case "trigger" if request.at is not None:
                self._run(request.at, request.overlap or self.state.plan.overlap)
            case "backfill" if request.at is not None and request.until is not None:
                more = Range(request.at, request.until, request.overlap or "allow")
                self.state = replace(self.state, ranges=(*self.state.ranges, more))
            case "update" if request.plan is not None:
                plan = amended(self.state.plan, request.plan, request.only)
                if plan.timing != self.state.plan.timing:
                    self._begin_anew(now)
                self.state = replace(self.state, plan=plan)
            case _:
                pass

    def _begin_anew(self, now: datetime) -> None:
        """From now on, also where a clock that was wrong has led far ahead: a time that has had its run gets no second one."""
        self.state = replace(self.state, after=now, next_at=None)

    def look_at_the_clock(self) -> None:
        """The times that are due have their runs, as far as the policy wants them."""
        state, now = self.state, self._ctx.current_utc_datetime
        if state.is_paused or state.next_at is None:
            return
        plan = state.plan
        due = self._due(plan.catch_up_max if plan.misfire == "catch_up" else 1, now)
        if not due:
            return
        self.state = replace(state, after=due[-1])
        is_on_time = now - due[-1] - plan.timing.delay(state.name, due[-1]) <= plan.grace
        if plan.misfire != "skip" or is_on_time:
            for time in due:
                self._run(time, plan.overlap)

    def _due(self, count: int, now: datetime) -> list[datetime]:
        """The last `count` times whose moment has come, oldest first. They come in their order, however far the jitter delays one."""
        state, timing = self.state, self.state.plan.timing
        assert state.next_at is not None  # noqa: S101 - there is nothing due otherwise
        if state.next_at + timing.delay(state.name, state.next_at) > now:
            return []
        due = [state.next_at]
        surely = max(now - timing.jitter, state.next_at)
        due = [*due, *timing.newest(count, state.next_at, surely)][-count:]
        for time in timing.times(max(surely, state.next_at)):
            if time + timing.delay(state.name, time) > now:
                break
            due = [*due, time][-count:]
        return due

    def work_off(self) -> None:
        """Some of the times of a range that is to be run later have their runs."""
        if not self.state.ranges:
            return
        first, *others = self.state.ranges
        times = list(islice(self.state.plan.timing.times(first.after), STARTS_PER_EXECUTION))
        wanted = [time for time in times if time <= first.until]
        for time in wanted:
            self._run(time, first.overlap)
        if len(wanted) == STARTS_PER_EXECUTION:
            others.insert(0, replace(first, after=wanted[-1]))
        self.state = replace(self.state, ranges=tuple(others))

    # ---- runs

    def _run(self, time: datetime, overlap: Overlap) -> None:
        """The time has its run, or what the policy has in its place where another has not ended."""
        state = self.state
        if overlap == "allow":
            self._start(time, is_followed=False)
        elif not state.running and state.waiting is None:
            self._start(time, is_followed=True)
        elif overlap == "skip" or (overlap == "buffer_one" and state.waiting is not None):
            self.state = replace(state, skipped=state.skipped + 1)
        else:
            dropped = 0 if state.waiting is None else 1
            self.state = replace(state, waiting=time, skipped=state.skipped + dropped)
            if overlap == "terminate" or (overlap == "cancel" and not state.is_asked_to_end):
                self.state = replace(self.state, is_asked_to_end=True)
                for id in state.running:
                    ask_to_end(self._ctx, id, overlap)

    def _start(self, time: datetime, *, is_followed: bool) -> None:
        state, plan = self.state, self.state.plan
        id = run_id(state.name, time)
        start_instance(
            self._ctx,
            id,
            plan.orchestrator,
            plan.input,
            version=plan.version,
            tags={**plan.tags, TAG: state.name},
            end_event=ENDED if is_followed else "",
        )
        running = (*state.running, id) if is_followed and id not in state.running else state.running
        self.state = replace(state, running=running, last_run=id, runs=state.runs + 1)


DEFINITION = OrchestratorDefinition(SCHEDULE, schedule, takes_input=True, input_type=State, result_type=type(None))
