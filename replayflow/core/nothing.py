"""The dict that stands for those that are empty in nearly every instance: one of its own for each would be half of what a waiting instance takes.

Whoever is the first to write replaces it by one of its own.
"""

from __future__ import annotations

from typing import Any


class Nothing(dict[Any, Any]):
    """Always empty: what would write to it is a fault, and fails."""

    def __setitem__(self, key: object, value: object) -> None:
        raise TypeError("this dict is everybody's: replace it by one of your own first")

    def setdefault(self, key: object, default: object = None) -> Any:
        self[key] = default

    def update(self, *args: object, **kwargs: object) -> None:
        self[args] = kwargs


NOTHING = Nothing()
