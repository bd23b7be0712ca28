"""The registry: what can be registered, and what is said of what cannot."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Generator
from datetime import timedelta
from typing import Any, TypedDict

import pytest

from replayflow import ActivityContext, App, Orchestration, OrchestrationContext, RetryPolicy
from replayflow.errors import RegistrationError, UnknownNameError
from replayflow.registry import app_of


class Order(TypedDict):
    id: str


def nothing() -> None: ...
def one(order: Order) -> list[Order]:
    return [order]


def context_alone(ctx: ActivityContext) -> None: ...
def context_and_input(ctx: ActivityContext, order: Order) -> None: ...
async def asynchronous(order: Order) -> int:
    return 1


def defaulted(order: Order, more: int = 3, *, keyword: int = 4) -> None: ...


@pytest.mark.parametrize(
    ("fn", "executor", "takes_context", "takes_input", "input_type", "result_type"),
    [
        (nothing, "thread", False, False, Any, type(None)),
        (one, "thread", False, True, Order, list[Order]),
        (context_alone, "thread", True, False, Any, type(None)),
        (context_and_input, "thread", True, True, Order, type(None)),
        (asynchronous, "async", False, True, Order, int),
        (defaulted, "thread", False, True, Order, type(None)),
    ],
)
def test_an_activity_is_known_by_what_it_takes_and_returns(
    fn: Any, executor: str, takes_context: bool, takes_input: bool, input_type: Any, result_type: Any
) -> None:
    app = App()
    assert app.activity(fn) is fn
    definition = app.activities[fn.__name__]
    assert (definition.executor, definition.takes_context, definition.takes_input) == (
        executor,
        takes_context,
        takes_input,
    )
    assert (definition.input_type, definition.result_type) == (input_type, result_type)


async def agen(ctx: OrchestrationContext) -> AsyncIterator[int]:
    yield 1


async def coroutine(ctx: OrchestrationContext) -> None: ...
def generator(ctx: OrchestrationContext) -> Any:
    yield


def two(x: int, y: int) -> None: ...
def star(*args: int) -> None: ...
def double_star(**options: int) -> None: ...
def keyword_only(x: int, *, y: int) -> None: ...


@pytest.mark.parametrize(
    ("register", "words"),
    [
        (lambda app: app.activity(generator), "generator function"),
        (lambda app: app.activity(agen), "generator function"),
        (lambda app: app.activity(two), "takes 2 inputs"),
        (lambda app: app.activity(star), "name the parameter"),
        (lambda app: app.activity(double_star), "name the parameter"),
        (lambda app: app.activity(keyword_only), "keyword 'y'"),
        (lambda app: app.activity(lambda: None), "lambda"),
        (lambda app: app.activity("reserve"), "which is no function"),
        (lambda app: app.activity(name="")(one), "no name"),
        (lambda app: app.activity(name="a\nb")(one), "no name"),
        (lambda app: app.activity(name="x" * 257)(one), "no name"),
        (lambda app: app.activity(name=5)(one), "no name"),
        (lambda app: app.activity(timeout=timedelta(0))(one), "timeout"),
        (lambda app: app.activity(executor="thread")(asynchronous), "event loop"),
        (lambda app: app.activity(executor="async")(one), "thread or a process"),
        (lambda app: app.activity(executor="fiber")(one), "'thread', 'process' or 'async'"),
        (lambda app: app.activity(timeout=5)(one), "timeout is 5; it is a timedelta"),
        (lambda app: app.activity(heartbeat_timeout=timedelta(0))(context_alone), "heartbeat_timeout is 0:00:00"),
        (lambda app: app.activity(heartbeat_timeout=timedelta(1))(one), "no way to beat"),
        (lambda app: app.activity(concurrency=0)(one), "concurrency is 0"),
        (lambda app: app.activity(concurrency=True)(one), "concurrency is True"),
        (lambda app: app.activity(concurrency=1.5)(one), "concurrency is 1.5"),
        (lambda app: app.activity(rate="10/s")(one), r"rate is '10/s'; it is a Rate, such as Rate\(10\)"),
        (lambda app: app.activity(concurrency=1, key="customer")(one), "key is 'customer'"),
        (lambda app: app.activity(concurrency=1, key=asynchronous)(one), "plain function of the activity's input"),
        (lambda app: app.activity(quota=3)(one), "quota is 3; it is a Quota"),
        (lambda app: app.activity(key=len)(one), "nothing that is counted by it"),
        (lambda app: app.activity(concurrency=1, key=len)(nothing), "no input that the key could be of"),
        (lambda app: app.orchestrator(coroutine), "`yield` where you would await"),
        (lambda app: app.orchestrator(agen), "`yield` where you would await"),
        (lambda app: app.orchestrator(nothing), "takes 0 parameters"),
        (lambda app: app.orchestrator(star), "name the parameter"),
        (lambda app: app.orchestrator(one), "first parameter is annotated"),
        (lambda app: app.orchestrator(lambda _: None), "lambda"),
        (lambda app: app.orchestrator(5), "which is no function"),
    ],
)
def test_what_cannot_be_registered_is_refused_with_the_fix(register: Callable[[App], object], words: str) -> None:
    app = App()
    with pytest.raises(RegistrationError, match=words):
        register(app)
    assert not app.activities
    assert not app.orchestrators


def test_an_activity_for_a_process_has_to_be_importable() -> None:
    def local() -> None: ...

    with pytest.raises(RegistrationError, match="importable"):
        App().activity(executor="process")(local)


def test_names_and_defaults_are_those_that_were_given() -> None:
    app, retry = App(), RetryPolicy(max_attempts=2)
    app.activity(name="charge", retry=retry, timeout=timedelta(1), executor="process")(one)
    app.orchestrator(name="main", version="2")(generator)
    definition = app.activities["charge"]
    assert (definition.retry, definition.timeout, definition.executor) == (retry, timedelta(1), "process")
    assert app.orchestrators["main"].version == "2"


def test_a_lambda_can_be_registered_under_a_name() -> None:
    app = App()
    app.activity(name="nothing")(lambda: None)
    assert "nothing" in app.activities


def test_a_name_is_taken_once_but_the_same_function_may_come_again() -> None:
    app = App()
    app.activity(one)
    app.activity(one)
    with pytest.raises(RegistrationError, match=r"taken by tests.test_registry.one; register .*nothing under another"):
        app.activity(name="one")(nothing)
    app.orchestrator(name="one")(generator)
    assert app.activities["one"].fn is one, "activities and orchestrators have names of their own"


def test_a_bound_method_is_the_same_function_each_time() -> None:
    class Shop:
        def reserve(self, sku: str) -> str:
            return sku

        def order(self, ctx: OrchestrationContext) -> Any:
            yield

    shop, app = Shop(), App()
    app.activity(shop.reserve)
    app.activity(shop.reserve)
    app.orchestrator(shop.order)
    assert app.orchestrator_named(shop.order).name == "order"
    with pytest.raises(RegistrationError, match="taken"):
        app.activity(Shop().reserve)


def test_what_is_included_is_registered_too_all_of_it_or_nothing() -> None:
    mine, theirs = App(), App()
    theirs.activity(one)
    theirs.orchestrator(generator)
    mine.include(theirs)
    mine.include(theirs)
    mine.include(mine)
    assert mine.activities == theirs.activities
    assert mine.orchestrators == theirs.orchestrators
    other = App()
    other.activity(nothing)
    other.activity(name="one")(asynchronous)
    with pytest.raises(RegistrationError, match="taken"):
        mine.include(other)
    assert "nothing" not in mine.activities


def test_an_unknown_orchestrator_is_told_with_the_names_that_there_are() -> None:
    app = App()
    with pytest.raises(UnknownNameError, match="it has: none"):
        app.orchestrator_named("x")
    app.orchestrator(generator)
    assert app.orchestrator_named(generator) is app.orchestrator_named("generator")
    with pytest.raises(UnknownNameError, match=r"'coroutine'.*it has: generator"):
        app.orchestrator_named(coroutine)


def test_a_function_knows_the_app_that_it_was_first_registered_with() -> None:
    def mine(ctx: OrchestrationContext) -> Any:
        yield

    first, second = App(), App()
    first.orchestrator(mine)
    second.orchestrator(mine)
    assert app_of(mine) is first
    assert app_of(functools.partial(mine)) is None


def typed(ctx: OrchestrationContext, order: Order) -> Orchestration[list[Order]]:
    yield  # type: ignore[misc]
    return [order]


def generic(ctx: OrchestrationContext) -> Generator[Any, Any, int]:
    yield
    return 1


def plain(ctx: OrchestrationContext) -> int:
    return 1


def unannotated(ctx, order):  # type: ignore[no-untyped-def]
    yield


@pytest.mark.parametrize(
    ("fn", "takes_input", "input_type", "result_type"),
    [
        (typed, True, Order, list[Order]),
        (generic, False, Any, int),
        (plain, False, Any, int),
        (unannotated, True, Any, Any),
        (generator, False, Any, Any),
    ],
)
def test_an_orchestrator_is_known_by_what_it_takes_and_returns(
    fn: Any, takes_input: bool, input_type: Any, result_type: Any
) -> None:
    app = App()
    app.orchestrator(fn)
    definition = app.orchestrators[fn.__name__]
    assert (definition.takes_input, definition.input_type, definition.result_type) == (
        takes_input,
        input_type,
        result_type,
    )


def test_an_annotation_that_cannot_be_resolved_spoils_no_other() -> None:
    def half(order: Order, more: Missing = None) -> int:  # type: ignore[name-defined] # noqa: F821
        return 1

    app = App()
    app.activity(half)
    assert app.activities["half"].input_type is Order
    assert app.activities["half"].result_type is int
