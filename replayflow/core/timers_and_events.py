"""Time and events: what an orchestrator waits for that nobody computes, and what it tells others."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, overload

from replayflow.clock import to_microseconds
from replayflow.core import ids
from replayflow.core.actions import CreateTimer, SendEvent
from replayflow.core.decisions import Decisions, settle
from replayflow.core.definitions import Environment
from replayflow.core.events import microseconds
from replayflow.core.labels import check_event_name
from replayflow.core.sites import site_of
from replayflow.core.tasks import EventTask, Task, TimerTask
from replayflow.errors import InvalidArgumentError

R = TypeVar("R")
_frame = sys._getframe
_TIME_MIN = to_microseconds(datetime.min.replace(tzinfo=UTC))
_TIME_MAX = to_microseconds(datetime.max.replace(tzinfo=UTC))


class TimersAndEvents:
    """The part of the context that makes timers, waits for events and sends them."""

    __slots__ = ()
    _decisions: Decisions
    _environment: Environment

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
        name = check_event_name(name)
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
        instance_id = ids.check_instance_id(instance_id)
        name = check_event_name(name)
        encoded = self._environment.codec.encode(payload, f"payload of event '{name}'")
        self._decisions.add(SendEvent(self._decisions.take_id(), instance_id, name, encoded, site_of(_frame(1))))

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
