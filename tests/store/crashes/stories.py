"""Whole orchestrations on a file, killed after each of their transactions, and before and after whatever follows from them.

1. When an activity begins, the file has that it was scheduled (I3). When a client is told, it has what the client was told of (I6).
2. From whatever is on the file the next worker comes to the same end: each instance with its result, in each history everything asked once and
   answered once, every signal counted once, what a transactional activity writes written once (I4, I5).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from replayflow import (
    ActivityContext,
    App,
    Client,
    EntityContext,
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidStateError,
    Limits,
    Orchestration,
    OrchestrationContext,
    Retention,
    RetryPolicy,
    Saga,
    TaskHub,
    Transaction,
    when_all,
)
from replayflow.core import events
from replayflow.core.events import TaskScheduled
from replayflow.store import Store
from tests.engine.kit import audit
from tests.store.crashes import cuts
from tests.store.crashes.contents import Contents, contents_now, faults, recovered
from tests.store.crashes.files import Files, laid
from tests.store.crashes.matrix import Tally, on_file
from tests.store.crashes.recording import Point, Recording

SOON = timedelta(milliseconds=1)
LARGE = "a large payload " * 20
PATIENCE = 20
Heard = Callable[[str, str, int], None]
"""Told of what is an effect, or an answer: what it is, of whom, and which of theirs."""


def nobody(*_: object) -> None:
    pass


def app_of(heard: Heard) -> App:
    """The code: an orchestrator for each kind of effect that a commit can have."""
    app = App()
    _add_activities(app, heard)
    _add_callers(app)
    _add_sleepers(app)
    _add_families(app)
    _add_talkers(app)
    return app


def _add_activities(app: App, heard: Heard) -> None:
    """One that is heard, one that fails at first, one whose effect is in the commit of its result."""

    @app.activity
    async def double(ctx: ActivityContext, x: int) -> int:
        heard("activity", ctx.instance_id, ctx.task_id)
        return 2 * x

    @app.activity(retry=RetryPolicy(max_attempts=2, first_interval=SOON))
    async def second_time(ctx: ActivityContext, x: int) -> int:
        heard("activity", ctx.instance_id, ctx.task_id)
        if ctx.attempt == 1:
            raise ValueError("not yet")
        return x

    @app.activity(transactional=True)
    def save(tx: Transaction, x: int) -> int:
        tx.execute("CREATE TABLE IF NOT EXISTS saved (x INTEGER)")
        tx.execute("INSERT INTO saved VALUES (?)", (x,))
        return x


def _add_callers(app: App) -> None:
    """Those that ask for activities: with a result, in vain, and to be undone."""

    @app.orchestrator
    def calls(ctx: OrchestrationContext) -> Orchestration[list[int]]:
        first = yield from ctx.call_activity("double", 1, result_type=int)
        doubled = ctx.call_activity("double", first, result_type=int)
        return (yield from when_all([doubled, ctx.call_activity("second_time", 3, result_type=int)]))

    @app.orchestrator
    def saves(ctx: OrchestrationContext) -> Orchestration[int]:
        first = yield from ctx.call_activity("save", 1, result_type=int)
        second = yield from ctx.call_activity("save", 2, result_type=int)
        return first + second

    @app.orchestrator
    def owes(ctx: OrchestrationContext) -> None:
        ctx.call_activity("save", 3)
        raise ValueError("it is owed all the same")

    @app.orchestrator
    def undoes(ctx: OrchestrationContext) -> Orchestration[str]:
        def body(saga: Saga) -> Orchestration[None]:
            yield from saga.run("double", "double", 1)
            raise ValueError("on second thoughts")

        try:
            yield from ctx.saga(body)
        except ValueError:
            return "undone"
        return "done"


def _add_sleepers(app: App) -> None:
    """Those that come back: after a while, and as another execution."""

    @app.orchestrator
    def sleeps(ctx: OrchestrationContext) -> Orchestration[str]:
        ctx.set_custom_status(LARGE)
        yield ctx.create_timer(SOON)
        return LARGE

    @app.orchestrator
    def rounds(ctx: OrchestrationContext, left: int) -> Orchestration[str]:
        yield ctx.call_activity("double", left)
        if left:
            ctx.continue_as_new(left - 1)
        return "round"


def _add_families(app: App) -> None:
    """Those that are called by others, one by one and as a map."""

    @app.orchestrator
    def child(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
        return (yield from ctx.call_activity("double", x, result_type=int))

    @app.orchestrator
    def parent(ctx: OrchestrationContext) -> Orchestration[int]:
        children = [ctx.call_sub_orchestrator(child, x, instance_id=f"child-{x}") for x in (1, 2)]
        return sum((yield from when_all(children)))

    @app.orchestrator
    def maps(ctx: OrchestrationContext) -> Orchestration[int]:
        return sum((yield from ctx.map(child, range(3), concurrency=2)).succeeded)


def _add_talkers(app: App) -> None:
    """Those that send messages to each other, and hear them."""

    @app.entity
    def tally(ctx: EntityContext[int | None], more: int = 0) -> int:
        after = ctx.state = (ctx.state or 0) + more
        return after

    @app.orchestrator
    def listens(ctx: OrchestrationContext, times: int) -> Orchestration[list[Any]]:
        got = []
        for _ in range(times):
            got.append((yield ctx.wait_for_external_event("word")))  # noqa: PERF401 - a generator yields
        return got

    @app.orchestrator
    def speaks(ctx: OrchestrationContext) -> Orchestration[int]:
        ctx.send_event("listens", "word", LARGE)
        ctx.signal_entity("@tally@all", "add", 1)
        return (yield from ctx.call_entity("@tally@all", "add", 1, result_type=int))


ENDS: dict[str, Any] = {
    "calls": [4, 3],
    "sleeps": LARGE,
    "parent": 6,
    "listens": [LARGE, "from outside", "with a start"],
    "speaks": 2,
    "saves": 3,
    "rounds": "round",
    "maps": 6,
    "undoes": "undone",
}


async def live(client: Client, told: Heard) -> None:
    """What clients ask for. All of it can be asked again, which changes nothing where it was heard before.

    Raises:
        AssertionError: something came to another end.
    """

    async def start(name: str, *input: Any) -> None:
        await client.start(name, *input, instance_id=name, on_existing="return")
        told("start", name, 0)

    async def end(name: str) -> None:
        assert await client.get(name).result(timeout=PATIENCE) == ENDS[name], name
        told("end", name, 0)

    for name in ("calls", "sleeps", "parent", "saves", "maps", "undoes"):
        await start(name)
        await end(name)
    await start("rounds", 2)
    await end("rounds")
    await start("listens", 3)
    await start("speaks")
    await end("speaks")
    with suppress(InstanceFinishedError):
        await client.get("listens").raise_event("word", "from outside", dedupe_key="outside")
        told("event", "listens", 1)
    with suppress(InstanceFinishedError):
        await client.signal_with_start("listens", 3, "word", "with a start", instance_id="listens", dedupe_key="start")
        told("event", "listens", 2)
    await end("listens")
    await start("owes")
    await client.get("owes").wait(timeout=PATIENCE)
    await until_paid(client._store, "owes")
    await _end_at_once(client, told)
    await _purge(client, told)


async def _end_at_once(client: Client, told: Heard) -> None:
    """An instance that is suspended, resumed and terminated."""
    instance = await client.start("listens", 9, instance_id="ended", on_existing="return")
    for verb in ("suspend", "resume", "terminate"):
        with suppress(InstanceFinishedError, InvalidStateError):
            verbs: dict[str, Callable[[], Awaitable[None]]] = {
                "suspend": lambda: instance.suspend("a look"),
                "resume": lambda: instance.resume(),
                "terminate": lambda: instance.terminate("enough"),
            }
            await verbs[verb]()
            told(verb, "ended", 0)
    assert (await instance.wait(timeout=PATIENCE)).status == "TERMINATED"


async def until_paid(store: Store, id: str) -> None:
    """What the instance has left to be done when it ended has been done."""
    for _ in range(PATIENCE * 100):
        record = await store.get(id)
        assert record is not None
        if record.orphans is None:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"'{id}' owes still")


async def _purge(client: Client, told: Heard) -> None:
    with suppress(InstanceNotFoundError):
        await client.get("ended").purge()
    told("purge", "ended", 0)


@dataclass(slots=True)
class Story:
    """A life from the first transaction to the last, and what followed from them when."""

    recording: Recording
    whole: Files = field(default_factory=lambda: Files(b""))
    """What was on the file when it was over, with the log of all of it."""
    effects: list[tuple[Point, str, str, int]] = field(default_factory=list)


def _limits() -> dict[str, Any]:
    return {"limits": Limits(), "retention": Retention(executions=1)}


async def told(folder: Path, lived: Callable[[Client, Heard], Awaitable[None]] = live) -> Story:
    """The story, lived once without a crash."""
    with laid(Files(b""), folder) as path:
        recording = Recording(path)
        story = Story(recording)

        def heard(what: str, whose: str, number: int) -> None:
            point = recording.passed(f"{what} {whose} {number}")
            story.effects.append((point, what, whose, number))

        with recording.running():
            async with TaskHub(on_file(path), app_of(heard), **_limits()) as hub:
                await lived(hub.client, heard)
                story.whole = recording.passed("the end").files
    return story


def check_effects(story: Story, folder: Path) -> int:
    """What had an effect, or was told of, is on the file as it was then; returns how many such there were.

    Raises:
        AssertionError: it is not.
    """
    for point, what, whose, number in story.effects:
        found = recovered(point.files, folder)
        assert _has(found, what, whose, number), f"{what} of '{whose}', number {number}, came before it was durable"
    return len(story.effects)


def check_log(story: Story, folder: Path, one_of: int = 1) -> Tally:
    """The log of the whole story, cut at each of its frames and within it, gives the last commit that is whole; one cut of so many is tried.

    That is a disk that lies about its syncs, or that is not waited for (`synchronous="NORMAL"`): commits are lost, whole ones, and the last ones.

    Raises:
        AssertionError: it gives something else.
    """
    log = story.whole.log
    assert log is not None
    state_of_commits = story.recording.state_of_commits(log)
    tally = Tally()
    for cut in islice(cuts.of_log(story.whole, is_thorough=False), 0, None, one_of):
        state = state_of_commits[cut.commits]
        assert recovered(cut.files, folder) == story.recording.states[state], cut.where
        tally.cuts += 1
    return tally


def _has(found: Contents, what: str, whose: str, number: int) -> bool:
    rows = {
        name: [dict(zip(columns, row, strict=True)) for row in each] for name, (columns, each) in found.items() if name
    }
    instance = next((row for row in rows.get("instance", []) if row["id"] == whose), None)
    if what == "purge":
        return instance is None
    if instance is None:
        return False
    key = instance["key"]
    pieces = [row["events"] for row in rows["history"] if row["instance"] == key]
    match what:
        case "activity":
            facts = [fact for one in pieces for fact in events.decode(one)]
            return any(isinstance(fact, TaskScheduled) and fact.event_id == number for fact in facts)
        case "event":
            waiting = [row["event"] for row in rows["inbox"] if row["instance"] == key and row["event"] is not None]
            raised = [f for one in (*pieces, *waiting) for f in events.decode(one) if isinstance(f, events.EventRaised)]
            return len(raised) >= number
        case "end":
            return instance["completed_at"] is not None
        case _:
            return True


async def check_ends(files: Files, folder: Path) -> Tally:
    """The next worker brings everything to its right end, and so does a third: nothing is left to do, and nothing is done twice.

    Raises:
        AssertionError: it does not.
    """
    with laid(files, folder) as path:
        async with TaskHub(on_file(path), app_of(nobody), **_limits()) as hub:
            await live(hub.client, nobody)
            await audit(hub.client)
            entity = await hub.client.get_entity("@tally@all")
            assert entity is not None
            assert await hub.client.read_entity("@tally@all") == 2
        with closing(sqlite3.connect(path)) as connection:
            assert Counter(x for (x,) in connection.execute("SELECT x FROM saved")) == Counter([1, 2, 3])
        found = contents_now(path)
    assert (wrong := faults(found)) == [], wrong
    return Tally(resumptions=1)


def lives(story: Story) -> list[Files]:
    """The files that differ, in their order: one for each transaction, and what is between."""
    return list(dict.fromkeys(point.files for point in story.recording.points))
