"""Activities that tests run in processes: a spawned process finds them here."""

from __future__ import annotations

import os
import time
from pathlib import Path

from replayflow import App

app = App()


@app.activity(executor="process")
def square(x: int) -> int:
    return x * x


@app.activity(executor="process")
def whereabouts(x: int) -> int:
    time.sleep(0.05)
    return os.getpid()


@app.activity(executor="process")
def dies(path: str) -> int:
    """Ends its process at the first call, so that a second try succeeds."""
    marker = Path(path)
    if marker.exists():
        return 1
    marker.touch()
    os._exit(7)


@app.activity(executor="process")
def waits_for_file(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.005)
    return "seen"


@app.activity(executor="process")
def exits(x: int) -> int:
    raise SystemExit(3)


@app.activity(executor="process")
def unencodable(x: int) -> object:
    return object()


@app.activity(executor="process")
def raises(x: int) -> int:
    raise KeyError("missing")


@app.activity(executor="process")
def size_in_process(value: bytes) -> int:
    return len(value)
