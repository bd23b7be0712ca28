"""Checksums of what is stored: made when it is written, and held against it whenever it is read.

1. A sum goes on from another one (a chain), so that what was exchanged, lost or doubled is noticed with what was flipped.
2. No sum is made of what was read and not verified: damage would be sound from then on.

Prose: docs/decisions/0028-checksums.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from msgspec.msgpack import Encoder

TIMES = 31
"""The time of a piece is stored so many times over (by the statements that add it): a flipped bit leaves a rest."""


def _plain(value: object) -> str:
    """Text of a caller's own class (a dedupe key, say) as it will read back. Other classes are those of no column."""
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"a column has no {type(value).__name__}")


encode = Encoder(enc_hook=_plain).encode


def of_row(*values: object) -> int:
    """The sum of a row's values."""
    return crc32(encode(values))


def fits(row: Sequence[object], sum: object) -> bool:
    """Whether the sum is that of the row."""
    try:
        return of_row(*row) == sum
    except (TypeError, ValueError, OverflowError):  # a column has what it never has: text that is none, say
        return False


def of_start(start: bytes, *identity: object) -> int:
    """The sum that an execution's chain begins with: its first events, and before them what it is.

    That is: the instance's key and id, the execution's id, the name, the version, when it was created, its parent, its tags as stored, and the number
    of the start.
    """
    return crc32(start, crc32(encode(identity)))


def of_pieces(pieces: bytes, after: int) -> int:
    """The sum of the last of the pieces that stand one behind the other, where that of what comes before them is `after`."""
    return crc32(pieces, after)


def of_shown(start_sum: int, *shown: object) -> int:
    """The sum of what a row shows: status, wake_at, custom_status, output, failure, completed_at, orphans, progress, and last."""
    return crc32(encode(shown), start_sum)


def of_past(start: bytes, *place: object) -> int:
    """The sum of a past execution: its first events, and before them the instance's key, the execution's id, its number, that of the execution that
    follows, and the sum of its start."""
    return crc32(start, crc32(encode(place)))


# ---- an instance's row, as the statements give it that have all of its columns ---------------------------------

# id, execution_id, name, version, status, start, start_number, wake_at, created_at, at, completed_at, custom_status, output, failure, problem,
# orphans, parent_id, tags, progress, last, start_sum, sum, problem_sum, key
LAST, START_SUM, SUM, PROBLEM_SUM, KEY = range(19, 24)


def fault_of(row: Sequence[Any]) -> str | None:
    """What of the instance's row does not read back as it was written; None where all of it does."""
    try:
        return _fault_of(row)
    except (
        TypeError,
        ValueError,
        OverflowError,
    ):  # a column has what it never has: text that is none, a blob for a number
        return "its row"


def _fault_of(row: Sequence[Any]) -> str | None:
    version, start, number, created_at, at, problem = row[3], row[5], row[6], row[8], row[9], row[14]
    after = of_start(start, row[KEY], row[0], row[1], row[2], version, created_at, row[16], row[17], number)
    if after != row[START_SUM]:
        return "its start"
    if of_shown(after, row[4], row[7], row[11], row[12], row[13], row[10], row[15], row[18], row[LAST]) != row[SUM]:
        return "its row"
    if (None if problem is None else of_row(problem)) != row[PROBLEM_SUM]:
        return "its problem"
    if at is not None and at % TIMES:
        return "the time of its last piece"
    return None


def tags_of(text: str | None) -> dict[str, str] | None:
    """The tags of a row that was verified."""
    tags: dict[str, str] | None = None if text is None else json.loads(text)
    return tags
