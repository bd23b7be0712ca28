"""The laws of patches, on the random orchestrators of `test_replay_laws`: what ran goes on as it was, what begins is new, and no id moves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayflow import InvalidArgumentError, OrchestrationContext
from replayflow.core.events import HistoryEvent, PatchMarked
from tests.core.driver import SECOND, Stage, app_with, done, folded, open_ids, raised, successor
from tests.core.test_replay_laws import SETTINGS, Step, app_of_program, play, programs, standing

PATCH = "the patch"
WAITING: Step = ("yield", ("event", "never", None))


def patched(program: list[Step], new: list[Step], data: st.DataObject) -> list[Step]:
    """The program with a patch at some place: the old branch is a stretch of what was there."""
    inner = [n for n, step in enumerate(program) if step[0] in ("loop", "try", "helper")]
    goes_in: bool = data.draw(st.booleans(), "within")
    if inner and goes_in:
        n = data.draw(st.sampled_from(inner), "block")
        *head, below = program[n]
        return [*program[:n], (*head, patched(below, new, data)), *program[n + 1 :]]
    begin = data.draw(st.integers(0, len(program)), "begin")
    end = data.draw(st.integers(begin, len(program)), "end")
    return [*program[:begin], ("patch", PATCH, new, program[begin:end]), *program[end:]]


def flat(stage: Stage) -> list[HistoryEvent]:
    return [event for piece in stage.history() for event in piece]


def marks(stage: Stage) -> list[str]:
    return [event.name for event in flat(stage) if isinstance(event, PatchMarked)]


def numbered(event: HistoryEvent) -> tuple[object, ...]:
    """The event but for lines and stacks, which the patch moves."""
    return type(event), event.event_id, getattr(event, "name", None), getattr(event, "task_scheduled_id", None)


@SETTINGS
@given(programs, programs, st.data())
def test_every_prefix_of_an_old_history_replays_under_the_patched_code_to_where_it_was(
    program: list[Step], new: list[Step], data: st.DataObject
) -> None:
    edited = patched(program, new, data)
    with Stage(app_of_program(program)) as old, Stage(app_of_program(edited)) as now:
        play(old, data)
        now.pieces = old.pieces
        for n in range(1, len(old.pieces) + 1):
            assert standing(now.replayed(n)) == standing(old.replayed(n))


@SETTINGS
@given(programs, programs, st.data())
def test_an_instance_that_goes_on_under_patched_code_has_a_history_that_replays(
    program: list[Step], new: list[Step], data: st.DataObject
) -> None:
    """It takes the new branch where it had not come to the place, and the old one where it had; and keeps to that."""
    edited = patched([*program, WAITING], new, data)
    with Stage(app_of_program([*program, WAITING])) as old, Stage(app_of_program(edited), always_cold=True) as now:
        play(old, data, rounds=4, cancels=False)
        now.pieces, now.now, now.row = list(old.pieces), old.now, old.row
        for piece in now.history():
            now.instance.apply_all(piece)
        if now.instance.is_finished:
            return
        rounds = 0
        while rounds < 4 and not now.instance.status.is_finished:
            rounds += 1
            open = [done(id, 1) for id in now.instance.tasks] + [raised("alpha", 1), raised("beta", 2)]
            now.run(*data.draw(st.lists(st.sampled_from(open), min_size=1, max_size=3), "inbox"), later=SECOND)
        assert len(marks(now)) <= 1
        now.replayed()


@SETTINGS
@given(programs, programs, st.data())
def test_new_executions_take_the_new_branch_and_warm_and_cold_ones_agree(
    program: list[Step], new: list[Step], data: st.DataObject
) -> None:
    edited = patched(program, new, data)
    with Stage(app_of_program(edited)) as warm, Stage(app_of_program(edited), always_cold=True) as cold:
        inboxes = play(warm, data)
        for n, inbox in enumerate(inboxes):
            cold.run(*inbox, later=SECOND if n else 0)
        assert cold.flat() == warm.flat()
        assert folded(cold.instance) == folded(warm.instance)
        assert warm.replay.decisions.patches.get(PATCH) in (None, True)
        assert marks(warm) == ([PATCH] if PATCH in warm.replay.decisions.patches else [])


@SETTINGS
@given(programs, st.data())
def test_a_mark_moves_no_id(program: list[Step], data: st.DataObject) -> None:
    """With the same code in both branches the histories are the same but for the marks."""
    place = data.draw(st.integers(0, len(program)), "place")
    edited: list[Step] = [*program[:place], ("patch", PATCH, program[place:], program[place:])]
    with Stage(app_of_program(program)) as plainly, Stage(app_of_program(edited)) as marked:
        for n, inbox in enumerate(play(plainly, data)):
            marked.run(*inbox, later=SECOND if n else 0)
        unmarked = [event for event in flat(marked) if not isinstance(event, PatchMarked)]
        assert [numbered(event) for event in unmarked] == [numbered(event) for event in flat(plainly)]


@SETTINGS
@given(programs, programs, st.data())
def test_who_has_the_mark_goes_on_when_the_call_and_the_old_branch_are_gone(
    program: list[Step], new: list[Step], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(program)), "place")
    edited: list[Step] = [*program[:place], ("patch", PATCH, new, program[place:])]
    with (
        Stage(app_of_program(edited)) as both,
        Stage(app_of_program([*program[:place], *new])) as cleaned,
    ):
        play(both, data)
        cleaned.pieces = both.pieces
        for n in range(1, len(both.pieces) + 1):
            assert open_ids(cleaned.replayed(n)) == open_ids(both.replayed(n))


# ---- by hand -------------------------------------------------------------------------------------------------


def test_the_first_answer_counts_for_the_whole_execution_and_the_next_asks_anew() -> None:
    answers: list[bool] = []

    def before(ctx: OrchestrationContext) -> Any:
        for _ in range(3):
            yield ctx.wait_for_external_event("go")
        ctx.continue_as_new()

    def after(ctx: OrchestrationContext) -> Any:
        for _ in range(3):
            yield ctx.wait_for_external_event("go")
            answers.append(ctx.patched("p"))
        ctx.continue_as_new()

    with Stage(app_with(before)) as old, Stage(app_with(after)) as now:
        old.run()
        old.run(raised("go"))
        now.pieces, now.instance, now.row = old.pieces, old.instance, old.row
        now.replay = now.replayed()
        now.run(raised("go"))
        now.run(raised("go"))
        assert answers == [False, False, False]
        with successor(now) as following:
            following.run()
            following.run(raised("go"))
            assert answers[3:] == [True]


def test_an_instance_that_has_not_come_to_the_place_takes_the_new_branch() -> None:
    def before(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity("first")
        yield ctx.call_activity("second")

    def after(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity("first")
        yield ctx.call_activity("better" if ctx.patched("p") else "second")

    with Stage(app_with(before)) as old, Stage(app_with(after)) as now:
        old.run()
        now.pieces, now.instance = list(old.pieces), old.instance
        now.replay = now.replayed()
        now.run(done(1))
        assert now.kinds() == ["TaskCompleted", "PatchMarked", "TaskScheduled"]
        assert now.instance.tasks[2].name == "better"
        mark = now.history()[-1][2]
        assert isinstance(mark, PatchMarked)
        assert (mark.event_id, mark.name) == (-1, "p")
        assert mark.site.startswith("core/test_patch_laws.py:")


@pytest.mark.parametrize("name", ["", "x" * 257, "\ud800", 7, None])
def test_a_patch_has_a_name(name: Any) -> None:
    def main(ctx: OrchestrationContext) -> Any:
        with pytest.raises(InvalidArgumentError, match="no name of a patch"):
            ctx.patched(name)
        return "refused"

    with Stage(app_with(main)) as stage:
        stage.run()
        assert stage.result() == "refused"
        assert marks(stage) == []
