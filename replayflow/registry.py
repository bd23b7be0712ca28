"""The registry: names to functions. An `App` is what a worker serves and a client checks names against.

A function is looked at once, when it is registered: what it takes, what it returns, whether it can be what it is registered as. What is
wrong with it is said there, and not when an instance runs into it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Hashable, Iterable
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, overload

from replayflow.core.activity_context import ActivityContext
from replayflow.core.context import OrchestrationContext
from replayflow.core.definitions import ActivityDefinition, Executor, OrchestratorDefinition, Orchestrators
from replayflow.core.entity.definition import EntityDefinition, define_entity
from replayflow.core.ids import is_unicode, plain
from replayflow.core.limiter import Quota, Rate, check_limits
from replayflow.core.signatures import OWN_PREFIX, check_name, hints_of, parameters_of
from replayflow.core.transaction import Transaction
from replayflow.errors import InvalidArgumentError, RegistrationError, UnknownNameError
from replayflow.retry import RetryPolicy

F = TypeVar("F", bound=Callable[..., Any])
APP_ATTRIBUTE = "__replayflow_app__"
TRANSACTION_MAX = timedelta(seconds=10)


class App:
    """The orchestrators, activities and entities of a program, by name."""

    def __init__(self) -> None:
        self.activities: dict[str, ActivityDefinition] = {}
        self.orchestrators = Orchestrators()
        self.entities: dict[str, EntityDefinition] = {}

    @overload
    def activity(self, fn: F) -> F: ...
    @overload
    def activity(
        self,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        executor: Executor | None = None,
        heartbeat_timeout: timedelta | None = None,
        concurrency: int | None = None,
        rate: Rate | None = None,
        key: Callable[[Any], Hashable] | None = None,
        quota: Quota | None = None,
        transactional: bool = False,
    ) -> Callable[[F], F]: ...

    def activity(
        self,
        fn: Any = None,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        executor: Executor | None = None,
        heartbeat_timeout: timedelta | None = None,
        concurrency: int | None = None,
        rate: Rate | None = None,
        key: Callable[[Any], Hashable] | None = None,
        quota: Quota | None = None,
        transactional: bool = False,
    ) -> Any:
        """Registers a function as an activity, under its own name or `name`; returns the function as it is.

        An `async def` runs in the event loop, a plain function in a thread, and with `executor="process"` in a process of its own pool (it has to be
        importable by its module and name then). `retry` and `timeout` (of one attempt) are the defaults of its calls. An attempt that gives no
        heartbeat for longer than `heartbeat_timeout` has failed as by its timeout.

        At most `concurrency` of it are at work at one time, and at most `rate` begin; others wait, first come, first served. With `key`, a short
        function of the input, both hold for each key by itself, and no key waits for another: `concurrency=1, key=lambda order: order.customer`.
        A `quota` is shared by all activities that are given the same one, and by all keys. The limits hold for the hub, for calls and maps alike, and
        over a restart: a rate counts as used up until a period of it has passed.

        With `transactional=True` a plain function, whose first parameter is annotated `Transaction`, runs inside one transaction of the hub's own
        database: what it writes into tables of the program's own and its result become durable together, exactly once. While it runs the hub
        can write nothing else; its `timeout` is a second unless another is given, of ten at the most.

        Raises:
            RegistrationError: the function cannot be an activity, the name is taken, or a limit is none.
        """
        options = _ActivityOptions(name, retry, timeout, executor, heartbeat_timeout, concurrency, rate, key, quota)

        def register(fn: F) -> F:
            definition = _activity(fn, options._replace(executor=_executor(fn, executor, transactional)))
            self._add(self.activities, definition, "activity")
            return fn

        return register if fn is None else register(fn)

    @overload
    def orchestrator(self, fn: F) -> F: ...
    @overload
    def orchestrator(self, *, name: str | None = None, version: str | None = None) -> Callable[[F], F]: ...

    def orchestrator(self, fn: Any = None, *, name: str | None = None, version: str | None = None) -> Any:
        """Registers a generator function as an orchestrator, under its own name or `name`; returns the function as it is.

        A plain function is an orchestrator that ends in its first episode. Several versions of a name stand side by side: an instance
        runs the code of its own version, else the one without a version. A start by name has the newest, unless it says which.

        Raises:
            RegistrationError: the function cannot be an orchestrator, or the name is taken in this version.
        """

        def register(fn: F) -> F:
            definition = _orchestrator(fn, name, version)
            _refuse_another(self.orchestrators, definition)
            self.orchestrators.add(definition)
            self._sign(fn)
            return fn

        return register if fn is None else register(fn)

    @overload
    def entity(self, fn: F) -> F: ...
    @overload
    def entity(self, *, name: str | None = None) -> Callable[[F], F]: ...

    def entity(self, fn: Any = None, *, name: str | None = None) -> Any:
        """Registers a function or a class as an entity, under its own name or `name`, in lower case; returns it as it is.

        A function takes `(ctx)` or `(ctx, input)` with an `EntityContext`, and is called for every operation: `ctx.operation` says which. Of a class,
        each public method is an operation, `()` or `(input)` after an optional `EntityContext`; its state is the instance's fields: a dataclass, a
        pydantic model, or a class whose fields are annotated. It is made without arguments where there is no state yet. Operations run in the
        event loop and are plain functions: short, without I/O.

        Raises:
            RegistrationError: it cannot be an entity, or the name is taken.
        """

        def register(fn: F) -> F:
            self._add(self.entities, define_entity(fn, name), "entity")
            return fn

        return register if fn is None else register(fn)

    def include(self, other: App) -> None:
        """All that the other app has is registered here, too.

        Raises:
            RegistrationError: a name is taken by another function; nothing was included.
        """
        for orchestrator in other.orchestrators.every():
            _refuse_another(self.orchestrators, orchestrator)
        for mine, theirs, what in (
            (self.activities, other.activities, "activity"),
            (self.entities, other.entities, "entity"),
        ):
            for name, definition in theirs.items():
                present = typing.cast("dict[str, Any]", mine).get(name)
                if present is not None and present.fn != definition.fn:
                    raise RegistrationError(_taken(what, name, present.fn, definition.fn))
        self.activities.update(other.activities)
        for orchestrator in other.orchestrators.every():
            self.orchestrators.add(orchestrator)
        self.entities.update(other.entities)

    def orchestrator_named(self, called: Callable[..., Any] | str) -> OrchestratorDefinition:
        """The orchestrator with the name, or made of the function; of several versions the newest.

        Raises:
            UnknownNameError: there is none; the message lists the names that there are.
        """
        orchestrators = self.orchestrators
        definition = orchestrators.get(called) if isinstance(called, str) else orchestrators.of_function(called)
        if definition is None:
            wanted = called if isinstance(called, str) else getattr(called, "__name__", repr(called))
            raise UnknownNameError(
                f"no orchestrator '{wanted}' is registered with this app; it has: {', '.join(own_names(self.orchestrators)) or 'none'}"
            )
        return definition

    def entity_named(self, name: str) -> EntityDefinition:
        """The entity with the name, whose case does not matter.

        Raises:
            UnknownNameError: there is none; the message lists the names that there are.
        """
        definition = self.entities.get(name.lower())
        if definition is None:
            raise UnknownNameError(
                f"no entity '{name.lower()}' is registered with this app; it has: {', '.join(sorted(self.entities)) or 'none'}"
            )
        return definition

    def _add(self, there: Any, definition: Any, what: str) -> None:
        present = there.get(definition.name)
        if present is not None and present.fn != definition.fn:
            raise RegistrationError(_taken(what, definition.name, present.fn, definition.fn))
        there[definition.name] = definition
        self._sign(definition.fn)

    def _sign(self, fn: Callable[..., Any]) -> None:
        try:
            if not hasattr(fn, APP_ATTRIBUTE):
                setattr(fn, APP_ATTRIBUTE, self)
        except AttributeError:
            pass  # a bound method takes no attributes; `run` needs `app=` for it


def app_of(fn: Callable[..., Any]) -> App | None:
    """The app that the function was first registered with; None where it was not."""
    app = getattr(fn, APP_ATTRIBUTE, None)
    return app if isinstance(app, App) else None


def own_names(names: Iterable[str]) -> list[str]:
    """The names that the program itself has registered, sorted: what every worker has beside them is nobody's choice."""
    return sorted(name for name in names if not name.startswith(OWN_PREFIX))


