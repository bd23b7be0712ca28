"""Ids: what an instance may be called, what its children are called by default, and UUIDs that replay."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from hashlib import sha256

from replayflow.errors import InvalidArgumentError

INSTANCE_ID_CHARS_MAX = 256
DEDUPE_KEY_CHARS_MAX = 256
PATCH_NAME_CHARS_MAX = 256
# Control characters, the four, and halves of surrogate pairs, which no UTF-8 can hold.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f/\\#?\ud800-\udfff]")
# The namespace of the Durable Task SDKs: the same instance, time and count give the same UUID there as here.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "9e952958-5e33-4daf-827f-2fa12937b875")


def is_unicode(text: str) -> bool:
    """Whether the text can be stored: one with a surrogate that stands alone cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain(text: str) -> str:
    """The text without the class of its own that a caller's text may have (a library's key, say): so it is stored, compared and shown."""
    return text if type(text) is str else str.__str__(text)


def check_instance_id(instance_id: object, where: str = "instance_id") -> str:
    """The id, if it is one.

    Raises:
        InvalidArgumentError: it is no text, empty, longer than 256 characters, begins with `@`, or has a control character or one of `/ \\ # ?`.
    """
    if not isinstance(instance_id, str):
        raise InvalidArgumentError(f"{where} is {instance_id!r:.80}; an instance id is text")
    instance_id = plain(instance_id)
    if not 0 < len(instance_id) <= INSTANCE_ID_CHARS_MAX:
        raise InvalidArgumentError(
            f"{where} has {len(instance_id)} characters; an instance id has 1 to {INSTANCE_ID_CHARS_MAX}"
        )
    if instance_id[0] == "@":
        raise InvalidArgumentError(f"{where} is {instance_id!r}; ids that begin with '@' are those of entities")
    if _FORBIDDEN.search(instance_id):
        raise InvalidArgumentError(
            f"{where} is {instance_id!r:.300}; an instance id has no control characters and none of / \\ # ?"
        )
    return instance_id


def check_patch(name: object) -> str:
    """The name of a patch, if it is one.

    Raises:
        InvalidArgumentError: it is no text, empty, or longer than 256 characters.
    """
    if not (isinstance(name, str) and 0 < len(name) <= PATCH_NAME_CHARS_MAX and is_unicode(name)):
        raise InvalidArgumentError(
            f"{name!r:.80} is no name of a patch: it is text of 1 to {PATCH_NAME_CHARS_MAX} characters"
        )
    return plain(name)


def check_version(version: object) -> str | None:
    """The version of an orchestrator, if it is one: None for none, and for an empty text.

    Raises:
        InvalidArgumentError: it is no text.
    """
    if not version and (version is None or isinstance(version, str)):
        return None
    if not (isinstance(version, str) and is_unicode(version)):
        raise InvalidArgumentError(f"version is {version!r:.80}; a version is text")
    return plain(version)


def child_id(parent_id: str, execution_id: str, action_id: int, is_first_execution: bool) -> str:
    """The default id of a sub-orchestration: `{parent}:{action id:04x}`, with a suffix in an execution that is not the instance's first."""
    name = f"{parent_id}:{action_id:04x}"
    return _fitting(name if is_first_execution else f"{name}:{execution_id[:16]}")


def attempt_id(instance_id: str, attempt: int) -> str:
    """The id under which a sub-orchestration is tried again: the first one's, with the number of the attempt."""
    return _fitting(f"{instance_id}:{attempt}")


def new_uuid(instance_id: str, now: datetime, count: int) -> str:
    """The UUIDv5 that durabletask-python makes of instance, time and count."""
    return str(uuid.uuid5(_NAMESPACE, f"{instance_id}_{now.strftime('%Y-%m-%dT%H:%M:%S.%fZ')}_{count}"))


def _fitting(instance_id: str) -> str:
    """The id; one that is too long becomes a hash of itself, of fixed length."""
    if len(instance_id) <= INSTANCE_ID_CHARS_MAX:
        return instance_id
    return sha256(instance_id.encode("utf-8", "surrogatepass")).hexdigest()


def check_dedupe_key(key: object) -> None:
    """The key is one, or None.

    Raises:
        InvalidArgumentError: it is neither.
    """
    if key is not None and not (isinstance(key, str) and is_unicode(key)):
        raise InvalidArgumentError(f"dedupe_key is {key!a:.80}; it is text that can be stored")
    if key is not None and not 0 < len(key) <= DEDUPE_KEY_CHARS_MAX:
        raise InvalidArgumentError(f"dedupe_key has {len(key)} characters; it has 1 to {DEDUPE_KEY_CHARS_MAX}")
