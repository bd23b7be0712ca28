"""What is waited for is what the fold has open and the replayed code listens for, on random orchestrators with random fates."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from replayflow import App, OrchestrationContext, RetryPolicy, when_all
from replayflow.core import events
from replayflow.core.events import (
    EntityLockGranted,
    EntityOperationCompleted,
    ExecutionResumed,
    ExecutionSuspended,
    OrchestratorStarted,
    SubOrchestrationInstanceCreated,
    TaskScheduled,
    TimerCreated,
)
from replayflow.core.waits import Listening, Open, WaitKind, Waits
from tests.core.driver import BEGIN, SECOND, Stage, app_with, done, encoded, failed, open_ids, raised, waits
from tests.core.test_replay_laws import SETTINGS, Step, app_of_program, play, programs

FAR = 2**60


def folded(stage: Stage) -> Waits:
    fold = Waits()
    for piece in stage.history():
        fold.take(piece)
    return fold


def heard(stage: Stage, upto: int | None = None) -> Listening:
    listening = Listening(stage.fresh())
    for piece in stage.history()[:upto]:
        listening.take(piece)
    return listening


def episodes(stage: Stage) -> list[int]:
    """The time of each piece of history."""
    return [piece[0].now_microseconds for piece in stage.history() if isinstance(piece[0], OrchestratorStarted)]


def asked_at(stage: Stage) -> dict[int, int]:
    """When each task was asked for."""
    found: dict[int, int] = {}
    for piece, at in zip(stage.history(), episodes(stage), strict=True):
        for event in piece:
            if isinstance(event, TaskScheduled | TimerCreated | SubOrchestrationInstanceCreated):
                found[event.event_id] = at
    return found


@SETTINGS
@given(programs, st.data())
def test_what_history_has_open_is_what_the_code_has_open(program: list[Step], data: st.DataObject) -> None:
    with Stage(app_of_program(program)) as stage:
        play(stage, data)
        known = folded(stage).now(stage.now)
        if stage.instance.is_finished:
            assert known == []
            return
        assert [one.task_id for one in known] == open_ids(stage.replayed())
        asked = asked_at(stage)
        for one in known:
            assert one.task_id is not None
            assert asked[one.task_id] <= one.since <= stage.now
            assert one.since == asked[one.task_id] or one.kind is WaitKind.RETRY or (one.attempt or 1) > 1
            assert (one.kind is WaitKind.TIMER) == (one.task_id in stage.instance.timers)
            if one.kind is WaitKind.TIMER:
                assert one.until == stage.instance.timers[one.task_id]
            if one.kind is WaitKind.RETRY:
                assert one.until is not None
                assert one.until > stage.now


@SETTINGS
@given(programs, st.data())
def test_the_code_says_which_events_it_listens_for_and_since_when(program: list[Step], data: st.DataObject) -> None:
    with Stage(app_of_program(program)) as stage:
        play(stage, data)
        if stage.instance.is_finished:
            return
        replay = stage.replayed()
        known = folded(stage).now(stage.now)
        told = heard(stage).now(known)
        listened = [one for one in told if one.kind is WaitKind.EVENT]
        assert sorted({one.name.casefold() for one in listened}) == list(waits(replay))
        limits = set(replay.decisions.deadlines)
        assert [one for one in told if one.kind is not WaitKind.EVENT] == [
            one for one in known if one.task_id not in limits
        ]
        assert sorted(one.until for one in listened if one.until is not None) == sorted(
            stage.instance.timers[id] for id in limits
        )
        times = episodes(stage)
        for one in listened:
            assert one.since in times
            before = times.index(one.since)
            # In each episode since, somebody listened for the name.
            assert all(one.name.casefold() in waits(stage.replayed(n + 1)) for n in range(before, len(times)))


# ---- one of each kind


def test_a_retry_is_waited_for_until_its_time_and_is_an_attempt_from_then_on() -> None:
    policy = RetryPolicy(max_attempts=5, first_interval=timedelta(seconds=10))

    def main(ctx: OrchestrationContext) -> Any:
        return (
            yield when_all([ctx.call_activity("act", retry=policy), ctx.call_sub_orchestrator("main", retry=policy)])
        )

    with Stage(app_with(main)) as stage:
        stage.run()
        first = folded(stage).now(stage.now)
        assert [(one.kind, one.attempt, one.since) for one in first] == [
            (WaitKind.ACTIVITY, 1, BEGIN),
            (WaitKind.CHILD, 1, BEGIN),
        ]
        stage.run(failed(1), later=SECOND)
        at = BEGIN + 11 * SECOND
        [retry, _] = folded(stage).now(stage.now)
        assert (retry.kind, retry.name, retry.attempt, retry.until) == (WaitKind.RETRY, "act", 2, at)
        [running, _] = folded(stage).now(at)
        assert (running.kind, running.attempt, running.since) == (WaitKind.ACTIVITY, 2, at)


def test_a_map_says_how_far_it_is() -> None:
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.map("act", [1, 2, 3]))

    with Stage(app_with(main)) as stage:
        stage.run()
        stage.run(events.MapProgress(1, [0], [encoded("one")], []))
        [one] = folded(stage).now(stage.now)
        assert (one.kind, one.name, one.progress) == (WaitKind.MAP, "act", (1, 0, 3))


def test_calls_of_entities_and_locks_are_waited_for_until_they_are_answered() -> None:
    def main(ctx: OrchestrationContext) -> Any:
        with (yield ctx.lock_entities(["@e@a", "@e@b"])):
            yield ctx.call_entity("@e@b", "add", 1)
        yield ctx.wait_for_external_event("go")

    def told(stage: Stage) -> list[tuple[WaitKind, str, str | None]]:
        return [(one.kind, one.name, one.target) for one in folded(stage).now(stage.now)]

    with Stage(app_with(main)) as stage:
        stage.run()
        assert told(stage) == [(WaitKind.LOCK, "", "@e@a")]
        section = f"{stage.started.execution_id}:1"
        stage.run(EntityLockGranted(section, 0))
        assert told(stage) == [(WaitKind.LOCK, "", "@e@b")]
        stage.run(EntityLockGranted(section, 1))
        assert told(stage) == [(WaitKind.CALL, "add", "@e@b")]
        stage.run(EntityOperationCompleted("2", None))
        assert told(stage) == []
        [event] = heard(stage).now([])
        assert (event.kind, event.name) == (WaitKind.EVENT, "go")
        assert "test_core_waits.py:" in event.site


def test_a_call_that_the_code_gave_up_is_gone_where_the_code_says_so() -> None:
    def main(ctx: OrchestrationContext) -> Any:
        call = ctx.call_entity("@e@a", "add", 1)
        yield ctx.call_activity("act")
        call.cancel()
        yield ctx.wait_for_external_event("go")

    with Stage(app_with(main)) as stage:
        stage.run()
        stage.run(done(2))
        known = folded(stage).now(stage.now)
        assert [one.kind for one in known] == [WaitKind.CALL]
        assert [one.kind for one in heard(stage).now(known)] == [WaitKind.EVENT]


def test_a_suspension_is_told_with_its_beginning_and_ends_with_the_resumption() -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    with Stage(app) as stage:
        stage.run()
        stage.run(ExecutionSuspended(), later=SECOND)
        stage.run(ExecutionSuspended(), later=SECOND)
        assert folded(stage).suspended_since == BEGIN + SECOND
        stage.run(ExecutionResumed(), later=SECOND)
        assert folded(stage).suspended_since is None


def test_nothing_is_waited_for_at_the_end() -> None:
    def main(ctx: OrchestrationContext) -> Any:
        ctx.create_timer(timedelta(days=1))
        yield ctx.wait_for_external_event("go")

    with Stage(app_with(main)) as stage:
        stage.run()
        assert len(heard(stage).now(folded(stage).now(FAR))) == 2
        stage.run(raised("go"))
        assert folded(stage).now(stage.now) == list[Open]()
