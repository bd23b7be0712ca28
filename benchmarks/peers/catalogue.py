"""Who is measured, how each is called, and how much each can do in a sane time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.peers.environments import DBOS, DURABLETASK, RESTATE, Environment

POSTGRES = "REPLAYFLOW_BENCH_POSTGRES"  # the address of a server on which a database may be made and dropped


@dataclass(frozen=True)
class Peer:
    """A rival in one of its forms. Its commands run in the root of the checkout and print one JSON line, as `benchmarks.workloads` does."""

    name: str
    label: str
    environment: Environment
    script: tuple[str, ...]
    """The module in `rivals/`, and what it needs to know before the workload."""
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    """By workload: the largest n that it does within about ten seconds, or can do at all."""

    def command(self, workload: str, n: int) -> list[str] | None:
        """None if there is no such workload here, or n is above what this system can do in a sane time."""
        if workload not in self.limits or n > self.limits[workload]:
            return None
        module, *arguments = self.script
        return [str(self.environment.python), "-m", f"benchmarks.peers.rivals.{module}", *arguments, workload, str(n)]


def installed() -> list[Peer]:
    """The rivals that `python -m benchmarks.peers install` has installed, DBOS on PostgreSQL if `$REPLAYFLOW_BENCH_POSTGRES` names a server."""
    return [
        peer
        for peer in all_peers()
        if peer.environment.is_ready and (peer.name != "dbos-postgres" or os.environ.get(POSTGRES))
    ]


def all_peers() -> list[Peer]:
    dbos = f"DBOS {DBOS.version('dbos')}"
    restate = RESTATE.version("@restatedev/restate-server"), RESTATE.version("restate-sdk")
    return [
        Peer(
            "dbos-sqlite",
            f"{dbos}, SQLite WAL",
            DBOS,
            ("on_dbos", "sqlite"),
            {"chain": 1_000, "fan": 10_000, "latency": 500, "long": 5_000, "recover": 200},
        ),
        Peer(
            "dbos-postgres",
            f"{dbos}, PostgreSQL",
            DBOS,
            ("on_dbos", "postgres"),
            {"chain": 1_000, "fan": 10_000, "latency": 500, "long": 5_000, "recover": 200},
        ),
        Peer(
            "durabletask",
            f"durabletask {DURABLETASK.version('durabletask')}, in memory, not durable",
            DURABLETASK,
            ("on_durabletask",),
            # Each step sends the whole history again: a long one costs its square.
            {"chain": 1_000, "fan": 10_000, "latency": 500, "long": 500},
        ),
        Peer(
            "restate",
            f"Restate {restate[0]}, Python SDK {restate[1]}",
            RESTATE,
            ("on_restate",),
            {"chain": 5_000, "fan": 10_000, "latency": 1_000, "long": 10_000, "recover": 500},
        ),
    ]
