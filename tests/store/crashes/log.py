"""The write-ahead log as SQLite's file format describes it: read here once more, so that what recovery makes of a log is foretold and not believed.

A header of 32 bytes, then frames: 24 bytes each and a page. A frame counts if its salts are the header's and its checksum, which goes on from the
one before, is right; of these frames those count that a commit follows.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HEADER, FRAME = 32, 24
_LITTLE = 0x377F0682


class Frame(NamedTuple):
    start: int
    end: int
    page: int
    pages_after: int
    """How many pages the main file has with this commit; 0 where the frame is none."""


def page_size(log: bytes) -> int:
    return int.from_bytes(log[8:12])


def frames_in(log: bytes) -> list[Frame]:
    """The frames that count, whether a commit follows or not."""
    if len(log) < HEADER:
        return []
    magic = int.from_bytes(log[:4])
    order = "<" if magic == _LITTLE else ">"
    salts, size = log[16:24], page_size(log)
    sums = _checksum((0, 0), log[:24], order)
    if magic & ~1 != _LITTLE or struct.pack(">II", *sums) != log[24:32]:
        return []
    found = []
    start = HEADER
    while start + FRAME + size <= len(log):
        end = start + FRAME + size
        if log[start + 8 : start + 16] != salts:
            break
        sums = _checksum(_checksum(sums, log[start : start + 8], order), log[start + FRAME : end], order)
        if struct.pack(">II", *sums) != log[start + 16 : start + 24]:
            break
        page, pages_after = struct.unpack_from(">II", log, start)
        found.append(Frame(start, end, page, pages_after))
        start = end
    return found


def commits_in(log: bytes) -> list[int]:
    """Where each commit ends."""
    return [frame.end for frame in frames_in(log) if frame.pages_after]


def _checksum(sums: tuple[int, int], content: bytes, order: str) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(content) // 4}I", content)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
