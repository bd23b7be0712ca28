"""Everything that can go wrong, as one tree: who must act is the branch, a stable code is the name to look up.

`UserError`: fix the code or the input. `StateError`: the instance cannot do that now. `StoreError`: the durable store refused; retry or call the
operator. `TaskError`: what an orchestrator catches at a `yield`. The docstring of each class is what `replayflow explain CODE` prints.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

ErrorClass: TypeAlias = type[BaseException]
STACK_CHARS_MAX = 8_000
MESSAGE_CHARS_MAX = 30_000
CAUSE_DEPTH_MAX = 16
NESTED_CHARS_MAX = 4_000
RETRY_AFTER_SECONDS_MAX = 366 * 24 * 3600


class ReplayflowError(Exception):
    """The base of every error that replayflow raises."""

    code: ClassVar[str] = "RF000"


# ---- fix the code or the input ---------------------------------------------------------------------------------


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


# ---- the instance cannot do that now --------------------------------------------------------------------------


class StateError(ReplayflowError):
    """The instance is not in a state in which the request makes sense; nothing was changed."""

    code = "RF200"


class InstanceNotFoundError(StateError, LookupError):
    """No instance with that id is in the hub.

    Check the id and the store: `replayflow list --store URL` shows what is there.
    """

    code = "RF201"


class InstanceExistsError(StateError):
    """An instance with that id exists already.

    Choose another id, or say what you want with `on_existing=`: "return", "replace_finished" or "terminate_and_replace".
    """

    code = "RF202"


class InstanceFinishedError(StateError):
    """The instance has finished and takes no more messages.

    Its output and history can still be read; restart it to do the work again, or rewind it where it has failed.
    """

    code = "RF203"


class InvalidStateError(StateError):
    """The verb does not fit the instance's present status, which the message names.

    Only a suspended instance, or a parked one, can be resumed, only one that has not finished can be suspended or terminated, only one that has
    failed can be rewound, and only one that has finished, and whose last activities have all had their run, can be purged. A rewind or a fork to
    where an instance cannot go on says from which event it can.
    """

    code = "RF204"


class NoTransactionError(StateError):
    """What was to become part of a transaction found none: `replayflow.sqlite` commits nothing by itself.

    Execute `BEGIN IMMEDIATE` on the connection, or write your own rows first, then start or signal, then commit.
    """

    code = "RF208"


class OrchestrationEnded(StateError):
    """The base of what `result()` raises when an orchestration ended in any other way than by returning."""

    code = "RF210"


class OrchestrationFailed(OrchestrationEnded):
    """The orchestration ended with an error that it did not catch.

    `.details` has its type, message, stack and causes.
    """

    code = "RF211"

    def __init__(self, message: str, details: FailureDetails) -> None:
        super().__init__(message)
        self.details = details

    def is_caused_by(self, *classes: type[BaseException]) -> bool:
        """Whether the error, or any error that it came from, was one of the classes."""
        return self.details.is_caused_by(*classes)


class OrchestrationTerminated(OrchestrationEnded):
    """The orchestration was terminated from outside; the message has the reason that was given."""

    code = "RF212"


class OrchestrationCanceled(OrchestrationEnded):
    """The orchestration ended by a request to cancel; the message has the reason that was given."""

    code = "RF213"


class StuckError(StateError):
    """In a `VirtualHub`, where time passes only while a test waits: nothing is under way and no timer is set, so that the wait would last for ever.

    Raise the event that the instance waits for before you wait for its end; or look at why it is parked.
    """

    code = "RF214"


# ---- the store refused ----------------------------------------------------------------------------------------


class StoreError(ReplayflowError):
    """The durable store could not do what was asked; what was committed before stands."""

    code = "RF300"


class HubOwnedError(StoreError):
    """Another worker owns the task hub; the message names its process.

    One worker at a time runs a SQLite hub. Stop the other one, use `when_owned="wait"` to take over when it ends, or be a client:
    `when_owned="client"`. From a process that does nothing and cannot be ended `when_owned="take_over"` takes the hub.
    """

    code = "RF301"


class LeaseLostError(StoreError):
    """This worker no longer owns the hub: another one took over. What it had not committed is discarded and done by the new owner."""

    code = "RF302"


class StoreFullError(StoreError):
    """The disk that holds the store is full. Nothing is lost: make room, and the worker goes on."""

    code = "RF303"


class StoreReadOnlyError(StoreError):
    """The store cannot be written: the file, its folder or the file system is read-only. Correct the permissions; nothing was changed."""

    code = "RF304"


class StoreCorruptError(StoreError):
    """The store's file is damaged: a page or a history does not read back as it was written.

    Nothing was changed. Keep the file, run `PRAGMA integrity_check` on a copy of it, and restore the last good backup. Where there is none, and one
    instance is damaged, `replayflow purge ID --damaged` takes that out, whatever its status: its history is lost, of others nothing is touched.
    """

    code = "RF305"


class NotAHubError(StoreError):
    """The file is no replayflow task hub (another SQLite database, or no database at all); it was left as it is. Check the path."""

    code = "RF306"


class NewerSchemaError(StoreError):
    """The task hub was written by a newer version of replayflow; it was left as it is. Upgrade replayflow to open it."""

    code = "RF307"


class StoreBusyError(StoreError):
    """Another process held the store's write lock for longer than the time limit. Nothing was written; try again."""

    code = "RF308"


