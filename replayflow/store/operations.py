"""What is written: the operations of a store's groups, and what becomes of each. Their contract is in `base.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from replayflow.core.commit import Commit, Message, RowState, Start
from replayflow.core.instance import Status
from replayflow.core.transaction import Statements
from replayflow.errors import InstanceExistsError, InstanceNotFoundError, InvalidStateError, ReplayflowError

OnExisting = Literal["error", "return", "replace_finished", "terminate_and_replace"]
PurgeCause = Literal["asked", "retention"]
EXECUTIONS_PER_TRIM = 500
"""How many past executions one operation takes away at the most, so that a long past does not make a long transaction."""
MICROSECONDS_PER_DAY = 86_400_000_000


class Create(Struct):
    """Start an execution on behalf of a client. Written without an epoch, it leaves a nudge in the inbox, so that the worker learns of it.

    Where an instance with the id exists: "error" refuses (`InstanceExistsError`), "return" leaves it and accepts, "replace_finished" starts the new
    execution in its place where it has finished and refuses where it has not, "terminate_and_replace" does the same but leaves an unfinished one an
    `ExecutionReplaced` message, `replacement`, in its inbox.
    """

    start: Start
    on_existing: OnExisting = "error"
    replacement: Message | None = None
    has_new_id: bool = False
    """Whether the id was made up for this, so that nothing can have it."""


class Post(Struct):
    """Leave a message. One whose `dedupe_key` the instance has had before is accepted and not delivered again, also after the end (I6).

    Keys last as long as the instance, through every continue-as-new; a replacement is another instance under the same id, and has had none.
    With `replaces_finished` the message's `start` begins also where the instance has finished, in its place.
    """

    message: Message
    dedupe_key: str | None = None
    replaces_finished: bool = False


class Park(Struct):
    """The execution is set aside with the problem, and nothing is held against it; or, with None, it is freed again.

    `messages` are what it had in memory and must not lose.
    """

    instance_id: str
    execution_id: str
    problem: bytes | None
    messages: list[Message] = []


class Purge(Struct):
    """The instance is no more, with its history, its past executions, its inbox, its keys and its tags; its id is free.

    Refused where there is none (`InstanceNotFoundError`), and (`InvalidStateError`) where it has not finished, owes the run of an activity, or is in
    another execution than `execution_id`, where that is given. `at` and `cause` are for the hub's count of what was purged.
    """

    instance_id: str
    execution_id: str | None = None
    at: int = 0
    cause: PurgeCause = "asked"


class Trim(Struct):
    """Of the instance's past executions the last `keep` stay; of those before them the oldest go, `EXECUTIONS_PER_TRIM` at the most."""

    instance_id: str
    keep: int


class Transact(Struct):
    """One run of a transactional activity: `run` is given statements that are part of the transaction, and returns its result's event, encoded."""

    instance_id: str
    execution_id: str
    task_id: int
    run: Callable[[Statements], bytes]
    seconds_max: float


class Raised(Exception):
    """The activity itself has failed, not the store; `error` is how."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class Branched(Struct):
    """An execution that begins with a past: the pieces, each with its time, follow its start, and `state` is what its row shows after them.

    It takes the place of the execution `replaces`, which has finished, whose last piece is `last`, and for which no message has come that has a
    higher number than `last_message`; what the instance has beside its history stays
    (its keys, its inbox, when it was created, whose child it is). Where `replaces` is None it is the first of an instance of its own.
    """

    start: Start
    pieces: Sequence[tuple[int, bytes]]
    state: RowState
    replaces: str | None = None
    last: int = 0
    last_message: int = 0


class Seen(Struct):
    """An instance as it was read: it has finished, in that execution; or, where there is none, it has not finished."""

    instance_id: str
    execution_id: str | None = None


class Branch(Struct):
    """Begin executions that have a past: all of them, or none.

    Refused where an instance is not what it was when it was read (`InvalidStateError`), or the id of a new one is taken (`InstanceExistsError`).
    `starts` and `messages` are as in a commit. Written without an epoch, it leaves a nudge in the inbox of each instance that begins so.
    """

    executions: Sequence[Branched]
    seen: Sequence[Seen] = ()
    starts: Sequence[Start] = ()
    messages: Sequence[Message] = ()


Operation: TypeAlias = Create | Post | Commit | Park | Purge | Trim | Branch


class Delivery(Struct):
    """A message in an inbox: its number, and what the receiver needs of it."""

    number: int
    instance_id: str
    event: bytes | None
    """The encoded event; None is a nudge: the instance is new, or has another execution."""
    execution_id: str | None = None
    is_control: bool = False
    takes_messages: bool = True
    """Whether the receiver is neither suspended nor parked."""
    is_sealed: bool = False
    """Whether it has a value that cannot be read: the key is not at hand, or it is damaged. To load the receiver shows why."""


class Outcome(Struct):
    """What became of one operation."""

    error: ReplayflowError | None = None
    """Why it was refused; None where it was accepted."""
    deliveries: list[Delivery] = []
    """The messages that it put into inboxes."""
    started: list[Start] = []
    """The executions that it began, but for the one of a `next_start`. Their messages are in `deliveries`."""
    dropped: list[Message] = []
    """Messages that nobody can receive."""
    has_existed: bool = False
    """For a `Create` that accepts an instance as it is: there was one."""


ACCEPTED = Outcome()
"""What nearly every commit comes to: accepted, and nothing follows for others. Nobody writes into it."""


def id_taken(instance_id: str, status: Status) -> InstanceExistsError:
    """Why an instance cannot begin under the id."""
    return InstanceExistsError(f"instance '{instance_id}' exists already, with status {status}")


def not_there(instance_id: str, url: str) -> InstanceNotFoundError:
    """There is no instance with the id."""
    return InstanceNotFoundError(f"no instance '{instance_id}' is in the hub {url}")


def not_damaged(instance_id: str) -> InvalidStateError:
    """Why an instance is not taken out as a damaged one."""
    return InvalidStateError(
        f"instance '{instance_id}' reads back as it was written: terminate it, if it has not finished, and purge it as any other"
    )


def moved_on(instance_id: str) -> InvalidStateError:
    """Why nothing can be built on what was read of the instance."""
    return InvalidStateError(f"instance '{instance_id}' has moved on since it was read")


def why_it_stays(instance_id: str, status: Status, *, owes: bool) -> InvalidStateError | None:
    """Why the instance cannot be purged; None where it can."""
    if not status.is_finished:
        return InvalidStateError(f"instance '{instance_id}' is {status}: only one that has finished can be purged")
    if owes:
        return InvalidStateError(
            f"instance '{instance_id}' has finished, with status {status}, but an activity that it scheduled last has not had its run: "
            "it can be purged after that"
        )
    return None
