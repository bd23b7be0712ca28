"""Starting: what a client hands to the store so that an execution begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from replayflow.chance import new_execution_id, new_execution_ids, new_instance_id, new_instance_ids
from replayflow.client.access import message_of
from replayflow.client.arguments import checked_tags, moment
from replayflow.codec import Codec, Payload
from replayflow.core import events
from replayflow.core.commit import Message, Start
from replayflow.core.events import EventRaised, ExecutionReplaced, ExecutionStarted
from replayflow.core.ids import check_instance_id, check_version
from replayflow.errors import InvalidArgumentError
from replayflow.store.base import Create, OnExisting, Post


def creation(
    codec: Codec,
    name: str,
    input: object,
    *,
    now: int,
    instance_id: str | None,
    version: str | None,
    start_at: datetime | timedelta | None,
    tags: Mapping[str, str] | None,
    on_existing: OnExisting,
) -> Create:
    """What starts the orchestrator of that name.

    Raises:
        EncodeError, PayloadTooLargeError: the input cannot travel as a payload.
        InvalidArgumentError: an id, a time, a tag or a choice that is none.
    """
    _check_on_existing(on_existing)
    start = _start(
        name,
        codec.encode(input, _title(name)),
        now=now,
        instance_id=new_instance_id(now) if instance_id is None else check_instance_id(instance_id),
        execution_id=new_execution_id(),
        version=check_version(version),
        wake_at=moment(start_at, now),
        tags=checked_tags(tags),
        is_first=on_existing in ("error", "return"),
    )
    return Create(start, on_existing, _replacement(codec, start, on_existing), has_new_id=instance_id is None)


def creations(
    codec: Codec,
    name: str,
    inputs: Sequence[object],
    *,
    now: int,
    instance_ids: Sequence[str] | None,
    version: str | None,
    start_at: datetime | timedelta | None,
    tags: Mapping[str, str] | None,
    on_existing: OnExisting,
) -> tuple[Sequence[str], Iterator[Create]]:
    """As `creation`, for each of the inputs: the ids, and what starts them, made as it is asked for. All that can be wrong is found before that.

    Raises:
        EncodeError, PayloadTooLargeError: an input cannot travel as a payload.
        InvalidArgumentError: an id, a time, a tag or a choice that is none; ids that are not one for each, and all different.
    """
    _check_on_existing(on_existing)
    ids = _ids_of_many(instance_ids, len(inputs), now)
    wake_at, tags, version = moment(start_at, now), checked_tags(tags), check_version(version)
    title = _title(name)
    payloads = [codec.encode(input, title) for input in inputs]

    def create(id: str, execution_id: str, payload: Payload) -> Create:
        start = _start(
            name,
            payload,
            now=now,
            instance_id=id,
            execution_id=execution_id,
            version=version,
            wake_at=wake_at,
            tags=tags,
            is_first=on_existing in ("error", "return"),
        )
        return Create(start, on_existing, _replacement(codec, start, on_existing), has_new_id=instance_ids is None)

    return ids, map(create, ids, new_execution_ids(len(ids)), payloads)


def signal_with_start(
    codec: Codec,
    name: str,
    input: object,
    event: EventRaised,
    *,
    now: int,
    instance_id: str,
    version: str | None,
    tags: Mapping[str, str] | None,
    on_existing: OnExisting,
    dedupe_key: str | None,
) -> Post:
    """What sends the event to the instance, which it starts where there is none.

    Raises:
        EncodeError, PayloadTooLargeError: the input cannot travel as a payload.
        InvalidArgumentError: an id, a tag or a choice that is none.
    """
    if on_existing not in ("error", "replace_finished"):
        raise InvalidArgumentError(
            f"on_existing is {on_existing!r}; where an event comes with the start it is 'error' or 'replace_finished': "
            "an instance that has not finished gets the event in any case"
        )
    start = _start(
        name,
        codec.encode(input, _title(name)),
        now=now,
        instance_id=check_instance_id(instance_id),
        execution_id=new_execution_id(),
        version=check_version(version),
        wake_at=0,
        tags=checked_tags(tags),
        is_first=on_existing == "error",
    )
    message = message_of(start.instance_id, event, is_control=False)
    message.start = start
    return Post(message, dedupe_key, replaces_finished=on_existing == "replace_finished")


def _start(
    name: str,
    input: Payload,
    *,
    now: int,
    instance_id: str,
    execution_id: str,
    version: str | None,
    wake_at: int,
    tags: dict[str, str] | None,
    is_first: bool,
) -> Start:
    started = ExecutionStarted(
        name=name,
        input=input,
        instance_id=instance_id,
        execution_id=execution_id,
        version=version,
        scheduled_start_microseconds=wake_at or None,
        tags=tags,
        is_first=is_first,
    )
    return Start(
        instance_id=instance_id,
        execution_id=execution_id,
        name=name,
        version=started.version,
        event=events.encode([started]),
        decoded=[started],
        created_at=now,
        wake_at=wake_at,
        tags=tags,
    )


def _title(name: str) -> str:
    return f"input of orchestrator '{name}'"


def _check_on_existing(on_existing: str) -> None:
    if on_existing not in ("error", "return", "replace_finished", "terminate_and_replace"):
        raise InvalidArgumentError(
            f"on_existing is {on_existing!r}; it is 'error', 'return', 'replace_finished' or 'terminate_and_replace'"
        )


def _replacement(codec: Codec, start: Start, on_existing: OnExisting) -> Message | None:
    """What asks an execution that has not finished to give way to this one."""
    if on_existing != "terminate_and_replace":
        return None
    reason = codec.encode("replaced by a new execution")
    return message_of(start.instance_id, ExecutionReplaced(start.event, reason), is_control=True)


def _ids_of_many(given: Sequence[str] | None, count: int, now: int) -> Sequence[str]:
    if given is None:
        return list(new_instance_ids(now, count))
    if len(given) != count:
        raise InvalidArgumentError(f"there are {len(given):,} instance_ids for {count:,} inputs; each input has one")
    ids = [check_instance_id(id) for id in given]
    doubled = [id for id, times in Counter(ids).items() if times > 1]
    if doubled:
        raise InvalidArgumentError(
            f"the id '{doubled[0]}' is given more than once in instance_ids; each input has its own"
        )
    return ids
