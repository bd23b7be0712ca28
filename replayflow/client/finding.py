"""Finding instances: the part of `Client` that lists and counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from typing import Protocol, TypedDict, Unpack

from replayflow.client.access import Access
from replayflow.client.arguments import aware, checked_tags, statuses
from replayflow.client.views import InstancePage, InstanceState, Views
from replayflow.core.instance import Status
from replayflow.errors import InvalidArgumentError
from replayflow.store import Store
from replayflow.store.base import Grouping, InstanceFilter, Owner

PAGE_SIZE = 200
_PLACES_MAX = 2**53


class Wanted(TypedDict, total=False):
    """Which instances: those that fit all that is given. Of two times that bound a window the first belongs to it and the second does not."""

    status: Status | str | Iterable[Status | str] | None
    """One, or several of which it has one."""
    name: str | None
    """The orchestrator's."""
    id_prefix: str | None
    tags: Mapping[str, str] | None
    """All of them."""
    created_from: datetime | None
    created_to: datetime | None
    completed_from: datetime | None
    completed_to: datetime | None
    parent: str | None
    """The id of the instance whose sub-orchestrations they are."""
    parked: bool | None
    """Set aside with a problem, or not."""
    include_entities: bool
    """Entities are left out unless they are asked for."""


def filter_of(wanted: Wanted) -> InstanceFilter:
    """The filter as stores take it; a keyword that is misspelt must not mean everybody.

    Raises:
        InvalidArgumentError: a status, a time, a tag, a text or a keyword that is none.
    """
    unknown = wanted.keys() - Wanted.__annotations__.keys()
    if unknown:
        raise InvalidArgumentError(
            f"there is no filter {', '.join(sorted(map(repr, unknown)))}; there are {', '.join(Wanted.__annotations__)}"
        )
    given = dict(wanted)
    for name in ("name", "id_prefix", "parent"):
        if given.get(name) is not None and not isinstance(given[name], str):
            raise InvalidArgumentError(f"{name} is {given[name]!r:.80}; it is text")
    return InstanceFilter(
        statuses=statuses(wanted.get("status")),
        name=wanted.get("name"),
        id_prefix=wanted.get("id_prefix") or None,
        tags=tuple(sorted((checked_tags(wanted.get("tags")) or {}).items())),
        created_from=_moment(wanted.get("created_from"), "created_from"),
        created_to=_moment(wanted.get("created_to"), "created_to"),
        is_parked=wanted.get("parked"),
        is_entity=None if wanted.get("include_entities") else False,
        completed_from=_moment(wanted.get("completed_from"), "completed_from"),
        completed_to=_moment(wanted.get("completed_to"), "completed_to"),
        parent_id=wanted.get("parent"),
    )


def _moment(when: datetime | None, what: str) -> int | None:
    return None if when is None else aware(when, what)


class _Finder(Protocol):
    """What these verbs need of the client."""

    _store: Store
    _views: Views
    _access: Access


class FindingVerbs:
    """`list`, `list_page`, `count` and `worker` of a `Client`. What is looked for is said as in `Wanted`."""

    async def list(
        self: _Finder, *, newest_first: bool = False, large: bool = False, **wanted: Unpack[Wanted]
    ) -> AsyncIterator[InstanceState]:
        """All instances that fit, read page by page, the oldest first.

        They come in the order of their creation; where a window of completion is given, of their completion; where an `id_prefix` is all that is
        given, of their ids. With `newest_first` it is turned round. One that is replaced meanwhile may be met twice.

        A large value, which is kept out of line, is a `LargeValue` here; with `large` it is read, for one instance at a time.

        Raises:
            InvalidArgumentError: a status, a time, a tag or a text that is none.
        """
        cursor: str | None = None
        sought = filter_of(wanted)
        while True:
            page = await self._store.page(sought, PAGE_SIZE, cursor, newest_first)
            for record in page.records:
                yield self._views.state(await self._access.whole_record(record) if large else record)
            cursor = page.cursor
            if cursor is None:
                return

    async def list_page(
        self: _Finder,
        *,
        newest_first: bool = False,
        limit: int = 50,
        cursor: str | None = None,
        **wanted: Unpack[Wanted],
    ) -> InstancePage:
        """At most `limit` of the instances that fit, in the order of `list`, and where to read on with the same filter.

        A large value is a `LargeValue`.

        Raises:
            InvalidArgumentError: a status, a time, a tag, a text, a limit or a cursor that is none.
        """
        if not 1 <= limit <= _PLACES_MAX:
            raise InvalidArgumentError(
                f"limit is {limit!r:.80}; a page has at least one place, and not more than {_PLACES_MAX:,}"
            )
        page = await self._store.page(filter_of(wanted), limit, cursor, newest_first)
        return InstancePage([self._views.state(record) for record in page.records], page.cursor)

    async def count(self: _Finder, *, by: Grouping | None = None, **wanted: Unpack[Wanted]) -> dict[str, int]:
        """How many instances fit: by "status" or by "name", largest first; without `by`, under the one key "total".

        Raises:
            InvalidArgumentError: a status, a time, a tag or a text that is none; `by` is something else.
        """
        if by not in (None, "status", "name"):
            raise InvalidArgumentError(f"by is {by!r:.80}; it is 'status' or 'name'")
        counted = await self._store.count(filter_of(wanted), by)
        if by is None:
            return {"total": counted.get("", 0)}
        return dict(sorted(counted.items(), key=lambda one: (-one[1], one[0])))

    async def worker(self: _Finder) -> Owner | None:
        """The worker that serves the hub now: its process, its host, and since when (microseconds since 1970). None where there is none."""
        return await self._store.owner()
