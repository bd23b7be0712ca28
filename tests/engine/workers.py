"""Other processes: started, heard, and ended by signals."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import psutil


class Worker:
    """A process that runs `worker_app`. As a context manager it does not outlive the block."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.worker_app", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    async def line(self) -> str:
        """The next line that it writes."""
        assert self.process.stdout is not None
        async with asyncio.timeout(15):
            return (await asyncio.to_thread(self.process.stdout.readline)).strip()

    async def ended(self, how: signal.Signals | None = None) -> int:
        """Its exit code, once it has ended; by the signal, where one is given."""
        if how is not None:
            self.process.send_signal(how)
        async with asyncio.timeout(15):
            return await asyncio.to_thread(self.process.wait)

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    @property
    def usage(self) -> psutil.Process:
        return psutil.Process(self.process.pid)


def stamp(path: Path) -> list[tuple[str, int, int]]:
    """Size and time of the database and its side files, but for the lock."""
    files = [path, path.with_name(path.name + "-wal")]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()]
