"""Processes for activities that burn the processor. They are spawned, not forked, so that none inherits the hub's lock or the engine's threads.

Only plain values cross: where the function is, and payloads. A child ends with its parent, also when that is killed.
"""

from __future__ import annotations

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
from replayflow.core import episode
from replayflow.core.definitions import ActivityDefinition
from replayflow.errors import FailureDetails
from replayflow.registry import input_type_of


class ProcessPool:
    """A pool that is made when the first activity needs it, and made anew when one of its processes has died."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, definition: ActivityDefinition, payload: Payload, payload_bytes_max: int) -> Future[Any]:
        """The activity runs in one of the processes; the future has `(True, result payload)` or `(False, failure)`, encoded."""
        arguments = (
            definition.fn.__module__,
            definition.fn.__qualname__,
            definition.takes_input,
            payload,
            payload_bytes_max,
        )
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._limit, mp_context=get_context("spawn"), initializer=_begin_child)
        try:
            return self._pool.submit(_run_in_child, *arguments)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = ProcessPoolExecutor(self._limit, mp_context=get_context("spawn"), initializer=_begin_child)
            return self._pool.submit(_run_in_child, *arguments)

    def close(self) -> None:
        """No process of the pool is left; one that is still at work is ended, and its activity runs again some day."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        processes = list(
            (pool._processes or {}).values()
        )  # the standard pool has no public way to end them before 3.14
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


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
        return False, episode.encode_failure(FailureDetails.of(error))
