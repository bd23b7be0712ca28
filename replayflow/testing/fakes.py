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
    named = {_name_of(app, activity): fake for activity, fake in fakes.items()}
    for name, definition in app.activities.items():
        ran = _recorded(_faked(definition, named[name]) if name in named else definition, calls)
        copy.activities[name] = replace(ran, stands_for=definition.fn)
    return copy


def _name_of(app: App, activity: Any) -> str:
    for name, definition in app.activities.items():
        if activity in (name, definition.fn):
            return name
    shown = activity if isinstance(activity, str) else getattr(activity, "__name__", repr(activity))
    raise InvalidArgumentError(
        f"fakes: the app has no activity {shown!r}; it has: {', '.join(own_names(app.activities)) or 'none'}"
    )


def _faked(definition: ActivityDefinition, fake: Any) -> ActivityDefinition:
    if isinstance(fake, BaseException) or (isinstance(fake, type) and issubclass(fake, BaseException)):

        async def fails() -> Any:
            raise fake

        return replace(definition, fn=fails, executor="async", takes_context=False, takes_input=False)
    if not callable(fake):

        async def gives() -> Any:
            return fake

        return replace(definition, fn=gives, executor="async", takes_context=False, takes_input=False)
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
