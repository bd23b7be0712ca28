"""A batch: many started by one call are what they would be if each had been started alone, and one call waits for all of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    EncodeError,
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    Orchestration,
    OrchestrationContext,
    OrchestrationFailed,
    OrchestrationTerminated,
    ReplayflowError,
    SqliteStore,
    UnknownNameError,
)
from replayflow.client import access
from tests.semantics.kit import LIMIT, Place, kinds


def app_of_batches() -> App:
    app = App()

    @app.activity
    async def double(n: int) -> int:
        return 2 * n

    @app.orchestrator
    def doubles(ctx: OrchestrationContext, n: int) -> Orchestration[int]:
        if n < 0:
            raise ValueError(f"{n} is less than 0")
        doubled: int = yield ctx.call_activity(double, n)
        return doubled

    @app.orchestrator
    def waits(ctx: OrchestrationContext, n: int) -> Orchestration[int]:
        more: int = yield ctx.wait_for_external_event("go")
        return n + more

    return app


@pytest.fixture(autouse=True)
def small_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_READ_TOGETHER", 3)


async def ids_in(client: Client) -> set[str]:
    return {state.id async for state in client.list()}


async def test_each_input_has_its_instance_and_each_instance_its_result(place: Place) -> None:
    async with place.hub(app_of_batches()) as hub:
        instances = await hub.client.start_many("doubles", range(450), tags={"batch": "b"})
        assert len({instance.id for instance in instances}) == 450
        assert await hub.client.results(instances, timeout=LIMIT) == [2 * n for n in range(450)]
        assert await hub.client.count(tags={"batch": "b"}) == {"total": 450}
        alone = await hub.client.start("doubles", 1)
        await alone.result(LIMIT)
        assert await kinds(instances[1]) == await kinds(alone)


async def test_an_empty_batch_is_a_batch(place: Place) -> None:
    async with place.hub(app_of_batches()) as hub:
        assert await hub.client.start_many("doubles", [], instance_ids=[]) == []
        assert await hub.client.results([]) == []


async def test_the_same_call_again_starts_those_that_are_missing(place: Place) -> None:
    ids = [f"order-{n}" for n in range(10)]
    async with place.hub(app_of_batches()) as hub:
        await hub.client.start_many("doubles", range(4), instance_ids=ids[:4])
    async with place.hub(app_of_batches()) as hub:
        batch = await hub.client.start_many("doubles", range(10), instance_ids=ids, on_existing="return")
        assert [instance.id for instance in batch] == ids
        assert await hub.client.results(batch, timeout=LIMIT) == [2 * n for n in range(10)]
        assert [(await kinds(one)).count("TaskScheduled") for one in batch] == [1] * 10


async def test_an_id_that_is_taken_keeps_none_of_the_others_from_starting(place: Place) -> None:
    async with place.hub(app_of_batches()) as hub:
        await hub.client.start_many("waits", [0, 1], instance_ids=["b", "d"])
        with pytest.raises(InstanceExistsError, match="'b'") as refused:
            await hub.client.start_many("doubles", range(5), instance_ids=["a", "b", "c", "d", "e"])
        assert refused.value.__notes__ == ["2 of 5 were not started"]
        started = [hub.client.get(id) for id in "ace"]
        assert await hub.client.results(started, timeout=LIMIT) == [0, 4, 8]


async def test_an_event_reaches_each_of_a_batch(place: Place) -> None:
    async with place.hub(app_of_batches()) as hub:
        batch = await hub.client.start_many("waits", range(230))
        await hub.client.raise_event_to_many(batch, "Go", 1_000)
        assert await hub.client.results(batch, timeout=LIMIT) == [n + 1_000 for n in range(230)]
        await hub.client.raise_event_to_many([], "go")


async def test_an_event_reaches_those_of_a_batch_that_a_former_worker_left(place: Place) -> None:
    async with place.hub(app_of_batches()) as hub:
        ids = [one.id for one in await hub.client.start_many("waits", range(30))]
    async with place.hub(app_of_batches()) as hub:
        batch = [hub.client.get(id) for id in ids]
        await hub.client.raise_event_to_many(batch, "go", 7)
        assert await hub.client.results(batch, timeout=LIMIT) == [n + 7 for n in range(30)]


async def test_one_that_takes_no_event_keeps_none_of_the_others_from_it(place: Place) -> None:
    async with place.hub(app_of_batches()) as hub:
        first, ended, last = await hub.client.start_many("waits", [1, 2, 3], instance_ids=["f", "e", "l"])
        await ended.terminate("enough")
        await ended.wait(LIMIT)
        with pytest.raises(InstanceFinishedError, match="'e'") as refused:
            await hub.client.raise_event_to_many([first, ended, hub.client.get("nobody"), last], "go", 10)
        assert refused.value.__notes__ == ["2 of 4 did not take the event"]
        assert await hub.client.results([first, last], timeout=LIMIT) == [11, 13]


async def test_with_a_dedupe_key_the_same_call_again_reaches_those_that_it_has_not(place: Place) -> None:
    async with place.hub(app_of_batches()) as hub:
        one, two = await hub.client.start_many("waits", [1, 2])
        await hub.client.raise_event_to_many([one], "go", 10, dedupe_key="k")
        await hub.client.raise_event_to_many([one, two], "go", 10, dedupe_key="k")
        assert await hub.client.results([one, two], timeout=LIMIT) == [11, 12]
        assert (await kinds(one)).count("EventRaised") == 1


@pytest.mark.parametrize(
    ("event", "error"),
    [(("go", object()), EncodeError), (("", 1), InvalidArgumentError), ((3, 1), InvalidArgumentError)],
)
async def test_an_event_that_is_none_reaches_nobody(
    place: Place, event: tuple[Any, Any], error: type[Exception]
) -> None:
    async with place.hub(app_of_batches()) as hub:
        batch = await hub.client.start_many("waits", [1, 2])
        with pytest.raises(error):
            await hub.client.raise_event_to_many(batch, *event)
        assert not [one.id for one in batch if "EventRaised" in await kinds(one)]
        with pytest.raises(InvalidArgumentError, match="@counter@c"):
            await hub.client.raise_event_to_many([*batch, hub.client.get("@counter@c")], "go")
        assert not [one.id for one in batch if "EventRaised" in await kinds(one)]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"inputs": [1, object(), 3]}, EncodeError),
        ({"inputs": [1, 2], "instance_ids": ["a"]}, InvalidArgumentError),
        ({"inputs": [1, 2], "instance_ids": ["a", "a"]}, InvalidArgumentError),
        ({"inputs": [1, 2], "instance_ids": ["a", ""]}, InvalidArgumentError),
        ({"inputs": [1, 2], "instance_ids": ["a", 2]}, InvalidArgumentError),
        ({"inputs": [1, 2], "on_existing": "ignore"}, InvalidArgumentError),
        ({"inputs": [1, 2], "tags": {"a": 1}}, InvalidArgumentError),
        ({"inputs": [1, 2], "orchestrator": "doubled"}, UnknownNameError),
    ],
)
async def test_what_is_wrong_with_one_starts_none(place: Place, wrong: dict[str, Any], error: type[Exception]) -> None:
    async with place.hub(app_of_batches()) as hub:
        with pytest.raises(error):
            await hub.client.start_many(**{"orchestrator": "doubles", **wrong})
        assert await ids_in(hub.client) == set()


async def test_of_those_that_do_not_complete_the_first_is_told_of(place: Place) -> None:
    async with place.hub(app_of_batches()) as hub:
        batch = await hub.client.start_many("doubles", [1, -2, 3, -4])
        with pytest.raises(OrchestrationFailed, match="-2 is less than 0"):
            await hub.client.results(batch, timeout=LIMIT)
        [waiting] = await hub.client.start_many("waits", [5])
        await waiting.terminate("enough")
        one, two, three, four, five = await hub.client.results([*batch, waiting], timeout=LIMIT, return_exceptions=True)
        assert (one, three) == (2, 6)
        assert isinstance(two, OrchestrationFailed)
        assert isinstance(four, OrchestrationFailed)
        assert "-4 is less than 0" in str(four)
        assert isinstance(five, OrchestrationTerminated)


async def test_whoever_has_not_finished_in_time_is_named_and_goes_on(place: Place) -> None:
    async with place.hub(app_of_batches()) as hub:
        waiting = await hub.client.start_many("waits", [1, 2], instance_ids=["x", "y"])
        with pytest.raises(TimeoutError, match="number 1, 'x'; they go on"):
            await hub.client.results(waiting, timeout=timedelta(milliseconds=1))
        for instance in waiting:
            await instance.raise_event("go", 10)
        assert await hub.client.results(waiting, timeout=LIMIT) == [11, 12]


async def test_a_result_is_had_as_often_as_it_is_asked_for(place: Place) -> None:
    async with place.hub(app_of_batches()) as hub:
        batch = await hub.client.start_many("doubles", [1, 2])
        assert await hub.client.results([*batch, *batch], timeout=LIMIT) == [2, 4, 2, 4]
    async with place.hub(app_of_batches()) as hub:
        again = [hub.client.get(instance.id) for instance in batch]
        assert await hub.client.results([*again, *again], timeout=LIMIT) == [2, 4, 2, 4]


async def test_what_has_no_result_is_refused(place: Place) -> None:
    async with place.hub(app_of_batches()) as hub:
        batch = await hub.client.start_many("doubles", [1])
        with pytest.raises(InstanceNotFoundError, match="nobody"):
            await hub.client.results([*batch, hub.client.get("nobody")], timeout=LIMIT)
        with pytest.raises(InvalidArgumentError, match="entity"):
            await hub.client.results([*batch, hub.client.get("@account@a")], timeout=LIMIT)


async def test_a_client_in_another_place_starts_a_batch_and_has_its_results(place: Place) -> None:
    if place.is_memory:
        pytest.skip("a client in memory has no file to write to")
    async with place.hub(app_of_batches()) as hub, Client(SqliteStore(place.path)) as client:
        batch = await client.start_many("doubles", range(20))
        assert await client.results(batch, timeout=LIMIT) == [2 * n for n in range(20)]
        assert await ids_in(hub.client) == {instance.id for instance in batch}


async def test_who_is_still_in_line_when_the_hub_closes_is_told_so(place: Place) -> None:
    async with place.hub(app_of_batches()) as hub:
        starting = asyncio.create_task(hub.client.start_many("doubles", range(1_000)))
        await asyncio.sleep(0)
    try:
        async with asyncio.timeout(LIMIT):
            started = {instance.id for instance in await starting}
    except ReplayflowError:
        started = set()
    async with place.hub(app_of_batches()) as hub:
        found = await ids_in(hub.client)
        assert started <= found
        await hub.client.results([hub.client.get(id) for id in found], timeout=LIMIT)
