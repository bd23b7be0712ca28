"""Histories held against their sums, piece by piece: for whoever reads them as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias
from zlib import crc32

from replayflow.store.sqlite import sums

Piece: TypeAlias = tuple[int, bytes, int]
"""Its number, its events, and its sum."""


class Broken(Exception):
    """A history does not read back as it was written; the text says what of it."""


def verified(pieces: Sequence[Piece], last: int) -> list[bytes]:
    """The events of an execution's pieces, the start first, which the caller has verified; there are at least those up to the number `last`.

    Raises:
        Broken: a piece is damaged, or is not there.
    """
    number, _, sum = pieces[0]
    for at, events, stored in pieces[1:]:
        number += 1
        if at != number:
            raise Broken(f"its history, of which piece {number} is missing,")
        sum = _on(sum, events)
        if sum != stored:
            raise Broken(f"piece {number} of its history")
    if number < last:
        raise Broken(f"its history, which has lost what follows piece {number},")
    return [events for _, events, _ in pieces]


def verified_past(
    pieces: Sequence[Piece], key: int, execution_id: str, first: int, end: int, sum: int | None
) -> list[bytes]:
    """The events of a past execution's pieces, which has all numbers from the first up to the end.

    Raises:
        Broken: a piece is damaged, or is not there, or the execution's place is.
    """
    start = pieces[0] if pieces else (first, None, None)
    if start[0] != first or not is_past(key, execution_id, first, end, start[2], start[1], sum):
        raise Broken(f"its past execution '{execution_id}'")
    return verified(pieces, end - 1)


def is_past(
    key: int, execution_id: str, number: int, end: int, start_sum: int | None, start: bytes | None, sum: int | None
) -> bool:
    """Whether that is a past execution as it was noted."""
    if start is None or start_sum is None:
        return False
    try:
        return sums.of_past(start, key, execution_id, number, end, start_sum) == sum
    except (TypeError, ValueError):
        return False


def _on(sum: int, events: bytes) -> int:
    try:
        return crc32(events, sum)
    except TypeError:  # a column has what it never has
        return -1
