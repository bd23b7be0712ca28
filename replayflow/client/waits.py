"""What an instance waits for, for people who ask: its history, its inbox, its children, its entities, and whether anybody serves the hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from replayflow.clock import to_datetime
from replayflow.codec import Codec
from replayflow.core import events
from replayflow.core.decisions import FAULTS
from replayflow.core.definitions import Environment, OrchestratorDefinition
from replayflow.core.entity.entity import Standing
from replayflow.core.entity.ids import is_entity_id
from replayflow.core.events import (
    EventRaised,
    ExecutionCancelRequested,
    ExecutionReplaced,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
)
from replayflow.core.instance import Status
from replayflow.core.replay import Replay
from replayflow.core.waits import Listening, Open, WaitKind, Waits
from replayflow.errors import NonDeterminismError
from replayflow.patterns.schedule import DEFINITION, SCHEDULE
from replayflow.registry import App
from replayflow.store import Store
from replayflow.store.base import InstanceRecord, Loaded, Waiting
from replayflow.store.sound import load_sound

_REQUESTS: dict[type[HistoryEvent], str] = {
    ExecutionCancelRequested: "cancel",
    ExecutionReplaced: "replace",
    ExecutionResumed: "resume",
    ExecutionSuspended: "suspend",
    ExecutionTerminated: "terminate",
}
_LOOKED_UP_MAX = 200


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that an instance waits for. Times are aware and in UTC.

    `name` is that of the activity, the orchestrator of a child, the event, the operation; of a message what it asks for: "cancel", "suspend",
    "event 'approved'". An event without a name is one that history does not know: an app says which (`Client("orders.db", app)`).
    """

    kind: WaitKind
    name: str
    since: datetime | None
    """None where that is not known."""
    until: datetime | None = None
    """When it is over by itself: a timer's time, a retry's, the time limit of an event."""
    task_id: int | None = None
    attempt: int | None = None
    """Of an activity or a child: which attempt runs; of a retry, which follows."""
    target: str | None = None
    """The id of the child or the entity."""
    detail: str = ""
    """The child's status, who holds the entity, how far the map is, the problem, the reason."""
    site: str = ""
    """The source line that asked for it; of an event, the one at which the code stands."""


async def waits(
    store: Store, codec: Codec, app: App | None, instance_id: str, now: int
) -> tuple[InstanceRecord, list[Wait]] | None:
    """The instance's row with all that it waits for; None where there is no such instance."""
    loaded = await store.load([instance_id])
    if not loaded:
        return None
    one = loaded[0]
    if one.record.status.is_finished:
        return one.record, []
    own = await asyncio.to_thread(_own, one, codec, app, now)
    found = [wait async for wait in _with_others(store, own)]
    if own.problem is not None and (one.record.problem or b"").decode() != own.problem:
        found.insert(0, Wait(WaitKind.REPAIR, "", None, detail=own.problem))
    around = await _around(store, codec, one.record, own.suspended_since)
    return one.record, [*around, *found]


# ---- what the instance itself says -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Own:
    opens: Sequence[Open]
    suspended_since: int | None
    problem: str | None = None
    """Why the app's code does not fit the history."""


def _own(loaded: Loaded, codec: Codec, app: App | None, now: int) -> _Own:
    record = loaded.record
    pieces = past_of(loaded)
    fold = Waits()
    for piece in pieces:
        fold.take(piece)
    opens = fold.now(now)
    if loaded.problem is not None:
        app = None  # a value of it is sealed, and the key is not at hand
    definition = None if app is None else app.orchestrators.serving(record.name, record.version)
    if record.name == SCHEDULE:
        app, definition = app or App(), DEFINITION
    if app is not None and definition is not None and pieces:
        try:
            return _Own(_heard(pieces, app, definition, codec, opens), fold.suspended_since)
        except (NonDeterminismError, *FAULTS) as error:
            return _Own(opens, fold.suspended_since, str(error))
    problem = None
    if app is not None and definition is None and not is_entity_id(record.instance_id):
        problem = f"this app has no orchestrator '{record.name}'"
    if pieces and not opens and not is_entity_id(record.instance_id):
        # Nothing is open, and it has not ended: it stands at an event, and history does not know which.
        opens = [Open(WaitKind.EVENT, "", record.updated_at)]
    return _Own(opens, fold.suspended_since, problem)


