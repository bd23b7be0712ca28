"""`ctx.map`: one task for a batch, its result, and running again what failed.

1. The call is one decision, with one id; how far it has come is no decision, and the generator sleeps until it is over.
2. What the history recorded of a map counts: code that asks for other items or options meanwhile is warned, and gets what was asked for then.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast, overload

from replayflow.codec import Codec, Payload
from replayflow.core.actions import ScheduleMap
from replayflow.core.blocks import encode_items, pack_calls
from replayflow.core.decisions import Decisions
from replayflow.core.definitions import CallPlan, Environment
from replayflow.core.events import Block, ExecutionStarted, MapPage, MapProgress, MapScheduled
from replayflow.core.mapping import MISSING, PAGE, Gathering
from replayflow.core.sites import site_of
from replayflow.core.tasks import Orchestration, Pending, Task, complete
from replayflow.errors import FailureDetails, InvalidArgumentError, MapError, OrchestratorError
from replayflow.retry import RetryPolicy, stored_duration

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
OnItemError: TypeAlias = Literal["fail_fast", "collect"]
Pages: TypeAlias = Callable[..., tuple[Sequence[I], Any]] | Callable[..., Awaitable[tuple[Sequence[I], Any]]]
"""An activity that is given a cursor (None at first) and returns some items, and the cursor of the next; None after the last."""
CONCURRENCY = 100
NAMED_MAX = 5
_NIL = b"\xc0"
_MARK = 0xC1
_frame = sys._getframe


@dataclass(frozen=True, slots=True)
class MapFailure:
    """An item of a map that failed: its index, and why. `attempts` counts the first one."""

    index: int
    details: FailureDetails
    attempts: int = 1


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
        ctx: MapContext,
        *,
        concurrency: int | None = None,
        tolerated_failures: float | None = None,
        on_item_error: OnItemError | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
    ) -> Generator[Task[Any], Any, MapResult[R]]:
        """`result = yield from result.retry_failed(ctx)`: what has no result runs again, as a map of its own; returns the two together.

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
        if not again.calls:
            return self
        site = site_of(_frame(1))
        task = again.task(ctx, site, concurrency, tolerated_failures, on_item_error, retry, timeout)
        try:
            second: MapResult[R] = yield task
        except MapError as error:
            raise MapError(str(error), error.details, self._with(error.result, again)) from error
        return self._with(second, again)

    def _with(self, second: MapResult[R], first: _Again) -> MapResult[R]:
        indices = first.indices
        results = list(self.results)
        for i, result in zip(indices, second.results, strict=True):
            results[i] = result
        failures = [
            MapFailure(indices[failure.index], failure.details, failure.attempts) for failure in second.failures
        ]
        both: MapResult[R] = MapResult(results, failures, [indices[i] for i in second.unfinished])
        if second._again is not None:
            both._again = second._again.seen_from(indices)
        return both


@dataclass(slots=True)
class _Again:
    """What it takes to run again the calls of a map that have no result: their payloads, and the indices of their items.

    `tolerated` is how many items might fail of all: as many may fail again.
    """

    scheduled: MapScheduled
    tolerated: float
    calls: list[tuple[Payload, int]]
    indices: list[int]
    decoding: _Decoding
    predicate: Callable[[FailureDetails], bool] | None

    def seen_from(self, indices: Sequence[int]) -> _Again:
        """The same, with the indices that the items had in the map before."""
        return replace(self, indices=[indices[i] for i in self.indices])

    def task(
        self,
        ctx: MapContext,
        site: str,
        concurrency: int | None,
        tolerated_failures: float | None,
        on_item_error: OnItemError | None,
        retry: RetryPolicy | None,
        timeout: timedelta | None,
    ) -> Task[MapResult[Any]]:
        first = self.scheduled
        title = f"map of '{first.name}'"
        options = _checked(
            first.concurrency if concurrency is None else concurrency,
            first.batch_size,
            self.tolerated if tolerated_failures is None else tolerated_failures,
            on_item_error or first.on_item_error,
            timeout,
        )
        blocks = pack_calls(self.calls, first.batch_size, ctx._environment.codec.payload_bytes_max, title)
        return _asked(
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
            ),
            self.decoding,
            self.predicate if retry is None else retry.predicate,
        )


@dataclass(slots=True)
class _Decoding:
    """How the payloads of a map's results become values."""

    one: Callable[..., Any]
    many: Callable[..., Any]