class StoreUnavailableError(StoreError):
    """The store cannot be opened or reached: a missing folder, missing permissions, an I/O error, an unknown kind of URL."""

    code = "RF309"


class StoreMovedError(StoreError):
    """The store's file, or its log, was removed, moved away or replaced while it was open.

    What is written to an open file that no path leads to is lost, so nothing is. To replace a hub, by a backup say, end its worker and its clients
    first, and move the file together with those whose names begin with its own.
    """

    code = "RF310"


class StarvedError(StoreError):
    """The operating system gives this process no more of something that a hub needs: memory, open files, threads or processes.

    What was committed stands. Raise the limit that the message names (`ulimit -a` shows them), or do less at a time, and start again.
    """

    code = "RF311"


# ---- what an orchestrator catches at a yield ------------------------------------------------------------------


class TaskError(ReplayflowError):
    """Work that an orchestrator asked for has failed.

    `.details` describes the error where it was raised. Raised by `when_all`, `.failures` has the exception of every failed task, in list order.
    """

    code = "RF400"

    def __init__(self, message: str, details: FailureDetails) -> None:
        super().__init__(message)
        self.details = details
        self.failures: list[BaseException] = [self]

    def is_caused_by(self, *classes: type[BaseException]) -> bool:
        """Whether the error, or any error that it came from, was one of the classes."""
        return self.details.is_caused_by(*classes)


class ActivityError(TaskError):
    """An activity failed, after its retries if it had any."""

    code = "RF401"


class SubOrchestrationError(TaskError):
    """A sub-orchestration failed, was terminated, or could not be started."""

    code = "RF402"


class EntityError(TaskError):
    """An operation that an orchestrator called on an entity failed, and changed nothing there."""

    code = "RF403"


class TaskCanceledError(ReplayflowError):
    """The result of a task that the orchestrator itself had cancelled was asked for."""

    code = "RF404"


class MapError(TaskError):
    """More items of a `ctx.map` failed than it tolerates, or the activity that gives its pages did.

    `.result` is the `MapResult` as far as the map came: `.result.failures` says which items failed and why, and
    `yield from error.result.retry_failed(ctx)` runs those without a result again. `.details` is the first failure.
    """

    code = "RF405"

    def __init__(self, message: str, details: FailureDetails, result: Any = None) -> None:
        super().__init__(message, details)
        self.result = result


