"""The scene of which a whole hub is kept, as a file: instances in every state that there is, and what becomes of them in the end.

It was begun in January 2026, and whoever opens it does so a year later: all that was to happen by then is due.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from replayflow import App, Client, Instance
from replayflow.core.suspicion import POISON_PREFIX
from replayflow.encryption import AesGcmCipher
from replayflow.store import SqliteStore, Store
from replayflow.store.base import Owner, Park
from replayflow.testing import VirtualHub
from replayflow.testing.clock import VirtualClock
from tests.golden.app import HOUR, Order, app, world, wrong
from tests.semantics.kit import until

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
A_YEAR_LATER = datetime(2027, 2, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LARGE = "".join(f"{n:05}" for n in range(400))
LIMIT_BYTES = 1_000
CIPHER = AesGcmCipher({"2026": b"a key that is no secret, for this"[:32]})

ENDS: dict[str, tuple[str, Any]] = {
    "done": ("COMPLETED", "BEFOREQUICK"),
    "failed": ("FAILED", None),
    "terminated": ("TERMINATED", None),
    "cancelled": ("CANCELED", None),
    "replaced": ("COMPLETED", "slept 1 hours"),
    "large": ("COMPLETED", "BEFORE" + LARGE),
    "looped": ("COMPLETED", [2, "go on"]),
    "sleeper": ("COMPLETED", "slept 24 hours"),
    "later": ("COMPLETED", "slept 1 hours"),
    "listener": ("COMPLETED", "go on"),
    "suspended": ("COMPLETED", "while it was suspended"),
    "retrying": ("COMPLETED", "stubborn after None"),
    "counting": ("COMPLETED", "charge? after {'attempt': 2}"),
    "parent": ("COMPLETED", ["WAIT ONE", "TWO"]),
    "parent:0001": ("COMPLETED", "WAIT ONE"),
    "mapper": ("COMPLETED", [[0, 2, 4, 6], [0, 2, 4, 6, 8, 10], [0, 2, 4], [2, 4], 1]),
    "stuck": ("COMPLETED", "BEFORESTUCK"),
    "compensating": ("COMPLETED", "undone: no hotel"),
    "rewound": ("COMPLETED", ["KEPT", "C", "C BELOW", "W C"]),
    "forked": ("COMPLETED", "SOMETHING ELSEQUICK"),
    "saved": ("COMPLETED", [5, 12]),
    "order": (
        "COMPLETED",
        {
            "holds": ["TEA", "CUP"],
            "patience": "charge? after {'attempt': 2}",
            "refused": "NonRetryableError",
            "winner": "QUICK",
            "recorded": [4, True],
            "approved": True,
            "chance": [True, 36],
            "total": Decimal("9.90"),
        },
    ),
    "holder": ("COMPLETED", 4),
    "asker": ("COMPLETED", 1004),
    "changing": ("COMPLETED", "first"),
    "mismatched": ("COMPLETED", "go on"),
    "poisoned": ("COMPLETED", "BEFOREPOISON"),
    "unknown": ("PENDING", None),
    "sealed": ("COMPLETED", {"secret": "go on"}),
    "sealed done": ("COMPLETED", "BEFORESECRET"),
}
"""The instances that are in the hub, and what they come to when everybody hears what they wait for."""


def store_at(path: Path, *, is_sealed: bool = True) -> SqliteStore:
    """The hub in the file."""
    return SqliteStore(path, large_over_bytes=LIMIT_BYTES, cipher=CIPHER if is_sealed else None)


def hub_on(store: Store, served: App, clock: VirtualClock) -> VirtualHub:
    """A worker on the store, whose time is virtual."""
    return VirtualHub(served, store=store, clock=clock)


# ---- recording


async def fill(path: Path) -> None:
    """The file is a hub with the instances of `ENDS`, as they were on the second of January."""
    world.clear()
    clock = VirtualClock(BEGIN)
    async with hub_on(store_at(path, is_sealed=False), app, clock) as hub:
        await _park_a_compensation(hub)
        await _end_some(hub)
        await _have_some_wait(hub)
        await _have_entities(hub)
        await _have_some_at_work(hub)
    await _leave_some_to_others(store_at(path, is_sealed=False))
    async with hub_on(store_at(path, is_sealed=False), wrong, clock) as hub:
        await until(lambda: _is_parked(hub.client, "mismatched"))
        await until(lambda: _is_parked(hub.client, "unknown"))
    async with hub_on(store_at(path), app, clock) as hub:
        await _seal_some(hub)
    world.clear()


async def _park_a_compensation(hub: VirtualHub) -> None:
    world.broken = {"undo child"}
    trip = await hub.client.start("trip", 1, instance_id="compensating")
    await hub.advance(DAY)
    assert "failed for good" in str((await trip.status()).problem)


async def _end_some(hub: VirtualHub) -> None:
    client = hub.client
    world.broken |= {"bad", "c", "c below"}
    await (await client.start("works", "quick", instance_id="done", tags={"team": "red", "ü": "ß"})).wait()
    await (await client.start("works", "bad", instance_id="failed")).wait()
    await (await client.start("works", LARGE, instance_id="large")).wait()
    for id in ("terminated", "replaced"):
        await client.start("sleeps", 5, instance_id=id)
    await client.start("cleans_up", instance_id="cancelled")
    await client.start("fragile", "c", instance_id="rewound")
    await hub.settle()
    await client.get("terminated").terminate("enough")
    await client.get("cancelled").cancel("no more")
    await hub.settle()
    await (
        await client.start(
            "sleeps", 1, instance_id="replaced", on_existing="terminate_and_replace", tags={"again": "1"}
        )
    ).wait()
    world.broken -= {"c", "c below"}
    await client.get("rewound").rewind("mended")
    await client.start("works", "gone", instance_id="purged")
    await hub.settle()
    await client.get("purged").purge()


async def _have_some_wait(hub: VirtualHub) -> None:
    client = hub.client
    world.broken.add("stubborn")
    await client.start("rounds", 0, instance_id="looped")
    await client.start("sleeps", 24, instance_id="sleeper")
    await client.start("sleeps", 1, instance_id="later", start_at=DAY)
    await client.start("listens", "go", instance_id="listener", tags={"team": "red"})
    await client.get("listener").raise_event("unheard", LARGE, dedupe_key="once")
    await client.start("listens", "go", instance_id="suspended")
    await client.start("tries", "stubborn", instance_id="retrying")
    await client.start("tries", "charge?", instance_id="counting")
    await client.start("family", ["wait one", "two"], instance_id="parent")
    await client.start("saves", [5, 7], instance_id="saved")
    await client.start("changing", instance_id="changing", version="1")
    await client.start("moved", instance_id="mismatched")
    await client.start("order", Order("o-1", ["tea", "cup"], Decimal("9.90")), instance_id="order")
    await client.get("done").fork(at=6, instance_id="forked", results={1: "SOMETHING ELSE"})
    await client.create_schedule("hourly", "works", "nightly", every=HOUR)
    await hub.settle()
    await client.get_schedule("hourly").pause("holidays")
    await client.get("suspended").suspend("for a look")
    await hub.settle()
    await client.get("suspended").raise_event("go", "while it was suspended")
    await hub.settle()


async def _have_entities(hub: VirtualHub) -> None:
    client = hub.client
    for amount in (1, 2):
        await client.signal_entity("@tally@a", "add", amount)
    await client.start("holds", "a", instance_id="holder")
    await hub.settle()
    await client.start("asks", "a", instance_id="asker")
    await client.signal_entity("@tally@b", "add", 10)
    await client.signal_entity("@tally@b", "add", 5, delay=HOUR)
    await hub.settle()


async def _have_some_at_work(hub: VirtualHub) -> None:
    world.shut |= {"stuck", "double"}
    await hub.client.start("works", "stuck", instance_id="stuck")
    await hub.client.start("batch", 4, instance_id="mapper")
    await until(lambda: _true(world.begun == {"stuck", "double"}))


async def _leave_some_to_others(store: SqliteStore) -> None:
    """An instance whose code no worker has, and one that would have been parked for killing its workers."""
    async with Client(store) as client:
        await client.start("nobody has it", instance_id="unknown")
        await client.start("works", "poison", instance_id="poisoned")
        state = await client.get("poisoned").status()
        epoch = await store.acquire(Owner(1, "nowhere", 0))
        problem = (
            f"{POISON_PREFIX}3 workers died, one after the other, while this instance was the only suspect at work"
        )
        await store.write([Park("poisoned", state.execution_id, problem.encode())], epoch)
        await store.release()


async def _seal_some(hub: VirtualHub) -> None:
    await hub.client.start("listens", "go", instance_id="sealed", tags={"in": "the clear"})
    await hub.client.get("sealed").raise_event("unheard", {"secret": "unheard"})
    done = await hub.client.start("works", "secret", instance_id="sealed done")
    await done.wait()


# ---- going on


async def finish(hub: VirtualHub) -> None:
    """Everybody hears what he waits for, once, however often this is done; time passes until all that can end has ended."""
    client = hub.client
    await hub.settle()  # what a former life was told has been heard
    await _resume(client.get("compensating"))
    await _resume(client.get("suspended"))
    await _resume(client.get("poisoned"))
    await client.get("listener").raise_event("UNHEARD", "once more", dedupe_key="once")
    for id in ("looped", "listener", "saved", "holder", "changing", "mismatched"):
        await client.get(id).raise_event("go", "go on", dedupe_key="go")
    await client.get("sealed").raise_event("go", {"secret": "go on"}, dedupe_key="go")
    await client.get("order").raise_event("approved", True, dedupe_key="go")
    await client.get("parent:0001").raise_event("go", dedupe_key="go")
    await client.get("rewound:0002").raise_event("go", dedupe_key="go")
    for id, (status, _) in ENDS.items():
        if status != "PENDING":
            await client.get(id).wait()
    await hub.settle()


async def _resume(instance: Instance[Any]) -> None:
    state = await instance.status()
    if state.status == "SUSPENDED" or (state.problem is not None and not state.status.is_finished):
        await instance.resume()


async def _is_parked(client: Client, id: str) -> bool:
    return (await client.get(id).status()).problem is not None


async def _true(value: bool) -> bool:
    return value
