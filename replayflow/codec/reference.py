"""References: what stands in the place of a payload whose bytes the store keeps elsewhere ("out of line").

1. A reference begins with `OUT_OF_LINE`, as no msgpack does: no value of a user is ever taken for one.
2. It names its content by a digest of the very bytes. Equal contents have one reference, and a content can be checked against it. Of a content that
   is sealed the digest says nothing of the value.
"""

from __future__ import annotations

from hashlib import sha256

from replayflow.codec.payload import OUT_OF_LINE, Payload

LARGE_OVER_BYTES = 64 * 2**10
"""How long a payload may be where it is mentioned; a longer one is kept out of line."""

_PLAIN, _SEALED = b"\0", b"\1"
_DIGEST_AT = len(OUT_OF_LINE) + 1
_DIGEST_END = _DIGEST_AT + 32
_REFERENCE_BYTES = _DIGEST_END + 8
_IN_EVENTS = (
    bytes((0xC4, _REFERENCE_BYTES)) + OUT_OF_LINE
)  # as msgpack writes so many bytes: few events have this by chance


def reference_to(content: bytes, *, is_sealed: bool = False) -> bytes:
    """What stands in the place of the content."""
    kind = _SEALED if is_sealed else _PLAIN
    return OUT_OF_LINE + kind + sha256(content).digest() + len(content).to_bytes(8)


def is_reference(payload: object) -> bool:
    """Whether the payload stands for one that is kept elsewhere."""
    return type(payload) is bytes and len(payload) == _REFERENCE_BYTES and payload.startswith(OUT_OF_LINE)


def is_to_sealed(reference: bytes) -> bool:
    """Whether the content is sealed."""
    return reference[len(OUT_OF_LINE) : _DIGEST_AT] == _SEALED


def may_refer(stored: bytes) -> bool:
    """Whether encoded events may have a reference in them. A yes may be wrong, a no is not."""
    return stored.find(_IN_EVENTS) >= 0  # `in` tries first whether the needle is a number, and costs ten times as much


def digest_of(reference: bytes) -> bytes:
    """The SHA-256 of the content."""
    return reference[_DIGEST_AT:_DIGEST_END]


def size_of(reference: bytes) -> int:
    """The length of the content in bytes."""
    return int.from_bytes(reference[_DIGEST_END:])


def differs(now: Payload, then: Payload) -> bool:
    """Whether a payload is known to be another than the recorded one, which may be a reference. Of a sealed content that cannot be told."""
    if now == then:
        return False
    if now is None or then is None or not is_reference(then):
        return True
    return not is_to_sealed(then) and reference_to(now) != then
