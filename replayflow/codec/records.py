"""Plans of classes with named fields: dataclasses, named tuples, typed dicts and pydantic models.

1. Keys that the class does not know are ignored, and fields without a value get their default: code may add and drop
   fields while instances run.
2. A class is compiled when its first value comes, so that it may contain itself.
3. What a user's constructor or validator raises is a `Mismatch` at the place of the value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from replayflow.codec import models
from replayflow.codec.hints import field_types
from replayflow.codec.plan import RECORD, Mismatch, Plan, Rebuild, lazy, refusing
from replayflow.codec.simplify import init_only
from replayflow.codec.texts import named, shown

Compile = Callable[[Any], Plan]

_ABSENT = object()
_SCALARS_FIRST = (str, int, bool, float, type(None))
_QUALIFIERS = ("Required", "NotRequired")


_Field = tuple[str, Plan, bool]  # its name, its plan, and whether it is required


def _scalars_first(field: _Field) -> bool:
    # A record that is not meant shows it soonest in a literal or a number; a union then spends no time on its large
    # parts.
    wire = field[1].wire
    return wire is None or not wire.issubset(_SCALARS_FIRST)


def dataclass_plan(kind: Any, name: str, arguments: tuple[Any, ...], compile_: Compile) -> Plan:
    """The plan of a dataclass with these type arguments."""
    parameters = init_only(kind)
    if parameters:
        return refusing(name, f"{name} has the InitVar {parameters[0]!r}, which no payload keeps; make it a field")
    keys = frozenset(field.name for field in dataclasses.fields(kind))
    return lazy(name, RECORD, lambda: _dataclass(kind, name, arguments, compile_), keys)


def _dataclass(kind: Any, name: str, arguments: tuple[Any, ...], compile_: Compile) -> Rebuild:
    types = field_types(kind, arguments)
    initial: list[_Field] = []
    later: list[_Field] = []
    for field in dataclasses.fields(kind):
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        compiled = (field.name, compile_(types[field.name]), field.init and not has_default)
        (initial if field.init else later).append(compiled)
    initial.sort(key=_scalars_first)

    def rebuild(value: Any) -> Any:
        if type(value) is not dict:
            raise Mismatch(name, value)
        instance = _constructed(kind, name, _values(name, initial, value))
        if later:
            for field_name, field_value in _values(name, later, value).items():
                object.__setattr__(
                    instance, field_name, field_value
                )  # past the guard of a frozen class, as its own constructor does it
        return instance

    return rebuild


def _values(name: str, fields: list[_Field], record: dict[Any, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    field_name = ""
    try:
        for field_name, plan, is_required in fields:
            value = record.get(field_name, _ABSENT)
            if type(value) is plan.exact:
                values[field_name] = value
            elif value is not _ABSENT:
                values[field_name] = value if plan.rebuild is None else plan.rebuild(value)
            elif is_required:
                raise Mismatch.because(f"expected {plan.name}, found nothing: {name}.{field_name} has no default")
    except Mismatch as mismatch:
        raise mismatch.under(f".{field_name}") from None
    return values


def _constructed(kind: Any, name: str, values: dict[str, Any]) -> Any:
    try:
        return kind(**values)
    except Exception as error:
        raise Mismatch.because(f"{name} cannot be built: {type(error).__name__}: {error}") from error


def named_tuple_plan(kind: Any, name: str, arguments: tuple[Any, ...], compile_: Compile) -> Plan:
    """The plan of a named tuple: a tuple or list of its fields' values, in order."""
    return lazy(name, frozenset({tuple}), lambda: _named_tuple(kind, name, arguments, compile_))


def _named_tuple(kind: Any, name: str, arguments: tuple[Any, ...], compile_: Compile) -> Rebuild:
    types = field_types(kind, arguments)
    names: tuple[str, ...] = kind._fields
    plans = [compile_(types.get(field_name, Any)) for field_name in names]
    required = len(names) - len(kind._field_defaults)

    def rebuild(value: Any) -> Any:
        if type(value) is not tuple and type(value) is not list:
            raise Mismatch(name, value)
        if not required <= len(value) <= len(names):
            raise Mismatch(f"{name} ({len(names)} fields)", value)
        parts: list[Any] = []
        try:
            for plan, part in zip(plans, value, strict=False):
                parts.append(plan.apply(part))
        except Mismatch as mismatch:
            raise mismatch.under(f".{names[len(parts)]}") from None
        return kind(*parts)

    return rebuild


def typed_dict_plan(kind: Any, name: str, arguments: tuple[Any, ...], compile_: Compile) -> Plan:
    """The plan of a typed dict; keys that it does not know stay, since a dict has nowhere to hide what it loses."""
    keys = frozenset(getattr(kind, "__annotations__", {}))
    return lazy(name, RECORD, lambda: _typed_dict(kind, name, arguments, compile_), keys)


def _typed_dict(kind: Any, name: str, arguments: tuple[Any, ...], compile_: Compile) -> Rebuild:
    fields = [
        (key, compile_(hint), _is_required(kind, key, hint)) for key, hint in field_types(kind, arguments).items()
    ]

    def rebuild(value: Any) -> Any:
        if type(value) is not dict:
            raise Mismatch(name, value)
        return {**value, **_values(name, fields, value)}

    return rebuild


def _is_required(kind: Any, key: str, hint: Any) -> bool:
    # Where the annotations are texts, the class itself could not see these words in them, and its own record is wrong.
    qualifier = str(getattr(hint, "__origin__", "")).rpartition(".")[2]
    if qualifier in _QUALIFIERS:
        return qualifier == "Required"
    return key in kind.__required_keys__


def model_plan(kind: Any) -> Plan:
    """The plan of a pydantic model or dataclass: its own validation of the plain value."""
    name = named(kind)
    check = models.validate(kind)
    is_model = models.is_model(kind)
    field_names = frozenset(() if is_model else (field.name for field in dataclasses.fields(kind) if field.init))

    def rebuild(value: Any) -> Any:
        if not is_model and type(value) is dict:
            value = {key: item for key, item in value.items() if key in field_names}
        try:
            return check(value)
        except Exception as error:
            raise _model_mismatch(name, error) from error

    if models.is_root_model(kind):
        return Plan(name, rebuild, None)
    return Plan(name, rebuild, RECORD, None, models.names(kind) if is_model else field_names)


def _model_mismatch(name: str, error: Exception) -> Mismatch:
    problem = models.first_problem(error)
    if problem is None:
        return Mismatch.because(f"{name} cannot be built: {type(error).__name__}: {error}")
    path, message, found = problem
    return Mismatch.because(f"expected {name} ({message}), found {shown(found)}", path)
