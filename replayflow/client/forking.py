"""Fork and restart: a new instance with the past of another, or with its input alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from replayflow.chance import new_execution_id, new_instance_id
from replayflow.client.access import Access
from replayflow.client.arguments import checked_tags
from replayflow.client.branching import Beginning, Draft, Source, read
from replayflow.codec import Codec, Payload
from replayflow.core import branches, events
from replayflow.core.branches import Cut, History
from replayflow.core.commit import Start
from replayflow.core.decisions import FAULTS
from replayflow.core.definitions import Environment
from replayflow.core.events import ExecutionForked, ExecutionStarted
from replayflow.core.ids import check_instance_id, check_version
from replayflow.core.replay import Replay
from replayflow.errors import InstanceExistsError, InvalidArgumentError, InvalidStateError, NonDeterminismError
from replayflow.registry import App
from replayflow.store.base import Create

UNCHANGED: Any = object()
"""The input of the instance that is restarted or forked."""


@dataclass(frozen=True, slots=True)
class ForkCheck:
    """What `fork(dry_run=True)` found: whether the code at hand does what the part of the history does that the fork would keep.

    Where it does not, `difference` says where both part, with both source lines, and `event` is the number of the first event of that episode.
    """

    fits: bool
    kept: int
    """How many events of the source would be part of the fork's history."""
    difference: str | None = None
    event: int | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What is other in the new instance than in its source; None, or `UNCHANGED`, for what is not."""

    instance_id: str | None
    input: Any
    tags: Mapping[str, str] | None
    version: str | None

    def started(self, past: ExecutionStarted, id: str, codec: Codec) -> ExecutionStarted:
        """How the new instance begins."""
        input = past.input
        if self.input is not UNCHANGED:
            input = codec.encode(self.input, f"input of orchestrator '{past.name}'")
        return ExecutionStarted(
            name=past.name,
            input=input,
            instance_id=id,
            execution_id=new_execution_id(),
            version=past.version if self.version is None else check_version(self.version),
            tags=past.tags if self.tags is None else checked_tags(self.tags),
        )


class Forking:
    """A fork in the making: everything about it is checked, and nothing written."""

    def __init__(
        self, source: Source, id: str, at: int | None, changes: Changes, results: Mapping[int, object], codec: Codec
    ) -> None:
        self._source = source
        history = source.history
        encoded = {id: codec.encode(value, f"result of task {id}") for id, value in _checked(results).items()}
        self._edited = sorted(encoded)
        self.at = _place(history, at, encoded, is_other_input=changes.input is not UNCHANGED)
        self.cut: Cut = branches.forked(history, self.at)
        branches.edited(self.cut, encoded)
        started = changes.started(history.started, id, codec)
        self.started = replace(started, is_first=False, origins=self.cut.origins(history.started))

    async def write(self, access: Access, reason: str) -> None:
        """The fork exists, with children of its own where the source had some at work.

        Raises:
            InstanceExistsError: its id is taken.
        """
        draft = Draft()
        beginning = Beginning(self.cut, self.started, access.clock.now())
        for call in self.cut.calls:
            beginning.begin_anew(call, beginning.own_id(call), draft)
        past = self._source.history.started
        mark = ExecutionForked(past.instance_id, past.execution_id, self.at, reason, self._edited, beginning.children)
        beginning.add_to(draft, mark, self._source, None, [])
        refused = (await access.submit(draft.operation())).error
        if refused is not None:
            raise refused

    def check(self, app: App, codec: Codec) -> ForkCheck:
        """Whether the app's code does what is kept of the history."""
        kept = self.cut.kept
        count = kept.count if kept.pieces else 0
        environment = Environment(codec, app.activities, app.orchestrators, entities=app.entities)
        replay = Replay(app.orchestrator_named(self.started.name), self.started, environment)
        try:
            for index, piece in enumerate(kept.pieces):
                begun = [self.started, *kept.start[1:]] if index == 0 else []
                try:
                    replay.replay([piece[0], *begun, *piece[1:]])
                except (NonDeterminismError, *FAULTS) as error:
                    return ForkCheck(False, count, str(error), kept.number_of(index))
        finally:
            replay.close()
        return ForkCheck(True, count)


async def forking(
    access: Access,
    codec: Codec,
    instance_id: str,
    execution_id: str | None,
    at: int | None,
    changes: Changes,
    results: Mapping[int, object],
) -> Forking:
    """The fork as it would be."""
    source = await read(access, instance_id, execution_id)
    id = new_instance_id(access.clock.now()) if changes.instance_id is None else check_instance_id(changes.instance_id)
    return Forking(source, id, at, changes, results, codec)


async def restart(access: Access, codec: Codec, instance_id: str, changes: Changes) -> str:
    """The id of the instance that has begun anew; see `Instance.restart`."""
    source = await read(access, instance_id)
    id = instance_id if changes.instance_id is None else check_instance_id(changes.instance_id)
    is_same = id == instance_id
    status = source.record.status
    if is_same and not status.is_finished:
        raise InvalidStateError(
            f"instance '{id}' is {status}: under its own id it can be restarted when it has finished; terminate it, or restart it under another id"
        )
    started = replace(changes.started(source.history.started, id, codec), is_first=not is_same)
    start = Start(
        instance_id=id,
        execution_id=started.execution_id,
        name=started.name,
        version=started.version,
        event=events.encode([started]),
        decoded=[started],
        created_at=access.clock.now(),
        tags=started.tags,
    )
    refused = (await access.submit(Create(start, "replace_finished" if is_same else "error"))).error
    if is_same and isinstance(refused, InstanceExistsError):
        raise InvalidStateError(f"{refused}: somebody else has restarted it meanwhile")
    if refused is not None:
        raise refused
    return id


def _checked(results: Mapping[int, object]) -> Mapping[int, object]:
    for id in results:
        if not isinstance(id, int) or isinstance(id, bool):
            raise InvalidArgumentError(
                f"results: {id!r:.80} is no task id; it is the number of a task in the history, such as 3"
            )
    return results


def _place(history: History, at: int | None, results: Mapping[int, Payload], *, is_other_input: bool) -> int:
    """The last event that the fork keeps."""
    if at is not None:
        history.place_of(at)
        return at
    places = [place for id in results if (place := branches.event_with_result(history, id)) is not None]
    if places:
        return max(places)
    if is_other_input:
        raise InvalidArgumentError(
            "a fork with another input needs `at`, the last event that it keeps: what is kept was decided with the input of its source; "
            "at=1 keeps nothing"
        )
    return history.count
