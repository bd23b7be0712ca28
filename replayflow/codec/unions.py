"""Plans of unions, literals and enums: one of several.

1. A union first tries the members whose values travel as the type that was found, in the order of the annotation, then
   the others in that order. Among records, those that know more of the keys that were found come first, then those that
   miss fewer.
2. The number of failed tries in one decoding is bounded by the size of the payload: records that fit several members at
   every depth cannot make it take exponential time.
"""

from __future__ import annotations

import threading
from enum import Enum
from typing import Any

from replayflow.codec.plan import Mismatch, Plan
from replayflow.codec.texts import shown

_TRIES_FREE = 10_000
_TRIES_PER_BYTE = 16
_SCALARS = frozenset({type(None), bool, int, float, str})


class TooManyTriesError(Exception):
    """Choosing between the members of the unions inside a value took too many tries."""


class Tries(threading.local):
    """How often unions may still fail to fit a member, in this thread's present decoding."""

    left = _TRIES_FREE

    def allow(self, size_bytes: int) -> None:
        """Begins a decoding of so many bytes."""
        self.left = _TRIES_FREE + _TRIES_PER_BYTE * size_bytes

    def spend(self) -> None:
        """Counts a failed try.

        Raises:
            TooManyTriesError: it was one too many.
        """
        self.left -= 1
        if self.left < 0:
            raise TooManyTriesError


def union_plan(name: str, members: tuple[Plan, ...], tries: Tries) -> Plan:
    """A plan of values for one of the members."""
    by_kind: dict[type, tuple[list[Plan], list[Plan]]] = {}

    def rebuild(value: Any) -> Any:
        kind = type(value)
        found = by_kind.get(kind)
        if found is None:
            fitting = [member for member in members if member.wire is None or kind in member.wire]
            found = by_kind[kind] = (fitting, [member for member in members if member not in fitting])
        fitting, others = found
        if kind is dict and len(fitting) > 1:
            fitting = sorted(fitting, key=lambda member: _distance(member, value))
        failures: list[Mismatch] = []
        for member in (*fitting, *others):
            try:
                return member.apply(value)
            except Mismatch as mismatch:
                failures.append(mismatch)
                if kind not in _SCALARS:
                    tries.spend()
        raise _no_member(name, value, fitting, failures)

    wires = [member.wire for member in members]
    wire = None if None in wires else frozenset(kind for each in wires if each is not None for kind in each)
    return Plan(name, rebuild, wire)


def _distance(member: Plan, record: dict[Any, Any]) -> tuple[int, int]:
    if member.keys is None:
        return 0, 0
    unknown = sum(key not in member.keys for key in record)
    return unknown, len(member.keys) - (len(record) - unknown)


def _no_member(name: str, value: object, fitting: list[Plan], failures: list[Mismatch]) -> Mismatch:
    if len(fitting) == 1:
        return failures[0]  # it says more: the path to what is wrong inside the one member that was meant
    if fitting and fitting[0].keys is not None:
        problem = f"expected {name}, found {shown(value)}; as {failures[0].text(fitting[0].name)}"
        return Mismatch.because(problem)
    return Mismatch(name, value)


def literal_plan(name: str, values: tuple[Any, ...]) -> Plan:
    """A plan of values equal to one of `values` and of its type; an enum's member is found by its value."""
    by_wire = {(type(_wire(value)), _wire(value)): value for value in values}

    def rebuild(value: Any) -> Any:
        try:
            return by_wire[type(value), value]
        except (KeyError, TypeError):
            raise Mismatch(name, value) from None

    return Plan(name, rebuild, frozenset(kind for kind, _ in by_wire))


def _wire(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def enum_plan(kind: type[Enum]) -> Plan:
    """A plan of an enum's members by their values."""
    name = kind.__qualname__.rpartition("<locals>.")[2]

    def rebuild(value: Any) -> Any:
        for candidate in (value, tuple(value)) if type(value) is list else (value,):
            member = _member(kind, candidate)
            if member is not None:
                return member
        raise Mismatch(f"a value of {name}", value)

    return Plan(name, rebuild, frozenset(_base(member.value) for member in kind))


def _member(kind: type[Enum], value: Any) -> Enum | None:
    try:
        member = kind(value)
    except Exception:  # the enum's own _missing_ may raise anything
        return None
    # 1 == 1.0 == True finds the same member, and only one of the three is its value.
    is_number = type(value) in (bool, int, float)
    return None if is_number and _base(member.value) is not type(value) else member


def _base(value: object) -> type:
    bases = (bool, int, float, str, bytes, tuple)
    return next((base for base in bases if isinstance(value, base)), type(value))
