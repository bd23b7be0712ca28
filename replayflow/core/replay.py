"""The replay driver: runs an orchestrator's generator over its history, then over what is new.

1. Events are applied one at a time; after each the generator runs until it waits for something that is not there (I2).
2. The past is replayed piece by piece, one piece an episode: what the code decides in it must be what the piece records, no less and no more (I9).
3. Closing is silent: the ledger is sealed first, so that a user's `finally` changes nothing, and nothing that it raises gets out.

A `Replay` is the local executor of an execution. A remote one, over the Durable Task protocol, would answer the same four calls: `replay`,
`begin`, `deliver`, `take`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from types import GeneratorType
from typing import Any

from replayflow.codec import Codec
from replayflow.core.actions import Action, CompleteOrchestration
from replayflow.core.context import OrchestrationContext
from replayflow.core.decisions import Decisions, Diverged, settle
from replayflow.core.definitions import Environment, OrchestratorDefinition
from replayflow.core.entity.calls import answered, entity_error
from replayflow.core.entity.sections import LockTask
from replayflow.core.events import (
    CustomStatusSet,
    EntityLockGranted,
    EntityOperationCompleted,
    EntityOperationFailed,
    EventRaised,
    ExecutionCancelRequested,
    ExecutionCompleted,
    ExecutionStarted,
    HistoryEvent,
    MapDrained,
    MapPage,
    MapProgress,
    OrchestratorStarted,
    PatchMarked,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerFired,
    describe,
)
from replayflow.core.map.result import MapTask
from replayflow.core.origins import inherited_until
from replayflow.core.sites import site_of, site_of_code, waiting_frame
from replayflow.core.tasks import OPEN, ActivityTask, Pending, Task, complete, leaves
from replayflow.errors import (
    ActivityError,
    FailureDetails,
    NotATaskError,
    OrchestrationCancelled,
    OrchestratorError,
    SubOrchestrationError,
    TaskCanceledError,
)

_CLOSE_ATTEMPTS_MAX = 100


class Replay:
    """One execution's generator, with what it decided and waits for.

    Raises (any call): NonDeterminismError, where the code does not do what the history says; a `Fault`, where it cannot go on.
    The object is of no use afterwards.
    """

    __slots__ = (
        "_blocked_on",
        "_codec",
        "_context",
        "_generator",
        "_is_terminated",
        "_late",
        "decisions",
        "definition",
        "outcome",
        "started",
    )

    def __init__(self, definition: OrchestratorDefinition, started: ExecutionStarted, environment: Environment) -> None:
        self.definition = definition
        self.started = started
        self.outcome: CompleteOrchestration | None = None
        self.decisions = Decisions(started.instance_id)
        if started.origins:
            self.decisions.inherited_until = inherited_until(started)
        self._context = OrchestrationContext(started, self.decisions, environment)
        self._codec: Codec = environment.codec
        self._generator: Generator[Any, Any, Any] | None = None
        self._blocked_on: Task[Any] | None = None
        self._is_terminated = False
        self._late: tuple[ExecutionCancelRequested, ...] = ()

    # ---- the four calls of an executor

    def replay_all(self, pieces: Iterable[Sequence[HistoryEvent]]) -> None:
        """`replay` for each of the pieces, in order."""
        decisions = self.decisions
        begins: Any  # the episode's time, as in every piece
        for piece in pieces:
            if len(piece) == 3:
                begins, came, asked = piece
                task = self._blocked_on
                if (
                    type(asked) is TaskScheduled
                    and type(came) is TaskCompleted
                    and type(task) is ActivityTask
                    and task.id == came.task_scheduled_id
                ):
                    # One activity after another: what most long histories are made of.
                    decisions.now = begins.now_microseconds
                    decisions.recorded = piece
                    decisions.position = 2
                    decisions.expected = asked
                    decisions.is_replaying = True
                    self._go_on_with(came, task)
                    if decisions.position == 3 and decisions.mismatch is None and self.outcome is None:
                        continue  # all that `_piece_is_over` would find
                    self._piece_is_over(None)
                    continue
            self.replay(piece)
        decisions.is_replaying = False

    def replay(self, piece: Sequence[HistoryEvent]) -> None:
        """One past episode, as it was recorded, happens again. One in which the execution was terminated decided nothing, and is passed over."""
        begins = piece[0]
        assert type(begins) is OrchestratorStarted  # noqa: S101 - every piece begins with its time
        if self.outcome is not None or self._is_terminated:
            return  # what came after the end was only written down
        ended: ExecutionCompleted | None = None
        custom_status: CustomStatusSet | None = None
        arrived: list[HistoryEvent] = []
        recorded: list[HistoryEvent] = []
        for event in piece[1:]:
            if type(event) is TaskScheduled:  # nearly every decision
                recorded.append(event)
            elif not event.is_decision:
                arrived.append(event)
            elif isinstance(event, ExecutionCompleted):
                ended = event
            elif isinstance(event, CustomStatusSet):
                custom_status = event
            elif isinstance(event, PatchMarked):
                self.decisions.mark(
                    event.name, True
                )  # also where the code asks no more: the mark says that it is past the place
            else:
                recorded.append(event)
        if ended is not None and ended.orchestration_status == "TERMINATED":
            self._is_terminated = True
            return
        decisions = self.decisions
        decisions.replay_against(begins.now_microseconds, recorded)
        try:
            for event in arrived:
                self.deliver(event)
        except Diverged:
            pass  # not in the code itself but on an event's way to it: what a race or a time limit cancels is a decision, too
        if custom_status is not None:
            decisions.custom_status = custom_status.custom_status
        self._piece_is_over(ended)

    def _piece_is_over(self, ended: ExecutionCompleted | None) -> None:
        """What the code decided was what the piece records, and nothing of that is missing."""
        decisions = self.decisions
        decisions.is_replaying = False
        if (
            decisions.mismatch is None
            and ended is None
            and self.outcome is None
            and decisions.position == len(decisions.recorded)
        ):
            return
        if decisions.position < len(decisions.recorded) and decisions.mismatch is None:
            decisions.diverge(decisions.recorded[decisions.position], self._stand())
        if decisions.mismatch is None:
            self._compare_ends(ended)
        self._raise_mismatch()

    def turn(self, came: TaskCompleted, now: int) -> list[Action] | None:
        """`begin`, `deliver` and `take` in one, where the code waits for just this result; None, and nothing has happened, where it does not."""
        task = self._blocked_on
        if type(task) is not ActivityTask or task.id != came.task_scheduled_id:
            return None
        decisions = self.decisions
        decisions.now = now
        self._go_on_with(came, task)
        if self.outcome is not None:
            return self.take()
        made, decisions.made = decisions.made, []
        return made

    def begin(self, now: int) -> None:
        """A new episode begins; `now`, in microseconds, is the time that the code sees."""
        self.decisions.now = now

    def deliver(self, event: HistoryEvent) -> None:
        """The event reaches the code, which runs until it waits again."""
        if self.outcome is not None:
            if type(event) is EventRaised:
                self.decisions.keep(event)  # unconsumed, and carried over by a continue-as-new
            elif type(event) is ExecutionCancelRequested:
                self._late += (event,)  # a request to the instance, not to this execution alone
            return
        if type(event) is TaskCompleted:  # nearly every event
            task = self.decisions.open.pop(event.task_scheduled_id, None)
            if task is not None:
                settle(task, event.result)
                if task is self._blocked_on or (self._blocked_on is not None and self._blocked_on._value is not OPEN):
                    self._go_on()
            return
        # Once for every execution; the rest is asked in turn, each at ten times the price of this.
        if type(event) is ExecutionStarted:
            self._start()
            return
        if type(event) is ExecutionCancelRequested:
            self._cancel(event)
            return
        self._happen(event)
        blocked_on = self._blocked_on
        if blocked_on is not None and blocked_on._value is not OPEN:
            self._go_on()

    def _happen(self, event: HistoryEvent) -> None:
        """The event has happened to the task that it is for, where that is open still."""
        decisions, open = self.decisions, self.decisions.open
        match event:
            case EventRaised():
                decisions.raise_event(event)
            case TimerFired() if (timer := open.pop(event.timer_id, None)) is not None:
                decisions.expire(timer)
            case SubOrchestrationInstanceCompleted() if (task := open.pop(event.task_scheduled_id, None)) is not None:
                settle(task, event.result)
            case TaskFailed() | SubOrchestrationInstanceFailed() if (
                task := open.pop(event.task_scheduled_id, None)
            ) is not None:
                fail(task, event.failure_details)
            case MapProgress() | MapPage():
                task = open.get(event.task_scheduled_id)
                if isinstance(task, MapTask) and task.take(event):
                    del open[event.task_scheduled_id]
            case MapDrained() if (task := open.pop(event.task_scheduled_id, None)) is not None:
                complete(task, None, TaskCanceledError(f"{task.title} was stopped before every item had its turn"))
            case EntityOperationCompleted() if (task := answered(decisions, event.request_id)) is not None:
                settle(task, event.output)
            case EntityOperationFailed() if (task := answered(decisions, event.request_id)) is not None:
                complete(task, None, entity_error(task, event.failure_details))
            case EntityLockGranted() if decisions.section is not None:
                decisions.section.granted(event)
            case CustomStatusSet():
                decisions.custom_status = event.custom_status  # carried over from the execution before
            case _:
                pass

    def take(self) -> list[Action]:
        """What the code decided in this episode, in order; the last is its end, where it has ended."""
        actions, self.decisions.made = self.decisions.made, []
        if self.outcome is not None and not self.decisions.is_sealed:
            if self.outcome.orchestration_status == "CONTINUED_AS_NEW":
                self.outcome.carryover_events = self._unconsumed()
            actions.append(self.outcome)
            self.decisions.seal()
        return actions

    def close(self) -> None:
        """The generator is gone; nothing durable has changed, and whatever its clean-up raised is dropped."""
        self.decisions.seal()
        generator, self._generator = self._generator, None
        if generator is None:
            return
        nested: list[Generator[Any, Any, Any]] = []
        inner: object = generator
        while isinstance(inner, Generator):
            nested.append(inner)
            inner = getattr(inner, "gi_yieldfrom", None)
        for each in reversed(
            nested
        ):  # from within: one that outlives its caller would be left to the garbage collector
            for _ in range(_CLOSE_ATTEMPTS_MAX):  # a `finally` that yields survives a close; it gets a few
                try:
                    each.close()
                except BaseException:  # noqa: S112 - user code, on its way out
                    continue
                break

    def predicate_of(self, task_id: int) -> Callable[[FailureDetails], bool] | None:
        """The retry predicate that the open task was called with."""
        task = self.decisions.open.get(task_id)
        return None if task is None else task.predicate

    def standing(self) -> tuple[list[Pending[Any]], str]:
        """What the code waits for right now, and the line at which it does; nothing and no line where it has ended."""
        if self._blocked_on is None:
            return [], ""
        return list(leaves(self._blocked_on)), self._line()

    def stands(self) -> str:
        """Where the code is, in words: at its end, or at the line where it waits."""
        if self.outcome is not None:
            return f"ended, {self.outcome.orchestration_status}{_text_of(self.outcome)}"
        if self._blocked_on is None:
            return "not begun" if self._generator is None else "between two events"
        return f"waits at {self._line()} for {self._blocked_on!r}"

    # ---- the generator

    def _start(self) -> None:
        definition = self.definition
        try:
            if definition.takes_input:
                decode = self._codec.decoder(definition.input_type)
                made = definition.fn(self._context, decode(self.started.input, definition.input_title))
            else:
                made = definition.fn(self._context)
        except Diverged:
            self._raise_mismatch()
        except OrchestrationCancelled as error:
            self._end("CANCELED", failure=error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a SystemExit, say: user code must not end the worker
            self._end("FAILED", failure=error)
        else:
            if type(made) is GeneratorType or isinstance(made, Generator):
                self._generator = made
                self._run(None, None)
            else:
                self._end("COMPLETED", value=made)
        self._raise_mismatch()

    def _go_on(self) -> None:
        """What the code waited for is complete."""
        task = self._blocked_on
        assert task is not None  # noqa: S101 - it waits for something
        self._run(task._error, task._value)

    def _go_on_with(self, came: TaskCompleted, task: ActivityTask[Any]) -> None:
        """`deliver` for the result of the very activity that the code waits for, spelled out."""
        decisions = self.decisions
        del decisions.open[task.id]
        decode = task.decode
        if decode is None or task._parents is not None:
            settle(task, came.result)
        else:
            try:
                task._value = decode(came.result)
            except Exception:
                settle(task, came.result)
        if task._error is not None:
            self._run(task._error, None)
            return
        try:
            yielded = self._generator.send(task._value)  # type: ignore[union-attr]  # only a started generator can be blocked
            if (
                type(yielded) is ActivityTask
                and yielded.ledger is decisions
                and yielded._value is OPEN
                and decisions.ending is None
            ):
                self._blocked_on = yielded
            else:
                self._look_at(yielded)
        except StopIteration as returned:
            self._end("COMPLETED", value=returned.value)
        except BaseException as error:
            self._over(error)
        if decisions.mismatch is not None or decisions.request is not None:
            self._heed()

    def _run(self, error: BaseException | None, value: object) -> None:
        """The code goes on with the value, or with the error raised, and runs until it waits again."""
        generator = self._generator
        assert generator is not None  # noqa: S101 - only a started generator can be blocked
        try:
            self._look_at(generator.send(value) if error is None else generator.throw(error))
        except BaseException as raised:
            self._over(raised)
        self._heed()

    def _look_at(self, yielded: object) -> None:
        """The code waits for what it has yielded, or goes on where it need not, or must not, until it waits."""
        generator, decisions = self._generator, self.decisions
        assert generator is not None  # noqa: S101 - it has just yielded
        error: BaseException | None
        while True:
            value: object = None
            if not isinstance(yielded, Task):
                error = self._not_a_task(yielded)
            elif yielded._value is not OPEN:
                error, value = yielded._error, yielded._value
            elif decisions.ending is not None:
                error = OrchestratorError(
                    f"{self._line()}: {yielded!r} was yielded after continue_as_new at {decisions.ending.site}: "
                    "nothing may follow it but the return"
                )
            elif isinstance(yielded, Pending) and not self._is_own(yielded):
                error = NotATaskError(
                    f"{self._line()}: {yielded!r} belongs to another execution and cannot be waited for here"
                )
            else:
                self._blocked_on = yielded
                return
            yielded = generator.send(value) if error is None else generator.throw(error)

    def _over(self, raised: BaseException) -> None:
        """The code has come to its end: it returned, or raised, or has left its history."""
        match raised:
            case StopIteration():
                self._end("COMPLETED", value=raised.value)
            case Diverged():
                pass
            case OrchestrationCancelled():
                self._end("CANCELED", failure=raised)
            case KeyboardInterrupt():
                raise raised
            case _:  # a SystemExit, say: user code must not end the worker
                self._end("FAILED", failure=raised)

    def _heed(self) -> None:
        """The code has left its history, or may hear now that it was asked to cancel."""
        self._raise_mismatch()
        if self.decisions.request is not None:
            self._hear(self.decisions.request)

    def _cancel(self, event: ExecutionCancelRequested) -> None:
        if self.decisions.shields:
            self.decisions.request = event
            return
        reason = self._codec.decode(event.input)
        error = OrchestrationCancelled(reason if isinstance(reason, str) else "")
        if self._generator is None:
            return
        if self._blocked_on is not None and self.decisions.section is not None:
            for leaf in leaves(self._blocked_on):
                if isinstance(leaf, LockTask):
                    leaf.cancel()  # or the clean-up would stand in a section that it never got
        self._run(error, None)

    def _hear(self, request: ExecutionCancelRequested) -> None:
        """A request to cancel that came while a saga undid what it had done is heard at the first yield after that."""
        if not self.decisions.shields and self._blocked_on is not None:
            self.decisions.request = None
            self._cancel(request)

    def _end(self, status: str, *, value: object = None, failure: BaseException | None = None) -> None:
        self._generator = self._blocked_on = None
        decisions = self.decisions
        if decisions.mismatch is not None:
            return
        if failure is None and decisions.ending is not None:
            self.outcome = decisions.ending
            return
        payload = None
        if failure is None:
            try:
                payload = self._codec.encode(value, self.definition.result_title)
            except Exception as error:  # an EncodeError, or what a user's model raises
                status, failure = "FAILED", error
        details = None if failure is None else FailureDetails.of(failure)
        id = decisions.ending.id if decisions.ending is not None else decisions.take_id()
        self.outcome = CompleteOrchestration(id, status, payload, details)

    def _unconsumed(self) -> tuple[HistoryEvent, ...]:
        """What the next execution gets: requests to cancel that came after the end and, unless the code gave them up, events."""
        late = self._late if self.decisions.request is None else (self.decisions.request, *self._late)
        if not self.decisions.saves_events:
            return late
        return (*self.decisions.unconsumed(), *late)

    def _not_a_task(self, yielded: object) -> NotATaskError:
        hint = ""
        if isinstance(yielded, Generator):
            hint = "; to run another generator write `yield from`"
        elif hasattr(yielded, "__await__"):
            hint = "; orchestrators do not await: call an activity"
            if isinstance(yielded, Coroutine):
                yielded.close()  # or the interpreter warns that nobody awaited it
        elif isinstance(yielded, list | tuple):
            hint = "; to wait for several tasks write `yield when_all([...])`"
        return NotATaskError(f"{self._line()}: yielded {yielded!r:.100}, which is no task{hint}")

    def _line(self) -> str:
        """The line at which the user's code waits."""
        frame = waiting_frame(self._generator)
        return "line unknown" if frame is None else site_of(frame)

    def _stand(self) -> str:
        """Where the code is now, for a message: at its end, or at the line where it waits."""
        if self.outcome is not None:
            begins = site_of_code(getattr(self.definition.fn, "__code__", None))
            return (
                f"the code now ends here, with {describe(self.outcome.record())}{_text_of(self.outcome)} "
                f"(orchestrator '{self.definition.name}' at {begins})"
            )
        return f"the code now asks for nothing more here, and waits for {self._blocked_on!r} at {self._line()}"

    def _compare_ends(self, ended: ExecutionCompleted | None) -> None:
        now = None if self.outcome is None else self.outcome.orchestration_status
        if ended is None and now is not None:
            self.decisions.diverge(None, self._stand(), nothing="no end here, but more to come")
        elif ended is not None and ended.orchestration_status != now:
            self.decisions.diverge(ended, self._stand())

    def _is_own(self, task: Pending[Any]) -> bool:
        return task.ledger is self.decisions

    def _raise_mismatch(self) -> None:
        mismatch = self.decisions.mismatch
        if mismatch is not None:
            self.close()
            raise mismatch


def fail(task: Pending[Any], details: FailureDetails) -> None:
    """The task is complete with the error that an orchestrator catches for such a failure."""
    kind = SubOrchestrationError if task.label == "sub-orchestration" else ActivityError
    complete(task, None, kind(f"{task.title} failed: {details}", details))


def _text_of(outcome: CompleteOrchestration) -> str:
    return f" ({outcome.failure_details})" if outcome.failure_details is not None else ""
