"""The algebra of one map: what is settled, what is due, what is over. Pure; `docs/decisions/0007-map.md` has the whole in prose.

1. Both sides fold the same events: `OpenMap` for the instance, which knows what is due, `Gathering` for the executor, which keeps the results. They
   count with one `Tally`, and so see the end at the same event.
2. What is taken in of a call is decided once, by `admitted`: a settled call stays as it is, an attempt counts once, a failure becomes a retry or the
   last (I4).
3. Flat: an event costs in proportion to what it carries, and nothing looks at all calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from random import Random
from typing import Any

from msgspec.structs import replace

from replayflow.codec import Payload
from replayflow.core.events import HistoryEvent, MapItemFailed, MapPage, MapProgress, MapRetried, MapScheduled
from replayflow.core.map.blocks import STORING, Calls
from replayflow.core.nothing import NOTHING
from replayflow.errors import FailureDetails
from replayflow.retry import next_attempt_at

PAGE = -1
"""The number of the call that gives the next page."""
NEVER = -1
"""The time of the next attempt of a call that failed while its map was stopping."""
STACKS_PER_EVENT = 10
MISSING: Any = object()


class Tally:
    """How many items there are, how many have failed, and whether that is the end."""

    __slots__ = ("_fails_fast", "_tolerated", "calls", "done", "failed", "is_broken", "is_whole", "settled")

    def __init__(self, scheduled: MapScheduled) -> None:
        self._tolerated = scheduled.tolerated_failures
        self._fails_fast = scheduled.on_item_error == "fail_fast"
        self.calls = Calls(scheduled.batch_size)
        self.calls.add(scheduled.items)
        self.is_whole = scheduled.pages is None
        self.is_broken = False
        """Whether a page could not be had."""
        self.settled = 0
        """Calls, where `done` and `failed` count items."""
        self.done = 0
        self.failed = 0

    @property
    def tolerated(self) -> int | None:
        """How many items may fail; None while that cannot be told."""
        if isinstance(self._tolerated, int):
            return self._tolerated
        # A share of a whole number that floating point makes a hair too small is meant as the whole.
        return int(self._tolerated * self.calls.items + 1e-9) if self.is_whole else None

    @property
    def has_failed(self) -> bool:
        """Whether the map fails, when it is over."""
        tolerated = self.tolerated
        return self.is_broken or (tolerated is not None and self.failed > tolerated)

    @property
    def is_over(self) -> bool:
        """Whether nothing that comes can change the outcome, or may."""
        if self.is_broken or (self.is_whole and self.settled == len(self.calls)):
            return True
        return self._fails_fast and self.failed > 0 and self.has_failed

    def progress(self, event: MapProgress) -> None:
        ended = len(event.numbers)
        self.settled += ended
        self.done += ended if self.calls.batch_size is None else sum(map(len, map(self.calls.span, event.numbers)))
        for failure in event.failures:
            if failure.retry_at_microseconds is not None:
                continue
            if failure.number == PAGE:
                self.is_broken = True
            else:
                self.settled += 1
                self.failed += len(self.calls.span(failure.number))

    def page(self, event: MapPage) -> None:
        self.calls.add(event.items)
        self.is_whole = event.cursor is None


class OpenMap:
    """The instance's side of a map that is not over.

    Of children it knows which are at work; of activities the engine does, because theirs is a matter of the worker and not of the history.
    """

    __slots__ = (
        "_again",
        "_begun",
        "_failed_since",
        "at_work",
        "attempts",
        "cursor",
        "heartbeats",
        "is_closed",
        "is_stopping",
        "just_begun",
        "pages",
        "reassigned",
        "retry_at",
        "rings",
        "scheduled",
        "settled",
        "tally",
    )

    def __init__(self, scheduled: MapScheduled) -> None:
        self.scheduled = scheduled
        self.tally = Tally(scheduled)
        self.settled = bytearray(len(self.tally.calls))
        self.is_closed = self.tally.is_over
        self.is_stopping = False
        """Whether nothing more of it begins, and only what is at work is waited for."""
        self.attempts: dict[int, int] = {}
        self.retry_at: dict[int, int] = {}
        self.rings: dict[int, set[int]] = {}
        """What waits for which time."""
        self._failed_since: dict[int, int] = {}
        self.heartbeats: dict[int, Payload] = {}
        """The last details that calls have told, those of settled ones until the next is told."""
        self.pages = 0
        self.cursor: Payload = scheduled.cursor
        self.at_work: set[int] = set()
        self.just_begun: list[int] = []
        """The children that begin with the event that was applied last."""
        self.reassigned: dict[int, tuple[str, str]] = NOTHING
        """Instance and execution of children at work that are others than their numbers say: those from before a rewind."""
        self._begun = 0
        self._again: deque[int] = deque()
        self._begin()

    @property
    def id(self) -> int:
        return self.scheduled.event_id

    def apply(self, event: MapProgress | MapPage | MapRetried, now: int) -> None:
        """The event, which has been admitted, has happened."""
        if isinstance(event, MapProgress):
            self._progress(event, now)
        elif isinstance(event, MapPage):
            self.tally.page(event)
            self.settled.extend(bytes(len(self.tally.calls) - len(self.settled)))
            self.pages = event.number + 1
            self.cursor = event.cursor
            self.heartbeats.pop(PAGE, None)  # the next page is another call
            self._forget(PAGE)
        else:
            for number in event.numbers:
                self._stop_waiting(number)
                self._again.append(number)
        self.is_closed = self.tally.is_over
        self._begin()

    def stop(self) -> None:
        """Nothing begins any more, neither a call nor a page, and nobody waits for another attempt."""
        self.is_stopping = True
        self.just_begun = []
        self._again.clear()
        self.retry_at.clear()
        self.rings.clear()

    def is_settled(self, number: int) -> bool:
        """Whether nothing that the call tells matters any more."""
        if number == PAGE:
            return self.tally.is_whole
        return number >= len(self.settled) or bool(self.settled[number])

    def hear(self, number: int, detail: Payload) -> None:
        """A call that is open has told how far it has come."""
        heard = self.heartbeats
        if len(heard) > 2 * self.scheduled.concurrency:
            self.heartbeats = heard = {known: told for known, told in heard.items() if not self.is_settled(known)}
        heard[number] = detail

    def reassign(self, number: int, instance_id: str, execution_id: str) -> None:
        """That instance is at work as the call's child, also where its turn had not come."""
        self.at_work.add(number)
        if self.reassigned is NOTHING:
            self.reassigned = {}
        self.reassigned[number] = (instance_id, execution_id)

    @property
    def wants_page(self) -> bool:
        """Whether so few calls are left to begin that it is time for the next page."""
        tally = self.tally
        if tally.is_whole or self.is_closed or self.is_stopping:
            return False
        done = self._begun if self.scheduled.is_orchestrator else tally.settled
        return len(tally.calls) - done < self.scheduled.concurrency

    @property
    def is_runnable(self) -> bool:
        """Whether a worker has something to do for it now: children run by themselves, a retry at its time.

        Of a map that is stopping a worker has to say when nothing is at work for it any more.
        """
        if self.is_closed:
            return False
        if self.is_stopping:
            return not self.at_work
        if self.wants_page and PAGE not in self.retry_at:
            return True
        waiting = len(self.retry_at) - (PAGE in self.retry_at)
        return not self.scheduled.is_orchestrator and len(self.tally.calls) - self.tally.settled > waiting

    def unknown_activity(self, known: Collection[str]) -> str | None:
        """The name of an activity that the map needs and that is not among the known ones."""
        if self.is_stopping:
            return None
        scheduled = self.scheduled
        needed = [None if scheduled.is_orchestrator else scheduled.name, scheduled.pages]
        return next((name for name in needed if name is not None and name not in known), None)

    def failed_since(self, number: int, now: int) -> int:
        """When the call's first failure was taken in."""
        return self._failed_since.get(number, now)

    def _progress(self, event: MapProgress, now: int) -> None:
        self.tally.progress(event)
        settled = self.settled
        for number in event.numbers:
            settled[number] = 1
        if self.attempts:
            for number in event.numbers:
                self._forget(number)
        if self.at_work:
            self.at_work.difference_update(event.numbers)
        if self.reassigned:
            for number in [*event.numbers, *(failure.number for failure in event.failures)]:
                self.reassigned.pop(number, None)
        for failure in event.failures:
            number, at = failure.number, failure.retry_at_microseconds
            self.at_work.discard(number)
            if at is None:
                self._forget(number)
                if number != PAGE:
                    settled[number] = 1
            elif at == NEVER:
                self._forget(number)
            else:
                self._stop_waiting(number)
                self.attempts[number] = failure.attempt
                self._failed_since.setdefault(number, now)
                self.retry_at[number] = at
                self.rings.setdefault(at, set()).add(number)

    def _forget(self, number: int) -> None:
        if self.attempts.pop(number, None) is not None:
            self._failed_since.pop(number, None)
            self._stop_waiting(number)

    def _stop_waiting(self, number: int) -> None:
        at = self.retry_at.pop(number, None)
        if at is not None:
            self.rings[at].discard(number)
            if not self.rings[at]:
                del self.rings[at]

    def _begin(self) -> None:
        """Children fill the places that are free: those whose wait is over first, then the next."""
        if not self.scheduled.is_orchestrator:
            return
        self.just_begun = []
        while not self.is_closed and not self.is_stopping and len(self.at_work) < self.scheduled.concurrency:
            if self._again:
                number = self._again.popleft()
            elif self._begun < len(self.tally.calls):
                number = self._begun
                self._begun += 1
                if self.settled[number] or number in self.at_work:
                    continue  # it had its turn before a rewind
            else:
                return
            self.at_work.add(number)
            self.just_begun.append(number)


