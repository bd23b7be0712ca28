"""A map that an orchestrator has asked for: its task, what it came to, and running again what failed.

What the history recorded of a map counts: code that asks for other items or options meanwhile is warned, and gets what was asked for then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar, cast

from replayflow.codec import Codec, Payload
from replayflow.core.actions import ScheduleMap
from replayflow.core.decisions import Decisions
from replayflow.core.definitions import Environment
from replayflow.core.events import MapPage, MapProgress, MapScheduled
from replayflow.core.map.blocks import pack_calls
from replayflow.core.map.mapping import MISSING, PAGE, Gathering
from replayflow.core.sites import site_of
from replayflow.core.tasks import Pending, Task, complete
from replayflow.errors import FailureDetails, InvalidArgumentError, MapError, OrchestratorError
from replayflow.retry import STORED_INT_MAX, RetryPolicy, stored_duration

R = TypeVar("R")
OnItemError: TypeAlias = Literal["fail_fast", "collect"]
CONCURRENCY = 100
NAMED_MAX = 5
_NIL = b"\xc0"
_MARK = 0xC1
_frame = sys._getframe


class Deciding:
    """What a map is asked of: an orchestration's context."""

    __slots__ = ()
    _decisions: Decisions
    _environment: Environment


@dataclass
class MapFailure:
    """An item of a map that failed: its index, and why. `attempts` counts the first one."""

    index: int
    type: str
    message: str
    attempts: int = 1
    # No field: a failure that travels as a payload leaves stack and causes behind.
    _details = cast("FailureDetails | None", None)

    @classmethod
    def of(cls, index: int, details: FailureDetails, attempts: int) -> MapFailure:
        """The failure of the item with these details."""
        failure = cls(index, details.type, details.message, attempts)
        failure._details = details
        return failure

    @property
    def details(self) -> FailureDetails:
        """The error as it was recorded, with its causes; of a result that came as a payload its type and message alone."""
        return self._details or FailureDetails(self.type, self.message)


@dataclass
class MapResult(Generic[R]):
    """What a map came to. `results` are in the order of the items, None where an item has none; `failures` says which failed, in the same order.

    `unfinished` are the indices of items that had not ended when the map failed fast: empty in every result that `ctx.map` returns.
    """

    results: list[R | None]
    failures: list[MapFailure]
    unfinished: list[int] = field(default_factory=list)
    # No field: a result that travels as a payload leaves it behind.
    _again = cast("_Again | None", None)

    @property
    def succeeded(self) -> list[R]:
        """The results of the items that succeeded, in the order of the items."""
        if not self.failures and not self.unfinished:
            return cast("list[R]", self.results)
        left_out = {failure.index for failure in self.failures}.union(self.unfinished)
        return [cast("R", result) for i, result in enumerate(self.results) if i not in left_out]

    def retry_failed(
        self,
        ctx: Deciding,
        *,
        concurrency: int | None = None,
        tolerated_failures: float | None = None,
        on_item_error: OnItemError | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
    ) -> Generator[Task[Any], Any, MapResult[R]]:
        """`result = yield from result.retry_failed(ctx)`: what has no result runs again, as a map of its own; returns the two together.

        Where a map failed before its last page had come, the pages go on, too.
        Without options it follows those of the first map, so that as many items may fail now as might have then; a `tolerated_failures` given
        here is that of the items that run again. Without failures nothing runs.

        Raises:
            MapError: more failed than is tolerated; its `.result` is the two together.
            OrchestratorError: the result came as a payload, and no longer knows its items.
        """
        again = self._again
        if again is None:
            raise OrchestratorError(
                "this MapResult has come as a payload and does not know its items: call retry_failed where ctx.map returned it"
            )
        if not again.calls and again.is_whole:
            return self
        site = site_of(_frame(1))
        task = again.task(ctx, site, concurrency, tolerated_failures, on_item_error, retry, timeout)
        try:
            second: MapResult[R] = yield task
        except MapError as error:
            raise MapError(str(error), error.details, self._with(error.result, again)) from error
        return self._with(second, again)

    def _with(self, second: MapResult[R], first: _Again) -> MapResult[R]:
        results = list(self.results)
        results += [None] * (len(second.results) - len(first.indices))  # of pages that had not come
        for i, result in enumerate(second.results):
            results[first.index(i)] = result
        failures = [
            MapFailure.of(first.index(failure.index), failure.details, failure.attempts) for failure in second.failures
        ]
        both: MapResult[R] = MapResult(results, failures, [first.index(i) for i in second.unfinished])
        if second._again is not None:
            both._again = second._again.seen_from(first, len(results))
        return both


