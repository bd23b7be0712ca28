"""Values on their way into a store: sealed where there is a cipher, and out of line where they are large.

`docs/decisions/0020-large-payloads.md` and `0023-encryption.md` have the whole in prose.

1. What is stored refers to nothing that is not there: contents and uses are collected with what refers to them, and written with it.
2. `Incoming` undoes `Outgoing`, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from replayflow.codec import Payload
from replayflow.codec.cipher import Cipher
from replayflow.codec.reference import digest_of, is_reference, is_to_sealed, may_refer, reference_to
from replayflow.codec.sealed import is_sealed, key_of, opened, sealed
from replayflow.core.commit import Commit, Message, Start
from replayflow.errors import InvalidArgumentError, SealedError
from replayflow.store.base import Branch, Create, Operation, Park, Post
from replayflow.store.trees import change_leaves, change_texts, encode, leaves, tree_of

GONE = "it refers to a large payload that is in the hub no longer"
OUT_OF_LINE_CONTEXT = b"large"
# How msgpack begins bytes of 64 KiB or more: with their length, which is under a GiB in every store. A long piece has the mark by chance, too, but
# hardly with a length that fits.
_LONG_BYTES = re.compile(rb"\xc6[\x00-\x3f]")
_LENGTH_BYTES = 4
_LONG_OVER = 2**16 - 1


def checked_limit(large_over_bytes: int) -> int:
    """The limit, if it is one.

    Raises:
        InvalidArgumentError: it is none.
    """
    if type(large_over_bytes) is not int or large_over_bytes < 1:
        raise InvalidArgumentError(f"large_over_bytes is {large_over_bytes!r:.80}; it is a number of bytes, 1 or more")
    return large_over_bytes


def context_of(instance_id: str) -> bytes:
    """What a sealed value is bound to that stands in an instance's row, history or inbox."""
    return b"instance:" + instance_id.encode("utf-8", "surrogatepass")


class Outgoing:
    """What one transaction keeps out of line: `contents` by digest, and the `uses`, pairs of who refers and the digest.

    A user is an instance, by its key, or a message in an inbox, by its number with a minus. `key_ids` are those of the keys that sealed something.
    What is at most `untouched_bytes` long is stored as it is.
    """

    __slots__ = ("_cipher", "_over", "_sealed", "contents", "key_ids", "untouched_bytes", "uses")

    def __init__(self, over: int, cipher: Cipher | None = None) -> None:
        self._over = over
        self._cipher = cipher
        self._sealed: dict[tuple[bytes, bytes], bytes] = {}
        self.untouched_bytes = over if cipher is None else -1
        self.contents: dict[bytes, bytes] = {}
        self.uses: set[tuple[int, bytes]] = set()
        self.key_ids: set[str] = set()

    def payload(self, payload: Payload, user: int, instance_id: str) -> Payload:
        """The payload of the instance as it is stored."""
        if payload is None or not self._goes(payload):
            return payload
        return self._kept(payload, user, context_of(instance_id))

    def events(self, encoded: bytes, user: int, instance_id: str) -> bytes:
        """The encoded events of the instance as they are stored."""
        if self._cipher is None and not self._may_have_long(encoded) and not may_refer(encoded):
            return encoded
        tree = tree_of(encoded)
        if tree is None:
            return encoded
        if self._cipher is None and not any(map(self._goes, leaves(tree))):
            return encoded
        context = context_of(instance_id)
        change_leaves(tree, lambda leaf: self._kept(leaf, user, context) if self._goes(leaf) else leaf)
        if self._cipher is not None:
            change_texts(tree, lambda text: self._seal(text, context))
        return encode(tree)

    def text(self, text: bytes | None, instance_id: str) -> bytes | None:
        """The text of the instance as it is stored."""
        return text if text is None or self._cipher is None else self._seal(text, context_of(instance_id))

    def seals_anew(self, payload: Payload, instance_id: str) -> bool:
        """Whether the payload, or encoded events, may have what would be sealed anew, and kept out of line."""
        return (
            self._cipher is not None
            and payload is not None
            and len(payload) > self._over
            and (context_of(instance_id), payload) not in self._sealed
        )

    def recall(self, reference: bytes, content: bytes, instance_id: str) -> None:
        """Where the instance has that content again, it is the one that is there: no two contents for one value.

        A content that does not open, or has changed, is left alone: the value is sealed anew.
        """
        if not is_to_sealed(reference) or reference_to(content, is_sealed=True) != reference:
            return
        try:
            value = opened(content, self._cipher, OUT_OF_LINE_CONTEXT)
        except SealedError:
            return
        if isinstance(value, bytes):
            self._sealed.setdefault((context_of(instance_id), value), content)

    def forget(self) -> None:
        """All of it is written."""
        self.contents, self.uses, self.key_ids = {}, set(), set()

    def _kept(self, content: bytes, user: int, context: bytes) -> bytes:
        if is_reference(content):  # passed on by somebody who read it
            self.uses.add((user, digest_of(content)))
            return content
        if self._cipher is None:
            return self._out_of_line(reference_to(content), content, user)
        if len(content) <= self._over:
            return self._seal(content, context)
        # In the instance's history and in its row it is the same content; whether two instances have the same is nobody's business.
        made = self._sealed.get((context, content))
        if made is None:
            made = self._sealed[context, content] = self._seal(content, OUT_OF_LINE_CONTEXT)
        return self._out_of_line(reference_to(made, is_sealed=True), made, user)

    def _out_of_line(self, reference: bytes, content: bytes, user: int) -> bytes:
        self.contents[digest_of(reference)] = content
        self.uses.add((user, digest_of(reference)))
        return reference

    def _seal(self, content: bytes | str, context: bytes) -> bytes:
        cipher = self._cipher
        assert cipher is not None  # noqa: S101 - asked before
        made = sealed(content, cipher, context)
        self.key_ids.add(key_of(made))
        return made

    def _may_have_long(self, encoded: bytes) -> bool:
        """Whether bytes in it may be over the limit. Many short results in one event are soon said no to."""
        if len(encoded) <= self._over:
            return False
        if self._over < _LONG_OVER:
            return True
        for found in _LONG_BYTES.finditer(encoded):
            begins = found.start() + 1 + _LENGTH_BYTES
            if self._over < int.from_bytes(encoded[begins - _LENGTH_BYTES : begins]) <= len(encoded) - begins:
                return True
        return False

    def _goes(self, content: bytes) -> bool:
        return (len(content) > self.untouched_bytes and not is_sealed(content)) or is_reference(content)


def passed_on_in(operation: Operation) -> set[bytes]:
    """The digests of the contents that starts and messages of the operation refer to, without having them along."""
    return {digest_of(r) for encoded in _passed_along(operation) if may_refer(encoded) for r in references_in(encoded)}


def references_in(stored: bytes) -> set[bytes]:
    """The references in events, or in a payload, as they are stored. For whoever copies or removes what is stored."""
    if is_reference(stored):
        return {stored}
    return set(filter(is_reference, leaves(tree_of(stored)))) if may_refer(stored) else set()


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
        case Branch():
            starts += [*(one.start for one in operation.executions), *operation.starts]
            messages += operation.messages
            yield from (piece for one in operation.executions for _, piece in one.pieces)
    for start in starts:
        yield start.event
        if start.if_taken is not None:
            messages.append(start.if_taken)
    for message in messages:
        yield message.event
        if message.start is not None:
            yield message.start.event
