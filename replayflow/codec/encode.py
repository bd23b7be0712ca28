"""From a value to msgpack bytes.

1. A packer serves one call at a time: it is taken from a pool for the call, and given back only after one that
   succeeded. So threads, calls from within calls and failures never meet in a packer's buffer. (A new packer for each
   call makes tuples and sets ten times as slow: two buffers at once are more than the allocator keeps at hand.)
2. Equal sets give equal bytes in every process: members are written in the order of their bytes.
3. Nesting is bounded, in all and in the extension types, each level of which costs the C stack on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from msgpack import Packer

from replayflow.codec.extensions import FROZENSET, SET, TUPLE, WRITERS, extension
from replayflow.codec.fault import EXTENSION_DEPTH_MAX, TOO_DEEP, fault
from replayflow.codec.simplify import Refused, simplify
from replayflow.errors import EncodeError

_NATIVE = frozenset({type(None), bool, float, str, bytes, bytearray, list, dict})
_UNCHECKED_DEPTH = 4
_KEPT_BYTES_MAX = 2**20
_SHORT_ARRAY = 0x90
_SHORT_ARRAY_MAX = 15


class _Level:
    """How values are packed inside so many extension types."""

    __slots__ = ("_depth", "_inner", "_packs", "_unicode_errors")

    def __init__(self, depth: int, unicode_errors: str | None) -> None:
        self._depth = depth
        self._unicode_errors = unicode_errors
        self._inner: _Level | None = None
        self._packs: list[Callable[[object], bytes]] = []

    def pack(self, value: object) -> bytes:
        """The bytes of the value."""
        packs = self._packs
        try:
            pack = packs.pop()
        except IndexError:
            pack = Packer(default=self.default, strict_types=True, unicode_errors=self._unicode_errors).pack
        encoded = pack(value)
        if len(encoded) <= _KEPT_BYTES_MAX:  # the buffer of a packer never shrinks
            packs.append(pack)
        return encoded

    def default(self, value: Any) -> Any:
        """What stands for a value that msgpack does not have; its packer calls this."""
        while True:
            kind = type(value)
            write = WRITERS.get(kind)
            if write is not None:
                return write(value)
            if kind is tuple:
                return extension(TUPLE, self._inside(value)(list(value)))
            if kind is set or kind is frozenset:
                return extension(SET if kind is set else FROZENSET, _members(value, self._inside(value)))
            if kind in _NATIVE:
                return value
            value = simplify(value)

    def _inside(self, value: object) -> Callable[[object], bytes]:
        if self._depth == _UNCHECKED_DEPTH:
            # From here on the packer's own limit, which starts anew in each extension, would no longer protect the
            # stack.
            problem = fault(value)
            if problem is not None:
                raise Refused(problem)
        elif self._depth >= EXTENSION_DEPTH_MAX:
            raise Refused(TOO_DEEP)
        if self._inner is None:
            self._inner = _Level(self._depth + 1, self._unicode_errors)
        return self._inner.pack


def _members(values: Collection[Any], pack: Callable[[object], bytes]) -> bytes:
    count = len(values)
    header = b"\xdd" + count.to_bytes(4, "big") if count > _SHORT_ARRAY_MAX else bytes((_SHORT_ARRAY | count,))
    return header + b"".join(sorted(map(pack, values)))


_STRICT = _Level(0, None)
_SURROGATES = _Level(0, "surrogatepass")

# The bytes of a value without unpaired surrogates; raises whatever its parts make the packer raise.
pack = _STRICT.pack


def pack_or_explain(value: object, where: str) -> bytes:
    """The bytes of a value that was refused at first: with its surrogate code points, if it has any.

    Raises:
        EncodeError: it cannot be packed at all; with the path to the first part that cannot.
    """
    try:
        return pack(value)
    except UnicodeEncodeError:
        # Letting surrogates pass slows every string by half, so only a value that has them pays.
        try:
            return _SURROGATES.pack(value)
        except Exception as error:
            raise _explained(value, where, error) from error
    except Refused as refusal:
        raise _explained(value, where, refusal) from None  # which says all that there is to say
    except Exception as error:
        raise _explained(value, where, error) from error


def _explained(value: object, where: str, error: Exception) -> EncodeError:
    return EncodeError(fault(value, where) or f"{where}: cannot be encoded: {type(error).__name__}: {error}")
