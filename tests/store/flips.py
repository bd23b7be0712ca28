"""Flipped bits: whatever byte of a hub's file is another than was written, what is read is equal, or refused, or, where the thorough look finds a
fault, missing. It is never something else.

python -m tests.store.flips [--every 1] [--seed 0]

1. Each question that the port answers is asked of the sound file, and of each flipped one.
2. The thorough look finds a fault wherever an answer differs, and wherever a table has other rows than before.
3. Nothing raises but errors of stores.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from replayflow.core import events
from replayflow.core.commit import RowState
from replayflow.core.events import OrchestratorStarted, TaskCompleted
from replayflow.core.instance import Status
from replayflow.core.suspicion import Suspicion
from replayflow.errors import StoreError
from replayflow.store import SqliteStore
from replayflow.store.base import (
    Delivery,
    InstanceFilter,
    InstanceRecord,
    Loaded,
    Page,
    Park,
    Post,
    Purge,
    Served,
    Transact,
    Waiting,
    Wake,
)
from replayflow.store.sqlite import audit, finding, hub, reading, schema, sums, suspects
from replayflow.store.sqlite.connection import SQLITE_ERRORS, of_sqlite_error
from replayflow.store.sqlite.statements import SQL
from tests.store.builders import OWNER, accepted, commit, create, message, shown, start

PATH = Path("hub.db")
PAGE_BYTES = 512
LARGE = b"\xc4" + bytes(range(256))
_TABLES = """SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"""


async def fill(path: Path) -> None:
    """The file is a hub that has something of everything."""
    store = SqliteStore(path, large_over_bytes=200)
    await store.open()
    epoch = await store.acquire(OWNER)
    write = partial(accepted, store, epoch=epoch)
    for n in range(6):
        id, tags = f"order-{n}", {"region": "eu" if n % 2 else "us", "n": str(n)}
        await accepted(store, create(f"plain-{n}", at=100 + n))
        await write(
            commit(
                f"plain-{n}",
                at=200 + n,
                state=RowState(Status.RUNNING, 10_000 + n, b"\xa4half"),
                starts=[start(id, at=300 + n, name="ship", version="2", tags=tags, parent=f"plain-{n}")],
            )
        )
        await write(*(commit(id, sequence=piece, at=400 + piece, chunk=b"piece %d" % piece) for piece in range(1, 5)))
    await write(commit("order-0", sequence=5, state=shown(Status.COMPLETED)))
    await write(commit("order-1", sequence=5, state=RowState(Status.FAILED, None, failure=b"why", completed_at=5_000)))
    for execution in range(1, 4):
        state = RowState(Status.CONTINUED_AS_NEW, None, b"\xa4kept", completed_at=None)
        next_start = start("eternal", f"x{execution + 1}", at=50)
        if execution == 1:
            await write(create("eternal", "x1", at=50))
        last = (await store.load(["eternal"]))[0]
        first = last.record.start_number + 1
        await write(commit("eternal", f"x{execution}", first, at=600, state=RowState(Status.RUNNING, None)))
        await write(commit("eternal", f"x{execution}", first + 1, at=601, state=state, next_start=next_start))
    await accepted(
        store, Post(message("order-2", b"paid"), "payment-1"), Post(message("order-3", b"paid"), "payment-2")
    )
    await write(Park("order-4", "x1", b"the code is another by now"))
    large = events.encode([OrchestratorStarted(1), TaskCompleted(1, LARGE)])
    await write(commit("order-5", sequence=5, chunk=large, state=RowState(Status.RUNNING, None, LARGE)))
    await accepted(store, Post(message("order-5", events.encode([TaskCompleted(2, LARGE * 2)]))))
    await write(create("@counter@a", at=700), create("gone", at=701))
    await write(commit("gone", state=RowState(Status.COMPLETED, None, completed_at=9)), Purge("gone", at=10))
    await store.transact(Transact("plain-3", "x1", 7, lambda _: b"result", 9.0), epoch)
    await store.keep_served([Served("ship", "2", "digest", True), Served("order", None, "other")], epoch)
    await store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # Whoever died has left a suspicion.
        now = connection.execute("SELECT key, start_number FROM instance WHERE id = 'plain-1'").fetchone()
        held = {now[0]: Suspicion(now[1], True, False, 1, 2, 0, 0)}
        suspects_rows = [(key, *suspects._row(one)) for key, one in held.items()]
        for row in suspects_rows:
            connection.execute("INSERT INTO suspect VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, sums.of_row(*row)))
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # small, so that not much of the file is empty
        connection.execute("VACUUM")


# ---- what is asked ---------------------------------------------------------------------------------------------


def questions(
    ids: Sequence[str], keys: Sequence[tuple[str, str]], references: Sequence[bytes]
) -> dict[str, Callable[..., Any]]:
    """What can be asked of a store, by name."""
    asked: dict[str, Callable[[sqlite3.Connection], Any]] = {
        "owner": lambda c: hub.read(c)[0],
        "wakes": lambda c: reading.wakes(c, None, 1_000),
        "arrived": lambda c: reading.arrived(c, 0, 1_000, None),
        "waiting": lambda c: reading.waiting(c, None, 1_000, None),
        "served": reading.served,
        "suspects": suspects.held,
        "open versions": reading.open_versions,
        "footprint": lambda c: reading.footprint(c).purged,
        "page": lambda c: reading.shown(c, finding.page(c, InstanceFilter(), 100, None, False), None),
        "count": lambda c: finding.count(c, InstanceFilter(), "status"),
        "tagged": lambda c: reading.shown(
            c, finding.page(c, InstanceFilter(tags=(("region", "eu"),)), 100, None, False), None
        ),
        "fetch": lambda c: reading.fetch(c, references, None),
    }
    for id in ids:
        asked[f"get {id}"] = partial(_get, id)
        asked[f"load {id}"] = partial(_load, id)
        asked[f"history {id}"] = partial(_history, id, None)
    for execution in ("x1", "x2", "x3"):
        asked[f"past {execution}"] = partial(_history, "eternal", execution)
    asked["executions"] = lambda c: reading.executions(c, "eternal")
    for id, key in keys:
        asked[f"is {key} repeated"] = partial(_is_repeated, id, key)
    return asked


def _get(id: str, connection: sqlite3.Connection) -> InstanceRecord | None:
    found = reading.records(connection, [id], None).get(id)
    if isinstance(found, Exception):
        raise found
    return found


def _load(id: str, connection: sqlite3.Connection) -> Loaded | None:
    return next(iter(reading.load(connection, [id], None, True)), None)


def _history(id: str, execution_id: str | None, connection: sqlite3.Connection) -> list[bytes]:
    return reading.history(connection, id, execution_id, None, True)


def _is_repeated(id: str, key: str, connection: sqlite3.Connection) -> bool:
    """Whether the instance has had the dedupe key."""
    found = reading.records(connection, [id], None).get(id)
    if isinstance(found, Exception):
        raise found
    key_of = connection.execute(SQL["key_of"], (id,)).fetchone()
    return key_of is not None and connection.execute(SQL["is_repeated"], (key_of[0], key)).fetchone() is not None


@dataclass(frozen=True)
class Refused:
    """The answer is an error of the store's."""

    text: str


