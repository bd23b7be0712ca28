"""How far maps are, for people who ask: all of a history, or, from the instance's row, those that are under way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from replayflow.core.events import (
    Block,
    ExecutionCompleted,
    HistoryEvent,
    MapDrained,
    MapPage,
    MapProgress,
    MapScheduled,
    TaskCanceled,
)
from replayflow.core.map.mapping import OpenMap, Tally
from replayflow.errors import StoreCorruptError


@dataclass(frozen=True, slots=True)
class MapState:
    """A map as it was when its history was read. Counts are of items: `done` succeeded, `failed` failed for good, `total` are known so far.

    `is_whole` says that no more items come: false while pages are still to be read.
    """

    task_id: int
    name: str
    total: int
    done: int
    failed: int
    is_whole: bool
    is_over: bool


class MapStates:
    """The maps of one execution, from its events in order; those of a client's `history()` do as well as stored ones."""

    def __init__(self) -> None:
        self._maps: dict[int, tuple[str, Tally]] = {}
        self._over: set[int] = set()

    def take(self, event: HistoryEvent) -> None:
        """The event has happened."""
        match event:
            case MapScheduled():
                # Blocks without their items: only how many there are is counted.
                counted = replace(event, items=_extent(event.count, event.batch_size))
                self._maps[event.event_id] = (event.name, Tally(counted))
            case MapProgress() if event.task_scheduled_id in self._maps:
                self._maps[event.task_scheduled_id][1].progress(event)
            case MapPage() if event.task_scheduled_id in self._maps:
                tally = self._maps[event.task_scheduled_id][1]
                tally.page(replace(event, items=_extent(event.count, tally.calls.batch_size)))
            case TaskCanceled() | MapDrained():
                self._over.add(event.task_scheduled_id)
            case ExecutionCompleted():
                self._over.update(self._maps)
            case _:
                pass

    def now(self) -> list[MapState]:
        """The maps in the order in which they were asked for."""
        return [
            MapState(
                task_id=id,
                name=name,
                total=tally.calls.items,
                done=tally.done,
                failed=tally.failed,
                is_whole=tally.is_whole,
                is_over=tally.is_over or id in self._over,
            )
            for id, (name, tally) in self._maps.items()
        ]


_stored: msgspec.msgpack.Decoder[list[tuple[int, str, int, int, int, bool]]] = msgspec.msgpack.Decoder(
    list[tuple[int, str, int, int, int, bool]]
)


def encode_progress(maps: Iterable[OpenMap]) -> bytes | None:
    """How far they are, as an instance's row keeps it; None where all are over."""
    tallies = [(open.id, open.scheduled.name, open.tally) for open in maps if not open.is_closed]
    if not tallies:
        return None
    return msgspec.msgpack.encode(
        [(id, name, tally.calls.items, tally.done, tally.failed, tally.is_whole) for id, name, tally in tallies]
    )


def decode_progress(stored: bytes) -> list[MapState]:
    """What `encode_progress` made of it.

    Raises:
        StoreCorruptError: the bytes are no such thing.
    """
    try:
        return [MapState(*fields, is_over=False) for fields in _stored.decode(stored)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreCorruptError(f"the stored progress of an instance is damaged: {error}") from error


def _extent(items: int, batch_size: int | None) -> list[Block]:
    return [Block(-(-items // (batch_size or 1)), items, None)] if items else []
