"""Reading many instances of which some may be damaged: one of them does not keep the others from being read."""

from __future__ import annotations

from collections.abc import Sequence

from replayflow.errors import StoreCorruptError
from replayflow.store.base import Loaded, Store

CANNOT_BE_READ = "it cannot be read: "
"""How the problem begins that is shown of an instance of which all but the row is damaged."""


def is_unreadable(problem: bytes | None) -> bool:
    """Whether the problem of an instance's row is that the rest of it cannot be read."""
    return problem is not None and problem.startswith(CANNOT_BE_READ.encode())


async def load_sound(store: Store, instance_ids: Sequence[str]) -> tuple[list[Loaded], dict[str, StoreCorruptError]]:
    """As `Store.load`, of those that can be read; and for each of the others why it cannot."""
    if not instance_ids:
        return [], {}
    try:
        return await store.load(instance_ids), {}
    except StoreCorruptError as error:
        if len(instance_ids) == 1:
            return [], {instance_ids[0]: error}
    found: list[Loaded] = []
    damaged: dict[str, StoreCorruptError] = {}
    for id in instance_ids:
        loaded, errors = await load_sound(store, [id])
        found += loaded
        damaged |= errors
    return found, damaged
