"""Fix the code or the input: nothing was written."""

from __future__ import annotations

from replayflow.errors.base import ReplayflowError


class UserError(ReplayflowError):
    """The code or the input has to change; nothing was written.

    The message names the place, what was found there and what to write instead.
    """

    code = "RF100"


class RegistrationError(UserError):
    """A function or a class cannot be registered as an orchestrator, an activity or an entity, or its name is taken.

    Orchestrators are generator functions `def f(ctx)` or `def f(ctx, input)`: write `yield` where you would write `await`. Activities take
    `()`, `(input)`, or these with a first parameter annotated `ActivityContext`. Entities are functions that take an `EntityContext`, or classes
    that can be made without arguments; none of their operations is `async def`. A name can be registered once in an app and in what it includes.
    """

    code = "RF101"


class UnknownNameError(UserError):
    """No orchestrator, activity or entity of that name is registered with the app, or the entity has no such operation.

    Register it with `@app.orchestrator`, `@app.activity` or `@app.entity`, include the app that has it (`app.include(other)`), or correct the name.
    """

    code = "RF102"


class InvalidArgumentError(UserError, ValueError):
    """An argument is outside what the call accepts: an id with forbidden characters, a naive datetime, an empty `when_any`.

    The message names the argument, its value and the accepted form.
    """

    code = "RF103"


class PayloadError(UserError, TypeError):
    """A value cannot travel as a payload.

    Payloads are built from None, bool, int, float, str, bytes, list, tuple, set, dict, datetimes, Decimal, UUID, Enum, dataclasses, NamedTuples,
    TypedDicts and pydantic models. The message has the path of the bad part inside the value.
    """

    code = "RF110"


class EncodeError(PayloadError):
    """A value of a type that payloads do not support was passed, returned or raised.

    The message has the path inside the value, such as `input.items[3].photo`. Pass an id, a path or a dataclass of supported types instead.
    """

    code = "RF111"


class DecodeError(PayloadError):
    """A stored payload does not fit the annotation of whoever receives it, or is damaged.

    The message has the path, what the annotation asks for and what was found. Correct the annotation, or give a changed field a default.
    """

    code = "RF112"


class PayloadTooLargeError(PayloadError):
    """An encoded value is larger than the hub's limit, `payload_bytes_max`.

    Pass a reference (a path, a key in an object store) instead of the bytes, split the batch, or raise the limit. It is never retried.
    """

    code = "RF113"
    _non_retryable = True


class SealedError(DecodeError):
    """A value is encrypted, and cannot be opened here: the key is missing, or is another one under the same id, or the bytes were changed.

    The message names the key. Give the hub a cipher that has it: `TaskHub(cipher=...)`, `Client(cipher=...)`, or `$REPLAYFLOW_CIPHER`. A worker
    parks the instance and changes nothing; the instance goes on under a worker that has the key.
    """

    code = "RF114"


class CipherError(UserError):
    """There is no cipher as it was asked for: the library is not installed, a key has a wrong length, or `$REPLAYFLOW_CIPHER` names nothing.

    `pip install 'replayflow[encryption]'` installs the library. The variable is `module:object`; the object is a cipher, or makes one.
    """

    code = "RF115"


class OrchestratorError(UserError):
    """An orchestrator used its context in a way that has no meaning, such as an action after `continue_as_new`.

    The message names the call and the line. The orchestration fails with this error unless it catches it.
    """

    code = "RF120"


class NotATaskError(OrchestratorError, TypeError):
    """An orchestrator yielded something that is no task of its own.

    Yield what `ctx.call_activity`, `ctx.create_timer`, `when_all` and the other task makers return; delegate to another generator with `yield from`.
    """

    code = "RF121"


class NonDeterminismError(UserError):
    """The orchestrator's code no longer does what the history says that it did.

    The instance is parked: it keeps its status, shows both sides in `problem`, and is tried again whenever a worker starts. Bring back the old
    order of calls, ask `ctx.patched("...")` where they differ, or let old instances finish on the old code and register the new code as another
    version. `replayflow check MODULE:APP` says beforehand which instances would be parked. `then` and `now` are the two sides.
    """

    code = "RF130"
    then: str = ""
    now: str = ""


class CompensationError(UserError):
    """The code with which a saga undoes its work raised an error of its own: not the failure of a task, which is retried.

    The instance is parked: `problem` names the compensation and what is left to undo besides. Nothing that this code did in its last episode
    counts. Mend the code; the compensation is tried again when a worker starts, or when the instance is resumed.
    """

    code = "RF131"


class ScheduleError(UserError):
    """It cannot be told when a schedule comes next: the cron library (`pip install 'replayflow[cron]'`) or the time zone is not there.

    Where a client is told so, nothing was written. Where a worker finds out, the schedule is parked, and goes on where it was under a worker
    that has them.
    """

    code = "RF132"


class EntityStateError(UserError):
    """The stored state of an entity cannot be rebuilt by the code at hand: its class or the annotation of its state has changed.

    Nothing is performed and nothing is lost: the entity is parked, with what came for it, and goes on under a worker whose code fits the state.
    Fields may be added with a default; to change one, keep the old one until every entity has been performed once.
    """

    code = "RF133"


class PoisonError(UserError):
    """What an instance had under way killed its worker's process, again and again, whenever it ran alone: a segfault, `os._exit`, too much memory.

    The instance is parked, so that the worker can do its other work; nothing of it is lost. `problem` names what was under way. Mend it, or run the
    activity in a process of its own (`executor="process"`), whose death is a plain failure; then `replayflow resume ID`. A worker's start alone does
    not try it again.
    """

    code = "RF134"


class VersionMismatchError(UserError):
    """No code here serves an instance of that version: the app has other versions of the orchestrator, or the worker takes others.

    Told to a client, nothing was written. An instance is parked with it, and goes on under a worker that has the code of its version:
    `@app.orchestrator(name="...", version="...")`; with `VersioningOptions(failure_strategy="fail")` it fails instead. An orchestrator that is
    registered without a version serves all that have no code of their own.
    """

    code = "RF135"


class ForbiddenStatementError(UserError):
    """A transactional activity ran a statement that is not for it, or used its transaction when that was over; what it wrote was rolled back.

    It may read, write and define tables of the program's own in the hub's file. It may not end or nest the transaction, attach databases, change
    settings, make temporary or virtual tables, or touch the engine's tables. It is never retried: the statement has to change.
    """

    code = "RF415"
    _non_retryable = True


class TransactionTimeoutError(UserError, TimeoutError):
    """A transactional activity took longer than its time limit, and was rolled back.

    Meanwhile the hub can write nothing else, so the limit is a second unless the activity has another `timeout`, of ten at the most. Do what takes
    long in an activity before it, and pass what came of it as input; give its statements the indexes that they need.
    """

    code = "RF416"
