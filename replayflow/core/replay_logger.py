"""A logger for code that runs more than once."""

from __future__ import annotations

from logging import Logger, LoggerAdapter
from typing import TYPE_CHECKING

from replayflow.core.decisions import Decisions

if TYPE_CHECKING:
    _Adapter = LoggerAdapter[Logger]
else:
    _Adapter = LoggerAdapter


class ReplaySafeLogger(_Adapter):
    """A logger that is silent while the orchestrator is replaying, so that each line is logged once per worker that lives through it.

    It is silent, too, while a generator that is not needed any more is closed: its `finally` runs again when the orchestration really gets there.
    """

    def __init__(self, logger: Logger, decisions: Decisions) -> None:
        super().__init__(logger, {"instance_id": decisions.instance_id})
        self._decisions = decisions

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is logging's
        decisions = self._decisions
        return not (decisions.is_replaying or decisions.is_sealed) and super().isEnabledFor(level)
