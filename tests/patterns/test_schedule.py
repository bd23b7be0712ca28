"""Schedules on the stage: a virtual clock, kills at every step, and policies against what is easy to say of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replayflow import App
from replayflow.clock import to_datetime, to_microseconds
from replayflow.core import events
from replayflow.core.commit import Message
from replayflow.core.events import EventRaised, ExecutionStarted, TimerFired
from replayflow.core.instance import Status
from replayflow.errors import ScheduleError
from replayflow.patterns.schedule import (
    DEFINITION,
    ENDED,
    REQUEST,
    SCHEDULE,
    STARTS_PER_EXECUTION,
    Misfire,
    Overlap,
    Plan,
    Request,
    State,
    run_id,
)
from replayflow.patterns.timing import Timing
from tests.core.driver import Stage, encoded, raised, successor

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EVERY_MINUTE = Timing(every=MINUTE, anchor=MIDNIGHT)


@dataclass
class Clockwork:
    """An engine of a schedule and its runs, whose time moves when it is told to; before each episode the schedule is killed and read again."""

    plan: Plan
    now: datetime = MIDNIGHT
    known: dict[str, str] = field(default_factory=dict)
    alive: list[str] = field(default_factory=list)
    started: list[tuple[datetime, str]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    is_down: bool = False
    arrived: list[EventRaised] = field(default_factory=list)

    def __post_init__(self) -> None:
        app = App()
        app.orchestrators[SCHEDULE] = DEFINITION
        state = State("s", self.plan, after=self.now, next_at=self.plan.timing.after(self.now))
        start = [ExecutionStarted(SCHEDULE, encoded(state), "schedule:s", "e0")]
        self.stage = Stage(app, start=[*start], now=to_microseconds(self.now), always_cold=True)
        self.turn()

    # ---- what happens

    def pass_time(self, length: timedelta) -> None:
        """Time passes; what is due on the way happens, unless the engine is down."""
        end = self.now + length
        while not self.is_down and (at := self.next_alarm()) is not None and at <= end:
            self.now = max(at, self.now)
            self.turn()
        self.now = end

    def next_alarm(self) -> datetime | None:
        return min(map(to_datetime, self.stage.instance.timers.values()), default=None)

    def stop(self) -> None:
        self.is_down = True

    def begin(self) -> None:
        self.is_down = False
        self.turn()

    def ask(self, verb: Any, **options: Any) -> None:
        self.arrived.append(raised(REQUEST, Request(verb, **options)))
        self.turn()

    def end(self, id: str) -> None:
        """The run ends; what it was asked to tell arrives with its end."""
        if id in self.alive:
            self.alive.remove(id)
            self.arrived.append(raised(ENDED, [id, "COMPLETED"]))
            self.turn()

    def turn(self) -> None:
        """Everything that is due or has arrived is taken in."""
        if self.is_down:
            return
        self.stage.now = to_microseconds(self.now)
        while True:
            if not self.stage.pieces:
                self.collect(self.stage.run())
            elif self.stage.instance.status is Status.CONTINUED_AS_NEW:
                self.stage = successor(self.stage, always_cold=True)
            elif self.arrived:
                self.collect(self.stage.run(self.arrived.pop(0)))
            elif (at := self.next_alarm()) is not None and at <= self.now:
                (timer,) = self.stage.instance.timers
                self.collect(self.stage.run(TimerFired(timer, to_microseconds(at))))
            else:
                return

    def collect(self, done: Any) -> None:
        for start in done.commit.starts if done.commit else ():
            if start.instance_id in self.known:
                if start.if_taken is not None:
                    self.deliver(start.if_taken)
                continue
            (started,) = events.decode(start.event)
            assert isinstance(started, ExecutionStarted)
            self.known[start.instance_id] = started.name
            self.started.append((self.now, start.instance_id))
            if started.parent_instance is not None:
                self.alive.append(start.instance_id)
        for message in done.commit.messages if done.commit else ():
            (event,) = events.decode(message.event)
            self.asked.append((message.instance_id, type(event).__name__))

    def deliver(self, message: Message) -> None:
        (event,) = events.decode(message.event)
        assert isinstance(event, EventRaised)
        self.arrived.append(event)

    @property
    def state(self) -> State:
        started: Any = self.stage.started
        found: State = self.stage.environment.codec.decode(started.input, State)
        return found

    def ids(self) -> list[str]:
        return [id for _, id in self.started]


def minute(n: int) -> datetime:
    return MIDNIGHT + n * MINUTE


def id_at(n: int) -> str:
    return run_id("s", minute(n))


def clockwork(
    overlap: Overlap = "skip", misfire: Misfire = "run_once", timing: Timing = EVERY_MINUTE, **options: Any
) -> Clockwork:
    return Clockwork(Plan("report", timing, overlap=overlap, misfire=misfire, **options))


# ---- times and ids ---------------------------------------------------------------------------------------------


def test_each_time_has_its_run_whose_id_says_which() -> None:
    clock = clockwork("allow")
    clock.pass_time(3 * MINUTE)
    assert clock.started == [(minute(n), id_at(n)) for n in (1, 2, 3)]
    assert id_at(1) == "s:2026-01-01T00:01:00Z"


def test_the_next_time_is_handed_over_and_never_worked_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose time zones say something else must not contradict what was decided under the old ones."""
    clock = clockwork("allow")
    clock.pass_time(MINUTE)
    monkeypatch.setattr(Timing, "after", lambda *_: minute(100))
    monkeypatch.setattr(Timing, "times", lambda *_: iter([minute(100)]))
    clock.pass_time(MINUTE)
    assert clock.ids() == [id_at(1), id_at(2)]
    assert clock.state.next_at == minute(100)


