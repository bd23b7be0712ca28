"""Going through a past execution: every episode once, where the code stood after it, and the first that no longer fits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from replayflow import App, NonDeterminismError, OrchestrationContext, when_all
from replayflow.core.stepping import ReplayedEpisode, replayed
from tests.core.driver import Stage, app_with, done, raised


def act(x: int) -> Any:
    return x


def flow(ctx: OrchestrationContext) -> Any:
    first = yield ctx.call_activity(act, 1)
    both = yield when_all([ctx.call_activity(act, 2), ctx.call_activity(act, 3)])
    name = yield ctx.wait_for_external_event("name")
    return [first, both, name]


def lived() -> Stage:
    stage = Stage(app_with(flow, act))
    stage.run()
    stage.run(done(1, "a"))
    stage.run(done(2, "b"), done(3, "c"))
    stage.run(raised("name", "d"))
    return stage


def walked(stage: Stage, app: App, **options: Any) -> list[ReplayedEpisode]:
    return list(replayed(app.orchestrators["main"], stage.started, stage.history(), stage.environment, **options))


def test_each_episode_comes_once_with_the_numbers_of_its_events() -> None:
    with lived() as stage:
        episodes = walked(stage, stage.app)
        assert [list(e.events) for e in episodes] == stage.history()
        assert episodes[0].first == 1
        assert [e.first for e in episodes[1:]] == [e.last + 1 for e in episodes[:-1]]
        assert episodes[-1].last == len(stage.flat())


def test_after_each_it_says_where_the_code_stands() -> None:
    with lived() as stage:
        first, second, third, last = (e.stands or "" for e in walked(stage, stage.app))
        line = flow.__code__.co_firstlineno
        assert first.startswith(f"waits at core/test_core_stepping.py:{line + 1} for <activity 'act'")
        assert f":{line + 2} " in second
        assert f":{line + 3} for <event 'name'" in third
        assert last == "ended, COMPLETED"


def test_between_two_episodes_the_variables_are_there() -> None:
    with lived() as stage:
        episodes = replayed(stage.app.orchestrators["main"], stage.started, stage.history(), stage.environment)
        seen = [{name: value for name, value in e.variables().items() if name != "ctx"} for e in episodes]
        assert seen == [{}, {"first": "a"}, {"first": "a", "both": ["b", "c"]}, {}]


def test_the_first_episode_that_does_not_fit_is_the_last_that_comes() -> None:
    def changed(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(act, 1)
        yield ctx.create_timer(timedelta(1))

    with lived() as stage:
        fits, differs = walked(stage, app_with(changed, act))
        assert fits.problem is None
        assert differs.stands is None
        assert isinstance(differs.problem, NonDeterminismError)
        assert "asks for timer" in str(differs.problem)


def test_each_event_that_reaches_the_code_is_announced_before_it_does() -> None:
    with lived() as stage:
        told: list[int] = []
        walked(stage, stage.app, before=told.append)
        kinds = [kind for kind, _ in stage.flat()]
        assert [kinds[number - 1] for number in told] == [
            "ExecutionStarted",
            "TaskCompleted",
            "TaskCompleted",
            "TaskCompleted",
            "EventRaised",
        ]
        assert told == sorted(set(told))


def test_one_that_is_left_in_the_middle_leaves_no_generator() -> None:
    closed: list[str] = []

    def tidy(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity(act, 1)
        finally:
            closed.append("closed")

    with Stage(app_with(tidy, act)) as stage:
        stage.run()
        episodes = replayed(stage.app.orchestrators["main"], stage.started, stage.history(), stage.environment)
        next(episodes)
        episodes.close()
        assert closed == ["closed"]
