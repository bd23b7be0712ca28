"""The algebra of a map: whatever order, repetition, failure or crash the ends of its calls come with, the outcome is that of a plain loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replayflow import Codec
from replayflow.core import events
from replayflow.core.events import MapItemFailed, MapPage, MapProgress, MapRetried, MapScheduled
from replayflow.core.map.blocks import BLOCK_BYTES, CALLS_PER_BLOCK, Calls, encode_items, payloads_of
from replayflow.core.map.mapping import MISSING, PAGE, Due, Gathering, OpenMap, Tally, admitted, answered, gathered
from replayflow.errors import FailureDetails
from replayflow.retry import RetryPolicy

CODEC = Codec()
SETTINGS = settings(deadline=None, max_examples=200)
BAD = FailureDetails("ValueError", "bad", stack="line\n")


@dataclass
class Plan:
    """A map, and how often each of its calls fails before it succeeds."""

    items: int
    batch_size: int | None
    tolerated: int | float
    on_item_error: str
    attempts_max: int
    fails: list[int]
    is_orchestrator: bool = False
    concurrency: int = 3
    pages: list[int] = field(default_factory=list)

    def scheduled(self) -> MapScheduled:
        blocks = [] if self.pages else encode_items(CODEC, range(self.items), self.batch_size, "map")
        retry = RetryPolicy(max_attempts=self.attempts_max).values() if self.attempts_max > 1 else None
        pages = "pages" if self.pages else None
        return MapScheduled(
            1, "f", blocks, self.items, "", self.is_orchestrator, self.concurrency, self.batch_size,
            self.tolerated, self.on_item_error, retry, None, None, pages, retry,
        )  # fmt: skip

    def failing(self, number: int) -> int:
        return self.fails[number % len(self.fails)]


plans = st.builds(
    Plan,
    items=st.integers(0, 25),
    batch_size=st.none() | st.integers(1, 6),
    tolerated=st.integers(0, 12) | st.floats(0, 1),
    on_item_error=st.sampled_from(["fail_fast", "collect"]),
    attempts_max=st.integers(1, 3),
    fails=st.lists(st.sampled_from([0, 0, 0, 1, 2, 9]), min_size=1, max_size=9),
    is_orchestrator=st.booleans(),
    concurrency=st.integers(1, 5),
    pages=st.just([]) | st.lists(st.integers(0, 7), min_size=1, max_size=4),
)


class Player:
    """A worker that runs a map by the algebra alone: it can be late, repeat itself and die."""

    def __init__(self, plan: Plan, random: Random) -> None:
        self.plan = plan
        self.random = random
        self.past: list[Any] = []
        self.now = 0
        scheduled = plan.scheduled()
        self.open, self.gathering = OpenMap(scheduled), Gathering(scheduled)
        self.due = Due(self.open)
        self.running: dict[int, int] = {}
        self.mailbox: list[Any] = []
        self.ran: list[tuple[int, int]] = []
        self._begin_children()

    @property
    def is_over(self) -> bool:
        return self.open.is_closed

    def start(self) -> None:
        """Calls begin, as many as there are places."""
        if self.open.wants_page and PAGE not in self.open.retry_at and self._may_ask_for_page:
            self._run(PAGE)
        while not self.plan.is_orchestrator and len(self.running) < self.plan.concurrency:
            number = self.due.take(len(self.open.tally.calls))
            if number is None:
                return
            assert not self.open.settled[number], "what is settled never runs again"
            self._run(number)

    def _run(self, number: int) -> None:
        attempt = self.open.attempts.get(number, 0) + 1
        assert number not in self.running, "handed out twice"
        self.running[number] = attempt
        self.ran.append((number, attempt))

    def _begin_children(self) -> None:
        if self.plan.is_orchestrator:
            for number in self.open.just_begun:
                self._run(number)
            assert len(self.open.at_work) <= self.plan.concurrency

    def finish(self) -> None:
        """One call that is under way ends; its end may be told twice."""
        if not self.running:
            return
        number = self.random.choice(sorted(self.running))
        attempt = self.running.pop(number)
        event = self._end_of(number, attempt)
        self.mailbox += [event, event] if self.random.random() < 0.2 else [event]

    def _end_of(self, number: int, attempt: int) -> Any:
        if number == PAGE:
            page = self.open.pages
            if attempt <= self.plan.failing(page) and attempt < self.plan.attempts_max:
                return MapProgress(1, [], [], [MapItemFailed(PAGE, attempt, BAD)])
            first, size = sum(self.plan.pages[:page]), self.plan.pages[page]
            items = range(first, first + size)
            is_last = page == len(self.plan.pages) - 1
            blocks = encode_items(CODEC, items, self.plan.batch_size, "map")
            return MapPage(1, page, blocks, size, None if is_last else b"\x01")
        told = 0 if self.plan.is_orchestrator else attempt
        if attempt <= self.plan.failing(number):
            return MapProgress(1, [], [], [MapItemFailed(number, told, BAD)])
        return MapProgress(1, [number], [self.open.tally.calls.payload(number)], [])

    def take_in(self) -> None:
        """An episode: the mailbox becomes history."""
        self.now += 1
        inbox, self.mailbox = gathered(self.mailbox), []
        for event in inbox:
            self._admit(event)

    def _admit(self, event: Any) -> None:
        taken = admitted(self.open, event, self.now, self.random, None)
        if taken is None:
            return
        (stored,) = events.decode(events.encode([taken]))
        self.past.append((self.now, stored))
        self.open.apply(stored, self.now)  # type: ignore[arg-type]
        if not isinstance(stored, MapRetried):
            self.gathering.apply(stored)  # type: ignore[arg-type]
        assert self.open.is_closed == self.gathering.tally.is_over
        self._begin_children()

    def ring(self) -> None:
        """The wait of some calls is over."""
        if not self.open.rings:
            return
        at = min(self.open.rings)
        self.now = max(self.now, at)
        waiting = set(self.open.rings[at])
        if self.plan.is_orchestrator and waiting - {PAGE}:
            self._admit(MapRetried(1, sorted(waiting - {PAGE})))
        elif not self.plan.is_orchestrator:
            self.due.ring(at)
            self.due.ring(at)
        if PAGE in waiting and self._may_ask_for_page:
            self._run(PAGE)

    @property
    def _may_ask_for_page(self) -> bool:
        return PAGE not in self.running and PAGE not in answered(1, self.mailbox)

    def die(self) -> None:
        """The process is gone: what no history has is forgotten, but for children, who run by themselves and report in the inbox."""
        again, gathering = OpenMap(self.plan.scheduled()), Gathering(self.plan.scheduled())
        for now, event in self.past:
            again.apply(event, now)
            if not isinstance(event, MapRetried):
                gathering.apply(event)
        assert told(again) == told(self.open), "folding it twice gives the same"
        if self.plan.is_orchestrator:
            self.mailbox = [event for event in self.mailbox if PAGE not in answered(1, [event])]
            self.running.pop(PAGE, None)
        else:
            self.mailbox, self.running = [], {}
        self.open, self.gathering = again, gathering
        self.due = Due(again, answered(1, self.mailbox))


def told(open: OpenMap) -> dict[str, Any]:
    """All that an open map is, for comparison."""
    skipped = {"scheduled", "tally"}
    state = {name: getattr(open, name) for name in OpenMap.__slots__ if name not in skipped}
    tally = open.tally
    return state | {"tally": (len(tally.calls), tally.calls.items, tally.settled, tally.failed, tally.is_whole)}


def play(plan: Plan, seed: int) -> Player:
    random = Random(seed)
    player = Player(plan, random)
    moves = [player.start, player.start, player.finish, player.finish, player.take_in, player.ring, player.die]
    for _ in range(400):
        if player.is_over:
            return player
        random.choice(moves)()
    for _ in range(2_000):  # and now without dying
        if player.is_over:
            break
        for move in moves[:-1]:
            move()
    assert player.is_over, "it never ends"
    return player


@SETTINGS
@given(plans, st.integers(0, 2**32))
def test_any_order_of_ends_repetitions_failures_and_crashes_gives_the_result_of_a_plain_loop(
    plan: Plan, seed: int
) -> None:
    if plan.pages:
        plan.items = sum(plan.pages)
    player = play(plan, seed)
    tally, gathering = player.gathering.tally, player.gathering
    calls = tally.calls
    bad = [n for n in range(len(calls)) if plan.failing(n) >= plan.attempts_max]
    failed_items = sum(len(calls.span(n)) for n in bad)
    allowed = plan.tolerated if isinstance(plan.tolerated, int) else int(plan.tolerated * plan.items + 1e-9)
    if tally.is_whole and tally.settled == len(calls):
        assert calls.items == plan.items
        assert sorted(gathering.failures) == bad
        assert [payload is MISSING for payload in gathering.results] == [n in bad for n in range(len(calls))]
        assert tally.has_failed == (failed_items > allowed)
    else:
        assert plan.on_item_error == "fail_fast"
        assert tally.has_failed
        assert failed_items > allowed
        assert set(gathering.failures) <= set(bad)
    for number, payload in enumerate(gathering.results):
        if payload is not MISSING:
            assert payload == calls.payload(number)
    for failure in gathering.failures.values():
        assert failure.attempt == plan.attempts_max
    settled = [n for _, e in player.past if isinstance(e, MapProgress) for n in e.numbers]
    assert len(settled) == len(set(settled)), "a result enters the history once"


@SETTINGS
@given(plans, st.integers(0, 2**32))
def test_without_crashes_each_attempt_of_a_call_runs_once(plan: Plan, seed: int) -> None:
    random = Random(seed)
    player = Player(plan, random)
    for _ in range(3_000):
        if player.is_over:
            break
        random.choice([player.start, player.finish, player.take_in, player.ring])()
    assert player.is_over
    calls = [run for run in player.ran if run[0] != PAGE]
    assert len(calls) == len(set(calls))


@SETTINGS
@given(plans, st.integers(0, 2**32), st.integers(0, 60))
def test_after_a_stop_nothing_begins_and_what_was_at_work_is_all_that_ends(plan: Plan, seed: int, moves: int) -> None:
    random = Random(seed)
    player = Player(plan, random)
    for _ in range(moves):
        if not player.is_over:
            random.choice([player.start, player.finish, player.take_in, player.ring])()
    open = player.open
    if open.is_closed:
        return
    had_failed = open.tally.failed
    open.stop()
    player.ran = []
    assert not open.rings
    assert not open.wants_page
    assert open.just_begun == []
    assert open.is_runnable == (not open.at_work)
    assert admitted(open, MapRetried(1, [0]), 0, random, None) is None
    assert admitted(open, MapPage(1, open.pages, [], 0, None), 0, random, None) is None
    while player.running and not player.is_over:
        assert open.at_work <= player.running.keys() | answered(1, player.mailbox)
        player.finish()
        if random.random() < 0.5:
            player.take_in()
    player.take_in()
    assert not player.ran
    assert not open.at_work
    assert not open.rings
    assert open.tally.failed == had_failed, "what fails now is not counted"
    assert player.is_over == (open.tally.is_whole and open.tally.settled == len(open.tally.calls))


@given(st.lists(st.binary(max_size=40) | st.none(), max_size=30), st.none() | st.integers(1, 7))
def test_calls_give_back_the_items_in_order(items: list[bytes | None], batch_size: int | None) -> None:
    blocks = encode_items(CODEC, items, batch_size, "map")
    calls = Calls(batch_size)
    calls.add(blocks)
    assert calls.items == len(items)
    got: list[Any] = []
    covered: list[int] = []
    for number in range(len(calls)):
        value = CODEC.decode(calls.payload(number))
        got += [value] if batch_size is None else value
        covered += calls.span(number)
    assert got == items
    assert covered == list(range(len(items)))
    assert list(payloads_of(blocks)) == [calls.payload(n) for n in range(len(calls))]


@pytest.mark.parametrize("batch_size", [None, 3])
def test_blocks_are_bounded_in_calls_and_bytes(batch_size: int | None) -> None:
    small = encode_items(CODEC, range(5_000), batch_size, "map")
    assert max(block.calls for block in small) == CALLS_PER_BLOCK
    large = encode_items(CODEC, [Random(i).randbytes(10_000) for i in range(100)], batch_size, "map")
    assert max(len(block.payloads or b"") for block in large) < BLOCK_BYTES + 40_000
    calls = Calls(batch_size)
    calls.add(large)
    assert len(calls) == (100 if batch_size is None else 34)


@pytest.mark.parametrize("batch_size", [None, 50, 5_000])
def test_items_that_compress_read_back(batch_size: int | None) -> None:
    items = [f"item {i % 7}, much like the others" for i in range(5_000)]
    calls = Calls(batch_size)
    calls.add(encode_items(CODEC, items, batch_size, "map"))
    values = [CODEC.decode(calls.payload(number)) for number in range(len(calls))]
    assert (values if batch_size is None else [item for batch in values for item in batch]) == items


@pytest.mark.parametrize("size", [1, 15, 16, 70_000])
@pytest.mark.parametrize("kind", [list, tuple])
def test_the_results_of_a_batch_are_counted_however_they_are_encoded(size: int, kind: type) -> None:
    open = OpenMap(Plan(size, size, 0, "collect", 1, [0]).scheduled())
    for count in (size, size + 1):
        event = MapProgress(1, [0], [CODEC.encode(kind(range(count)))], [])
        taken = admitted(open, event, 0, Random(), None)
        assert isinstance(taken, MapProgress)
        assert len(taken.numbers) == (count == size)


def test_pages_of_any_size_keep_their_batches_to_themselves() -> None:
    calls = Calls(4)
    for first, size in ((0, 5), (5, 0), (5, 1), (6, 8), (14, 3)):
        calls.add(encode_items(CODEC, range(first, first + size), 4, "map"))
    spans = [list(calls.span(number)) for number in range(len(calls))]
    assert spans == [[0, 1, 2, 3], [4], [5], [6, 7, 8, 9], [10, 11, 12, 13], [14, 15, 16]]
    assert [CODEC.decode(calls.payload(number)) for number in range(len(calls))] == spans


@pytest.mark.parametrize(
    ("tolerated", "items", "allowed"),
    [(0, 10, 0), (3, 10, 3), (0.0, 10, 0), (1.0, 10, 10), (0.29, 100, 29), (0.07, 100, 7), (0.1, 30, 3), (0.1, 9, 0)],
)
def test_a_share_is_of_all_items(tolerated: int | float, items: int, allowed: int) -> None:
    plan = Plan(items, None, tolerated, "collect", 1, [0])
    assert Tally(plan.scheduled()).tolerated == allowed


def test_a_share_is_not_judged_before_the_last_page() -> None:
    plan = Plan(20, None, 0.5, "fail_fast", 1, [9], pages=[10, 10])
    open = OpenMap(plan.scheduled())
    open.apply(MapPage(1, 0, encode_items(CODEC, range(10), None, "map"), 10, b"\x01"), 0)
    open.apply(MapProgress(1, [], [], [MapItemFailed(n, 1, BAD) for n in range(10)]), 0)
    assert not open.is_closed
    open.apply(MapPage(1, 1, encode_items(CODEC, range(10), None, "map"), 10), 0)
    assert not open.is_closed, "10 of 20 are as many as may fail"
    open.apply(MapProgress(1, [], [], [MapItemFailed(10, 1, BAD)]), 0)
    assert open.is_closed


def test_what_is_late_is_dropped() -> None:
    open = OpenMap(Plan(3, None, 0, "collect", 1, [0]).scheduled())
    event = MapProgress(1, [0, 1], [b"a", b"b"], [])
    assert admitted(None, event, 0, Random(), None) is None
    assert admitted(open, event, 0, Random(), None) == event
    open.apply(event, 0)
    assert admitted(open, event, 0, Random(), None) is None
    late = MapProgress(1, [1, 2, 2], [b"x", b"c", b"y"], [MapItemFailed(0, 1, BAD), MapItemFailed(2, 1, BAD)])
    assert admitted(open, late, 0, Random(), None) == MapProgress(1, [2], [b"c"], [])
    open.is_closed = True
    assert admitted(open, late, 0, Random(), None) is None


def test_the_failure_of_an_attempt_counts_once() -> None:
    open = OpenMap(Plan(3, None, 0, "collect", 3, [0]).scheduled())
    first = MapProgress(1, [], [], [MapItemFailed(0, 1, BAD)])
    taken = admitted(open, first, 5, Random(), None)
    assert isinstance(taken, MapProgress)
    assert taken.failures[0].retry_at_microseconds == 1_000_005
    open.apply(taken, 5)
    assert admitted(open, first, 6, Random(), None) is None
    assert open.retry_at == {0: 1_000_005}


def test_only_the_first_failures_of_an_event_keep_their_stacks() -> None:
    open = OpenMap(Plan(100, None, 100, "collect", 1, [0]).scheduled())
    event = MapProgress(1, [], [], [MapItemFailed(n, 1, BAD) for n in range(100)])
    taken = admitted(open, event, 0, Random(), None)
    assert isinstance(taken, MapProgress)
    assert [bool(failure.failure_details.stack) for failure in taken.failures].count(True) == 10


def test_a_policys_time_limit_counts_from_the_first_failure() -> None:
    scheduled = Plan(1, None, 0, "collect", 9, [9]).scheduled()
    assert scheduled.retry is not None
    scheduled.retry.timeout, scheduled.retry.backoff = 2_500_000, 1.0
    open = OpenMap(scheduled)
    now, waits = 10_000_000, []
    for attempt in range(1, 5):
        taken = admitted(open, MapProgress(1, [], [], [MapItemFailed(0, attempt, BAD)]), now, Random(), None)
        assert isinstance(taken, MapProgress)
        at = taken.failures[0].retry_at_microseconds
        waits.append(at)
        if at is None:
            break
        open.apply(taken, now)
        now = at
    assert waits == [11_000_000, 12_000_000, None]


def test_children_fill_the_places_that_are_free_and_those_that_waited_go_first() -> None:
    open = OpenMap(Plan(10, None, 10, "collect", 2, [0], is_orchestrator=True, concurrency=3).scheduled())
    assert open.just_begun == [0, 1, 2]
    taken = admitted(open, MapProgress(1, [2], [None], [MapItemFailed(0, 0, BAD)]), 0, Random(), None)
    assert isinstance(taken, MapProgress)
    open.apply(taken, 0)
    assert (open.just_begun, open.at_work) == ([3, 4], {1, 3, 4})
    open.apply(MapRetried(1, [0]), 0)
    assert open.just_begun == [], "there is no place for it yet"
    open.apply(MapProgress(1, [1], [None], []), 0)
    assert (open.just_begun, open.at_work) == ([0], {0, 3, 4})
