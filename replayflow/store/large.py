"""Large payloads: events and payloads as they cross the port, whole, and as a store keeps them, with long contents out of line.

`docs/decisions/0020-large-payloads.md` has the whole in prose.

1. What is stored refers to nothing that is not there: contents and uses are collected with what refers to them, and written with it.
2. `fill` undoes `Outgoing`, byte for byte.
3. Nothing here knows kinds of events but to leave out what a replay has no need of: a kind that it does not know is filled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from replayflow.codec import Payload
from replayflow.codec.reference import digest_of, is_reference, may_refer, reference_to
from replayflow.core.commit import Commit, Message, Start
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
from replayflow.errors import InvalidArgumentError, StoreCorruptError
from replayflow.store.base import Create, Delivery, InstanceRecord, Loaded, Operation, Park, Post

Fetch: TypeAlias = Callable[[Iterable[bytes]], dict[bytes, bytes]]
"""Contents by their digests. One that is not there is left out."""

GONE = "it refers to a large payload that is in the hub no longer"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_decode_pieces = msgspec.msgpack.Decoder(list[list[list[Any]]]).decode
_ARRAY = b"\xdd"  # with a length of four bytes
_LONG_BYTES = b"\xc6"
_LONG_OVER = 2**16 - 1
_ENDED_WELL = (TaskCompleted.kind, SubOrchestrationInstanceCompleted.kind)
_ASKED = (TaskScheduled.kind, SubOrchestrationInstanceCreated.kind)
_ONLY_COMPARED = (EventSent.kind, OrchestrationScheduled.kind)
_THE_LAST_COUNTS = (CustomStatusSet.kind, EntityStateSet.kind)


def checked_limit(large_over_bytes: int) -> int:
    """The limit, if it is one.

    Raises:
        InvalidArgumentError: it is none.
    """
    if type(large_over_bytes) is not int or large_over_bytes < 1:
        raise InvalidArgumentError(f"large_over_bytes is {large_over_bytes!r:.80}; it is a number of bytes, 1 or more")
    return large_over_bytes


class Outgoing:
    """What one transaction keeps out of line: `contents` by digest, and the `uses`, pairs of who refers and the digest.

    A user is an instance, by its key, or a message in an inbox, by its number with a minus.
    """

    __slots__ = ("_over", "contents", "uses")

    def __init__(self, over: int) -> None:
        self._over = over
        self.contents: dict[bytes, bytes] = {}
        self.uses: set[tuple[int, bytes]] = set()

    def payload(self, payload: Payload, user: int) -> Payload:
        """The payload as it is stored."""
        return payload if payload is None or not self._goes(payload) else self._kept(payload, user)

    def events(self, encoded: bytes, user: int) -> bytes:
        """The encoded events as they are stored."""
        if not self._may_have_long(encoded) and not may_refer(encoded):
            return encoded
        tree = _tree(encoded)
        if tree is None:
            return encoded
        if not any(self._goes(leaf) for leaf in _leaves(tree)):
            return encoded
        _replace(tree, lambda leaf: self._kept(leaf, user) if self._goes(leaf) else leaf)
        return _encode(tree)

    def forget(self) -> None:
        """All of it is written."""
        self.contents, self.uses = {}, set()

    def _kept(self, content: bytes, user: int) -> bytes:
        if is_reference(content):  # passed on by somebody who read it
            self.uses.add((user, digest_of(content)))
            return content
        reference = reference_to(content)
        digest = digest_of(reference)
        self.contents[digest] = content
        self.uses.add((user, digest))
        return reference

    def _may_have_long(self, encoded: bytes) -> bool:
        """Whether bytes in it may be over the limit. Many short results in one event are soon said no to."""
        return len(encoded) > self._over and (self._over < _LONG_OVER or _LONG_BYTES in encoded)

    def _goes(self, content: bytes) -> bool:
        return len(content) > self._over or is_reference(content)


def references_in(stored: bytes) -> set[bytes]:
    """The references in events, or in a payload, as they are stored. For whoever copies or removes what is stored."""
    if is_reference(stored):
        return {stored}
    if not may_refer(stored):
        return set()
    return {leaf for leaf in _leaves(_tree(stored)) if is_reference(leaf)}


def passed_on_in(operation: Operation) -> set[bytes]:
    """The digests of the contents that starts and messages of the operation refer to, without having them along."""
    return {digest_of(r) for encoded in _passed_along(operation) if may_refer(encoded) for r in references_in(encoded)}


def _passed_along(operation: Operation) -> Iterator[bytes]:
    """The encoded events of all starts and messages that the operation has."""
    starts: list[Start] = []
    messages: list[Message] = []
    match operation:
        case Create():
            starts.append(operation.start)
        case Post():
            messages.append(operation.message)
        case Commit():
            starts += operation.starts
            messages += operation.messages
            if operation.next_start is not None:
                starts.append(operation.next_start)
        case Park():
            messages += operation.messages
    for start in starts:
        yield start.event
        if start.if_taken is not None:
            messages.append(start.if_taken)
    for message in messages:
        yield message.event
        if message.start is not None:
            yield message.start.event


def fill(stored: bytes, fetch: Fetch) -> bytes:
    """Stored events, or a stored payload, whole.

    Raises:
        StoreCorruptError: a content is not there.
    """
    if is_reference(stored):
        return _contents(fetch, {stored})[stored]
    if not may_refer(stored):
        return stored
    tree = _tree(stored)
    _fill_tree(tree, fetch)
    return stored if tree is None else _encode(tree)


def fill_all(references: Sequence[bytes], fetch: Fetch) -> list[bytes]:
    """What the references stand for, in their order.

    Raises:
        StoreCorruptError: a content is not there.
    """
    contents = _contents(fetch, set(references))
    return [contents[reference] for reference in references]


def fill_delivery(delivery: Delivery, fetch: Fetch) -> Delivery:
    """The message, whole."""
    if delivery.event is not None and may_refer(delivery.event):
        delivery.event = fill(delivery.event, fetch)
    return delivery


def fill_start(start: Start, fetch: Fetch) -> Start:
    """The start, whole."""
    return replace(start, event=fill(start.event, fetch), decoded=None) if may_refer(start.event) else start


def fill_loaded(loaded: Loaded, fetch: Fetch) -> None:
    """What was loaded has whatever a replay and the next episode need: not what has been used up."""
    record = loaded.record
    for delivery in loaded.inbox:
        fill_delivery(delivery, fetch)
    if record.orphans is not None:
        record.orphans = fill(record.orphans, fetch)
    if record.status.is_finished:
        return
    record.start = fill(record.start, fetch)
    if record.custom_status is not None:
        record.custom_status = fill(record.custom_status, fetch)
    if may_refer(loaded.pieces):
        loaded.pieces = _filled_history(loaded.pieces, loaded.piece_count, fetch)


def fill_record(record: InstanceRecord, fetch: Fetch) -> InstanceRecord:
    """The row with all its values."""
    start = fill(record.start, fetch)
    output = None if record.output is None else fill(record.output, fetch)
    custom_status = None if record.custom_status is None else fill(record.custom_status, fetch)
    return replace(record, start=start, output=output, custom_status=custom_status)


def references_of(record: InstanceRecord) -> set[bytes]:
    """The references in what a row shows."""
    shown = (record.start, record.output, record.custom_status)
    return {reference for value in shown if value is not None for reference in references_in(value)}


def _filled_history(pieces: bytes, count: int, fetch: Fetch) -> bytes:
    try:
        tree = _decode_pieces(_ARRAY + count.to_bytes(4, "big") + pieces)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return pieces  # whoever decodes it will say so
    needed = list(_needed(tree))
    wanted = {leaf for event in needed for leaf in _leaves(event) if is_reference(leaf)}
    contents = _contents(fetch, wanted)
    for event in needed:
        _replace(event, lambda leaf: contents.get(leaf, leaf))
    return b"".join(map(_encode, tree))


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


def _fill_tree(tree: Any, fetch: Fetch) -> None:
    contents = _contents(fetch, {leaf for leaf in _leaves(tree) if is_reference(leaf)})
    _replace(tree, lambda leaf: contents.get(leaf, leaf))


def _contents(fetch: Fetch, references: set[bytes]) -> dict[bytes, bytes]:
    """The contents by reference."""
    if not references:
        return {}
    found = fetch(map(digest_of, references))
    contents: dict[bytes, bytes] = {}
    for reference in references:
        content = found.get(digest_of(reference))
        if content is None or reference_to(content) != reference:
            raise StoreCorruptError(
                f"a payload that is kept out of line is {'missing' if content is None else 'damaged'} "
                f"(digest {digest_of(reference).hex()})"
            )
        contents[reference] = content
    return contents


def _tree(encoded: bytes) -> Any:
    """The events as lists of lists; None where the bytes are no msgpack."""
    try:
        return _decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _leaves(tree: Any) -> Iterable[bytes]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        for value in node.values() if type(node) is dict else node if type(node) is list else ():
            if type(value) is bytes:
                yield value
            elif type(value) is list or type(value) is dict:
                waiting.append(value)


def _replace(tree: Any, leaf: Callable[[bytes], bytes]) -> None:
    """Every string of bytes in the tree is what `leaf` makes of it."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if type(node) is list:
            for place, value in enumerate(node):
                if type(value) is bytes:
                    node[place] = leaf(value)
                elif type(value) is list or type(value) is dict:
                    waiting.append(value)
        elif type(node) is dict:
            for key, value in node.items():
                if type(value) is bytes:
                    node[key] = leaf(value)
                elif type(value) is list or type(value) is dict:
                    waiting.append(value)
