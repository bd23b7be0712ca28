"""Telling whether code has changed: a digest of what a function does, blind to where it stands.

It sees the function and the functions inside it, not those that it calls: a changed digest says that histories should be tried against the code, an
unchanged one proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from types import CodeType
from typing import Any


def digest_of(fn: Callable[..., Any]) -> str:
    """The same for the same code, also at other lines of another file, and in every process of one version of Python."""
    code = getattr(fn, "__code__", None)
    hashed = sha256()
    for part in _parts(code) if isinstance(code, CodeType) else iter([getattr(fn, "__qualname__", repr(type(fn)))]):
        hashed.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return hashed.hexdigest()[:32]


def _parts(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_flags))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
        elif isinstance(constant, frozenset):
            yield repr(sorted(map(repr, constant)))  # its own order is another in every process
        else:
            yield repr(constant)
