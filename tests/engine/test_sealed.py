"""Workers with and without the key: who has it works as ever, who has not harms nobody."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    EncryptedValue,
    Orchestration,
    OrchestrationContext,
    OrchestrationFailed,
    TaskHub,
    when_all,
)
from replayflow.core.events import EventRaised, TaskCompleted, TaskFailed
from replayflow.errors import SealedError
from tests.ciphers import ToyCipher
from tests.engine.kit import NO_GRACE, until_state

SECRET = "the secret"  # noqa: S105 - it is none


class Bench:
    """An app whose runs are counted, and hubs on one file with the key and without."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.app = App()
        self.replies: list[str] = []

        @self.app.activity
        async def reply(text: str) -> str:
            self.replies.append(text)
            if text == "bad":
                raise ValueError(f"{SECRET} is in this text")
            return f"{text}, again"

        @self.app.orchestrator
        def talk(ctx: OrchestrationContext, text: str) -> Orchestration[list[str]]:
            ctx.set_custom_status(text)
            said = yield from ctx.call_activity(reply, text)
            answer = yield from ctx.wait_for_external_event("answer", type=str)
            return [said or "", answer or "", (yield from ctx.call_activity(reply, "last")) or ""]

        @self.app.orchestrator
        def listen(ctx: OrchestrationContext) -> Orchestration[str | None]:
            return (yield from ctx.wait_for_external_event("answer", type=str))

        @self.app.orchestrator
        def late(ctx: OrchestrationContext, text: str) -> Orchestration[str]:
            yield from ctx.create_timer(timedelta(milliseconds=1))
            return text

    def hub(self, cipher: ToyCipher | None = None, **options: Any) -> TaskHub:
        return TaskHub(self.path, self.app, cipher=cipher, limits=NO_GRACE, **options)

    def keyed(self) -> TaskHub:
        return self.hub(ToyCipher())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "hub.db")


async def waiting(hub: TaskHub) -> None:
    """An instance 'a' that waits for its answer."""
    instance = await hub.client.start("talk", SECRET, instance_id="a")
    while not any([isinstance(event, TaskCompleted) async for event in instance.history()]):
        pass


async def test_a_worker_without_the_key_parks_and_the_next_with_it_goes_on(bench: Bench) -> None:
    async with bench.keyed() as hub:
        await waiting(hub)
        await hub.client.start("late", SECRET, instance_id="b", start_at=timedelta(milliseconds=200))
    for _ in range(2):  # tried again, it stays as it is
        async with bench.hub() as hub:
            await hub.client.start("listen", instance_id=f"plain{_}")
            await hub.client.get(f"plain{_}").raise_event("answer", "plain values are no trouble")
            assert await hub.client.get(f"plain{_}").result(10)
            await hub.client.get("a").raise_event("answer", "yes")
            for id in ("a", "b"):
                state = await until_state(hub.client.get(id), lambda state: state.problem is not None)
                assert state.status in ("RUNNING", "PENDING")
                assert "is encrypted with key 'k1', which is not at hand" in str(state.problem)
    assert bench.replies == [SECRET]
    async with bench.keyed() as hub:
        assert await hub.client.get("a").result(10) == [f"{SECRET}, again", "yes", "last, again"]
        assert await hub.client.get("b").result(10) == SECRET
        assert (await hub.client.get("a").status()).problem is None
    assert bench.replies == [SECRET, "last"]


async def test_a_sealed_message_for_an_instance_in_memory_is_kept_for_a_worker_with_the_key(bench: Bench) -> None:
    async with bench.hub() as hub:
        instance = await hub.client.start("listen", instance_id="l")
        await until_state(instance, lambda state: state.status == "RUNNING")
        async with Client(bench.path, cipher=ToyCipher()) as client:
            await client.get("l").raise_event("answer", SECRET)
        state = await until_state(instance, lambda state: state.problem is not None)
        assert "'k1'" in str(state.problem)
    async with bench.keyed() as hub:
        assert await hub.client.get("l").result(10) == SECRET


async def test_a_request_to_terminate_waits_for_the_key_too(bench: Bench) -> None:
    async with bench.keyed() as hub:
        await waiting(hub)
    async with bench.hub() as hub:
        await hub.client.get("a").terminate("enough")
        await until_state(hub.client.get("a"), lambda state: state.problem is not None)
    async with bench.keyed() as hub:
        state = await hub.client.get("a").wait(10)
        assert (state.status, state.output) == ("TERMINATED", None)