class Due:
    """Which call of an activity to start next; one is handed out once for each of its attempts.

    A worker makes a new one from the fold when it begins: what was handed out by another, and did not settle, is due again. `answered` are calls
    whose end is known, and not in the fold yet.
    """

    __slots__ = ("_again", "_answered", "_attempted", "_next", "_open")

    def __init__(self, open: OpenMap, answered: Iterable[int] = ()) -> None:
        self._open = open
        self._answered = set(answered)
        self._attempted = {number: open.attempts.get(number, 0) for number in self._answered}
        self._again: deque[int] = deque()
        self._next = 0

    def rebind(self, open: OpenMap) -> None:
        """The fold was made anew, and says the same of what is settled, or less; what was handed out stays so."""
        self._open = open

    def ring(self, at: int) -> None:
        """The wait until that time is over."""
        for number in sorted(self._open.rings.get(at, ())):
            attempt = self._open.attempts[number]
            if number != PAGE and self._attempted.get(number, 0) < attempt:
                self._attempted[number] = attempt
                self._again.append(number)

    def take(self, end: int) -> int | None:
        """The next call, one of those with numbers below `end`; None where none is due."""
        open = self._open
        while self._again:
            number = self._again.popleft()
            if number in open.retry_at:
                return number
        number = self._next
        settled = open.settled
        while number < end and (settled[number] or number in open.retry_at or number in self._answered):
            number += 1
        self._next = number + 1 if number < end else number
        return number if number < end else None

    def left(self, end: int) -> int:
        """How many calls below `end` have never been handed out, at the most."""
        return end - self._next


