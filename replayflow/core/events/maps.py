"""Maps: a call for each of many items, asked for once, settled in lots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from msgspec import Struct

from replayflow.core.events.base import Decided, Fact, Payload, Unnumbered
from replayflow.errors import FailureDetails
from replayflow.retry import RetryValues


class Block(NamedTuple):
    """Some calls of a map, for so many items: the payloads of the calls, together as one payload."""

    calls: int
    items: int
    payloads: Payload


class MapItemFailed(Struct, array_like=True):
    """A call of a map failed: for good, or with another attempt at `retry_at`, decided when it was taken in.

    On its way there `attempt` may be 0, for the present one, and `retry_after_microseconds` is what the call itself asked for. The number -1 is
    that of the activity that gives the pages. A `retry_at` of -1 is that of a call that failed while its map was stopping: it is neither tried
    again nor counted as failed.
    """

    number: int
    attempt: int
    failure_details: FailureDetails
    retry_at_microseconds: int | None = None
    retry_after_microseconds: int | None = None


# Where a client's `history()` hands an event to a user, the items themselves.
if TYPE_CHECKING:
    Blocks: TypeAlias = Any
else:
    Blocks = list[Block]


class MapScheduled(Decided, tag=110):
    """An activity or orchestrator was asked for, once for each of `count` items or `batch_size` of them.

    With `pages`, the name of an activity, more items follow: it is asked for them, page by page, beginning with `cursor`.
    """

    name: str
    items: Blocks
    count: int
    site: str = ""
    is_orchestrator: bool = False
    concurrency: int = 1
    batch_size: int | None = None
    tolerated_failures: int | float = 0
    on_item_error: str = "fail_fast"
    retry: RetryValues | None = None
    timeout_microseconds: int | None = None
    version: str | None = None
    pages: str | None = None
    page_retry: RetryValues | None = None
    page_timeout_microseconds: int | None = None
    cursor: Payload = None


class MapProgress(Fact, tag=111):
    """Calls of a map have ended: those with `numbers` have `results`, in the same order; others have failed."""

    task_scheduled_id: int
    numbers: list[int]
    results: list[Payload]
    failures: list[MapItemFailed]


class MapPage(Fact, tag=112):
    """The page `number` (from 0) of a map's items has come; `cursor` is what the next is asked for with, None after the last."""

    task_scheduled_id: int
    number: int
    items: Blocks
    count: int
    cursor: Payload = None
    batch_size: int | None = None


class MapRetried(Fact, tag=113):
    """The wait of sub-orchestrations of a map is over: they may begin again."""

    task_scheduled_id: int
    numbers: list[int]


class MapStopped(Unnumbered, tag=114):
    """A map was asked to stop: nothing more of it begins, and children that are at work are asked to cancel. The task stays open."""

    task_scheduled_id: int


class MapDrained(Fact, tag=115):
    """Nothing is at work any more for a map that was asked to stop: it is over."""

    task_scheduled_id: int
