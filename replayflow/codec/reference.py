"""References: what stands in the place of a payload whose bytes the store keeps elsewhere ("out of line").

1. A reference begins with `MARK`, as no msgpack does: no value of a user is ever taken for one.
2. It names its content by a digest of the very bytes. Equal contents have one reference, and a content can be checked against it.
"""

from __future__ import annotations

from hashlib import sha256

from replayflow.codec.payload import OUT_OF_LINE, Payload

LARGE_OVER_BYTES = 64 * 2**10
"""How long a payload may be where it is mentioned; a longer one is kept out of line."""

_DIGEST_END = len(OUT_OF_LINE) + 32
_REFERENCE_BYTES = _DIGEST_END + 8


def reference_to(content: bytes) -> bytes:
    """What stands in the place of the content."""
    return OUT_OF_LINE + sha256(content).digest() + len(content).to_bytes(8)


def is_reference(payload: object) -> bool:
    """Whether the payload stands for one that is kept elsewhere."""
    return type(payload) is bytes and len(payload) == _REFERENCE_BYTES and payload.startswith(OUT_OF_LINE)


def may_refer(stored: bytes) -> bool:
    """Whether encoded events may have a reference in them. A yes may be wrong, a no is not."""
    return OUT_OF_LINE in stored


def digest_of(reference: bytes) -> bytes:
    """The SHA-256 of the content."""
    return reference[len(OUT_OF_LINE) : _DIGEST_END]


def size_of(reference: bytes) -> int:
    """The length of the content in bytes."""
    return int.from_bytes(reference[_DIGEST_END:])


def differs(now: Payload, then: Payload) -> bool:
    """Whether a payload is another than the recorded one, which may be a reference to it."""
    if now == then:
        return False
    return not (now is not None and then is not None and is_reference(then) and reference_to(now) == then)