def answers(connection: sqlite3.Connection, asked: dict[str, Callable[..., Any]]) -> dict[str, Any]:
    """What is answered, or how it is refused; any other error goes on to the caller."""
    return {name: refusal_or(partial(ask, connection)) for name, ask in asked.items()}


def refusal_or(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except StoreError as error:
        return Refused(str(error))
    except SQLITE_ERRORS as error:
        meant = of_sqlite_error(error, PATH)
        if not isinstance(meant, StoreError):
            raise
        return Refused(str(meant))


def rows_of(connection: sqlite3.Connection) -> Any:
    """All rows of all tables, as they stand in the tables themselves; what cannot be read is part of the answer."""

    def of(table: str) -> Any:
        connection.text_factory = bytes
        try:
            return sorted(map(repr, connection.execute(f"SELECT * FROM {table} NOT INDEXED").fetchall()))
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the name of a column, too, may be no text any more
            return str(error)
        finally:
            connection.text_factory = str

    tables = refusal_or(lambda: connection.execute(_TABLES).fetchall())
    return tables if isinstance(tables, Refused) else {table: of(table) for (table,) in tables}


# ---- one flip --------------------------------------------------------------------------------------------------


@dataclass
class Sound:
    """The file as it was written, and what it answers."""

    image: bytes
    asked: dict[str, Callable[..., Any]]
    answers: dict[str, Any]
    rows: Any
    kinds: Counter[str] = field(default_factory=Counter)
    """What became of the flips."""


def sound(path: Path) -> Sound:
    """The file as it was written."""
    image = path.read_bytes()
    with opened(image) as connection:
        ids = [id for (id,) in connection.execute("SELECT id FROM instance ORDER BY id")]
        record = reading.records(connection, ["order-5"], None)["order-5"]
        assert isinstance(record, InstanceRecord)
        assert record.custom_status is not None
        asked = questions(ids, [("order-2", "payment-1"), ("order-3", "payment-2")], [record.custom_status])
        found = answers(connection, asked)
        assert not [name for name, answer in found.items() if isinstance(answer, Refused)]
        assert audit.faults(connection) == ()
        return Sound(image, asked, found, rows_of(connection))


def opened(image: bytes) -> Any:
    """A connection to a file with these bytes."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.deserialize(image)
    except BaseException:
        connection.close()
        raise
    return closing(connection)


def wrong_at(before: Sound, offset: int, bit: int) -> str | None:
    """What is wrong with how the flip is met; None where nothing is."""
    image = bytearray(before.image)
    image[offset] ^= 1 << bit
    with opened(bytes(image)) as connection:
        version = refusal_or(lambda: schema.check(connection, PATH))
        if isinstance(version, Refused):
            before.kinds["no hub"] += 1
            return None
        if version != schema.migrations()[-1][0]:
            migrated = refusal_or(lambda: schema.migrate(connection, PATH))
            before.kinds["another format"] += 1
            return None if isinstance(migrated, Refused) else "a migration was run on what has it already"
        found = answers(connection, before.asked)
        differing = {name: answer for name, answer in found.items() if answer != before.answers[name]}
        has_other_rows = rows_of(connection) != before.rows
        faults = audit.faults(connection, 1)
    if (differing or has_other_rows) and not faults:
        return f"nothing is found by the thorough look, but {differing or 'rows'} differ"
    served = {name: answer for name, answer in differing.items() if not is_less_than(answer, before.answers[name])}
    if served:
        return f"served as written: {served}, where there were { {name: before.answers[name] for name in served} }"
    refused = any(isinstance(answer, Refused) for answer in differing.values())
    before.kinds["refused" if refused else "missing" if differing else "found" if faults else "no matter"] += 1
    return None


def is_less_than(answer: Any, whole: Any) -> bool:
    """Whether the answer has nothing that the whole one has not: a refusal, or a part."""
    if not answer or isinstance(answer, Refused) or answer == whole:
        return True
    if isinstance(answer, Page):
        return all(is_row_of(record, whole.records) for record in answer.records)
    if isinstance(answer, Loaded):
        return (
            answer.record.instance_id == whole.record.instance_id
            and is_row_of(answer.record, [whole.record])
            and whole.pieces.startswith(answer.pieces)
            and all(one in whole.inbox for one in answer.inbox)
        )
    if isinstance(answer, InstanceRecord):
        return is_row_of(answer, [whole])
    if isinstance(answer, dict):
        return all(count <= whole.get(name, 0) + 1 for name, count in answer.items())
    if isinstance(answer, list):
        return all(any(is_item_of(item, other) for other in whole) for item in answer)
    return False


def is_row_of(record: InstanceRecord, rows: Sequence[InstanceRecord]) -> bool:
    """Whether the row is marked as damaged, or one of these. The time of its last piece is found by an index, and may be that of another."""
    if record.damage is not None:
        return True
    return any(
        record.instance_id == row.instance_id
        and all(getattr(record, name) == getattr(row, name) for name in row.__struct_fields__ if name != "updated_at")
        for row in rows
    )


def is_item_of(item: Any, other: Any) -> bool:
    if isinstance(item, Delivery) and item.is_sealed:
        return True
    if isinstance(item, Wake):
        return True  # whoever is woken is loaded, and that shows; who is not is missing
    if isinstance(item, Delivery | Waiting):
        return bool(replace(item, takes_messages=True) == replace(other, takes_messages=True))
    return bool(item == other)


def flips(size: int, every: int, seed: int) -> Iterator[tuple[int, int]]:
    """Where to flip which bit: of every so many bytes one, chosen by the seed."""
    chosen = random.Random(seed)
    for begin in range(0, size, every):
        offset = begin + chosen.randrange(every)
        if offset < size:
            yield offset, chosen.randrange(8)


def run(every: int, seed: int, seconds_max: float | None = None) -> tuple[int, list[str], Counter[str]]:
    """How many flips were made, what was wrong, and what became of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hub.db"
        asyncio.run(fill(path))
        before = sound(path)
    wrong: list[str] = []
    made = 0
    deadline = None if seconds_max is None else time.monotonic() + seconds_max
    for offset, bit in flips(len(before.image), every, seed):
        if deadline is not None and time.monotonic() > deadline:
            break
        made += 1
        try:
            text = wrong_at(before, offset, bit)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
        if text is not None:
            wrong.append(f"byte {offset}, bit {bit}: {text[:1500]}")
    return made, wrong, before.kinds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="flip a bit in one of so many bytes")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()
    made, wrong, kinds = run(given.every, given.seed)
    for text in wrong[:40]:
        print(text)
    print(f"{made:,} flips in {time.monotonic() - began:,.0f} s: {dict(kinds)}; {len(wrong):,} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
