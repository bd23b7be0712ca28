"""The engine runs work: one small service per loop, over a store that is the truth."""

from replayflow.engine.engine import Engine
from replayflow.engine.limits import Limits
from replayflow.engine.retention import Retention

__all__ = ["Engine", "Limits", "Retention"]
