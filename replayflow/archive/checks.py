"""Events of a file that somebody may have edited: well-typed each, and looked at here whether an engine can have written it.

A worker goes by what it reads back without a second look, so that what it cannot go by must not come into a hub.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from replayflow.clock import to_datetime
from replayflow.codec import decode
from replayflow.core import events
from replayflow.core.events import Block, HistoryEvent
from replayflow.core.instance import Status
from replayflow.core.map.blocks import payloads_of
from replayflow.errors import DecodeError, InvalidArgumentError, PayloadError, StoreCorruptError
from replayflow.retry import DURATION_MICROSECONDS_MAX, RetryValues

_MOMENTS = ("now", "fire_at", "retry_at", "scheduled_time", "scheduled_start", "until")
_LENGTHS = ("timeout", "page_timeout", "retry_after")


def check_event(event: HistoryEvent, where: str, payload_bytes_max: int) -> None:
    """Returns where the event can have been written.

    Raises:
        InvalidArgumentError: a time is none, a payload cannot be read, or a number contradicts what it counts.
    """
    for struct in _structs(event):
        for field in msgspec.structs.fields(type(struct)):
            _check_field(field, getattr(struct, field.name), where, payload_bytes_max)
        problem = _contradiction(struct)
        if problem is not None:
            raise InvalidArgumentError(f"{where}: {problem}")


def is_moment(microseconds: int) -> bool:
    """Whether a calendar has the time."""
    try:
        to_datetime(microseconds)
    except OverflowError:
        return False
    return True


def _structs(struct: Struct) -> Iterator[Struct]:
    waiting: list[Any] = [struct]
    while waiting:
        found = waiting.pop()
        if isinstance(found, Struct):
            yield found
            waiting += [getattr(found, name) for name in found.__struct_fields__]
        elif isinstance(found, list):
            waiting += [each for each in found if isinstance(each, Struct)]


def _check_field(field: msgspec.structs.FieldInfo, value: Any, where: str, payload_bytes_max: int) -> None:
    name, unit = field.name.removesuffix("_microseconds"), field.name.endswith("_microseconds")
    if unit and value is not None:
        if name in _LENGTHS and not 0 <= value <= DURATION_MICROSECONDS_MAX:
            raise InvalidArgumentError(f"{where}: {field.name} is {value}, which is no length of time")
        if name in _MOMENTS and not is_moment(value):
            raise InvalidArgumentError(f"{where}: {field.name} is {value}, which no calendar has")
    elif field.type is Any:
        _check_payload(value, f"{where}.{field.name}", payload_bytes_max)
    elif isinstance(value, bytes):
        try:
            events.decode(value)
        except StoreCorruptError as error:
            raise InvalidArgumentError(f"{where}.{field.name}: {error}") from None


def _check_payload(payload: Any, where: str, payload_bytes_max: int) -> None:
    try:
        decode.read(payload, payload_bytes_max, where)
    except (DecodeError, PayloadError) as error:
        raise InvalidArgumentError(str(error)) from None


def _contradiction(struct: Struct) -> str | None:
    match struct:
        case events.ExecutionCompleted(orchestration_status=status) if status not in list(Status):
            return f"no orchestration ends with the status {status!r:.80}"
        case events.EntityLockRequested(lock_set=entities, position=place) if not 0 <= place < len(entities):
            return f"of {len(entities)} locks it asks for number {place}"
        case events.MapScheduled(items=blocks, count=count, batch_size=size, concurrency=concurrency):
            if concurrency < 1 or (size is not None and size < 1):
                return "a map has no places"
            return _contradiction_in(blocks, count, size)
        case events.MapPage(items=blocks, count=count, batch_size=size, number=number):
            return "the number of a page is negative" if number < 0 else _contradiction_in(blocks, count, size)
        case events.MapProgress(numbers=numbers, results=results):
            return None if len(numbers) == len(results) else f"{len(numbers)} calls have {len(results)} results"
        case RetryValues(backoff=backoff, jitter=jitter):
            lengths = (struct.first_interval, struct.max_interval, struct.timeout)
            fits = all(length is None or 0 <= length <= DURATION_MICROSECONDS_MAX for length in lengths)
            return None if fits and backoff >= 1 and 0 <= jitter <= 1 else "no policy of retries has such values"
        case _:
            return None


def _contradiction_in(blocks: list[Block], count: int, batch_size: int | None) -> str | None:
    for block in blocks:
        try:
            calls = list(payloads_of([block]))
        except (PayloadError, TypeError):
            return "the items of a map cannot be read"
        if len(calls) != block.calls or not all(call is None or isinstance(call, bytes) for call in calls):
            return f"a block of {block.calls} calls has {len(calls)}"
        if not calls or -(-block.items // (batch_size or 1)) != block.calls:
            return f"{block.items} items are {block.calls} calls"
    items = sum(block.items for block in blocks)
    return None if items == count else f"a map of {count} items has {items}"