def input_type_of(fn: Callable[..., Any]) -> Any:
    """What the input of an activity is rebuilt as, for a process that has the function but not its app."""
    return _activity(fn, _ActivityOptions()).input_type


def _executor(fn: Callable[..., Any], executor: Executor | None, transactional: bool) -> Executor | None:
    title = getattr(fn, "__name__", repr(fn))
    if executor == "transaction":
        raise RegistrationError(f"activity '{title}': write transactional=True instead of executor='transaction'")
    if not transactional:
        return executor
    if executor is not None:
        raise RegistrationError(
            f"activity '{title}': executor={executor!r} and transactional=True exclude each other: a transaction is run where the hub is written"
        )
    if inspect.iscoroutinefunction(fn):
        raise RegistrationError(
            f"activity '{title}' is `async def`: a transactional activity is a plain function, which holds up all writing; "
            "do what has to await in an activity before it"
        )
    return "transaction"


def _check_transaction(title: str, executor: Executor, takes_transaction: bool, timeout: timedelta | None) -> None:
    if takes_transaction and executor != "transaction":
        raise RegistrationError(
            f"activity '{title}' takes a Transaction, which only a transactional one has: @app.activity(transactional=True)"
        )
    if executor != "transaction":
        return
    if not takes_transaction:
        raise RegistrationError(
            f"activity '{title}' is transactional: annotate its first parameter with Transaction; "
            "what is asked of the ActivityContext is in its `.context`"
        )
    if timeout is not None and timeout > TRANSACTION_MAX:
        raise RegistrationError(
            f"activity '{title}': timeout is {timeout}; a transaction holds up all writing, and has {TRANSACTION_MAX.total_seconds():g} s at the most"
        )


