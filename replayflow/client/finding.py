"""Finding instances: the one filter of listing, of purging and of the verbs for many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TypedDict

from replayflow.client.arguments import aware, checked_tags, statuses
from replayflow.core.instance import Status
from replayflow.store.base import InstanceFilter


class Wanted(TypedDict, total=False):
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


def filter_of(wanted: Wanted) -> InstanceFilter:
    """The filter as the store takes it.

    Raises:
        InvalidArgumentError: a status, a time or a tag that is none.
    """
    return InstanceFilter(
        statuses=statuses(wanted.get("status")),
        name=wanted.get("name"),
        id_prefix=wanted.get("id_prefix") or None,
        tags=tuple(sorted((checked_tags(wanted.get("tags")) or {}).items())),
        is_parked=wanted.get("parked"),
        is_entity=None if wanted.get("include_entities") else False,
        created_from=_moment(wanted.get("created_from"), "created_from"),
        created_to=_moment(wanted.get("created_to"), "created_to"),
        completed_from=_moment(wanted.get("completed_from"), "completed_from"),
        completed_to=_moment(wanted.get("completed_to"), "completed_to"),
    )


def _moment(when: datetime | None, key: str) -> int | None:
    return None if when is None else aware(when, key)
