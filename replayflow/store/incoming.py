"""Values on their way out of a store: what is out of line is read where it is needed, what is sealed is opened where the key is at hand.

1. A content that is missing or damaged is an error; a key that is missing is none: what it sealed stays sealed, and whoever was asked for it is told.
2. Nothing here knows kinds of events but to leave out what a replay has no need of: a kind that it does not know is filled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from msgspec.structs import replace

from replayflow.codec import Payload
from replayflow.codec.cipher import Cipher
from replayflow.codec.payload import SEALED_TEXT
from replayflow.codec.reference import digest_of, is_reference, is_to_sealed, may_refer, reference_to
from replayflow.codec.sealed import UNREADABLE, is_sealed, may_be_sealed, opened
from replayflow.core.commit import Start
from replayflow.core.events import (
    CustomStatusSet,
    EntityStateSet,
    EventSent,
    OrchestrationScheduled,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    TaskCompleted,
    TaskScheduled,
)
from replayflow.errors import SealedError, StoreCorruptError
from replayflow.store.base import Delivery, InstanceRecord, Loaded
from replayflow.store.outgoing import OUT_OF_LINE_CONTEXT, context_of
from replayflow.store.trees import change_leaves, encode, leaves, tree_of, trees_of

Fetch: TypeAlias = Callable[[Iterable[bytes]], dict[bytes, bytes]]
"""Contents by their digests. One that is not there is left out."""

_ENDED_WELL = (TaskCompleted.kind, SubOrchestrationInstanceCompleted.kind)
_ASKED = (TaskScheduled.kind, SubOrchestrationInstanceCreated.kind)
_ONLY_COMPARED = (EventSent.kind, OrchestrationScheduled.kind)
_THE_LAST_COUNTS = (CustomStatusSet.kind, EntityStateSet.kind)


class Incoming:
    """Reads what `Outgoing` wrote. `refusal` says why something of what was read is still sealed; None where nothing is.

    Raises (every reading): StoreCorruptError, where a content is not there or is another.
    """

    __slots__ = ("_cipher", "_fetch", "refusal")

    def __init__(self, fetch: Fetch, cipher: Cipher | None) -> None:
        self._fetch = fetch
        self._cipher = cipher
        self.refusal: SealedError | None = None

    def contents(self, references: Sequence[bytes]) -> list[bytes]:
        """What the references stand for, in their order.

        Raises:
            SealedError: one is sealed, and the key is not at hand.
        """
        found = self._contents(set(references))
        if self.refusal is not None:
            raise self.refusal
        return [found[reference] for reference in references]

    def has(self, digests: set[bytes]) -> bool:
        """Whether the contents are there."""
        return not digests or len(self._fetch(digests)) == len(digests)

    def events(self, stored: bytes, instance_id: str) -> bytes:
        """Stored events of the instance, whole."""
        if not may_refer(stored) and not may_be_sealed(stored):
            return stored
        tree = tree_of(stored)
        if tree is None:
            return stored
        contents = self._contents(set(filter(is_reference, leaves(tree))))
        self._open(tree, contents, instance_id)
        return encode(tree)

    def pieces(self, stored: Iterable[bytes], instance_id: str, is_opened: bool) -> list[bytes]:
        """Stored pieces of the instance, whole.

        Raises:
            SealedError: they are to be `is_opened`, and a value is sealed with a key that is not at hand.
        """
        whole = [self.events(piece, instance_id) for piece in stored]
        if is_opened and self.refusal is not None:
            raise self.refusal
        return whole

    def delivery(self, delivery: Delivery) -> Delivery:
        """The message, whole; or as it is, and `is_sealed`."""
        if delivery.event is not None:
            earlier, self.refusal = self.refusal, None
            delivery.event = self.events(delivery.event, delivery.instance_id)
            delivery.is_sealed = self.refusal is not None
            self.refusal = earlier or self.refusal
        return delivery

    def arrival(self, delivery: Delivery) -> Delivery:
        """As `delivery`; damage is left to whoever loads the receiver, so that one bad message does not keep the others from arriving."""
        try:
            return self.delivery(delivery)
        except StoreCorruptError:
            delivery.is_sealed = True
            return delivery

    def start(self, start: Start) -> Start:
        """The start, whole."""
        event = self.events(start.event, start.instance_id)
        return start if event == start.event else replace(start, event=event, decoded=None)

    def row(self, record: InstanceRecord) -> InstanceRecord:
        """The row, opened. References stay."""
        id = record.instance_id
        tree = tree_of(record.start) if may_be_sealed(record.start) else None
        if tree is not None:
            self._open(tree, {}, id)
            record.start = encode(tree)
        record.custom_status = self._payload(record.custom_status, id)
        record.output = self._payload(record.output, id)
        if record.failure is not None:
            record.failure = self.events(record.failure, id)
        if is_sealed(record.problem):
            problem = self._payload(record.problem, id)
            record.problem = UNREADABLE.encode() if is_sealed(problem) else problem
        return record

    def loaded(self, loaded: Loaded, whole: bool) -> None:
        """What was loaded has whatever a replay and the next episode need, or all. Where it cannot have that, `problem` says so."""
        record = loaded.record
        id = record.instance_id
        self.row(record)
        self.refusal = None  # nobody runs by what a row shows
        for delivery in loaded.inbox:
            self.delivery(delivery)
        if record.orphans is not None:
            record.orphans = self.events(record.orphans, id)
        if whole or not record.status.is_finished:
            record.start = self.events(record.start, id)
            if record.custom_status is not None and is_reference(record.custom_status):
                found = self._contents({record.custom_status})
                record.custom_status = found.get(record.custom_status, record.custom_status)
            self._history(loaded, id, whole)
        loaded.problem = self.refusal
        if record.status.is_finished and not whole:
            self._history(loaded, id, whole)

    def _history(self, loaded: Loaded, instance_id: str, whole: bool) -> None:
        if not may_refer(loaded.pieces) and not may_be_sealed(loaded.pieces):
            return
        trees = trees_of(loaded.pieces, loaded.piece_count)
        if trees is None:
            return  # whoever decodes it will say so
        needed = [event for tree in trees for event in tree]
        if not whole:
            try:
                needed = [] if loaded.record.status.is_finished else list(_needed(trees))
            except (IndexError, TypeError):
                return  # as above: these are no events
        contents = self._contents({leaf for event in needed for leaf in leaves(event) if is_reference(leaf)})
        for event in needed:
            self._open(event, contents, instance_id)
        self._open(trees, {}, instance_id)
        loaded.pieces = b"".join(map(encode, trees))

    def _contents(self, references: set[bytes]) -> dict[bytes, bytes]:
        """The contents by reference, opened; without those that cannot be."""
        if not references:
            return {}
        found = self._fetch(map(digest_of, references))
        contents: dict[bytes, bytes] = {}
        for reference in references:
            content = found.get(digest_of(reference))
            if content is None or reference_to(content, is_sealed=is_to_sealed(reference)) != reference:
                raise StoreCorruptError(
                    f"a payload that is kept out of line is {'missing' if content is None else 'damaged'} "
                    f"(digest {digest_of(reference).hex()})"
                )
            whole = self._leaf(content, OUT_OF_LINE_CONTEXT)
            if isinstance(whole, bytes) and not is_sealed(whole):
                contents[reference] = whole
        return contents

    def _open(self, tree: Any, contents: dict[bytes, bytes], instance_id: str) -> None:
        context = context_of(instance_id)

        def whole(leaf: bytes) -> bytes | str:
            return contents.get(leaf, leaf) if is_reference(leaf) else self._leaf(leaf, context)

        change_leaves(tree, whole)

    def _payload(self, payload: Payload, instance_id: str) -> Payload:
        whole = payload if payload is None else self._leaf(payload, context_of(instance_id))
        if isinstance(whole, str):
            raise StoreCorruptError(
                f"a value in the row of instance '{instance_id}' is damaged: a sealed text stands in events alone"
            )
        return whole

    def _leaf(self, leaf: bytes, context: bytes) -> bytes | str:
        if not is_sealed(leaf):
            return leaf
        try:
            return opened(leaf, self._cipher, context)
        except SealedError as refusal:
            self.refusal = refusal
            return UNREADABLE if leaf.startswith(SEALED_TEXT) else leaf


def with_contents(record: InstanceRecord, contents: dict[bytes, bytes]) -> InstanceRecord:
    """The row with the contents, by reference, in their places."""
    tree = tree_of(record.start)
    change_leaves(tree, lambda leaf: contents.get(leaf, leaf))
    shown = {
        name: contents.get(value, value)
        for name in ("output", "custom_status")
        if (value := getattr(record, name)) is not None
    }
    return replace(record, start=record.start if tree is None else encode(tree), **shown)


def references_of(record: InstanceRecord) -> set[bytes]:
    """The references in what a row shows."""
    stored = (
        {leaf for leaf in leaves(tree_of(record.start)) if is_reference(leaf)} if may_refer(record.start) else set()
    )
    return stored | {
        value for value in (record.output, record.custom_status) if value is not None and is_reference(value)
    }


def _needed(pieces: Sequence[Sequence[Any]]) -> Iterable[Any]:
    """The events whose payloads a replay, or what is still open, has a need of."""
    ended = {event[1] for piece in pieces for event in piece if event[0] in _ENDED_WELL}
    seen: set[int] = set()
    for piece in reversed(pieces):
        for event in reversed(piece):
            kind = event[0]
            if kind in _ONLY_COMPARED or (kind in _ASKED and event[1] in ended):
                continue
            if kind in _THE_LAST_COUNTS:
                if kind in seen:
                    continue
                seen.add(kind)
            yield event
