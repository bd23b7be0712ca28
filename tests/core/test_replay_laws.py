"""The laws of replay (I2, I9), on random orchestrators that meet random results in random order.

An orchestrator is written here as a tree of steps, which `body` walks as a generator would be written by hand. The stage of `driver` plays the
engine: it completes what is open, raises events and fires timers as the test draws them.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from replayflow import App, OrchestrationContext, RetryPolicy, Task, race, when_all, when_any
from replayflow.core import departures, events, rows
from replayflow.core.actions import Action
from replayflow.core.commit import Commit, RowState
from replayflow.core.events import (
    EntityLockGranted,
    ExecutionCancelRequested,
    ExecutionResumed,
    ExecutionSuspended,
    HistoryEvent,
    OrchestratorStarted,
    ParentInstance,
)
from replayflow.core.instance import Instance, Status
from replayflow.core.replay import Replay
from replayflow.errors import DecodeError, FailureDetails, NonDeterminismError
from tests.core.driver import (
    SECOND,
    Stage,
    app_with,
    child_done,
    child_failed,
    done,
    failed,
    fired,
    folded,
    open_ids,
    plain,
    raised,
    waits,
)

# ---- random orchestrators ------------------------------------------------------------------------------------

Step: TypeAlias = tuple[Any, ...]
NAMES = ("Alpha", "beta")
RETRY = RetryPolicy(max_attempts=3, first_interval=timedelta(seconds=1), jitter=0.5)
leaves: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("activity"), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("timer"), st.integers(0, 3)),
    st.tuples(st.just("event"), st.sampled_from(NAMES), st.none() | st.integers(0, 3)),
    st.tuples(st.just("child"), st.booleans()),
)


def composed(children: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    kinds = st.sampled_from(["all", "fast", "any", "race"])
    return st.tuples(kinds, st.lists(children, min_size=1, max_size=3), st.booleans())


tasks = st.recursive(leaves, composed, max_leaves=5)
simple: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("yield"), tasks),
    st.tuples(st.just("yield from"), tasks),
    st.tuples(st.just("start"), tasks),
    st.tuples(st.just("later")),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("status"), st.integers(0, 2)),
    st.tuples(st.just("send")),
    st.tuples(st.just("look")),
    st.tuples(st.just("record"), st.booleans()),
)


def blocks(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    several = st.lists(steps, max_size=3)
    return st.one_of(
        st.tuples(st.just("loop"), st.integers(1, 3), several),
        st.tuples(st.just("try"), several, several, several),
        st.tuples(st.just("helper"), several),
    )


programs = st.lists(st.recursive(simple, blocks, max_leaves=8), min_size=1, max_size=6)


def make(ctx: OrchestrationContext, step: Step) -> Task[Any]:
    match step:
        case ("activity", name, retries):
            return ctx.call_activity(f"act{name}", name, retry=RETRY if retries else None)
        case ("timer", seconds):
            return ctx.create_timer(timedelta(seconds=seconds))
        case ("event", name, None):
            return ctx.wait_for_external_event(name)
        case ("event", name, seconds):
            return ctx.wait_for_external_event(name, timeout=timedelta(seconds=seconds))
        case ("child", retries):
            return ctx.call_sub_orchestrator("child", retry=RETRY if retries else None)
        case (kind, below, twice):
            children = [make(ctx, child) for child in below]
            if twice:
                children.append(children[0])
            if kind == "any":
                return when_any(children)
            return race(children) if kind == "race" else when_all(children, fail_fast=kind == "fast")
    raise AssertionError(step)


def world(ctx: OrchestrationContext) -> str:
    """What the world says: something else on a replay, when nobody may look."""
    return "replayed" if ctx.is_replaying else "first"


def fails(ctx: OrchestrationContext) -> None:
    raise ValueError(world(ctx))


def shown(value: Any) -> Any:
    if isinstance(value, Task):
        return [type(value).__name__, value.is_failed]
    return [shown(item) for item in value] if isinstance(value, list) else value


def body(
    ctx: OrchestrationContext, steps: list[Step], seen: list[Any], kept: list[Task[Any]] | None = None
) -> Generator[Any, Any, None]:
    kept = [] if kept is None else kept
    for step in steps:
        match step:
            case ("yield", task):
                seen.append(shown((yield make(ctx, task))))
            case ("yield from", task):
                seen.append(shown((yield from make(ctx, task))))
            case ("start", task):
                kept.append(make(ctx, task))
            case ("later",) if kept:
                seen.append(shown((yield kept.pop(0))))
            case ("cancel",) if kept:
                seen.append(kept.pop().cancel())
            case ("status", value):
                ctx.set_custom_status(value)
            case ("send",):
                ctx.send_event("other", "hello", len(seen))
            case ("look",):
                seen.append([str(ctx.current_utc_datetime), ctx.new_uuid(), ctx.random.random()])
            case ("record", True):
                seen.append(ctx.record(world, ctx))
            case ("record", False):
                seen.append(ctx.record(fails, ctx))
            case ("loop", count, below):
                for _ in range(count):
                    yield from body(ctx, below, seen)
            case ("try", attempted, caught, after):
                try:
                    yield from body(ctx, attempted, seen)
                except Exception as error:
                    seen.append(type(error).__name__)
                    yield from body(ctx, caught, seen)
                finally:
                    yield from body(ctx, after, seen)
            case ("helper", below):
                yield from body(ctx, below, seen)
            case ("patch", name, new, old):
                yield from body(ctx, new if ctx.patched(name) else old, seen, kept)
            case _:
                pass


def app_of_program(program: list[Step]) -> App:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        seen: list[Any] = []
        yield from body(ctx, program, seen)
        return seen

    return app


# ---- random fates --------------------------------------------------------------------------------------------


def what_can_happen(stage: Stage) -> list[HistoryEvent]:
    """Something that an engine could bring to the instance now."""
    instance = stage.instance
    happens: list[HistoryEvent] = []
    for id in instance.tasks:
        happens += [done(id, f"r{id}"), failed(id, ValueError(str(id)))]
    happens += [fired(id, at) for id, at in instance.timers.items()]
    for id in instance.children:
        again = departures.retried(instance, id, lambda: "0" * 32)
        happens += [again] if again is not None else [child_done(id, f"c{id}"), child_failed(id)]
    happens += [raised(name.upper(), len(stage.pieces)) for name in NAMES]
    happens.append(done(999))
    return happens


def play(stage: Stage, data: st.DataObject, *, rounds: int = 12, cancels: bool = True) -> list[list[HistoryEvent]]:
    """The instance lives until it ends or the rounds are over; returns its inboxes."""
    inboxes: list[list[HistoryEvent]] = [[]]
    stage.run()
    held: list[HistoryEvent] = []
    while not stage.instance.is_finished and len(inboxes) < rounds:
        choice = what_can_happen(stage)
        inbox = data.draw(st.lists(st.sampled_from(choice), min_size=1, max_size=3), "inbox")
        if cancels and data.draw(st.integers(0, 9), "cancel") == 0:
            inbox.append(ExecutionCancelRequested())
        if data.draw(st.integers(0, 9), "suspend") == 0:
            inbox.insert(0, ExecutionSuspended())
        elif stage.instance.status is Status.SUSPENDED:
            inbox.append(ExecutionResumed())
        inbox = held + inbox
        inboxes.append(inbox)
        held = list(stage.run(*inbox, later=SECOND).held)
    return inboxes


class Recorder(Replay):
    """A replay that keeps what was decided while it went over the past."""

    __slots__ = ("again",)

    def replay(self, piece: Any) -> None:
        """The piece as new: decided without the record, so that what comes out is the code's own."""
        for event in piece:
            if isinstance(event, OrchestratorStarted):
                self.begin(event.now_microseconds)
            elif not event.is_decision:
                self.deliver(event)
        self.again: list[Action] = self.take()


