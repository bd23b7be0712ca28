"""The memory store: the port's contract in the plainest code that keeps it. Tests compare every other store with this one."""

from replayflow.store.memory.store import MemoryStore

__all__ = ["MemoryStore"]
