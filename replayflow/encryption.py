"""A cipher made of the `cryptography` library, and the one that `$REPLAYFLOW_CIPHER` names.

The library is imported when a cipher is made: whoever needs none does not wait for it, and need not have it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from replayflow.codec.cipher import Cipher, check_key_id, checked_cipher
from replayflow.errors import CipherError

VARIABLE = "REPLAYFLOW_CIPHER"
_LIBRARY = "cryptography.hazmat.primitives.ciphers.aead"
_NONCE_BYTES = 12
_KEY_BYTES = (16, 24, 32)


class AesGcmCipher:
    """AES-GCM with a random nonce for each value: `AesGcmCipher({"2025": old, "2026": new})`. Needs `replayflow[encryption]`.

    Keys are 16, 24 or 32 random bytes, by id; ids are stored with what they seal, in the clear. The last key seals, all of them open. A key should
    seal less than 2**32 values.

    Raises:
        CipherError: there is no key, a key or an id is none, or the library is not installed.
    """

    __slots__ = ("_keys", "_newest")

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        try:
            made: Any = importlib.import_module(_LIBRARY).AESGCM
        except ImportError as error:
            raise CipherError("AesGcmCipher needs a library: pip install 'replayflow[encryption]'") from error
        if not keys:
            raise CipherError("AesGcmCipher({...}) has no key; give it one at least, by id")
        for key_id, key in keys.items():
            check_key_id(key_id)
            if not isinstance(key, bytes) or len(key) not in _KEY_BYTES:
                raise CipherError(f"key '{key_id}' is not 16, 24 or 32 bytes; secrets.token_bytes(32) makes one")
        self._keys = {key_id: made(key) for key_id, key in keys.items()}
        self._newest = list(keys)[-1]

    def __repr__(self) -> str:
        return f"<AesGcmCipher '{self._newest}', {len(self._keys)} keys>"

    def seal(self, content: bytes, context: bytes) -> tuple[str, bytes]:
        nonce = os.urandom(_NONCE_BYTES)
        return self._newest, nonce + self._keys[self._newest].encrypt(nonce, content, context)

    def open(self, sealed: bytes, key_id: str, context: bytes) -> bytes:
        content: bytes = self._keys[key_id].decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
        return content


def cipher_of_environment() -> Cipher | None:
    """The cipher that `$REPLAYFLOW_CIPHER` names; None where it is not set.

    Raises:
        CipherError: it names none.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    module, colon, path = named.partition(":")
    if not (module and colon and path):
        raise CipherError(f"${VARIABLE} is {named!r:.80}; it is module:object")
    try:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except ImportError as error:
        raise CipherError(
            f"${VARIABLE} is {named!r:.80}, and the module cannot be imported ({error}): is its folder on $PYTHONPATH?"
        ) from error
    except AttributeError as error:
        raise CipherError(f"${VARIABLE} is {named!r:.80}, and the module has no such object") from error
    if callable(found) and (isinstance(found, type) or not isinstance(found, Cipher)):
        found = found()
    return checked_cipher(found, f"${VARIABLE}")