SETTINGS = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@SETTINGS
@given(programs, st.data())
def test_replaying_any_prefix_gives_the_same_actions_in_the_same_order_and_the_same_open_tasks(
    program: list[Step], data: st.DataObject
) -> None:
    with Stage(app_of_program(program)) as stage:
        open_after: list[tuple[Any, ...]] = []
        original = stage.run

        def run(*inbox: HistoryEvent, later: int = 0) -> Any:
            ended = original(*inbox, later=later)
            if ended.commit is not None:
                open_after.append(standing(stage.replay))
            return ended

        stage.run = run  # type: ignore[method-assign]
        play(stage, data)
        history = stage.history()
        recorder = Recorder(stage.definition, stage.started, stage.environment)
        stage.made.append(recorder)
        for n, piece in enumerate(history):
            recorder.replay(piece)
            decided = [event for event in piece if event.is_decision]
            again = [action.record() for action in recorder.again]
            for then, now in zip(decided, again, strict=True):
                if hasattr(then, "execution_id"):
                    now.execution_id = then.execution_id  # type: ignore[union-attr]
            assert [plain(event) for event in again] == [plain(event) for event in decided]
            prefix = stage.replayed(n + 1)
            assert standing(prefix) == open_after[n]


def standing(replay: Replay) -> tuple[Any, ...]:
    decisions = replay.decisions
    kept = [plain(event) for event in decisions.unconsumed()]
    return (
        open_ids(replay),
        waits(replay),
        sorted(decisions.deadlines),
        kept,
        decisions.next_id,
        decisions.custom_status,
        replay.outcome is None,
    )


