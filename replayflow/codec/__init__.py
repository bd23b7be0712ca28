"""Values to payloads and back: the bytes in which inputs, results and messages are stored.

1. Payloads are msgpack, with extension types for what msgpack lacks; nothing in them is ever executed or imported.
2. Bytes that a codec wrote are read by every later version of it.
"""

from __future__ import annotations

from replayflow.codec.codec import Codec, Decoder
from replayflow.codec.jsontext import from_json, to_json
from replayflow.codec.payload import COMPRESS_OVER_BYTES, PAYLOAD_BYTES_MAX, Payload
from replayflow.codec.reference import LARGE_OVER_BYTES

__all__ = [
    "COMPRESS_OVER_BYTES",
    "LARGE_OVER_BYTES",
    "PAYLOAD_BYTES_MAX",
    "Codec",
    "Decoder",
    "Payload",
    "from_json",
    "to_json",
]
