"""Entities: one operation at a time, whole or not at all, for as long as anybody remembers them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import BaseModel

from replayflow import (
    App,
    Client,
    Codec,
    DecodeError,
    EncodeError,
    EntityContext,
    EntityError,
    EntityInstanceId,
    InvalidArgumentError,
    Orchestration,
    OrchestrationContext,
    TaskHub,
    UnknownNameError,
    when_all,
)
from replayflow.core.entity import entity
from tests.semantics.kit import LIMIT, Place, kinds, until

app = App()
performed: Tally[str] = Tally()


@app.entity
def register(ctx: EntityContext[int | None], amount: int = 0) -> int:
    performed[ctx.operation] += 1
    if ctx.operation == "add":
        ctx.state = (ctx.state or 0) + amount
    elif ctx.operation == "reset":
        ctx.state = None
    elif ctx.operation != "get":
        raise LookupError(f"no such operation: {ctx.operation}")
    return ctx.state or 0


@app.entity(name="Notes")
@dataclass
class Notebook:
    lines: list[str] = field(default_factory=list)
    at: datetime | None = None

    def write(self, ctx: EntityContext[Any], line: str) -> int:
        self.lines.append(line)
        self.at = ctx.current_utc_datetime
        return len(self.lines)

    def read(self) -> list[str]:
        return self.lines

    def tear(self, line: str = "") -> None:
        self.lines.append(line)
        raise ValueError("torn")

    def tell(self, ctx: EntityContext[Any], other: str) -> None:
        ctx.signal_entity(f"@notes@{other}", "write", f"from {ctx.entity_id}")
        ctx.start_orchestration(remember, other, instance_id=f"remember-{other}")
        if other == "nobody":
            raise ValueError("on second thoughts")

    def spoil(self, how: str) -> Any:
        if how == "state":
            self.lines.append(object())  # type: ignore[arg-type]
        elif how == "field":
            self.extra = 1
        elif how == "size":
            self.lines.append("x" * 3_000)
        return object() if how == "result" else None

    def later(self, ctx: EntityContext[Any], seconds: float) -> None:
        ctx.signal_entity(ctx.entity_id, "write", "later", delay=timedelta(seconds=seconds))


@app.entity
class Plain:
    total: int = 0
    seen: list[int]

    def __init__(self) -> None:
        self.seen = []

    def add(self, n: int) -> int:
        self.total += n
        self.seen.append(n)
        return self.total

    def stray(self) -> None:
        self.other = 3


@app.entity
class Model(BaseModel):
    total: int = 0

    def add(self, n: int) -> int:
        self.total += n
        return self.total


@app.orchestrator
def remember(ctx: OrchestrationContext, what: str) -> Orchestration[str]:
    yield ctx.create_timer(timedelta(0))
    return what


@app.orchestrator
def ask(ctx: OrchestrationContext, asked: list[Any]) -> Orchestration[Any]:
    id, operation, *rest = asked
    try:
        result = yield ctx.call_entity(id, operation, *rest)
    except EntityError as error:
        return [error.details.type, error.details.message]
    return result


@pytest.fixture(autouse=True)
def nothing_performed() -> Iterator[None]:
    performed.clear()
    yield
    performed.clear()


async def call(client: Client, id: str, operation: str, *rest: Any) -> Any:
    return await (await client.start(ask, [id, operation, *rest])).result(LIMIT)


async def until_state(client: Client, id: str, state: Any) -> None:
    async def has() -> bool:
        return bool(await client.read_entity(id) == state)

    await until(has)


# ---- operations


async def test_an_entity_begins_with_its_first_message_and_keeps_its_state(place: Place) -> None:
    async with place.hub(app) as hub:
        assert await hub.client.read_entity("@register@a") is None
        assert await call(hub.client, "@Register@a", "add", 3) == 3
        await hub.client.signal_entity(EntityInstanceId("REGISTER", "a"), "add", 4)
        assert await call(hub.client, "@register@a", "get") == 7
        assert await call(hub.client, "@register@A", "get") == 0  # keys are as they are
    async with place.hub(app) as hub:
        assert await hub.client.read_entity("@register@a") == 7
        assert await call(hub.client, "@register@a", "add", 1) == 8


async def test_state_is_rebuilt_as_the_class_has_it(place: Place) -> None:
    async with place.hub(app) as hub:
        assert await call(hub.client, "@notes@n", "write", "one") == 1
        found = await hub.client.read_entity("@notes@n")
        assert isinstance(found, Notebook)
        assert found.lines == ["one"]
        assert found.at is not None
        assert found.at.tzinfo is UTC
        assert await call(hub.client, "@plain@p", "add", 2) == 2
        assert await call(hub.client, "@model@m", "add", 2) == 2
    async with place.hub(app) as hub:
        assert await call(hub.client, "@plain@p", "add", 3) == 5
        plain = await hub.client.read_entity("@plain@p")
        assert (type(plain), plain.total, plain.seen) == (Plain, 5, [2, 3])
        assert await call(hub.client, "@model@m", "add", 3) == 5
        assert await hub.client.read_entity("@model@m") == Model(total=5)
        assert await hub.client.read_entity("@model@m", type=dict) == {"total": 5}
        with pytest.raises(DecodeError):
            await hub.client.read_entity("@model@m", type=int)


async def test_signals_of_one_sender_are_performed_in_order(place: Place) -> None:
    async with place.hub(app) as hub:
        await asyncio.gather(*[hub.client.signal_entity("@notes@n", "write", str(i)) for i in range(300)])
        assert await call(hub.client, "@notes@n", "read") == [str(i) for i in range(300)]


async def test_many_callers_get_each_its_own_answer(place: Place) -> None:
    wide = App()
    wide.include(app)

    @wide.orchestrator
    def many(ctx: OrchestrationContext, n: int) -> Orchestration[list[int]]:
        return (yield from when_all([ctx.call_entity("@register@m", "add", 1, result_type=int) for _ in range(n)]))

    async with place.hub(wide) as hub:
        instances = [await hub.client.start(many, 20) for _ in range(10)]
        answers = [answer for instance in instances for answer in await instance.result(LIMIT)]
        assert sorted(answers) == list(range(1, 201))


async def test_an_operation_that_raises_changes_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async with place.hub(app) as hub:
        await call(hub.client, "@notes@n", "write", "kept")
        assert await call(hub.client, "@notes@n", "tear", "x") == ["ValueError", "torn"]
        assert await call(hub.client, "@notes@n", "tell", "nobody") == ["ValueError", "on second thoughts"]
        with caplog.at_level(logging.WARNING, "replayflow"):
            await hub.client.signal_entity("@notes@n", "tear", "y")
            assert await call(hub.client, "@notes@n", "read") == ["kept"]
        assert "signal 'tear' to entity '@notes@n' failed: ValueError: torn" in caplog.text
        assert await hub.client.get_entity("@notes@nobody") is None
        assert [state.id async for state in hub.client.list(id_prefix="remember-")] == []
        assert (await kinds(hub.client.get("@notes@n"))).count("EntityOperationFailed") == 3


@pytest.mark.parametrize(
    ("asked", "type", "message"),
    [
        (("@notes@n", "burn"), "UnknownNameError", "has no operation 'burn'; it has: delete, later, read, spoil, tear"),
        (("@notes@n", "_secret"), "UnknownNameError", "no operation '_secret'"),
        (("@notes@n", "write", 5), "DecodeError", "input of operation 'write' of entity '@notes@n': expected str"),
        (("@notes@n", "write"), "DecodeError", "expected str"),
        (("@notes@n", "read", 5), "InvalidArgumentError", "takes no input, and one is given"),
        (("@notes@n", "spoil", "state"), "EncodeError", "state of entity '@notes@n'.lines[1]"),
        (("@notes@n", "spoil", "result"), "EncodeError", "result of operation 'spoil' of entity '@notes@n'"),
        (("@notes@n", "spoil", "size"), "PayloadTooLargeError", "state of entity '@notes@n'"),
        (("@plain@n", "stray"), "EncodeError", "state of entity '@plain@n'.other: no field of Plain is annotated"),
        (("@register@n", "halve"), "LookupError", "no such operation: halve"),
        (("@register@n", "add", "one"), "DecodeError", "expected int"),
    ],
)
async def test_what_does_not_fit_fails_the_operation_alone(
    place: Place, asked: tuple[Any, ...], type: str, message: str
) -> None:
    async with TaskHub(place.store(), app, codec=Codec(payload_bytes_max=2_000)) as hub:
        await call(hub.client, "@notes@n", "write", "kept")
        kind, text = await call(hub.client, *asked)
        assert (kind, message in text) == (type, True), text
        assert await call(hub.client, "@notes@n", "read") == ["kept"]


async def test_a_client_refuses_what_cannot_be_before_anything_is_written(place: Place) -> None:
    async with place.hub(app) as hub:
        client = hub.client
        for id in ("register@a", "@register", "@@a", "@register@", "@reg ister@a\n", "@a/b@c", "x", f"@r@{'x' * 300}"):
            with pytest.raises(InvalidArgumentError):
                await client.signal_entity(id, "add", 1)
        with pytest.raises(
            UnknownNameError, match="no entity 'nobody' is registered with this app; it has: model, notes"
        ):
            await client.signal_entity("@nobody@a", "add")
        with pytest.raises(UnknownNameError, match="has no operation 'burn'"):
            await client.signal_entity("@notes@a", "burn")
        with pytest.raises(EncodeError):
            await client.signal_entity("@notes@a", "write", object())
        with pytest.raises(InvalidArgumentError, match="naive"):
            await client.signal_entity("@notes@a", "write", "x", at=datetime(2030, 1, 1))  # noqa: DTZ001
        with pytest.raises(InvalidArgumentError, match="both"):
            await client.signal_entity("@notes@a", "write", "x", at=datetime.now(UTC), delay=timedelta(1))
        latest = datetime.max.replace(tzinfo=timezone(-timedelta(hours=5)))
        with pytest.raises(InvalidArgumentError, match="in no calendar"):
            await client.signal_entity("@notes@a", "write", "x", at=latest)
        wrong: Any = 5
        with pytest.raises(InvalidArgumentError, match="dedupe_key is 5"):
            await client.signal_entity("@notes@a", "write", "x", dedupe_key=wrong)
        with pytest.raises(InvalidArgumentError, match="key_prefix is 5"):
            [state async for state in client.list_entities(name="notes", key_prefix=wrong)]
        for operation in ("", "x" * 300, "\ud800", 5):
            with pytest.raises(InvalidArgumentError, match="name of an operation"):
                await client.signal_entity("@notes@a", operation, "x")  # type: ignore[arg-type]
        assert [state async for state in client.list(include_entities=True)] == []


async def test_a_repeated_signal_with_the_same_key_is_performed_once(place: Place) -> None:
    async with place.hub(app) as hub:
        for _ in range(3):
            await hub.client.signal_entity("@register@a", "add", 5, dedupe_key="once")
        assert await call(hub.client, "@register@a", "get") == 5


# ---- what operations ask for


async def test_an_operation_signals_others_and_starts_orchestrations(place: Place) -> None:
    async with place.hub(app) as hub:
        await call(hub.client, "@notes@n", "tell", "b")
        assert await hub.client.get("remember-b").result(LIMIT) == "b"
        assert (await hub.client.get("remember-b").status()).parent_instance_id is None
        await call(hub.client, "@notes@n", "tell", "b")  # its orchestration's id is taken: nothing happens
        assert await call(hub.client, "@notes@b", "read") == ["from @notes@n"] * 2
        assert len([state async for state in hub.client.list(id_prefix="remember-")]) == 1


async def test_a_delayed_signal_waits_for_its_time_also_without_a_worker(place: Place) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.4)
    async with place.hub(app) as hub:
        await hub.client.signal_entity("@notes@n", "write", "third", at=soon + timedelta(seconds=0.1))
        await hub.client.signal_entity("@notes@n", "write", "second", at=soon)
        await hub.client.signal_entity("@notes@n", "write", "first", at=datetime(2020, 1, 1, tzinfo=UTC))
        assert await call(hub.client, "@notes@n", "read") == ["first"]
        shown = await hub.client.get_entity("@notes@n")
        assert shown is not None
        assert shown.backlog == 2
    async with place.hub(app) as hub:

        async def all_there() -> bool:
            return list((await hub.client.read_entity("@notes@n")).lines) == ["first", "second", "third"]

        await until(all_there)
        assert datetime.now(UTC) >= soon
        await hub.client.signal_entity("@notes@n", "later", 0.01)

        async def later_there() -> bool:
            return "later" in list((await hub.client.read_entity("@notes@n")).lines)

        await until(later_there)


# ---- restarts and snapshots


async def test_nothing_is_performed_again_by_a_restart(place: Place) -> None:
    for _ in range(4):
        async with place.hub(app) as hub:
            for _ in range(5):
                await hub.client.signal_entity("@register@a", "add", 1)
            await call(hub.client, "@register@a", "get")
    async with place.hub(app) as hub:
        assert await call(hub.client, "@register@a", "get") == 20
    assert performed == {"add": 20, "get": 5}


async def test_entities_that_leave_the_memory_come_back_as_they_were(place: Place) -> None:
    async with place.hub(app, warm_instances=1) as hub:
        for n in range(4):
            for key in "abc":
                assert await call(hub.client, f"@register@{key}", "add", 1) == n + 1
    assert performed == {"add": 12}


async def test_the_history_of_an_entity_stays_short(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entity, "SNAPSHOT_AFTER_PIECES", 5)
    async with place.hub(app) as hub:
        ids = set()
        await hub.client.signal_entity("@register@a", "add", 1, delay=timedelta(seconds=1.0))
        for n in range(40):
            assert await call(hub.client, "@register@a", "add", 1) == n + 1
            ids.add((await hub.client.get("@register@a").status()).execution_id)
        assert len(ids) > 5
        assert await call(hub.client, "@register@a", "get") == 40
        state = await hub.client.get("@register@a").status()
        store = hub.client._store
        assert len(await store.history("@register@a")) <= 6
        kept = [id for id in ids - {state.execution_id} if await store.history("@register@a", id)]
        assert len(kept) <= 1
    async with place.hub(app) as hub:
        await until_state(hub.client, "@register@a", 41)  # the delayed signal went along


async def test_an_entity_that_no_worker_knows_is_parked_and_loses_nothing(place: Place) -> None:
    async with place.hub(App()) as hub:
        bare = Client(hub.client._store, door=hub._engine)
        for n in range(3):
            await bare.signal_entity("@register@a", "add", n)

        async def is_parked() -> Any:
            shown = await bare.get_entity("@register@a")
            return shown is not None and shown.problem

        assert "no entity 'register' is registered" in await until(is_parked)
        assert await bare.read_entity("@register@a") is None
        assert [state.id async for state in bare.list(parked=True)] == []
        assert [state.id async for state in bare.list(parked=True, include_entities=True)] == ["@register@a"]
    async with place.hub(app) as hub:
        await until_state(hub.client, "@register@a", 3)
        shown = await hub.client.get_entity("@register@a")
        assert shown is not None
        assert shown.problem is None


async def test_a_client_elsewhere_signals_an_entity_that_is_not_there(place: Place) -> None:
    async with Client(place.store()) as client:
        await client.signal_entity("@register@a", "add", 1)  # nobody is there to see it
        assert await client.read_entity("@register@a") is None
    async with Client(place.store()) as client, place.hub(app) as hub:
        await client.signal_entity("@register@a", "add", 1)
        await client.signal_entity("@register@b", "add", 1)
        await until_state(hub.client, "@register@a", 2)
        await until_state(client, "@register@b", 1)


# ---- looking, and cleaning up


async def test_entities_are_listed_by_name_and_key(place: Place) -> None:
    async with place.hub(app) as hub:
        for id in ("@register@a1", "@register@a2", "@register@b", "@plain@a1"):
            await call(hub.client, id, "add", 1)
        await call(hub.client, "@register@none", "get")

        async def ids(**wanted: Any) -> list[str]:
            return [shown.id async for shown in hub.client.list_entities(**wanted)]

        assert await ids() == ["@plain@a1", "@register@a1", "@register@a2", "@register@b"]
        assert await ids(name="Register") == ["@register@a1", "@register@a2", "@register@b"]
        assert await ids(name="register", key_prefix="a") == ["@register@a1", "@register@a2"]
        assert "@register@none" in await ids(include_empty=True)
        with pytest.raises(InvalidArgumentError):
            await ids(key_prefix="a")
        shown = await hub.client.get_entity("@register@a1")
        assert shown is not None
        assert (shown.name, shown.key, shown.state, shown.locked_by, shown.backlog) == ("register", "a1", 1, None, 0)
        assert shown.created_at <= shown.updated_at
        assert not [s for s in [s async for s in hub.client.list()] if s.id.startswith("@")]
        assert len([s async for s in hub.client.list(include_entities=True, name="@register")]) == 4


async def test_empty_entities_are_removed_when_asked_and_begin_anew(place: Place) -> None:
    async with place.hub(app) as hub:
        client = hub.client
        await call(client, "@register@a", "add", 1)
        await call(client, "@register@kept", "add", 1)
        await call(client, "@notes@n", "write", "x")
        await client.signal_entity("@register@waits", "add", 1, delay=timedelta(days=1))
        assert await client.clean_entities() == 0
        await call(client, "@register@a", "reset")
        await call(client, "@notes@n", "delete")
        assert await client.read_entity("@notes@n") is None
        assert await client.clean_entities(name="notes") == 1
        assert await client.clean_entities() >= 1

        async def gone() -> bool:
            return [await client.get_entity(id) for id in ("@register@a", "@notes@n")] == [None, None]

        await until(gone)
        assert await client._store.history("@register@a") == []
        assert {s.id async for s in client.list_entities(include_empty=True)} == {"@register@kept", "@register@waits"}
        assert await call(client, "@register@a", "add", 2) == 2
    async with place.hub(app) as hub:
        assert await call(hub.client, "@register@a", "get") == 2


async def test_a_storm_of_signals_and_cleanings_loses_nothing(place: Place) -> None:
    async with place.hub(app) as hub:

        async def storm(key: str) -> None:
            for _ in range(20):
                await hub.client.signal_entity(f"@relay@{key}", "pass")
                await hub.client.clean_entities(name="relay")

        await asyncio.gather(*[storm(key) for key in "abc" for _ in range(2)])
        await until_state(hub.client, "@register@sum", 120)


@app.entity
def relay(ctx: EntityContext[None]) -> None:
    ctx.signal_entity("@register@sum", "add", 1)


# ---- verbs


async def test_an_entity_has_no_end(place: Place) -> None:
    async with place.hub(app) as hub:
        await call(hub.client, "@register@a", "add", 1)
        handle = hub.client.get("@register@a")
        for ask_for in (handle.terminate, handle.cancel, handle.result, handle.wait):
            with pytest.raises(InvalidArgumentError, match="is an entity"):
                await ask_for()
        with pytest.raises(InvalidArgumentError, match="is an entity"):
            await handle.raise_event("add")
        with pytest.raises(InvalidArgumentError, match="begin with '@'"):
            await hub.client.start(ask, [], instance_id="@register@b")
        assert (await handle.status()).name == "@register"


async def test_a_suspended_entity_performs_nothing_until_it_is_resumed(place: Place) -> None:
    async with place.hub(app) as hub:
        await call(hub.client, "@register@a", "add", 1)
        handle = hub.client.get("@register@a")
        await handle.suspend("a pause")
        await hub.client.signal_entity("@register@a", "add", 1)
        await until_state(hub.client, "@register@a", 1)

        async def is_suspended() -> bool:
            return (await handle.status()).status == "SUSPENDED"

        await until(is_suspended)
    async with place.hub(app) as hub:
        await hub.client.signal_entity("@register@a", "add", 1)
        assert await hub.client.read_entity("@register@a") == 1
        await hub.client.get("@register@a").resume()
        await until_state(hub.client, "@register@a", 3)


async def test_an_entity_whose_state_does_not_fit_the_code_is_parked_and_loses_nothing(place: Place) -> None:
    """A wrong deployment, with messages that come meanwhile, and the right one again."""
    before, wrong = App(), App()

    @before.entity(name="tally")
    def tally(ctx: EntityContext[int], n: int) -> None:
        ctx.state = (ctx.state or 0) + n

    @wrong.entity(name="tally")
    def changed(ctx: EntityContext[list[int]], n: int) -> None:
        ctx.state = [*(ctx.state or []), n]

    async with place.hub(before) as hub:
        await hub.client.signal_entity("@tally@a", "add", 5)
        await until_state(hub.client, "@tally@a", 5)
    async with place.hub(wrong) as hub:
        for _ in range(3):
            await hub.client.signal_entity("@tally@a", "add", 1)

        async def problem() -> Any:
            shown = await hub.client.get_entity("@tally@a")
            return shown is not None and shown.problem

        assert "the stored state of entity '@tally@a' does not fit the code at hand" in await until(problem)
    async with place.hub(before) as hub:
        await until_state(hub.client, "@tally@a", 8)
        shown = await hub.client.get_entity("@tally@a")
        assert shown is not None
        assert shown.problem is None
