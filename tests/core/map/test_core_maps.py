"""Maps in episodes and in replay: a cold generator does as a warm one, and an instance is what its history says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replayflow import App, MapError, OrchestrationContext, OrchestratorError, RetryPolicy, Saga, race, when_all
from replayflow.core import events
from replayflow.core.events import (
    ExecutionCancelRequested,
    ExecutionResumed,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    MapDrained,
    MapItemFailed,
    MapProgress,
    MapRetried,
    MapScheduled,
    MapStopped,
    ParentInstance,
)
from replayflow.core.instance import MAP_RETRY, Instance
from replayflow.errors import FailureDetails, NonDeterminismError
from tests.core.driver import BEGIN, SECOND, Stage, done, encoded, fired, raised
from tests.core.map.test_core_mapping import told

BAD = FailureDetails("ValueError", "bad")
SETTINGS = settings(deadline=None, max_examples=60)


def ended(id: int, *numbers: int) -> MapProgress:
    return MapProgress(id, list(numbers), [encoded(10 * number) for number in numbers], [])


def bad(id: int, *numbers: int) -> MapProgress:
    return MapProgress(id, [], [], [MapItemFailed(number, 0, BAD) for number in numbers])


def app_of(body: Any) -> App:
    app = App()

    @app.activity
    def work(x: int) -> int:
        return x

    @app.activity
    def batched(items: Any) -> Any:
        return items

    @app.orchestrator
    def child(ctx: OrchestrationContext, x: int) -> Any:
        yield ctx.wait_for_external_event("never")
        return x

    app.orchestrator(name="main")(body)
    return app


def two_maps(ctx: OrchestrationContext) -> Any:
    retry = RetryPolicy(max_attempts=2)
    one = ctx.map("work", range(8), tolerated_failures=2, retry=retry)
    two = ctx.map("child", range(5), concurrency=2, retry=retry, tolerated_failures=5)
    both = when_all([one, two])
    yield race([both, ctx.wait_for_external_event("enough")])
    try:
        again = yield from one.result.retry_failed(ctx)
    except (MapError, ReferenceError, OrchestratorError) as error:
        return type(error).__name__
    return [again.results, two.is_failed]


inboxes = st.lists(
    st.lists(
        st.one_of(
            st.builds(ended, st.just(1), st.integers(0, 7)),
            st.builds(bad, st.just(1), st.integers(0, 7)),
            st.builds(ended, st.just(2), st.integers(0, 4)),
            st.builds(bad, st.just(2), st.integers(0, 4)),
            st.builds(MapRetried, st.just(2), st.lists(st.integers(0, 4), min_size=1, max_size=2)),
            st.builds(ended, st.integers(4, 5), st.integers(0, 3)),
            st.builds(MapDrained, st.integers(1, 2)),
            st.builds(done, st.integers(3, 4)),
            st.sampled_from([raised("enough"), ExecutionSuspended(), ExecutionResumed(), ExecutionCancelRequested()]),
        ),
        max_size=6,
    ),
    min_size=1,
    max_size=8,
)


def two_maps_in_a_saga(ctx: OrchestrationContext) -> Any:
    retry = RetryPolicy(max_attempts=2)

    def body(saga: Saga) -> Any:
        one = saga.run(ctx.map("work", range(8), tolerated_failures=2, retry=retry), "work", undo_input=1)
        two = saga.run(ctx.map("child", range(5), concurrency=2, retry=retry), "work", undo_input=lambda _: 2)
        yield race([when_all([one, two], fail_fast=True), ctx.wait_for_external_event("enough")])
        raise ValueError("enough")

    yield from ctx.saga(body)


@SETTINGS
@given(st.sampled_from([two_maps, two_maps_in_a_saga]), inboxes)
def test_a_cold_generator_has_the_history_of_a_warm_one_and_the_fold_is_the_historys(
    body: Any, rounds: list[list[HistoryEvent]]
) -> None:
    with Stage(app_of(body)) as warm, Stage(app_of(body), always_cold=True) as cold:
        for n, inbox in enumerate([[], *rounds]):
            if warm.instance.is_finished:
                break
            for stage in (warm, cold):
                stage.run(*inbox, later=SECOND if n else 0)
        assert cold.flat() == warm.flat()
        assert cold.row == warm.row
        again = Instance()
        for piece in warm.history():
            again.apply_all(piece)
        assert {id: told(open) for id, open in again.maps.items()} == {
            id: told(open) for id, open in warm.instance.maps.items()
        }
        assert again.runnable_maps == warm.instance.runnable_maps
        assert again.wake_at() == warm.instance.wake_at()
        assert sorted(again.alarms()) == sorted(warm.instance.alarms())
        assert warm.instance.runnable_maps == sum(open.is_runnable for open in warm.instance.maps.values())


def single(ctx: OrchestrationContext) -> Any:
    result = yield ctx.map("work", range(4), tolerated_failures=1)
    return result.results


def test_what_one_episode_takes_in_of_a_map_is_one_event() -> None:
    with Stage(app_of(single)) as stage:
        stage.run()
        assert stage.kinds() == ["ExecutionStarted", "MapScheduled"]
        stage.run(ended(1, 2), bad(1, 0), ended(1, 2, 1), ended(1, 0))
        assert stage.kinds() == ["MapProgress"]
        progress = stage.history()[-1][1]
        assert isinstance(progress, MapProgress)
        assert progress.numbers == [2, 1, 0], (
            "a result that came with a failure of the same call is the one that counts"
        )
        stage.run(ended(1, 3))
        assert stage.result() == [0, 10, 20, 30]


def test_a_late_end_writes_nothing() -> None:
    with Stage(app_of(single)) as stage:
        stage.run()
        stage.run(ended(1, 0, 1))
        assert stage.run(ended(1, 1)).commit is None
        assert stage.run(ended(7, 1)).commit is None


def test_a_map_at_work_wants_a_worker_and_one_that_waits_for_a_retry_wants_its_time() -> None:
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map("work", range(2), retry=RetryPolicy())).results

    with Stage(app_of(main)) as stage:
        stage.run()
        assert stage.row.wake_at == 0
        stage.run(ended(1, 0))
        done = stage.run(bad(1, 1))
        assert stage.row.wake_at == BEGIN + SECOND
        assert [tuple(alarm) for alarm in done.alarms] == [(BEGIN + SECOND, MAP_RETRY, 1)]
        stage.run(ended(1, 1))
        assert stage.result() == [0, 10]
        assert stage.row.wake_at is None


def children(ctx: OrchestrationContext) -> Any:
    task = ctx.map("child", range(5), concurrency=2, retry=RetryPolicy(), tolerated_failures=5)
    go = ctx.wait_for_external_event("go")
    yield race([task, go])
    return "over"


def test_children_begin_in_the_commit_of_the_event_from_which_that_follows() -> None:
    with Stage(app_of(children), instance_id="p") as stage:
        first = stage.run()
        assert [start.instance_id for start in first.starts] == ["p:0001:0", "p:0001:1"]
        assert first.commit is not None
        assert list(first.commit.starts) == first.starts
        started: Any = (first.starts[1].decoded or [None])[0]
        assert started.parent_instance == ParentInstance("p", "e0", 1, "main", number=1)
        second = stage.run(ended(1, 1), bad(1, 0))
        assert [start.instance_id for start in second.starts] == ["p:0001:2", "p:0001:3"]
        third = stage.run(MapRetried(1, [0]))
        assert third.starts == [], "there is no place for it"
        fourth = stage.run(ended(1, 3))
        assert [start.instance_id for start in fourth.starts] == ["p:0001:0:2"]
        ids = [start.execution_id for done in (first, second, fourth) for start in done.starts]
        assert len(set(ids)) == 5
        assert not stage.row.wake_at, "children run by themselves"


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (ExecutionTerminated(), "ExecutionTerminated"),
        (ExecutionCancelRequested(), "ExecutionCancelRequested"),
        (raised("go"), "ExecutionCancelRequested"),
    ],
)
def test_children_at_work_are_stopped_and_no_others(event: HistoryEvent, kind: str) -> None:
    with Stage(app_of(children), instance_id="p") as stage:
        first = stage.run()
        second = stage.run(ended(1, 1), bad(1, 0))
        at_work = {start.instance_id: start.execution_id for start in [*first.starts, *second.starts][2:]}
        done = stage.run(event)
        told_to = {message.instance_id: message.execution_id for message in done.messages}
        assert told_to == at_work
        assert {type(events.decode(message.event)[0]).__name__ for message in done.messages} == {kind}


def test_a_child_of_a_map_reports_as_progress_of_one_call() -> None:
    def main(ctx: OrchestrationContext, x: int) -> Any:
        yield ctx.create_timer(ctx.current_utc_datetime)
        if x < 0:
            raise ValueError("negative")
        return x

    for input, is_done in ((5, True), (-5, False)):
        with Stage(app_of(main), input=input, parent=ParentInstance("p", "e", 3, "main", number=17)) as stage:
            stage.run()
            done = stage.run(fired(1))
            (message,) = done.messages
            (report,) = events.decode(message.event)
            assert isinstance(report, MapProgress)
            assert (message.instance_id, message.execution_id, report.task_scheduled_id) == ("p", "e", 3)
            assert report.numbers == ([17] if is_done else [])
            assert [failure.number for failure in report.failures] == ([] if is_done else [17])


def test_a_map_that_was_recorded_counts_with_its_options_whatever_the_code_says_now() -> None:
    def before(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map("batched", range(4), batch_size=2)).results

    def now(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map("batched", range(9), batch_size=3, tolerated_failures=5)).results

    with Stage(app_of(before)) as stage, Stage(app_of(now)) as changed:
        stage.run()
        changed.pieces = stage.pieces
        changed.instance = stage.instance
        changed.replay = changed.replayed()
        changed.run(MapProgress(1, [0, 1], [encoded([0, 1]), encoded([2, 3])], []))
        assert changed.result() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (lambda ctx: ctx.map("other", range(4)), "map of 'other' (task 1)"),
        (lambda ctx: ctx.map("child", range(4)), "map of 'child' (task 1)"),
        (lambda ctx: ctx.call_activity("work", 1), "activity 'work' (task 1)"),
        (lambda ctx: ctx.wait_for_external_event("e"), "asks for nothing more here"),
    ],
)
def test_other_code_is_a_mismatch_that_shows_both_sides(now: Any, says: str) -> None:
    def changed(ctx: OrchestrationContext) -> Any:
        yield now(ctx)

    with Stage(app_of(single)) as stage, Stage(app_of(changed)) as other:
        stage.run()
        other.pieces = stage.pieces
        with pytest.raises(NonDeterminismError) as found:
            other.replayed()
        assert "the history has map of 'work' (task 1), asked for at" in str(found.value)
        assert says in str(found.value)


def test_nothing_may_follow_continue_as_new() -> None:
    def main(ctx: OrchestrationContext) -> Any:
        ctx.continue_as_new(1)
        with pytest.raises(OrchestratorError, match="map of 'work'"):
            ctx.map("work", [1])
        yield from ()

    with Stage(app_of(main)) as stage:
        stage.run()
        assert stage.kinds() == ["ExecutionStarted", "ExecutionCompleted"]


def test_a_map_takes_one_id_of_the_counter() -> None:
    def main(ctx: OrchestrationContext) -> Any:
        ctx.map("work", range(100))
        ctx.map("work", [])
        yield ctx.call_activity("work", 1)

    with Stage(app_of(main)) as stage:
        stage.run()
        ids = [(type(e), e.event_id) for e in stage.history()[0] if e.event_id > 0]
        assert [id for _, id in ids] == [1, 2, 3]
        assert ids[0][0] is MapScheduled


def test_a_map_that_stops_is_over_when_it_is_drained_whatever_fails_meanwhile() -> None:
    with Stage(app_of(two_maps_in_a_saga)) as stage:
        stage.run()
        stage.run(ExecutionCancelRequested(), *[bad(2, number) for number in (0, 1)], bad(1, 0))
        stops = [event.task_scheduled_id for event in stage.history()[-1] if isinstance(event, MapStopped)]
        assert stops == [2, 1]
        assert set(stage.instance.maps) == {1, 2}
        assert stage.instance.maps[2].at_work == {2, 3}, "two wait for another attempt, two have taken their places"
        stage.run(MapDrained(2), bad(1, 0, 1, 2, 3))
        assert set(stage.instance.maps) == {1, 2}, "what fails while a map stops does not count"
        stage.run(bad(2, 2, 3), bad(2, 2))
        assert not stage.instance.maps[2].at_work
        stage.run(MapDrained(2), MapDrained(2))
        assert set(stage.instance.maps) == {1}
        stage.run(done(3))
        stage.run(MapDrained(1))
        stage.run(done(4))
        assert stage.instance.status == "CANCELED"


def test_a_map_that_fails_fast_in_the_episode_of_its_stop_is_over() -> None:
    def body(ctx: OrchestrationContext) -> Any:
        yield from ctx.saga(lambda saga: (yield saga.run(ctx.map("child", range(5)), "work", undo_input=1)))

    for always_cold in (False, True):
        with Stage(app_of(body), always_cold=always_cold) as stage:
            stage.run()
            stage.run(ExecutionCancelRequested(), bad(1, 0))
            assert not stage.instance.maps
            assert [task.name for task in stage.instance.tasks.values()] == ["work"]
            stage.run(done(2))
            assert stage.instance.status == "CANCELED"
