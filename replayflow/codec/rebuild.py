"""From an annotation to the plan that rebuilds its values.

1. Compiling never fails: an annotation that cannot be compiled has a plan that refuses values and says why.
2. A plan is remembered by the identity of its annotation. Equality would not do: `A | B == B | A`, and the order
   decides which is tried first.
3. The memory of plans is bounded.
"""

from __future__ import annotations

import collections
import dataclasses
import inspect
import types
import typing
from collections import abc
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, ForwardRef, Literal, NewType, TypeVar, Union, get_args, get_origin

from replayflow.codec import models
from replayflow.codec.containers import converted, fixed_tuple_plan, items_plan, mapping_plan
from replayflow.codec.hints import substitute
from replayflow.codec.plan import ANYTHING, SEQUENCE, Mismatch, Plan, lazy, refusing
from replayflow.codec.records import dataclass_plan, model_plan, named_tuple_plan, typed_dict_plan
from replayflow.codec.scalars import int_key, scalar_plans
from replayflow.codec.texts import named
from replayflow.codec.unions import Tries, enum_plan, literal_plan, union_plan

_PLANS_MAX = 4096

_UNANNOTATED = (Any, object, inspect.Parameter.empty)
_QUALIFIERS = ("Required", "NotRequired", "ReadOnly", "Final", "ClassVar")

# Which plain types are taken, and the type that is built of them (None: the same again).
_ITEMS: dict[Any, tuple[tuple[type, ...], Callable[[Any], Any] | None]] = {
    list: ((list,), list),
    tuple: ((tuple, list), tuple),
    set: ((set, list), set),
    frozenset: ((frozenset, list), frozenset),
    abc.Sequence: ((list, tuple), None),
    abc.MutableSequence: ((list,), list),
    abc.Collection: ((list, tuple, set, frozenset), None),
    abc.Iterable: ((list, tuple, set, frozenset), None),
    abc.Reversible: ((list, tuple), None),
    abc.Container: ((list, tuple, set, frozenset), None),
    abc.MutableSet: ((set, list), set),
}
_MAPPINGS: dict[Any, Callable[[Any], Any]] = {
    dict: dict,
    abc.Mapping: dict,
    abc.MutableMapping: dict,
    collections.OrderedDict: collections.OrderedDict,
    collections.Counter: collections.Counter,
    collections.defaultdict: lambda entries: collections.defaultdict(None, entries),
}