def test_after_the_last_time_a_schedule_waits_for_requests() -> None:
    clock = clockwork("allow", timing=replace(EVERY_MINUTE, end_at=minute(2)))
    clock.pass_time(10 * MINUTE)
    assert clock.ids() == [id_at(1), id_at(2)]
    assert clock.state.next_at is None
    clock.ask("trigger", at=clock.now)
    assert len(clock.ids()) == 3


def test_jitter_delays_a_run_and_leaves_its_id() -> None:
    timing = replace(EVERY_MINUTE, jitter=MINUTE)
    clock = clockwork("allow", timing=timing)
    clock.pass_time(20 * MINUTE)
    expected = [id_at(n) for n in range(1, 20)]
    assert clock.ids()[:19] == expected
    for (at, id), n in zip(clock.started, range(1, 20), strict=False):
        assert id == id_at(n)
        assert minute(n) <= at <= minute(n) + 2 * MINUTE
    assert any(at != minute(n) for (at, _), n in zip(clock.started, range(1, 20), strict=False))


# ---- overlap ---------------------------------------------------------------------------------------------------


def test_skip_leaves_out_what_would_overlap() -> None:
    clock = clockwork("skip")
    clock.pass_time(3 * MINUTE)
    assert clock.ids() == [id_at(1)]
    clock.end(id_at(1))
    clock.pass_time(MINUTE)
    assert clock.ids() == [id_at(1), id_at(4)]
    assert clock.state.skipped == 2


def test_one_is_buffered_and_begins_when_the_former_has_ended() -> None:
    clock = clockwork("buffer_one")
    clock.pass_time(3 * MINUTE)
    assert clock.state.waiting == minute(2)
    clock.end(id_at(1))
    assert clock.ids() == [id_at(1), id_at(2)]


@pytest.mark.parametrize(
    ("overlap", "request_"), [("cancel", "ExecutionCancelRequested"), ("terminate", "ExecutionTerminated")]
)
def test_the_former_is_asked_to_end_and_the_newest_begins_when_it_has(overlap: Overlap, request_: str) -> None:
    clock = clockwork(overlap)
    clock.pass_time(2 * MINUTE)
    assert clock.asked == [(id_at(1), request_)]
    clock.pass_time(MINUTE)
    assert clock.ids() == [id_at(1)]
    clock.end(id_at(1))
    assert clock.ids() == [id_at(1), id_at(3)]
    if overlap == "cancel":
        assert len(clock.asked) == 1  # once: it may be busy undoing


def test_an_id_that_is_taken_starts_nothing_and_holds_nothing_up() -> None:
    clock = clockwork("skip")
    clock.known[id_at(1)] = "somebody else's"
    clock.pass_time(2 * MINUTE)
    assert clock.ids() == [id_at(2)]


# ---- misfires --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("misfire", "stopped_for", "expected"),
    [
        ("run_once", timedelta(minutes=59), [59]),
        ("run_once", timedelta(minutes=59, seconds=50), [59]),
        ("skip", timedelta(minutes=59), [59]),  # the newest is on time
        ("skip", timedelta(minutes=59, seconds=50), []),
        ("catch_up", timedelta(minutes=59), [57, 58, 59]),
        ("run_once", timedelta(seconds=30), []),
    ],
)
def test_after_a_stop_the_policy_says_what_runs(misfire: Misfire, stopped_for: timedelta, expected: list[int]) -> None:
    clock = clockwork("allow", misfire, catch_up_max=3, grace=timedelta(seconds=10))
    clock.stop()
    clock.pass_time(stopped_for)
    clock.begin()
    assert clock.ids() == [id_at(n) for n in expected]
    clock.pass_time(minute(60) - clock.now)
    if minute(60) <= clock.now and stopped_for > MINUTE:
        assert clock.ids() == [id_at(n) for n in [*expected, 60]]


