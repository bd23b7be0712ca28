"""The envelope of a payload: which encoding its bytes are in, how large they may be, and when they are compressed.

1. `None` is the payload of the value None; every other payload is at least one byte.
2. Bytes that do not begin with `MARK` are msgpack. No msgpack value begins with `MARK`, so the two cannot be confused.
3. The limit is on the encoded size before compression. Opening a payload never expands it beyond the limit it is given.
"""

from __future__ import annotations

import zlib
from typing import TypeAlias

from replayflow.errors import DecodeError, PayloadTooLargeError

Payload: TypeAlias = bytes | None

PAYLOAD_BYTES_MAX = 64 * 2**20
COMPRESS_OVER_BYTES = 16 * 2**10

MARK = 0xC1
COMPRESSED = b"\xc1z"
JSON = b"\xc1j"
OUT_OF_LINE = b"\xc1r"
SEALED = b"\xc1e"
SEALED_TEXT = b"\xc1t"

_COMPRESSION_LEVEL = 1  # the higher levels cost several times the time for a few per cent of size
_KEPT_TENTHS_MAX = 9
_SAMPLES = 4
_SAMPLE_BYTES = 16 * 2**10


def seal(encoded: bytes, payload_bytes_max: int, compress_over_bytes: int, where: str) -> bytes:
    """The msgpack bytes as a payload: compressed where they are long and it saves at least a tenth.

    Raises:
        PayloadTooLargeError: they are over the limit.
    """
    refuse_beyond(len(encoded), payload_bytes_max, where)
    if len(encoded) <= compress_over_bytes or not _seems_compressible(encoded):
        return encoded
    compressed = COMPRESSED + zlib.compress(encoded, _COMPRESSION_LEVEL)
    return compressed if len(compressed) * 10 <= len(encoded) * _KEPT_TENTHS_MAX else encoded


def _seems_compressible(encoded: bytes) -> bool:
    """Whether samples of it are: of noise, such as a picture, a second would pass for each 30 MB until that shows at the end."""
    if len(encoded) <= 2 * _SAMPLES * _SAMPLE_BYTES:
        return True
    distance = (len(encoded) - _SAMPLE_BYTES) // (_SAMPLES - 1)
    samples = b"".join(encoded[i * distance : i * distance + _SAMPLE_BYTES] for i in range(_SAMPLES))
    return len(zlib.compress(samples, _COMPRESSION_LEVEL)) * 10 <= len(samples) * _KEPT_TENTHS_MAX


def refuse_beyond(size_bytes: int, payload_bytes_max: int, where: str) -> None:
    """Returns where so many encoded bytes are within the limit.

    Raises:
        PayloadTooLargeError: they are not.
    """
    if size_bytes > payload_bytes_max:
        raise PayloadTooLargeError(
            f"{where}: {size_bytes:,} bytes when encoded, over the limit payload_bytes_max = {payload_bytes_max:,}; "
            "pass a reference to the bytes (a path, a key in an object store) instead"
        )


def is_json(payload: Payload) -> bool:
    """Whether the payload is JSON text, as other systems write it."""
    return payload is not None and payload[:2] == JSON


def expand(payload: bytes, payload_bytes_max: int, where: str) -> bytes:
    """The msgpack bytes of a compressed payload, at most `payload_bytes_max` of them.

    Raises:
        DecodeError: they are more, or the payload is damaged or cut short.
    """
    expander = zlib.decompressobj()
    try:
        # One byte more than allowed is asked for, so that a payload of exactly the limit is told from a longer one.
        expanded = expander.decompress(payload[len(COMPRESSED) :], payload_bytes_max + 1)
    except zlib.error as error:
        raise DecodeError(f"{where}: the payload is damaged: {error}") from error
    if len(expanded) > payload_bytes_max:
        raise DecodeError(f"{where}: the payload expands beyond the limit payload_bytes_max = {payload_bytes_max:,}")
    if not expander.eof or expander.unused_data:
        raise DecodeError(f"{where}: the payload is damaged: its compressed bytes do not end where it ends")
    return expanded
