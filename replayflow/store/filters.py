"""What is asked of a listing: which instances, in which order, and where the next page begins.

A cursor is text that users keep for a while: it says its listing's order and a place in it, and one that does not fit is refused.
"""

from __future__ import annotations

import sys
from typing import Literal, NamedTuple

from msgspec import Struct

from replayflow.core.ids import is_unicode
from replayflow.core.instance import Status
from replayflow.errors import InvalidArgumentError
from replayflow.store.records import InstanceRecord

Order = Literal["created", "completed", "id"]
Grouping = Literal["status", "name"]
_POSITION_MAX = 2**63 - 1


class InstanceFilter(Struct, frozen=True):
    """Which instances: those that fit all that is given. Times are microseconds since 1970, from inclusive, to exclusive."""

    statuses: frozenset[Status] | None = None
    name: str | None = None
    id_prefix: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    created_from: int | None = None
    created_to: int | None = None
    is_parked: bool | None = None
    is_entity: bool | None = None
    """Whether the id begins with `@`."""
    completed_from: int | None = None
    completed_to: int | None = None
    parent_id: str | None = None

    @property
    def order(self) -> Order:
        """What a listing by this filter is sorted by: the end, where a window of it is given; the id, where ids are all that is asked of; else the
        beginning. So an index in that order finds what fits, however much of it there is.
        """
        if self.completed_from is not None or self.completed_to is not None:
            return "completed"
        is_of_ids = (self.id_prefix or self.is_entity) and self == InstanceFilter(
            id_prefix=self.id_prefix, is_entity=self.is_entity
        )
        return "id" if is_of_ids else "created"


class Page(Struct):
    records: list[InstanceRecord]
    cursor: str | None
    """Where the next page begins; None after the last."""


class Place(NamedTuple):
    """Where an instance stands in a listing: by the position and, among equals, in the order in which ids were first created."""

    at: int | str
    key: int


_LETTERS: dict[Order, str] = {"created": "c", "completed": "e", "id": "i"}


def cursor_of(order: Order, place: Place) -> str:
    """The text that stands for the place in a listing of that order."""
    return f"{_LETTERS[order]}{place.at}" if order == "id" else f"{_LETTERS[order]}{place.at}.{place.key}"


def place_of(cursor: str, order: Order) -> Place:
    """The place that a page's cursor stands for, in a listing of that order.

    Raises:
        InvalidArgumentError: it is none, or one of a listing in another order.
    """
    if isinstance(cursor, str) and cursor[:1] == _LETTERS[order] and cursor[1:] and is_unicode(cursor):
        if order == "id":
            return Place(cursor[1:], 0)
        at, _, key = cursor[1:].partition(".")
        if _is_number(at) and _is_number(key):
            return Place(int(at), int(key))
    raise InvalidArgumentError(
        f"cursor is {cursor!r:.80}; pass what the page before gave as its `cursor`, with the same filter"
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _POSITION_MAX


def end_of_prefix(prefix: str) -> str | None:
    """The least text above all that begin with the prefix; None where there is none."""
    stem = prefix.rstrip(chr(sys.maxunicode))
    if not stem:
        return None
    last = ord(stem[-1])
    return stem[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)  # between them are no characters