@SETTINGS
@given(programs, st.data())
def test_an_instance_that_is_replayed_before_every_episode_has_the_history_of_a_warm_one(
    program: list[Step], data: st.DataObject
) -> None:
    app = app_of_program(program)
    with Stage(app) as warm, Stage(app, always_cold=True) as cold:
        inboxes = play(warm, data)
        for n, inbox in enumerate(inboxes):
            cold.run(*inbox, later=SECOND if n else 0)
        assert cold.flat() == warm.flat()
        assert folded(cold.instance) == folded(warm.instance)
        assert cold.row == warm.row


# Where most of the program is one activity after another, most episodes are turns.
chains: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(st.just("yield"), st.tuples(st.just("activity"), st.integers(0, 2), st.booleans()))
    | st.tuples(st.just("yield"), tasks)
    | simple,
    min_size=2,
    max_size=10,
)


@SETTINGS
@given(chains | programs, st.data())
def test_a_turn_is_the_very_episode_that_it_stands_for(program: list[Step], data: st.DataObject) -> None:
    app = app_of_program(program)
    with Stage(app) as general, Stage(app, takes_turns=True) as quick:
        inboxes = play(general, data, rounds=20)
        for n, inbox in enumerate(inboxes):
            quick.run(*inbox, later=SECOND if n else 0)
        assert [stored(commit) for commit in quick.commits] == [stored(commit) for commit in general.commits]
        assert comparable(folded(quick.instance)) == comparable(folded(general.instance))
        assert standing(quick.replay) == standing(general.replay)
        assert shown_row(quick.row) == shown_row(general.row)


def stored(commit: Commit) -> dict[str, Any]:
    """All that a store is given with the commit, but for the engine's own lines in the stacks of failures."""
    given = {name: getattr(commit, name) for name in Commit.__struct_fields__}
    given |= {name: list(value) for name, value in given.items() if isinstance(value, tuple)}  # nothing is nothing
    chunk = [] if commit.chunk is None else shown_events(commit.chunk)
    state = None if commit.state is None else shown_row(commit.state)
    messages = [asdict(message) | {"event": shown_events(message.event)} for message in commit.messages]
    return given | {"chunk": chunk, "state": state, "messages": messages}


def shown_events(chunk: bytes) -> list[dict[str, Any]]:
    return [comparable(asdict(event)) for event in events.decode(chunk)]


def shown_row(row: RowState) -> dict[str, Any]:
    failure = None if row.failure is None else bare(rows.decode_failure(row.failure))
    return asdict(row) | {"failure": failure}


def comparable(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: bare(value) if isinstance(value, FailureDetails) else value for name, value in fields.items()}


