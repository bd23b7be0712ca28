"""The codec: values to payloads and back, for one set of limits.

1. What can be encoded is decoded to the same plain value, and with its own annotation to an equal value of its class.
2. A value that cannot travel is refused whole, with its path; nothing is dropped or replaced silently.
3. A codec has no state that a call can leave dirty: it may be used from any thread, and from within itself.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from msgpack import unpackb

from replayflow.codec import decode, encode
from replayflow.codec.payload import COMPRESS_OVER_BYTES, PAYLOAD_BYTES_MAX, Payload, is_json, seal
from replayflow.codec.plan import Mismatch, Plan
from replayflow.codec.rebuild import Plans
from replayflow.codec.unions import TooManyTriesError
from replayflow.errors import DecodeError

_DECODERS_MAX = 4096

# Bound here for the hot path: both are looked up for every value that crosses the engine.
_pack = encode.pack
_extension = decode.extension
# Most values that cross the engine are one number or one text. For these alone msgspec, which is quicker, does exactly what msgpack does.
_SCALARS = frozenset({int, str, float, bool, bytes})
_pack_scalar = msgspec.msgpack.Encoder().encode
_unpack_scalar = msgspec.msgpack.Decoder().decode


class Decoder(Protocol):
    """A compiled annotation: from a payload to its value."""

    def __call__(self, payload: Payload, where: str = "value") -> Any:
        """The value, as `Codec.decode` gives it."""
        ...


class Codec:
    """Turns user values into payloads and back.

    `payload_bytes_max` bounds the encoded size of a value. Payloads of more than `compress_over_bytes` are compressed
    where that saves a tenth.
    """

    def __init__(
        self, *, payload_bytes_max: int = PAYLOAD_BYTES_MAX, compress_over_bytes: int = COMPRESS_OVER_BYTES
    ) -> None:
        self.payload_bytes_max = payload_bytes_max
        self.compress_over_bytes = compress_over_bytes
        self._checked_over_bytes = min(payload_bytes_max, compress_over_bytes)
        self._plans = Plans(from_json=False)
        self._json_plans = Plans(from_json=True)
        self._decoders: dict[int, tuple[Any, Decoder]] = {}

    def encode(self, value: object, where: str = "value") -> Payload:
        """The value as a payload; `where` begins the path in messages.

        Raises:
            EncodeError: the value, or a part of it, is of a type that cannot travel.
            PayloadTooLargeError: it is larger than the limit.
        """
        if value is None:
            return None
        try:
            cls = type(value)  # nearly always one of two, which two comparisons tell sooner than a set
            encoded = _pack_scalar(value) if cls is int or cls is str or cls in _SCALARS else _pack(value)
        except Exception:  # an int of more than 64 bits, a lone surrogate, or a value that cannot travel
            encoded = encode.pack_or_explain(value, where)
        if len(encoded) > self._checked_over_bytes:
            return seal(encoded, self.payload_bytes_max, self.compress_over_bytes, where)
        return encoded

    def decode(self, payload: Payload, type: Any = Any, where: str = "value") -> Any:
        """The payload's value, rebuilt for the annotation `type`; `where` begins the path in messages.

        Raises:
            DecodeError: the value does not fit the annotation, or the payload is damaged.
        """
        return self.decoder(type)(payload, where)

    def decoder(self, type: Any) -> Decoder:
        """What decodes payloads for the annotation: compiled once, and the same for every call with the same object."""
        known = self._decoders.get(id(type))
        if known is not None:
            return known[1]
        decoder = self._decoder(type)
        if len(self._decoders) >= _DECODERS_MAX:
            self._decoders.clear()
        self._decoders[id(type)] = (type, decoder)  # the annotation is kept, so that its identity stays its own
        return decoder

    def _decoder(self, type_: Any) -> Decoder:
        plan = self._plans.plan(type_)
        exact = plan.exact

        def decode_scalar(payload: Payload, where: str = "value") -> Any:
            try:
                value = _unpack_scalar(payload)  # type: ignore[arg-type]  # None is refused like all that is not plain msgpack
            except Exception:
                return decode_payload(payload, where)
            return value if type(value) is exact else decode_payload(payload, where)

        def decode_payload(payload: Payload, where: str = "value") -> Any:
            if payload is None:
                value = None
            else:
                try:
                    value = unpackb(
                        payload, strict_map_key=False, ext_hook=_extension, unicode_errors="surrogatepass", timestamp=3
                    )
                except Exception:
                    # Another encoding (its mark is no msgpack), keys that cannot be hashed, or damage.
                    value = decode.read(payload, self.payload_bytes_max, where)
                    if is_json(payload):
                        return self._rebuilt(self._json_plans, self._json_plans.plan(type_), payload, value, where)
            if type(value) is exact or plan.rebuild is None:
                return value
            return self._rebuilt(self._plans, plan, payload, value, where)

        return decode_scalar if exact in _SCALARS else decode_payload

    def _rebuilt(self, plans: Plans, plan: Plan, payload: Payload, value: Any, where: str) -> Any:
        plans.tries.allow(0 if payload is None else len(payload))
        try:
            return plan.apply(value)
        except Mismatch as mismatch:
            raise DecodeError(mismatch.text(where)) from mismatch.__cause__
        except TooManyTriesError:
            raise DecodeError(
                f"{where}: the unions in {plan.name} took too many tries; give their records a Literal field each"
            ) from None
        except RecursionError as error:
            raise DecodeError(f"{where}: nested too deep to be rebuilt as {plan.name}") from error
