"""Errors as values: what is stored of one, and read back without importing what raised it."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from replayflow.errors.base import ReplayflowError

ErrorClass: TypeAlias = type[BaseException]
STACK_CHARS_MAX = 8_000
MESSAGE_CHARS_MAX = 30_000
CAUSE_DEPTH_MAX = 16
NESTED_CHARS_MAX = 4_000


class FailureDetails(Struct, array_like=True, frozen=True):
    """An error as it is stored: what it was where it was raised. Nothing is imported to read it back.

    `bases` has the qualified names of the error's class and of all its base classes, most derived first.
    """

    type: str
    message: str
    stack: str = ""
    inner: FailureDetails | None = None
    non_retryable: bool = False
    bases: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: BaseException) -> FailureDetails:
        """The error and its chain of causes as values: a raised-from cause first, else the error that was being handled."""
        return cls._of(error, CAUSE_DEPTH_MAX, set())

    @classmethod
    def _of(cls, error: BaseException, depth: int, seen: set[int]) -> FailureDetails:
        seen.add(id(error))
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        inner: FailureDetails | None = None
        handed_on = error._handed_on() if isinstance(error, ReplayflowError) else None
        if isinstance(handed_on, FailureDetails):
            # What it came from; whatever was being handled when it arrived is not.
            inner = _cut(handed_on, depth - 1)
        elif cause is not None and depth > 1 and id(cause) not in seen:
            inner = cls._of(cause, depth - 1, seen)
        return cls(
            type=type(error).__name__,
            message=_text(error),
            stack=_unicode("".join(traceback.format_tb(error.__traceback__))[-STACK_CHARS_MAX:]),
            inner=inner,
            non_retryable=isinstance(error, ReplayflowError) and error._non_retryable,
            bases=tuple(qualified_name(base) for base in type(error).__mro__ if base is not object),
        )

    def is_caused_by(self, *classes: ErrorClass) -> bool:
        """Whether this error, or one in its chain of causes, was one of the classes, by qualified name."""
        return self.matches(qualified_name(cls) for cls in classes)

    def matches(self, names: Iterable[str]) -> bool:
        """Whether a class of this error or of one in its chain of causes bears one of the qualified names."""
        wanted = set(names)
        return any(not wanted.isdisjoint(details.bases) for details in self.chain())

    def chain(self) -> Iterator[FailureDetails]:
        """This error, then the error that it came from, and so on."""
        details: FailureDetails | None = self
        while details is not None:
            yield details
            details = details.inner

    def __str__(self) -> str:
        half = NESTED_CHARS_MAX // 2
        said: list[str] = []
        for details in self.chain():
            text = f"{details.type}: {details.message}" if details.message else details.type
            if not said or not said[-1].endswith(text[-half:]):  # a failed task's message ends with what it came from
                said.append(text)
        whole = " <- ".join(said)
        # It becomes part of the message of whatever fails because of this: without an end to it, every level of nesting would make it longer.
        return whole if self.inner is None or len(whole) <= NESTED_CHARS_MAX else f"{whole[:half]} ... {whole[-half:]}"


def _cut(details: FailureDetails, depth: int) -> FailureDetails | None:
    """The failure with so many of its chain at most: the last ones to be raised and the first, from which all came, without those between."""
    chain = [*details.chain()]
    if len(chain) <= depth:
        return details
    kept = [*chain[: depth // 2], *chain[len(chain) - (depth - depth // 2) :]]
    cut: FailureDetails | None = None
    for each in reversed(kept):
        cut = each if each.inner is cut else replace(each, inner=cut)
    return cut


def qualified_name(cls: type) -> str:
    """The name under which failures record a class: module and qualified name."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _unicode(text: str) -> str:
    """The text as it can be stored: a lone surrogate (of a file's name that is no UTF-8, say) as its escape."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _text(error: BaseException) -> str:
    try:
        text = str(error)
        if len(text) > MESSAGE_CHARS_MAX:
            text = f"{text[:MESSAGE_CHARS_MAX]} ... ({len(text) - MESSAGE_CHARS_MAX:,} more characters)"
        return _unicode(text)
    except BaseException as broken:
        # A user's __str__ may raise, SystemExit too, and the failure must still be recorded.
        return f"<no text: {type(broken).__name__} in {type(error).__name__}.__str__>"