class _ActivityOptions(NamedTuple):
    """What `App.activity` was given."""

    name: str | None = None
    retry: RetryPolicy | None = None
    timeout: timedelta | None = None
    executor: Executor | None = None
    heartbeat_timeout: timedelta | None = None
    concurrency: int | None = None
    rate: Rate | None = None
    key: Callable[[Any], Hashable] | None = None
    quota: Quota | None = None


def _activity(fn: Callable[..., Any], options: _ActivityOptions) -> ActivityDefinition:
    title = check_name(fn, options.name, "activity")
    executor = options.executor
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise RegistrationError(
            f"activity '{title}' is a generator function: an activity returns its result; an orchestrator is what yields (use @app.orchestrator)"
        )
    is_async = inspect.iscoroutinefunction(fn)
    if executor is None:
        executor = "async" if is_async else "thread"
    elif executor not in ("async", "thread", "process", "transaction"):
        raise RegistrationError(f"activity '{title}': executor is {executor!r}; it is 'thread', 'process' or 'async'")
    elif is_async != (executor == "async"):
        fix = "an `async def` runs in the event loop" if is_async else "a plain function runs in a thread or a process"
        raise RegistrationError(f"activity '{title}' cannot run with executor={executor!r}: {fix}")
    if executor == "process" and "<locals>" in fn.__qualname__:
        raise RegistrationError(
            f"activity '{title}' is defined inside a function: one that runs in a process has to be importable"
        )
    hints = hints_of(fn)
    parameters = parameters_of(fn, title, "activity")
    first = hints.get(parameters[0].name) if parameters else None
    takes_context = first is ActivityContext
    _check_transaction(title, executor, first is Transaction, options.timeout)
    rest = parameters[1:] if takes_context or first is Transaction else parameters
    if len(rest) > 1 and any(p.default is p.empty for p in rest[1:]):
        raise RegistrationError(
            f"activity '{title}' takes {len(rest)} inputs; an activity takes (), (input), or these after a parameter annotated ActivityContext: "
            "pass several values as a dataclass, a tuple or a dict"
        )
    _check_limits(title, options, takes_context=takes_context, takes_input=bool(rest))
    return ActivityDefinition(
        name=title,
        fn=fn,
        executor=executor,
        takes_context=takes_context,
        takes_input=bool(rest),
        input_type=hints.get(rest[0].name, Any) if rest else Any,
        result_type=hints.get("return", Any),
        retry=options.retry,
        timeout=options.timeout,
        heartbeat_timeout=options.heartbeat_timeout,
        concurrency=options.concurrency,
        rate=options.rate,
        key=options.key,
        quota=options.quota,
    )


