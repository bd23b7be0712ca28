"""What the memory store keeps of an instance."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from replayflow.core.commit import Start
from replayflow.core.ids import is_unicode
from replayflow.core.instance import Status
from replayflow.errors import InvalidArgumentError
from replayflow.store.operations import EXECUTIONS_PER_TRIM, Delivery
from replayflow.store.outgoing import references_in
from replayflow.store.records import InstanceRecord


@dataclass(slots=True)
class Kept:
    """All that the store has of one instance id."""

    key: int
    record: InstanceRecord
    pieces: dict[int, bytes] = field(default_factory=dict)
    executions: dict[str, int] = field(default_factory=dict)
    """Where in the history each execution begins."""
    inbox: dict[int, Delivery] = field(default_factory=dict)
    dedupe_keys: set[str] = field(default_factory=set)
    arrived: dict[int, int] = field(default_factory=dict)
    """When each message in the inbox was taken."""
    transacted: set[tuple[str, int]] = field(default_factory=set)
    """The transactional activities that have had their one run, by execution and task."""

    def copy(self) -> Kept:
        return Kept(
            self.key,
            replace(self.record),
            dict(self.pieces),
            dict(self.executions),
            dict(self.inbox),
            set(self.dedupe_keys),
            {number: at for number, at in self.arrived.items() if number in self.inbox},
            set(self.transacted),
        )

    def references(self) -> set[bytes]:
        """All that is stored of the instance refers to."""
        record = self.record
        stored = [record.start, record.custom_status, record.output, record.orphans, *self.pieces.values()]
        stored += [delivery.event for delivery in self.inbox.values()]
        return {reference for one in stored if one is not None for reference in references_in(one)}

    @property
    def id(self) -> str:
        return self.record.instance_id

    @property
    def takes_messages(self) -> bool:
        return self.record.status is not Status.SUSPENDED and self.record.problem is None

    @property
    def is_purgeable(self) -> bool:
        return self.record.status.is_finished and self.record.orphans is None

    @property
    def next_number(self) -> int:
        return max([self.record.start_number, *self.pieces]) + 1


def forget_executions(kept: Kept, keep: int) -> None:
    """Of the past executions the last `keep` stay, or more, where too many would go at once."""
    past = sorted(kept.executions.values())
    going = min(max(0, len(past) - keep), EXECUTIONS_PER_TRIM)
    first = [*past, kept.record.start_number][going]
    kept.pieces = {number: piece for number, piece in kept.pieces.items() if number >= first}
    kept.executions = {id: number for id, number in kept.executions.items() if number >= first}
    if not kept.pieces:
        kept.record.updated_at = kept.record.created_at


def why_unstorable(start: Start) -> InvalidArgumentError | None:
    """Why the start cannot be kept: text that is no Unicode, or a NUL character in its id or its tags."""
    tags = [text for tag in (start.tags or {}).items() for text in tag]
    texts = [start.instance_id, start.execution_id, start.name, start.version, start.parent_id, *tags]
    for text in texts:
        if text is not None and not is_unicode(text):
            return InvalidArgumentError(f"instance {start.instance_id!a:.300}: {text!a:.80} is no Unicode text")
    if any("\0" in text for text in [start.instance_id, *tags]):
        return InvalidArgumentError(f"instance {start.instance_id!a:.300} has a NUL character in its id or its tags")
    return None
