"""What a loss of power leaves: all that was synced, and of what was written since any part.

What SQLite does was seen by tracing its system calls (3.40, `synchronous="FULL"`), and the kinds of remains follow from it:

- A commit appends its frames to the log and syncs it; only then anybody is told. The header of a new log is synced before its first frame, and with
  it the folder. So the log ends anywhere after the last sync, or what its blocks had before stands behind.
- A checkpoint syncs the log, writes the pages into the main file, and syncs that; so over a whole log any of its pages are written, in part or whole.
- The log is begun anew, by a header that is synced alone, or removed, after that. So the main file is whole whatever becomes of the log then.

With `synchronous="NORMAL"` the commits' syncs are left out, and nothing else: the same cuts, but whoever was told may find the last commits missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import NamedTuple

from tests.store.crashes.files import Files
from tests.store.crashes.log import FRAME, HEADER, frames_in, page_size

_NOISE = Random(17)
_OTHER = bytes(byte ^ 0x5A for byte in range(256))


class Cut(NamedTuple):
    """What is left, and how many commits of the log count in it."""

    where: str
    files: Files
    commits: int


def of_log(files: Files, is_thorough: bool) -> Iterator[Cut]:
    """The log ends at every frame, and within it; behind the end is nothing, or what should not count. Where not all is wanted these take turns."""
    log = files.log or b""
    frames = frames_in(log)
    size = page_size(log)
    within = (1, 8, 16, FRAME - 1, FRAME, FRAME + 1, FRAME + size // 2, FRAME + size - 512, FRAME + size - 1)
    ends = [frame.end for frame in frames if frame.pages_after]
    for place in (0, 1, HEADER - 1):
        yield Cut(f"the log's header cut at {place}", files._replace(log=log[:place]), 0)
    for number, frame in enumerate(frames):
        commits = sum(end <= frame.start for end in ends)
        where = f"the log cut before frame {number} of {len(frames)}"
        yield Cut(where, files._replace(log=log[: frame.start]), commits)
        for offset in within if is_thorough else (within[number % len(within)],):
            cut = frame.start + offset
            for name, rest in _rests(log, cut, None if is_thorough else number):
                left = log[:cut] + rest
                # What is behind may be what was there: zeros.
                more = sum(left[cut:end] == log[cut:end] for end in ends[commits:][:1])
                yield Cut(f"{where}, {offset} bytes on, with {name} behind", files._replace(log=left), commits + more)
    yield Cut("the log whole", files, len(ends))


def _rests(log: bytes, cut: int, turn: int | None) -> Iterator[tuple[str, bytes]]:
    """What is behind the cut, by name: all of the kinds, or one of them."""
    rest = len(log) - cut
    kinds: list[tuple[str, Callable[[], bytes]]] = [
        ("nothing", lambda: b""),
        ("zeros", lambda: bytes(rest)),
        ("noise", lambda: _NOISE.randbytes(rest)),
        ("frames of an earlier round", lambda: _resalted(log[cut:])),
    ]
    for name, made in kinds if turn is None else [kinds[turn % len(kinds)]]:
        yield name, made()


def _resalted(log: bytes) -> bytes:
    """The log as one of a round before, which has nothing in common with this one."""
    return log.translate(_OTHER)


def of_checkpoint(files: Files, is_thorough: bool) -> Iterator[Cut]:
    """A checkpoint that ends after every page, in mid-page, or with any of its pages done; and a log that is begun anew over the old one."""
    log = files.log or b""
    frames = frames_in(log)
    size = page_size(log)
    commits = sum(1 for frame in frames if frame.pages_after)
    if not commits:
        return
    committed = [n for n, frame in enumerate(frames) if frame.pages_after][-1] + 1
    latest = {frame.page: log[frame.start + FRAME : frame.end] for frame in frames[:committed]}
    pages = sorted(latest.items())
    for done in range(len(pages) + 1):
        main = _written(files.main, size, pages[:done])
        where = f"a checkpoint of {len(pages)} pages stopped after {done}"
        yield Cut(where, files._replace(main=main), commits)
        for number, content in pages[done : done + 1]:
            for part in (512, size // 2, size - 1) if is_thorough else (size // 2,):
                torn = _written(main, size, [(number, content[:part])])
                yield Cut(f"{where} and {part} bytes", files._replace(main=torn), commits)
    for seed in range(8 if is_thorough else 1):
        some = Random(seed).sample(pages, len(pages) // 2)
        where = f"of a checkpoint the pages {[number for number, _ in some]}"
        yield Cut(where, files._replace(main=_written(files.main, size, some)), commits)
    yield from _begun_anew(files, _written(files.main, size, pages), commits, is_thorough)


def _begun_anew(files: Files, main: bytes, commits: int, is_thorough: bool) -> Iterator[Cut]:
    """All is in the main file: whatever is left of the log changes nothing, also while its header gives way to the next."""
    log = files.log or b""
    yield Cut("a checkpoint done, and no log", Files(main), commits)
    yield Cut("a checkpoint done, and an empty log", Files(main, b""), commits)
    for place in range(1, HEADER) if is_thorough else (17, 20, 28):
        header = log[:12] + bytes(byte ^ 0xA5 for byte in log[12:HEADER])
        yield Cut(f"a new header over the old one up to {place}", Files(main, header[:place] + log[place:]), commits)


def _written(main: bytes, size: int, pages: Iterable[tuple[int, bytes]]) -> bytes:
    """The main file with these pages, or the beginnings of pages, written."""
    new = bytearray(main)
    for number, content in pages:
        start = (number - 1) * size
        if len(new) < start:
            new.extend(bytes(start - len(new)))
        new[start : start + len(content)] = content
    return bytes(new)
