"""From the store back into memory: an instance is replayed by the code at hand, or it is said why it cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from replayflow.core.decisions import FAULTS
from replayflow.core.definitions import Environment, OrchestratorDefinition
from replayflow.core.entity.entity import Entity
from replayflow.core.entity.ids import entity_name_of, is_entity_id
from replayflow.core.events import ExecutionStarted, HistoryEvent
from replayflow.core.replay import Replay
from replayflow.engine.live import Ended, Live
from replayflow.errors import NonDeterminismError, UnknownNameError, UserError, VersionMismatchError
from replayflow.registry import own_names


def revive(live: Live, pieces: Sequence[Sequence[HistoryEvent]], environment: Environment) -> UserError | None:
    """The instance's generator stands where it stood; or, returned and not raised, what is wrong with it (I9). Nothing is written either way."""
    if live.instance.is_finished:
        live.executor = Ended()
        return None
    started = live.instance.started or live.start[0]
    assert type(started) is ExecutionStarted  # noqa: S101 - every execution begins with it
    definition = environment.serving(started.name, started.version)
    if definition is None:
        if is_entity_id(started.instance_id):
            return _revive_entity(live, started, pieces, environment)
        return unknown("orchestrator", started.name, environment.orchestrators)
    if isinstance(definition, VersionMismatchError):
        return definition if pieces or not fails_version(definition, environment) else None  # its first episode fails
    for task in live.instance.tasks.values():
        if task.name not in environment.activities:
            return unknown("activity", task.name, environment.activities)
    for open in live.instance.maps.values():
        missing = open.unknown_activity(environment.activities)
        if missing is not None:
            return unknown("activity", missing, environment.activities)
    if not pieces:
        return None
    replay = Replay(definition, started, environment)
    try:
        replay.replay_all(pieces)
    except (NonDeterminismError, *FAULTS) as mismatch:
        return mismatch
    live.executor = replay
    return None


def _revive_entity(
    live: Live, started: ExecutionStarted, pieces: Sequence[Sequence[HistoryEvent]], environment: Environment
) -> UserError | None:
    executor = _entity_of(started, environment)
    if isinstance(executor, UnknownNameError):
        return executor
    if pieces:
        for piece in pieces:
            executor.replay(piece)
        live.executor = executor
    return None


def executor_of(started: ExecutionStarted, environment: Environment) -> Replay | Entity | UserError:
    """What runs an execution that is about to begin; or, returned and not raised, why nothing here does."""
    definition = environment.serving(started.name, started.version)
    if type(definition) is OrchestratorDefinition:
        return Replay(definition, started, environment)
    if isinstance(definition, VersionMismatchError):
        return _refusing(definition, started, environment) if fails_version(definition, environment) else definition
    return _entity_of(started, environment)


def fails_version(problem: UserError, environment: Environment) -> bool:
    """Whether that is a mismatch of versions with which an instance fails, rather than to wait for a worker of its version."""
    versioning = environment.versioning
    return isinstance(problem, VersionMismatchError) and versioning is not None and versioning.fails


def _refusing(mismatch: VersionMismatchError, started: ExecutionStarted, environment: Environment) -> Replay:
    """The execution of code that does nothing but fail with the mismatch."""

    def refuse(_: Any) -> NoReturn:
        raise mismatch

    return Replay(OrchestratorDefinition(started.name, refuse, False, Any, Any), started, environment)


def _entity_of(started: ExecutionStarted, environment: Environment) -> Entity | UnknownNameError:
    """What runs an execution whose name no orchestrator has: it is an entity's, or there is nothing."""
    if not is_entity_id(started.instance_id):
        return unknown("orchestrator", started.name, environment.orchestrators)
    name = entity_name_of(started.instance_id)
    definition = environment.entities.get(name)
    if definition is None:
        return unknown("entity", name, environment.entities)
    return Entity(definition, started, environment)


def unknown(what: str, name: str, known: Mapping[str, object]) -> UnknownNameError:
    """The problem of an instance that needs a name which this worker does not have."""
    return UnknownNameError(
        f"no {what} '{name}' is registered with this worker's app (it has: {', '.join(own_names(known)) or 'none'}); "
        "the instance waits, and goes on when a worker that has it starts"
    )
