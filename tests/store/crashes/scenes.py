"""What is done to the hub of `world.py`: every durable operation, in each of its shapes.

Each scene says what a worker, a client or somebody with a connection of their own asks for. The same is asked of the memory store, which is the
specification of what comes of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import pytest
from msgspec.structs import replace

from replayflow import sqlite
from replayflow.archive import transfer
from replayflow.archive.lines import Archived
from replayflow.clock import SystemClock
from replayflow.codec.reference import reference_to
from replayflow.core.commit import Message, RowState, Turn
from replayflow.core.events import CustomStatusSet, EventRaised, TaskCompleted, TaskScheduled
from replayflow.core.instance import Status
from replayflow.core.suspicion import Suspicion
from replayflow.core.transaction import Statements
from replayflow.errors import InstanceExistsError, LeaseLostError
from replayflow.store import MemoryStore, SqliteStore, Store
from replayflow.store.base import (
    Branch,
    Branched,
    Create,
    OnExisting,
    Operation,
    Outcome,
    Park,
    Post,
    Purge,
    Raised,
    Seen,
    Served,
    Transact,
    Trim,
)
from tests.store.builders import EVERYTHING, OWNER
from tests.store.crashes.world import (
    LARGE,
    LARGE_OVER_BYTES,
    OTHER,
    OWN,
    PAST,
    SMALL,
    app,
    begin,
    build,
    ends,
    lives_on,
    owed,
    piece,
    raised,
    runs,
    sent,
    waiting,
)


@dataclass(slots=True)
class Stage:
    """A store with the world in it, owned under `epoch`."""

    store: Store
    epoch: int

    async def works(self, *operations: Operation) -> list[Outcome]:
        return await self.store.write(operations, self.epoch)

    async def asks(self, *operations: Operation) -> list[Outcome]:
        return await self.store.write(operations)

    async def numbers(self, id: str) -> list[int]:
        """Of the messages in the instance's inbox."""
        [loaded] = await self.store.load([id])
        return [delivery.number for delivery in loaded.inbox]


