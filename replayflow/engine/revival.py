"""From the store back into memory: an instance is replayed by the code at hand, or it is said why it cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from replayflow.core.decisions import FAULTS
from replayflow.core.definitions import Environment
from replayflow.core.entity import Entity
from replayflow.core.entity_ids import entity_name_of, is_entity_id
from replayflow.core.events import ExecutionStarted, HistoryEvent
from replayflow.core.replay import Replay
from replayflow.engine.live import Ended, Live
from replayflow.errors import NonDeterminismError, UnknownNameError, UserError
from replayflow.registry import own_names


def revive(live: Live, pieces: Sequence[Sequence[HistoryEvent]], environment: Environment) -> UserError | None:
    """The instance's generator stands where it stood; or, returned and not raised, what is wrong with it (I9). Nothing is written either way."""
    if live.instance.is_finished:
        live.executor = Ended()
        return None
    started = live.instance.started or live.start[0]
    assert isinstance(started, ExecutionStarted)  # noqa: S101 - every execution begins with it
    definition = environment.orchestrators.get(started.name)
    if definition is None:
        if is_entity_id(started.instance_id):
            return _revive_entity(live, started, pieces, environment)
        return unknown("orchestrator", started.name, environment.orchestrators)
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
    executor = without_orchestrator(started, environment)
    if isinstance(executor, UnknownNameError):
        return executor
    if pieces:
        for piece in pieces:
            executor.replay(piece)
        live.executor = executor
    return None


def without_orchestrator(started: ExecutionStarted, environment: Environment) -> Entity | UnknownNameError:
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