def bare(details: FailureDetails) -> FailureDetails:
    return replace(details, stack="", inner=None if details.inner is None else bare(details.inner))


def test_one_activity_after_another_is_a_turn_each_but_for_the_first_and_the_last() -> None:
    with Stage(app_of_program([("yield", ("activity", 0, False))] * 5), takes_turns=True) as stage:
        stage.run()
        for id in range(1, 6):
            stage.run(done(id, id))
        assert stage.result() == [1, 2, 3, 4, 5]
        assert stage.turns == 4


def test_a_result_that_does_not_fit_fails_the_yield_of_a_turn() -> None:
    app = App()

    @app.activity
    async def count(x: int) -> int:
        return x

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity(count, 1)
        except DecodeError as error:
            return [str(error), (yield ctx.call_activity(count, 2))]

    with Stage(app, takes_turns=True) as stage:
        stage.run()
        stage.run(done(1, "many"))
        assert stage.turns == 1
        assert open_ids(stage.replayed(2)) == [2]
        stage.run(done(2, 2))
        why, counted = stage.result()
        assert "value of activity 'count' (task 1)" in why
        assert counted == 2


@SETTINGS
@given(chains | programs, chains | programs, st.booleans(), st.data())
def test_a_history_replays_at_once_as_it_does_piece_by_piece(
    program: list[Step], other: list[Step], is_other: bool, data: st.DataObject
) -> None:
    with Stage(app_of_program(program)) as stage, Stage(app_of_program(other if is_other else program)) as now:
        play(stage, data)
        now.pieces = stage.pieces
        ends: list[object] = []
        for at_once in (True, False):
            replay = now.fresh()
            try:
                if at_once:
                    replay.replay_all(now.history())
                else:
                    for piece in now.history():
                        replay.replay(piece)
            except NonDeterminismError as mismatch:
                ends.append(str(mismatch))
            else:
                ends.append(standing(replay))
        assert ends[0] == ends[1]


@SETTINGS
@given(chains | programs, st.data())
def test_a_history_folds_by_pieces_as_it_does_by_events(program: list[Step], data: st.DataObject) -> None:
    with Stage(app_of_program(program)) as stage:
        play(stage, data)
        by_pieces, by_events = Instance(), Instance()
        by_pieces.apply_pieces(stage.history())
        for piece in stage.history():
            for event in piece:
                by_events.apply(event)
        assert folded(by_pieces) == folded(by_events)
        assert list(by_pieces.tasks) == list(by_events.tasks)


@SETTINGS
@given(programs, st.data())
def test_an_instance_is_what_its_history_says(program: list[Step], data: st.DataObject) -> None:
    with Stage(app_of_program(program)) as stage:
        play(stage, data)
        again = Instance()
        for piece in stage.history():
            again.apply_all(piece)
        told, again_told = folded(stage.instance), folded(again)
        for state in (told, again_told):
            state.pop("now")  # an episode that took nothing in moved the clock and left no trace
        assert again_told == told
        assert again.wake_at() == stage.instance.wake_at()


@SETTINGS
@given(programs, programs, st.data())
def test_other_code_is_a_mismatch_or_replays_to_a_state_of_its_own_and_nothing_else(
    program: list[Step], other: list[Step], data: st.DataObject
) -> None:
    with Stage(app_of_program(program)) as stage, Stage(app_of_program(other)) as changed:
        play(stage, data, rounds=5)
        changed.pieces = stage.pieces
        _, mismatch = replayed(changed)
        if mismatch is not None:
            assert "the history has" in mismatch
            assert "; the code now" in mismatch


def replayed(stage: Stage) -> tuple[Replay | None, str | None]:
    """The generator that has lived through the stage's history, or the mismatch that it met."""
    try:
        return stage.replayed(), None
    except NonDeterminismError as mismatch:
        return None, str(mismatch)


