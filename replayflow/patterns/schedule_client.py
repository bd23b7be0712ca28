"""What a client can ask of schedules: a part of `Client` that needs nothing of it but what `Asks` says.

A schedule is an instance, `schedule:NAME`. What is wrong is refused before anything is written (I11).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, TypeVar, overload

from replayflow.clock import to_datetime
from replayflow.core.context import OrchestrationContext
from replayflow.core.ids import plain
from replayflow.core.instance import Status
from replayflow.core.labels import check_tags
from replayflow.core.tasks import Orchestration
from replayflow.errors import InstanceExistsError, InvalidArgumentError
from replayflow.patterns.schedule import ID_PREFIX, SCHEDULE, Misfire, Overlap, Plan, Request, State
from replayflow.patterns.schedule_handle import Asks, Schedule, ScheduleState, aware, checked, encoded, one_of, shown
from replayflow.patterns.timing import Timing

I = TypeVar("I")  # noqa: E741
OnExistingSchedule: TypeAlias = Literal["error", "return", "update"]
NAME_CHARS_MAX = 200
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f/\\#?\ud800-\udfff]")
_OPEN = (Status.PENDING, Status.RUNNING, Status.SUSPENDED, Status.FAILED)


class ScheduleVerbs:
    """The part of `Client` that makes, finds and lists schedules."""

    @overload
    async def create_schedule(
        self: Asks,
        name: str,
        orchestrator: Callable[[OrchestrationContext, I], Orchestration[Any]],
        input: I,
        *,
        every: timedelta | None = None,
        cron: str | None = None,
        zone: str = "UTC",
        start_at: datetime | None = None,
        end_at: datetime | None = None,
        jitter: timedelta = timedelta(0),
        overlap: Overlap = "skip",
        misfire: Misfire = "run_once",
        catch_up_max: int = 10,
        grace: timedelta = timedelta(minutes=1),
        tags: Mapping[str, str] | None = None,
        paused: bool = False,
        version: str | None = None,
        on_existing: OnExistingSchedule = "error",
    ) -> Schedule: ...
    @overload
    async def create_schedule(
        self: Asks,
        name: str,
        orchestrator: Callable[..., Any] | str,
        input: object = None,
        *,
        every: timedelta | None = None,
        cron: str | None = None,
        zone: str = "UTC",
        start_at: datetime | None = None,
        end_at: datetime | None = None,
        jitter: timedelta = timedelta(0),
        overlap: Overlap = "skip",
        misfire: Misfire = "run_once",
        catch_up_max: int = 10,
        grace: timedelta = timedelta(minutes=1),
        tags: Mapping[str, str] | None = None,
        paused: bool = False,
        version: str | None = None,
        on_existing: OnExistingSchedule = "error",
    ) -> Schedule: ...

    async def create_schedule(
        self: Asks,
        name: str,
        orchestrator: Any,
        input: Any = None,
        *,
        every: timedelta | None = None,
        cron: str | None = None,
        zone: str = "UTC",
        start_at: datetime | None = None,
        end_at: datetime | None = None,
        jitter: timedelta = timedelta(0),
        overlap: Overlap = "skip",
        misfire: Misfire = "run_once",
        catch_up_max: int = 10,
        grace: timedelta = timedelta(minutes=1),
        tags: Mapping[str, str] | None = None,
        paused: bool = False,
        version: str | None = None,
        on_existing: OnExistingSchedule = "error",
    ) -> Schedule:
        """The schedule is durable, and starts the orchestration `every` so often, or as `cron` says in the time `zone`; returns its handle.

        A run's id is made of the schedule's name and its scheduled time: `nightly:2026-11-24T01:00:00Z`; its tags are `tags` and `schedule=NAME`.
        An interval is counted from `start_at`, else from now. `jitter` delays each run by up to so much, the same whenever it is asked for.

        `overlap` says what to do at a time at which the run before has not ended: "skip" it, "buffer_one" run, "allow" both, or "cancel" or
        "terminate" the former and begin when it has ended. `misfire` says what to do with times that passed while nobody worked, or that are
        late by more than `grace`: "run_once" for all of them, "skip" them, or "catch_up" with the last `catch_up_max`.

        Runs have the `version`, or else the newest at the time of each: a schedule for an older one is made with its function or its version.

        `on_existing` says what to do where there is a schedule of the name: "error", "return" it as it is, or "update" it to be as said here.

        Raises:
            UnknownNameError: this client's app has no such orchestrator.
            VersionMismatchError: it has none that serves this version.
            EncodeError, PayloadTooLargeError: the input cannot travel as a payload.
            InvalidArgumentError: a name, a time, a cron expression or a choice that is none.
            ScheduleError: the cron library or the time zone is missing here.
            InstanceExistsError: there is a schedule of the name, and `on_existing` is "error".
        """
        handle = Schedule(self, _check_name(name))
        one_of(on_existing, OnExistingSchedule, "on_existing")
        if not isinstance(paused, bool):
            raise InvalidArgumentError(f"paused is {paused!r:.80}; it is True or False")
        now = to_datetime(self._clock.now())
        anchor = now if start_at is None else aware(start_at, "start_at")
        called, version = self._lasting_version(orchestrator, version)
        timing = Timing(every, cron, zone, anchor, start_at, end_at, jitter)
        payload = encoded(self, input, called)
        labels = {} if tags is None else check_tags(tags)
        plan = checked(Plan(called, timing, payload, version, labels, overlap, misfire, catch_up_max, grace))
        state = State(name, plan, after=now, next_at=plan.timing.after(now), is_paused=paused)
        try:
            await self.start(SCHEDULE, state, instance_id=handle.instance_id, on_existing="replace_finished")
        except InstanceExistsError:
            await _begin_beside(self, handle, state, on_existing, is_anchored=start_at is not None)
        return handle

    def get_schedule(self: Asks, name: str) -> Schedule:
        """The handle of a schedule. Whether there is one shows when the handle is used.

        Raises:
            InvalidArgumentError: the name is no text.
        """
        if not isinstance(name, str):
            raise InvalidArgumentError(f"{name!r:.80} is no name for a schedule: it is text")
        return Schedule(self, plain(name))

    async def list_schedules(self: Asks) -> AsyncIterator[ScheduleState]:
        """All schedules that have not been deleted, in the order of their creation."""
        async for state in self.list(status=_OPEN, name=SCHEDULE, large=True):
            if state.id.startswith(ID_PREFIX):
                yield shown(self, state)


async def _begin_beside(
    asks: Asks, handle: Schedule, wanted: State, on_existing: OnExistingSchedule, *, is_anchored: bool
) -> None:
    """What becomes of the schedule that is wanted where there is one of its name. `is_anchored` says whether somebody chose when it begins.

    Raises:
        InstanceExistsError: there is one, and `on_existing` is "error".
    """
    if await asks.get(handle.instance_id)._is_being_terminated():  # deleted: no worker has seen to that yet
        await asks.start(SCHEDULE, wanted, instance_id=handle.instance_id, on_existing="terminate_and_replace")
    elif on_existing == "error":
        raise InstanceExistsError(
            f"there is a schedule '{wanted.name}' already; on_existing='update' makes it as you say, 'return' leaves it as it is"
        ) from None
    elif on_existing == "update":
        plan, present = wanted.plan, (await handle._state()).plan
        if not is_anchored and _is_same_but_for_its_anchor(present.timing, plan.timing):
            plan = replace(plan, timing=present.timing)
        if plan != present:
            await handle._ask(Request("update", plan=plan))


def _is_same_but_for_its_anchor(present: Timing, wanted: Timing) -> bool:
    """Whether an interval goes on as it was: what a program says again each time that it starts must not begin anew each time."""
    return replace(wanted, anchor=present.anchor) == present


def _check_name(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS_MAX or _FORBIDDEN.search(name) or name[0] == "@":
        raise InvalidArgumentError(
            f"{name!r:.80} is no name for a schedule: it is text of 1 to {NAME_CHARS_MAX} characters, "
            "without control characters and / \\ # ?, and does not begin with '@'"
        )
    return plain(name)
