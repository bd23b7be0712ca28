"""A hub with instances in every state: for tests of what looks at a hub, and for looking at one by hand.

python -m tests.menagerie hub.db 100
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from replayflow import (
    App,
    Client,
    Instance,
    Limits,
    OrchestrationContext,
    RetryPolicy,
    SqliteStore,
    TaskHub,
    WaitKind,
    when_all,
)
from replayflow.store import Store
from tests.semantics.kit import until, until_status

DAY = timedelta(days=1)


def app(version: int = 1) -> App:
    """The code of the menagerie; with version 2 the instance `changes` no longer fits it, and `withdrawn` has none."""
    app = App()
    _add_ending(app)
    _add_waiting(app)
    _add_working(app)
    _add_families(app)
    _add_entities(app)
    if version > 1:
        _add_changed(app)
    else:
        _add_unchanged(app)
    return app


def _add_ending(app: App) -> None:
    """Those that come to their end, the one and the other."""

    @app.orchestrator
    def completes(ctx: OrchestrationContext) -> int:
        return 1

    @app.orchestrator
    def breaks(ctx: OrchestrationContext) -> int:
        raise ValueError("it broke")


def _add_waiting(app: App) -> None:
    """Those that wait for somebody, or for the time."""

    @app.orchestrator
    def listens(ctx: OrchestrationContext) -> Any:
        return (yield ctx.wait_for_external_event("Go"))

    @app.orchestrator
    def listens_for_a_day(ctx: OrchestrationContext) -> Any:
        return (yield ctx.wait_for_external_event("go", timeout=DAY))

    @app.orchestrator
    def sleeps(ctx: OrchestrationContext) -> Any:
        yield ctx.create_timer(DAY)


def _add_working(app: App) -> None:
    """Those that wait for activities, which do not end."""

    @app.activity(retry=RetryPolicy(max_attempts=9, first_interval=DAY))
    async def fails(x: object) -> None:
        raise ValueError("always")

    @app.activity
    async def never_ends(x: object) -> None:
        await asyncio.sleep(DAY.total_seconds())

    @app.activity
    async def echo(x: object) -> object:
        if x == 2:
            await asyncio.sleep(DAY.total_seconds())
        return x

    @app.orchestrator
    def works(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(never_ends)

    @app.orchestrator
    def tries_again(ctx: OrchestrationContext) -> Any:
        yield ctx.call_activity(fails)

    @app.orchestrator
    def maps(ctx: OrchestrationContext) -> Any:
        yield ctx.map(echo, [1, 2])


def _add_families(app: App) -> None:
    """A tree of instances; of its leaves some fail, some wait, some complete."""

    @app.orchestrator
    def child(ctx: OrchestrationContext, number: int) -> Any:
        if number % 3 == 0:
            raise ValueError("an odd child")
        if number % 3 == 1:
            yield ctx.wait_for_external_event("go")
        return number

    @app.orchestrator
    def parent(ctx: OrchestrationContext, count: int) -> Any:
        yield when_all([ctx.call_sub_orchestrator(child, number) for number in range(count)])

    @app.orchestrator
    def grandparent(ctx: OrchestrationContext, count: int) -> Any:
        yield ctx.call_sub_orchestrator(parent, count, instance_id="parent")


def _add_entities(app: App) -> None:
    """An entity, one that has locked it, and one that waits for that to end."""

    @app.entity
    class Counter:
        state: int = 0

        def add(self, more: int) -> int:
            self.state += more
            return self.state

    @app.orchestrator
    def holds(ctx: OrchestrationContext) -> Any:
        with (yield ctx.lock_entities(["@counter@a"])):
            yield ctx.wait_for_external_event("go")

    @app.orchestrator
    def calls(ctx: OrchestrationContext) -> Any:
        yield ctx.call_entity("@counter@a", "add", 1)


def _add_unchanged(app: App) -> None:
    """What another version of the code changes, and what it withdraws."""

    @app.orchestrator
    def changes(ctx: OrchestrationContext) -> Any:
        yield ctx.create_timer(DAY)

    @app.orchestrator
    def withdrawn(ctx: OrchestrationContext) -> Any:
        yield ctx.wait_for_external_event("go")


def _add_changed(app: App) -> None:
    """`changes` does not fit what began before, and `withdrawn` is gone."""

    @app.orchestrator(name="changes")
    def changed(ctx: OrchestrationContext) -> Any:
        yield ctx.wait_for_external_event("go")


ONE_OF_EACH: dict[str, WaitKind | None] = {
    "completes": None,
    "breaks": None,
    "listens": WaitKind.EVENT,
    "listens_for_a_day": WaitKind.EVENT,
    "sleeps": WaitKind.TIMER,
    "works": WaitKind.ACTIVITY,
    "tries_again": WaitKind.RETRY,
    "maps": WaitKind.MAP,
    "holds": WaitKind.EVENT,
    "changes": WaitKind.REPAIR,
    "withdrawn": WaitKind.REPAIR,
}
"""The orchestrators that are started once each under their own name, and what each waits for in the end, with the code at hand."""
_QUICK = Limits(grace=timedelta(0))


async def fill(store: Store, count: int = 40) -> None:
    """The store has one instance of each kind, and children, so that there are about `count`. No worker serves it any more.

    A request to cancel `listens` came after the worker's end, and nobody has heard it.
    """
    async with TaskHub(store, app(), limits=_QUICK) as hub:
        client = hub.client
        for name in ONE_OF_EACH:
            await client.start(name, instance_id=name, tags={"kind": name})
        await until_locked(client)
        await client.start("calls", instance_id="calls")
        await client.start("grandparent", max(count - 20, 3), instance_id="grandparent")
        for id in ("suspended", "terminated", "cancelled"):
            await client.start("listens", instance_id=id)
        await client.start("completes", instance_id="later", start_at=DAY)
        await client.create_schedule("nightly", "completes", every=DAY)
        await client.get_schedule("nightly").pause("holidays")
        await client.get("suspended").suspend("for a look")
        await client.get("terminated").terminate("enough")
        await client.get("cancelled").cancel("no more")
        for id, status in (
            ("suspended", "SUSPENDED"),
            ("terminated", "TERMINATED"),
            ("cancelled", "CANCELED"),
            ("breaks", "FAILED"),
            ("completes", "COMPLETED"),
        ):
            await until_status(client.get(id), status)
        await until_all_wait(client)
    async with TaskHub(store, app(2), limits=_QUICK) as hub:
        await until_parked(hub.client, "changes")
    async with Client(store) as client:
        await client.get("listens").cancel("nobody is there")


async def until_locked(client: Client) -> None:
    """The instance `holds` has its lock."""

    async def has() -> bool:
        found = await client.get_entity("@counter@a")
        return found is not None and found.locked_by == "holds"

    await until(has)


async def until_waits(instance: Instance[Any]) -> None:
    """The instance has begun, and stands where it has to wait, or has ended."""

    async def has() -> bool:
        state = await instance.status()
        return state.status.is_finished or (state.status == "RUNNING" and bool(await instance.waits()))

    await until(has)


async def until_parked(client: Client, id: str) -> None:
    async def is_parked() -> bool:
        return (await client.get(id).status()).problem is not None

    await until(is_parked)


async def until_all_wait(client: Client) -> None:
    """Everything has come as far as it comes."""

    async def has() -> bool:
        kinds = {wait.kind for wait in await client.get("tries_again").waits()}
        parent = [wait.detail for wait in await client.get("grandparent").waits()]
        progress = (await client.get("maps").status()).maps
        counts = await client.count(by="status", parent="parent")
        return (
            WaitKind.RETRY in kinds
            and parent == ["RUNNING"]
            and [one.done for one in progress] == [1]
            and "PENDING" not in counts
            and bool(await client.get("calls").waits())
        )

    await until(has)


if __name__ == "__main__":
    asyncio.run(fill(SqliteStore(Path(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else 100))
