"""Heartbeats out of a process: what an activity tells there is on its way to the parent within a tenth of a second, however often it tells.

On the pipe each message is the number of the run, so that none is taken for another's, and the encoded detail, or nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

from replayflow.codec import Codec, Payload

_PAUSE_SECONDS = 0.1
_NUMBER_BYTES = 8


class Beater:
    """What the contexts of one process beat upon, one activity after the other."""

    def __init__(self, sender: connection.Connection) -> None:
        self._sender = sender
        self._news = threading.Event()
        self._thread: threading.Thread | None = None
        self._run = 0
        self._codec = Codec()
        self._title = ""
        self._told: Payload = None
        self.detail: Payload = None

    def begin(self, run: int, codec: Codec, name: str, told: Payload) -> None:
        """The run has the process; `told` is what its earlier attempts told last."""
        self._run, self._codec, self._title, self._told = run, codec, f"heartbeat of activity '{name}'", told
        self.detail = None
        self.beat(None)

    def end(self) -> None:
        """Nobody has the process."""
        self._run = 0
        self.detail = None

    def beat(self, detail: object) -> None:
        """As `ActivityContext.heartbeat`."""
        if detail is not None:
            self.detail = self._codec.encode(detail, self._title)
        self._news.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._send, name="replayflow heartbeats", daemon=True)
            self._thread.start()

    def last(self) -> Any:
        """As `ActivityContext.last_heartbeat`."""
        return self._codec.decode(self._told, Any, self._title)

    def _send(self) -> None:
        while self._news.wait():
            self._news.clear()
            run, detail = self._run, self.detail
            try:
                if run:
                    self._sender.send_bytes(run.to_bytes(_NUMBER_BYTES, "big") + (detail or b""))
            except OSError:
                return  # the parent is gone, and this process will be in a moment
            time.sleep(_PAUSE_SECONDS)


def listen(receiver: connection.Connection, heard: Callable[[int, Payload], None]) -> None:
    """Calls `heard(run, detail)` for each message, until the process at the other end is gone."""
    with receiver:
        while True:
            try:
                message = receiver.recv_bytes()
            except (EOFError, OSError):
                return
            heard(int.from_bytes(message[:_NUMBER_BYTES], "big"), message[_NUMBER_BYTES:] or None)
