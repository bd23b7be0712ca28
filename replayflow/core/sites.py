"""Source lines: where in the user's code a decision was made, as `folder/file.py:24`.

Walking to a line costs more than the rest of a call, so that each place in the code is looked up once. The key is the code object's identity and the
instruction; the code object is kept beside it, so that the identity is not used again.
"""

from __future__ import annotations

from collections.abc import Generator
from types import CodeType, FrameType

_OURS = __file__.removesuffix("sites.py")
_CACHE_SIZE_MAX = 10_000
_cache: dict[tuple[int, int], tuple[str, CodeType]] = {}


def site_of(frame: FrameType) -> str:
    """The line that the frame is at."""
    code = frame.f_code
    key = (id(code), frame.f_lasti)
    found = _cache.get(key)
    if found is None:
        if len(_cache) >= _CACHE_SIZE_MAX:
            _cache.clear()
        found = _cache[key] = (f"{_short(code.co_filename)}:{frame.f_lineno}", code)
    return found[0]


def site_of_code(code: CodeType | None) -> str:
    """The line at which the function begins."""
    return "line unknown" if code is None else f"{_short(code.co_filename)}:{code.co_firstlineno}"


def waiting_frame(generator: object) -> FrameType | None:
    """Where the user's code waits: the innermost frame of the generator and of those that it delegates to with `yield from`; None at its end.

    A task is such a generator, too, and so are others of ours. They are passed over.
    """
    frame: FrameType | None = None
    while isinstance(generator, Generator):
        own: FrameType | None = getattr(generator, "gi_frame", None)
        if own is not None and (frame is None or not own.f_code.co_filename.startswith(_OURS)):
            frame = own
        generator = getattr(generator, "gi_yieldfrom", None)
    return frame


def _short(path: str) -> str:
    return "/".join(path.replace("\\", "/").rsplit("/", 2)[-2:])
