"""The workloads on Restate: its server, the services that it calls (restate_service.py) and a client, processes of their own on loopback.

python -m benchmarks.peers.rivals.on_restate chain 1000

What was chosen for speed, and which of Restate's own pages it is from:
- An activity is a `ctx.run` ("Durable steps"), an entry in its caller's journal; a call of another service costs an invocation more.
- The services are an ASGI application ("Serving"), served by Granian over HTTP/2 on uvloop: the two talk in the streaming mode, in which an
  invocation stays on one stream as long as there is work. One process of services, for two cores are shared with the server and the client; a
  second made no clear difference, and neither did Granian's other modes.
- The server has its defaults ("Server configuration"), 24 partitions among them: 1, 4 and 8 were not clearly faster. Its log is synced, as ours is.
- The client is aiohttp with kept connections, a faster one than the SDK's own.
- A fan starts all its steps and then awaits each: `restate.gather` is slower, and at 3,000 steps it came to no end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.peers.workload import Figures, main, percentiles, rate, rss_peak_mb

START_SECONDS = 20


class Restate:
    """A server and its services. The ports are the same after a restart, as the server remembers where its services are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._node, self._ingress, self._admin, self._services = _free_ports(4)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.peak_rss_mb = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside, requests are taken; afterwards all has been killed as it stood, and what is durable is in the folder."""
        options = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=options[0], timeout=options[1]) as self._session:
            try:
                self._spawn("services", self._granian())
                self._spawn("server", [_server(), "--no-logo", "--base-dir", str(self._folder)])
                await self._answers(f"http://127.0.0.1:{self._admin}/health")
                await self._answers(
                    f"http://127.0.0.1:{self._admin}/deployments", uri=f"http://127.0.0.1:{self._services}"
                )
                await self._answers(f"http://127.0.0.1:{self._ingress}/restate/health")
                yield
            finally:
                self._kill()

    async def call(self, handler: str, argument: Any = None) -> Any:
        return await self._request("POST", handler, argument)

    async def result(self, workflow: str) -> Any:
        """Of a workflow that was started earlier, once it has finished."""
        return await self._request("GET", f"restate/workflow/{workflow}/attach", None)

    async def _request(self, method: str, path: str, argument: Any) -> Any:
        # A handler without an argument refuses the content type that aiohttp would put in.
        body: Any = {"skip_auto_headers": ["Content-Type"]} if argument is None else {"json": argument}
        async with self._session.request(method, f"http://127.0.0.1:{self._ingress}/{path}", **body) as response:
            if response.status >= 300:
                raise RuntimeError(f"{path}: {response.status} {await response.text()}")
            return await response.json() if response.content_type == "application/json" else None

    async def _answers(self, url: str, **body: str) -> None:
        """Asks until there is an answer, or one of the processes has ended."""
        by = time.monotonic() + START_SECONDS
        while True:
            try:
                request = self._session.post(url, json=body) if body else self._session.get(url)
                async with request as response:
                    if response.status < 300:
                        return
                    answer = f"{response.status} {await response.text()}"
            except aiohttp.ClientConnectionError as error:
                answer = str(error)
            ended = [process.args for process in self._processes if process.poll() is not None]
            if ended or time.monotonic() > by:
                logs = "\n".join(path.read_text("utf-8")[-2000:] for path in self._folder.glob("*.log"))
                raise RuntimeError(f"{url}: {answer}; ended: {ended}\n{logs}")
            await asyncio.sleep(0.02)

    def _granian(self) -> list[str]:
        application = "benchmarks.peers.rivals.restate_service:app"
        options = "--interface asginl --http 2 --no-ws --workers 1 --loop uvloop --log-level warning --host 127.0.0.1"
        return [sys.executable, "-m", "granian", *options.split(), "--port", str(self._services), application]

    def _spawn(self, name: str, command: list[str]) -> None:
        settings = {
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_NODE_NAME": "bench",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{self._node}",
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{self._ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{self._admin}",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LOG_FILTER": "warn",
        }
        with (self._folder / f"{name}.log").open("ab") as log:
            # A group of its own, to be ended as a whole: granian's worker is a child of its first process.
            self._processes.append(
                subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log, start_new_session=True)
            )

    def _kill(self) -> None:
        groups = [process.pid for process in self._processes]
        self.peak_rss_mb = max(self.peak_rss_mb, rss_peak_mb([os.getpgrp(), *groups]))
        for process in self._processes:
            os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()
        self._processes.clear()


def _server() -> str:
    """The binary that the npm package of this platform holds, without the launcher in front of it."""
    found = sorted(Path(sys.prefix).glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not found:
        raise FileNotFoundError(
            f"no restate-server under {sys.prefix}/node_modules: python -m benchmarks.peers install"
        )
    return str(found[0])


def _free_ports(count: int) -> Sequence[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


async def measure_chain(n: int, folder: Path) -> Figures:
    restate = Restate(folder)
    async with restate.running():
        assert await restate.call("bench/chain", 0) == 5
        began = time.perf_counter()
        results = await asyncio.gather(*[restate.call("bench/chain", i) for i in range(n)])
        figures = rate(5 * n, began)
        assert results == [i + 5 for i in range(n)]
    return figures | {"peak_rss_mb": restate.peak_rss_mb}


async def measure_fan(n: int, folder: Path) -> Figures:
    restate = Restate(folder)
    async with restate.running():
        assert await restate.call("bench/chain", 0) == 5
        began = time.perf_counter()
        assert await restate.call("bench/fan", n) == n * (n + 1) // 2
        figures = rate(n, began)
    return figures | {"peak_rss_mb": restate.peak_rss_mb}


async def measure_latency(n: int, folder: Path) -> Figures:
    restate = Restate(folder)
    times = []
    async with restate.running():
        assert await restate.call("bench/chain", 0) == 5
        for i in range(n):
            began = time.perf_counter()
            assert await restate.call("bench/chain", i) == i + 5
            times.append(time.perf_counter() - began)
    return percentiles(times) | {"peak_rss_mb": restate.peak_rss_mb}


async def measure_long(n: int, folder: Path) -> Figures:
    restate = Restate(folder)
    async with restate.running():
        assert await restate.call("bench/chain", 0) == 5
        began = time.perf_counter()
        assert await restate.call("bench/long", n) == n
        figures = rate(n, began)
    return figures | {"peak_rss_mb": restate.peak_rss_mb}


async def measure_recover(n: int, folder: Path) -> Figures:
    """Server and services are killed and started again."""
    restate = Restate(folder)
    async with restate.running():
        await asyncio.gather(*[restate.call(f"waiter/w{i}/wait/send", i) for i in range(n)])
        await asyncio.gather(*[restate.call(f"waiter/w{i}/ready") for i in range(n)])
    began = time.perf_counter()
    async with restate.running():
        await asyncio.gather(*[restate.call(f"waiter/w{i}/go", 1000) for i in range(n)])
        results = await asyncio.gather(*[restate.result(f"waiter/w{i}") for i in range(n)])
        figures = {"recover_s": time.perf_counter() - began}
        assert results == [i + 1020 for i in range(n)]
    return figures | {"peak_rss_mb": restate.peak_rss_mb}


WORKLOADS = {
    "chain": measure_chain,
    "fan": measure_fan,
    "latency": measure_latency,
    "long": measure_long,
    "recover": measure_recover,
}

if __name__ == "__main__":
    main("restate", WORKLOADS)
