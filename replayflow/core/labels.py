"""Names of events, and tags: texts that users choose, and what they may be."""

from __future__ import annotations

from collections.abc import Mapping

from replayflow.core import ids
from replayflow.errors import InvalidArgumentError

EVENT_NAME_CHARS_MAX = 256


def check_event_name(name: object) -> str:
    """The event's name, if it is one.

    Raises:
        InvalidArgumentError: it is no text, empty, or longer than 256 characters.
    """
    if not isinstance(name, str) or not 0 < len(name) <= EVENT_NAME_CHARS_MAX:
        raise InvalidArgumentError(
            f"{name!r:.80} is no event name: it is text of 1 to {EVENT_NAME_CHARS_MAX} characters"
        )
    return ids.plain(name)


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags, if they are text by text that can be stored.

    Raises:
        InvalidArgumentError: they are not.
    """
    if not isinstance(tags, Mapping):
        raise InvalidArgumentError(f"tags are {tags!r:.80}; they are a mapping of text by text")
    for key, value in tags.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidArgumentError(f"tags are text by text, and {key!r:.80}: {value!r:.80} is not")
        if "\0" in key + value or not ids.is_unicode(key + value):
            raise InvalidArgumentError(f"the tag {key!a:.80}: {value!a:.80} has a character that cannot be stored")
    return {ids.plain(key): ids.plain(value) for key, value in tags.items()}
