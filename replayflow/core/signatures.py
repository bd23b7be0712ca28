"""What a function's signature says: its name, its positional parameters, its annotations as types."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from replayflow.core.ids import plain
from replayflow.errors import RegistrationError

NAME_CHARS_MAX = 256
OWN_PREFIX = "replayflow."


def check_name(fn: Callable[..., Any], name: str | None, what: str) -> str:
    """The name under which the function is registered: its own, or the one given.

    Raises:
        RegistrationError: it is no function, or the name is none.
    """
    if not callable(fn):
        raise RegistrationError(
            f"@app.{what} was given {fn!r:.80}, which is no function; its options are keywords: @app.{what}(name='...')"
        )
    title = getattr(fn, "__name__", None) if name is None else name
    if not isinstance(title, str) or not 0 < len(title) <= NAME_CHARS_MAX or not title.isprintable():
        raise RegistrationError(
            f"{title!r:.80} is no name for an {what}: it is printable text of 1 to {NAME_CHARS_MAX} characters"
        )
    if title.startswith(OWN_PREFIX):
        raise RegistrationError(
            f"{title!r:.80}: names that begin with {OWN_PREFIX!r} are replayflow's own; choose another"
        )
    if title == "<lambda>":
        raise RegistrationError(
            f"a lambda has no name to be found by after a restart: give it one, @app.{what}(name='...')"
        )
    return plain(title)


def parameters_of(fn: Callable[..., Any], title: str, what: str) -> list[inspect.Parameter]:
    """The positional parameters.

    Raises:
        RegistrationError: the function takes what nobody passes.
    """
    parameters = list(inspect.signature(fn).parameters.values())
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise RegistrationError(
                f"{what} '{title}' takes {parameter}: it is called with one input; name the parameter"
            )
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            raise RegistrationError(
                f"{what} '{title}' needs the keyword '{parameter.name}', which nobody passes: give it a default"
            )
    return [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def hints_of(fn: Callable[..., Any], known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The function's annotations, as far as they can be resolved; `known` are names that its module does not have, or not yet."""
    try:
        return typing.get_type_hints(fn, localns=_names(known), include_extras=True)
    except Exception:  # a name that only a type checker sees: what can be resolved is, the rest is as if not annotated
        return {name: hint for name in getattr(fn, "__annotations__", {}) for hint in _hint(fn, name, known)}


def _hint(fn: Callable[..., Any], name: str, known: Mapping[str, Any] | None) -> list[Any]:
    alone = types.SimpleNamespace(__annotations__={name: fn.__annotations__[name]})
    try:
        found = typing.get_type_hints(
            alone, globalns=getattr(fn, "__globals__", {}), localns=_names(known), include_extras=True
        )
        return [found[name]]
    except Exception:
        return []


def _names(known: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if known is None else dict(known)
