"""The annotations of a class's fields, resolved: texts become types, type variables the arguments of the class.

1. Nothing is guessed: a name that cannot be found is a `Mismatch` that says which and where.
2. The variables of each base class are its own, even where a subclass uses the same variable for something else.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

from replayflow.codec.plan import Mismatch
from replayflow.codec.texts import named

Arguments = Mapping[Any, Any]


def field_types(kind: type, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """The annotation of every field of the class, given `arguments` for its type parameters.

    Raises:
        Mismatch: an annotation cannot be resolved.
    """
    hints = _hints(kind)
    scopes = _scopes(kind, arguments)
    if not any(scopes.values()):
        return hints
    return {name: substitute(hint, scopes.get(_owner(kind, name), {})) for name, hint in hints.items()}


def substitute(annotation: Any, arguments: Arguments) -> Any:
    """The annotation with the type variables in it replaced."""
    if isinstance(annotation, TypeVar):
        return arguments.get(annotation, annotation)
    parameters = getattr(annotation, "__parameters__", ())
    if not parameters or get_origin(annotation) is None:
        return annotation
    return annotation[tuple(arguments.get(parameter, parameter) for parameter in parameters)]


def _hints(kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except NameError:
        pass
    except Exception as error:  # an annotation is any expression, and evaluating it can raise anything
        raise Mismatch.because(
            f"the annotations of {named(kind)} cannot be read: {type(error).__name__}: {error}"
        ) from error
    # A class that was defined in a function is not in its module's names, and may still name itself.
    local_names: dict[str, Any] = {base.__name__: base for base in reversed(kind.__mro__)}
    try:
        return typing.get_type_hints(kind, vars(sys.modules[kind.__module__]), local_names, include_extras=True)
    except NameError as error:
        raise Mismatch.because(
            f"the annotations of {named(kind)} name {error.name!r}, which is not in the module {kind.__module__!r}; "
            "define or import it at the top of that module"
        ) from error


def _owner(kind: type, name: str) -> type | None:
    return next((base for base in kind.__mro__ if name in inspect.get_annotations(base)), None)


def _scopes(kind: type, arguments: tuple[Any, ...]) -> dict[type | None, dict[Any, Any]]:
    parameters = getattr(kind, "__parameters__", None) or ()
    own = dict(zip(parameters, arguments, strict=False))
    scopes: dict[type | None, dict[Any, Any]] = {kind: own}
    for base in getattr(kind, "__orig_bases__", ()):
        origin = get_origin(base)
        if isinstance(origin, type) and hasattr(origin, "__parameters__"):
            given = tuple(substitute(argument, own) for argument in get_args(base))
            scopes = {**_scopes(origin, given), **scopes}
    for base in kind.__bases__:
        if base not in scopes and base is not object:
            scopes = {**_scopes(base, ()), **scopes}
    return scopes
