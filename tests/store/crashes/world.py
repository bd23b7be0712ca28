"""The hub that the operations of the matrix are done to: an instance in every state that a row can be in, with all that can belong to one.

Histories are of the orchestrator `order`, which waits for the event "go", or of `chain`, so that a worker can go on with whatever is left.
"""

from __future__ import annotations

from typing import Any

from replayflow import App, OrchestrationContext
from replayflow.codec import Payload
from replayflow.core import events, rows
from replayflow.core.commit import Commit, Message, RowState, Start
from replayflow.core.events import (
    CustomStatusSet,
    EventRaised,
    ExecutionCompleted,
    ExecutionStarted,
    ExecutionSuspended,
    HistoryEvent,
    OrchestratorStarted,
    TaskFailed,
    TaskScheduled,
)
from replayflow.core.instance import Status
from replayflow.errors import FailureDetails
from replayflow.store import Store
from replayflow.store.base import Create, Operation, Park, Post, Served
from tests.store.builders import OWNER, accepted

LARGE_OVER_BYTES = 64
LARGE = b"\xc5\x01\x2c" + b"l" * 300
OTHER = b"\xc5\x01\x2c" + b"o" * 300
OWN = b"\xc5\x23\x28" + b"p" * 9_000
"""Of several pages."""
SMALL = b"\x07"
PAST = 6
SERVED = [Served("order", None, "digest", is_default=True), Served("gone", "1", "other")]

app = App()


@app.orchestrator
def order(ctx: OrchestrationContext, input: Any) -> Any:
    yield ctx.wait_for_external_event("go")
    return "went"


@app.orchestrator
def chain(ctx: OrchestrationContext, input: Any) -> Any:
    for _ in range(3):
        yield ctx.call_activity(count, input)


@app.activity
def count(input: Any) -> int:
    return 1


@app.entity(name="c")
def counter(ctx: Any) -> None:
    ctx.set_state(1)


# ---- what histories are made of


def begin(
    id: str,
    execution: str = "x1",
    input: Payload = SMALL,
    *,
    name: str = "order",
    at: int = 1,
    parent: str | None = None,
    tags: dict[str, str] | None = None,
    if_taken: Message | None = None,
    is_first: bool = True,
) -> Start:
    started = ExecutionStarted(name, input, id, execution, tags=tags, is_first=is_first)
    event = events.encode([started])
    return Start(id, execution, name, None, event, at, parent_id=parent, tags=tags, if_taken=if_taken)


def piece(*facts: HistoryEvent, at: int = 2) -> bytes:
    return events.encode([OrchestratorStarted(at), *facts])


def raised(payload: Payload = SMALL, name: str = "e") -> bytes:
    return events.encode([EventRaised(name, payload)])


def sent(id: str, payload: Payload = SMALL, *, execution: str | None = None, start: Start | None = None) -> Message:
    return Message(id, raised(payload), execution, start=start)


def waiting(custom: Payload = None) -> RowState:
    return RowState(Status.RUNNING, None, custom)


def runs(id: str, sequence: int = 1, *, execution: str = "x1", **more: Any) -> Commit:
    """An episode that left the instance waiting."""
    state = more.get("state")
    facts = [CustomStatusSet(state.custom_status)] if state is not None and state.custom_status is not None else []
    return Commit(id, execution, sequence, 2, **{"chunk": piece(*facts), "state": waiting(), **more})


def ends(
    id: str,
    sequence: int = 2,
    status: Status = Status.COMPLETED,
    output: Payload = SMALL,
    *,
    execution: str = "x1",
    **more: Any,
) -> Commit:
    failure = FailureDetails("ValueError", "no", "") if status is Status.FAILED else None
    completed = ExecutionCompleted(0, str(status), None if failure else output, failure)
    shown = None if failure is None else events.encode([TaskFailed(0, failure)])
    state = RowState(
        status, more.pop("wake_at", None), None, None if failure else output, shown, 3, more.pop("orphans", None)
    )
    return Commit(id, execution, sequence, 3, piece(completed, at=3), state, **more)


def owed(task: int = 1, execution: str = "x1") -> bytes:
    encoded = rows.encode_orphans([(execution, TaskScheduled(task, "count", SMALL, "", None, None))])
    assert encoded is not None
    return encoded


def lives_on(id: str, sequence: int, from_execution: str, to: str, input: Payload = SMALL, **more: Any) -> Commit:
    """The end of an execution that the next one follows."""
    chunk = piece(ExecutionCompleted(0, str(Status.CONTINUED_AS_NEW), input))
    state = RowState(Status.CONTINUED_AS_NEW, None)
    return Commit(
        id, from_execution, sequence, 3, chunk, state, next_start=begin(id, to, input, is_first=False), **more
    )


# ---- the hub


async def build(store: Store) -> None:
    """The store has all of it, and no owner. Its last worker has died, and another has been since."""
    await store.acquire(OWNER)
    await store.release()
    epoch = await store.acquire(OWNER)
    await store.keep_served(SERVED, epoch)
    for group in _groups():
        await accepted(store, *group, epoch=epoch)
    await store.release()


def _groups() -> list[list[Operation]]:
    tags = {"k": "v", "ü": "", "%'": "w"}
    open: list[Operation] = [
        Create(begin("open", input=LARGE, tags=tags)),
        runs("open", state=waiting(OTHER)),
        Post(sent("open"), "once"),
        Post(sent("open", OTHER)),
        Post(Message("open", raised(), is_control=True)),
    ]
    done: list[Operation] = [
        Create(begin("done", "x1", OWN, tags=tags)),
        Post(sent("done"), "once"),
        Post(sent("done", LARGE)),
        lives_on("done", 1, "x1", "x2", OTHER),
        ends("done", 3, execution="x2", output=LARGE),
        Create(begin("done:child", input=OWN, parent="done")),
        ends("done:child", 1, output=OWN),
    ]
    long: list[Operation] = [Create(begin("long", "x0", OWN))]
    long += [lives_on("long", 2 * n + 1, f"x{n}", f"x{n + 1}", OTHER) for n in range(PAST)]
    long += [runs("long", 2 * PAST + 1, execution=f"x{PAST}")]
    failed: list[Operation] = [
        Create(begin("failed", tags={"k": "v"})),
        Post(sent("failed")),
        runs("failed", 1, state=RowState(Status.RUNNING, 0)),
        ends("failed", 2, Status.FAILED, wake_at=0, orphans=owed()),
        Create(begin("broken", input=LARGE)),
        runs("broken", 1),
        ends("broken", 2, Status.FAILED),
    ]
    aside: list[Operation] = [
        Create(begin("parked")),
        runs("parked"),
        Post(sent("parked", LARGE)),
        Park("parked", "x1", b"RF000: a problem"),
        Create(begin("suspended")),
        runs("suspended", chunk=piece(ExecutionSuspended()), state=RowState(Status.SUSPENDED, None)),
        Create(begin("new", input=OWN)),
        Create(begin("works", name="chain")),
        runs("works", chunk=piece(TaskScheduled(1, "count", SMALL)), state=RowState(Status.RUNNING, 0)),
        Create(begin("alone")),
        runs("alone"),
        Create(begin("@c@1", name="@c")),
    ]
    return [open, done, long, failed, aside]
