"""The items of a map as they are stored: encoded calls, a few hundred to a block.

1. Items are encoded at the call that passes them; what cannot travel is refused there, by its index, with nothing written (I11).
2. Together they are bounded, because they become durable in one commit.
3. One block at a time is open: a million items cost the bytes that they are stored in, and not a million objects.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from replayflow.codec import Codec, Payload
from replayflow.core.events import Block
from replayflow.errors import PayloadError, PayloadTooLargeError

CALLS_PER_BLOCK = 256
BLOCK_BYTES = 64 * 2**10
STORING = Codec(payload_bytes_max=2**40)
"""Reads and writes what has been checked against a hub's own limit before."""


def encode_items(codec: Codec, items: Sequence[Any], batch_size: int | None, title: str) -> list[Block]:
    """The items in blocks: a call each, or a call for each `batch_size` of them, the last of which may be smaller.

    Raises:
        EncodeError: one cannot travel; the message has its index.
        PayloadTooLargeError: one is too large, or all together are.
    """
    calls = _single(codec, items, title) if batch_size is None else _batches(codec, items, batch_size, title)
    return pack_calls(calls, batch_size, codec.payload_bytes_max, title)


def pack_calls(calls: Iterable[tuple[Payload, int]], batch_size: int | None, bytes_max: int, title: str) -> list[Block]:
    """Encoded calls, each with its number of items, in blocks. In a block only the last call may have fewer items than a batch.

    Raises:
        PayloadTooLargeError: together they are over `bytes_max`.
    """
    full = batch_size or 1
    blocks: list[Block] = []
    payloads: list[Payload] = []
    size = items = total = 0
    for payload, count in calls:
        if len(payloads) >= CALLS_PER_BLOCK or size >= BLOCK_BYTES or items < len(payloads) * full:
            blocks.append(Block(len(payloads), items, STORING.encode(payloads)))
            payloads, size, items = [], 0, 0
        payloads.append(payload)
        items += count
        bytes_here = 1 if payload is None else len(payload)
        size += bytes_here
        total += bytes_here
        if total > bytes_max:
            raise PayloadTooLargeError(
                f"the items of {title} are more than {bytes_max:,} bytes together, the limit payload_bytes_max: give them page by page "
                "(`items=` an activity that returns a page and a cursor), or pass references"
            )
    if payloads:
        blocks.append(Block(len(payloads), items, STORING.encode(payloads)))
    return blocks


class Calls:
    """The calls of a map, by number: what each is called with, and for which items."""

    __slots__ = ("_at", "_blocks", "_first_calls", "_first_items", "_opened", "batch_size", "items")

    def __init__(self, batch_size: int | None) -> None:
        self.batch_size = batch_size
        self.items = 0
        self._blocks: list[Block] = []
        self._first_calls: list[int] = [0]
        self._first_items: list[int] = [0]
        self._at = -1
        self._opened: list[Payload] = []

    def __len__(self) -> int:
        return self._first_calls[-1]

    def add(self, blocks: Iterable[Block]) -> None:
        """The calls of the blocks come after those that are there."""
        for block in blocks:
            self._blocks.append(block)
            self._first_calls.append(self._first_calls[-1] + block.calls)
            self.items += block.items
            self._first_items.append(self.items)

    def payload(self, number: int) -> Payload:
        """What the call is called with. Cheap in the order of the numbers."""
        at = self._at
        first_calls = self._first_calls
        if at < 0 or not first_calls[at] <= number < first_calls[at + 1]:
            at = self._at = bisect_right(first_calls, number) - 1
            self._opened = STORING.decode(self._blocks[at].payloads)
        return self._opened[number - first_calls[at]]

    def span(self, number: int) -> range:
        """The indices of the call's items."""
        if self.batch_size is None:
            return range(number, number + 1)
        at = bisect_right(self._first_calls, number) - 1
        block, place = self._blocks[at], number - self._first_calls[at]
        first = self._first_items[at] + place * self.batch_size
        return range(first, min(first + self.batch_size, self._first_items[at] + block.items))


def payloads_of(blocks: Iterable[Block]) -> Iterator[Payload]:
    """The payloads of all calls in the blocks, in order."""
    for block in blocks:
        yield from STORING.decode(block.payloads)


def _single(codec: Codec, items: Sequence[Any], title: str) -> Iterator[tuple[Payload, int]]:
    encode = codec.encode
    for i, item in enumerate(items):
        try:
            yield encode(item, "item"), 1
        except (
            PayloadError
        ):  # once more, with its place: a text for each of a million would cost more than the encoding
            encode(item, f"item {i} of {title}")
            raise


def _batches(codec: Codec, items: Sequence[Any], batch_size: int, title: str) -> Iterator[tuple[Payload, int]]:
    for i in range(0, len(items), batch_size):
        batch = list(items[i : i + batch_size])
        yield codec.encode(batch, f"items {i} to {i + len(batch) - 1} of {title}"), len(batch)
