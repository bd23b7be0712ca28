"""Ids that nobody else has, of the operating system's chance: asked for once where many are made, since asking costs more than making them."""

from __future__ import annotations

import os
from collections.abc import Iterator

_EXECUTION_CHANCE_BYTES = 16
_INSTANCE_CHANCE_BYTES = 9
_ASKED_FOR_TOGETHER = 1_000


def new_execution_id() -> str:
    """An id for one more execution."""
    return os.urandom(_EXECUTION_CHANCE_BYTES).hex()


def new_execution_ids(count: int) -> Iterator[str]:
    """As `new_execution_id`, so many times."""
    return _several(count, _EXECUTION_CHANCE_BYTES)


def new_instance_id(now: int) -> str:
    """An id for one more instance: the time, so that ids sort by age and are added at one end of an index, and chance."""
    return f"{now:014x}{os.urandom(_INSTANCE_CHANCE_BYTES).hex()}"


def new_instance_ids(now: int, count: int) -> Iterator[str]:
    """As `new_instance_id`, so many times."""
    time = f"{now:014x}"
    return (time + chance for chance in _several(count, _INSTANCE_CHANCE_BYTES))


def _several(count: int, size: int) -> Iterator[str]:
    for first in range(0, count, _ASKED_FOR_TOGETHER):
        chance = os.urandom(min(_ASKED_FOR_TOGETHER, count - first) * size).hex()
        for at in range(0, len(chance), 2 * size):
            yield chance[at : at + 2 * size]
