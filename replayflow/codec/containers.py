"""Plans of lists, tuples, sets and mappings: each part by the plan of its own annotation.

1. Where every part is right as it is, a container comes back as it was read, with one pass over the types of its parts.
2. The place of a part that does not fit is known from what has been built so far; nothing is tried twice to find it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from replayflow.codec.decode import Pairs
from replayflow.codec.plan import Mismatch, Plan, Rebuild
from replayflow.codec.texts import shown


def items_plan(
    name: str, item: Plan, kinds: tuple[type, ...], build: Callable[[Any], Any] | None, wire: frozenset[type]
) -> Plan:
    """A plan of values with one kind of part: values of the types `kinds`, built anew by `build` (None: their own)."""

    def rebuild(value: Any) -> Any:
        kind = type(value)
        if kind not in kinds:
            raise Mismatch(name, value)
        make = build or kind
        if _is_right(value, item):
            return value if kind is make else _built(name, make, value)
        return _built(name, make, _parts(value, item))

    return Plan(name, rebuild, wire)


def _is_right(values: Collection[Any], plan: Plan) -> bool:
    return plan.rebuild is None or (plan.exact is not None and {*map(type, values)} <= {plan.exact})


def _parts(values: Any, item: Plan) -> list[Any]:
    parts: list[Any] = []
    exact = item.exact
    try:
        for value in values:
            # Read anew for each part: the first one may have compiled it.
            rebuild = item.rebuild
            parts.append(value if type(value) is exact or rebuild is None else rebuild(value))
    except Mismatch as mismatch:
        raise mismatch.under(f"[{len(parts)}]") from None
    return parts


def _built(name: str, build: Callable[[Any], Any], parts: Any) -> Any:
    if build is list and type(parts) is list:
        return parts
    try:
        return build(parts)
    except Exception as error:  # parts that cannot be hashed, or the constructor of a user's subclass
        raise Mismatch.because(f"{name} cannot be built: {type(error).__name__}: {error}") from error


def fixed_tuple_plan(name: str, items: tuple[Plan, ...]) -> Plan:
    """A plan of tuples with so many parts, each of its own annotation."""

    def rebuild(value: Any) -> Any:
        if type(value) is not tuple and type(value) is not list:
            raise Mismatch(name, value)
        if len(value) != len(items):
            raise Mismatch(f"{name} ({len(items)} items)", value)
        parts: list[Any] = []
        try:
            for item, part in zip(items, value, strict=True):
                parts.append(item.apply(part))
        except Mismatch as mismatch:
            raise mismatch.under(f"[{len(parts)}]") from None
        return tuple(parts)

    return Plan(name, rebuild, frozenset({tuple}))


def mapping_plan(name: str, key: Plan, item: Plan, build: Callable[[Any], Any]) -> Plan:
    """A plan of mappings, built by `build` from a dict."""

    def rebuild(value: Any) -> Any:
        if type(value) is dict:
            if _is_right(value, key) and _is_right(value.values(), item):
                return value if build is dict else _built(name, build, value)
            pairs: Any = value.items()
        elif type(value) is Pairs:
            pairs = value
        else:
            raise Mismatch(name, value)
        entries = _entries(pairs, key, item)
        return entries if build is dict else _built(name, build, entries)

    return Plan(name, rebuild, frozenset({dict, Pairs}))


def _entries(pairs: Any, key: Plan, item: Plan) -> dict[Any, Any]:
    entries: dict[Any, Any] = {}
    for wire_key, wire_item in pairs:
        try:
            entry_key = key.apply(wire_key)
        except Mismatch as mismatch:
            raise mismatch.under(f"[key {shown(wire_key)}]") from None
        try:
            entries[entry_key] = item.apply(wire_item)
        except Mismatch as mismatch:
            raise mismatch.under(f"[{shown(wire_key, with_type=False)}]") from None
        except TypeError as error:
            raise Mismatch.because(f"cannot be a key: {error}", f"[key {shown(wire_key)}]") from error
    return entries


def converted(plan: Plan, convert: Rebuild) -> Plan:
    """The plan, with values that do not fit given to `convert` first."""

    def rebuild(value: Any) -> Any:
        try:
            return plan.apply(value)
        except Mismatch:
            return convert(value)

    return Plan(plan.name, rebuild, plan.wire, plan.exact)
