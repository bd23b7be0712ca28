"""The engine runs work: one small service per loop, over a store that is the truth."""

from replayflow.engine.engine import Engine, Limits

__all__ = ["Engine", "Limits"]
