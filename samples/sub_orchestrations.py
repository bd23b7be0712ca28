"""Orchestrations that call orchestrations: a region is built of clusters, a cluster of machines, and each is an instance of its own.

    python -m samples.sub_orchestrations [STORE]

A child that fails is tried again by its parent's retry policy, as a new child with another id. The parent sees one result.
"""

import asyncio
import sys
from dataclasses import dataclass
from datetime import timedelta

from replayflow import App, Orchestration, OrchestrationContext, RetryPolicy, TaskHub, when_all

app = App()
SOON_AGAIN = RetryPolicy(max_attempts=4, first_interval=timedelta(seconds=0.1), jitter=0.5)
_refused: set[str] = set()


@dataclass
class Cluster:
    name: str
    machines: int


@dataclass
class Region:
    name: str
    clusters: list[Cluster]


@app.activity
def boot(machine: str) -> str:
    """The first machine of a cluster needs a second push."""
    print(f"  booting {machine}")
    if machine.endswith("-1") and machine not in _refused:
        _refused.add(machine)
        raise ConnectionError(f"{machine} does not answer")
    return machine


@app.orchestrator
def build_machine(ctx: OrchestrationContext, machine: str) -> Orchestration[str]:
    return (yield from ctx.call_activity(boot, machine))


@app.orchestrator
def build_cluster(ctx: OrchestrationContext, cluster: Cluster) -> Orchestration[list[str]]:
    names = [f"{cluster.name}-{number}" for number in range(1, cluster.machines + 1)]
    return (yield from when_all([ctx.call_sub_orchestrator(build_machine, name, retry=SOON_AGAIN) for name in names]))


@app.orchestrator
def build_region(ctx: OrchestrationContext, region: Region) -> Orchestration[dict[str, list[str]]]:
    built = yield from when_all([ctx.call_sub_orchestrator(build_cluster, cluster) for cluster in region.clusters])
    return {cluster.name: machines for cluster, machines in zip(region.clusters, built, strict=True)}


async def main(store: str = "sub_orchestrations.db") -> None:
    region = Region("north", [Cluster("web", 3), Cluster("data", 2)])
    async with TaskHub(store, app) as hub:
        instance = await hub.client.start(build_region, region, instance_id=region.name, on_existing="return")
        for cluster, machines in (await instance.result()).items():
            print(f"{cluster}: {', '.join(machines)}")
        print("the instances behind it:")
        async for state in hub.client.list(id_prefix=region.name):
            print(f"  {state.id:<20} {state.name:<14} {state.status}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
