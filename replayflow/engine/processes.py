"""Processes for activities that burn the processor. They are spawned, not forked, so that none inherits the hub's lock or the engine's threads.

Only plain values cross: where the function is, and payloads. A child ends with its parent, also when that is killed.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import reduce
from multiprocessing import connection, get_context, parent_process
from typing import Any

from replayflow.codec import Codec, Payload
from replayflow.core import rows
from replayflow.core.definitions import ActivityDefinition
from replayflow.errors import FailureDetails
from replayflow.registry import input_type_of


class ProcessDied(Exception):
    """The process that ran an activity is gone: it was killed, or ended itself."""


class ProcessPool:
    """As many processes as there was ever work for at one time, each in a pool of its own: one that dies takes no other's activity with it."""

    def __init__(self) -> None:
        self._pools: set[ProcessPoolExecutor] = set()
        self._idle: list[ProcessPoolExecutor] = []

    def submit(self, definition: ActivityDefinition, payload: Payload, payload_bytes_max: int) -> Future[Any]:
        """The activity runs in one of the processes; the future has `(True, result payload)` or `(False, failure)`, encoded.

        Whoever submits keeps the number of activities within bounds.
        """
        arguments = (
            definition.fn.__module__,
            definition.fn.__qualname__,
            definition.takes_input,
            payload,
            payload_bytes_max,
        )
        while self._idle:
            pool = self._idle.pop()
            try:
                return self._watched(pool, pool.submit(_run_in_child, *arguments))
            except BrokenProcessPool:  # its process was killed while it had nothing to do
                self._drop(pool)
        pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin_child)
        self._pools.add(pool)
        return self._watched(pool, pool.submit(_run_in_child, *arguments))

    async def close(self) -> None:
        """No process is left; one that is still at work is ended, and its activity runs again some day."""
        pools, self._pools = list(self._pools), set()
        self._idle.clear()
        if not pools:
            return
        for pool in pools:
            # The standard pool has no public way to end its processes before 3.14.
            for process in list((pool._processes or {}).values()):
                process.kill()
        await asyncio.to_thread(_shut_down, pools)

    def _watched(self, pool: ProcessPoolExecutor, future: Future[Any]) -> Future[Any]:
        def ended(done: Future[Any]) -> None:  # in the pool's own thread
            if done.cancelled() or isinstance(done.exception(), BrokenProcessPool):
                self._drop(pool)
            else:
                self._idle.append(pool)

        future.add_done_callback(ended)
        return future

    def _drop(self, pool: ProcessPoolExecutor) -> None:
        if pool in self._pools:  # else it is being closed
            self._pools.discard(pool)
            # In a thread of its own: from Python 3.13 on a broken pool tells of it under the lock that `shutdown` wants.
            threading.Thread(target=pool.shutdown, kwargs={"wait": False}, daemon=True).start()


def _shut_down(pools: list[ProcessPoolExecutor]) -> None:
    for pool in pools:
        pool.shutdown(cancel_futures=True)


def _begin_child() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal is the parent's to handle
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _run_in_child(
    module: str, qualified_name: str, takes_input: bool, payload: Payload, payload_bytes_max: int
) -> tuple[bool, Payload]:
    codec = Codec(payload_bytes_max=payload_bytes_max)
    try:
        fn: Any = reduce(getattr, qualified_name.split("."), importlib.import_module(module))
        inputs = (
            (codec.decode(payload, input_type_of(fn), f"input of activity '{fn.__name__}'"),) if takes_input else ()
        )
        result = fn(*inputs)
        return True, codec.encode(result, f"result of activity '{fn.__name__}'")
    except (Exception, SystemExit) as error:
        return False, rows.encode_failure(FailureDetails.of(error))
