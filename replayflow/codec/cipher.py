"""The port of ciphers: what seals values before they are stored. `docs/decisions/0023-encryption.md` says what they protect."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from replayflow.errors import CipherError


@runtime_checkable
class Cipher(Protocol):
    """Seals values and opens them. Called from several threads at once; it should take microseconds, and ask nobody."""

    def seal(self, content: bytes, context: bytes) -> tuple[str, bytes]:
        """The id of the key that seals, and the sealed bytes. They open only with the same context."""
        ...

    def open(self, sealed: bytes, key_id: str, context: bytes) -> bytes:
        """What was sealed.

        Raises:
            KeyError: there is no key with the id.
            Exception: any other: the key does not open it, or the bytes or the context are not those that were sealed.
        """
        ...


def check_key_id(key_id: object) -> None:
    """Returns where it can be the id of a key.

    Raises:
        CipherError: it is none.
    """
    if not isinstance(key_id, str) or not 1 <= len(key_id.encode(errors="replace")) <= 255 or not key_id.isprintable():
        raise CipherError(f"{key_id!r:.80} is no id for a key: it is printable text of 1 to 255 bytes")


def checked_cipher(cipher: Any, what: str = "cipher") -> Cipher:
    """The cipher, if it is one.

    Raises:
        CipherError: it is none.
    """
    if isinstance(cipher, type) or not isinstance(cipher, Cipher):
        raise CipherError(f"{what} is of the type {type(cipher).__qualname__}: a cipher has methods `seal` and `open`")
    return cipher
