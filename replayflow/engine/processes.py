"""Processes for activities that burn the processor. They are spawned, not forked, so that none inherits the hub's lock or the engine's threads.

Only plain values cross: where the function is, its place in the world, payloads; and, on a pipe of their own, heartbeats on the way back. A child
ends with its parent, also when that is killed. One whose activity nobody waits for any longer is killed.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import reduce
from multiprocessing import connection, get_context, parent_process
from typing import Any, NamedTuple

from replayflow.codec import Codec, Payload
from replayflow.core import events
from replayflow.core.activity_context import ActivityContext
from replayflow.core.definitions import ActivityDefinition
from replayflow.engine.beater import Beater, listen
from replayflow.engine.failures import failed
from replayflow.registry import input_type_of


class ProcessDied(Exception):
    """The process that ran an activity is gone: it was killed, or ended itself."""


class Place(NamedTuple):
    """What an activity in a process learns of itself through its context."""

    instance_id: str
    task_id: int
    attempt: int
    idempotency_key: str
    name: str
    told: Payload


class _Child:
    """A pool of one process, and whoever hears the heart of what runs in it now."""

    def __init__(self) -> None:
        context = get_context("spawn")
        receiver, self._sender = context.Pipe(duplex=False)
        self.executor = ProcessPoolExecutor(1, mp_context=context, initializer=_begin_child, initargs=(self._sender,))
        self._runs = 0
        self._hears: Callable[[Payload], None] | None = None
        threading.Thread(target=listen, args=(receiver, self._heard), daemon=True).start()

    def submit(self, hears: Callable[[Payload], None] | None, *arguments: Any) -> Future[Any]:
        self._runs += 1
        self._hears = hears
        future = self.executor.submit(_run_in_child, self._runs, hears is not None, *arguments)
        self._sender.close()  # the process has its own by now, and the pipe ends with that
        return future

    def kill(self) -> None:
        # The standard pool has no public way to end its processes before 3.14.
        for process in list((self.executor._processes or {}).values()):
            process.kill()

    def _heard(self, run: int, detail: Payload) -> None:
        hears = self._hears
        if hears is not None and run == self._runs:  # else it is of one that has ended
            hears(detail)


class ProcessPool:
    """As many processes as there was ever work for at one time, each in a pool of its own: one that dies takes no other's activity with it."""

    def __init__(self) -> None:
        self._children: set[_Child] = set()
        self._idle: list[_Child] = []
        self._at_work: dict[Future[Any], _Child] = {}
        self._lock = threading.Lock()

    def submit(
        self,
        definition: ActivityDefinition,
        payload: Payload,
        payload_bytes_max: int,
        place: Place | None = None,
        hears: Callable[[Payload], None] | None = None,
    ) -> Future[Any]:
        """The activity runs in one of the processes; the future has `(True, result payload, None)` or `(False, TaskFailed, last heartbeat)`, encoded.

        With a place it gets a context. `hears` is called, in a thread, with None when the function begins, and with what it tells after that. Whoever
        submits keeps the number of activities within bounds.
        """
        arguments = (
            definition.fn.__module__,
            definition.fn.__qualname__,
            definition.takes_input,
            payload,
            payload_bytes_max,
            place,
        )
        while self._idle:
            child = self._idle.pop()
            try:
                return self._watched(child, child.submit(hears, *arguments))
            except BrokenProcessPool:  # its process was killed while it had nothing to do
                self._drop(child)
        child = _Child()
        try:
            future = child.submit(hears, *arguments)
        except BaseException:  # there are no more files, threads or processes for us
            child.executor.shutdown(wait=False)
            raise
        self._children.add(child)
        return self._watched(child, future)

    def end(self, future: Future[Any]) -> None:
        """The process that is at work for the future is killed; where that has ended already, nothing happens."""
        with self._lock:
            child = self._at_work.pop(future, None)
        if child is not None:
            child.kill()

    async def close(self) -> None:
        """No process is left; one that is still at work is ended, and its activity runs again some day."""
        children, self._children = list(self._children), set()
        self._idle.clear()
        if not children:
            return
        for child in children:
            child.kill()
        await asyncio.to_thread(_shut_down, children)

    def _watched(self, child: _Child, future: Future[Any]) -> Future[Any]:
        def ended(done: Future[Any]) -> None:  # in the pool's own thread
            with self._lock:
                is_wanted = self._at_work.pop(done, None) is not None
            if not is_wanted or done.cancelled() or isinstance(done.exception(), BrokenProcessPool):
                self._drop(child)
            else:
                self._idle.append(child)

        with self._lock:
            self._at_work[future] = child
        future.add_done_callback(ended)
        return future

    def _drop(self, child: _Child) -> None:
        if child in self._children:  # else it is being closed
            self._children.discard(child)
            # In a thread of its own: from Python 3.13 on a broken pool tells of it under the lock that `shutdown` wants.
            threading.Thread(target=child.executor.shutdown, kwargs={"wait": False}, daemon=True).start()


def _shut_down(children: list[_Child]) -> None:
    for child in children:
        child.executor.shutdown(cancel_futures=True)


# ---- in the child

_beater: Beater | None = None


def _begin_child(sender: connection.Connection) -> None:
    global _beater
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal is the parent's to handle
    _beater = Beater(sender)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _run_in_child(
    run: int,
    is_heard: bool,
    module: str,
    qualified_name: str,
    takes_input: bool,
    payload: Payload,
    payload_bytes_max: int,
    place: Place | None,
) -> tuple[bool, Payload, Payload]:
    codec = Codec(payload_bytes_max=payload_bytes_max)
    beater = _beater
    assert beater is not None  # noqa: S101 - made when the process began
    try:
        fn: Any = reduce(getattr, qualified_name.split("."), importlib.import_module(module))
        inputs: tuple[Any, ...] = ()
        if takes_input:
            inputs = (codec.decode(payload, input_type_of(fn), f"input of activity '{fn.__name__}'"),)
        if is_heard:
            name, told = (fn.__name__, None) if place is None else (place.name, place.told)
            beater.begin(run, codec, name, told)
        if place is not None:
            inputs = (_context(place, beater), *inputs)
        result = fn(*inputs)
        return True, codec.encode(result, f"result of activity '{fn.__name__}'"), None
    except (Exception, SystemExit) as error:
        return False, events.encode([failed(0, error)]), beater.detail if place is not None else None
    finally:
        beater.end()


def _context(place: Place, beater: Beater) -> ActivityContext:
    """Of one in a process that is needed no more there is nothing to be told: it is killed."""
    return ActivityContext(
        instance_id=place.instance_id,
        task_id=place.task_id,
        attempt=place.attempt,
        idempotency_key=place.idempotency_key,
        name=place.name,
        is_cancelled=lambda: False,
        heart=beater,
    )
