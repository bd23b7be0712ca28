"""`ctx.map`: what an orchestrator may ask for in a batch.

The call is one decision, with one id; how far it has come is no decision, and the generator sleeps until it is over.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar, overload

from replayflow.core.definitions import CallPlan, Environment
from replayflow.core.events import Block, MapScheduled
from replayflow.core.map.blocks import encode_items
from replayflow.core.map.result import Deciding, MapResult, OnItemError, ask, checked, decoding_of
from replayflow.core.sites import site_of
from replayflow.core.tasks import Orchestration, Task
from replayflow.errors import InvalidArgumentError
from replayflow.retry import RetryPolicy, RetryValues, stored_duration

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
Pages: TypeAlias = Callable[..., tuple[Sequence[I], Any]] | Callable[..., Awaitable[tuple[Sequence[I], Any]]]
"""An activity that is given a cursor (None at first) and returns some items, and the cursor of the next; None after the last."""
_frame = sys._getframe


class MapContext(Deciding):
    """The part of the context that makes maps."""

    __slots__ = ()

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
        _refuse_transactional(environment, plan, title)
        if is_orchestrator and timeout is not None:
            raise InvalidArgumentError(
                f"{title}: timeout is for attempts of activities; an orchestrator ends itself with a timer"
            )
        options = checked(concurrency, batch_size, tolerated_failures, on_item_error, timeout)
        source = _source_of(environment, items, batch_size, title)
        retry_values, predicate = (plan.retry, plan.predicate) if retry is None else (retry.values(), retry.predicate)
        scheduled = MapScheduled(
            0,
            plan.name,
            source.blocks,
            source.count,
            site_of(_frame(1)),
            is_orchestrator,
            options.concurrency,
            options.batch_size,
            options.tolerated_failures,
            options.on_item_error,
            retry_values,
            plan.timeout_microseconds if timeout is None else stored_duration(timeout),
            plan.version,
            source.pages,
            source.page_retry,
            source.page_timeout_microseconds,
        )
        decoding = decoding_of(environment.codec, plan.decode, annotation, result_type, batch_size)
        return ask(self, scheduled, decoding, predicate)


def _callee(environment: Environment, fn: Any) -> tuple[CallPlan, bool, Any]:
    """How to call what is mapped, whether it is an orchestrator, and its result's annotation. An activity goes before an orchestrator of the name."""
    activities, orchestrators = environment.activities, environment.orchestrators
    found = orchestrators.get(fn) if isinstance(fn, str) else orchestrators.of_function(fn)
    is_orchestrator = found is not None and not (isinstance(fn, str) and fn in activities)
    plan = environment.orchestrator(fn) if is_orchestrator else environment.activity(fn)
    definition = orchestrators.serving(plan.name, plan.version) if is_orchestrator else activities.get(plan.name)
    return plan, is_orchestrator, Any if definition is None else definition.result_type


@dataclass(slots=True)
class _Source:
    """Where the items come from: they are here, in blocks, or the activity `pages` gives them as it goes on."""

    blocks: list[Block]
    count: int
    pages: str | None = None
    page_retry: RetryValues | None = None
    page_timeout_microseconds: int | None = None


def _source_of(environment: Environment, items: Any, batch_size: int | None, title: str) -> _Source:
    if callable(items):
        pages = environment.activity(items)
        _refuse_transactional(environment, pages, title)
        return _Source([], 0, pages.name, pages.retry, pages.timeout_microseconds)
    listed = _listed(items)
    return _Source(encode_items(environment.codec, listed, batch_size, title), len(listed))


def _refuse_transactional(environment: Environment, plan: CallPlan, title: str) -> None:
    definition = environment.activities.get(plan.name)
    if definition is not None and definition.executor == "transaction":
        raise InvalidArgumentError(
            f"{title}: activity '{plan.name}' is transactional, and each result needs a transaction of its own: call it with call_activity, "
            "or map over an orchestrator that does"
        )


def _listed(items: Any) -> Sequence[Any]:
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise InvalidArgumentError(
            f"map: items is {items!r:.80}; give a list or another iterable of items, or an activity that gives pages"
        )
    return items if isinstance(items, list | tuple | range) else list(items)