@SETTINGS
@given(programs, st.integers(0, 20), st.data())
def test_a_call_more_at_any_place_is_a_mismatch(program: list[Step], place: int, data: st.DataObject) -> None:
    place %= len(program) + 1
    waiting: Step = ("yield", ("event", "never", None))
    edited = [*program[:place], ("start", ("activity", 9, False)), *program[place:], waiting]
    with Stage(app_of_program([*program, waiting])) as stage, Stage(app_of_program(edited)) as changed:
        play(stage, data, rounds=5, cancels=False)
        if stage.instance.is_finished:
            return
        changed.pieces = stage.pieces
        replay, mismatch = replayed(changed)
        assert mismatch is None or "test_replay_laws.py:" in mismatch
        if replay is not None:
            assert not any(task.name == "act9" for task in replay.decisions.open.values()), "it is not reached yet"


def test_a_long_history_replays_to_where_it_was() -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        total = 0
        for n in range(2_000):
            total += yield ctx.call_activity("add", n)
        return total

    stage = Stage(app)
    stage.run()
    for n in range(1_999):
        stage.run(done(n + 1, 1))
    assert open_ids(stage.replayed()) == [2_000]
    stage.replay = stage.replayed()
    stage.run(done(2_000, 1))
    assert stage.result() == 2_000


@pytest.mark.parametrize("size", [1_000])
def test_a_fan_in_may_come_in_any_number_of_episodes(size: int) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield when_all([ctx.call_activity("add", n) for n in range(size)]))

    stage = Stage(app, always_cold=True)
    stage.run()
    ids = list(range(1, size + 1))
    stage.run(*(done(id, id) for id in ids[::2]))
    stage.run(*(done(id, id) for id in reversed(ids[1::2])))
    assert stage.result() == ids


def ends_with_a_result(ctx: OrchestrationContext) -> Any:
    return (yield ctx.call_activity("a", 1))


def ends_with_nothing(ctx: OrchestrationContext) -> Any:
    yield ctx.call_activity("a", 1)


def ends_badly(ctx: OrchestrationContext) -> Any:
    yield ctx.call_activity("a", 1)
    raise ValueError("broken")


def ends_while_something_is_under_way(ctx: OrchestrationContext) -> Any:
    ctx.call_activity("a", 0)
    return (yield ctx.call_activity("a", 1))


def ends_and_asks_for_more(ctx: OrchestrationContext) -> Any:
    yield ctx.call_activity("a", 1)
    ctx.call_activity("a", 2)


def ends_with_a_lock(ctx: OrchestrationContext) -> Any:
    kept = yield ctx.lock_entities(["@account@1"])
    yield ctx.call_activity("a", 1)
    return str(kept)[:1]


def goes_on(ctx: OrchestrationContext) -> Any:
    yield ctx.call_activity("a", 1)
    ctx.continue_as_new(None)


def ends_with_what_cannot_travel(ctx: OrchestrationContext) -> Any:
    yield ctx.call_activity("a", 1)
    return object()


@pytest.mark.parametrize("parent", [None, ParentInstance("p", "e", 7)], ids=["alone", "a child"])
@pytest.mark.parametrize(
    "orchestrator",
    [
        ends_with_a_result,
        ends_with_nothing,
        ends_badly,
        ends_while_something_is_under_way,
        ends_and_asks_for_more,
        ends_with_a_lock,
        goes_on,
        ends_with_what_cannot_travel,
    ],
)
def test_an_end_that_a_result_brings_is_the_very_end_that_it_stands_for(
    orchestrator: Any, parent: ParentInstance | None
) -> None:
    app = app_with(orchestrator)
    app.activity(name="a")(lambda x: x)
    with Stage(app, parent=parent) as general, Stage(app, parent=parent, takes_turns=True) as quick:
        for stage in (general, quick):
            stage.run()
            if stage.instance.locks:
                (section,) = stage.instance.locks
                stage.run(EntityLockGranted(section, 0))
            while not stage.instance.is_finished and max(stage.instance.tasks) > 0:
                stage.run(done(max(stage.instance.tasks), "r"), later=SECOND)
        assert [stored(commit) for commit in quick.commits] == [stored(commit) for commit in general.commits]
        assert comparable(folded(quick.instance)) == comparable(folded(general.instance))
        assert shown_row(quick.row) == shown_row(general.row)