@dataclass(slots=True)
class _Again:
    """What it takes to run again the calls of a map that have no result: their payloads, and the indices of their items.

    `tolerated` is how many items might fail of all: as many may fail again. Where the map was not whole, `cursor` is that of the next page, and
    `total` the number of items before it.
    """

    scheduled: MapScheduled
    tolerated: float
    is_whole: bool
    cursor: Payload
    total: int
    decoding: Decoding
    predicate: Callable[[FailureDetails], bool] | None
    calls: list[tuple[Payload, int]] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)

    def index(self, i: int) -> int:
        """The index that the item had, or has, in the map before."""
        return self.indices[i] if i < len(self.indices) else self.total + i - len(self.indices)

    def seen_from(self, before: _Again, total: int) -> _Again:
        """The same, with the indices that the items have in the map before."""
        return replace(self, total=total, indices=[before.index(i) for i in self.indices])

    def task(
        self,
        ctx: Deciding,
        site: str,
        concurrency: int | None,
        tolerated_failures: float | None,
        on_item_error: OnItemError | None,
        retry: RetryPolicy | None,
        timeout: timedelta | None,
    ) -> Task[MapResult[Any]]:
        first = self.scheduled
        title = f"map of '{first.name}'"
        options = checked(
            first.concurrency if concurrency is None else concurrency,
            first.batch_size,
            self.tolerated if tolerated_failures is None else tolerated_failures,
            on_item_error or first.on_item_error,
            timeout,
        )
        blocks = pack_calls(self.calls, first.batch_size, ctx._environment.codec.payload_bytes_max, title)
        return ask(
            ctx,
            MapScheduled(
                0,
                first.name,
                blocks,
                len(self.indices),
                site,
                first.is_orchestrator,
                options.concurrency,
                options.batch_size,
                options.tolerated_failures,
                options.on_item_error,
                first.retry if retry is None else retry.values(),
                first.timeout_microseconds if timeout is None else stored_duration(timeout),
                first.version,
                None if self.is_whole else first.pages,
                first.page_retry,
                first.page_timeout_microseconds,
                self.cursor,
            ),
            self.decoding,
            self.predicate if retry is None else retry.predicate,
            self.index,
        )


@dataclass(slots=True)
class Decoding:
    """How the payloads of a map's results become values."""

    one: Callable[..., Any]
    many: Callable[..., Any]


class MapTask(Pending[MapResult[R]], kw_only=True):
    """A map that is under way: complete when it is over."""

    label: ClassVar[str] = "map"
    _scheduled: MapScheduled
    _decoding: Decoding
    _index: Callable[[int], int]
    _gathering: Gathering
    is_stopping: bool = False
    """Whether nothing more of it begins: so that it is asked to stop once."""

    def __post_init__(self) -> None:
        self._end_if_over()

    @property
    def title(self) -> str:
        return f"map of '{self.name}' (task {self.id})"

    def take(self, event: MapProgress | MapPage) -> bool:
        """The event has reached the map; returns whether it is over now."""
        self._gathering.apply(event)
        return self._end_if_over()

    def _end_if_over(self) -> bool:
        gathering = self._gathering
        if not gathering.tally.is_over:
            return False
        try:
            result = self._result()
        except Exception as error:  # a DecodeError, or whatever a user's model raises
            complete(self, None, error)
        else:
            if gathering.tally.has_failed:
                complete(self, None, self._failure(result))
            else:
                complete(self, result)
        # Whoever keeps the task need not keep every payload, too.
        self._gathering = Gathering(MapScheduled(self.id, self.name, [], 0))
        return True

    def _result(self) -> MapResult[R]:
        gathering, scheduled = self._gathering, self._scheduled
        calls = gathering.tally.calls
        values = _decoded(gathering.results, scheduled.batch_size is not None, self._decoding, self.title)
        tally = gathering.tally
        might_fail = scheduled.tolerated_failures if tally.tolerated is None else tally.tolerated
        again = _Again(
            scheduled, might_fail, tally.is_whole, gathering.cursor, calls.items, self._decoding, self.predicate
        )
        result: MapResult[R] = MapResult(cast("list[R | None]", values), [])
        result._again = again
        if gathering.tally.settled == len(calls) and not gathering.failures:
            return result
        results: list[Any] = []
        position = 0
        for number, payload in enumerate(gathering.results):
            span = calls.span(number)
            if payload is not MISSING:
                results += values[position : position + len(span)]
                position += len(span)
                continue
            results += [None] * len(span)
            again.calls.append((calls.payload(number), len(span)))
            again.indices += span
            failed = gathering.failures.get(number)
            if failed is None:
                result.unfinished += span
            else:
                result.failures += [MapFailure.of(i, failed.failure_details, failed.attempt) for i in span]
        result.results = results
        return result

    def _failure(self, result: MapResult[R]) -> MapError:
        page = self._gathering.failures.get(PAGE)
        if page is not None:
            details = page.failure_details
            text = f"activity '{self._scheduled.pages}' did not give the next page of items: {details}"
            return MapError(f"{self.title} failed: {text}", details, result)
        failures = result.failures
        named = ", ".join(f"item {self._index(failure.index)} ({failure.details})" for failure in failures[:NAMED_MAX])
        more = f" and {len(failures) - NAMED_MAX:,} more" if len(failures) > NAMED_MAX else ""
        total, tolerated = len(result.results), self._gathering.tally.tolerated
        text = f"{len(failures):,} of {total:,} items failed, {tolerated:,} are tolerated: {named}{more}"
        return MapError(f"{self.title} failed: {text}", failures[0].details, result)