class RecordError(TaskError):
    """The function that `ctx.record` called failed, or what it returned cannot be recorded.

    The failure is recorded in the place of a value, and raised again on every replay. `.details` describes the error where it was raised.
    """

    code = "RF410"


class ForbiddenStatementError(UserError):
    """A transactional activity ran a statement that is not for it, or used its transaction when that was over; what it wrote was rolled back.

    It may read, write and define tables of the program's own in the hub's file. It may not end or nest the transaction, attach databases, change
    settings, make temporary or virtual tables, or touch the engine's tables. It is never retried: the statement has to change.
    """

    code = "RF415"


class TransactionTimeoutError(UserError, TimeoutError):
    """A transactional activity took longer than its time limit, and was rolled back.

    Meanwhile the hub can write nothing else, so the limit is a second unless the activity has another `timeout`, of ten at the most. Do what takes
    long in an activity before it, and pass what came of it as input; give its statements the indexes that they need.
    """

    code = "RF416"


# ---- what user code raises ------------------------------------------------------------------------------------


class NonRetryableError(ReplayflowError):
    """Raised by an activity: fail now, whatever the retry policy says."""

    code = "RF501"


class RetryAfter(ReplayflowError):
    """Raised by an activity: this attempt failed; wait so many seconds before the next, where the retry policy has attempts left.

    Seconds are a number from 0 to those of a year; any other is an `InvalidArgumentError`.
    """

    code = "RF502"

    def __init__(self, seconds: float, message: str = "") -> None:
        if not 0 <= seconds <= RETRY_AFTER_SECONDS_MAX:
            raise InvalidArgumentError(
                f"RetryAfter: seconds is {seconds!r:.80}; it is a number from 0 to {RETRY_AFTER_SECONDS_MAX}, a year"
            )
        super().__init__(message or f"retry after {seconds} s")
        self.seconds = seconds


class ActivityCancelled(BaseException):  # so that `except Exception` in an activity does not swallow it
    """Raised by `ctx.raise_if_cancelled()` in an activity whose result nobody waits for any longer: clean up, then let it pass."""

    code = "RF411"


class OrchestrationCancelled(
    BaseException
):  # so that `except Exception` in an orchestrator does not swallow the request
    """Raised at an orchestrator's current yield when somebody asks to cancel it: compensate in `except` or `finally`, then let it pass."""

    code = "RF503"


# ---- failures as values ---------------------------------------------------------------------------------------


class FailureDetails(Struct, array_like=True, frozen=True):
    """An error as it is stored: what it was where it was raised. Nothing is imported to read it back.

    `bases` has the qualified names of the error's class and of all its base classes, most derived first.
    """

    type: str
    message: str
    stack: str = ""
    inner: FailureDetails | None = None
    non_retryable: bool = False
    bases: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: BaseException) -> FailureDetails:
        """The error and its chain of causes as values: a raised-from cause first, else the error that was being handled."""
        return cls._of(error, CAUSE_DEPTH_MAX, set())

    @classmethod
    def _of(cls, error: BaseException, depth: int, seen: set[int]) -> FailureDetails:
        seen.add(id(error))
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        inner: FailureDetails | None = None
        if isinstance(error, TaskError | OrchestrationFailed):
            # What it came from; whatever was being handled when it arrived is not.
            inner = _cut(error.details, depth - 1)
        elif cause is not None and depth > 1 and id(cause) not in seen:
            inner = cls._of(cause, depth - 1, seen)
        return cls(
            type=type(error).__name__,
            message=_text(error),
            stack=_unicode("".join(traceback.format_tb(error.__traceback__))[-STACK_CHARS_MAX:]),
            inner=inner,
            non_retryable=isinstance(error, NonRetryableError | PayloadTooLargeError | ForbiddenStatementError),
            bases=tuple(_qualified(base) for base in type(error).__mro__ if base is not object),
        )

    def is_caused_by(self, *classes: ErrorClass) -> bool:
        """Whether this error, or one in its chain of causes, was one of the classes, by qualified name."""
        return self.matches(_qualified(cls) for cls in classes)

    def matches(self, names: Iterable[str]) -> bool:
        """Whether a class of this error or of one in its chain of causes bears one of the qualified names."""
        wanted = set(names)
        return any(not wanted.isdisjoint(details.bases) for details in self.chain())

    def chain(self) -> Iterator[FailureDetails]:
        """This error, then the error that it came from, and so on."""
        details: FailureDetails | None = self
        while details is not None:
            yield details
            details = details.inner

    def __str__(self) -> str:
        half = NESTED_CHARS_MAX // 2
        said: list[str] = []
        for details in self.chain():
            text = f"{details.type}: {details.message}" if details.message else details.type
            if not said or not said[-1].endswith(text[-half:]):  # a failed task's message ends with what it came from
                said.append(text)
        whole = " <- ".join(said)
        # It becomes part of the message of whatever fails because of this: without an end to it, every level of nesting would make it longer.
        return whole if self.inner is None or len(whole) <= NESTED_CHARS_MAX else f"{whole[:half]} ... {whole[-half:]}"