Act = Callable[[Stage], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Scene:
    """`act` is what is done; what it returns is the same on every store."""

    name: str
    act: Act
    begins_empty: bool = False
    is_in_memory: bool = True
    """Whether the memory store knows of such a thing."""
    commits: int = 1
    """How many transactions it may be; all else is one, or changes nothing."""
    is_known: bool = True
    """Whether it comes to the same in every run, and makes up no id and no time."""

    def __str__(self) -> str:
        return self.name


SCENES: dict[str, Scene] = {}


def scene(name: str, **more: Any) -> Callable[[Act], Act]:
    def add(act: Act) -> Act:
        SCENES[name] = Scene(name, act, **more)
        return act

    return add


def worker(name: str, *operations: Callable[[], Operation]) -> None:
    """A scene in which the worker writes a group. Operations are made anew for each store: a store may keep what it is given."""

    async def act(stage: Stage) -> object:
        return await stage.works(*[make() for make in operations])

    scene(name)(act)


def client(name: str, *operations: Callable[[], Operation]) -> None:
    """A scene in which a client writes a group."""

    async def act(stage: Stage) -> object:
        return await stage.asks(*[make() for make in operations])

    scene(name)(act)


# ---- Create


def _creates(id: str, on_existing: OnExisting, execution: str = "y1") -> Create:
    return Create(begin(id, execution, OTHER), on_existing, Message(id, raised(LARGE, "replaced"), is_control=True))


client("create", lambda: Create(begin("fresh")))
client("create with tags and a large input", lambda: Create(begin("fresh", input=OWN, tags={"k": "v", "n": "m"})))
client("create under an id made up for it", lambda: Create(begin("fresh"), has_new_id=True))
client("create what passes on a reference", lambda: Create(begin("fresh", input=reference_to(LARGE))))
client(
    "create what passes on a reference to nothing",
    lambda: Create(begin("fresh", input=reference_to(b"\xc4\x60" + b"?" * 96))),
)
worker("create by the worker, without a nudge", lambda: Create(begin("fresh", parent="open")))
client("create an entity", lambda: Create(begin("@c@2", name="@c")))
for _choice in get_args(OnExisting):
    for _id in ("open", "done"):
        client(f"create over '{_id}' with {_choice}", partial(_creates, _id, _choice))

# ---- Post

client("post", lambda: Post(sent("open")))
client("post a large payload", lambda: Post(sent("open", OWN)))
client("post with a key", lambda: Post(sent("open"), "new key"))
client("post with a key that was there", lambda: Post(sent("open", OWN), "once"))
client("post with a key that was there, after the end", lambda: Post(sent("done", OWN), "once"))
client("post to what has finished", lambda: Post(sent("done", OWN), "new key"))
client("post to nobody", lambda: Post(sent("nobody", OWN), "new key"))
client("post to another execution", lambda: Post(sent("open", OWN, execution="x9")))
client("post that starts", lambda: Post(sent("fresh", OTHER, start=begin("fresh", input=OWN)), "key"))
client("post with a start to what runs", lambda: Post(sent("open", start=begin("open", "y1", OWN)), "key"))
client(
    "post that replaces what has finished",
    lambda: Post(sent("done", OTHER, start=begin("done", "y1")), "once more", replaces_finished=True),
)
client("post to what is parked", lambda: Post(sent("parked", LARGE)))
client("post of control", lambda: Post(Message("suspended", raised(), is_control=True)))

# ---- Turn and Commit


def _turn(input: bytes = SMALL, sequence: int = 2) -> Turn:
    came, asked = TaskCompleted(1, SMALL), TaskScheduled(2, "count", input)
    return Turn("works", "x1", sequence, 4, piece(came, asked, at=4), came=came, asked=asked)


worker("turn", _turn)
worker("turn of a large payload", lambda: _turn(OWN))
worker("turn that does not continue", lambda: _turn(OWN, 7))
worker("commit a piece", lambda: runs("alone", 2, state=None))
worker("commit a state", lambda: runs("alone", 2, state=waiting(SMALL)))
worker(
    "commit a large piece and a large state",
    lambda: runs("alone", 2, chunk=piece(EventRaised("e", OWN), CustomStatusSet(LARGE)), state=waiting(LARGE)),
)
worker("commit a state without a piece", lambda: runs("open", 2, chunk=None, state=replace(waiting(OTHER), wake_at=7)))
worker("commit the first episode", lambda: runs("new", 1))
worker("commit an end", lambda: ends("alone"))
worker("commit an end with a large output", lambda: ends("open", 2, output=OWN))
worker("commit a failure that owes", lambda: ends("alone", 2, Status.FAILED, wake_at=0, orphans=owed()))
worker(
    "commit that a debt is paid",
    lambda: runs("failed", 3, chunk=None, state=RowState(Status.FAILED, None, completed_at=3)),
)
worker("commit what does not continue", lambda: runs("open", 9, chunk=piece(EventRaised("e", OWN))))
worker("commit of another execution", lambda: runs("open", 2, execution="x9"))
worker(
    "commit that starts", lambda: runs("open", 2, starts=[begin("fresh", input=OWN, parent="open"), begin("fresher")])
)
worker(
    "commit that starts what is taken",
    lambda: runs("open", 2, starts=[begin("alone", "y1", if_taken=sent("open", OWN, execution="x1"))]),
)
worker(
    "commit that sends", lambda: runs("open", 2, messages=[sent("alone", LARGE), sent("parked"), sent("nobody", OWN)])
)
worker(
    "commit that sends to an entity that is not",
    lambda: runs("open", 2, messages=[sent("@c@2", start=begin("@c@2", name="@c"))]),
)
worker("commit that continues as new", lambda: lives_on("open", 2, "x1", "x2", OWN))
worker(
    "commit that continues as new and forgets", lambda: lives_on("long", 2 * PAST + 2, f"x{PAST}", "y1", past_kept=2)
)
worker(
    "commit that continues as new and forgets all",
    lambda: lives_on("long", 2 * PAST + 2, f"x{PAST}", "y1", LARGE, past_kept=0),
)
worker("commit that removes", lambda: ends("alone", 2, removes=True))
worker("commit that would remove, and the inbox is not empty", lambda: ends("open", 2, removes=True))


@scene("commit what was read")
async def _consumes(stage: Stage) -> object:
    numbers = await stage.numbers("open")
    facts = [EventRaised("e", SMALL), EventRaised("e", OTHER), EventRaised("e", SMALL)]
    return await stage.works(runs("open", 2, chunk=piece(*facts), consumed=numbers))


@scene("commit all at once")
async def _all_at_once(stage: Stage) -> object:
    numbers = await stage.numbers("open")
    commit = lives_on("open", 2, "x1", "x2", OWN, past_kept=0, consumed=numbers)
    commit.starts = [begin("fresh", input=OTHER, parent="open")]
    commit.messages = [sent("alone", LARGE), sent("fresh", OWN)]
    return await stage.works(commit)


@scene("commit that removes an entity with what it has read")
async def _removes_an_entity(stage: Stage) -> object:
    numbers = await stage.numbers("@c@1")
    return await stage.works(ends("@c@1", 1, consumed=numbers, removes=True))


# ---- Park, Purge, Trim, Branch

worker("park", lambda: Park("alone", "x1", b"RF000: a problem"))
worker(
    "park with what was in memory", lambda: Park("open", "x1", b"RF000: a problem", [sent("open", OWN), sent("open")])
)
worker("park what has moved on", lambda: Park("open", "x9", b"RF000: a problem", [sent("open", OWN)]))
worker("free what was parked", lambda: Park("parked", "x1", None))
client("purge", lambda: Purge("done", at=86_400_000_000))
client("purge a child", lambda: Purge("done:child", "x1", 1))
client("purge a tree", lambda: Purge("done:child", at=1), lambda: Purge("done", at=1))
worker("purge by retention", lambda: Purge("broken", at=1, cause="retention"))
client("purge what runs", lambda: Purge("open"))
client("purge what owes", lambda: Purge("failed"))
client("purge nothing", lambda: Purge("nobody"))
client("purge another execution", lambda: Purge("done", "x9"))
worker("trim", lambda: Trim("long", 2))
worker("trim all", lambda: Trim("long", 0))
worker("trim nothing", lambda: Trim("open", 3))


def _rewound(execution: str = "y1") -> Branched:
    start = begin("broken", execution, LARGE, is_first=False)
    return Branched(start, [(2, piece()), (4, piece(EventRaised("e", OWN), at=4))], waiting(), "x1", 2, 99)


client("rewind", lambda: Branch([_rewound()], [Seen("broken", "x1")], messages=[sent("broken", OTHER, execution="y1")]))
client(
    "restart", lambda: Branch([Branched(begin("broken", "y1", LARGE), [], RowState(Status.PENDING, 0), "x1", 2, 99)])
)
client(
    "fork",
    lambda: Branch(
        [Branched(begin("fork", "y1", OWN), [(2, piece(CustomStatusSet(LARGE)))], waiting(LARGE))], [Seen("open")]
    ),
)
client(
    "rewind with children",
    lambda: Branch(
        [_rewound(), Branched(begin("fork"), [(2, piece())], waiting())], starts=[begin("fresh", input=OWN)]
    ),
)
client("rewind what has moved on", lambda: Branch([_rewound(), Branched(begin("open"), [], waiting(), "x1", 1)]))
worker("rewind by the worker", lambda: Branch([_rewound()]))
client(
    "fork onto what is taken",
    lambda: Branch([Branched(begin("alone", "y1", OWN), [], waiting())], starts=[begin("fresh")]),
)

# ---- groups

worker(
    "group of all kinds",
    lambda: Create(begin("fresh", input=OWN)),
    lambda: runs("fresh", 1),
    lambda: Post(sent("fresh", LARGE), "key"),
    _turn,
    lambda: ends("alone", 2, output=OWN),
    lambda: Park("suspended", "x1", b"RF000: a problem"),
    lambda: Purge("done:child", at=1),
    lambda: Trim("long", 1),
    lambda: Branch([_rewound()]),
)
worker(
    "group with refused members",
    lambda: Create(begin("fresh", input=OWN)),
    lambda: Create(begin("open", "y1", OWN)),
    lambda: runs("open", 9, starts=[begin("never", input=OTHER)], messages=[sent("alone", OWN)]),
    lambda: Post(sent("nobody", OWN)),
    lambda: Purge("open"),
    lambda: ends("alone"),
)
worker(
    "group with what cannot be stored",
    lambda: Create(begin("fresh", input=OWN)),
    lambda: Create(begin("bad", tags={"k": "\0"})),
    lambda: ends("alone"),
)
worker(
    "instance that begins, moves, ends and goes in a group",
    lambda: Create(begin("fresh", input=OWN)),
    lambda: runs("fresh", 1),
    lambda: ends("fresh", 2),
    lambda: Purge("fresh", at=1),
    lambda: Create(begin("fresh", "x2")),
)
worker(
    "group of many",
    *[
        lambda n=n: Create(begin(f"many{n}", input=b"\xc4\x60" + bytes([n]) * 96, tags={"n": str(n)}))
        for n in range(60)
    ],
)


@scene("group under a lost lease")
async def _lost(stage: Stage) -> object:
    with suppress(LeaseLostError):
        return await stage.store.write([Create(begin("fresh")), ends("alone")], stage.epoch - 1)
    return "lost"


# ---- the hub's own


@scene("release")
async def _release(stage: Stage) -> None:
    await stage.store.release()


@scene("release and acquire", commits=2)
async def _acquire(stage: Stage) -> object:
    await stage.store.release()
    return await stage.store.acquire(OWNER)


@scene("acquire after a death", is_in_memory=False, commits=2)
async def _after_a_death(stage: Stage) -> object:
    """Two deaths with the same in flight: the second makes suspects of them."""
    store = stage.store
    assert isinstance(store, SqliteStore)
    for _ in range(2):
        store._lock.release()  # as death does, and only the row says who it was
        stage.epoch = await store.acquire(OWNER)
    return [suspect.instance_id for suspect in await store.suspects()]


@scene("suspect", is_in_memory=False, commits=3)
async def _suspect(stage: Stage) -> None:
    await _after_a_death(stage)
    held = await stage.store.suspects()
    found: dict[str, Suspicion | None] = {one.instance_id: one.suspicion.watched() for one in held}
    found[held[0].instance_id] = None
    await stage.store.suspect(found, stage.epoch)


@scene("keep what is served")
async def _served(stage: Stage) -> None:
    await stage.store.keep_served([Served("order", None, "new"), Served("order", "2", "newer", True)], stage.epoch)


# ---- transactional activities


def _counts(result: bytes = SMALL, *, fails: bool = False) -> Callable[[Statements], bytes]:
    def run(statements: Statements) -> bytes:
        statements.execute("CREATE TABLE IF NOT EXISTS own (n INTEGER PRIMARY KEY, text)", ())
        for n in range(3):
            statements.execute("INSERT INTO own (text) VALUES (?)", (f"{n}" * 500,))
        statements.execute("UPDATE own SET text = text || n WHERE n < 3", ())
        if fails:
            raise ValueError("on second thoughts")
        return raised(result)

    return run


def transactional(name: str, *runs: Callable[[], Transact]) -> None:
    async def act(stage: Stage) -> object:
        came: list[object] = []
        for make in runs:
            try:
                came.append(await stage.store.transact(make(), stage.epoch))
            except Raised as error:
                came.append(type(error.error))
        return came

    scene(name)(act)


transactional("transact", lambda: Transact("open", "x1", 1, _counts(), 5))
transactional("transact with a large result", lambda: Transact("open", "x1", 1, _counts(OWN), 5))
transactional(
    "transact what fails, and again",
    *[lambda f=f: Transact("open", "x1", 1, _counts(fails=f), 5) for f in (True, False)],
)
transactional("transact twice", *[lambda: Transact("open", "x1", 1, _counts(), 5) for _ in range(2)])
transactional("transact what is owed", lambda: Transact("failed", "x1", 1, _counts(OWN), 5))
transactional("transact what nobody waits for", lambda: Transact("done", "x1", 1, _counts(), 5))


# ---- the caller's own transaction


def own_transaction(name: str, work: Callable[[sqlite3.Connection], object], *, comes_to_nothing: bool = False) -> None:
    """The work is done in a transaction of somebody else's. The memory store has no such, and is the same where nothing comes of it."""

    async def act(stage: Stage) -> object:
        if isinstance(stage.store, SqliteStore):
            with closing(sqlite3.connect(stage.store.path, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                work(connection)
                if connection.in_transaction:
                    connection.execute("COMMIT")
        return None

    scene(name, is_in_memory=comes_to_nothing, is_known=comes_to_nothing)(act)


def _starts(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE orders (n INTEGER PRIMARY KEY, total)")
    connection.execute("INSERT INTO orders (total) VALUES (7), (8)")
    sqlite.start(connection, "order", 7, instance_id="fresh", app=app, tags={"k": "v"})
    connection.execute("UPDATE orders SET total = total + 1")


def _signals(connection: sqlite3.Connection) -> None:
    sqlite.raise_event(connection, "open", "e", "mine", dedupe_key="mine")
    sqlite.signal_with_start(connection, "order", 1, "e", 2, instance_id="fresh", app=app)


def _refused(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE orders (n)")
    with suppress(InstanceExistsError):
        sqlite.start(connection, "order", 7, instance_id="open", app=app)
    connection.execute("INSERT INTO orders VALUES (1)")


def _rolls_back(connection: sqlite3.Connection) -> None:
    _starts(connection)
    connection.execute("ROLLBACK")


own_transaction("start in the caller's transaction", _starts)
own_transaction("events in the caller's transaction", _signals)
own_transaction("a refusal in the caller's transaction", _refused, comes_to_nothing=True)
own_transaction("a start that the caller rolls back", _rolls_back, comes_to_nothing=True)


# ---- the hub as a whole


@scene("make the hub", begins_empty=True, commits=0)
async def _nothing_more(stage: Stage) -> object:
    return None


async def archive() -> list[Archived]:
    """The world, as an export has it."""
    store = MemoryStore(large_over_bytes=LARGE_OVER_BYTES)
    await store.open()
    await build(store)
    page = await store.page(EVERYTHING, 1_000)
    return [one for one in [await transfer.exported(store, r.instance_id) for r in page.records] if one is not None]


@scene("import", begins_empty=True, commits=7, is_known=False)
async def _import(stage: Stage) -> object:
    """In several transactions, each of whole instances."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "_OPERATIONS_PER_GROUP", 8)
        return await transfer.imported(stage.store, await archive(), FixedClock())


class FixedClock(SystemClock):
    def now(self) -> int:
        return 5
