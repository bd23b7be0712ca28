"""How values and annotations are called in messages: short, and never an error of their own."""

from __future__ import annotations

import reprlib
import sys
import types
from typing import Any, get_args, get_origin

SHOWN_CHARS_MAX = 80


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = SHOWN_CHARS_MAX

    def repr_int(self, x: int, level: int) -> str:
        # The decimal digits of a long int take quadratic time, and the interpreter refuses to write very many.
        return super().repr_int(x, level) if x.bit_length() < 1024 else f"<{x.bit_length()} bits>"


_short = _Short()


def shown(value: object, *, with_type: bool = True) -> str:
    """The value as a message shows it: its type and its repr, cut to 80 characters."""
    try:
        text = _short.repr(value)
    except Exception:  # a user's __repr__ may raise, and the message is about something else
        text = f"<{type(value).__name__}>"
    if " at 0x" in text:  # an address says nothing, and makes the same failure look new each time
        text = f"<{type(value).__name__}>"
    if len(text) > SHOWN_CHARS_MAX:
        text = text[: SHOWN_CHARS_MAX - 3] + "..."
    return text if value is None or not with_type else f"{type(value).__name__} {text}"


def public_module(kind: type) -> str:
    """The module that users import the class from: that in which it was made may be private (`pathlib._local`), and is then another elsewhere."""
    made_in = kind.__module__
    public = made_in.partition("._")[0]
    return public if getattr(sys.modules.get(public), kind.__qualname__, None) is kind else made_in


def named(annotation: Any) -> str:
    """The annotation as its author wrote it, without module names."""
    if annotation is None or annotation is types.NoneType:
        return "None"
    if annotation is ...:
        return "..."
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation.__qualname__.rpartition("<locals>.")[2]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is not None and isinstance(origin, type) and origin is not types.UnionType and arguments:
        return f"{named(origin)}[{', '.join(map(named, arguments))}]"
    if arguments and (origin is types.UnionType or str(origin) in ("typing.Union", "<class 'typing.Union'>")):
        return " | ".join(map(named, arguments))
    return str(annotation).replace("typing.", "")
