"""Fakes: what stands in for activities in a test, and the record of what was called.

An app is copied, never changed. Fakes run in the event loop, so that a test with them alone needs no threads.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from replayflow.core.activity_context import ActivityContext
from replayflow.core.definitions import ActivityDefinition
from replayflow.core.signatures import hints_of, parameters_of
from replayflow.errors import InvalidArgumentError
from replayflow.registry import App, own_names


@dataclass(frozen=True, slots=True)
class Call:
    """An activity that ran: its name, and the input that it was given; None where it takes none."""

    activity: str
    input: Any


def with_fakes(app: App, fakes: Mapping[Any, Any], calls: list[Call]) -> App:
    """The app with its activities replaced as `fakes` says, by function or by name; what runs is added to `calls`.

    A function takes an activity's place: it may take `()`, `(input)`, or these after an `ActivityContext`, and may be `async`. An exception, or a
    class of exceptions, is raised; anything else is the result.

    Raises:
        InvalidArgumentError: the app has no such activity.
    """
    copy = App()
    copy.include(app)
    named = {name_of(app, activity): fake for activity, fake in fakes.items()}
    for name, definition in app.activities.items():
        ran = _recorded(_faked(definition, named[name]) if name in named else definition, calls)
        copy.activities[name] = replace(ran, stands_for=definition.fn)
    return copy


def name_of(app: App, activity: Any, what: str = "fakes") -> str:
    """The name under which the app has the activity, which is given as a function or by name.

    Raises:
        InvalidArgumentError: the app has no such activity.
    """
    for name, definition in app.activities.items():
        if activity in (name, definition.fn):
            return name
    shown = activity if isinstance(activity, str) else getattr(activity, "__name__", repr(activity))
    raise InvalidArgumentError(
        f"{what}: the app has no activity {shown!r}; it has: {', '.join(own_names(app.activities)) or 'none'}"
    )


def in_turn(*outcomes: Any) -> Any:
    """A fake whose first attempt comes to the first of these, the second to the second, and every further one to the last.

    An exception, or a class of exceptions, is raised; anything else is the result. What counts is the attempt of each call, so that a crash in
    between changes nothing: `fakes={charge: in_turn(ConnectionError("down"), ConnectionError("down"), "receipt-1")}`.

    Raises:
        InvalidArgumentError: nothing was given.
    """
    if not outcomes:
        raise InvalidArgumentError("in_turn() was given nothing: say what the attempts come to, the first one first")
    return _InTurn(outcomes)


@dataclass(frozen=True, slots=True)
class _InTurn:
    outcomes: tuple[Any, ...]


def _come_to(outcome: Any) -> Any:
    if _is_error(outcome):
        raise outcome
    return outcome


def _is_error(fake: Any) -> bool:
    return isinstance(fake, BaseException) or (isinstance(fake, type) and issubclass(fake, BaseException))


def _faked(definition: ActivityDefinition, fake: Any) -> ActivityDefinition:
    if isinstance(fake, _InTurn):
        outcomes = fake.outcomes

        async def comes_in_turn(ctx: ActivityContext, *_: Any) -> Any:
            return _come_to(outcomes[min(ctx.attempt, len(outcomes)) - 1])

        return replace(definition, fn=comes_in_turn, executor="async", takes_context=True)
    if _is_error(fake) or not callable(fake):

        async def comes(*_: Any) -> Any:
            return _come_to(fake)

        return replace(definition, fn=comes, executor="async", takes_context=False)
    parameters = parameters_of(fake, definition.name, "fake")
    hints = hints_of(fake)
    takes_context = bool(parameters) and hints.get(parameters[0].name) is ActivityContext
    takes_input = len(parameters) > takes_context
    input_type = hints.get(parameters[-1].name, definition.input_type) if takes_input else definition.input_type

    async def stands_in(*arguments: Any) -> Any:
        result = fake(*arguments)
        return await result if inspect.isawaitable(result) else result

    return replace(
        definition,
        fn=stands_in,
        executor="async",
        takes_context=takes_context,
        takes_input=takes_input,
        input_type=input_type,
    )


def _recorded(definition: ActivityDefinition, calls: list[Call]) -> ActivityDefinition:
    if definition.executor == "process":
        return definition  # its function runs elsewhere, under the name that it is imported by
    fn: Callable[..., Any] = definition.fn

    def note(arguments: tuple[Any, ...]) -> None:
        calls.append(Call(definition.name, arguments[-1] if definition.takes_input else None))

    if definition.executor in ("thread", "transaction"):

        def recorded(*arguments: Any) -> Any:
            note(arguments)
            return fn(*arguments)

        return replace(definition, fn=recorded)

    async def recorded_async(*arguments: Any) -> Any:
        note(arguments)
        result: Awaitable[Any] = fn(*arguments)
        return await result

    return replace(definition, fn=recorded_async)