def _check_limits(title: str, options: _ActivityOptions, *, takes_context: bool, takes_input: bool) -> None:
    """Returns where the limits are limits, and the function can keep them.

    Raises:
        RegistrationError: they are not, or it cannot.
    """
    where = f"activity '{title}'"
    for what in ("timeout", "heartbeat_timeout"):
        duration = getattr(options, what)
        if duration is None:
            continue
        if not isinstance(duration, timedelta):
            raise RegistrationError(f"{where}: {what} is {duration!r:.80}; it is a timedelta")
        if duration <= timedelta(0):
            raise RegistrationError(f"{where}: {what} is {duration}; it must be longer than nothing")
    if options.heartbeat_timeout is not None and not takes_context:
        raise RegistrationError(
            f"{where} has a heartbeat_timeout and no way to beat: annotate its first parameter with ActivityContext, and call ctx.heartbeat()"
        )
    concurrency, rate, key = options.concurrency, options.rate, options.key
    try:
        check_limits(where, concurrency, rate)
    except InvalidArgumentError as error:
        raise RegistrationError(str(error)) from None
    if options.quota is not None and not isinstance(options.quota, Quota):
        raise RegistrationError(
            f"{where}: quota is {options.quota!r:.80}; it is a Quota, made once and given to all that share it"
        )
    if key is None:
        return
    if not callable(key) or inspect.iscoroutinefunction(key):
        raise RegistrationError(f"{where}: key is {key!r:.80}; it is a plain function of the activity's input")
    if concurrency is None and rate is None:
        raise RegistrationError(f"{where} has a key and nothing that is counted by it: give it a concurrency or a rate")
    if not takes_input:
        raise RegistrationError(f"{where} has a key and takes no input that the key could be of")


def _orchestrator(fn: Callable[..., Any], name: str | None, version: str | None) -> OrchestratorDefinition:
    title = check_name(fn, name, "orchestrator")
    if title[0] == "@":
        raise RegistrationError(f"orchestrator '{title}': names that begin with '@' are those of entities")
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise RegistrationError(
            f"orchestrator '{title}' is `async def`: write `def {fn.__name__}(ctx, ...)` and `yield` where you would await; "
            "what has to await belongs in an activity"
        )
    parameters = parameters_of(fn, title, "orchestrator")
    if not parameters or (len(parameters) > 2 and any(p.default is p.empty for p in parameters[2:])):
        raise RegistrationError(
            f"orchestrator '{title}' takes {len(parameters)} parameters; an orchestrator takes (ctx) or (ctx, input): "
            "pass several values as a dataclass, a tuple or a dict"
        )
    if version is not None and not (isinstance(version, str) and is_unicode(version)):
        raise RegistrationError(f"orchestrator '{title}': version is {version!r:.80}; a version is text")
    version = plain(version) if version else None
    hints = hints_of(fn)
    first = hints.get(parameters[0].name)
    if first is not None and first is not OrchestrationContext and first is not Any:
        raise RegistrationError(
            f"orchestrator '{title}': its first parameter is annotated {first!r}; it gets the OrchestrationContext"
        )
    return OrchestratorDefinition(
        name=title,
        fn=fn,
        takes_input=len(parameters) > 1,
        input_type=hints.get(parameters[1].name, Any) if len(parameters) > 1 else Any,
        result_type=_result_type(hints.get("return", Any)),
        version=version,
    )


def _result_type(annotation: Any) -> Any:
    """What an orchestrator's caller gets: the third argument of a generator's annotation, or the annotation itself."""
    origin = typing.get_origin(annotation)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Generator):
        arguments = typing.get_args(annotation)
        return arguments[2] if len(arguments) == 3 else Any
    if annotation is Generator or origin in (AsyncGenerator, AsyncIterator):
        return Any
    return Any if _is_iterator(annotation) else annotation


def _is_iterator(annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    return (
        isinstance(origin, type)
        and origin.__module__ == "collections.abc"
        and origin.__name__ in ("Iterator", "Iterable")
    )


def _refuse_another(present: Orchestrators, new: OrchestratorDefinition) -> None:
    """Returns where the name is free in this version, or has this function already.

    Raises:
        RegistrationError: another function has it.
    """
    taken = present.versions.get(new.name, {}).get(new.version)
    if taken is not None and taken.fn != new.fn:
        which = "" if new.version is None else f" with the version '{new.version}'"
        raise RegistrationError(
            _taken("orchestrator", new.name + which, taken.fn, new.fn) + ", or as another version: version='...'"
        )


def _taken(what: str, name: str, present: Callable[..., Any], new: Callable[..., Any]) -> str:
    return (
        f"the {what} name '{name}' is taken by {present.__module__}.{present.__qualname__}; "
        f"register {new.__module__}.{new.__qualname__} under another: @app.{what}(name='...')"
    )
