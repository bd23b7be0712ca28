"""Tasks and composites, against a naive model that looks at everything again after each step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replayflow.core.decisions import Decisions
from replayflow.core.tasks import ActivityTask, Pending, Task, complete, race, when_all, when_any
from replayflow.errors import (
    ActivityError,
    FailureDetails,
    InvalidArgumentError,
    NotATaskError,
    OrchestratorError,
    TaskCanceledError,
)

DEPTH = 1_000


class Abandoned(Decisions):
    """A ledger that tells of the activities that nobody waits for any longer."""

    def __init__(self, abandoned: Callable[[Any], None]) -> None:
        super().__init__("i")
        self._abandoned = abandoned

    def abandon_task(self, task: Pending[Any]) -> None:
        self._abandoned(task)


def leaf(id: int = 1, abandoned: Callable[[Any], None] = lambda _: None) -> ActivityTask[Any]:
    return ActivityTask(id, "leaf", None, Abandoned(abandoned))


def failure(id: int) -> ActivityError:
    return ActivityError(f"leaf {id}", FailureDetails("ValueError", str(id)))


# ---- the naive model ---------------------------------------------------------------------------------------


@dataclass(eq=False)
class Model:
    """A task of the model: it knows when it ended (by step), and how."""

    kind: str
    children: list[Model] = field(default_factory=list)
    ended_at: int | None = None
    error: object = None
    winner: Model | None = None

    @property
    def is_complete(self) -> bool:
        return self.ended_at is not None


def look(model: Model, step: int, *, is_new: bool = False) -> None:
    """Ends the composite if its children say so."""
    if model.is_complete or model.kind == "leaf":
        return
    ended = [child for child in model.children if child.is_complete]
    broken = [child for child in ended if child.error is not None]
    if model.kind in ("all", "fail_fast"):
        if len(ended) < len(model.children) and not (model.kind == "fail_fast" and broken):
            return
        model.error = broken[0].error if broken else None
    elif not ended:
        return
    else:
        model.winner = ended[0] if is_new else min(ended, key=lambda child: child.ended_at or 0)
        model.error = model.winner.error if model.kind == "race" else None
    model.ended_at = step


Tree = tuple[str, tuple[Any, ...]] | int


def trees(leaves: int) -> st.SearchStrategy[Tree]:
    def grow(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
        some = st.lists(children, min_size=1, max_size=4).map(tuple)
        perhaps_none = st.lists(children, max_size=4).map(tuple)
        return st.tuples(st.sampled_from(["all", "fail_fast"]), perhaps_none) | st.tuples(st.just("any"), some)

    return st.recursive(st.integers(0, leaves - 1), grow, max_leaves=14)


MAKERS: dict[str, Callable[[list[Task[Any]]], Task[Any]]] = {
    "all": when_all,
    "fail_fast": lambda tasks: when_all(tasks, fail_fast=True),
    "any": when_any,
    "race": race,
}


def build(tree: Tree, leaves: list[ActivityTask[Any]], models: list[Model]) -> list[tuple[Task[Any], Model]]:
    """Every composite of the tree with its model, children first; the last is the whole."""
    made: list[tuple[Task[Any], Model]] = []

    def grow(node: Tree) -> tuple[Task[Any], Model]:
        if isinstance(node, int):
            return leaves[node], models[node]
        kind, below = node
        grown = [grow(child) for child in below]
        pair = MAKERS[kind]([task for task, _ in grown]), Model(kind, [model for _, model in grown])
        made.append(pair)
        return pair

    grow(tree)
    return made


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_composites_end_as_a_naive_model_says(data: st.DataObject) -> None:
    """Trees of when_all, fail_fast and when_any, with shared, repeated and already complete children and empty lists."""
    count = data.draw(st.integers(1, 6))
    leaves = [leaf(id) for id in range(count)]
    models = [Model("leaf") for _ in range(count)]
    order = data.draw(st.permutations(range(count)))
    outcomes = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    early = data.draw(st.integers(0, count))

    def end(id: int, step: int) -> None:
        error = None if outcomes[id] else failure(id)
        complete(leaves[id], id, error)
        models[id].ended_at, models[id].error = step, error

    for step, id in enumerate(order[:early]):
        end(id, step)
    made = build(data.draw(trees(count)), leaves, models)
    for _, model in made:
        look(model, early, is_new=True)
    compare(made, early)
    for step, id in enumerate(order[early:], early + 1):
        end(id, step)
        for _, model in made:  # children stand before the composites that have them
            look(model, step)
        compare(made, early)


def compare(made: list[tuple[Task[Any], Model]], built_at: int) -> None:
    known = {id(task): model for task, model in made}
    for task, model in made:
        assert task.is_complete == model.is_complete
        if not task.is_complete:
            assert task.exception is None
            continue
        if model.kind == "any":
            winner = known.get(id(task.result))
            if winner is not None:
                assert winner in model.children
                assert model.winner is not None
                if model.ended_at == built_at:
                    assert winner is model.winner
                else:
                    assert winner.ended_at == model.winner.ended_at, "of several that ended at one time any may win"
            assert task.result.is_complete
            assert not task.is_failed
        elif model.error is None:
            assert task.result is not None
            assert len(task.result) == len(model.children)
        elif model.kind == "all":
            assert task.exception is model.error
        else:
            assert task.is_failed


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_race_has_one_winner_and_every_loser_is_cancelled(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    gone: list[int] = []
    leaves = [leaf(id, lambda task: gone.append(task.id)) for id in range(count)]
    models = [Model("leaf") for _ in range(count)]
    inner = build(data.draw(trees(count)), leaves, models)
    below = [pair[0] for pair in inner[-1:]] + [leaves[i] for i in data.draw(st.permutations(range(count)))]
    whole = race(below)
    first = data.draw(st.integers(0, count - 1))
    if not whole.is_complete:
        complete(leaves[first], first)
        assert whole.is_complete
    assert all(task.is_complete for task in leaves)
    assert all(isinstance(leaves[id].exception, TaskCanceledError) for id in gone)
    assert len(gone) == len(set(gone)), "a loser is cancelled once"


# ---- laws by example ---------------------------------------------------------------------------------------


def test_when_all_of_nothing_is_complete_with_nothing() -> None:
    assert when_all([]).is_complete
    assert when_all([]).result == []
    assert when_all([], fail_fast=True).result == []


@pytest.mark.parametrize("make", [when_any, race])
def test_when_any_of_nothing_is_a_value_error_at_the_call(make: Callable[[list[Task[Any]]], object]) -> None:
    with pytest.raises(ValueError, match="would wait for ever"):
        make([])
    with pytest.raises(InvalidArgumentError):
        make([])


def test_when_all_waits_for_all_and_raises_the_first_failure_in_list_order_with_every_one() -> None:
    tasks = [leaf(id) for id in range(4)]
    whole = when_all(tasks)
    errors = [failure(id) for id in range(4)]
    complete(tasks[3], None, errors[3])
    complete(tasks[1], None, errors[1])
    complete(tasks[0], "zero")
    assert not whole.is_complete
    complete(tasks[2], "two")
    assert whole.exception is errors[1]
    assert errors[1].failures == [errors[1], errors[3]]


def test_fail_fast_raises_at_the_first_failure() -> None:
    tasks = [leaf(id) for id in range(3)]
    whole = when_all(tasks, fail_fast=True)
    complete(tasks[2], None, error := failure(2))
    assert whole.exception is error
    complete(tasks[0], None, failure(0))
    assert whole.exception is error, "a task never changes once it is complete"
    assert not tasks[1].is_complete, "the others go on"


def test_fail_fast_of_tasks_that_have_failed_already_is_complete_at_once() -> None:
    tasks = [leaf(1), leaf(2)]
    complete(tasks[1], None, error := failure(2))
    assert when_all(tasks, fail_fast=True).exception is error


def test_when_any_returns_the_winner_failed_or_not_and_losers_stay_live() -> None:
    tasks = [leaf(1), leaf(2)]
    whole = when_any(tasks)
    complete(tasks[1], None, failure(2))
    assert whole.result is tasks[1]
    assert not whole.is_failed
    assert not tasks[0].is_complete
    complete(tasks[0], "late")
    assert tasks[0].result == "late"
    assert whole.result is tasks[1]


def test_when_any_of_complete_tasks_takes_the_first_in_the_list() -> None:
    tasks = [leaf(1), leaf(2), leaf(3)]
    complete(tasks[2], 3)
    complete(tasks[1], 2)
    assert when_any(tasks).result is tasks[1]


def test_race_returns_or_raises_what_the_winner_does() -> None:
    won, lost = leaf(1), leaf(2)
    whole = race([lost, won])
    complete(won, "first")
    assert whole.result == "first"
    assert isinstance(lost.exception, TaskCanceledError)
    broken = leaf(3)
    whole = race([broken, leaf(4)])
    complete(broken, None, error := failure(3))
    assert whole.exception is error


def test_a_task_may_stand_in_a_list_twice() -> None:
    task, other = leaf(1), leaf(2)
    both = when_all([task, task, other])
    complete(task, 1)
    assert not both.is_complete
    complete(other, 2)
    assert both.result == [1, 1, 2]
    twin = leaf(3)
    twins = race([twin, twin])
    complete(twin, 3)
    assert twins.result == 3


def test_composites_share_children() -> None:
    shared, alone = leaf(1), leaf(2)
    whole, some = when_all([shared, alone]), when_any([shared, alone])
    nested = when_all([whole, some])
    complete(shared, 1)
    assert some.result is shared
    assert not whole.is_complete
    complete(alone, 2)
    assert nested.result == [[1, 2], shared]


@pytest.mark.parametrize("kind", MAKERS)
def test_nesting_has_no_depth_limit(kind: str) -> None:
    assert sys.getrecursionlimit() < 5 * DEPTH
    bottom = leaf(1)
    task: Task[Any] = bottom
    for _ in range(DEPTH):
        task = MAKERS[kind]([task])
    complete(bottom, "deep")
    assert task.is_complete
    value: Any = task.result
    while isinstance(value, list) and value:
        (value,) = value
    while isinstance(value, Task):
        value = value.result
    assert value == "deep"


@pytest.mark.parametrize("kind", MAKERS)
def test_cancelling_has_no_depth_limit(kind: str) -> None:
    gone: list[int] = []
    task: Task[Any] = leaf(0, lambda task: gone.append(task.id))
    for id in range(1, DEPTH):
        task = MAKERS[kind]([leaf(id, lambda task: gone.append(task.id)), task])
    assert task.cancel()
    assert sorted(gone) == list(range(DEPTH))
    assert isinstance(task.exception, TaskCanceledError)


def test_losers_of_a_race_that_are_races_a_thousand_deep_are_cancelled() -> None:
    gone: list[int] = []
    task: Task[Any] = leaf(0, lambda task: gone.append(task.id))
    for id in range(1, DEPTH):
        task = race([leaf(id, lambda task: gone.append(task.id)), task])
    winner = leaf(DEPTH)
    whole = race([task, winner])
    complete(winner, "won")
    assert whole.result == "won"
    assert sorted(gone) == list(range(DEPTH))


def test_cancelling_a_task_completes_it_and_its_result_raises() -> None:
    gone: list[int] = []
    task = leaf(1, lambda task: gone.append(task.id))
    assert task.cancel()
    assert not task.cancel()
    assert gone == [1]
    with pytest.raises(TaskCanceledError, match="leaf"):
        _ = task.result


def test_cancelling_a_complete_task_returns_false_and_changes_nothing() -> None:
    task = leaf(1)
    complete(task, "there")
    assert not task.cancel()
    assert task.result == "there"


def test_a_task_without_a_result_says_what_to_do() -> None:
    with pytest.raises(OrchestratorError, match="yield it"):
        _ = leaf(1).result
    with pytest.raises(OrchestratorError, match="has no result yet"):
        _ = when_all([leaf(1)]).result


@pytest.mark.parametrize("make", [when_all, when_any, race])
def test_composites_are_made_of_tasks_alone(make: Callable[[Any], object]) -> None:
    with pytest.raises(NotATaskError, match="item 1"):
        make([leaf(1), "no task"])
    with pytest.raises(NotATaskError, match="takes a list of tasks"):
        make(leaf(1))
    assert make(task for task in [leaf(1)])