class Gathering:
    """The executor's side of a map: the results that have come, as payloads."""

    __slots__ = ("cursor", "failures", "results", "tally")

    def __init__(self, scheduled: MapScheduled) -> None:
        self.cursor: Payload = scheduled.cursor
        self.tally = Tally(scheduled)
        self.results: list[Payload] = [MISSING] * len(self.tally.calls)
        self.failures: dict[int, MapItemFailed] = {}

    def apply(self, event: MapProgress | MapPage) -> None:
        """The event, which stands in the history, reaches the executor."""
        if isinstance(event, MapPage):
            self.tally.page(event)
            self.cursor = event.cursor
            self.results.extend([MISSING] * (len(self.tally.calls) - len(self.results)))
            return
        self.tally.progress(event)
        results = self.results
        for number, result in zip(event.numbers, event.results, strict=True):
            results[number] = result
        for failure in event.failures:
            if failure.retry_at_microseconds is None:
                self.failures[failure.number] = failure


# ---- what is taken in


def gathered(inbox: Sequence[HistoryEvent]) -> list[HistoryEvent]:
    """The inbox with all progress of one map in one event, at the place of the first."""
    merged: dict[int, MapProgress] = {}
    together: list[HistoryEvent] = []
    for event in inbox:
        if type(event) is not MapProgress:
            together.append(event)
            continue
        first = merged.get(event.task_scheduled_id)
        if first is None:
            # A copy: what lies in a mailbox is put back as it was, if the commit is refused.
            first = MapProgress(event.task_scheduled_id, [*event.numbers], [*event.results], [*event.failures])
            merged[event.task_scheduled_id] = first
            together.append(first)
        else:
            first.numbers += event.numbers
            first.results += event.results
            first.failures += event.failures
    return together


