"""Ids of entities: `@name@key`. The name is that of the code, in lower case; the key says which entity of that name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from replayflow.core.ids import INSTANCE_ID_CHARS_MAX, is_unicode, plain
from replayflow.errors import InvalidArgumentError

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f/\\#?\ud800-\udfff]")


@dataclass(frozen=True, slots=True, order=True)
class EntityInstanceId:
    """Which entity: `EntityInstanceId("counter", "basket-7")`, in text `@counter@basket-7`.

    Raises:
        InvalidArgumentError: name or key is empty, together they are too long, the name has an `@`, or one of them a control character or one
            of `/ \\ # ?`.
    """

    entity: str
    key: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "entity", check_entity_name(self.entity).lower())
        if not isinstance(self.key, str) or not self.key or _FORBIDDEN.search(self.key):
            raise InvalidArgumentError(
                f"the key of an entity is {self.key!r:.80}; it is text of one character or more, without control characters and / \\ # ?"
            )
        object.__setattr__(self, "key", plain(self.key))
        if len(self.entity) + len(self.key) + 2 > INSTANCE_ID_CHARS_MAX:
            raise InvalidArgumentError(f"the entity id {str(self)!r:.80}... is longer than {INSTANCE_ID_CHARS_MAX}")

    def __str__(self) -> str:
        return f"@{self.entity}@{self.key}"

    @classmethod
    def parse(cls, text: str) -> EntityInstanceId:
        """The id that the text `@name@key` stands for; the key may have further `@`.

        Raises:
            InvalidArgumentError: it is no such text.
        """
        parts = str.split(text, "@", 2) if isinstance(text, str) else []
        if len(parts) != 3 or parts[0]:
            raise InvalidArgumentError(f"{text!r:.300} is no entity id; it is written @name@key, such as @counter@a")
        return cls(parts[1], parts[2])


AnyEntityId: TypeAlias = EntityInstanceId | str


def entity_id_text(given: AnyEntityId) -> str:
    """The id in text, with its name in lower case.

    Raises:
        InvalidArgumentError: it is none.
    """
    return str(given if isinstance(given, EntityInstanceId) else EntityInstanceId.parse(given))


def is_entity_id(instance_id: str) -> bool:
    """Whether the instance with the id is an entity."""
    return instance_id.startswith("@")


def entity_name_of(instance_id: str) -> str:
    """The name in an entity's id."""
    return instance_id.split("@", 2)[1]


def check_entity_name(name: object) -> str:
    """The name, if entities can have it.

    Raises:
        InvalidArgumentError: it is no text, is empty, or has a character that ids of entities cannot have in their name.
    """
    if not isinstance(name, str) or not name or "@" in name or not name.isprintable() or _FORBIDDEN.search(name):
        raise InvalidArgumentError(
            f"{name!r:.80} is no name for an entity: it is printable text without @ / \\ # and ?"
        )
    return plain(name)


def check_operation(operation: object) -> str:
    """The operation's name, if it is one.

    Raises:
        InvalidArgumentError: it is no text that can be stored, empty, or longer than 256 characters.
    """
    if not isinstance(operation, str) or not 0 < len(operation) <= INSTANCE_ID_CHARS_MAX or not is_unicode(operation):
        raise InvalidArgumentError(
            f"{operation!a:.80} is no name of an operation: it is text of 1 to {INSTANCE_ID_CHARS_MAX} characters"
        )
    return plain(operation)
