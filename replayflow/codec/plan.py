"""What an annotation is compiled to, and how a value that does not fit says so.

1. A `Plan` never changes in meaning; a lazy one replaces its function by the compiled one at the first use.
2. A `Mismatch` collects its path on the way out, so that a value that fits pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from replayflow.codec.texts import shown

Rebuild = Callable[[Any], Any]


class Mismatch(Exception):
    """A value that does not fit its annotation."""

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(expected)
        self.expected = expected
        self.value = value
        self.problem: str | None = None
        self.segments: list[str] = []

    @classmethod
    def because(cls, problem: str, segment: str | None = None) -> Mismatch:
        """A mismatch that is told in words of its own, at `segment` inside the value."""
        mismatch = cls("", None)
        mismatch.problem = problem
        if segment is not None:
            mismatch.segments.append(segment)
        return mismatch

    def under(self, segment: str) -> Mismatch:
        """The same mismatch, seen from the container that has the value at `segment`."""
        self.segments.append(segment)
        return self

    def text(self, where: str) -> str:
        """The message: the path, what was asked for and what was found."""
        problem = self.problem or f"expected {self.expected}, found {shown(self.value)}"
        return f"{where}{''.join(reversed(self.segments))}: {problem}"


class Plan:
    """How values for one annotation are rebuilt.

    `rebuild` is None where any value is right as it is. A value whose type is `exact` is right as it is. `wire` has the
    plain types that the annotation's own values travel as (None: any), `keys` the names of a record's fields: unions
    choose by them.
    """

    __slots__ = ("exact", "keys", "name", "rebuild", "wire")

    def __init__(
        self,
        name: str,
        rebuild: Rebuild | None,
        wire: frozenset[type] | None,
        exact: type | None = None,
        keys: frozenset[str] | None = None,
    ) -> None:
        self.name = name
        self.rebuild = rebuild
        self.wire = wire
        self.exact = exact
        self.keys = keys

    def apply(self, value: Any) -> Any:
        """The value rebuilt.

        Raises:
            Mismatch: it does not fit.
        """
        if type(value) is self.exact:
            return value
        rebuild = self.rebuild
        return value if rebuild is None else rebuild(value)


ANYTHING = Plan("Any", None, None)
RECORD = frozenset({dict})
SEQUENCE = frozenset({list})


def lazy(
    name: str, wire: frozenset[type] | None, make: Callable[[], Rebuild | None], keys: frozenset[str] | None = None
) -> Plan:
    """A plan that is compiled when the first value comes, so that a class may contain itself."""

    def rebuild(value: Any) -> Any:
        plan.rebuild = make()
        return plan.apply(value)

    plan = Plan(name, rebuild, wire, None, keys)
    return plan


def refusing(name: str, problem: str) -> Plan:
    """The plan of an annotation that cannot be compiled: values are refused with its problem."""

    def rebuild(_value: Any) -> Any:
        raise Mismatch.because(problem)

    return Plan(name, rebuild, frozenset())
