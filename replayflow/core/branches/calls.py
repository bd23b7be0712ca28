"""The sub-orchestrations that are open where a history ends, or was cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from replayflow.core.branches.history import Call, History
from replayflow.core.branches.results import answered
from replayflow.core.events import HistoryEvent, MapPage, MapProgress, MapRetried
from replayflow.core.instance import Instance
from replayflow.core.map import children as map_children
from replayflow.core.map.mapping import OpenMap


def running_calls(history: History) -> list[Call]:
    """The sub-orchestrations that no event of the history says to have ended."""
    return list(open_calls(history.fold(), ()))


def open_calls(fold: Instance, facts: Iterable[HistoryEvent]) -> Iterator[Call]:
    ended = {answered(event) for event in facts}
    for id, child in fold.children.items():
        if id not in ended:
            yield Call(id, child.instance_id, child.execution_id, child.created)
    for open in fold.maps.values():
        yield from _open_calls_of(fold, open, facts)


def calls_of_map(kept: Instance, open: OpenMap, history: History, facts: Sequence[HistoryEvent]) -> Iterator[Call]:
    """As `_open_calls_of`, with the children that began after the cut and failed; what is told of each is as the whole history has it."""
    whole = OpenMap(open.scheduled)
    failed: set[int] = set()
    for event in (event for piece in history.pieces for event in piece):
        if isinstance(event, MapProgress | MapPage | MapRetried) and event.task_scheduled_id == open.id:
            whole.apply(event, 0)
        if isinstance(event, MapProgress) and event.task_scheduled_id == open.id:
            failed.update(one.number for one in event.failures if one.retry_at_microseconds is None)
    for call in _open_calls_of(kept, open, facts):
        call.is_stopped = whole.is_closed and call.number not in failed
        yield call
        failed.discard(call.number or 0)
    started = kept.started
    assert started is not None  # noqa: S101 - what has a map has started
    for number in sorted(failed):
        if 0 <= number < len(open.settled) and not open.settled[number]:
            yield Call(open.id, *map_children.identity(started, open, number), number=number, had_its_turn=False)


def _open_calls_of(fold: Instance, open: OpenMap, facts: Iterable[HistoryEvent]) -> Iterator[Call]:
    started = fold.started
    assert started is not None  # noqa: S101 - what has a map has started
    ended: set[int] = set()
    for event in facts:
        if isinstance(event, MapProgress) and event.task_scheduled_id == open.id:
            ended.update(event.numbers)
            ended.update(failure.number for failure in event.failures)
    for number in sorted(open.at_work - ended):
        yield Call(open.id, *map_children.identity(started, open, number), number=number)