async def test_a_wrong_key_under_the_right_id_harms_nobody_either(bench: Bench) -> None:
    async with bench.keyed() as hub:
        await waiting(hub)
    async with bench.hub(ToyCipher(secret=b"another")) as hub:
        await hub.client.get("a").suspend()
        state = await until_state(hub.client.get("a"), lambda state: state.problem is not None)
        assert "key 'k1' does not open" in str(state.problem)
    async with bench.keyed() as hub:
        await until_state(hub.client.get("a"), lambda state: state.problem is None)
        await hub.client.get("a").resume()
        await hub.client.get("a").raise_event("answer", "yes")
        assert (await hub.client.get("a").result(10))[1] == "yes"


async def test_who_looks_without_the_key_sees_that_it_is_encrypted(bench: Bench) -> None:
    async with bench.keyed() as hub:
        await waiting(hub)
        await hub.client.get("a").raise_event("answer", "yes")
        await hub.client.get("a").wait(10)
        failed = await hub.client.start("talk", "bad", instance_id="f")
        with pytest.raises(OrchestrationFailed, match=SECRET):
            await failed.result(10)
    async with Client(bench.path) as client:
        state = await client.get("a").status()
        assert [state.input, state.output, state.custom_status] == [EncryptedValue("k1")] * 3
        assert str(state.input) == "(encrypted)"
        with pytest.raises(SealedError, match="key 'k1'"):
            await client.get("a").result(1)
        raised = [event async for event in client.get("a").history() if isinstance(event, EventRaised)]
        assert [(event.name, event.input) for event in raised] == [("answer", EncryptedValue("k1"))]
        with pytest.raises(OrchestrationFailed, match=r"ActivityError: \(encrypted\)"):
            await client.get("f").result(1)
        [why] = [event async for event in client.get("f").history() if isinstance(event, TaskFailed)]
        assert (why.failure_details.type, why.failure_details.message) == ("ValueError", "(encrypted)")
    assert SECRET.encode() not in b"".join(file.read_bytes() for file in bench.path.parent.glob("hub.db*"))


async def test_keys_change_while_an_instance_runs(bench: Bench) -> None:
    async with bench.keyed() as hub:
        await waiting(hub)
    async with bench.hub(ToyCipher("k1", "k2")) as hub:
        await hub.client.get("a").raise_event("answer", "yes")
        assert (await hub.client.get("a").result(10))[1] == "yes"
    async with bench.hub(ToyCipher("k2")) as hub:
        state = await hub.client.get("a").status()
        assert state.input == EncryptedValue("k1")
        assert state.output == [f"{SECRET}, again", "yes", "last, again"]


async def test_a_past_execution_of_an_older_key_is_not_passed_on_sealed(bench: Bench) -> None:
    @bench.app.orchestrator
    def twice(ctx: OrchestrationContext, is_last: bool) -> Orchestration[None]:
        yield from ctx.wait_for_external_event("go")
        if not is_last:
            ctx.continue_as_new(True)

    async with bench.hub(ToyCipher("k1")) as hub:
        instance = await hub.client.start(twice, False, instance_id="a")
        await until_state(instance, lambda state: state.status == "RUNNING")
    async with bench.hub(ToyCipher("k1", "k2")) as hub:
        instance = hub.client.get("a")
        first = (await instance.status()).execution_id
        await instance.raise_event("go", SECRET)
        await until_state(instance, lambda state: state.execution_id != first and state.status == "RUNNING")
    async with Client(bench.path, bench.app, cipher=ToyCipher("k2")) as client:
        with pytest.raises(SealedError, match="'k1'"):
            _ = [line async for line in client.export(["a"])]
        with pytest.raises(SealedError, match="'k1'"):
            await client.get("a").fork(execution_id=first, instance_id="f")
        assert (await client.get("a").fork(instance_id="f")).id == "f"  # its own values are of the key that is here
        assert not [line async for line in client.export(["f"]) if "$bytes" in line]
        assert [event async for event in client.get("a").history(first)]  # who looks sees what is encrypted, as ever


async def test_a_rewind_tells_no_result_of_a_child_that_it_cannot_read(bench: Bench) -> None:
    @bench.app.orchestrator
    def family(ctx: OrchestrationContext) -> Orchestration[Any]:
        tasks = [ctx.call_sub_orchestrator("listen", instance_id="c"), ctx.call_activity("reply", "bad")]
        return (yield from when_all(tasks, fail_fast=True))

    async with bench.hub(ToyCipher("k1")) as hub:
        instance = await hub.client.start(family, instance_id="a")
        with pytest.raises(OrchestrationFailed):
            await instance.result(20)
    async with bench.hub(ToyCipher("k1", "k2")) as hub:
        await hub.client.get("c").raise_event("answer", SECRET)
        assert await hub.client.get("c").result(20) == SECRET
    async with Client(bench.path, bench.app, cipher=ToyCipher("k1")) as client:
        with pytest.raises(SealedError, match="result of instance 'c' is encrypted with key 'k2'"):
            await client.get("a").rewind()
        assert (await client.get("a").status()).status == "FAILED"
