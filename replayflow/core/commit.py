"""What one episode makes durable: one value, written as a whole or not at all.

A commit names the execution that it belongs to and the piece of history that it continues; a store refuses one that does not fit, alone.
These are the values that cross the store's port; the events in them are encoded already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from msgspec import Struct

from replayflow.codec import Payload
from replayflow.core.events import HistoryEvent, TaskCompleted, TaskScheduled
from replayflow.core.instance import Status


class Message(Struct):
    """An event on its way to the inbox of another instance.

    Only an execution with `execution_id` takes it, where that is given. A `control` message (suspend, resume, terminate, ...) is looked at even
    where the instance takes no others. `about` names it in a warning where it cannot be delivered. `start` begins the receiver where there is none
    with its id: how entities come to be.
    """

    instance_id: str
    event: bytes
    execution_id: str | None = None
    is_control: bool = False
    about: str = ""
    start: Start | None = None


class Start(Struct):
    """A new execution: what the instance's row says of it, and its first event, encoded."""

    instance_id: str
    execution_id: str
    name: str
    version: str | None
    event: bytes
    created_at: int
    wake_at: int = 0
    parent_id: str | None = None
    tags: dict[str, str] | None = None
    decoded: list[HistoryEvent] | None = None
    """The events of `event` once more, where whoever made the start has them at hand; not stored."""
    if_taken: Message | None = None
    """Delivered instead, where an instance with that id exists: how a parent learns that its child's id is taken."""


class RowState(Struct, frozen=True):
    """What an instance's row shows beside its history: derived from the fold, kept so that listing and waking need not read histories."""

    status: Status
    wake_at: int | None
    custom_status: Payload = None
    output: Payload = None
    failure: bytes | None = None
    completed_at: int | None = None
    orphans: bytes | None = None
    """Activities that an ended execution had scheduled and that still have to run, encoded."""
    progress: bytes | None = None
    """How far the maps are that are under way, encoded; None where there is none."""


class Ending(Struct):
    """How an instance ended, for whoever waits for it: its orchestrator's name and version, and what its row shows."""

    name: str
    status: Status
    output: Payload = None
    failure: bytes | None = None
    version: str | None = None


class Commit(Struct):
    """All that follows from one episode of one execution.

    `sequence` is the number of the piece of history that `chunk` becomes; the store refuses the commit where another piece has that number, and
    where the instance's present execution is another. `state` is None where the row stays as it is. `consumed` are the inbox messages that the piece
    contains. `next_start` begins the next execution under the same id, in the place of this one; of past executions, this one among them, only the
    last `past_kept` stay then, where that is not None. With `removes` the instance goes, and all that is kept of it, unless its inbox has more than
    is `consumed`: then it stays.
    """

    instance_id: str
    execution_id: str
    sequence: int
    at: int
    chunk: bytes | None
    state: RowState | None = None
    consumed: Sequence[int] = ()
    starts: Sequence[Start] = ()
    messages: Sequence[Message] = ()
    next_start: Start | None = None
    past_kept: int | None = None
    removes: bool = False


@final
class Turn(Commit, kw_only=True):
    """The commit of what nearly every episode is: one result `came`, one activity was `asked` for, and the row stays as it is.

    It has a chunk, and nothing else that a commit may have. A store may make use of that; to one that does not it is a commit like any other.
    """

    came: TaskCompleted
    asked: TaskScheduled
    live: Any = None
    """Whom to tell when it is written, and which reading of the instance it stands on: whoever hands it to the store keeps both here."""
    reading: int = 0
