"""What can be registered as an entity, and what is said of what cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from replayflow import App, EntityContext, OrchestrationContext
from replayflow.errors import RegistrationError, UnknownNameError


def function(ctx: EntityContext[int], amount: int = 0) -> str:
    return ""


def unannotated(ctx, amount):  # type: ignore[no-untyped-def]
    return amount


@dataclass
class Base:
    total: int = 0

    def add(self, n: int) -> int:
        return n


@dataclass
class Derived(Base):
    limit: ClassVar[int] = 5

    def reset(self, ctx: EntityContext[Derived]) -> None: ...
    def _private(self) -> None: ...
    @property
    def double(self) -> int:
        return 0

    @staticmethod
    def static() -> None: ...


class Plain:
    limit: ClassVar[int] = 5
    total: int
    names: list[str]

    def add(self, n: int = 1) -> None: ...


def test_a_function_is_known_by_what_it_takes() -> None:
    app = App()
    assert app.entity(function) is function
    definition = app.entities["function"]
    assert (definition.state_type, definition.result_type_of("any")) == (int, str)
    assert definition.operation is not None
    assert (definition.operation.takes_input, definition.operation.needs_input) == (True, False)
    app.entity(name="Other")(unannotated)
    assert app.entities["other"].state_type is Any


def test_the_public_methods_of_a_class_are_its_operations() -> None:
    app = App()
    assert app.entity(Derived) is Derived
    methods = app.entities["derived"].methods
    assert {n: (m.takes_context, m.takes_input, m.input_type) for n, m in methods.items()} == {
        "add": (False, True, int),
        "reset": (True, False, Any),
    }
    app.entity(Plain)
    assert app.entities["plain"].fields == ("total", "names")
    assert not app.entities["plain"].methods["add"].needs_input


async def asynchronous(ctx: EntityContext[int]) -> None: ...
def generator(ctx: EntityContext[int]) -> Iterator[int]:
    yield 1


def nothing() -> None: ...
def three(ctx: EntityContext[int], a: int, b: int) -> None: ...
def other(ctx: OrchestrationContext) -> None: ...


@dataclass
class NeedsMore:
    total: int

    def add(self) -> None: ...


@dataclass
class Idle:
    total: int = 0


@dataclass
class Asynchronous:
    total: int = 0
    seen: list[int] = field(default_factory=list)

    async def add(self) -> None: ...


@dataclass
class Greedy:
    total: int = 0

    def add(self, a: int, b: int) -> None: ...


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (asynchronous, "entity 'asynchronous' is `async def`"),
        (generator, "is a generator function: an operation returns its result"),
        (nothing, "takes 0 parameters; an entity that is a function takes"),
        (three, "takes 3 parameters"),
        (other, "it gets the EntityContext"),
        (NeedsMore, "give each field a default"),
        (Idle, "has no public method"),
        (Asynchronous, "operation 'add' of entity 'asynchronous' is `async def`"),
        (Greedy, "operation 'add' of entity 'greedy' takes 2 inputs"),
        (5, "which is no function"),
        (lambda _: None, "a lambda has no name"),
    ],
)
def test_what_cannot_be_an_entity_is_refused_with_the_fix(thing: Any, said: str) -> None:
    app = App()
    with pytest.raises(RegistrationError, match=r".*") as refused:
        app.entity(thing)
    assert said in str(refused.value)
    assert app.entities == {}


@pytest.mark.parametrize("name", ["", "a@b", "a/b", "a\n", "#", 5])
def test_names_that_ids_cannot_have_are_refused(name: Any) -> None:
    with pytest.raises(RegistrationError):
        App().entity(name=name)(function)


def test_names_are_taken_once_whatever_their_case() -> None:
    app = App()
    app.entity(name="Count")(function)
    app.entity(name="count")(function)
    with pytest.raises(RegistrationError, match="the entity name 'count' is taken by"):
        app.entity(name="COUNT")(Plain)
    more = App()
    more.entity(name="count")(Plain)
    more.entity(name="more")(Plain)
    with pytest.raises(RegistrationError, match="taken"):
        app.include(more)
    assert sorted(app.entities) == ["count"]
    assert app.entity_named("COUNT").fn is function
    with pytest.raises(UnknownNameError, match="no entity 'more' is registered with this app; it has: count"):
        app.entity_named("more")


def test_no_orchestrator_can_be_taken_for_an_entity() -> None:
    def orchestrator(ctx: OrchestrationContext) -> None: ...

    with pytest.raises(RegistrationError, match="begin with '@'"):
        App().orchestrator(name="@count")(orchestrator)
