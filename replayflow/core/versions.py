"""Versions of orchestrators: how they compare, and which of them a worker serves.

The strategies are those of durabletask (`VersioningOptions`). A version is text; none at all is the oldest. Versions that begin with numbers
compare by these, part for part, and a pre-release comes before its release; other texts come after all numbers, as texts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from replayflow.core.ids import check_version
from replayflow.core.signatures import OWN_PREFIX
from replayflow.errors import InvalidArgumentError, VersionMismatchError

_NUMBERED = re.compile(r"[vV]?([0-9]+(?:\.[0-9]+)*)(.*)", re.DOTALL)
_PARTS = re.compile(r"([0-9]+)|[^0-9]+")
_AFTER_RELEASE = re.compile(r"[-._]?post|\+", re.IGNORECASE)


class VersionMatchStrategy(StrEnum):
    """Which instances a worker takes, by their version and its own: any, those of the same, or those of the same and older ones."""

    NONE = "none"
    STRICT = "strict"
    CURRENT_OR_OLDER = "current_or_older"


class VersionFailureStrategy(StrEnum):
    """What becomes of an instance that a worker does not take: it is parked until another worker starts (REJECT), or it fails (FAIL)."""

    REJECT = "reject"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class VersioningOptions:
    """How a worker treats versions: `TaskHub(..., versioning=VersioningOptions(version="2.0", match_strategy="strict"))`.

    `version` is the worker's own, with which those of instances are compared. `default_version` is for starts and sub-orchestrations that give
    none, where their name has code for it. Strategies may be given by their names.

    Raises:
        InvalidArgumentError: a version that is no text, a strategy that is none, or one that compares without a version to compare with.
    """

    version: str | None = None
    default_version: str | None = None
    match_strategy: VersionMatchStrategy | str = VersionMatchStrategy.NONE
    failure_strategy: VersionFailureStrategy | str = VersionFailureStrategy.REJECT

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", check_version(self.version))
        object.__setattr__(self, "default_version", check_version(self.default_version))
        object.__setattr__(self, "match_strategy", _one_of(VersionMatchStrategy, self.match_strategy))
        object.__setattr__(self, "failure_strategy", _one_of(VersionFailureStrategy, self.failure_strategy))
        if self.version is None and self.match_strategy == VersionMatchStrategy.CURRENT_OR_OLDER:
            raise InvalidArgumentError(
                "match_strategy 'current_or_older' compares with the worker's version: give version="
            )

    @property
    def fails(self) -> bool:
        """Whether an instance that is not taken fails."""
        return self.failure_strategy == VersionFailureStrategy.FAIL

    def mismatch(self, name: str, version: str | None) -> VersionMismatchError | None:
        """Why an instance of the orchestrator, of that version, is not this worker's; None where it is. What is replayflow's own has no version."""
        if self.match_strategy == VersionMatchStrategy.NONE or name.startswith(OWN_PREFIX):
            return None
        theirs, ours = version_key(version), version_key(self.version)
        if theirs == ours or (theirs < ours and self.match_strategy == VersionMatchStrategy.CURRENT_OR_OLDER):
            return None
        wanted = "that version alone" if self.match_strategy == VersionMatchStrategy.STRICT else "that and older ones"
        return VersionMismatchError(
            f"the instance is {of_version(version)} of '{name}', and this worker, {of_version(self.version)}, takes {wanted}"
        )


def version_key(version: str | None) -> tuple[Any, ...]:
    """What versions sort by, the oldest first. Two that compare as equal (`1` and `1.0`) have the same."""
    if not version:
        return (0,)
    numbered = _NUMBERED.fullmatch(version)
    if numbered is None:
        return (2, _parts(version))
    numbers = [_number(part) for part in numbered[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == _number("0"):
        numbers.pop()
    suffix = numbered[2]
    rank = 1 if not suffix else 2 if _AFTER_RELEASE.match(suffix) else 0
    return (1, tuple(numbers), rank, _parts(suffix))


def of_version(version: str | None) -> str:
    """The version as messages name it."""
    return "without a version" if version is None else f"of version '{version}'"


def _parts(text: str) -> tuple[tuple[int, Any], ...]:
    """The text with its numbers as numbers."""
    return tuple((0, _number(found[0])) if found[1] else (1, found[0]) for found in _PARTS.finditer(text.casefold()))


def _number(digits: str) -> tuple[int, str]:
    """What digits sort by as a number, however many they are."""
    bare = digits.lstrip("0")
    return len(bare), bare


def _one_of(strategies: type[StrEnum], given: object) -> StrEnum:
    try:
        return strategies(str(given).lower())
    except ValueError:
        offered = ", ".join(repr(str(strategy)) for strategy in strategies)
        name = "match_strategy" if strategies is VersionMatchStrategy else "failure_strategy"
        raise InvalidArgumentError(f"{name} is {given!r:.80}; it is one of {offered}") from None
