"""The root of the tree."""

from __future__ import annotations

from typing import ClassVar


class ReplayflowError(Exception):
    """The base of every error that replayflow raises."""

    code: ClassVar[str] = "RF000"
    _non_retryable: ClassVar[bool] = False
    """Whether another attempt would come to the same, whatever a retry policy says."""

    def _handed_on(self) -> object:
        """The `FailureDetails` of another error, where this one tells of that; else None."""
        return None
