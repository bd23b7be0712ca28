"""Who waits in this process for instances to end."""

from __future__ import annotations

from replayflow.core.commit import Ending
from replayflow.errors import InstanceNotFoundError, ReplayflowError
from replayflow.promise import Promise


class Waiters:
    def __init__(self) -> None:
        self._waiting: dict[str, list[Promise[Ending]]] = {}

    def add(self, instance_id: str) -> Promise[Ending]:
        """How the instance ends, if that happens from now on; whoever gives it up says so with `forget`."""
        promise: Promise[Ending] = Promise()
        waiting = self._waiting.get(instance_id)
        if waiting is None:
            self._waiting[instance_id] = [promise]
        else:
            waiting.append(promise)
        return promise

    def ended(self, instance_id: str, end: Ending) -> None:
        """Whoever waits for the instance is told."""
        waiting = self._waiting.pop(instance_id, None)
        if waiting is not None:
            for promise in waiting:
                promise.keep(end)

    def missing(self, instance_id: str) -> None:
        """There is no such instance: whoever waits for it waits in vain."""
        for promise in self._waiting.pop(instance_id, ()):
            promise.fail(InstanceNotFoundError(f"no instance '{instance_id}' can be read from the hub"))

    def fail(self, error: ReplayflowError) -> None:
        """Nobody will be told any more, and all are told so."""
        waiting, self._waiting = self._waiting, {}
        for promises in waiting.values():
            for promise in promises:
                promise.fail(error)

    def forget(self, instance_id: str, promise: Promise[Ending]) -> None:
        """Nobody waits for this any more."""
        waiting = self._waiting.get(instance_id)
        if waiting is not None and promise in waiting:
            waiting.remove(promise)
            if not waiting:
                del self._waiting[instance_id]
