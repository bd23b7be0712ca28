"""A history in two: what is kept of it, and what is left to be told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from msgspec.structs import replace

from replayflow.core.branches.calls import calls_of_map
from replayflow.core.branches.history import Cut, History, Piece
from replayflow.core.branches.telling import answer_operations, tell
from replayflow.core.events import ExecutionCompleted, HistoryEvent, MapProgress, ParentRewound


def rewound(history: History, piece: int, came: Sequence[HistoryEvent] = ()) -> Cut:
    """The pieces before that one are kept; of the others, and of what `came` since, results of what is open then come again, failures do not: what
    failed is open once more."""
    kept = History(list(history.start), copied(history.pieces[:piece]))
    fold = kept.fold()
    kept.pieces = _without_failures(kept.pieces, fold.maps)
    cut = Cut(kept, history.number_of(piece))
    rest = [*(event for one in history.pieces[piece:] for event in one), *came]
    fold = kept.fold()
    tell(cut, fold, rest, keeps_failures=False)
    answer_operations(cut, ())
    cut.calls = [call for call in cut.calls if call.number is None]
    for open in fold.maps.values():
        if open.scheduled.is_orchestrator:
            cut.calls += calls_of_map(fold, open, history, cut.facts)
    return cut


def forked(history: History, number: int) -> Cut:
    """What had happened up to the event, and itself, is kept, or comes again where the event is not the last of its episode."""
    index, up_to = history.place_of(number)
    end = next((i for i, piece in enumerate(history.pieces) if any(map(_is_end, piece))), index)
    if index > end:  # what came after the end
        index, up_to = end, len(history.pieces[end])
    whole = bool(history.pieces) and up_to == len(history.pieces[index])
    if whole and index == end and any(map(_is_end, history.pieces[end])):
        whole = False  # the end is decided anew, too
    cut = Cut(History(list(history.start), copied(history.pieces[: index + whole])), number + 1)
    rest = history.pieces[index][:up_to] if history.pieces and not whole else []
    tell(cut, cut.kept.fold(), rest, keeps_failures=True)
    later = [event for one in history.pieces[index:] for event in one]
    answer_operations(cut, later)
    return cut


def copied(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces as another execution has them: the events are the same, but for what concerned the execution alone. Payloads are shared."""
    return [[event for event in piece if not isinstance(event, ParentRewound)] for piece in pieces]


def _without_failures(pieces: list[Piece], open: Collection[int]) -> list[Piece]:
    """The pieces without the failures of calls that failed for good in maps that are open: those run again, as if for the first time."""
    lost = {
        (event.task_scheduled_id, failure.number)
        for piece in pieces
        for event in piece
        if isinstance(event, MapProgress) and event.task_scheduled_id in open
        for failure in event.failures
        if failure.retry_at_microseconds is None
    }
    if not lost:
        return pieces
    left: list[Piece] = []
    for piece in pieces:
        changed: Piece = []
        for event in piece:
            if isinstance(event, MapProgress):
                failures = [one for one in event.failures if (event.task_scheduled_id, one.number) not in lost]
                if not event.numbers and not failures:
                    continue
                changed.append(replace(event, failures=failures))
            else:
                changed.append(event)
        if len(changed) > 1 or not left:  # the code begins in the first, whatever came then
            left.append(changed)
    return left


def _is_end(event: HistoryEvent) -> bool:
    return isinstance(event, ExecutionCompleted)
