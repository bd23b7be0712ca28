"""Which calls of one map a worker has under way: a window that slides over them.

1. No call starts before its `MapScheduled`, or its `MapPage`, is durable: `end` is where the durable calls end (I3).
2. Results gather in the one `MapProgress` that lies in the mailbox, until an episode takes it. While that is full the window does not move, so that
   neither memory nor a piece of history grows without bound.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from replayflow.core.events import HistoryEvent, MapProgress, TaskScheduled
from replayflow.core.map.mapping import PAGE, Due, OpenMap, answered
from replayflow.engine.runs import Plan, Run

RESULTS_AHEAD_MAX = 10_000
RESULT_BYTES_AHEAD_MAX = 8 * 2**20


class CallRun(Run, eq=False, kw_only=True):
    """One attempt of one call of a map."""

    window: Window
    number: int

    @property
    def idempotency_key(self) -> str:
        place = f"page-{self.window.open.pages}" if self.number == PAGE else self.number
        return f"{self.window.scope}/{self.task.event_id}/{place}"


class Window:
    """The calls of an open map that this worker runs."""

    __slots__ = (
        "_bytes",
        "_gathering",
        "_gathers_in",
        "_page_asked",
        "_places",
        "due",
        "end",
        "execution_id",
        "instance_id",
        "open",
        "page",
        "page_run",
        "plan",
        "running",
        "scope",
    )

    def __init__(
        self,
        instance_id: str,
        execution_id: str,
        open: OpenMap,
        plan: Plan | None,
        page: Plan | None,
        mailbox: Collection[HistoryEvent],
    ) -> None:
        self.instance_id = instance_id
        self.execution_id = execution_id
        self.scope = f"{instance_id}/{execution_id}"
        """What the idempotency keys of the calls begin with."""
        self.open = open
        self.plan = plan
        """How to call the activity; None where children do the work, and only pages are run here."""
        self.page = page
        known = answered(open.id, mailbox)
        self.due = Due(open, known - {PAGE})
        self._page_asked = (open.pages, open.attempts.get(PAGE, 0) + 1) if PAGE in known else (-1, 0)
        self.end = len(open.tally.calls)
        self._places = open.scheduled.concurrency
        self.running: dict[int, CallRun] = {}
        self.page_run: CallRun | None = None
        self._gathers_in: list[HistoryEvent] | None = None
        self._gathering = MapProgress(open.id, [], [], [])
        self._bytes = 0

    def next(self) -> CallRun | None:
        """The next call to start, which counts as running from now on; None where none is due or there is no place."""
        if len(self.running) >= self._places:
            return None
        open, plan = self.open, self.plan
        if plan is None or open.is_closed or open.is_stopping or self._is_full:
            return None
        number = self.due.take(self.end)
        if number is None:
            return None
        scheduled = open.scheduled
        task = TaskScheduled(
            scheduled.event_id,
            scheduled.name,
            open.tally.calls.payload(number),
            "",
            None,
            scheduled.timeout_microseconds,
        )
        attempt = open.attempts.get(number, 0) + 1 if open.attempts else 1
        run = self.running[number] = CallRun(
            self.instance_id, self.execution_id, task, plan, attempt, window=self, number=number
        )
        if open.heartbeats:
            run.told = open.heartbeats.get(number)
        return run

    def next_page(self) -> CallRun | None:
        """The call for the next page, if it is time for it. To be asked for when what the fold says is durable."""
        open = self.open
        if self.page is None or PAGE in open.retry_at or not self._wants_page():
            return None
        return self.page_again()

    def page_again(self) -> CallRun | None:
        """The call for the next page, or the next attempt of it; None where that has been handed out."""
        open, page = self.open, self.page
        asked = (open.pages, open.attempts.get(PAGE, 0) + 1)
        if page is None or open.is_closed or open.is_stopping or asked <= self._page_asked:
            return None
        self._page_asked = asked
        scheduled = open.scheduled
        name, timeout = page.definition.name, scheduled.page_timeout_microseconds
        task = TaskScheduled(scheduled.event_id, name, open.cursor, "", None, timeout)
        self.page_run = CallRun(self.instance_id, self.execution_id, task, page, asked[1], window=self, number=PAGE)
        self.page_run.told = open.heartbeats.get(PAGE)
        return self.page_run

    def ended(self, run: CallRun) -> None:
        """The call runs no longer."""
        if run is self.page_run:
            self.page_run = None
        else:
            self.running.pop(run.number, None)

    def under_way(self) -> list[CallRun]:
        """All that runs."""
        return [*self.running.values(), *([] if self.page_run is None else [self.page_run])]

    def gathering(self, mailbox: list[HistoryEvent]) -> tuple[MapProgress, bool]:
        """The event that results go into; and whether it has just been put into the mailbox."""
        if self._gathers_in is mailbox:
            return self._gathering, False
        self._gathers_in, self._bytes = mailbox, 0
        self._gathering = MapProgress(self.open.id, [], [], [])
        mailbox.append(self._gathering)
        return self._gathering, True

    def count(self, size_bytes: int) -> None:
        """So many bytes of results more wait for an episode."""
        self._bytes += size_bytes

    def follow(self, open: OpenMap, mailbox: list[HistoryEvent], numbered: Mapping[int, object]) -> None:
        """What the fold says is durable. Results that a refused commit has put back into the mailbox count as waiting."""
        if open is not self.open:
            self.open = open
            self.due.rebind(open)
        self.end = len(open.tally.calls)
        if self._gathers_in is mailbox:
            return
        self._gathers_in, self._bytes = None, 0
        for event in reversed(mailbox):
            if isinstance(event, MapProgress) and event.task_scheduled_id == open.id and id(event) not in numbered:
                self._gathers_in, self._gathering = mailbox, event
                self._bytes = sum(len(result) for result in event.results if result is not None)
                return

    @property
    def _is_full(self) -> bool:
        if self._gathers_in is None:
            return False
        gathered = self._gathering
        waiting = len(gathered.numbers) + len(gathered.failures)
        return waiting >= RESULTS_AHEAD_MAX or self._bytes >= RESULT_BYTES_AHEAD_MAX

    def _wants_page(self) -> bool:
        open = self.open
        if open.tally.is_whole:
            return False
        if self.plan is None:
            return open.wants_page
        return self.due.left(self.end) < open.scheduled.concurrency