class MapTask(Pending[MapResult[R]]):
    """A map that is under way: complete when it is over."""

    __slots__ = ("_decoding", "_gathering", "_scheduled")
    label = "map"

    def __init__(
        self,
        scheduled: MapScheduled,
        decoding: _Decoding,
        abandoned: Callable[[Any], None],
        predicate: Callable[[FailureDetails], bool] | None,
    ) -> None:
        super().__init__(scheduled.event_id, scheduled.name, None, abandoned, predicate)
        self._scheduled = scheduled
        self._decoding = decoding
        self._gathering = Gathering(scheduled)
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
        tolerated = gathering.tally.tolerated
        might_fail = scheduled.tolerated_failures if tolerated is None else tolerated
        again = _Again(scheduled, might_fail, [], [], self._decoding, self.predicate)
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
                result.failures += [MapFailure(i, failed.failure_details, failed.attempt) for i in span]
        result.results = results
        return result

    def _failure(self, result: MapResult[R]) -> MapError:
        page = self._gathering.failures.get(PAGE)
        if page is not None:
            details = page.failure_details
            text = f"activity '{self._scheduled.pages}' did not give the next page of items: {details}"
            return MapError(f"{self.title} failed: {text}", details, result)
        failures = result.failures
        named = ", ".join(f"item {failure.index} ({failure.details})" for failure in failures[:NAMED_MAX])
        more = f" and {len(failures) - NAMED_MAX:,} more" if len(failures) > NAMED_MAX else ""
        total, tolerated = len(result.results), self._gathering.tally.tolerated
        text = f"{len(failures):,} of {total:,} items failed, {tolerated:,} are tolerated: {named}{more}"
        return MapError(f"{self.title} failed: {text}", failures[0].details, result)


