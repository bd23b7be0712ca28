"""Plans of the types without parts: the value itself, or the few spellings that other systems have for it.

1. A value of the very type passes. Else only these are taken: int for float; ISO text for points in time; seconds for
   timedelta; text or int for Decimal; text for UUID; and from JSON, which has no bytes and no keys but text, base64
   text for bytes.
"""

from __future__ import annotations

import binascii
import decimal
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from replayflow.codec.plan import Mismatch, Plan, Rebuild

_Spelling = tuple[tuple[type, ...], Callable[[Any], Any]]

_SPELLINGS: dict[type, _Spelling | None] = {
    str: None,
    int: None,
    bool: None,
    type(None): None,
    bytes: None,
    complex: None,
    float: ((int,), float),
    datetime: ((str,), datetime.fromisoformat),
    date: ((str,), date.fromisoformat),
    time: ((str,), time.fromisoformat),
    timedelta: ((int, float), lambda seconds: timedelta(seconds=seconds)),
    Decimal: ((str, int), Decimal),
    UUID: ((str,), UUID),
}

# decimal.InvalidOperation is an ArithmeticError, as is OverflowError.
_CONVERSION_ERRORS = (ValueError, decimal.DecimalException, ArithmeticError)


def scalar_plans(from_json: bool) -> dict[type, Plan]:
    """The plan of every scalar type, for payloads that came as JSON or for others."""
    spellings = dict(_SPELLINGS)
    if from_json:
        spellings[bytes] = ((str,), _base64)
    plans = {kind: _plan(kind, spelling) for kind, spelling in spellings.items()}
    for kind in (bytearray, memoryview):
        plans[kind] = _bytes_like(kind, plans[bytes])
    return plans


def int_key(key: Any) -> Any:
    """A key of a JSON object as the int that it spells.

    Raises:
        Mismatch: it spells none.
    """
    if type(key) is str and len(key) <= 20 and (key.isdecimal() or (key[1:].isdecimal() and key[0] == "-")):
        return int(key)
    raise Mismatch("int", key)


def _plan(kind: type, spelling: _Spelling | None) -> Plan:
    name = "None" if kind is type(None) else kind.__name__
    return Plan(name, _rebuild(kind, name, spelling), frozenset({kind}), exact=kind)


def _rebuild(kind: type, name: str, spelling: _Spelling | None) -> Rebuild:
    others, convert = spelling or ((), kind)

    def rebuild(value: Any) -> Any:
        found = type(value)
        if found is kind:
            return value
        if found in others:
            try:
                return convert(value)
            except _CONVERSION_ERRORS:
                raise Mismatch(name, value) from None
        raise Mismatch(name, value)

    return rebuild


def _bytes_like(kind: Callable[[bytes], Any], plan: Plan) -> Plan:
    return Plan(str(getattr(kind, "__name__", kind)), lambda value: kind(plan.apply(value)), frozenset({bytes}))


def _base64(text: str) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)