def test_a_year_of_seconds_is_no_burst_and_no_wait() -> None:
    clock = clockwork("allow", timing=Timing(every=timedelta(seconds=1), anchor=MIDNIGHT))
    clock.stop()
    clock.pass_time(timedelta(days=365))
    clock.begin()
    assert clock.ids() == [run_id("s", MIDNIGHT + timedelta(days=365))]


# ---- requests --------------------------------------------------------------------------------------------------


def test_paused_times_have_no_run_and_are_not_made_up_for() -> None:
    clock = clockwork("allow", "catch_up")
    clock.pass_time(MINUTE)
    clock.ask("pause", reason="holidays")
    clock.pass_time(5 * MINUTE)
    assert (clock.state.is_paused, clock.state.reason) == (True, "holidays")
    clock.ask("resume")
    assert clock.ids() == [id_at(1)]
    clock.pass_time(MINUTE)
    assert clock.ids() == [id_at(1), id_at(7)]


def test_a_trigger_runs_now_by_the_policy_or_by_its_own() -> None:
    clock = clockwork("skip")
    at = MIDNIGHT + timedelta(seconds=7)
    clock.ask("pause")
    clock.ask("trigger", at=at)
    assert clock.ids() == [run_id("s", at)]
    clock.ask("trigger", at=at)  # the same again: a client that tried twice
    clock.ask("trigger", at=at + MINUTE)
    assert len(clock.ids()) == 1
    clock.ask("trigger", at=at + MINUTE, overlap="allow")
    assert len(clock.ids()) == 2


def test_an_update_holds_from_now_on() -> None:
    clock = clockwork("allow")
    clock.pass_time(2 * MINUTE)
    hourly = Plan("other", Timing(cron="0 * * * *"), overlap="allow")
    clock.ask("update", plan=hourly)
    clock.pass_time(timedelta(hours=2))
    assert clock.ids() == [id_at(1), id_at(2), id_at(60), id_at(120)]
    assert [clock.known[id] for id in clock.ids()] == ["report", "report", "other", "other"]


def test_of_updates_that_do_not_fit_each_other_the_later_changes_nothing() -> None:
    clock = clockwork("allow")
    wanted = Plan("report", Timing(start_at=MIDNIGHT + 10 * MINUTE, end_at=MIDNIGHT + 2 * MINUTE))
    clock.ask("update", plan=wanted, only=("end_at",))
    before = clock.state
    clock.ask("update", plan=wanted, only=("start_at",))
    assert clock.state == before
    clock.pass_time(5 * MINUTE)
    assert clock.ids() == [id_at(1), id_at(2)]


def test_a_backfill_runs_what_has_not_run_and_is_done_in_parts() -> None:
    count = 2 * STARTS_PER_EXECUTION + 5
    clock = clockwork("allow")
    clock.ask("pause")
    clock.pass_time(count * MINUTE)
    clock.known[id_at(3)] = "has run"
    clock.ask("backfill", at=MIDNIGHT, until=clock.now)
    assert clock.ids() == [id_at(n) for n in range(1, count + 1) if n != 3]
    assert clock.state.ranges == ()


def test_a_backfill_may_follow_the_policy() -> None:
    clock = clockwork("skip")
    clock.ask("pause")
    clock.pass_time(5 * MINUTE)
    clock.ask("backfill", at=MIDNIGHT, until=clock.now, overlap="buffer_one")
    assert clock.ids() == [id_at(1)]
    clock.end(id_at(1))
    assert clock.ids() == [id_at(1), id_at(2)]


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        (REQUEST, {"verb": "explode"}),
        (REQUEST, {"verb": "trigger", "at": datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None), "overlap": "skip"}),
        (REQUEST, {"verb": "backfill", "at": MIDNIGHT}),
        (REQUEST, None),
        (ENDED, {"verb": "explode"}),
        (ENDED, []),
        (ENDED, ["a", "b"]),
    ],
)
def test_what_it_does_not_understand_changes_nothing(name: str, payload: object) -> None:
    clock = clockwork("allow")
    before = clock.state
    clock.arrived.append(raised(name, payload))
    clock.turn()
    assert clock.state.next_at == before.next_at
    clock.pass_time(MINUTE)
    assert clock.ids()[-1] == id_at(1)


