"""What one execution has decided and waits for: the ledger between the context, which writes it, and the replay driver, which reads it.

1. Action ids come from one counter, in program order, from 1 (I2).
2. While a piece of history is replayed, each decision must be the one recorded at the same place: same id, kind and name (I9). The first that is
   not ends the replay; nothing after it counts.
3. Once sealed, nothing changes any more: what user code calls while its generator is closed has no effect.
4. Events of a name go to its waiters first come, first served; what nobody waits for is kept in order of arrival.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Protocol, TypeAlias

from msgspec.structs import replace

from replayflow.codec import Payload
from replayflow.codec.reference import differs
from replayflow.core.actions import (
    Action,
    AskInstance,
    CancelTask,
    CancelTimer,
    CompleteOrchestration,
    CreateSubOrchestration,
    MarkPatch,
    Matched,
    NoteUndoing,
    ScheduleMap,
    SendEvent,
    SetCustomStatus,
    StartInstance,
    StopMap,
)
from replayflow.core.entity.actions import SendEntityMessage
from replayflow.core.events import (
    EntityLockGranted,
    EntityOperationCalled,
    EntityOperationSignaled,
    EventRaised,
    EventSent,
    ExecutionCancelRequested,
    HistoryEvent,
    MapScheduled,
    SagaUndone,
    SubOrchestrationInstanceCreated,
    TaskScheduled,
    describe,
)
from replayflow.core.nothing import NOTHING
from replayflow.core.tasks import EventTask, Pending, TimerTask, complete
from replayflow.errors import (
    CompensationError,
    DecodeError,
    EntityStateError,
    NonDeterminismError,
    OrchestratorError,
    ScheduleError,
)

_logger = logging.getLogger("replayflow")


FAULTS = (CompensationError, ScheduleError, EntityStateError)
Fault: TypeAlias = CompensationError | ScheduleError | EntityStateError
"""What the code cannot go on with: its episode does not count, and the instance is parked until other code, or another worker, is there."""


class Diverged(BaseException):
    """Unwinds a generator whose code has left its history; never seen by users, who may not catch it for good."""


class CriticalSection(Protocol):
    """The section that is open, or being opened: `sections.Section`, as the ledger knows it."""

    event_id: int
    lock_set: list[str]
    is_granted: bool

    def granted(self, event: EntityLockGranted) -> None: ...
    def release(self, site: str = "") -> None: ...


class Decisions:
    __slots__ = (
        "_last",
        "buffered",
        "custom_status",
        "deadlines",
        "ending",
        "expected",
        "inherited_until",
        "instance_id",
        "is_replaying",
        "is_sealed",
        "kept",
        "made",
        "mismatch",
        "next_id",
        "now",
        "open",
        "patches",
        "position",
        "recorded",
        "recording",
        "request",
        "saga",
        "saves_events",
        "section",
        "shields",
        "waiting",
    )

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.now = 0
        self.next_id = 1
        self.made: list[Action] = []
        self.open: dict[int, Pending[Any]] = {}
        self.waiting: dict[str, list[EventTask[Any]]] = {}  # a deque takes ten times the memory
        # Each with its number: code that waits for several names has what came first, also in the execution that continues this one.
        self.buffered: dict[str, deque[tuple[int, EventRaised]]] = NOTHING
        self.kept = 0
        self.deadlines: dict[int, EventTask[Any]] = NOTHING
        self.custom_status: Payload = None
        self.patches: dict[str, bool] = NOTHING
        """What was answered of each patch, and, of those that are marked in the history so far, True."""
        self.ending: CompleteOrchestration | None = None
        # The line of the `ctx.record` whose function is at work: `ending` is set meanwhile, so that nothing can be asked for.
        self.recording = ""
        self.saves_events = True
        self.section: CriticalSection | None = None
        self.is_sealed = False
        self.is_replaying = False
        self.mismatch: NonDeterminismError | Fault | None = None
        # The innermost saga that is open; how many of them undo right now, and a request to cancel that waits until none does.
        self.saga: object = None
        self.shields = 0
        self.request: ExecutionCancelRequested | None = None
        # What was decided up to this time was decided under other ids: that it was asked for with others is no news.
        self.inherited_until = 0
        self.recorded: Sequence[HistoryEvent] = ()
        self.position = 0
        self.expected: TaskScheduled | None = None
        """The activity that is recorded next, in the pieces in which nothing else is. Whoever finds it takes it away, and moves on."""
        self._last: HistoryEvent | None = None

    def take_id(self) -> int:
        """The next action id."""
        id = self.next_id
        self.next_id = id + 1
        return id

    def add(self, action: Matched) -> None:
        """The action is decided, or, while replaying, found to be the one recorded here.

        Raises:
            OrchestratorError: the execution has already continued as new.
            Diverged: history has something else here; `mismatch` says what.
        """
        if self.is_sealed:
            return
        if self.ending is not None:
            if not isinstance(action, CancelTimer | CancelTask | StartInstance | AskInstance | StopMap):
                self.next_id -= 1
            raise OrchestratorError(
                f"{action.site}: {describe(action.record())} was asked for {self._why_closed(self.ending)}"
            )
        if self.is_replaying:
            self._match(action)
        else:
            self.made.append(action)

    def _why_closed(self, ending: CompleteOrchestration) -> str:
        if self.recording:
            return (
                f"by the function that ctx.record called at {self.recording}, which a replay does not call: "
                "ask for it outside, and record only what the world says"
            )
        return f"after continue_as_new at {ending.site}: nothing may follow it but the return"

    def recorded_last(self) -> HistoryEvent | None:
        """The event that the last action was found to be, while replaying."""
        return self._last

    def refuse_in_section(self, what: str) -> None:
        """Returns outside critical sections.

        Raises:
            OrchestratorError: a child may want the locks of its parent, and would wait for them for ever.
        """
        if self.section is not None and not self.is_sealed:
            raise OrchestratorError(f"{what} in a critical section, which could wait for ever: start it outside")

    def set_custom_status(self, value: Payload) -> None:
        """The custom status is the payload; decided anew only where it differs from the last."""
        if self.is_sealed or value == self.custom_status:
            return
        self.custom_status = value
        if not self.is_replaying:
            self.made = [action for action in self.made if type(action) is not SetCustomStatus]
            self.made.append(SetCustomStatus(value))

    def patched(self, name: str, site: str) -> bool:
        """Whether the code of the patch runs: not where the past shows that this place was passed without it. The first answer stays."""
        answer = self.patches.get(name)
        if answer is None:
            answer = not self.is_replaying
            self.mark(name, answer)
            if answer and not self.is_sealed:
                self.made.append(MarkPatch(name, site))
        return answer

    def mark(self, name: str, answer: bool) -> None:
        """The patch has its answer, unless it had one before."""
        if self.patches is NOTHING:
            self.patches = {}
        self.patches.setdefault(name, answer)

    def note_undoing(self, first_id: int) -> None:
        """A saga begins to undo what it did since that action. Histories of before this was noted do not have it, and fit all the same."""
        if self.is_sealed:
            return
        if not self.is_replaying:
            self.made.append(NoteUndoing(first_id))
        elif self.position < len(self.recorded) and type(self.recorded[self.position]) is SagaUndone:
            self.position += 1

    def seal(self) -> None:
        """Nothing that is asked for from now on has any effect."""
        self.is_sealed = True
        self.expected = None

    # ---- events and time limits

    def raise_event(self, event: EventRaised) -> None:
        """The event goes to the first that waits for its name, or is kept."""
        name = event.name.casefold()
        waiters = self.waiting.get(name)
        if waiters:
            task = waiters.pop(0)
            if not waiters:
                del self.waiting[name]
            self.fulfil(task, event.input)
        else:
            self.keep(event)

    def keep(self, event: EventRaised) -> None:
        """The event waits for whoever asks for its name next, in this execution or in the one that continues it."""
        if self.buffered is NOTHING:
            self.buffered = {}
        self.buffered.setdefault(event.name.casefold(), deque()).append((self.kept, event))
        self.kept += 1

    def unconsumed(self) -> list[EventRaised]:
        """What nobody has had, in the order in which it came."""
        kept = chain.from_iterable(self.buffered.values())
        return [event for _, event in sorted(kept, key=itemgetter(0))]

    def limit(self, task: EventTask[Any], timer: TimerTask) -> None:
        """The wait ends with the timer, where no event comes before."""
        if self.deadlines is NOTHING:
            self.deadlines = {}
        task.timer = timer
        self.deadlines[timer.id] = task

    def fulfil(self, task: EventTask[Any], payload: Payload) -> None:
        """The wait is over with the payload as its value, and its time limit with it."""
        if task.timer is not None:
            self.deadlines.pop(task.timer.id, None)
            task.timer.cancel()
        settle(task, payload)

    def take_event(self, name: str) -> EventRaised | None:
        """The oldest event of the name that nobody has had."""
        kept = self.buffered.get(name)
        if not kept:
            return None
        _, event = kept.popleft()
        if not kept:
            del self.buffered[name]
        return event

    def expire(self, timer: Pending[Any]) -> None:
        """The timer's time has come; where it was the limit of a wait, the wait fails."""
        complete(timer, None)
        task = self.deadlines.pop(timer.id, None)
        if task is not None:
            self._leave_queue(task)
            complete(task, None, TimeoutError(f"no event '{task.name}' came within its time limit"))

    def abandon_event(self, task: EventTask[Any]) -> None:
        """Nobody waits any longer: the next event of the name goes to the next in the queue."""
        self._leave_queue(task)
        if task.timer is not None:
            self.deadlines.pop(task.timer.id, None)
            task.timer.cancel()

    def abandon_timer(self, task: TimerTask) -> None:
        if self.open.pop(task.id, None) is not None:
            self.add(CancelTimer(task.id))

    def abandon_task(self, task: Pending[Any]) -> None:
        if self.open.pop(task.id, None) is not None:
            self.add(CancelTask(task.id))

    def abandon_entity_call(self, task: Pending[Any]) -> None:
        """Nobody waits for the answer; the operation is performed all the same."""
        self.open.pop(task.id, None)

    def abandon_section(self, task: Pending[Any]) -> None:
        """Nobody waits for the locks any longer: those that are there go back, and so does the place in line."""
        if self.open.pop(task.id, None) is not None and self.section is not None:
            self.section.release()

    def _leave_queue(self, task: EventTask[Any]) -> None:
        name = task.name.casefold()
        waiters = self.waiting.get(name)
        if waiters is not None and task in waiters:
            waiters.remove(task)
            if not waiters:
                del self.waiting[name]

    # ---- replay

    def replay_against(self, now: int, recorded: Sequence[HistoryEvent]) -> None:
        """It is the time of a past episode, and from now on each decision has to be the next of `recorded`."""
        self.now = now
        self.recorded = recorded
        self.position = 0
        self.expected = None
        self.is_replaying = True

    def repeats_task(self, id: int, name: str, input: Payload) -> bool:
        """`add` for what nearly every replayed decision is: an activity that is recorded here just so. Of all else it says no, and does nothing."""
        if self.is_sealed or self.ending is not None or self.position >= len(self.recorded):
            return False
        then = self.recorded[self.position]
        if type(then) is TaskScheduled and then.event_id == id and then.name == name and then.input == input:
            self.found(then)
            return True
        return False

    def found(self, then: HistoryEvent) -> None:
        """The code has asked for what is recorded here."""
        self.position += 1
        self.expected = None
        self._last = then

    def _match(self, action: Matched) -> None:
        recorded = self.recorded
        if self.position >= len(recorded):
            self.diverge(None, _now_asks(action))
            raise Diverged
        then = recorded[self.position]
        if not action.fits(then):
            self.diverge(then, _now_asks(action))
            raise Diverged
        self.found(then)
        match action, then:
            case TaskScheduled(), TaskScheduled():
                if differs(action.input, then.input):
                    self._warn_of_change("input", action.site, then)
            case CreateSubOrchestration(), SubOrchestrationInstanceCreated():
                if differs(action.input, then.input):
                    self._warn_of_change("input", action.site, then)
                if action.instance_id != then.instance_id:
                    self._warn_of_change("target", action.site, then)
            case SendEvent(), EventSent():
                if differs(action.input, then.input):
                    self._warn_of_change("input", action.site, then)
                if action.instance_id != then.instance_id:
                    self._warn_of_change("target", action.site, then)
            case ScheduleMap(), MapScheduled():
                if replace(action.scheduled, site=then.site) != then:
                    self._warn_of_change("input", action.site, then)
                action.scheduled = then
            case SendEntityMessage(), EntityOperationCalled() | EntityOperationSignaled():
                asked = action.event
                assert isinstance(asked, EntityOperationCalled | EntityOperationSignaled)  # noqa: S101 - it fits
                if differs(asked.input, then.input):
                    self._warn_of_change("input", action.site, then)
                if asked.target_instance_id != then.target_instance_id:
                    self._warn_of_change("target", action.site, then)
            case _:
                pass

    def _warn_of_change(
        self,
        what: str,
        now: str,
        then: TaskScheduled
        | SubOrchestrationInstanceCreated
        | EventSent
        | MapScheduled
        | EntityOperationCalled
        | EntityOperationSignaled,
    ) -> None:
        if self.now <= self.inherited_until:
            return
        _logger.warning(
            "instance '%s': %s was asked for with another %s then (%s) than now (%s); what happened then counts",
            self.instance_id,
            describe(then),
            what,
            then.site or "line unknown",
            now or "line unknown",
        )

    def diverge(self, then: HistoryEvent | None, now: str, *, nothing: str = "nothing more here") -> None:
        """The code has left its history: `then` is what that has here, `now` what the code does instead."""
        past = nothing
        if then is not None:
            past = _with_site(then)
        elif self._last is not None:
            past = f"{nothing}, after {_with_site(self._last)}"
        mismatch = NonDeterminismError(f"instance '{self.instance_id}': the history has {past}; {now}")
        mismatch.then, mismatch.now = f"the history has {past}", now
        self.mismatch = mismatch
        self.seal()

    def fault(self, error: Fault) -> None:
        """The code cannot go on as it is, and nothing that it did in this episode counts."""
        self.mismatch = error
        self.seal()


def settle(task: Pending[Any], payload: Payload) -> None:
    """The task is complete with the payload's value; a payload that does not fit the task's annotation is its failure."""
    try:
        value = payload if task.decode is None else task.decode(payload)
    except Exception:  # a DecodeError, or whatever a user's model raises
        complete(task, None, _misfit(task, payload))
    else:
        if task._parents is not None:
            complete(task, value)
        else:  # the same for a task that is in no composite, spelled out
            task._value = value


def _misfit(task: Pending[Any], payload: Payload) -> Exception:
    """Why the payload does not fit: once more, with a name for what it is the payload of."""
    assert task.decode is not None  # noqa: S101 - it has just failed
    try:
        task.decode(payload, f"value of {task.title}")
    except Exception as error:
        return error
    return DecodeError(f"the value of {task.title} fits its annotation at one time and not at another")


def _with_site(then: HistoryEvent) -> str:
    site = getattr(then, "site", "")
    return f"{describe(then)}{f', asked for at {site}' if site else ''}"


def _now_asks(action: Matched) -> str:
    return f"the code now asks for {describe(action.record())}{f' at {action.site}' if action.site else ''}"
