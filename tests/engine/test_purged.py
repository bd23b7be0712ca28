"""The worker's memory of what is purged under it: commits that come too late are refused, and a new instance under the id is another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from replayflow import App, Client, InstanceNotFoundError, InvalidStateError, OrchestrationContext
from replayflow.core.commit import Commit
from replayflow.store.base import Operation, Outcome
from tests.engine.kit import ToldStore, audit, hub_on, until, until_empty, until_state


def app_of_waits() -> App:
    app = App()

    @app.orchestrator
    def waits(ctx: OrchestrationContext) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    return app


class Stopping(ToldStore):
    """Holds the worker's writes from the first one on that ends an instance."""

    has_stopped = False

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        outcomes = await super().write(operations, epoch)
        if epoch is not None and not self.has_stopped and any(map(ends, operations)):
            self.has_stopped = True
            self.gate.clear()
        return outcomes


def ends(operation: Operation) -> bool:
    return isinstance(operation, Commit) and operation.state is not None and operation.state.status.is_finished


async def test_an_instance_may_go_while_the_worker_still_writes_down_what_came_late_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Stopping()
    async with hub_on(store, app_of_waits()) as hub:
        other = Client(store)  # past the worker, as from another process
        instance = await hub.client.start("waits", instance_id="i")
        await until_state(instance, lambda state: state.status == "RUNNING")
        store.gate.clear()
        attempts = store.attempts
        await other.get("i").raise_event("go", 1)
        await until(lambda: store.attempts == attempts + 1, "the commit that ends it")
        await other.get("i").raise_event("go", "late")
        await until(lambda: hub._engine._residents._lives["i"].mailbox, "the late message")  # type: ignore[union-attr]
        store.gate.set()
        await until(lambda: store.attempts == attempts + 2, "the commit that writes the late message down")
        assert await other.get("i").purge() == 1
        store.gate.set()
        await until(lambda: not hub._engine._residents._lives, "nobody in memory")  # type: ignore[union-attr]
        assert "a commit of instance 'i' was not written" in caplog.text
        with pytest.raises(InstanceNotFoundError):
            await instance.status()
        again = await hub.client.start("waits", instance_id="i")
        await again.raise_event("go", 2)
        assert await again.result(10) == 2
        await until_empty(store)
        await audit(hub.client)


async def test_who_waits_is_told_of_the_end_and_not_of_the_purge() -> None:
    store = ToldStore()
    async with hub_on(store, app_of_waits()) as hub:
        other = Client(store)  # past the worker, as from another process
        for round in range(20):
            instance = await hub.client.start("waits", instance_id="i")
            waiting = instance.result(10)
            await other.get("i").raise_event("go", round)
            assert await waiting == round
            assert await other.get("i").purge() == 1


async def test_a_purge_by_the_worker_itself_is_in_order_with_its_commits() -> None:
    """What was asked for while the end is on its way is refused; after it, it is granted."""
    store = ToldStore()
    async with hub_on(store, app_of_waits()) as hub:
        instance = await hub.client.start("waits", instance_id="i")
        await until_state(instance, lambda state: state.status == "RUNNING")
        await instance.raise_event("go", 1)
        with pytest.raises(InvalidStateError):
            await instance.purge()
        await instance.wait(10)
        assert await instance.purge() == 1
        assert len(list(filter(ends, store.written))) == 1
