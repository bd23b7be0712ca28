"""Cuts and origins: the algebra of rewind and fork, without a store."""

from __future__ import annotations

from typing import Any

import pytest

from replayflow import OrchestrationContext, Saga
from replayflow.core import branches, events, origins
from replayflow.core.branches import History
from replayflow.core.events import (
    ExecutionStarted,
    Origin,
    ParentInstance,
    ParentRewound,
    SagaUndone,
    SubOrchestrationInstanceCompleted,
    TaskCompleted,
    TaskFailed,
)
from replayflow.errors import InvalidArgumentError, InvalidStateError
from tests.core.driver import SECOND, Stage, app_with, child_failed, done, failed, raised


def three(ctx: OrchestrationContext) -> Any:
    first = yield ctx.call_activity("a")
    second = yield ctx.call_activity("b")
    yield ctx.wait_for_external_event("go")
    return [first, second, (yield ctx.call_activity("c"))]


def history_of(stage: Stage) -> History:
    return History(list(stage.start), [events.decode(piece) for piece in stage.pieces])


def numbered(history: History) -> list[events.HistoryEvent]:
    """The events as `Instance.history()` yields them."""
    first, *rest = history.pieces
    return [first[0], *history.start, *first[1:], *(event for piece in rest for event in piece)]


def a_failed_stage() -> Stage:
    stage = Stage(app_with(three))
    stage.run()
    stage.run(done(1, "A"), later=SECOND)
    stage.run(raised("go"), later=SECOND)
    stage.run(failed(2), later=SECOND)
    return stage


def test_events_are_numbered_as_the_history_yields_them() -> None:
    history = history_of(a_failed_stage())
    every = numbered(history)
    assert history.count == len(every)
    for number, event in enumerate(every, 1):
        piece, up_to = history.place_of(number)
        if event not in history.start:
            assert history.pieces[piece][up_to - 1] == event
        assert history.number_of(piece) <= number
    for number in (0, -3, history.count + 1):
        with pytest.raises(InvalidArgumentError, match=f"event {number}: the history of instance 'i' has events 1 to"):
            history.place_of(number)


def test_it_is_cut_before_the_failure_that_ended_it_and_what_came_later_is_told_again() -> None:
    history = history_of(a_failed_stage())
    piece = branches.before_failure(history)
    assert piece == 3
    cut = branches.rewound(history, piece)
    assert [len(kept) for kept in cut.kept.pieces] == [len(p) for p in history.pieces[:3]]
    assert cut.facts == []
    assert history.number_of(3) == cut.event
    earlier = branches.rewound(history, 1)
    assert [type(fact).__name__ for fact in earlier.facts] == ["TaskCompleted", "EventRaised"]


def test_a_cut_changes_nothing_of_what_it_was_cut_from() -> None:
    history = history_of(a_failed_stage())
    before = [events.encode(piece) for piece in history.pieces]
    cut = branches.forked(history, 6)
    branches.edited(cut, {1: b"other"})
    branches.rewound(history, 2)
    assert [events.encode(piece) for piece in history.pieces] == before


