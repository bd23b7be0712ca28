"""Sealed values: the envelope of what a cipher made, `mark, length of the key's id, the key's id, sealed bytes`.

Values of users never begin with the marks, as no msgpack does. There are two: for bytes, and for text, which stands where a text stood.
"""

from __future__ import annotations

from dataclasses import dataclass

from replayflow.codec.cipher import Cipher, check_key_id
from replayflow.codec.payload import SEALED, SEALED_TEXT
from replayflow.errors import CipherError, SealedError

_MARK_BYTES = len(SEALED)
UNREADABLE = "(encrypted)"
"""What stands for a text that cannot be opened."""


@dataclass(frozen=True, slots=True)
class EncryptedValue:
    """What is shown of a value where the key that opens it is not at hand."""

    key_id: str

    def __str__(self) -> str:
        return UNREADABLE


def sealed(content: bytes | str, cipher: Cipher, context: bytes) -> bytes:
    """The bytes or the text in its envelope, bound to the context.

    Raises:
        CipherError: the cipher failed.
    """
    is_text = isinstance(content, str)
    try:
        key_id, inside = cipher.seal(content.encode() if isinstance(content, str) else content, context)
    except Exception as error:
        raise CipherError(f"the cipher {type(cipher).__qualname__} failed to seal: {type(error).__name__}") from error
    check_key_id(key_id)
    name = key_id.encode()
    return (SEALED_TEXT if is_text else SEALED) + bytes((len(name),)) + name + inside


def opened(envelope: bytes, cipher: Cipher | None, context: bytes) -> bytes | str:
    """What the envelope has inside.

    Raises:
        SealedError: there is no cipher, or it has not the key, or the key does not open it.
    """
    key_id, inside = _parts(envelope)
    if cipher is None:
        raise sealed_error(envelope)
    try:
        content = cipher.open(inside, key_id, context)
        return content.decode() if envelope.startswith(SEALED_TEXT) else content
    except KeyError as error:
        raise sealed_error(envelope) from error
    except Exception as error:
        raise SealedError(
            f"key '{key_id}' does not open what it is said to have sealed: it is another key under the same id, or the stored bytes were changed; "
            "give the cipher the right key, or restore the store"
        ) from error


def is_sealed(payload: object) -> bool:
    """Whether the payload is in an envelope."""
    return type(payload) is bytes and payload.startswith((SEALED, SEALED_TEXT))


def may_be_sealed(stored: bytes) -> bool:
    """Whether encoded events may have an envelope in them. A yes may be wrong, a no is not."""
    return SEALED in stored or SEALED_TEXT in stored


def key_of(envelope: bytes) -> str:
    """The id of the key that sealed it."""
    return _parts(envelope)[0]


def shown_sealed(envelope: bytes) -> EncryptedValue:
    """What is shown of it."""
    return EncryptedValue(_parts(envelope)[0])


def sealed_error(value: bytes | EncryptedValue, where: str = "a value") -> SealedError:
    """Why the envelope, or what is shown of one, cannot be opened here."""
    key_id = value.key_id if isinstance(value, EncryptedValue) else key_of(value)
    return SealedError(
        f"{where} is encrypted with key '{key_id}', which is not at hand: "
        "give the hub a cipher that has it (cipher=..., or $REPLAYFLOW_CIPHER)"
    )


def _parts(envelope: bytes) -> tuple[str, bytes]:
    end = _MARK_BYTES + 1 + (envelope[_MARK_BYTES] if len(envelope) > _MARK_BYTES else 0)
    return envelope[_MARK_BYTES + 1 : end].decode(errors="replace"), envelope[end:]
