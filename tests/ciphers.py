"""A cipher for tests, of the standard library alone. It is none to trust with a secret."""

from __future__ import annotations

import hmac
import os
from hashlib import sha256, shake_256


class ToyCipher:
    """Seals with the last of its keys; opens with any, in the context that it was sealed in, and says so where it cannot."""

    def __init__(self, *key_ids: str, secret: bytes = b"") -> None:
        self.key_ids = key_ids or ("k1",)
        self._secret = secret

    def seal(self, content: bytes, context: bytes) -> tuple[str, bytes]:
        key_id, nonce = self.key_ids[-1], os.urandom(12)
        return key_id, nonce + self._tag(key_id, nonce, context, content) + self._mixed(key_id, nonce, content)

    def open(self, sealed: bytes, key_id: str, context: bytes) -> bytes:
        if key_id not in self.key_ids:
            raise KeyError(key_id)
        nonce, tag, mixed = sealed[:12], sealed[12:44], sealed[44:]
        content = self._mixed(key_id, nonce, mixed)
        if not hmac.compare_digest(tag, self._tag(key_id, nonce, context, content)):
            raise ValueError("not what was sealed")
        return content

    def _key(self, key_id: str) -> bytes:
        return sha256(self._secret + key_id.encode()).digest()

    def _tag(self, key_id: str, nonce: bytes, context: bytes, content: bytes) -> bytes:
        return hmac.digest(self._key(key_id), nonce + sha256(context).digest() + content, "sha256")

    def _mixed(self, key_id: str, nonce: bytes, content: bytes) -> bytes:
        stream = shake_256(self._key(key_id) + nonce).digest(len(content))
        return (int.from_bytes(content) ^ int.from_bytes(stream)).to_bytes(len(content))
