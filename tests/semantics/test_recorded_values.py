"""Values recorded in passing: what a function came to once, it comes to for ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest

from replayflow import (
    App,
    EncodeError,
    InvalidArgumentError,
    Orchestration,
    OrchestrationContext,
    OrchestratorError,
    RecordError,
    Saga,
    ValueRecorded,
)
from tests.semantics.kit import LIMIT, Place, failure_of, history, kinds, until, until_recorded


@dataclass
class Config:
    region: str
    limit: int


class Broken(Exception):
    pass


async def test_a_recorded_value_is_the_same_in_another_worker_and_its_function_is_not_called_again(
    place: Place,
) -> None:
    app, calls = App(), count(1)
    seen: list[Any] = []

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Orchestration[list[Any]]:
        number = ctx.record(lambda: next(calls))
        id = ctx.record(uuid4)
        seen.append((number, id))
        yield ctx.wait_for_external_event("go")
        later = ctx.record(lambda: next(calls), name="later")
        return [number, str(id), later]

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await until_recorded(instance, "ValueRecorded", 2)
    async with place.hub(app) as hub:
        instance = hub.client.get("i")
        await instance.raise_event("go")
        number, id, later = await instance.result(LIMIT)
        assert (number, later) == (1, 2)
        assert set(seen) == {(1, UUID(id))}
        assert len(seen) == 2
        recorded = [event for event in await history(instance) if isinstance(event, ValueRecorded)]
        assert [(event.event_id, event.name, event.value) for event in recorded] == [
            (1, "<lambda>", 1),
            (2, "uuid4", UUID(id)),
            (3, "later", 2),
        ]
        assert "test_recorded_values.py" in recorded[0].site


async def test_a_value_is_rebuilt_as_annotated_or_as_told_the_first_time_as_well_as_on_replay(place: Place) -> None:
    app = App()
    seen: list[tuple[Any, ...]] = []

    def read() -> Config:
        return Config("eu", 3)

    def given(region: str, limit: int) -> Config:
        return Config(region, limit)

    class Colour(Enum):
        RED = "red"

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Orchestration[None]:
        seen.append(
            (
                ctx.record(read),
                ctx.record(given, "us", 4),
                ctx.record(lambda: Config("ap", 5), type=Config),
                ctx.record(lambda: Config("ap", 6)),
                ctx.record(Config, "cn", 7),
                ctx.record(lambda: Colour.RED),
                ctx.record(lambda: None),
            )
        )
        yield ctx.wait_for_external_event("go")

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await until_recorded(instance, "ValueRecorded", 7)
    async with place.hub(app) as hub:
        await hub.client.get("i").raise_event("go")
        await hub.client.get("i").result(LIMIT)
    first, again = seen
    assert first == again
    assert first == (
        Config("eu", 3),
        Config("us", 4),
        Config("ap", 5),
        {"region": "ap", "limit": 6},
        Config("cn", 7),
        "red",
        None,
    )


def raises() -> int:
    raise Broken("no config")


def not_a_payload() -> object:
    return object()


async def later() -> int:
    return 1


FAILURES = [(raises, Broken), (not_a_payload, EncodeError), (lambda: later(), EncodeError)]


@pytest.mark.parametrize(("fn", "cause"), FAILURES, ids=["raises", "no payload", "awaitable"])
async def test_a_failure_is_recorded_and_raised_on_every_replay(place: Place, fn: Any, cause: type[Exception]) -> None:
    app, calls = App(), count(1)
    caught: list[str] = []

    def counted() -> Any:
        next(calls)
        return fn()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Orchestration[str]:
        with pytest.raises(RecordError) as raised:
            ctx.record(counted)
        assert raised.value.is_caused_by(cause)
        caught.append(str(raised.value))
        yield ctx.wait_for_external_event("go")
        ctx.record(counted)
        return "not reached"

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await until_recorded(instance, "ValueRecorded")
    async with place.hub(app) as hub:
        instance = hub.client.get("i")
        await instance.raise_event("go")
        details = await failure_of(instance)
        assert details.is_caused_by(cause)
        assert details.is_caused_by(RecordError)
        assert details.message.startswith("recording 'counted' at semantics/test_recorded_values.py:")
    assert len(set(caught)) == 1
    assert len(caught) == 2
    assert next(calls) == 3


async def test_what_the_function_asks_of_the_context_is_refused_and_does_not_happen(place: Place) -> None:
    app = App()

    @app.activity
    async def work(x: int) -> int:
        return x

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Orchestration[int]:
        with pytest.raises(RecordError, match=r"by the function that ctx\.record called at") as raised:
            ctx.record(lambda: ctx.call_activity(work, 1))
        assert raised.value.is_caused_by(OrchestratorError)
        yield ctx.wait_for_external_event("go")
        return (yield from ctx.call_activity(work, 2))

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await until_recorded(instance, "ValueRecorded")
    async with place.hub(app) as hub:
        instance = hub.client.get("i")
        await instance.raise_event("go")
        assert await instance.result(LIMIT) == 2
        assert (await kinds(instance)).count("TaskScheduled") == 1


def generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((5,), "takes a function and calls it; it was given 5"),
        ((later,), "'later' has to be awaited"),
        ((generator,), "'generator' has to be awaited or run through"),
    ],
)
async def test_what_is_no_plain_function_is_refused_before_anything_happens(
    place: Place, arguments: tuple[Any, ...], words: str
) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        ctx.record(*arguments)

    @app.orchestrator
    def named(ctx: OrchestrationContext) -> Any:
        ctx.record(raises, name="")

    async with place.hub(app) as hub:
        instance = await hub.client.start(main)
        details = await failure_of(instance)
        assert details.is_caused_by(InvalidArgumentError)
        assert words in details.message
        assert "ValueRecorded" not in await kinds(instance)
        assert "is no name for a recorded value" in str(await failure_of(await hub.client.start(named)))


async def test_nothing_is_recorded_after_continue_as_new(place: Place) -> None:
    app, calls = App(), count(1)

    @app.orchestrator
    def main(ctx: OrchestrationContext, round: int) -> Any:
        if round:
            return ctx.record(lambda: next(calls))
        ctx.continue_as_new(1)
        with pytest.raises(OrchestratorError, match="after continue_as_new"):
            ctx.record(lambda: next(calls))
        return None

    async with place.hub(app) as hub:
        assert await (await hub.client.start(main, 0)).result(LIMIT) == 1


@pytest.mark.parametrize("change", ["name", "kind", "gone"])
async def test_code_that_records_something_else_is_parked_and_goes_on_when_it_is_right_again(
    place: Place, change: str
) -> None:
    app, changed = App(), App()

    @app.activity
    async def work() -> int:
        return 1

    changed.activity(work)

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Orchestration[int]:
        value = ctx.record(lambda: 5, name="five")
        yield ctx.wait_for_external_event("go")
        return value

    @changed.orchestrator(name="main")
    def other(ctx: OrchestrationContext) -> Orchestration[int]:
        if change == "name":
            ctx.record(lambda: 5, name="six")
        elif change == "kind":
            ctx.call_activity(work)
        yield ctx.wait_for_external_event("go")
        return 0

    async with place.hub(app) as hub:
        instance = await hub.client.start(main, instance_id="i")
        await until_recorded(instance, "ValueRecorded")
    async with place.hub(changed) as hub:
        instance = hub.client.get("i")

        async def problem() -> str | None:
            return (await instance.status()).problem

        assert "recorded value 'five' (task 1)" in await until(problem)
    async with place.hub(app) as hub:
        await hub.client.get("i").raise_event("go")
        assert await hub.client.get("i").result(LIMIT) == 5


async def test_values_are_recorded_in_sagas_and_sub_generators_and_take_ids_like_everything_else(place: Place) -> None:
    app, calls, undone = App(), count(1), list[Any]()

    @app.activity
    async def reserve(x: int) -> int:
        return x

    @app.activity
    async def release(x: int) -> None:
        undone.append(x)

    @app.activity
    async def fails() -> None:
        raise Broken("out of stock")

    def inner(ctx: OrchestrationContext) -> Orchestration[int]:
        number = ctx.record(lambda: next(calls))
        yield from ctx.create_timer(timedelta(milliseconds=1))
        return number

    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Orchestration[list[int]]:
        first = yield from inner(ctx)
        second = third = 0

        def body(saga: Saga) -> Orchestration[None]:
            nonlocal second
            second = ctx.record(lambda: next(calls))
            yield from saga.run(reserve, release, second)
            yield from ctx.call_activity(fails)

        try:
            yield from ctx.saga(body)
        except Exception:
            third = ctx.record(lambda: next(calls))
        return [first, second, third]

    async with place.hub(app, warm_instances=1) as hub:
        instances = [await hub.client.start(main) for _ in range(3)]  # only one of them stays warm
        results = [await instance.result(LIMIT) for instance in instances]
        assert sorted(number for result in results for number in result) == list(range(1, 10))
        assert sorted(undone) == sorted(result[1] for result in results)
        decided = [event.event_id for event in await history(instances[0]) if event.event_id > 0]
        assert decided == list(range(1, len(decided) + 1))
