"""Who hits the processes of the crash campaign, and how: kills, stops, requests to end, and a hub that is taken by force."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

OUSTED, CANNOT_TAKE = 3, 4
"""How a worker's process ends that has lost its hub, and one that could not take it."""
_BOUND_SECONDS = 60.0


class Process:
    """A process of the campaign, which says a line when it is at work. What it says on stderr is in the log."""

    def __init__(self, log: Path, module: str, *arguments: object) -> None:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        with log.open("a") as stderr:
            self._popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
        self._is_at_work = False

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    async def is_at_work(self) -> bool:
        """Whether it has come to work; false where it has ended before."""
        assert self._popen.stdout is not None
        if not self._is_at_work:
            async with asyncio.timeout(_BOUND_SECONDS):
                self._is_at_work = await asyncio.to_thread(self._popen.stdout.readline) != ""
        return self._is_at_work

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        async with asyncio.timeout(_BOUND_SECONDS):
            code = await asyncio.to_thread(self._popen.wait)
        self._close()
        return code

    def kill(self) -> None:
        """It has ended, at this moment."""
        assert self._popen.poll() is None, f"{self._popen.args!r} had ended by itself, with {self._popen.returncode}"
        self.end()

    def end(self) -> None:
        """It has ended, now or before."""
        self._popen.kill()
        self._popen.wait()
        self._close()

    def _close(self) -> None:
        if self._popen.stdout is not None:
            self._popen.stdout.close()


class Hands:
    """A worker and a client, and the blows that they get, at random. There is always one of each, at work or on its way to it.

    `blows` counts them by kind; those of the kinds `KILLS` are SIGKILLs.
    """

    KILLS = ("worker killed", "client killed")

    def __init__(self, path: Path, chance: random.Random) -> None:
        self._path = path
        self._chance = chance
        self._clients = 0
        self.said = path.with_name("said.log")
        self.blows: Counter[str] = Counter()
        self.worker = self._new_worker()
        self.client = self._new_client()
        self.logs = [self._log(0)]
        """What each of the clients has asked for, and was told."""

    @property
    def kills(self) -> int:
        return sum(self.blows[kind] for kind in self.KILLS)

    async def hit(self) -> None:
        """Somebody has got a blow, after a moment, and somebody is at his place."""
        blows: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._kill_worker, 60),
            (self._kill_client, 20),
            (self._end_worker, 8),
            (self._stop_worker, 7),
            (self._oust_worker, 5),
        ]
        await asyncio.sleep(self._chance.uniform(0.02, 1.0))
        [(blow, _)] = self._chance.choices(blows, [weight for _, weight in blows])
        await blow()

    def end_client(self) -> None:
        """Nobody asks for anything more."""
        self.client.kill()

    def end(self) -> None:
        """Nobody is left."""
        for process in (self.client, self.worker):
            process.end()

    async def _kill_worker(self) -> None:
        self.worker.kill()
        self.worker = self._new_worker()
        self.blows["worker killed"] += 1

    async def _kill_client(self) -> None:
        self.client.kill()
        self._clients += 1
        self.logs.append(self._log(self._clients))
        self.client = self._new_client()
        self.blows["client killed"] += 1

    async def _end_worker(self) -> None:
        self.worker.send(signal.SIGTERM)
        code = await self.worker.ended()
        # One that is not at work yet has no handler.
        assert code in (0, -signal.SIGTERM), f"a worker that was told to end did so with {code}"
        self.worker = self._new_worker()
        self.blows["worker ended"] += 1

    async def _stop_worker(self) -> None:
        self.worker.send(signal.SIGSTOP)
        await asyncio.sleep(self._chance.uniform(0.05, 1.0))
        self.worker.send(signal.SIGCONT)
        self.blows["worker stopped"] += 1

    async def _oust_worker(self) -> None:
        """The hub is taken from a worker that is stopped; it ends when it goes on. One that stood in a transaction keeps it, and goes on."""
        await self.worker.is_at_work()
        await asyncio.sleep(self._chance.uniform(0, 0.1))
        self.worker.send(signal.SIGSTOP)
        taker = self._new_worker("take_over")
        if not await taker.is_at_work():
            assert await taker.ended() == CANNOT_TAKE
            self.worker.send(signal.SIGCONT)
            self.blows["worker held its transaction"] += 1
            return
        zombie, self.worker = self.worker, taker
        zombie.send(signal.SIGCONT)
        code = await zombie.ended()
        assert code == OUSTED, f"a worker that had lost its hub ended with {code}"
        self.blows["worker ousted"] += 1

    def _new_worker(self, when_owned: str = "wait") -> Process:
        return Process(self.said, "tests.engine.crash_app", self._path, when_owned)

    def _new_client(self) -> Process:
        return Process(self.said, "tests.engine.crash_client", self._path, self._clients, self._log(self._clients))

    def _log(self, number: int) -> Path:
        return self._path.parent / f"client-{number}.said"
