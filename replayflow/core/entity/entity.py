"""Entities: state that many may ask something of, and that does one thing at a time.

1. An entity is what its history says (I1): its last state, and the line of those who wait, worked out again from the order of what came. Operations
   are not performed a second time; what they came to is history (I2).
2. Operations are performed one at a time, in the order in which they came (I5). While somebody holds the lock, the others stand in line.
3. An operation that raises, or whose state or result cannot be stored, changes nothing: not the state, not what it asked for.
4. The state, the answers and all else that the operations of an episode came to are one commit (I3).
5. Now and then the entity continues as new, with its state and its line, so that what has to be read of it has a bound.

An `Entity` is the executor of an entity's execution, as `Replay` is that of an orchestration.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, TypeAlias

from replayflow.codec import Codec, Payload
from replayflow.core import ids
from replayflow.core.actions import Action, CompleteOrchestration, CreateTimer
from replayflow.core.definitions import Environment
from replayflow.core.entity.actions import RemoveEntity, ScheduleOrchestration, SendEntityMessage, SetEntityState
from replayflow.core.entity.context import EntityContext
from replayflow.core.entity.definition import EntityDefinition
from replayflow.core.entity.ids import AnyEntityId, EntityInstanceId, check_operation, entity_id_text
from replayflow.core.events import (
    EntityLocked,
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EntityOperationSignaled,
    EntityRemovalRequested,
    EntityStateSet,
    EntityUnlockSent,
    ExecutionStarted,
    HistoryEvent,
    OrchestratorStarted,
    TaskCompleted,
    TimerFired,
)
from replayflow.core.labels import check_tags
from replayflow.core.moments import due_at
from replayflow.errors import EntityStateError, FailureDetails

_logger = logging.getLogger("replayflow")
SNAPSHOT_AFTER_EVENTS = 2_000
SNAPSHOT_AFTER_PIECES = 100
_ABSENT: Any = object()
Operation: TypeAlias = EntityOperationCalled | EntityOperationSignaled


class Line:
    """Who has the entity, and who waits for it, first come first served. While nobody has it nobody waits."""

    __slots__ = ("holder", "waiting")

    def __init__(self) -> None:
        self.holder: EntityLocked | None = None
        self.waiting: deque[Operation | EntityLockRequested] = deque()

    def admits(self, asked: Operation | EntityLockRequested) -> bool:
        """Whether it is its turn now; where it is not, it stands in line. A lock that is admitted is taken."""
        holder = self.holder
        if holder is None:
            if type(asked) is EntityLockRequested:
                self._lock(asked)
            return True
        if (
            type(asked) is EntityOperationCalled
            and asked.parent_execution_id == holder.parent_execution_id
            and asked.parent_instance_id == holder.parent_instance_id
        ):
            return True
        self.waiting.append(asked)
        return False

    def release(self, section: str) -> list[Operation | EntityLockRequested]:
        """The section has gone, from the entity or from the line. Returns those whose turn has come, in order; the last may have the lock now."""
        if self.holder is None or self.holder.critical_section_id != section:
            self.waiting = deque(
                asked
                for asked in self.waiting
                if not (isinstance(asked, EntityLockRequested) and asked.critical_section_id == section)
            )
            return []
        self.holder = None
        admitted = []
        while self.waiting and self.holder is None:
            asked = self.waiting.popleft()
            if isinstance(asked, EntityLockRequested):
                self._lock(asked)
            admitted.append(asked)
        return admitted

    def _lock(self, asked: EntityLockRequested) -> None:
        self.holder = EntityLocked(
            asked.critical_section_id, asked.parent_instance_id or "", asked.parent_execution_id or ""
        )


class Standing:
    """How an entity stands, as its history so far tells it: its state, its line, and what is due later."""

    __slots__ = ("delayed", "line", "next_timer_id", "now", "payload")

    def __init__(self) -> None:
        self.now = 0
        self.payload: Payload = None
        """The state, encoded."""
        self.line = Line()
        self.delayed: dict[int, Operation] = {}
        """By the id of the timer that each waits for."""
        self.next_timer_id = 1

    def apply(self, event: HistoryEvent) -> Sequence[Operation | EntityLockRequested]:
        """The event has happened. Returns those whose turn has come by it: in an episode they are performed, in a past one they were."""
        match event:
            case EntityOperationSignaled() | EntityOperationCalled():
                if event.target_instance_id is not None:
                    return ()  # one that this entity has sent
                at = event.scheduled_time_microseconds
                if at is None or at <= self.now:
                    return (event,) if self.line.admits(event) else ()
                # Ids of timers are worked out again when history is replayed: nothing else takes one.
                self.delayed[self.next_timer_id] = event
                self.next_timer_id += 1
            case EntityLockRequested():
                return (event,) if self.line.admits(event) else ()
            case EntityUnlockSent():
                return self.line.release(event.critical_section_id)
            case TimerFired():
                due = self.delayed.pop(event.timer_id, None)
                return (due,) if due is not None and self.line.admits(due) else ()
            case EntityStateSet():
                self.payload = event.state
            case EntityLocked():
                self.line.holder = event
            case OrchestratorStarted():
                self.now = event.now_microseconds
            case _:
                pass
        return ()

    def apply_all(self, past: Iterable[HistoryEvent]) -> Standing:
        """All of the events have happened."""
        for event in past:
            self.apply(event)
        return self

    @property
    def is_empty(self) -> bool:
        """Whether nothing is lost when the entity goes."""
        return self.payload is None and self.line.holder is None and not self.delayed

    @property
    def backlog(self) -> int:
        """How many wait: in line, and for their time."""
        return len(self.line.waiting) + len(self.delayed)

    def carried(self) -> list[HistoryEvent]:
        """The events that bring a new execution to where this one stands."""
        carried: list[HistoryEvent] = []
        if self.payload is not None:
            carried.append(EntityStateSet(self.payload))
        if self.line.holder is not None:
            carried.append(self.line.holder)
        return [*carried, *self.line.waiting, *self.delayed.values()]


class Entity:
    """One execution of an entity: how it stands, and what its operations have come to since the last commit."""

    __slots__ = (
        "_codec",
        "_decided",
        "_definition",
        "_environment",
        "_id",
        "_is_dirty",
        "_is_to_go",
        "_pieces",
        "_received",
        "_started",
        "_state",
        "standing",
    )

    def __init__(self, definition: EntityDefinition, started: ExecutionStarted, environment: Environment) -> None:
        self._definition = definition
        self._environment = environment
        self._codec: Codec = environment.codec
        self._started = started
        self._id = EntityInstanceId.parse(started.instance_id)
        self.standing = Standing()
        self._decided: list[Action] = []
        self._state: Any = _ABSENT
        """The state as a value, where it has been rebuilt since the last operation that raised."""
        self._is_dirty = False
        self._is_to_go = False
        self._received = self._pieces = 0

    # ---- the calls of an executor

    def replay(self, piece: Sequence[HistoryEvent]) -> None:
        """One past episode has happened again: the entity stands as it stood after it. Nothing is performed."""
        self.standing.apply_all(piece)
        self._received += len(piece)
        self._pieces += 1

    def turn(self, came: TaskCompleted, now: int) -> None:
        """Never: entities wait for no activities."""

    def begin(self, now: int) -> None:
        """A new episode begins."""
        self.standing.now = now

    def deliver(self, event: HistoryEvent) -> None:
        """What the event asks for is done, or stands in line."""
        self._received += 1
        standing = self.standing
        timer_id = standing.next_timer_id
        for asked in standing.apply(event):
            if isinstance(asked, EntityLockRequested):
                self._grant(asked)
            else:
                self._perform(asked)
        if standing.next_timer_id != timer_id:
            self._decided.append(CreateTimer(timer_id, standing.delayed[timer_id].scheduled_time_microseconds or 0))
        elif type(event) is EntityRemovalRequested:
            self._is_to_go = True
        elif type(event) is EntityStateSet:
            self._state = _ABSENT

    def take(self) -> list[Action]:
        """All that the episode came to; with it the state, where it has changed, and the end of the execution, where it is time for a snapshot."""
        decided, self._decided = self._decided, []
        standing = self.standing
        if self._is_dirty:
            self._is_dirty = False
            decided.append(SetEntityState(standing.payload))
        self._pieces += 1
        if self._is_to_go and standing.is_empty:
            decided.append(RemoveEntity())
        elif self._is_time_for_a_snapshot():
            decided.append(
                CompleteOrchestration(
                    standing.next_timer_id, "CONTINUED_AS_NEW", carryover_events=tuple(standing.carried())
                )
            )
        self._is_to_go = False
        return decided

    def predicate_of(self, task_id: int) -> Callable[[FailureDetails], bool] | None:  # noqa: ARG002 - the port's shape
        return None

    def close(self) -> None:
        """Nothing is kept open."""

    def _is_time_for_a_snapshot(self) -> bool:
        is_long = self._received >= SNAPSHOT_AFTER_EVENTS or self._pieces >= SNAPSHOT_AFTER_PIECES
        # A long line is carried over whole: not before as much has happened again.
        return is_long and self._received >= 2 * self.standing.backlog

    # ---- operations

    def _perform(self, asked: Operation) -> None:
        caller = asked.parent_instance_id if type(asked) is EntityOperationCalled else None
        ctx: EntityContext[Any] = EntityContext(self, self._id, asked.operation, caller)
        before = len(self._decided)
        try:
            output, payload = self._outcome(ctx, asked)
        except (KeyboardInterrupt, EntityStateError):
            raise
        except BaseException as error:  # a SystemExit, say: user code must not end the worker
            del self._decided[before:]
            self._state = _ABSENT
            self._fail(asked, error)
            return
        if payload != self.standing.payload:
            self.standing.payload = payload
            self._is_dirty = True
        if type(asked) is EntityOperationCalled:
            self._decided.append(
                SendEntityMessage(
                    EntityOperationCompleted(
                        asked.request_id, output, asked.parent_instance_id, asked.parent_execution_id
                    )
                )
            )

    def _outcome(self, ctx: EntityContext[Any], asked: Operation) -> tuple[Payload, Payload]:
        """The operation's result and the state after it, both encoded: what cannot be stored fails the operation."""
        definition = self._definition
        found = definition.find(asked.operation)
        if found is None:
            ctx.set_state(None)
            result: object = None
        else:
            arguments = found.arguments(ctx, asked.input, self._codec)
            result = found.fn(ctx.state, *arguments) if definition.is_class else found.fn(*arguments)
        output = None
        if result is not None:
            output = self._codec.encode(result, f"result of operation '{asked.operation}' of entity '{self._id}'")
        if not ctx._is_loaded:
            return output, self.standing.payload
        state = ctx._state
        payload = None if state is None else definition.encode(self._codec, state, f"state of entity '{self._id}'")
        self._state = _ABSENT if state is None else state
        return output, payload

    def _fail(self, asked: Operation, error: BaseException) -> None:
        details = FailureDetails.of(error)
        failed = EntityOperationFailed(asked.request_id, details, operation=asked.operation)
        if type(asked) is EntityOperationCalled:
            failed.target_instance_id, failed.target_execution_id = asked.parent_instance_id, asked.parent_execution_id
        else:
            _logger.warning("signal '%s' to entity '%s' failed: %s", asked.operation, self._id, details, exc_info=error)
        self._decided.append(SendEntityMessage(failed))

    def _grant(self, asked: EntityLockRequested) -> None:
        self._decided.append(
            SendEntityMessage(
                EntityLockGranted(
                    asked.critical_section_id, asked.position, asked.parent_instance_id, asked.parent_execution_id
                )
            )
        )

    # ---- what an operation asks by its context

    @property
    def now(self) -> int:
        return self.standing.now

    def load_state(self) -> Any:
        """The state as a value, the same object until an operation raises.

        Raises:
            EntityStateError: it cannot be rebuilt. The whole episode is undone, and the entity parked.
        """
        if self._state is _ABSENT:
            payload = self.standing.payload
            try:
                self._state = self._definition.decode(self._codec, payload, f"state of entity '{self._id}'")
            except Exception as error:
                if payload is None:
                    raise  # there is no state yet: the operation alone is at fault
                raise EntityStateError(
                    f"the stored state of entity '{self._id}' does not fit the code at hand ({error}); "
                    "what came for it waits for code that fits"
                ) from error
        return self._state

    def decode_state(self, type: Any) -> Any:
        """The state, rebuilt as the type."""
        if self.standing.payload is None:
            return None
        return self._codec.decode(self.standing.payload, type, f"state of entity '{self._id}'")

    def send_signal(
        self, entity_id: AnyEntityId, operation: str, input: object, at: datetime | None, delay: timedelta | None
    ) -> None:
        target = entity_id_text(entity_id)
        operation = check_operation(operation)
        payload = self._codec.encode(input, f"input of operation '{operation}' of entity '{target}'")
        event = EntityOperationSignaled(
            -1, "", operation, due_at(at, delay, self.standing.now), payload, target_instance_id=target
        )
        self._decided.append(SendEntityMessage(event))

    def start_orchestration(
        self,
        orchestrator: Callable[..., Any] | str,
        input: object,
        instance_id: str | None,
        version: str | None,
        tags: Mapping[str, str] | None,
    ) -> str:
        plan = self._environment.orchestrator(orchestrator)
        payload = self._codec.encode(input, f"input of orchestrator '{plan.name}'")
        if instance_id is None:
            # The same where the operation is performed again because its commit failed, and never again after that.
            place = f"{self._started.execution_id}/{self._received}/{len(self._decided)}"
            instance_id = sha256(place.encode()).hexdigest()[:32]
        else:
            instance_id = ids.check_instance_id(instance_id)
        version = ids.check_version(version)
        checked = None if tags is None else check_tags(tags)
        self._decided.append(ScheduleOrchestration(instance_id, plan.name, payload, version or plan.version, checked))
        return instance_id
