"""`ctx.record`: a small value of the world, read in passing and recorded. Prose: `docs/decisions/0014-activities.md`.

1. What the function came to, a value or a failure, is one decision; it is durable with whatever was decided from it, and replay does not call the
   function (I2).
2. The code gets the same thing the first time as on every replay: what has been through the codec, or a `RecordError`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from inspect import isasyncgenfunction, isawaitable, isclass, iscoroutinefunction, isgenerator, isgeneratorfunction
from typing import Any, TypeVar, TypeVarTuple, overload

from replayflow.core.actions import CompleteOrchestration, RecordValue
from replayflow.core.decisions import Decisions, Diverged
from replayflow.core.definitions import Environment
from replayflow.core.events import ValueRecorded
from replayflow.core.signatures import hints_of
from replayflow.core.sites import site_of
from replayflow.errors import EncodeError, FailureDetails, InvalidArgumentError, RecordError

R = TypeVar("R")
A = TypeVarTuple("A")
_frame = sys._getframe
NAME_CHARS_MAX = 256


class RecordContext:
    """The part of the context that records values."""

    __slots__ = ()
    _decisions: Decisions
    _environment: Environment

    @overload
    def record(self, fn: Callable[[*A], object], *args: *A, type: type[R], name: str | None = None) -> R: ...
    @overload
    def record(self, fn: Callable[[*A], R], *args: *A, type: None = None, name: str | None = None) -> R: ...
    @overload
    def record(self, fn: Callable[[*A], object], *args: *A, type: object, name: str | None = None) -> Any: ...

    def record(self, fn: Callable[[*A], Any], *args: *A, type: Any = None, name: str | None = None) -> Any:
        """What `fn(*args)` returns, called here and now, and recorded: on replay the recorded value comes back, and the function is not called.

        For what is small, quick and not the same each time: a UUID, a setting, the time of another clock. Nothing is yielded. The value is durable
        with whatever is decided from it; after a crash before that the function is called again, so it must do no harm twice. It runs in the
        worker's event loop and has to return at once; whatever takes time or can be retried is an activity. It must not use the context.

        The value is rebuilt as `type`, or as the function is annotated to return; without either, dataclasses and models come as dicts. `name`, the
        function's own if it is not given, is what replay finds it by, and what history shows.

        Raises:
            DecodeError: what is recorded does not fit the type.
            RecordError: the function failed, or returned what is no payload or has to be awaited; recorded, and raised again on every replay.
            InvalidArgumentError: it is no function, an `async def` or a generator function, or the name is none; nothing was called.
            OrchestratorError: the execution has already continued as new.
        """
        decisions = self._decisions
        site = site_of(_frame(1))
        title = _checked(fn, name, site)
        if decisions.is_sealed:
            raise Diverged  # the generator is being closed, and nobody is there to record anything
        action = RecordValue(decisions.take_id(), title, site)
        decisions.add(action)
        found = decisions.recorded_last() if decisions.is_replaying else None
        if isinstance(found, ValueRecorded):
            value, failure = found.value, found.failure_details
        else:
            value, failure = self._call(fn, args, action)
        if failure is not None:
            raise RecordError(f"recording '{title}' at {site} failed: {failure}", failure) from None
        wanted = _returned_by(fn) if type is None else type
        return self._environment.codec.decode(value, wanted, f"recorded value '{title}'")

    def _call(
        self, fn: Callable[..., Any], args: tuple[Any, ...], action: RecordValue
    ) -> tuple[bytes | None, FailureDetails | None]:
        """What the function comes to is in the action. Nothing can be asked of the context meanwhile."""
        decisions = self._decisions
        decisions.recording = action.site
        decisions.ending = CompleteOrchestration(action.id, "", site=action.site)
        try:
            value = fn(*args)
            _refuse_to_wait(value, action)
            action.value = self._environment.codec.encode(value, f"recorded value '{action.name}'")
        except (KeyboardInterrupt, GeneratorExit, Diverged):
            raise
        except BaseException as error:  # a SystemExit, say: user code must not end the worker
            action.failure_details = FailureDetails.of(error)
        finally:
            decisions.ending, decisions.recording = None, ""
        return action.value, action.failure_details


def _checked(fn: object, name: str | None, site: str) -> str:
    """The name of what is recorded.

    Raises:
        InvalidArgumentError: there is nothing that could be called here, or the name is none.
    """
    if not callable(fn):
        raise InvalidArgumentError(f"{site}: ctx.record takes a function and calls it; it was given {fn!r:.80}")
    if iscoroutinefunction(fn) or isasyncgenfunction(fn) or isgeneratorfunction(fn):
        raise InvalidArgumentError(
            f"{site}: ctx.record calls a plain function; '{getattr(fn, '__name__', fn)}' has to be awaited or run through: make it an activity"
        )
    title = getattr(fn, "__name__", type(fn).__name__) if name is None else name
    if not isinstance(title, str) or not 0 < len(title) <= NAME_CHARS_MAX or not title.isprintable():
        raise InvalidArgumentError(
            f"{site}: {title!r:.80} is no name for a recorded value: it is printable text of 1 to {NAME_CHARS_MAX} characters"
        )
    return title


def _returned_by(fn: Callable[..., Any]) -> Any:
    return fn if isclass(fn) else hints_of(fn).get("return", Any)


def _refuse_to_wait(value: object, action: RecordValue) -> None:
    """Returns where the value is there, and not yet to be waited for."""
    if not isawaitable(value) and not isgenerator(value):
        return
    if isinstance(value, Coroutine):
        value.close()  # or the interpreter warns that nobody awaited it
    raise EncodeError(
        f"'{action.name}', recorded at {action.site}, returned {value!r:.80}, which has to be waited for: make it an activity"
    )
