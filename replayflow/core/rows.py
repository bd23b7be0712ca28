"""The row that an instance shows beside its history, and what is kept in it as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from replayflow.core import events
from replayflow.core.commit import RowState
from replayflow.core.events import (
    HistoryEvent,
    TaskFailed,
    TaskScheduled,
)
from replayflow.core.instance import RUNNING, Instance
from replayflow.core.map.progress import encode_progress
from replayflow.errors import FailureDetails, StoreCorruptError

# What nearly all rows show, once for all instances. Whose row is `AT_WORK` has an activity under way, and no map, custom status or debt.
AT_WORK = RowState(RUNNING, 0)
_WAITS = RowState(RUNNING, None)


def changed(
    instance: Instance, row: RowState, now: int, orphans: Sequence[tuple[str, TaskScheduled]]
) -> RowState | None:
    """The instance's row as it has to become; None where it is that already."""
    status = instance.status
    if status is RUNNING and len(instance.tasks) > len(instance.retrying) and not instance.maps:
        # At work now, and mostly before: what nearly every episode comes to.
        if (
            row.status is RUNNING
            and row.wake_at == 0
            and row.custom_status == instance.custom_status
            and row.progress is None
        ):
            return None
        if instance.custom_status is None and not orphans:
            return AT_WORK
    finished = instance.is_finished
    wake_at = instance.wake_at()
    if orphans:
        wake_at = 0
    progress = encode_progress(instance.maps.values()) if instance.maps and not finished else None
    if (
        not finished
        and row.status is instance.status
        and row.wake_at == wake_at
        and row.custom_status == instance.custom_status
        and row.progress == progress
    ):
        return None
    if status is RUNNING and not (wake_at or orphans or instance.custom_status or progress):
        return _WAITS if wake_at is None else AT_WORK
    return RowState(
        status=instance.status,
        wake_at=wake_at,
        custom_status=instance.custom_status,
        output=instance.output if finished else None,
        failure=None if instance.failure is None else encode_failure(instance.failure),
        completed_at=(row.completed_at or now) if finished else None,
        orphans=encode_orphans(orphans),
        progress=progress,
    )


def encode_failure(details: FailureDetails) -> bytes:
    """The failure as an instance's row keeps it."""
    return events.encode([TaskFailed(0, details)])


def decode_failure(stored: bytes) -> FailureDetails:
    """What `encode_failure` made of it.

    Raises:
        StoreCorruptError: the bytes are no such thing.
    """
    match events.decode(stored):
        case [TaskFailed(failure_details=details)]:
            return details
        case _:
            raise StoreCorruptError("the stored failure of an instance is damaged")


def encode_orphans(orphans: Iterable[tuple[str, TaskScheduled]]) -> bytes | None:
    """Activities of ended executions that still have to run, as an instance's row keeps them."""
    flat: list[HistoryEvent] = []
    for execution_id, task in orphans:
        flat += [events.GenericEvent(execution_id), task]
    return events.encode(flat) if flat else None


def decode_orphans(stored: bytes) -> list[tuple[str, TaskScheduled]]:
    """What `encode_orphans` made of them.

    Raises:
        StoreCorruptError: the bytes are no such thing.
    """
    flat = events.decode(stored)
    found: list[tuple[str, TaskScheduled]] = []
    for owner, task in zip_longest(flat[::2], flat[1::2]):
        if not isinstance(owner, events.GenericEvent) or owner.data is None or not isinstance(task, TaskScheduled):
            raise StoreCorruptError("what an instance still owes the run of an activity is damaged")
        found.append((owner.data, task))
    return found
