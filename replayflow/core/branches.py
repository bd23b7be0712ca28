"""Where a history can be cut, and what an execution that begins with the first part of it is made of. `docs/decisions/0012-rewind-and-fork.md` has
the whole in prose.

1. What is kept of the past is kept piece by piece: of an episode that is cut in two nothing is kept but what came from outside, which comes again,
   and is decided upon by the code at hand (I2).
2. A cut never lies inside a saga that has been undone, or between the locks of a critical section and their release: what such a part did is
   no longer as its code believes.
3. What is kept is copied in `copied`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from replayflow.core import events, origins
from replayflow.core.events import (
    Decided,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EventRaised,
    ExecutionCancelRequested,
    ExecutionCompleted,
    ExecutionForked,
    ExecutionResumed,
    ExecutionRewound,
    ExecutionStarted,
    HistoryEvent,
    MapPage,
    MapProgress,
    MapRetried,
    OrchestratorStarted,
    ParentRewound,
    Payload,
    SagaUndone,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TimerCanceled,
    TimerFired,
    describe,
)
from replayflow.core.instance import Instance, Status
from replayflow.core.map import children as map_children
from replayflow.core.map.mapping import OpenMap
from replayflow.errors import FailureDetails, InvalidArgumentError, InvalidStateError

_FAILURES = (TaskFailed, SubOrchestrationInstanceFailed, EntityOperationFailed)
_MARKS = (ExecutionRewound, ExecutionForked)
_CLEARING = (TimerCanceled, TaskCanceled)
Piece = list[HistoryEvent]


@dataclass(slots=True)
class History:
    """The history of one execution: what it began with, and its pieces, each with the time of its episode at the head.

    Events are numbered as `Instance.history()` yields them, from 1: those of the start stand behind the time of the first piece.
    """

    start: list[HistoryEvent]
    pieces: list[Piece]

    @property
    def started(self) -> ExecutionStarted:
        first = self.start[0]
        assert isinstance(first, ExecutionStarted)  # noqa: S101 - every execution begins with it
        return first

    @property
    def count(self) -> int:
        """How many events there are."""
        return len(self.start) + sum(map(len, self.pieces))

    def number_of(self, piece: int) -> int:
        """The number of the piece's first event."""
        return 1 + sum(map(len, self.pieces[:piece])) + (len(self.start) if piece else 0)

    def place_of(self, number: int) -> tuple[int, int]:
        """The piece that has the event, and how many events of the piece come up to it, itself included. Those of the start are none of its own."""
        if not 1 <= number <= self.count:
            raise InvalidArgumentError(
                f"event {number}: the history of instance '{self.started.instance_id}' has events 1 to {self.count}; "
                "`replayflow history` numbers them"
            )
        first, index = 1, 0
        for index, piece in enumerate(self.pieces):
            following = first + len(piece) + (0 if index else len(self.start))
            if number < following:
                break
            first = following
        up_to = number - first + 1
        if index == 0:
            up_to = max(1, up_to - len(self.start))
        return index, up_to

    def fold(self, started: ExecutionStarted | None = None) -> Instance:
        """What the instance came to; with `started` as an execution that began so would be."""
        instance = Instance()
        start = self.start if started is None else [started, *self.start[1:]]
        if not self.pieces:
            return instance
        first = self.pieces[0]
        instance.apply_pieces([[first[0], *start, *first[1:]], *self.pieces[1:]])
        return instance


@dataclass(slots=True)
class Call:
    """A sub-orchestration that is open where a history was cut: who is at it, and of what it is a call."""

    task_id: int
    instance_id: str
    execution_id: str
    created: SubOrchestrationInstanceCreated | None = None
    number: int | None = None
    """The number of the call, where the task is a map."""
    is_stopped: bool = False
    """Whether it was asked to end, when its map was over."""
    had_its_turn: bool = True
    """False for a call of a map that began after the cut, and begins again when it is its turn."""

    def answer(self, output: Payload) -> HistoryEvent:
        """What its parent is told where it has completed with the output."""
        if self.number is not None:
            return MapProgress(self.task_id, [self.number], [output], [])
        return SubOrchestrationInstanceCompleted(self.task_id, output)

    def is_at(self, started: ExecutionStarted, parent_id: str) -> bool:
        """Whether the instance that began so is the child that was called here."""
        parent = started.parent_instance
        return parent is not None and (parent.instance_id, parent.task_scheduled_id, parent.number) == (
            parent_id,
            self.task_id,
            self.number,
        )