def test_a_failure_without_a_cause_is_that_of_the_last_episode() -> None:
    def faulty(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity("a")
        except Exception:
            yield ctx.call_activity("b")
        raise RuntimeError("by itself")

    stage = Stage(app_with(faulty))
    stage.run()
    stage.run(failed(1))
    stage.run(done(2))
    history = history_of(stage)
    assert branches.before_failure(history) == 2
    cut = branches.rewound(history, 2)
    assert cut.facts == [TaskCompleted(2)]
    assert any(isinstance(event, TaskFailed) for piece in cut.kept.pieces for event in piece)


def test_a_history_without_a_failure_has_none_to_go_back_before() -> None:
    stage = Stage(app_with(three))
    stage.run()
    with pytest.raises(InvalidStateError, match="has no failure in its history"):
        branches.before_failure(history_of(stage))


def guarded(ctx: OrchestrationContext) -> Any:
    yield ctx.call_activity("before")

    def body(saga: Saga) -> Any:
        yield from saga.run("do", "undo")
        yield from saga.run("fail", "undo")

    yield from ctx.saga(body)


def undone_stage() -> Stage:
    stage = Stage(app_with(guarded))
    stage.run()
    stage.run(done(1))
    stage.run(done(2))
    stage.run(failed(3))
    stage.run(done(4))
    stage.run(done(5))
    return stage


def test_a_saga_that_was_undone_is_cut_out_as_a_whole() -> None:
    stage = undone_stage()
    history = history_of(stage)
    assert [event.first_id for piece in history.pieces for event in piece if isinstance(event, SagaUndone)] == [2]
    assert branches.before_failure(history) == 1
    with pytest.raises(InvalidStateError, match="inside a saga that was undone later, which began with event"):
        branches.before_event(history, history.number_of(3))
    assert branches.before_event(history, history.number_of(1)) == 1


def test_histories_from_before_the_undoing_was_noted_replay_as_they_did() -> None:
    stage = undone_stage()
    pieces = [[event for event in piece if not isinstance(event, SagaUndone)] for piece in stage.history()]
    assert pieces != stage.history()
    replay = stage.fresh()
    for piece in pieces:
        replay.replay(piece)
    assert replay.outcome is not None
    assert replay.outcome.orchestration_status == "FAILED"
    replay.close()


# ---- origins ---------------------------------------------------------------------------------------------------

OWN = ExecutionStarted(
    "main", None, "f", "x3", origins=[Origin("s", "x1", 10, 2), Origin("f", "x2", 20, 5)], is_first=False
)


def test_an_episode_of_the_past_has_the_identity_that_it_had() -> None:
    assert [origins.identity_at(OWN, now) for now in (5, 10, 11, 20, 21)] == [
        ("s", "x1"),
        ("s", "x1"),
        ("f", "x2"),
        ("f", "x2"),
        ("f", "x3"),
    ]
    assert origins.root(OWN) == ("s", "x1")
    assert origins.inherited_until(OWN) == 20
    alone = ExecutionStarted("main", None, "i", "x1")
    assert (origins.root(alone), origins.identity_at(alone, 7), origins.inherited_until(alone)) == (
        ("i", "x1"),
        ("i", "x1"),
        0,
    )


def test_what_a_rewound_instance_asked_for_keeps_its_keys_and_what_its_source_asked_for_has_the_forks() -> None:
    assert [origins.key_scope(OWN, id) for id in (1, 2, 3, 5, 6)] == ["f/x2", "f/x2", "f/x2", "f/x2", None]
    fork = ExecutionStarted("main", None, "g", "x4", origins=[Origin("s", "x1", 10, 2)])
    assert origins.key_scope(fork, 1) is None


def test_origins_are_prolonged_or_cut_short_with_the_past() -> None:
    assert origins.prolonged(OWN, 30, 7) == [*(OWN.origins or []), Origin("f", "x3", 30, 7)]
    assert origins.prolonged(OWN, 15, 3) == [Origin("s", "x1", 10, 2), Origin("f", "x2", 15, 3)]
    assert origins.prolonged(OWN, 10, 2) == [Origin("s", "x1", 10, 2)]


# ---- a parent that goes on -------------------------------------------------------------------------------------


def child_stage() -> Stage:
    return Stage(app_with(three), parent=ParentInstance("p", "e1", 4, "parent"))


def answers(stage: Stage) -> list[tuple[str, str | None]]:
    return [
        (type(event).__name__, message.execution_id)
        for commit in stage.commits
        for message in commit.messages
        for event in events.decode(message.event)
    ]


@pytest.mark.parametrize("when", ["before", "with", "after"])
def test_a_rewound_parent_is_told_of_the_end_whenever_its_child_learns_of_it(when: str) -> None:
    stage = child_stage()
    news = ParentRewound("p", "e2")
    stage.run()
    stage.run(done(1), *([news] if when == "before" else []))
    stage.run(done(2))
    stage.run(raised("go"))
    stage.run(done(3), *([news] if when == "with" else []))
    if when == "after":
        stage.run(news)
    told = [("SubOrchestrationInstanceCompleted", "e2")]
    assert answers(stage) == ([("SubOrchestrationInstanceCompleted", "e1"), *told] if when == "after" else told)


def test_news_of_somebody_elses_parent_change_nothing() -> None:
    stage = child_stage()
    stage.run()
    stage.run(ParentRewound("another", "e2"))
    for inbox in ([done(1)], [done(2)], [raised("go")], [done(3)]):
        stage.run(*inbox)
    assert answers(stage) == [("SubOrchestrationInstanceCompleted", "e1")]


def test_children_that_are_open_are_to_be_seen_to_unless_their_answer_is_known() -> None:
    def main(ctx: OrchestrationContext) -> Any:
        first = ctx.call_sub_orchestrator("child")
        second = ctx.call_sub_orchestrator("child")
        yield ctx.call_sub_orchestrator("child")
        return [(yield first), (yield second)]

    stage = Stage(app_with(main))
    stage.run()
    stage.run(child_failed(3), SubOrchestrationInstanceCompleted(1, b"\x01"))
    cut = branches.rewound(history_of(stage), branches.before_failure(history_of(stage)))
    assert cut.facts == [SubOrchestrationInstanceCompleted(1, b"\x01")]
    assert [(call.task_id, call.instance_id) for call in cut.calls] == [(2, "i:0002"), (3, "i:0003")]