def test_a_worker_that_cannot_tell_the_next_time_commits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = clockwork("allow", timing=Timing(cron="* * * * *", zone="Europe/Berlin"))
    stage = clock.stage

    def missing(*_: object) -> None:
        raise ScheduleError("no such zone here")

    with monkeypatch.context() as patched:
        patched.setattr(Timing, "after", missing)
        with pytest.raises(ScheduleError):
            clock.pass_time(MINUTE)
    assert len(stage.pieces) == 1
    # The engine forgets the instance, and a worker that has the zone reads it again.
    stage.instance.__init__()  # type: ignore[misc]
    for piece in stage.history():
        stage.instance.apply_all(piece)
    clock.pass_time(MINUTE)
    assert clock.ids()[0] == id_at(1)


# ---- whatever happens ------------------------------------------------------------------------------------------

moves = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(1, 400)),
        st.tuples(st.just("stop"), st.integers(0, 900)),
        st.tuples(st.just("trigger"), st.sampled_from([None, "allow", "skip", "buffer_one"])),
        st.tuples(st.just("end"), st.integers(0, 3)),
        st.tuples(st.just("pause"), st.just(0)),
        st.tuples(st.just("resume"), st.just(0)),
        st.tuples(st.just("backfill"), st.integers(1, 300)),
    ),
    max_size=25,
)
any_timing = st.one_of(
    st.builds(lambda s: Timing(every=timedelta(seconds=s), anchor=MIDNIGHT), st.sampled_from([7, 60, 100])),
    st.builds(
        lambda c: Timing(cron=c, zone="Europe/Berlin"), st.sampled_from(["* * * * *", "*/5 * * * *", "2,3 * * * *"])
    ),
)


def play(clock: Clockwork, move: tuple[str, Any]) -> None:
    match move:
        case ("pass", seconds):
            clock.pass_time(timedelta(seconds=seconds))
        case ("stop", seconds):
            clock.stop()
            clock.pass_time(timedelta(seconds=seconds))
            clock.begin()
        case ("trigger", overlap):
            clock.now += timedelta(microseconds=1)
            clock.ask("trigger", at=clock.now, overlap=overlap)
        case ("end", which) if clock.alive:
            clock.end(clock.alive[which % len(clock.alive)])
        case ("backfill", seconds):
            clock.ask("backfill", at=max(MIDNIGHT, clock.now - timedelta(seconds=seconds)), until=clock.now)
        case ("pause" | "resume" as verb, _):
            clock.ask(verb)


def triggered(id: str) -> bool:
    return "." in id  # only these have parts of a second in their time


@settings(max_examples=120, deadline=None)
@given(timing=any_timing, moves=moves)
def test_with_catching_up_no_time_is_lost_or_doubled(timing: Timing, moves: list[tuple[str, Any]]) -> None:
    clock = clockwork("allow", "catch_up", timing, catch_up_max=1000)
    is_paused = False
    wanted: set[datetime] = set()

    def times(after: datetime, until: datetime) -> set[datetime]:
        return set(timing.newest(10_000, after, until))

    for move in moves:
        before = clock.now
        play(clock, move)
        match move[0]:
            case "pause" | "resume" as verb:
                is_paused = verb == "pause"
            case "backfill":
                wanted |= times(max(MIDNIGHT, clock.now - timedelta(seconds=move[1])), clock.now)
        if not is_paused:
            wanted |= times(before, clock.now)
        assert {id for id in clock.ids() if not triggered(id)} == {run_id("s", time) for time in wanted}
        assert len(clock.ids()) == len(set(clock.ids()))


@settings(max_examples=120, deadline=None)
@given(timing=any_timing, overlap=st.sampled_from(["skip", "buffer_one", "cancel", "terminate"]), moves=moves)
def test_what_may_not_overlap_never_does_and_what_waits_begins(
    timing: Timing, overlap: Overlap, moves: list[tuple[str, Any]]
) -> None:
    clock = clockwork(overlap, "run_once", timing)
    for move in moves:
        play(clock, move)
        assert len(clock.alive) <= 1
        assert list(clock.state.running) == clock.alive
        assert clock.alive or clock.state.waiting is None
        assert len(clock.ids()) == len(set(clock.ids()))


@settings(max_examples=80, deadline=None)
@given(timing=any_timing, misfire=st.sampled_from(["run_once", "skip"]), moves=moves)
def test_nobody_gets_a_burst_that_they_did_not_ask_for(
    timing: Timing, misfire: Misfire, moves: list[tuple[str, Any]]
) -> None:
    clock = clockwork("allow", misfire, timing)
    for move in moves:
        before = len(clock.started)
        play(clock, move)
        if move[0] == "stop":
            assert len(clock.started) - before <= 1
