"""What holds of every run of every program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from replayflow import HistoryEvent, Status
from replayflow.core.events import (
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EventRaised,
    ExecutionCompleted,
    ExecutionStarted,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskAttemptFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    ValueRecorded,
)
from replayflow.core.instance import Child, Instance
from replayflow.core.map.blocks import Calls
from replayflow.core.map.mapping import OpenMap, Tally
from replayflow.testing import check_history
from tests.core.driver import folded
from tests.properties import grammar
from tests.properties.driver import Run
from tests.properties.grammar import Program, nodes
from tests.properties.interpreter import ROOT, World, app_of
from tests.properties.model import Expected, expected


def check(program: Program, run: Run, *, is_killed: bool = False) -> Expected:
    """The run is one that the program can have: its result, its effects and its histories."""
    should_be = expected(run.program, run.world.choices)
    ends_as(should_be, run)
    effects_are_those_of(should_be, run, is_killed=is_killed)
    for history in run.histories:
        is_whole(history)
    for pieces in run.pieces:
        folds_alike(pieces)
    check_history(app_of(program, World()), run.export)
    return should_be


def ends_as(should_be: Expected, run: Run) -> None:
    if should_be.failure is None:
        assert (run.status, run.failure) == (Status.COMPLETED, None)
        assert run.output == should_be.seen
    else:
        assert run.status is Status.FAILED
        assert run.failure in should_be.failure
    assert run.custom_status == should_be.custom_status


def effects_are_those_of(should_be: Expected, run: Run, *, is_killed: bool) -> None:
    """What an entity does is done exactly once, what an activity does at least once: and once alone where no worker was killed."""
    world = run.world
    assert run.counted == should_be.counted
    for label, attempts in world.attempts.items():
        assert sorted(set(attempts)) == list(range(1, max(attempts) + 1)), f"{label}: attempts {attempts}"
        assert is_killed or len(set(attempts)) == len(attempts), f"{label} ran again: attempts {attempts}"
    for label in {label for label in {*world.undone, *should_be.undone} if is_of_root(label)}:
        undone = world.undone.get(label, [])
        assert list(dict.fromkeys(undone)) == should_be.undone.get(label, []), f"saga {label}: undone {undone}"
        assert is_killed or len(set(undone)) == len(undone)


def is_of_root(label: str) -> bool:
    """Whether it is the root itself: what became of children that nobody waited for, nobody knows."""
    return label.startswith(f"{ROOT}.") and label.count(".") == 2


# ---- histories -------------------------------------------------------------------------------------------------


def is_whole(history: list[HistoryEvent]) -> None:
    """Time goes forward; whatever was asked for has at most one answer, and no answer is without a question."""
    times = [event.timestamp for event in history]
    assert times == sorted(times)
    assert sum(isinstance(event, ExecutionStarted) for event in history) == 1
    assert sum(isinstance(event, ExecutionCompleted) for event in history) <= 1
    decisions = [event.event_id for event in history if event.is_decision and event.event_id > 0]
    assert decisions == sorted(decisions), "ids are in the order of the program"
    answered = Counter(answers(history))
    assert all(count == 1 for count in answered.values()), f"answered twice: {answered}"
    asked = set(questions(history))
    assert answered.keys() <= asked, f"answers without a question: {answered.keys() - asked}"
    attempts: dict[int, int] = {}
    for event in history:
        match event:
            case TaskAttemptFailed(task_scheduled_id=id, attempt=attempt):
                assert attempt == attempts.get(id, 0) + 1, f"attempt {attempt} of task {id} after {attempts.get(id)}"
                attempts[id] = attempt
            case TimerFired():
                assert event.timestamp >= event.fire_at
            case _:
                pass
    raised = Counter(event.input for event in history if isinstance(event, EventRaised))
    assert all(count == 1 for count in raised.values()), f"an event came twice: {raised}"


def questions(history: list[HistoryEvent]) -> Iterable[tuple[str, object]]:
    for event in history:
        match event:
            case TaskScheduled():
                yield "task", event.event_id
            case SubOrchestrationInstanceCreated():
                yield "child", event.event_id
            case TimerCreated():
                yield "timer", event.event_id
            case EntityOperationCalled():
                yield "operation", event.request_id
            case _:
                pass


def answers(history: list[HistoryEvent]) -> Iterable[tuple[str, object]]:
    for event in history:
        match event:
            case TaskCompleted() | TaskFailed():
                yield "task", event.task_scheduled_id
            case SubOrchestrationInstanceCompleted() | SubOrchestrationInstanceFailed():
                yield "child", event.task_scheduled_id
            case TimerFired():
                yield "timer", event.timer_id
            case EntityOperationCompleted() | EntityOperationFailed():
                yield "operation", event.request_id
            case _:
                pass


def folds_alike(pieces: list[list[HistoryEvent]]) -> None:
    """Folding a beginning and then the rest is folding the whole, event by event or in pieces (I1)."""
    whole = state_of(Instance().apply_all([event for piece in pieces for event in piece]))
    for middle in (0, len(pieces) // 2, len(pieces)):
        instance = Instance()
        instance.apply_pieces(pieces[:middle])
        instance.apply_pieces(pieces[middle:])
        assert state_of(instance) == whole
    one_by_one = Instance()
    for event in (event for piece in pieces for event in piece):
        one_by_one.apply(event)
    assert state_of(one_by_one) == whole


def state_of(instance: Instance) -> Any:
    """All that the instance is, maps and children too, for comparison."""
    return {name: spelled_out(value) for name, value in folded(instance).items()}


def spelled_out(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: spelled_out(one) for key, one in value.items()}
    if isinstance(value, OpenMap | Tally | Calls | Child):
        return {name: spelled_out(getattr(value, name)) for name in type(value).__slots__}
    return value


# ---- two runs of one program -----------------------------------------------------------------------------------


def are_alike(program: Program, one: Run, other: Run) -> None:
    """Two runs in which nothing was left to chance: they have decided the same, in the same order; and where a program does one thing after another,
    their histories are the same but for ids and times."""
    for first, second in zip(of_root(one), of_root(other), strict=True):
        assert [told(event) for event in first if event.is_decision] == [
            told(event) for event in second if event.is_decision
        ]
        if does_one_thing_at_a_time(program):
            assert [told(event) for event in first] == [told(event) for event in second]


def of_root(run: Run) -> list[list[HistoryEvent]]:
    def begins(history: list[HistoryEvent]) -> ExecutionStarted:
        return next(event for event in history if isinstance(event, ExecutionStarted))

    return [history for history in run.histories if begins(history).instance_id == ROOT]


def does_one_thing_at_a_time(program: Program) -> bool:
    side_by_side = (grammar.Start, grammar.Several, grammar.Map, grammar.Signal, grammar.Child, grammar.Locked)
    is_suspended = any(arrival.is_suspended for arrival in program.arrivals)
    return not is_suspended and not any(isinstance(node, side_by_side) for node in nodes(program))


def told(event: HistoryEvent) -> Any:
    """The event but for what no two runs have in common."""
    fields: dict[str, Any] = {name: getattr(event, name) for name in event.__struct_fields__}
    for name in ("execution_id", "instance_id", "critical_section_id", "parent_execution_id", "target_execution_id"):
        fields.pop(name, None)
    if (details := fields.get("failure_details")) is not None:
        fields["failure_details"] = details.type, details.message
    if isinstance(event, ValueRecorded) and event.name == "chances":
        del fields["value"]
    if isinstance(event, EntityOperationCompleted):
        del fields["output"]  # of an entity that others use, too
    return type(event).__name__, fields