def _cut(details: FailureDetails, depth: int) -> FailureDetails | None:
    """The failure with so many of its chain at most: the last ones to be raised and the first, from which all came, without those between."""
    chain = [*details.chain()]
    if len(chain) <= depth:
        return details
    kept = [*chain[: depth // 2], *chain[len(chain) - (depth - depth // 2) :]]
    cut: FailureDetails | None = None
    for each in reversed(kept):
        cut = each if each.inner is cut else replace(each, inner=cut)
    return cut


def starved(error: BaseException) -> StarvedError | None:
    """The error as a refusal of the operating system, with its cause; None where it is something else."""
    match error:
        case MemoryError():
            what = "memory"
        case OSError(errno=errno.ENOMEM):
            what = "memory"
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            what = "open files"
        case OSError(errno=errno.EAGAIN):
            what = "processes"
        case RuntimeError() if str(error).startswith("can't start new thread"):
            what = "threads"
        case _:
            return None
    said = str(error) or type(error).__name__
    found = StarvedError(
        f"the operating system gives this process no more {what} ({said}): what was committed stands; raise its limit, or do less at a time, and "
        "start again"
    )
    found.__cause__ = error
    return found


def qualified_name(cls: type) -> str:
    """The name under which failures record a class: module and qualified name."""
    return _qualified(cls)


def find(code: str) -> type[BaseException] | None:
    """The error class with the code, such as `RF101`; None where no class has it."""
    return next((cls for cls in _tree() if cls.__dict__.get("code") == code.upper()), None)


def every() -> list[type[BaseException]]:
    """All error classes, in the order of their codes."""
    return sorted(_tree(), key=lambda cls: str(cls.__dict__["code"]))


def _tree() -> Iterator[type[BaseException]]:
    yield from (OrchestrationCancelled, ActivityCancelled)
    waiting: list[type[BaseException]] = [ReplayflowError]
    while waiting:
        cls = waiting.pop()
        if "code" in cls.__dict__ and cls.__module__ == __name__:
            yield cls
        waiting.extend(cls.__subclasses__())


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _unicode(text: str) -> str:
    """The text as it can be stored: a lone surrogate (of a file's name that is no UTF-8, say) as its escape."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _text(error: BaseException) -> str:
    try:
        text = str(error)
        if len(text) > MESSAGE_CHARS_MAX:
            text = f"{text[:MESSAGE_CHARS_MAX]} ... ({len(text) - MESSAGE_CHARS_MAX:,} more characters)"
        return _unicode(text)
    except BaseException as broken:
        # A user's __str__ may raise, SystemExit too, and the failure must still be recorded.
        return f"<no text: {type(broken).__name__} in {type(error).__name__}.__str__>"