def admitted(
    open: OpenMap | None,
    event: MapProgress | MapPage | MapRetried,
    now: int,
    random: Random,
    predicate: Callable[[FailureDetails], bool] | None,
) -> MapProgress | MapPage | MapRetried | None:
    """The event as it goes into the history, without what is late or doubled; None where nothing is left of it."""
    if open is None or open.is_closed or (open.is_stopping and not isinstance(event, MapProgress)):
        return None
    if isinstance(event, MapPage):
        return event if event.number == open.pages and not open.tally.is_whole else None
    if isinstance(event, MapRetried):
        numbers = [number for number in event.numbers if number in open.retry_at]
        return MapRetried(event.task_scheduled_id, numbers) if numbers else None
    numbers, results, misfits = _fresh(open, event)
    taken = set(numbers)
    failures: list[MapItemFailed] = []
    for failure in [*event.failures, *misfits]:
        number, attempts = failure.number, open.attempts.get(failure.number, 0)
        is_settled = open.tally.is_whole or open.is_stopping if number == PAGE else open.settled[number]
        is_given_up = open.is_stopping and open.scheduled.is_orchestrator and number not in open.at_work
        if is_settled or is_given_up or number in taken or (failure.attempt and failure.attempt <= attempts):
            continue
        taken.add(number)
        failures.append(_decided(open, failure, attempts + 1, len(failures), now, random, predicate))
    if not numbers and not failures:
        return None
    return MapProgress(event.task_scheduled_id, numbers, results, failures)


def _fresh(open: OpenMap, event: MapProgress) -> tuple[list[int], list[Payload], list[MapItemFailed]]:
    """The results that are wanted; and, of batches, those that are no results because they are not one for each item."""
    settled, batch_size = open.settled, open.scheduled.batch_size
    numbers, results = event.numbers, event.results
    is_clean = len(set(numbers)) == len(numbers) and not any(map(settled.__getitem__, numbers))
    if is_clean and batch_size is None:
        return numbers, results, []
    fresh: dict[int, Payload] = {}
    misfits: list[MapItemFailed] = []
    for number, result in zip(numbers, results, strict=True):
        if settled[number] or number in fresh:
            continue
        if batch_size is not None and (fault := _misfit(open, number, result)) is not None:
            misfits.append(fault)
        else:
            fresh[number] = result
    return list(fresh), list(fresh.values()), misfits


def _misfit(open: OpenMap, number: int, result: Payload) -> MapItemFailed | None:
    """The failure of a call that did not give as many results as it had items."""
    span = open.tally.calls.span(number)
    value = _length(result)
    if value == len(span):
        return None
    gave = "no list" if value is None else f"{value} results"
    message = f"'{open.scheduled.name}' returned {gave} for a batch of {len(span)} items, {span[0]} to {span[-1]}: a batch returns one each"
    return MapItemFailed(number, 0, FailureDetails("ValueError", message, non_retryable=True, bases=_VALUE_ERROR))


_VALUE_ERROR = ("builtins.ValueError", "builtins.Exception", "builtins.BaseException")


def _length(payload: Payload) -> int | None:
    """How many elements the list or tuple has; None where the payload is of something else."""
    if payload is not None:
        if 0x90 <= payload[0] <= 0x9F:
            return payload[0] & 0x0F
        if payload[0] in (0xDC, 0xDD):
            return int.from_bytes(payload[1 : 3 if payload[0] == 0xDC else 5], "big")
    value = STORING.decode(payload)
    return len(value) if isinstance(value, list | tuple) else None


def _decided(
    open: OpenMap,
    failure: MapItemFailed,
    attempt: int,
    before: int,
    now: int,
    random: Random,
    predicate: Callable[[FailureDetails], bool] | None,
) -> MapItemFailed:
    """The failure with what follows from it. Only the first few of an event keep their stacks: a million would be a history of stacks."""
    values = open.scheduled.page_retry if failure.number == PAGE else open.scheduled.retry
    details = failure.failure_details
    retry_at = NEVER if open.is_stopping else None
    if values is not None and not open.is_stopping:
        retry_at = next_attempt_at(
            values,
            attempt=attempt,
            failure=details,
            scheduled_at=open.failed_since(failure.number, now),
            now=now,
            random=random,
            retry_after=failure.retry_after_microseconds,
            predicate=None if failure.number == PAGE else predicate,
        )
    if before >= STACKS_PER_EVENT:
        details = replace(details, stack="")
    return MapItemFailed(failure.number, attempt, details, retry_at)


def answered(task_id: int, mailbox: Collection[HistoryEvent]) -> set[int]:
    """The calls of the map whose end lies in the mailbox."""
    numbers: set[int] = set()
    for event in mailbox:
        if isinstance(event, MapProgress) and event.task_scheduled_id == task_id:
            numbers.update(event.numbers)
            numbers.update(failure.number for failure in event.failures)
        elif isinstance(event, MapPage) and event.task_scheduled_id == task_id:
            numbers.add(PAGE)
    return numbers
