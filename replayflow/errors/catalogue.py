"""All error classes, for those who look one up."""

from __future__ import annotations

from collections.abc import Iterator

from replayflow.errors.base import ReplayflowError
from replayflow.errors.raised import ActivityCancelled, OrchestrationCancelled


def find(code: str) -> type[BaseException] | None:
    """The error class with the code, such as `RF101`; None where no class has it."""
    return next((cls for cls in _tree() if cls.__dict__.get("code") == code.upper()), None)


def every() -> list[type[BaseException]]:
    """All error classes, in the order of their codes."""
    return sorted(_tree(), key=lambda cls: str(cls.__dict__["code"]))


def _tree() -> Iterator[type[BaseException]]:
    yield from (OrchestrationCancelled, ActivityCancelled)
    waiting: list[type[BaseException]] = [ReplayflowError]
    while waiting:
        cls = waiting.pop()
        if "code" in cls.__dict__ and cls.__module__.startswith(str(__package__)):
            yield cls
        waiting.extend(cls.__subclasses__())