def past_of(loaded: Loaded) -> list[list[HistoryEvent]]:
    """The pieces of the present execution, the start behind the time of the first; none where it has not begun."""
    pieces = events.decode_pieces(loaded.pieces, loaded.piece_count)
    if pieces:
        pieces[0] = [pieces[0][0], *events.decode(loaded.record.start), *pieces[0][1:]]
    return pieces


def _heard(
    pieces: Sequence[Sequence[HistoryEvent]],
    app: App,
    definition: OrchestratorDefinition,
    codec: Codec,
    known: Sequence[Open],
) -> list[Open]:
    environment = Environment(codec, app.activities, app.orchestrators, entities=app.entities)
    started = next(event for event in pieces[0] if isinstance(event, ExecutionStarted))
    replay = Replay(definition, started, environment)
    try:
        listening = Listening(replay)
        for piece in pieces:
            listening.take(piece)
        return listening.now(known)
    finally:
        replay.close()


# ---- what others say -------------------------------------------------------------------------------------------


async def _with_others(store: Store, own: _Own) -> AsyncIterator[Wait]:
    """The waits, each with how its child is, or who holds its entity."""
    targets = list(dict.fromkeys(open.target for open in own.opens if open.target is not None))[:_LOOKED_UP_MAX]
    found = {one.record.instance_id: one for one in (await load_sound(store, targets))[0]}
    for open in own.opens:
        detail = ""
        if open.progress is not None:
            done, failed, known = open.progress
            detail = f"{done:,} of {known:,} items done" + (f", {failed:,} failed" if failed else "")
        elif open.target is not None:
            detail = _how(open, found.get(open.target))
        yield Wait(
            open.kind,
            open.name,
            to_datetime(open.since),
            None if open.until is None else to_datetime(open.until),
            open.task_id,
            open.attempt,
            open.target,
            detail,
            open.site,
        )


def _how(open: Open, target: Loaded | None) -> str:
    if target is None:
        return "" if open.kind is WaitKind.RETRY else "not there yet"
    if open.kind not in (WaitKind.CALL, WaitKind.LOCK):
        record = target.record
        return f"{record.status}, parked" if record.problem is not None else str(record.status)
    standing = Standing().apply_all(chain.from_iterable(past_of(target)))
    holder = standing.line.holder
    return "" if holder is None else f"held by {holder.parent_instance_id}"


async def _around(store: Store, codec: Codec, record: InstanceRecord, suspended_since: int | None) -> list[Wait]:
    """What keeps the instance from going on that is not of its own making."""
    found: list[Wait] = []
    if await store.owner() is None:
        found.append(Wait(WaitKind.WORKER, "", None))
    if record.problem is not None:
        found.append(Wait(WaitKind.REPAIR, "", to_datetime(record.updated_at), detail=record.problem.decode()))
    if record.status is Status.SUSPENDED:
        since = record.updated_at if suspended_since is None else suspended_since
        found.append(Wait(WaitKind.RESUME, "", to_datetime(since)))
    elif record.status is Status.PENDING:
        until = to_datetime(record.wake_at) if record.wake_at else None
        found.append(Wait(WaitKind.START, record.name, to_datetime(record.created_at), until))
    return [*found, *_messages(codec, await store.waiting(record.instance_id))]


def _messages(codec: Codec, waiting: Sequence[Waiting]) -> Iterator[Wait]:
    for message in waiting:
        if message.event is None:
            continue  # a nudge: that the instance begins, which it says itself
        event = events.decode(message.event)[0]
        since = None if message.since is None else to_datetime(message.since)
        yield Wait(WaitKind.MESSAGE, message_name(event), since, detail=_reason(codec, event))


def message_name(event: HistoryEvent) -> str:
    """What a message asks for, or brings."""
    if isinstance(event, EventRaised):
        return f"event '{event.name}'"
    return _REQUESTS.get(type(event)) or events.describe(event)


def _reason(codec: Codec, event: HistoryEvent) -> str:
    if type(event) not in _REQUESTS:
        return ""
    reason = codec.decode(getattr(event, "input", None))
    return reason if isinstance(reason, str) else ""
