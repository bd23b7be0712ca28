"""What an orchestrator may ask of entities: the part of its context that is about them.

Values are encoded, ids and rules are checked before an id is taken or anything is written (I11).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar, overload

from replayflow.core.decisions import Decisions
from replayflow.core.definitions import Environment
from replayflow.core.entity.actions import SendEntityMessage
from replayflow.core.entity.ids import AnyEntityId, check_operation, entity_id_text, entity_name_of
from replayflow.core.entity.sections import EntityLock, Section
from replayflow.core.events import EntityOperationCalled, EntityOperationSignaled, ExecutionStarted
from replayflow.core.moments import due_at
from replayflow.core.origins import identity_at
from replayflow.core.sites import site_of
from replayflow.core.tasks import Pending, Task, complete
from replayflow.errors import EntityError, FailureDetails, InvalidArgumentError, OrchestratorError

R = TypeVar("R")
_frame = sys._getframe


class EntityCallTask(Pending[R]):
    """An operation that was asked of the entity `target`."""

    label: ClassVar[str] = "operation"
    target: str = ""

    def _abandon(self) -> None:
        self.ledger.abandon_entity_call(self)

    @property
    def title(self) -> str:
        return f"operation '{self.name}' of entity '{self.target}' (task {self.id})"


class EntityCalls:
    """`call_entity`, `signal_entity` and `lock_entities` of an `OrchestrationContext`."""

    __slots__ = ()
    _decisions: Decisions
    _environment: Environment
    _started: ExecutionStarted

    @overload
    def call_entity(
        self, entity_id: AnyEntityId, operation: str, input: object = None, *, result_type: type[R]
    ) -> Task[R]: ...
    @overload
    def call_entity(
        self, entity_id: AnyEntityId, operation: str, input: object = None, *, result_type: object = None
    ) -> Task[Any]: ...

    def call_entity(
        self, entity_id: AnyEntityId, operation: str, input: object = None, *, result_type: Any = None
    ) -> Task[Any]:
        """The operation is asked of the entity; yield the task for its result, rebuilt as `result_type` or as the operation is annotated.

        An entity that is not there begins with its first message. At the yield: `EntityError` where the operation failed, and changed nothing.

        Raises:
            EncodeError: the input cannot travel as a payload.
            InvalidArgumentError: the id or the operation is none.
            OrchestratorError: inside a critical section that has not locked the entity, or has not got its locks yet.
        """
        decisions, environment = self._decisions, self._environment
        target = entity_id_text(entity_id)
        operation = check_operation(operation)
        site = site_of(_frame(1))
        section = decisions.section
        if section is not None and not decisions.is_sealed:
            if target not in section.lock_set:
                raise OrchestratorError(
                    f"{site}: entity '{target}' is called in a critical section that has not locked it, which could wait for ever: "
                    "add it to the list of ctx.lock_entities, or call it outside"
                )
            if not section.is_granted:
                raise OrchestratorError(
                    f"{site}: entity '{target}' is called before its lock is there: yield ctx.lock_entities(...) first"
                )
        payload = environment.codec.encode(input, f"input of operation '{operation}' of entity '{target}'")
        if result_type is None:
            definition = environment.entities.get(entity_name_of(target))
            result_type = Any if definition is None else definition.result_type_of(operation)
        decode = environment.codec.decoder(result_type)
        id = decisions.take_id()
        decisions.add(
            SendEntityMessage(
                EntityOperationCalled(id, str(id), operation, None, payload, target_instance_id=target, site=site)
            )
        )
        task: EntityCallTask[Any] = EntityCallTask(id, operation, decode, decisions, target=target)
        decisions.open[id] = task
        return task

    def signal_entity(
        self,
        entity_id: AnyEntityId,
        operation: str,
        input: object = None,
        *,
        at: datetime | None = None,
        delay: timedelta | None = None,
    ) -> None:
        """The operation is asked of the entity, now, at a time or after a while; nobody waits for it. Its failure is logged.

        Raises:
            EncodeError: the input cannot travel as a payload.
            InvalidArgumentError: the id or the operation is none; the time is naive or in no calendar; both `at` and `delay` are given.
            OrchestratorError: a critical section has locked the entity: call it instead.
        """
        decisions = self._decisions
        target = entity_id_text(entity_id)
        operation = check_operation(operation)
        site = site_of(_frame(1))
        section = decisions.section
        if section is not None and target in section.lock_set and not decisions.is_sealed:
            raise OrchestratorError(
                f"{site}: entity '{target}' is signalled in the critical section that has locked it: call it, or signal it after the section"
            )
        scheduled = due_at(at, delay, decisions.now)
        payload = self._environment.codec.encode(input, f"input of operation '{operation}' of entity '{target}'")
        id = decisions.take_id()
        decisions.add(
            SendEntityMessage(
                EntityOperationSignaled(
                    id, str(id), operation, scheduled, payload, target_instance_id=target, site=site
                )
            )
        )

    def lock_entities(self, entity_ids: Iterable[AnyEntityId]) -> Task[EntityLock]:
        """Yield the task, and the entities belong to this orchestration until the `with` block ends: `with (yield ctx.lock_entities([a, b])):`.

        Their order does not matter, nor does one that is named twice; without any, the section locks nothing. In the section its entities can be
        called; calls of others, signals to its own, a second section and sub-orchestrations are refused: nobody can wait in a circle.

        Raises:
            OrchestratorError: a critical section is open, or being opened; or a call of an entity that is not in the list is open.
            InvalidArgumentError: an id is none.
        """
        decisions = self._decisions
        site = site_of(_frame(1))
        if isinstance(entity_ids, str):
            raise InvalidArgumentError(f"lock_entities takes a list of ids, and was given one: [{entity_ids!r:.300}]")
        lock_set = sorted({entity_id_text(entity_id) for entity_id in entity_ids})
        if not lock_set:
            task = Task[EntityLock]()
            complete(task, EntityLock(None))
            return task
        if decisions.section is not None and not decisions.is_sealed:
            raise OrchestratorError(
                f"{site}: lock_entities in a critical section, which could wait for ever: lock all entities with one call"
            )
        open_call = next((t for t in decisions.open.values() if _is_elsewhere(t, lock_set)), None)
        if open_call is not None:
            raise OrchestratorError(
                f"{site}: lock_entities while {open_call.title} is open, which a section could wait for for ever: yield that first, "
                "or add its entity to the list"
            )
        _, execution_id = identity_at(self._started, decisions.now)
        return Section(decisions, execution_id, lock_set, site).open()


def _is_elsewhere(task: Pending[Any], lock_set: list[str]) -> bool:
    return isinstance(task, EntityCallTask) and task.target not in lock_set


def answered(decisions: Decisions, request_id: str) -> Pending[Any] | None:
    """The call that the answer is for, if somebody still waits for it."""
    return decisions.open.pop(int(request_id), None) if request_id.isdecimal() else None


def entity_error(task: Pending[Any], details: FailureDetails) -> EntityError:
    """The error that an orchestrator catches where an operation that it called has failed."""
    return EntityError(f"{task.title} failed: {details}", details)
