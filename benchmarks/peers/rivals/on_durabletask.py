"""The workloads on Microsoft's durabletask, with the backend that its Python package brings: in memory, not durable.

python -m benchmarks.peers.rivals.on_durabletask chain 200

Its durable backends are services (Azure's scheduler, a sidecar). The one here keeps nothing on disk and is written for tests; worker, client and
backend share a process and talk gRPC over loopback. There is no `recover`: nothing outlives the process.

What was chosen for speed:
- `ConcurrencyOptions` as they are by default: 100 work items for a core, a pool of threads for the cores and four more; activities are plain
  functions, as in its examples.
- No trace spans; logs at ERROR; a history as long as the workload asks (`max_history_size`), messages of any size.
- Results are awaited one after the other: each wait holds one of the ten threads of the backend's server, and more than ten waits stop it.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.grpc_options import GrpcChannelOptions
from durabletask.task import ActivityContext, OrchestrationContext, Task, when_all
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from durabletask.worker import TaskHubGrpcWorker

from benchmarks.peers.workload import Figures, main, percentiles, rate

WAIT_SECONDS = 600
Run = Generator[Task[Any], Any, int]


def add_one(_ctx: ActivityContext, x: int) -> int:
    return x + 1


def chain(ctx: OrchestrationContext, x: int) -> Run:
    for _ in range(5):
        x = yield ctx.call_activity(add_one, input=x)
    return x


def long(ctx: OrchestrationContext, n: int) -> Run:
    x = 0
    for _ in range(n):
        x = yield ctx.call_activity(add_one, input=x)
    return x


def fan(ctx: OrchestrationContext, n: int) -> Run:
    results: list[int] = yield when_all([ctx.call_activity(add_one, input=i) for i in range(n)])
    return sum(results)


async def measure_chain(n: int, _folder: Path) -> Figures:
    with _running(100) as client:
        began = time.perf_counter()
        started = [client.schedule_new_orchestration(chain, input=i) for i in range(n)]
        results = [_result(client, instance) for instance in started]
        figures = rate(5 * n, began)
        assert results == [i + 5 for i in range(n)]
    return figures


async def measure_fan(n: int, _folder: Path) -> Figures:
    with _running(n) as client:
        began = time.perf_counter()
        assert _result(client, client.schedule_new_orchestration(fan, input=n)) == n * (n + 1) // 2
        return rate(n, began)


async def measure_latency(n: int, _folder: Path) -> Figures:
    times = []
    with _running(100) as client:
        for i in range(n):
            began = time.perf_counter()
            assert _result(client, client.schedule_new_orchestration(chain, input=i)) == i + 5
            times.append(time.perf_counter() - began)
    return percentiles(times)


async def measure_long(n: int, _folder: Path) -> Figures:
    with _running(n) as client:
        began = time.perf_counter()
        assert _result(client, client.schedule_new_orchestration(long, input=n)) == n
        return rate(n, began)


def _result(client: TaskHubGrpcClient, instance: str) -> int:
    state = client.wait_for_orchestration_completion(instance, timeout=WAIT_SECONDS)
    assert state is not None
    assert state.runtime_status == OrchestrationStatus.COMPLETED, state
    result: int = json.loads(state.serialized_output or "null")
    return result


@contextmanager
def _running(activities: int) -> Iterator[TaskHubGrpcClient]:
    """A backend with room for the history of so many activities, a worker and a client, warmed up by one chain."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    logger = logging.getLogger("durabletask")
    logger.setLevel(logging.ERROR)
    options: Any = {
        "host_address": f"127.0.0.1:{port}",
        "logger": logger,
        "emit_trace_spans": False,
        "channel_options": GrpcChannelOptions(max_receive_message_length=-1, max_send_message_length=-1),
    }
    backend = InMemoryOrchestrationBackend(max_history_size=10 * activities + 100, port=port)
    backend.start()
    try:
        worker = TaskHubGrpcWorker(**options)
        for orchestrator in (chain, long, fan):
            worker.add_orchestrator(orchestrator)
        worker.add_activity(add_one)
        worker.start()
        try:
            with TaskHubGrpcClient(**options) as client:
                assert _result(client, client.schedule_new_orchestration(chain, input=0)) == 5
                yield client
        finally:
            worker.stop()
    finally:
        backend.stop()


WORKLOADS = {"chain": measure_chain, "fan": measure_fan, "latency": measure_latency, "long": measure_long}

if __name__ == "__main__":
    main("durabletask", WORKLOADS)
