"""What the core has to know of an entity's code: its operations, what they take, and how its state is stored and rebuilt.

A class is looked at once, when it is registered; what is wrong with it is said there.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from replayflow.codec import Codec, Payload
from replayflow.core.entity.context import EntityContext
from replayflow.core.entity.ids import check_entity_name
from replayflow.core.signatures import check_name, hints_of, parameters_of
from replayflow.errors import EncodeError, InvalidArgumentError, RegistrationError, UnknownNameError

DELETE = "delete"
"""What every entity that is a class can do, unless it has a method of that name: its state goes."""


@dataclass(frozen=True, slots=True)
class OperationDefinition:
    """A function that performs operations: a method of an entity's class, or the function that is the entity."""

    fn: Callable[..., Any]
    takes_context: bool
    takes_input: bool
    needs_input: bool
    input_type: Any
    result_type: Any

    def arguments(self, ctx: EntityContext[Any], payload: Payload, codec: Codec) -> list[Any]:
        """What the function is called with, after the instance where it is a method.

        Raises:
            DecodeError: the input does not fit the annotation.
            InvalidArgumentError: there is an input, and the operation takes none.
        """
        arguments: list[Any] = [ctx] if self.takes_context else []
        if not self.takes_input:
            if payload is not None:
                raise InvalidArgumentError(
                    f"operation '{ctx.operation}' of entity '{ctx.entity_id}' takes no input, and one is given"
                )
        elif payload is not None or self.needs_input:
            where = f"input of operation '{ctx.operation}' of entity '{ctx.entity_id}'"
            arguments.append(codec.decode(payload, self.input_type, where))
        return arguments


@dataclass(frozen=True, slots=True)
class EntityDefinition:
    """An entity as it was registered: `fn` is the function or the class.

    `fields` are those of a plain class, whose instances the codec does not know; `record` is a dataclass that has the same.
    """

    name: str
    fn: Callable[..., Any]
    state_type: Any
    operation: OperationDefinition | None
    methods: Mapping[str, OperationDefinition]
    fields: tuple[str, ...] = ()
    record: Any = None

    @property
    def is_class(self) -> bool:
        return self.operation is None

    def find(self, operation: str) -> OperationDefinition | None:
        """What performs the operation; None for the deletion that every class has.

        Raises:
            UnknownNameError: the entity has no such operation.
        """
        found = self.operation or self.methods.get(operation)
        if found is None and operation != DELETE:
            raise UnknownNameError(
                f"entity '{self.name}' has no operation '{operation}'; it has: {', '.join(sorted({*self.methods, DELETE}))}"
            )
        return found

    def result_type_of(self, operation: str) -> Any:
        """What the operation's result is rebuilt as, where the code says so."""
        found = self.operation or self.methods.get(operation)
        return Any if found is None else found.result_type

    def encode(self, codec: Codec, state: Any, where: str) -> Payload:
        """The state as a payload.

        Raises:
            EncodeError: it cannot travel, or has a field that would be lost.
        """
        if self.record is None or type(state) is not self.fn:
            return codec.encode(state, where)
        lost = sorted(set(getattr(state, "__dict__", ())).difference(self.fields))
        if lost:
            raise EncodeError(
                f"{where}.{lost[0]}: no field of {self.fn.__qualname__} is annotated with that name, and it would be lost: "
                f"write `{lost[0]}: ...` in the class"
            )
        return codec.encode({name: getattr(state, name) for name in self.fields if hasattr(state, name)}, where)

    def decode(self, codec: Codec, payload: Payload, where: str) -> Any:
        """The state that the payload is of; a class's first one where there is none.

        Raises:
            DecodeError: it does not fit the annotations any more.
        """
        if payload is None:
            return self.fn() if self.is_class else None
        if self.record is None:
            return codec.decode(payload, self.state_type, where)
        read = codec.decode(payload, self.record, where)
        state = self.fn()
        for name in self.fields:
            value = getattr(read, name)
            if value is not _ABSENT:
                setattr(state, name, value)
        return state


_ABSENT: Any = object()


def define_entity(fn: Callable[..., Any], name: str | None) -> EntityDefinition:
    """The function or the class as an entity.

    Raises:
        RegistrationError: it cannot be one; the message says why, and what to write instead.
    """
    title = check_name(fn, name, "entity").lower()
    try:
        check_entity_name(title)
    except InvalidArgumentError as error:
        raise RegistrationError(str(error)) from None
    return _of_class(fn, title) if isinstance(fn, type) else _of_function(fn, title)