class MapContext:
    """The part of the context that makes maps."""

    __slots__ = ()
    _decisions: Decisions
    _environment: Environment
    _started: ExecutionStarted

    # A function of two parameters takes its context first, whichever that is.
    @overload
    def map(
        self,
        fn: Callable[[Any, I], Orchestration[R]],
        items: Iterable[I] | Pages[I],
        *,
        concurrency: int | None = None,
        batch_size: None = None,
        tolerated_failures: float = 0,
        on_item_error: OnItemError = "fail_fast",
        retry: RetryPolicy | None = None,
    ) -> Task[MapResult[R]]: ...
    @overload
    def map(
        self,
        fn: Callable[[Any, I], Awaitable[R]],
        items: Iterable[I] | Pages[I],
        *,
        concurrency: int | None = None,
        batch_size: None = None,
        tolerated_failures: float = 0,
        on_item_error: OnItemError = "fail_fast",
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
    ) -> Task[MapResult[R]]: ...
    @overload
    def map(
        self,
        fn: Callable[[Any, I], R],
        items: Iterable[I] | Pages[I],
        *,
        concurrency: int | None = None,
        batch_size: None = None,
        tolerated_failures: float = 0,
        on_item_error: OnItemError = "fail_fast",
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
    ) -> Task[MapResult[R]]: ...
    @overload
    def map(
        self,
        fn: Callable[[I], Awaitable[R]],
        items: Iterable[I] | Pages[I],
        *,
        concurrency: int | None = None,
        batch_size: None = None,
        tolerated_failures: float = 0,
        on_item_error: OnItemError = "fail_fast",
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
    ) -> Task[MapResult[R]]: ...
    @overload
    def map(
        self,
        fn: Callable[[I], R],
        items: Iterable[I] | Pages[I],
        *,
        concurrency: int | None = None,
        batch_size: None = None,
        tolerated_failures: float = 0,
        on_item_error: OnItemError = "fail_fast",
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
    ) -> Task[MapResult[R]]: ...
    @overload
    def map(
        self,
        fn: Callable[[Any, list[I]], Orchestration[list[R]]],
        items: Iterable[I] | Pages[I],
        *,
        concurrency: int | None = None,
        batch_size: int,
        tolerated_failures: float = 0,
        on_item_error: OnItemError = "fail_fast",
        retry: RetryPolicy | None = None,
    ) -> Task[MapResult[R]]: ...
    @overload
    def map(
        self,
        fn: Callable[[Any, list[I]], Awaitable[list[R]]],
        items: Iterable[I] | Pages[I],
        *,
        concurrency: int | None = None,
        batch_size: int,
        tolerated_failures: float = 0,
        on_item_error: OnItemError = "fail_fast",
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
    ) -> Task[MapResult[R]]: ...
    @overload
    def map(
        self,
        fn: Callable[[Any, list[I]], list[R]],
        items: Iterable[I] | Pages[I],
        *,
        concurrency: int | None = None,
        batch_size: int,
        tolerated_failures: float = 0,
        on_item_error: OnItemError = "fail_fast",
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
    ) -> Task[MapResult[R]]: ...
    @overload
    def map(
        self,
        fn: Callable[[list[I]], Awaitable[list[R]]],
        items: Iterable[I] | Pages[I],
        *,
        concurrency: int | None = None,
        batch_size: int,
        tolerated_failures: float = 0,
        on_item_error: OnItemError = "fail_fast",
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
    ) -> Task[MapResult[R]]: ...
    @overload
    def map(
        self,
        fn: Callable[[list[I]], list[R]],
        items: Iterable[I] | Pages[I],
        *,
        concurrency: int | None = None,
        batch_size: int,
        tolerated_failures: float = 0,
        on_item_error: OnItemError = "fail_fast",
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
    ) -> Task[MapResult[R]]: ...
    @overload
    def map(
        self,
        fn: str,
        items: Iterable[Any] | Pages[Any],
        *,
        concurrency: int | None = None,
        batch_size: int | None = None,
        tolerated_failures: float = 0,
        on_item_error: OnItemError = "fail_fast",
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        result_type: type[R],
    ) -> Task[MapResult[R]]: ...
    @overload
    def map(
        self,
        fn: str,
        items: Iterable[Any] | Pages[Any],
        *,
        concurrency: int | None = None,
        batch_size: int | None = None,
        tolerated_failures: float = 0,
        on_item_error: OnItemError = "fail_fast",
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        result_type: object = None,
    ) -> Task[MapResult[Any]]: ...

    def map(
        self,
        fn: Any,
        items: Any,
        *,
        concurrency: int | None = None,
        batch_size: int | None = None,
        tolerated_failures: float = 0,
        on_item_error: Any = "fail_fast",
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        result_type: Any = None,
    ) -> Task[MapResult[Any]]:
        """The activity or orchestrator `fn` runs once for each item, at most `concurrency` (100) at a time; yield the task for a `MapResult`.

        With `batch_size` it runs for so many items at a time: it is given a list, and returns a list with a result for each. Up to a million items
        are one task with a compact history; after a crash only those run again that were under way. `items` may be an activity instead, which
        is given a cursor (None at first) and returns a page of items and the cursor of the next page, None after the last.

        `tolerated_failures` is how many items may fail: a count, or as a float a share of all (0.05; 1.0 for all). Above it the map fails with
        `MapError`: at once, and what is under way is cancelled ("fail_fast"), or when every item has had its turn ("collect"). `retry` and `timeout`
        (of activities) are for each call; a policy's own `timeout` counts from the call's first failure. A map that is open when its execution ends
        is given up.

        Raises:
            EncodeError, PayloadTooLargeError: an item cannot travel, or all together are too large; give pages then.
            InvalidArgumentError: an option outside its range.
            UnknownNameError, OrchestratorError: as for `call_activity`.
        """
        environment = self._environment
        plan, is_orchestrator, annotation = _callee(environment, fn)
        title = f"map of '{plan.name}'"
        if is_orchestrator and timeout is not None:
            raise InvalidArgumentError(
                f"{title}: timeout is for attempts of activities; an orchestrator ends itself with a timer"
            )
        options = _checked(concurrency, batch_size, tolerated_failures, on_item_error, timeout)
        pages: CallPlan | None = None
        blocks: list[Block] = []
        count = 0
        if callable(items):
            pages = environment.activity(items)
        else:
            listed = _listed(items)
            count = len(listed)
            blocks = encode_items(environment.codec, listed, batch_size, title)
        retry_values, predicate = plan.retry, plan.predicate
        if retry is not None:
            retry_values, predicate = retry.values(), retry.predicate
        scheduled = MapScheduled(
            0,
            plan.name,
            blocks,
            count,
            site_of(_frame(1)),
            is_orchestrator,
            options.concurrency,
            options.batch_size,
            options.tolerated_failures,
            options.on_item_error,
            retry_values,
            plan.timeout_microseconds if timeout is None else stored_duration(timeout),
            plan.version,
            None if pages is None else pages.name,
            None if pages is None else pages.retry,
            None if pages is None else pages.timeout_microseconds,
        )
        decoding = _decoding(environment.codec, plan, annotation, result_type, batch_size)
        return _asked(self, scheduled, decoding, predicate)