@dataclass(slots=True)
class Cut:
    """The first part of a history, and what the rest of it leaves to be told once more."""

    kept: History
    event: int
    """The number of the first event that was left out."""
    facts: list[HistoryEvent] = field(default_factory=list)
    """What came from outside and is still wanted, in order."""
    asks: list[EntityOperationCalled] = field(default_factory=list)
    """Operations that failed, and changed nothing: they are asked for again."""
    calls: list[Call] = field(default_factory=list)
    """Sub-orchestrations whose end is not among the facts."""

    def origins(self, source: ExecutionStarted) -> list[events.Origin] | None:
        """Whose past it is; None where there is none."""
        if not self.kept.pieces:
            return None
        last = self.kept.pieces[-1][0]
        assert isinstance(last, OrchestratorStarted)  # noqa: S101 - every piece begins with its time
        return origins.prolonged(source, last.now_microseconds, _last_id(self.kept.pieces))


# ---- where to cut ----------------------------------------------------------------------------------------------


def before_failure(history: History) -> int:
    """The piece in which the failure was delivered that ended the execution; of failures that came while the code waited, the first."""
    end, details = _end_of(history)
    chain = list(details.chain())
    causes = [i for i in range(end + 1) if any(d in chain for d in _failures(history.pieces[i]))]
    piece = causes[-1] if causes else end
    earlier = piece - 1
    while earlier >= 0 and _is_quiet(history.pieces[earlier]):
        if _failures(history.pieces[earlier]):
            piece = earlier
        earlier -= 1
    return _before_undone(history, piece)


def before_event(history: History, number: int) -> int:
    """The piece that has the event.

    Raises:
        InvalidArgumentError: there is no such event.
        InvalidStateError: it lies inside a saga that has been undone since.
    """
    end, _ = _end_of(history)
    piece = min(history.place_of(number)[0], end)
    before = _before_undone(history, piece)
    if before != piece:
        raise InvalidStateError(
            f"instance '{history.started.instance_id}', event {number}: it lies inside a saga that was undone later, which began with event "
            f"{history.number_of(before)}: name that or an earlier one"
        )
    return piece


def _end_of(history: History) -> tuple[int, FailureDetails]:
    for index in reversed(range(len(history.pieces))):
        for event in history.pieces[index]:
            if isinstance(event, ExecutionCompleted) and event.failure_details is not None:
                return index, event.failure_details
    raise InvalidStateError(f"instance '{history.started.instance_id}' has no failure in its history")


def _failures(piece: Piece) -> list[FailureDetails]:
    """The failures, for good, that the episode took in."""
    found: list[FailureDetails] = []
    for event in piece:
        if isinstance(event, _FAILURES):
            found.append(event.failure_details)
        elif isinstance(event, MapProgress):
            found += [one.failure_details for one in event.failures if one.retry_at_microseconds is None]
    return found


def _is_quiet(piece: Piece) -> bool:
    """Whether the code went on waiting in the episode: it decided nothing, but that what it waited for in vain was cleared away."""
    return not any(
        (event.is_decision and not isinstance(event, _CLEARING)) or isinstance(event, _MARKS) for event in piece
    )


def _before_undone(history: History, piece: int) -> int:
    """The piece, or the first of a saga that was undone after it: what a saga did is there as a whole, or not at all."""
    while True:
        undone = [e.first_id for later in history.pieces[piece:] for e in later if isinstance(e, SagaUndone)]
        first = min(undone, default=None)
        begun = next(
            (i for i, p in enumerate(history.pieces) if first is not None and _has_asked_since(p, first)), piece
        )
        if begun >= piece:
            return piece
        piece = begun


def _has_asked_since(piece: Piece, first_id: int) -> bool:
    return any(isinstance(event, Decided) and event.event_id >= first_id for event in piece)


# ---- cutting ---------------------------------------------------------------------------------------------------


