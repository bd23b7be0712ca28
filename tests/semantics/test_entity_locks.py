"""Critical sections: entities belong to one orchestration, never to two, and never to one that has finished."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    EntityError,
    EntityLock,
    Instance,
    InvalidArgumentError,
    OrchestrationCanceled,
    OrchestrationCancelled,
    OrchestrationContext,
    OrchestrationFailed,
    OrchestratorError,
    Task,
    race,
    when_all,
    when_any,
)
from replayflow.core.tasks import Orchestration
from tests.semantics.kit import LIMIT, Place, failure_of, kinds, until, until_recorded, until_status

app = App()
A, B, C = "@account@a", "@account@b", "@account@c"


@app.entity
@dataclass
class Account:
    balance: int = 0

    def get(self) -> int:
        return self.balance

    def set(self, balance: int) -> None:
        self.balance = balance

    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def fail(self) -> None:
        raise ValueError("no")


@app.activity
async def take_a_moment(balance: int) -> int:
    await asyncio.sleep(0.001)
    return balance


@app.orchestrator
def child(ctx: OrchestrationContext) -> int:
    return 1


@app.orchestrator
def failing_child(ctx: OrchestrationContext, number: int) -> int:
    raise ValueError("no")


@app.orchestrator
def transfer(ctx: OrchestrationContext, moved: tuple[str, str, int]) -> Orchestration[None]:
    source, target, amount = moved
    lock = yield from ctx.lock_entities([source, target])
    with lock:
        before = yield from ctx.call_entity(source, "get", result_type=int)
        checked = yield from ctx.call_activity(take_a_moment, before)
        yield ctx.call_entity(source, "set", checked - amount)
        there = yield from ctx.call_entity(target, "get")
        yield ctx.call_entity(target, "set", there + amount)


@app.orchestrator
def hold(ctx: OrchestrationContext, ids: list[str]) -> Orchestration[str]:
    with (yield ctx.lock_entities(ids)):
        ctx.set_custom_status("holding")
        word = yield from ctx.wait_for_external_event("go", type=str)
        if word == "fail":
            raise ValueError("as told")
        if word == "again":
            ctx.continue_as_new(ids)
    return word


@app.orchestrator
def keep(ctx: OrchestrationContext, ids: list[str]) -> Orchestration[str]:
    lock: EntityLock = yield ctx.lock_entities(ids)
    assert lock.is_held
    ctx.set_custom_status("holding")
    word = yield from ctx.wait_for_external_event("go", type=str)
    if word == "fail":
        raise ValueError("as told")
    if word == "again":
        ctx.continue_as_new(ids)
    return word


@app.orchestrator
def impatient(ctx: OrchestrationContext, ids: list[str]) -> Orchestration[str]:
    try:
        yield race([ctx.lock_entities(ids), ctx.create_timer(timedelta(seconds=0.05))])
        ctx.lock_entities(ids).cancel()
    finally:
        ctx.set_custom_status("gave up")
    yield ctx.wait_for_external_event("end")
    return "gave up"


@app.orchestrator
def rules(ctx: OrchestrationContext, what: str) -> Orchestration[Any]:
    if what == "nothing":
        with (yield ctx.lock_entities([])) as lock:
            assert lock.entity_ids == ()
            with (yield ctx.lock_entities([A])):
                ctx.signal_entity(B, "add", 1)
            yield ctx.call_sub_orchestrator(child)
            return (yield ctx.call_entity(A, "add", 1))
    if what == "open call":
        ctx.call_entity(A, "get")  # one of its own: the lock comes after it
        ctx.call_entity(C, "get")
    if what == "children again":
        result = yield from ctx.map(failing_child, [1], tolerated_failures=1)
        with (yield ctx.lock_entities([A])):
            yield from result.retry_failed(ctx)
    if what == "too early":
        ctx.lock_entities([A])
        ctx.call_entity(A, "get")
    with (yield ctx.lock_entities([B, A, "@Account@a", B])) as lock:
        match what:
            case "names":
                return list(lock.entity_ids)
            case "nested":
                ctx.lock_entities([C])
            case "signal":
                ctx.signal_entity(A, "add", 1)
            case "child":
                ctx.call_sub_orchestrator(child)
            case "children":
                ctx.map("child", [None])
            case "stranger":
                ctx.call_entity(C, "get")
            case "signal a stranger":
                ctx.signal_entity(C, "add", 5)
            case "failure":
                try:
                    yield ctx.call_entity(A, "fail")
                except EntityError as error:
                    return error.details.type
            case "caught":
                try:
                    ctx.lock_entities([C])
                except OrchestratorError:
                    return (yield ctx.call_entity(A, "add", 1))
            case "again":
                lock.release()
                lock.release()
                with lock:
                    pass
            case "outside":
                lock.release()
                ctx.signal_entity(A, "add", 1)
                yield ctx.call_sub_orchestrator(child)
                with (yield ctx.lock_entities([C])):
                    return (yield ctx.call_entity(C, "add", 1))
    return "done"


async def balance(client: Client, id: str) -> int:
    found = await client.read_entity(id)
    return 0 if found is None else int(found.balance)


async def is_free(client: Client, ids: Sequence[str]) -> bool:
    found = [await client.get_entity(id) for id in ids]
    return all(shown is None or (shown.locked_by is None and shown.backlog == 0) for shown in found)


async def until_free(client: Client, *ids: str) -> None:
    await until(lambda: is_free(client, ids))


async def until_said(instance: Instance[Any], said: str) -> None:
    async def has() -> bool:
        return bool((await instance.status()).custom_status == said)

    await until(has)


# ---- to oneself


async def test_sections_exclude_each_other_and_no_order_of_names_can_block_them(place: Place) -> None:
    names = [A, B, C]
    async with place.hub(app) as hub:
        moves = [(names[n % 3], names[(n + 1 + n % 2) % 3], n) for n in range(40)]
        started = [await hub.client.start(transfer, move) for move in moves]
        for instance in started:
            await instance.result(LIMIT)
        expected = {id: sum(n for _, t, n in moves if t == id) - sum(n for s, _, n in moves if s == id) for id in names}
        assert {id: await balance(hub.client, id) for id in names} == expected
        await until_free(hub.client, *names)


async def test_signals_and_calls_of_others_wait_in_order_for_the_end_of_the_section(place: Place) -> None:
    async with place.hub(app) as hub:
        holder = await hub.client.start(hold, [A])
        await until_said(holder, "holding")
        for n in range(5):
            await hub.client.signal_entity(A, "set", n)

        async def are_in_line() -> Any:
            shown = await hub.client.get_entity(A)
            return shown is not None and shown.backlog == 5 and shown.locked_by == holder.id

        await until(are_in_line)
        assert await balance(hub.client, A) == 0
        await holder.raise_event("go", "on")
        await until_free(hub.client, A)
        assert await balance(hub.client, A) == 4


@pytest.mark.parametrize(
    ("what", "result"),
    [
        ("names", [A, B]),
        ("nothing", 1),
        ("failure", "ValueError"),
        ("caught", 1),
        ("outside", 1),
        ("signal a stranger", "done"),
    ],
)
async def test_what_a_section_allows(place: Place, what: str, result: object) -> None:
    async with place.hub(app, warm_instances=1) as hub:
        assert await (await hub.client.start(rules, what)).result(LIMIT) == result
        await until_free(hub.client, A, B, C)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nested", "lock_entities in a critical section"),
        ("signal", "signalled in the critical section that has locked it"),
        ("child", "sub-orchestration 'child' in a critical section"),
        ("children", "map of 'child' in a critical section"),
        ("children again", "map of 'failing_child' in a critical section"),
        ("stranger", "called in a critical section that has not locked it"),
        ("too early", "before its lock is there"),
        ("open call", "while operation 'get' of entity '@account@c' (task 2) is open"),
        ("again", "was released already"),
    ],
)
async def test_what_a_section_forbids_fails_at_the_call_and_frees_all(place: Place, what: str, said: str) -> None:
    async with place.hub(app) as hub:
        details = await failure_of(await hub.client.start(rules, what))
        assert (details.type, said in details.message) == ("OrchestratorError", True), details
        await until_free(hub.client, A, B, C)
        assert await balance(hub.client, A) == 0


async def test_ids_that_are_none_are_refused(place: Place) -> None:
    bad = App()

    @bad.orchestrator
    def bad_ids(ctx: OrchestrationContext, ids: Any) -> None:
        ctx.lock_entities(ids)

    async with place.hub(bad) as hub:
        for ids in (["@account"], "@account@a", [3], ["account"]):
            with pytest.raises(OrchestrationFailed) as failed:
                await (await hub.client.start(bad_ids, ids)).result(LIMIT)
            assert failed.value.is_caused_by(InvalidArgumentError)


# ---- and to nobody afterwards


@pytest.mark.parametrize("how", ["hold", "keep"])
@pytest.mark.parametrize("end", ["on", "fail", "again", "terminate", "cancel", "terminate when suspended"])
async def test_whatever_ends_an_orchestration_frees_its_entities(place: Place, how: str, end: str) -> None:
    async with place.hub(app) as hub:
        holder = await hub.client.start(how, [A, B])
        await until_said(holder, "holding")
        waiting = await hub.client.start(transfer, (B, A, 5))
        await until_recorded(waiting, "EntityLockRequested")
        match end:
            case "terminate":
                await holder.terminate()
            case "cancel":
                await holder.cancel()
            case "terminate when suspended":
                await holder.suspend()
                await until_status(holder, "SUSPENDED")
                await holder.terminate()
            case word:
                await holder.raise_event("go", word)
        await waiting.result(LIMIT)
        if end == "again":
            await until_recorded(holder, "EntityLockGranted", 2)
            await holder.raise_event("go", "on")
        assert (await holder.wait(LIMIT)).status.is_finished
        await until_free(hub.client, A, B)
        assert (await balance(hub.client, A), await balance(hub.client, B)) == (5, -5)


@pytest.mark.parametrize("end", ["terminate", "cancel"])
async def test_one_that_ends_in_line_leaves_the_line_and_what_it_had(place: Place, end: str) -> None:
    async with place.hub(app) as hub:
        holder = await hub.client.start(hold, [B])
        await until_said(holder, "holding")
        waiting = await hub.client.start(hold, [A, B, C])  # has A, stands in line for B
        await until_recorded(waiting, "EntityLockRequested", 2)
        await getattr(waiting, end)()
        assert (await waiting.wait(LIMIT)).status.is_finished
        await until_free(hub.client, A, C)
        await holder.raise_event("go", "on")
        await until_free(hub.client, A, B, C)
        await (await hub.client.start(transfer, (A, B, 1))).result(LIMIT)


async def test_a_lock_that_nobody_waits_for_any_longer_is_given_back(place: Place) -> None:
    async with place.hub(app) as hub:
        holder = await hub.client.start(hold, [B])
        await until_said(holder, "holding")
        gone = await hub.client.start(impatient, [A, B])
        await until_said(gone, "gave up")
        await until_free(hub.client, A)
        await holder.raise_event("go", "on")
        await until_free(hub.client, A, B)
        assert (await gone.status()).status == "RUNNING"
        await gone.raise_event("end")
        await gone.result(LIMIT)


@pytest.mark.parametrize("warm", [1, 1_000])
async def test_a_section_outlives_its_worker(place: Place, warm: int) -> None:
    async with place.hub(app, warm_instances=warm) as hub:
        holder = await hub.client.start(hold, [A, B], instance_id="holder")
        await until_said(holder, "holding")
        await hub.client.start(transfer, (A, C, 5), instance_id="waiting")
        await until_recorded(hub.client.get("waiting"), "EntityLockRequested")
    async with place.hub(app, warm_instances=warm) as hub:
        shown = await hub.client.get_entity(A)
        assert shown is not None
        assert shown.locked_by == "holder"
        assert (await hub.client.get("waiting").status()).status == "RUNNING"
        await hub.client.get("holder").raise_event("go", "on")
        await hub.client.get("waiting").result(LIMIT)
        assert await balance(hub.client, C) == 5
        assert (await kinds(hub.client.get("holder"))).count("EntityUnlockSent") == 2


async def test_a_holder_that_no_longer_fits_its_code_keeps_its_locks_until_it_is_ended(place: Place) -> None:
    other = App()
    other.include(app)
    del other.orchestrators["hold"]

    @other.orchestrator(name="hold")
    def changed(ctx: OrchestrationContext, ids: list[str]) -> Orchestration[None]:
        yield ctx.create_timer(timedelta(days=1))

    async with place.hub(app) as hub:
        await until_said(await hub.client.start(hold, [A], instance_id="holder"), "holding")
    async with place.hub(other) as hub:
        holder = hub.client.get("holder")

        async def is_parked() -> Any:
            return (await holder.status()).problem

        await holder.raise_event("go", "on")
        await until(is_parked)
        shown = await hub.client.get_entity(A)
        assert shown is not None
        assert shown.locked_by == "holder"
        await holder.terminate()
        await until_free(hub.client, A)


async def test_a_mismatch_that_fails_the_holder_frees_its_entities(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLAYFLOW_ON_MISMATCH", "fail")
    other = App()
    other.include(app)
    del other.orchestrators["hold"]

    @other.orchestrator(name="hold")
    def changed(ctx: OrchestrationContext, ids: list[str]) -> Orchestration[None]:
        yield ctx.create_timer(timedelta(days=1))

    async with place.hub(app) as hub:
        await until_said(await hub.client.start(hold, [A, B], instance_id="holder"), "holding")
    async with place.hub(other) as hub:
        assert (await hub.client.get("holder").wait(LIMIT)).status == "FAILED"
        await until_free(hub.client, A, B)


async def test_a_changed_lock_list_is_found_when_it_is_replayed(place: Place) -> None:
    def with_ids(*ids: str) -> App:
        changed = App()
        changed.entity(Account)

        @changed.orchestrator(name="held")
        def held(ctx: OrchestrationContext) -> Orchestration[str]:
            with (yield ctx.lock_entities(ids)):
                ctx.set_custom_status("holding")
                return (yield from ctx.wait_for_external_event("go", type=str))

        return changed

    async with place.hub(with_ids(A)) as hub:
        await until_said(await hub.client.start("held", instance_id="holder"), "holding")
    async with place.hub(with_ids(B)) as hub:
        await hub.client.get("holder").raise_event("go", "on")

        async def problem() -> Any:
            return (await hub.client.get("holder").status()).problem

        said = await until(problem)
        assert "the history has lock of entity '@account@a' (task 1)" in said
        assert "the code now asks for lock of entity '@account@b' (task 1)" in said
    async with place.hub(with_ids(A)) as hub:
        assert await hub.client.get("holder").result(LIMIT) == "on"
        await until_free(hub.client, A)


async def test_who_is_cancelled_in_line_leaves_it_before_the_clean_up_begins(place: Place) -> None:
    waiting = App()
    waiting.include(app)

    @waiting.orchestrator
    def in_line(ctx: OrchestrationContext) -> Orchestration[int]:
        try:
            yield ctx.lock_entities([A, B])
        except OrchestrationCancelled:
            with (yield ctx.lock_entities([A])):
                return (yield from ctx.call_entity(A, "add", 1, result_type=int))
        return 0

    async with place.hub(waiting, warm_instances=1) as hub:
        holder = await hub.client.start(hold, [B])
        await until_said(holder, "holding")
        instance = await hub.client.start("in_line")
        await until_recorded(instance, "EntityLockRequested", 2)
        await instance.cancel()
        assert await instance.result(LIMIT) == 1
        await until_free(hub.client, A)
        await holder.raise_event("go", "on")
        await until_free(hub.client, A, B)


@pytest.mark.parametrize("beside", ["race", "when_any", "when_all"])
async def test_who_is_cancelled_in_line_beside_other_tasks_leaves_it_too(place: Place, beside: str) -> None:
    waiting = App()
    waiting.include(app)

    @waiting.orchestrator
    def in_line(ctx: OrchestrationContext) -> Orchestration[int]:
        both: list[Task[Any]] = [ctx.lock_entities([A, B]), ctx.create_timer(timedelta(days=1))]
        compose: Any = {"race": race, "when_any": when_any, "when_all": when_all}[beside]
        try:
            yield compose([compose(both)])
        except OrchestrationCancelled:
            one: int = yield ctx.call_sub_orchestrator(child)
            with (yield ctx.lock_entities([A])):
                yield ctx.call_entity(A, "add", one)
            raise
        return 0

    async with place.hub(waiting, warm_instances=1) as hub:
        holder = await hub.client.start(hold, [B])
        await until_said(holder, "holding")
        instance = await hub.client.start("in_line")
        await until_recorded(instance, "EntityLockRequested", 2)
        await instance.cancel()
        with pytest.raises(OrchestrationCanceled):
            await instance.result(LIMIT)
        assert await balance(hub.client, A) == 1
        await until_free(hub.client, A)
        await holder.raise_event("go", "on")
        await until_free(hub.client, A, B)


async def test_what_a_clean_up_calls_when_it_is_cancelled_is_still_inside(place: Place) -> None:
    cleaning = App()
    cleaning.entity(Account)

    @cleaning.orchestrator
    def cleans(ctx: OrchestrationContext) -> Orchestration[int]:
        with (yield ctx.lock_entities([A])):
            try:
                ctx.set_custom_status("holding")
                yield ctx.create_timer(timedelta(days=1))
            except OrchestrationCancelled:
                return (yield from ctx.call_entity(A, "add", 1, result_type=int))
        return 0

    async with place.hub(cleaning) as hub:
        instance = await hub.client.start("cleans")
        await until_said(instance, "holding")
        await hub.client.signal_entity(A, "set", 10)
        await instance.cancel()
        assert await instance.result(LIMIT) == 1
        await until_free(hub.client, A)
        assert await balance(hub.client, A) == 10