def _asked(
    ctx: MapContext,
    scheduled: MapScheduled,
    decoding: _Decoding,
    predicate: Callable[[FailureDetails], bool] | None,
) -> MapTask[Any]:
    """The map is decided, or found again in the history, which says then what was asked for."""
    decisions = ctx._decisions
    scheduled.event_id = decisions.take_id()
    action = ScheduleMap(scheduled)
    decisions.add(action)
    task: MapTask[Any] = MapTask(action.scheduled, decoding, decisions.abandon_task, predicate)
    if not task.is_complete:
        decisions.open[task.id] = task
    return task


@dataclass(slots=True)
class _Options:
    concurrency: int
    batch_size: int | None
    tolerated_failures: float
    on_item_error: str


def _checked(
    concurrency: int | None,
    batch_size: int | None,
    tolerated_failures: float,
    on_item_error: str,
    timeout: timedelta | None,
) -> _Options:
    for name, value in (("concurrency", concurrency), ("batch_size", batch_size)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InvalidArgumentError(f"map: {name} is {value!r:.80}; it is a whole number, 1 or more")
    if isinstance(tolerated_failures, bool) or not isinstance(tolerated_failures, int | float):
        raise InvalidArgumentError(f"map: tolerated_failures is {tolerated_failures!r:.80}; it is a count or a share")
    if not tolerated_failures >= 0 or (isinstance(tolerated_failures, float) and tolerated_failures > 1):
        raise InvalidArgumentError(
            f"map: tolerated_failures is {tolerated_failures!r:.80}; it is a count (an int, 0 or more) or a share of the items (a float, 0 to 1)"
        )
    if on_item_error not in ("fail_fast", "collect"):
        raise InvalidArgumentError(f"map: on_item_error is {on_item_error!r:.80}; it is 'fail_fast' or 'collect'")
    if timeout is not None and timeout <= timedelta(0):
        raise InvalidArgumentError(f"map: timeout is {timeout}; it must be longer than nothing")
    return _Options(concurrency or CONCURRENCY, batch_size, tolerated_failures, on_item_error)


def _listed(items: Any) -> Sequence[Any]:
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise InvalidArgumentError(
            f"map: items is {items!r:.80}; give a list or another iterable of items, or an activity that gives pages"
        )
    return items if isinstance(items, list | tuple | range) else list(items)


def _callee(environment: Environment, fn: Any) -> tuple[CallPlan, bool, Any]:
    """How to call what is mapped, whether it is an orchestrator, and its result's annotation. An activity goes before an orchestrator of the name."""
    activities, orchestrators = environment.activities, environment.orchestrators
    if isinstance(fn, str):
        is_orchestrator = fn in orchestrators and fn not in activities
    else:
        is_orchestrator = any(definition.fn == fn for definition in orchestrators.values())
    plan = environment.orchestrator(fn) if is_orchestrator else environment.activity(fn)
    definition = (orchestrators if is_orchestrator else activities).get(plan.name)
    return plan, is_orchestrator, Any if definition is None else definition.result_type


# ---- results


def _decoding(codec: Codec, plan: CallPlan, annotation: Any, result_type: Any, batch_size: int | None) -> _Decoding:
    if batch_size is not None:
        of_batch = plan.decode if result_type is None else codec.decoder(list[result_type])
        return _Decoding(of_batch, of_batch)
    of_item = annotation if result_type is None else result_type
    one = plan.decode if result_type is None else codec.decoder(result_type)
    return _Decoding(one, codec.decoder(Any if of_item is Any else _list_of(of_item)))


_lists: dict[int, tuple[Any, Any]] = {}


def _list_of(annotation: Any) -> Any:
    """`list[annotation]`, the same object each time: a codec knows annotations by identity."""
    known = _lists.get(id(annotation))
    if known is None:
        if len(_lists) >= 1_000:
            _lists.clear()
        known = _lists[id(annotation)] = (annotation, list[annotation])
    return known[1]


def _decoded(payloads: Sequence[Payload], is_batched: bool, decoding: _Decoding, title: str) -> list[Any]:
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