def _of_function(fn: Callable[..., Any], title: str) -> EntityDefinition:
    what = f"entity '{title}'"
    _refuse_what_waits(fn, what)
    parameters = parameters_of(fn, title, "entity")
    if not parameters or (len(parameters) > 2 and any(p.default is p.empty for p in parameters[2:])):
        raise RegistrationError(
            f"{what} takes {len(parameters)} parameters; an entity that is a function takes (ctx) or (ctx, input)"
        )
    hints = hints_of(fn)
    first = hints.get(parameters[0].name, Any)
    if first is not Any and not _is_context(first):
        raise RegistrationError(f"{what}: its first parameter is annotated {first!r}; it gets the EntityContext")
    # What the operations have in common: an input without a default may be missing where one of them takes none.
    rest = parameters[1:]
    operation = OperationDefinition(
        fn=fn,
        takes_context=True,
        takes_input=bool(rest),
        needs_input=bool(rest) and rest[0].default is rest[0].empty,
        input_type=hints.get(rest[0].name, Any) if rest else Any,
        result_type=hints.get("return", Any),
    )
    return EntityDefinition(title, fn, (typing.get_args(first) or (Any,))[0], operation, {})


def _of_class(cls: type, title: str) -> EntityDefinition:
    what = f"entity '{title}'"
    methods = {name: _method(fn, name, what, cls) for name, fn in _public_functions(cls).items()}
    if not methods:
        raise RegistrationError(f"{what}: {cls.__qualname__} has no public method, and so no operation")
    try:
        inspect.signature(cls).bind()
    except TypeError as error:
        raise RegistrationError(
            f"{what}: {cls.__qualname__}() has to make the first state, and cannot ({error}): give each field a default"
        ) from None
    except ValueError:
        pass  # a class whose signature cannot be read says so when it is made
    if dataclasses.is_dataclass(cls) or hasattr(cls, "model_fields"):
        return EntityDefinition(title, cls, cls, None, methods)
    hints = {name: hint for name, hint in hints_of(cls).items() if typing.get_origin(hint) is not typing.ClassVar}
    record = dataclasses.make_dataclass(
        cls.__name__, [(name, hint, dataclasses.field(default=_ABSENT)) for name, hint in hints.items()]
    )
    return EntityDefinition(title, cls, cls, None, methods, tuple(hints), record)


def _public_functions(cls: type) -> dict[str, FunctionType]:
    """The functions that the class and its bases define, but for those of the libraries that made it a model."""
    found: dict[str, FunctionType] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] != "pydantic":
            found.update({n: f for n, f in vars(base).items() if isinstance(f, FunctionType) and n[0] != "_"})
    return found


def _method(fn: FunctionType, name: str, what: str, cls: type) -> OperationDefinition:
    _refuse_what_waits(fn, f"operation '{name}' of {what}")
    parameters = parameters_of(fn, name, f"{what}: operation")[1:]
    hints = hints_of(fn, {cls.__name__: cls})  # its module does not have the class yet
    takes_context = bool(parameters) and _is_context(hints.get(parameters[0].name))
    rest = parameters[1:] if takes_context else parameters
    if any(p.default is p.empty for p in rest[1:]):
        raise RegistrationError(
            f"operation '{name}' of {what} takes {len(rest)} inputs; it takes (self), (self, input), or these with an EntityContext "
            "after self: pass several values as a dataclass, a tuple or a dict"
        )
    return OperationDefinition(
        fn=fn,
        takes_context=takes_context,
        takes_input=bool(rest),
        needs_input=bool(rest) and rest[0].default is rest[0].empty,
        input_type=hints.get(rest[0].name, Any) if rest else Any,
        result_type=hints.get("return", Any),
    )


def _refuse_what_waits(fn: Callable[..., Any], what: str) -> None:
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise RegistrationError(
            f"{what} is `async def`: operations of entities are plain functions, which nobody has to wait for; "
            "what has to await belongs in an activity, of an orchestration that the operation starts"
        )
    if inspect.isgeneratorfunction(fn):
        raise RegistrationError(f"{what} is a generator function: an operation returns its result")


def _is_context(annotation: Any) -> bool:
    return annotation is EntityContext or typing.get_origin(annotation) is EntityContext
