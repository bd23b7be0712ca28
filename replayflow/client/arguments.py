"""What callers hand to the client, as the store takes it; what is wrong with it is said before anything is written (I11)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from replayflow.clock import to_microseconds
from replayflow.codec import Codec
from replayflow.core.events import EventRaised
from replayflow.core.ids import check_dedupe_key
from replayflow.core.instance import Status
from replayflow.core.labels import check_event_name, check_tags
from replayflow.errors import InvalidArgumentError

_TIME_MIN = to_microseconds(datetime.min.replace(tzinfo=UTC))
_TIME_MAX = to_microseconds(datetime.max.replace(tzinfo=UTC))


def instance_id_for(name: str, input: bytes | None) -> str:
    """The id of "this orchestrator with this input": the same call finds the same instance again."""
    return f"{name}-{hashlib.sha256(input or b'').hexdigest()[:24]}"


def statuses(wanted: Status | str | Iterable[Status | str] | None) -> frozenset[Status] | None:
    """The statuses that a filter names; None for all.

    Raises:
        InvalidArgumentError: one of them is none.
    """
    if wanted is None:
        return None
    try:
        several = [wanted] if isinstance(wanted, str) else list(wanted)
        return frozenset(Status(str(status).upper()) for status in several)
    except (ValueError, TypeError) as error:
        raise InvalidArgumentError(f"{error}; a status is one of {', '.join(Status)}") from None


def event_of(codec: Codec, name: str, payload: object, dedupe_key: str | None) -> EventRaised:
    """The event, with its payload encoded.

    Raises:
        EncodeError, InvalidArgumentError: the payload cannot travel, or the name or the key is none.
    """
    name = check_event_name(name)
    check_dedupe_key(dedupe_key)
    return EventRaised(name, codec.encode(payload, f"payload of event '{name}'"))


def checked_tags(tags: Mapping[str, str] | None) -> dict[str, str] | None:
    """The tags, where there are any."""
    return check_tags(tags) if tags else None


def moment(when: datetime | timedelta | None, now: int) -> int:
    """When an instance is to start, in microseconds; 0 for at once.

    Raises:
        InvalidArgumentError: a time without a zone, or one that no calendar has.
    """
    if when is None:
        return 0
    if isinstance(when, timedelta):
        at = now + when // timedelta(microseconds=1)
        if not _TIME_MIN <= at <= _TIME_MAX:
            raise InvalidArgumentError(f"start_at is {when} from now, which no calendar has")
        return at
    return aware(when, "start_at")


def aware(when: datetime, what: str) -> int:
    """The moment in microseconds.

    Raises:
        InvalidArgumentError: it has no time zone.
    """
    if not isinstance(when, datetime):
        raise InvalidArgumentError(f"{what} is {when!r:.80}; it is a datetime with a time zone")
    if when.tzinfo is None or when.utcoffset() is None:
        raise InvalidArgumentError(
            f"{what} is {when!r}, which is naive: give it a time zone, such as datetime.now(UTC)"
        )
    return to_microseconds(when)


def seconds(timeout: float | timedelta | None) -> float | None:
    """A time limit in seconds; None for none."""
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