def rewound(history: History, piece: int, came: Sequence[HistoryEvent] = ()) -> Cut:
    """The pieces before that one are kept; of the others, and of what `came` since, results of what is open then come again, failures do not: what
    failed is open once more."""
    kept = History(list(history.start), copied(history.pieces[:piece]))
    fold = kept.fold()
    kept.pieces = _without_failures(kept.pieces, fold.maps)
    cut = Cut(kept, history.number_of(piece))
    rest = [*(event for one in history.pieces[piece:] for event in one), *came]
    fold = kept.fold()
    _tell(cut, fold, rest, keeps_failures=False)
    _answer_operations(cut, ())
    cut.calls = [call for call in cut.calls if call.number is None]
    for open in fold.maps.values():
        if open.scheduled.is_orchestrator:
            cut.calls += _calls_of_map(fold, open, history, cut.facts)
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
    _tell(cut, cut.kept.fold(), rest, keeps_failures=True)
    later = [event for one in history.pieces[index:] for event in one]
    _answer_operations(cut, later)
    return cut


def copied(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces as another execution has them: the events are the same, but for what concerned the execution alone. Payloads are shared."""
    return [[event for event in piece if not isinstance(event, ParentRewound)] for piece in pieces]


def edited(cut: Cut, results: dict[int, Payload]) -> None:
    """The tasks have these results: in the place of what they came to, or, where they are open, as the first thing that is told.

    Raises:
        InvalidArgumentError: one of them is no task of the history that has a result.
    """
    missing = dict(results)
    for piece in [*cut.kept.pieces, cut.facts]:
        for index, event in enumerate(piece):
            id = _answered(event)
            if id is not None and id in results:
                piece[index] = _answer_like(event, id, results[id])
                missing.pop(id, None)
    fold = cut.kept.fold()
    for id in list(missing):
        if id in fold.tasks:
            cut.facts.append(TaskCompleted(id, missing.pop(id)))
        elif id in fold.children:
            cut.facts.append(SubOrchestrationInstanceCompleted(id, missing.pop(id)))
            cut.calls = [call for call in cut.calls if call.task_id != id]
    if missing:
        raise InvalidArgumentError(
            f"task {min(missing)}: what is kept of the history of instance '{cut.kept.started.instance_id}' has no activity, sub-orchestration or "
            "operation with that id, whose result could be another; `replayflow history` shows the ids of tasks"
        )


def event_with_result(history: History, task_id: int) -> int | None:
    """The number of the event with which the task ended; None where none has."""
    for index, piece in enumerate(history.pieces):
        for place, event in enumerate(piece):
            if _answered(event) == task_id:
                return history.number_of(index) + place + (0 if index else len(history.start))
    return None


# ---- what comes again ------------------------------------------------------------------------------------------


def _tell(cut: Cut, fold: Instance, rest: Sequence[HistoryEvent], *, keeps_failures: bool) -> None:
    _refuse_open_section(cut, fold)
    asked = _open_operations(cut)
    if fold.status is Status.SUSPENDED and not keeps_failures:
        cut.facts.append(ExecutionResumed())
    for event in rest:
        match event:
            case TaskCompleted() if event.task_scheduled_id in fold.tasks:
                cut.facts.append(event)
            case SubOrchestrationInstanceCompleted() if event.task_scheduled_id in fold.children:
                cut.facts.append(event)
            case TaskFailed() if keeps_failures and event.task_scheduled_id in fold.tasks:
                cut.facts.append(event)
            case SubOrchestrationInstanceFailed() if keeps_failures and event.task_scheduled_id in fold.children:
                cut.facts.append(event)
            case MapProgress() if event.task_scheduled_id in fold.maps:
                failures = event.failures if keeps_failures else []
                if event.numbers or failures:
                    cut.facts.append(replace(event, failures=failures))
            case MapPage() if event.task_scheduled_id in fold.maps:
                cut.facts.append(event)
            case TimerFired() if event.timer_id in fold.timers:
                cut.facts.append(event)
            case EntityOperationCompleted() if event.request_id in asked:
                cut.facts.append(event)
            case EntityOperationFailed() if event.request_id in asked:
                if keeps_failures:
                    cut.facts.append(event)
                else:
                    cut.asks.append(asked[event.request_id])
            case EventRaised() | ExecutionCancelRequested():
                cut.facts.append(event)
            case _:
                pass
    cut.calls = list(_open_calls(fold, cut.facts))


def _open_operations(cut: Cut) -> dict[str, EntityOperationCalled]:
    """The operations of entities that have no answer in what is kept, by request."""
    asked: dict[str, EntityOperationCalled] = {}
    for piece in cut.kept.pieces:
        for event in piece:
            if isinstance(event, EntityOperationCalled) and event.event_id > 0:
                asked[event.request_id] = event
            elif isinstance(event, EntityOperationCompleted | EntityOperationFailed):
                asked.pop(event.request_id, None)
    return asked


def _answer_operations(cut: Cut, later: Sequence[HistoryEvent]) -> None:
    """Operations of entities are not asked for twice: those that are open where the history is cut have their answers from its rest.

    Raises:
        InvalidStateError: there is none, so that nobody knows whether the operation was performed.
    """
    told = {_answered(event) for event in cut.facts} | {called.event_id for called in cut.asks}
    answers = {
        _answered(event): event
        for event in later
        if isinstance(event, EntityOperationCompleted | EntityOperationFailed)
    }
    for called in _open_operations(cut).values():
        if called.event_id in told:
            continue
        if called.event_id not in answers:
            raise InvalidStateError(
                f"instance '{cut.kept.started.instance_id}': {describe(called)}, asked for at {called.site}, has no answer in the history, so that "
                "nobody knows whether it was performed: name an event before it"
            )
        cut.facts.append(answers[called.event_id])


def _refuse_open_section(cut: Cut, fold: Instance) -> None:
    for section in fold.locks or {}:
        held = (fold.locks or {})[section]
        if held:
            first = next(
                e.site
                for piece in cut.kept.pieces
                for e in piece
                if isinstance(e, events.EntityLockRequested) and e.critical_section_id == section
            )
            begun = next(
                i
                for i, piece in enumerate(cut.kept.pieces)
                if any(isinstance(e, events.EntityLockRequested) and e.critical_section_id == section for e in piece)
            )
            raise InvalidStateError(
                f"instance '{cut.kept.started.instance_id}', event {cut.event}: it lies inside the critical section that was begun at {first}, whose "
                f"locks of {', '.join(held)} were given back when the instance ended; event {cut.kept.number_of(begun)} is the last before it: "
                "from there the section happens again as a whole, with what it asks of its entities"
            )


def _open_calls(fold: Instance, facts: Iterable[HistoryEvent]) -> Iterator[Call]:
    ended = {_answered(event) for event in facts}
    for id, child in fold.children.items():
        if id not in ended:
            yield Call(id, child.instance_id, child.execution_id, child.created)
    for open in fold.maps.values():
        yield from _open_calls_of(fold, open, facts)


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


def _calls_of_map(kept: Instance, open: OpenMap, history: History, facts: Sequence[HistoryEvent]) -> Iterator[Call]:
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


def running_calls(history: History) -> list[Call]:
    """The sub-orchestrations that no event of the history says to have ended."""
    return list(_open_calls(history.fold(), ()))


def _answered(event: HistoryEvent) -> int | None:
    """The id of the task that the event ends."""
    match event:
        case TaskCompleted() | TaskFailed() | SubOrchestrationInstanceCompleted() | SubOrchestrationInstanceFailed():
            return event.task_scheduled_id
        case EntityOperationCompleted() | EntityOperationFailed() if event.request_id.isdecimal():
            return int(event.request_id)
        case _:
            return None


def _answer_like(event: HistoryEvent, id: int, result: Payload) -> HistoryEvent:
    if isinstance(event, TaskCompleted | TaskFailed):
        return TaskCompleted(id, result)
    if isinstance(event, SubOrchestrationInstanceCompleted | SubOrchestrationInstanceFailed):
        return SubOrchestrationInstanceCompleted(id, result)
    return EntityOperationCompleted(str(id), result)


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


def _last_id(pieces: Iterable[Piece]) -> int:
    return max((e.event_id for piece in pieces for e in piece if isinstance(e, Decided)), default=0)
