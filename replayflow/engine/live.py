"""What the engine has in memory of an instance that something happens to.

Everything here can be lost at any moment: the store has it all, or will be asked again. What it is for is speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeAlias

from replayflow.core import admission, events, rows
from replayflow.core.actions import Action
from replayflow.core.commit import Ending, RowState, Start
from replayflow.core.entity.entity import Entity
from replayflow.core.events import ExecutionStarted, HistoryEvent, TaskCompleted, TaskScheduled
from replayflow.core.folding import folded
from replayflow.core.instance import SUSPENDED, Instance, Status
from replayflow.core.nothing import NOTHING
from replayflow.core.replay import Replay
from replayflow.engine.runs import Run
from replayflow.engine.windows import Window
from replayflow.errors import FailureDetails
from replayflow.store.base import Delivery, Loaded

_NO_KEYS: frozenset[tuple[str, int]] = frozenset()
_CREATED = RowState(Status.PENDING, 0)


class Ended:
    """The executor of an execution that decides nothing any more: what comes in is only written down."""

    def turn(self, came: TaskCompleted, now: int) -> None:
        pass

    def begin(self, now: int) -> None:
        pass

    def deliver(self, event: HistoryEvent) -> None:
        pass

    def take(self) -> list[Action]:
        return []

    def predicate_of(self, task_id: int) -> Callable[[FailureDetails], bool] | None:  # noqa: ARG002 - the port's shape
        return None

    def close(self) -> None:
        pass


LocalExecutor: TypeAlias = Replay | Entity | Ended


class Live:
    """An instance in memory: its fold, its warm generator, and its mailbox.

    `mailbox` has the events that no episode has taken; those that stand in the inbox, too, have their number and the execution they are meant for in
    `numbers`, by identity. Of each Live at most one commit is under way (`is_busy`); what comes meanwhile waits for the next episode. `ends_in` is
    the group of commits that its end is, or was, a part of.
    """

    __slots__ = (
        "_looked_at",
        "_looked_in",
        "discarded",
        "ends_in",
        "execution_id",
        "executor",
        "id",
        "instance",
        "is_busy",
        "is_loading",
        "is_queued",
        "mailbox",
        "must_reload",
        "numbers",
        "orphans",
        "owing",
        "ran",
        "reading",
        "retried",
        "row",
        "running",
        "sequence",
        "start",
        "windows",
    )

    def __init__(self, id: str, execution_id: str) -> None:
        self.id = id
        self.execution_id = execution_id
        self.instance = Instance()
        self.executor: LocalExecutor | None = None
        self.row = _CREATED
        self.sequence = 1
        self.start: Sequence[HistoryEvent] = ()
        self.mailbox: list[HistoryEvent] = []
        self.numbers: dict[int, tuple[int, str | None]] = NOTHING
        self.discarded: list[int] | None = None
        self.orphans: Sequence[tuple[str, TaskScheduled]] = ()
        self.owing: AbstractSet[tuple[str, int]] = _NO_KEYS
        self.ran: AbstractSet[tuple[str, int]] = _NO_KEYS
        self.running: dict[int, Run] = {}
        self.windows: dict[int, Window] = NOTHING
        self.retried: dict[int, int] = NOTHING
        self.reading = 0
        self.ends_in = -1
        self.must_reload = False
        self.is_busy = False
        self.is_queued = False
        self.is_loading = False
        # While suspended: how much of which mailbox is known to be no news. A mailbox that is replaced is another list.
        self._looked_in = self.mailbox
        self._looked_at = 0

    @classmethod
    def of_start(cls, start: Start) -> Live:
        """A new execution that nothing has happened to but its creation."""
        live = cls(start.instance_id, start.execution_id)
        live.start = start.decoded or events.decode(start.event)
        if start.wake_at:
            live.row = RowState(Status.PENDING, start.wake_at)
        return live

    @property
    def is_first(self) -> bool:
        """Whether the execution that is about to start continues no history of its instance: one that does has to be looked at first."""
        started = self.start[0]
        return isinstance(started, ExecutionStarted) and started.is_first

    def restore(self, loaded: Loaded) -> list[list[HistoryEvent]]:
        """The instance is as the store has it, but for its executor; returns the pieces that one has to replay, the start in the first.

        What ran stays running, and results that only memory has stay in the mailbox.
        """
        record = loaded.record
        self.reading += 1
        self.is_busy = False
        if record.execution_id != self.execution_id:
            self.running = {}
            self.windows = self.retried = NOTHING
            self.mailbox = []
        else:
            self.mailbox = [event for event in self.mailbox if id(event) not in self.numbers]
        self.numbers = NOTHING
        self.discarded = None
        self.execution_id = record.execution_id
        self.row = RowState(
            record.status,
            record.wake_at,
            record.custom_status,
            record.output,
            record.failure,
            record.completed_at,
            record.orphans,
            record.progress,
        )
        self.orphans = () if record.orphans is None else rows.decode_orphans(record.orphans)
        self.sequence = record.start_number + 1 + loaded.piece_count
        start = events.decode(record.start)
        pieces = events.decode_pieces(loaded.pieces, loaded.piece_count)
        if pieces:
            first = pieces[0]
            pieces[0] = [first[0], *start, *first[1:]]
            self.start = ()
        else:
            self.start = start
        self.instance = folded(pieces)
        return pieces

    def begins_retry(self, task_id: int) -> bool:
        """Whether the next attempt of the activity is to begin: not where it has, by an alarm that an earlier reading has set."""
        attempt = self.instance.attempts.get(task_id, 0) + 1
        if self.retried.get(task_id) == attempt:
            return False
        if self.retried is NOTHING:
            self.retried = {}
        self.retried[task_id] = attempt
        return True

    def owe(self, key: tuple[str, int]) -> None:
        """The activity of an ended execution, by its execution and id, is at work."""
        self.owing = _with(self.owing, key)

    def pay(self, key: tuple[str, int]) -> None:
        """That activity has had its run."""
        if isinstance(self.owing, set):
            self.owing.discard(key)
        self.ran = _with(self.ran, key)
        self.orphans = [(owner, task) for owner, task in self.orphans if (owner, task.event_id) != key]

    def successor(self, start: Start) -> Live:
        """The execution that comes after this one, with the messages that are meant for it, and what this one still owes."""
        heir = Live.of_start(start)
        heir.sequence = self.sequence + 1  # the start itself has the number between
        heir.orphans = self.orphans
        heir.owing = self.owing
        heir.ran = self.ran
        heir.row = RowState(
            Status.PENDING, start.wake_at, custom_status=self.row.custom_status, orphans=self.row.orphans
        )
        heir.discarded = None if self.discarded is None else list(self.discarded)
        for event in self.mailbox:
            numbered = self.numbers.get(id(event))
            if numbered is None:
                continue  # a result that the old execution's code never gets to see
            number, execution_id = numbered
            if execution_id is None or execution_id == heir.execution_id:
                heir.mailbox.append(event)
                heir.number(event, *numbered)
            else:
                heir.discard(number)
        return heir

    def receive(self, delivery: Delivery) -> None:
        """The message is in the mailbox; one for another execution, or a mere nudge, waits to be struck from the inbox."""
        if delivery.event is None or (delivery.execution_id is not None and delivery.execution_id != self.execution_id):
            self.discard(delivery.number)
            return
        for event in events.decode(delivery.event):
            self.number(event, delivery.number, delivery.execution_id)
            self.mailbox.append(event)

    def discard(self, number: int) -> None:
        """The message with the number waits to be struck from the inbox."""
        if self.discarded is None:
            self.discarded = []
        self.discarded.append(number)

    def number(self, event: HistoryEvent, number: int, execution_id: str | None) -> None:
        """The event stands in the inbox, too, under the number, meant for the execution."""
        if self.numbers is NOTHING:
            self.numbers = {}
        self.numbers[id(event)] = (number, execution_id)

    def numbers_of(self, taken: list[HistoryEvent]) -> list[int]:
        """The inbox numbers of the events, which are taken out of the mailbox for good."""
        found = []
        if self.numbers:
            for event in taken:
                numbered = self.numbers.pop(id(event), None)
                if numbered is not None:
                    found.append(numbered[0])
        return found

    def ending(self, row: RowState) -> Ending:
        """What waiters are told, where the execution has ended with the row."""
        started = self.instance.started
        if started is None:
            return Ending("", row.status, row.output, row.failure)
        return Ending(started.name, row.status, row.output, row.failure, started.version)

    @property
    def has_news(self) -> bool:
        """Whether an episode would have something to take in, or something to strike."""
        if self.start or self.discarded:
            return True
        if self.instance.status is not SUSPENDED:
            return bool(self.mailbox)
        return self._has_news_while_suspended()

    def _has_news_while_suspended(self) -> bool:
        """Whether a control event is in the mailbox, or what only memory has. Each is looked at once: many must not cost their square."""
        mailbox = self.mailbox
        if self._looked_in is not mailbox:
            self._looked_in, self._looked_at = mailbox, 0
        while self._looked_at < len(mailbox):
            event = mailbox[self._looked_at]
            if isinstance(event, admission.CONTROL) or id(event) not in self.numbers:
                return True
            self._looked_at += 1
        return False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost by forgetting it."""
        return not (
            self.is_busy
            or self.is_queued
            or self.is_loading
            or self.running
            or self.orphans
            or self.start
            or self.discarded
            or (self.mailbox and self.has_news)
            or (self.windows and any(window.under_way() for window in self.windows.values()))
        )


def _with(keys: AbstractSet[tuple[str, int]], key: tuple[str, int]) -> set[tuple[str, int]]:
    """The keys and this one: in the same set, where there is one already. Few instances need one, and an empty one takes 200 bytes."""
    own = keys if isinstance(keys, set) else set(keys)
    own.add(key)
    return own
