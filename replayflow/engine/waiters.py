"""Who waits in this process for instances to end."""

from __future__ import annotations

import asyncio

from replayflow.core.commit import Ending
from replayflow.errors import InstanceNotFoundError, ReplayflowError


class Waiters:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()  # asked for each time it would cost a system call
        self._waiting: dict[str, list[asyncio.Future[Ending]]] = {}

    def add(self, instance_id: str) -> asyncio.Future[Ending]:
        """A future of how the instance ends, if that happens from now on; whoever gives it up says so with `forget`."""
        future: asyncio.Future[Ending] = self._loop.create_future()
        waiting = self._waiting.get(instance_id)
        if waiting is None:
            self._waiting[instance_id] = [future]
        else:
            waiting.append(future)
        return future

    def ended(self, instance_id: str, end: Ending) -> None:
        """Whoever waits for the instance is told."""
        waiting = self._waiting.pop(instance_id, None)
        if waiting is not None:
            for future in waiting:
                if not future.done():
                    future.set_result(end)

    def missing(self, instance_id: str) -> None:
        """There is no such instance: whoever waits for it waits in vain."""
        for future in self._waiting.pop(instance_id, ()):
            if not future.done():
                future.set_exception(InstanceNotFoundError(f"no instance '{instance_id}' can be read from the hub"))

    def fail(self, error: ReplayflowError) -> None:
        """Nobody will be told any more, and all are told so."""
        waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)

    def forget(self, instance_id: str, future: asyncio.Future[Ending]) -> None:
        """Nobody waits for this future any more."""
        waiting = self._waiting.get(instance_id)
        if waiting is not None and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._waiting[instance_id]
