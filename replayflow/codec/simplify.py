"""From a value of any supported class to a value of a plain type with the same content: one layer, not what is inside.

1. What comes back is of exactly one of the built-in or standard-library types that the wire has, or simplifying again
   gets it there.
2. How a class is simplified is found once and remembered, for a bounded number of classes.
3. A class that is not supported is refused by name; nothing is guessed from its attributes.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from replayflow.codec import models
from replayflow.codec.texts import public_module

Simplify = Callable[[Any], Any]

_CLASSES_MAX = 4096
_known: dict[type, Simplify] = {}


class Refused(Exception):
    """A value that cannot travel; the text says why, without a path."""


def simplify(value: object) -> Any:
    """The value one step nearer to a plain type.

    Raises:
        Refused: its class is not supported.
    """
    kind = type(value)
    found = _known.get(kind)
    if found is None:
        found = _find(kind)
        if len(_known) >= _CLASSES_MAX:
            _known.clear()
        _known[kind] = found
    return found(value)


def _find(kind: type) -> Simplify:
    if issubclass(kind, BaseException):
        return _refuse(f"{_article(kind)} is an exception, which cannot travel in a payload; pass its text")
    if issubclass(kind, Enum):
        return operator.attrgetter("_value_")
    if models.is_model(kind):
        return models.dump
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    for base in kind.__mro__:
        if base in _BASES:
            return _BASES[base]
    return _refuse(
        f"{_article(kind)} cannot travel in a payload; pass an id, a path or a dataclass of supported types instead"
    )


def _refuse(reason: str) -> Simplify:
    def refuse(value: object) -> Any:
        text = (
            f"the class {value.__qualname__} cannot travel in a payload; pass its name"
            if isinstance(value, type)
            else reason
        )
        raise Refused(text)

    return refuse


def _article(kind: type) -> str:
    module = "" if kind.__module__ == "builtins" else f"{public_module(kind)}."
    return f"a value of type {module}{kind.__qualname__}"


def _dataclass(kind: type) -> Simplify:
    parameters = init_only(kind)
    if parameters:
        return _refuse(
            f"the dataclass {kind.__qualname__} has the InitVar {parameters[0]!r}, which no instance keeps and nothing "
            "could restore; make it a field"
        )
    names = tuple(field.name for field in dataclasses.fields(kind))
    if not kind.__dictoffset__:
        return lambda value: _present(value, names)
    keys = frozenset(names)

    def simplify_dataclass(value: object) -> dict[str, Any]:
        # Nearly always the instance's attributes are its fields and nothing else, and need no copy.
        attributes = value.__dict__
        return attributes if attributes.keys() == keys else _present(value, names)

    return simplify_dataclass


def _present(value: object, names: tuple[str, ...]) -> dict[str, Any]:
    # A field with init=False may never have been given a value.
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def init_only(kind: type) -> list[str]:
    """The names of a dataclass's `InitVar` parameters, which are no fields."""
    pseudo_field = getattr(dataclasses, "_FIELD_INITVAR")  # noqa: B009 - the standard library has no public way to ask
    every: dict[str, Any] = getattr(kind, "__dataclass_fields__")  # noqa: B009 - checkers do not know it
    return [name for name, field in every.items() if field._field_type is pseudo_field]


def _bytes(value: bytes | bytearray) -> bytes:
    return bytes(memoryview(value))  # not bytes(value), which asks a subclass


def _datetime(v: datetime) -> datetime:
    return datetime(v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.tzinfo, fold=v.fold)


def _time(v: time) -> time:
    return time(v.hour, v.minute, v.second, v.microsecond, v.tzinfo, fold=v.fold)


# The classes' own methods, since a subclass may override the conversions; `dict` asks an OrderedDict for its order.
_BASES: dict[type, Simplify] = {
    datetime: _datetime,
    date: lambda value: date(value.year, value.month, value.day),
    time: _time,
    timedelta: lambda value: timedelta(value.days, value.seconds, value.microseconds),
    Decimal: Decimal,
    UUID: lambda value: UUID(int=value.int),
    complex: lambda value: complex(value.real, value.imag),
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: _bytes,
    bytearray: _bytes,
    list: list.copy,
    tuple: tuple,
    dict: dict,
    set: set,
    frozenset: frozenset,
}
