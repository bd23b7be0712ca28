"""Text of a caller's own class (a StrEnum, what a library returns for a key) is taken for what it says, wherever text enters."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from replayflow import App, Client, EntityContext, EntityInstanceId, OrchestrationContext, SqliteStore, TaskHub, sqlite
from tests.semantics.kit import Place


class Text(str):
    """Text of a class of its own, which even says something else of itself."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"

    __repr__ = __str__


class Named(StrEnum):
    ORDER = "order-7"
    WAITS = "waits"


HOUR = timedelta(hours=1)


app = App()


@app.entity
class Box:
    count: int = 0

    def add(self, ctx: EntityContext[Any], more: int) -> int:
        self.count += more
        if more == 7:
            ctx.signal_entity(Text("@box@other"), Text("add"), 1)
            ctx.start_orchestration(
                Text("child"), 5, instance_id=Text("of-box"), version=Text("1"), tags={Text("a"): Text("b")}
            )
        return self.count


@app.activity
async def double(x: int) -> int:
    return 2 * x


@app.orchestrator(name="child", version="1")
def child(ctx: OrchestrationContext, x: int) -> Any:
    if x == 0:
        ctx.continue_as_new(3, version=Text("1"))
        return None
    return (yield ctx.call_activity(double, x))


@app.orchestrator
def parent(ctx: OrchestrationContext) -> Any:
    total = yield ctx.call_sub_orchestrator(
        Text("child"), 0, instance_id=Text("kid"), version=Text("1"), tags={Text("k"): Text("v")}
    )
    total += yield ctx.call_activity(Text("double"), 1)
    total += yield ctx.call_entity(Text("@box@own"), Text("add"), 7)
    ctx.signal_entity(EntityInstanceId(Text("box"), Text("own")), Text("add"), 1)
    with (yield ctx.lock_entities([Text("@box@own")])):
        total += yield ctx.call_entity(Text("@box@own"), Text("add"), 1)
    ctx.send_event(Text("waits"), Text("go"), 4)
    ctx.patched(Text("patch"))
    return total


@app.orchestrator
def waits(ctx: OrchestrationContext) -> Any:
    return (yield ctx.wait_for_external_event(Text("go")))


def asks(client: Client) -> dict[str, Callable[[], Coroutine[Any, Any, Any]]]:
    """Everything that a client is asked with an id, a name or a key."""
    a = Text("a")
    tags: dict[str, str] = {Text("k"): Text("v")}
    return {
        "start": lambda: client.start(Text("waits"), instance_id=a, tags=tags),
        "start by an enum": lambda: client.start(Named.WAITS, instance_id=Named.ORDER),
        "start a version": lambda: client.start(Text("child"), 1, instance_id=Text("v"), version=Text("1")),
        "start many": lambda: client.start_many(Text("waits"), [1], instance_ids=[Text("m")], tags=tags),
        "start in its place": lambda: client.start(Text("waits"), instance_id=a, on_existing="terminate_and_replace"),
        "signal with start": lambda: client.signal_with_start(
            Text("waits"), None, Text("go"), 1, instance_id=Text("s"), version=None, dedupe_key=Text("d"), tags=tags
        ),
        "signal": lambda: client.get(a).raise_event(Text("Go"), 1, dedupe_key=Text("d")),
        "signal an entity": lambda: client.signal_entity(Text("@box@a"), Text("add"), 1, dedupe_key=Text("d")),
        "get an entity": lambda: client.get_entity(Text("@box@a")),
        "read an entity": lambda: client.read_entity(EntityInstanceId(Text("box"), Text("a"))),
        "list": lambda: client.list_page(name=Text("waits"), id_prefix=a, tags=tags, parent=Text("p")),
        "suspend": lambda: client.get(a).suspend(Text("why")),
        "cancel": lambda: client.get(a).cancel(Text("why")),
        "terminate": lambda: client.get(a).terminate(Text("why")),
        "restart": lambda: client.get(a).restart(instance_id=Text("r"), tags=tags),
        "fork": lambda: client.get(a).fork(instance_id=Text("f"), tags=tags),
        "schedule": lambda: client.create_schedule(Text("nightly"), Text("waits"), every=HOUR, tags=tags),
        "trigger": lambda: client.get_schedule(Text("nightly")).trigger(),
    }


async def test_a_client_takes_it(tmp_path: Path) -> None:
    async with Client(SqliteStore(tmp_path / "hub.db"), app) as client:
        for ask in asks(client).values():
            await ask()
        assert {state.id async for state in client.list()} >= {"a", "m", "order-7", "v", "s", "r", "f"}


async def test_orchestrations_and_entities_take_it(place: Place) -> None:
    async with TaskHub(place.store(), app) as hub:
        waiting = await hub.client.start(waits, instance_id="waits")
        assert await (await hub.client.start(parent)).result(10) == 6 + 2 + 7 + 9
        assert await waiting.result(10) == 4
        assert await hub.client.get("of-box").result(10) == 10
        assert (await hub.client.get("kid").status()).tags == {"k": "v"}
        assert (await hub.client.examine(is_thorough=True)).condition.faults == ()


async def test_in_the_callers_own_transaction_it_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with Client(path):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        tags: dict[str, str] = {Text("k"): Text("v")}
        assert sqlite.start(connection, Text("waits"), instance_id=Text("a"), tags=tags) == "a"
        sqlite.raise_event(connection, Text("a"), Text("go"), 1, dedupe_key=Text("d"))
        sqlite.signal_with_start(connection, Text("waits"), None, Text("go"), 2, instance_id=Text("b"), tags=tags)
        connection.execute("COMMIT")
    async with TaskHub(path, app) as hub:
        assert [await hub.client.get(id).result(10) for id in ("a", "b")] == [1, 2]