def ask(
    ctx: Deciding,
    scheduled: MapScheduled,
    decoding: Decoding,
    predicate: Callable[[FailureDetails], bool] | None,
    index: Callable[[int], int] = int,
) -> MapTask[Any]:
    """The map is decided, or found again in the history, which says then what was asked for. `index` gives the indices that messages name."""
    decisions = ctx._decisions
    if scheduled.is_orchestrator:
        decisions.refuse_in_section(f"{scheduled.site}: map of '{scheduled.name}'")
    scheduled.event_id = decisions.take_id()
    action = ScheduleMap(scheduled)
    decisions.add(action)
    scheduled = action.scheduled
    task: MapTask[Any] = MapTask(
        scheduled.event_id,
        scheduled.name,
        None,
        decisions,
        predicate,
        _scheduled=scheduled,
        _decoding=decoding,
        _index=index,
        _gathering=Gathering(scheduled),
    )
    if not task.is_complete:
        decisions.open[task.id] = task
    return task


@dataclass(slots=True)
class _Options:
    concurrency: int
    batch_size: int | None
    tolerated_failures: float
    on_item_error: str


def checked(
    concurrency: int | None,
    batch_size: int | None,
    tolerated_failures: float,
    on_item_error: str,
    timeout: timedelta | None,
) -> _Options:
    for name, value in (("concurrency", concurrency), ("batch_size", batch_size)):
        if value is not None and (type(value) is not int or not 1 <= value <= STORED_INT_MAX):
            raise InvalidArgumentError(
                f"map: {name} is {value!r:.80}; it is a whole number, 1 or more, and less than 2 ** 63"
            )
    if isinstance(tolerated_failures, bool) or not isinstance(tolerated_failures, int | float):
        raise InvalidArgumentError(f"map: tolerated_failures is {tolerated_failures!r:.80}; it is a count or a share")
    if not 0 <= tolerated_failures <= (1 if isinstance(tolerated_failures, float) else STORED_INT_MAX):
        raise InvalidArgumentError(
            f"map: tolerated_failures is {tolerated_failures!r:.80}; it is a count (an int, 0 or more, less than 2 ** 63) "
            "or a share of the items (a float, 0 to 1)"
        )
    if on_item_error not in ("fail_fast", "collect"):
        raise InvalidArgumentError(f"map: on_item_error is {on_item_error!r:.80}; it is 'fail_fast' or 'collect'")
    if timeout is not None and timeout <= timedelta(0):
        raise InvalidArgumentError(f"map: timeout is {timeout}; it must be longer than nothing")
    return _Options(concurrency or CONCURRENCY, batch_size, tolerated_failures, on_item_error)


# ---- results


def decoding_of(
    codec: Codec, decode: Callable[..., Any], annotation: Any, result_type: Any, batch_size: int | None
) -> Decoding:
    """How results become values: `decode` is for the annotated result of one call, `result_type` for one item, in its place."""
    if batch_size is not None:
        of_batch = decode if result_type is None else codec.decoder(list[result_type])
        return Decoding(of_batch, of_batch)
    of_item = annotation if result_type is None else result_type
    one = decode if result_type is None else codec.decoder(result_type)
    return Decoding(one, codec.decoder(Any if of_item is Any else _list_of(of_item)))


_lists: dict[int, tuple[Any, Any]] = {}


def _list_of(annotation: Any) -> Any:
    """`list[annotation]`, the same object each time: a codec knows annotations by identity."""
    known = _lists.get(id(annotation))
    if known is None:
        if len(_lists) >= 1_000:
            _lists.clear()
        known = _lists[id(annotation)] = (annotation, list[annotation])
    return known[1]


def _decoded(payloads: Sequence[Payload], is_batched: bool, decoding: Decoding, title: str) -> list[Any]:
    """The values of the payloads that there are, in order."""
    found = [payload for payload in payloads if payload is not MISSING]
    if is_batched:
        return [value for payload in found for value in decoding.one(payload, f"result of {title}")]
    if not any(payload is not None and payload[0] == _MARK for payload in found):
        # One list instead of so many values: decoded in one go.
        together = b"\xdd" + len(found).to_bytes(4, "big") + b"".join([_NIL if p is None else p for p in found])
        try:
            return cast("list[Any]", decoding.many(together, f"results of {title}"))
        except Exception:  # noqa: S110 - one of them does not fit: which one, is found below
            pass
    return [
        decoding.one(payload, f"result of item {i} of {title}")
        for i, payload in enumerate(payloads)
        if payload is not MISSING
    ]