class Plans:
    """The compiled annotations of payloads that came as JSON, or of all others."""

    def __init__(self, *, from_json: bool) -> None:
        self.tries = Tries()
        self._from_json = from_json
        self._scalars = scalar_plans(from_json)
        self._known: dict[int, tuple[Any, Plan]] = {}

    def plan(self, annotation: Any) -> Plan:
        """The plan of the annotation, compiled at most once for each object that is passed."""
        known = self._known.get(id(annotation))
        if known is not None:
            return known[1]
        plan = self._compile(annotation)
        if len(self._known) >= _PLANS_MAX:
            self._known.clear()
        self._known[id(annotation)] = (annotation, plan)  # the annotation is kept, so that its identity stays its own
        return plan

    def _compile(self, annotation: Any) -> Plan:
        if any(annotation is each for each in _UNANNOTATED):
            return ANYTHING
        if annotation is None:
            return self._scalars[type(None)]
        origin = get_origin(annotation)
        if origin is None:
            return self._compile_bare(annotation)
        return self._compile_alias(annotation, origin, get_args(annotation))

    def _compile_bare(self, annotation: Any) -> Plan:
        if isinstance(annotation, str | ForwardRef):
            text = annotation if isinstance(annotation, str) else annotation.__forward_arg__
            return refusing(text, f"the annotation {text!r} is text that was not resolved; pass the type itself")
        if isinstance(annotation, TypeVar):
            return self._type_variable(annotation)
        if isinstance(annotation, NewType):
            return self.plan(annotation.__supertype__)
        if _is_alias_statement(annotation):
            return lazy(named(annotation), None, lambda: self.plan(annotation.__value__).apply)
        if getattr(annotation, "__name__", "") == "LiteralString" and not isinstance(annotation, type):
            return self._scalars[str]
        if isinstance(annotation, type):
            return self._compile_class(annotation, annotation, ())
        return ANYTHING if str(annotation) in ("typing.Final", "typing.ClassVar") else _unknown(annotation)

    def _compile_alias(self, annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> Plan:
        if origin is Annotated or getattr(origin, "_name", "") in _QUALIFIERS:
            return self.plan(arguments[0])
        if origin is Union or origin is types.UnionType:
            return union_plan(named(annotation), tuple(self.plan(argument) for argument in arguments), self.tries)
        if origin is Literal:
            return literal_plan(named(annotation), arguments)
        if _is_alias_statement(origin):
            scope = dict(zip(origin.__type_params__, arguments, strict=False))
            return lazy(named(annotation), None, lambda: self.plan(substitute(origin.__value__, scope)).apply)
        if isinstance(origin, type):
            return self._compile_class(annotation, origin, arguments)
        return _unknown(annotation)

    def _compile_class(self, annotation: Any, kind: type, arguments: tuple[Any, ...]) -> Plan:
        name = named(annotation)
        scalar = self._scalars.get(kind)
        if scalar is not None:
            return scalar
        container = self._container(name, kind, arguments)
        if container is not None:
            return container
        if issubclass(kind, Enum):
            return enum_plan(kind)
        if models.is_model(kind) or models.is_model_dataclass(kind):
            return model_plan(annotation if models.is_model(kind) else kind)
        if dataclasses.is_dataclass(kind):
            return dataclass_plan(kind, name, arguments, self.plan)
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return named_tuple_plan(kind, name, arguments, self.plan)
        if issubclass(kind, dict) and hasattr(kind, "__required_keys__"):
            return typed_dict_plan(kind, name, arguments, self.plan)
        return self._subclass(name, kind) or _instances(annotation, kind)

    def _container(self, name: str, kind: Any, arguments: tuple[Any, ...]) -> Plan | None:
        if kind in _MAPPINGS:
            key, item = (*map(self.plan, arguments), ANYTHING, ANYTHING)[:2]
            if kind is collections.Counter:
                item = self._scalars[int]
            if self._from_json and key.exact is int:
                key = converted(key, int_key)
            return mapping_plan(name, key, item, _MAPPINGS[kind])
        if kind is tuple and arguments[-1:] != (...,) and (arguments or name.endswith("[()]")):
            if any(map(_is_unpacked, arguments)):
                return refusing(name, f"the annotation {name} has an unpacked part, which no payload is rebuilt for")
            return fixed_tuple_plan(name, tuple(map(self.plan, arguments)))
        if kind is abc.Set:
            return self._any_set(name, arguments)
        if kind not in _ITEMS:
            return None
        kinds, build = _ITEMS[kind]
        wire = frozenset(kinds) if build is None or len(kinds) == 1 else frozenset(kinds) - SEQUENCE
        return items_plan(name, self.plan(arguments[0]) if arguments else ANYTHING, kinds, build, wire)

    def _any_set(self, name: str, arguments: tuple[Any, ...]) -> Plan:
        item = self.plan(arguments[0]) if arguments else ANYTHING
        frozen = items_plan(name, item, (frozenset,), frozenset, frozenset({frozenset}))
        return union_plan(name, (items_plan(name, item, (set, list), set, frozenset({set})), frozen), self.tries)

    def _type_variable(self, variable: TypeVar) -> Plan:
        if variable.__constraints__:
            return union_plan(str(variable), tuple(map(self.plan, variable.__constraints__)), self.tries)
        return ANYTHING if variable.__bound__ is None else self.plan(variable.__bound__)

    def _subclass(self, name: str, kind: Any) -> Plan | None:
        """The plan of a class derived from a plain type, which travels as that type and is built from it again."""
        base: Any = next(
            (base for base in kind.__mro__ if base in self._scalars or base in _ITEMS or base in _MAPPINGS), None
        )
        if base is None or base in (type(None), bool) or base.__module__ == "collections.abc":
            return None
        plain = self.plan(base)

        def rebuild(value: Any) -> Any:
            plain_value = plain.apply(value)
            try:
                return kind(plain_value)
            except Exception as error:
                raise Mismatch.because(f"{name} cannot be built: {type(error).__name__}: {error}") from error

        return Plan(name, rebuild, plain.wire)


def _is_alias_statement(annotation: Any) -> bool:
    # `type X = ...` of Python 3.12, or its equal from typing_extensions.
    return type(annotation).__name__ == "TypeAliasType"


def _is_unpacked(argument: Any) -> bool:
    return get_origin(argument) is typing.Unpack or bool(getattr(argument, "__unpacked__", False))


def _unknown(annotation: Any) -> Plan:
    name = named(annotation)
    return refusing(
        name, f"the annotation {name} is none that a payload can be rebuilt for; annotate a supported type or Any"
    )


def _instances(annotation: Any, kind: type) -> Plan:
    """The plan of a class that no payload is built as: plain values that are instances of it pass."""
    unknown = _unknown(annotation)

    def rebuild(value: Any) -> Any:
        try:
            if isinstance(value, kind):
                return value
        except TypeError:  # a Protocol that cannot be checked
            pass
        return unknown.apply(value)

    return Plan(unknown.name, rebuild, frozenset())
