"""Which instances: the one filter of listing, of purging and of the verbs for many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TypedDict

from replayflow.client.arguments import aware, checked_tags, statuses
from replayflow.core.instance import Status
from replayflow.errors import InvalidArgumentError
from replayflow.store.base import InstanceFilter


class Where(TypedDict, total=False):
    """The filter's keywords: an instance fits that fits all that are given. Times are aware, from inclusive, to exclusive.

    Entities are left out unless they are asked for.
    """

    status: Status | str | Iterable[Status | str] | None
    name: str | None
    id_prefix: str | None
    tags: Mapping[str, str] | None
    created_from: datetime | None
    created_to: datetime | None
    completed_from: datetime | None
    completed_to: datetime | None
    parked: bool | None
    include_entities: bool


def filter_of(where: Where) -> InstanceFilter:
    """The filter as the store takes it.

    Raises:
        InvalidArgumentError: a status or a time that is none, or a keyword that there is not.
    """
    unknown = where.keys() - Where.__annotations__.keys()
    if unknown:
        raise InvalidArgumentError(
            f"there is no filter {', '.join(sorted(map(repr, unknown)))}; there are {', '.join(Where.__annotations__)}"
        )
    return InstanceFilter(
        statuses=statuses(where.get("status")),
        name=where.get("name"),
        id_prefix=where.get("id_prefix") or None,
        tags=tuple(sorted((checked_tags(where.get("tags")) or {}).items())),
        is_parked=where.get("parked"),
        is_entity=None if where.get("include_entities") else False,
        created_from=_moment(where.get("created_from"), "created_from"),
        created_to=_moment(where.get("created_to"), "created_to"),
        completed_from=_moment(where.get("completed_from"), "completed_from"),
        completed_to=_moment(where.get("completed_to"), "completed_to"),
    )


def _moment(when: datetime | None, key: str) -> int | None:
    return None if when is None else aware(when, key)
