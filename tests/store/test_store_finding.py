"""Finding instances: whatever the filter, a page and a count are those of a plain list that is filtered and sorted."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replayflow.core.commit import Commit, Start
from replayflow.core.instance import Status
from replayflow.errors import InvalidArgumentError
from replayflow.store import MemoryStore, SqliteStore, Store
from replayflow.store.base import Create, Grouping, InstanceFilter, InstanceRecord, Operation, Page, Park
from replayflow.store.sqlite import finding, schema
from tests import scratch
from tests.store.builders import OWNER, accepted, all_ids, commit, create, post, shown, start

# ---- a law for every filter

IDS = [
    "a",
    "a1",
    "a2",
    "ab",
    "b",
    "b1",
    "bb",
    "ü",
    "\ud7ff",
    "\ue000",
    "\U0010ffff",
    "\U0010ffff1",
    "@e@a",
    "@e@b",
    "@f@a",
]
NAMES = ["order", "ship"]
TAGS = [None, {"k": "v"}, {"k": "w"}, {"k": "v", "l": "v"}]
STATUSES = [Status.PENDING, Status.RUNNING, Status.SUSPENDED, Status.COMPLETED, Status.FAILED]
times = st.integers(1, 4)


@st.composite
def hubs(draw: st.DrawFn) -> list[Operation]:
    operations: list[Operation] = []
    for id in draw(st.permutations(IDS))[: draw(st.integers(0, len(IDS)))]:
        made = start(
            id,
            at=draw(times),
            name=draw(st.sampled_from(NAMES)),
            parent=draw(st.sampled_from([None, "a", "b"])),
            tags=draw(st.sampled_from(TAGS)),
        )
        operations.append(Create(made))
        operations += ending(draw, made)
        if draw(st.booleans()):
            operations.append(Park(id, "x1", b"problem"))
    for operation in list(operations):
        # One that has finished is begun again: its time, its tags and its parent may be others.
        if isinstance(operation, Commit) and _ends(operation) and draw(st.integers(0, 3)) == 0:
            again = start(operation.instance_id, "x2", at=draw(times), tags=draw(st.sampled_from(TAGS)))
            operations.append(Create(again, "replace_finished"))
    return operations


def ending(draw: st.DrawFn, made: Start) -> list[Operation]:
    status = draw(st.sampled_from(STATUSES))
    if status is Status.PENDING:
        return []
    state = shown(status)
    if status.is_finished:
        state = type(state)(status, None, completed_at=draw(times))
    return [commit(made.instance_id, state=state)]


def _ends(operation: Commit) -> bool:
    return operation.state is not None and operation.state.status.is_finished


filters = st.builds(
    InstanceFilter,
    statuses=st.none() | st.frozensets(st.sampled_from(STATUSES), max_size=2),
    name=st.none() | st.sampled_from([*NAMES, "none"]),
    id_prefix=st.sampled_from([None, None, "", "a", "b", "@e", "\ud7ff", "\U0010ffff", "none"]),
    tags=st.sampled_from([(), (), (("k", "v"),), (("k", "v"), ("l", "v")), (("none", "v"),)]),
    created_from=st.none() | times,
    created_to=st.none() | times,
    is_parked=st.sampled_from([None, None, True, False]),
    is_entity=st.sampled_from([None, False, False, True]),
    completed_from=st.none() | st.none() | times,
    completed_to=st.none() | st.none() | times,
    parent_id=st.sampled_from([None, None, "a", "none"]),
)


def fits(record: InstanceRecord, wanted: InstanceFilter) -> bool:
    had = record.tags or {}
    laws: list[tuple[object, Callable[[Any], bool]]] = [
        (wanted.statuses, lambda those: record.status in those),
        (wanted.name, lambda name: record.name == name),
        (wanted.id_prefix, lambda prefix: record.instance_id.startswith(prefix)),
        (wanted.tags, lambda tags: all(had.get(key) == value for key, value in tags)),
        (wanted.created_from, lambda first: record.created_at >= first),
        (wanted.created_to, lambda last: record.created_at < last),
        (wanted.is_parked, lambda parked: (record.problem is not None) is parked),
        (wanted.is_entity, lambda entity: record.instance_id.startswith("@") is entity),
        (wanted.completed_from, lambda first: record.completed_at is not None and record.completed_at >= first),
        (wanted.completed_to, lambda last: record.completed_at is not None and record.completed_at < last),
        (wanted.parent_id, lambda parent: record.parent_id == parent),
    ]
    return all(given is None or law(given) for given, law in laws)


def expected(everyone: list[InstanceRecord], wanted: InstanceFilter, latest_first: bool) -> list[str]:
    """`everyone` comes in the order in which the ids were first created, which counts among equals."""
    ids_alone = InstanceFilter(id_prefix=wanted.id_prefix, is_entity=wanted.is_entity)

    def position(record: InstanceRecord) -> Any:
        if wanted.completed_from is not None or wanted.completed_to is not None:
            return record.completed_at
        return record.instance_id if wanted == ids_alone and by_id else record.created_at

    by_id = bool(wanted.id_prefix or wanted.is_entity)
    found = sorted((record for record in everyone if fits(record, wanted)), key=position)
    return [record.instance_id for record in (reversed(found) if latest_first else found)]


async def read(store: Store, wanted: InstanceFilter, limit: int, latest_first: bool) -> list[str]:
    found: list[str] = []
    cursor: str | None = None
    while True:
        page: Page = await store.page(wanted, limit, cursor, latest_first)
        assert len(page.records) == limit or page.cursor is None
        found += [record.instance_id for record in page.records]
        cursor = page.cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    hub=hubs(),
    several=st.lists(filters, min_size=1, max_size=4),
    limit=st.integers(1, 4),
    latest_first=st.booleans(),
    few=st.sampled_from([1, 2, 5, 1_000]),
)
def test_pages_and_counts_are_those_of_a_plain_list(
    kind: str, hub: list[Operation], several: list[InstanceFilter], limit: int, latest_first: bool, few: int
) -> None:
    async def law(store: Store) -> None:
        await store.open()
        try:
            await accepted(store, *hub)
            created = dict.fromkeys(one.start.instance_id for one in hub if isinstance(one, Create))
            everyone = [record for id in created if (record := await store.get(id)) is not None]
            for wanted in several:
                ids = expected(everyone, wanted, latest_first)
                assert await read(store, wanted, limit, latest_first) == ids
                fitting = [record for record in everyone if record.instance_id in ids]
                assert await store.count(wanted) == ({"": len(ids)} if ids else {})
                groups: list[Grouping] = ["status", "name"]
                for by in groups:
                    assert await store.count(wanted, by) == Counter(str(getattr(record, by)) for record in fitting)
        finally:
            await store.close()

    with tempfile.TemporaryDirectory(dir=scratch.memory()) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "MANY", 2 * few)
        patch.setattr(finding, "FEW", few)  # so that every way of searching is taken with few instances, too
        asyncio.run(
            law(MemoryStore() if kind == "memory" else SqliteStore(Path(folder) / "hub.db", synchronous="NORMAL"))
        )


# ---- cursors


@pytest.mark.parametrize(
    ("wanted", "other"),
    [
        (InstanceFilter(), InstanceFilter(id_prefix="i")),
        (InstanceFilter(id_prefix="i"), InstanceFilter(completed_from=0)),
        (InstanceFilter(completed_from=0), InstanceFilter()),
    ],
)
async def test_a_cursor_of_a_listing_in_another_order_is_refused(
    store: Store, wanted: InstanceFilter, other: InstanceFilter
) -> None:
    await accepted(store, *(create(f"i{n}") for n in range(3)))
    await accepted(store, *(commit(f"i{n}", state=shown(Status.COMPLETED)) for n in range(3)))
    cursor = (await store.page(wanted, 1)).cursor
    assert cursor is not None
    with pytest.raises(InvalidArgumentError, match="with the same filter"):
        await store.page(other, 1, cursor)


async def test_a_cursor_outside_of_the_filter_begins_at_its_edge(store: Store) -> None:
    await accepted(store, *(create(f"i{n}", at=n) for n in range(1, 7)))
    middle = InstanceFilter(created_from=3, created_to=5)
    for cursor, latest_first, ids in [
        ("c1.1", False, ["i3", "i4"]),
        ("c9.9", False, []),
        ("c9.9", True, ["i4", "i3"]),
        ("c1.1", True, []),
    ]:
        page = await store.page(middle, 10, cursor, latest_first)
        assert [record.instance_id for record in page.records] == ids


async def test_a_page_goes_on_behind_an_instance_that_is_gone(store: Store) -> None:
    await accepted(store, *(create(f"i{n}") for n in range(4)))
    page = await store.page(InstanceFilter(id_prefix="i"), 2)
    removed = commit("i1", consumed=[2])
    removed.removes = True
    await accepted(store, removed)
    assert await store.get("i1") is None
    rest = await store.page(InstanceFilter(id_prefix="i"), 2, page.cursor)
    assert [record.instance_id for record in rest.records] == ["i2", "i3"]


# ---- tags


async def tags_left(sqlite: SqliteStore) -> list[tuple[object, ...]]:
    return await sqlite._read(
        lambda connection: connection.execute("SELECT name, value, created_at FROM tag").fetchall()
    )


async def test_tags_are_looked_for_in_a_table_that_has_those_of_the_present_execution_and_of_nobody_else(
    sqlite: SqliteStore,
) -> None:
    await accepted(sqlite, Create(start("a", at=5, tags={"k": "v", "l": "w"})), Create(start("none")))
    assert sorted(await tags_left(sqlite)) == [("k", "v", 5), ("l", "w", 5)]
    await accepted(sqlite, commit("a", state=shown(Status.COMPLETED)))
    await accepted(sqlite, Create(start("a", "x2", at=7, tags={"k": "u"}), "replace_finished"))
    assert await tags_left(sqlite) == [("k", "u", 7)]
    assert await all_ids(sqlite, InstanceFilter(tags=(("k", "v"),))) == []
    await accepted(
        sqlite, commit("a", "x2", 3, state=shown(Status.CONTINUED_AS_NEW), next_start=start("a", "x3", at=9))
    )
    assert await tags_left(sqlite) == []
    await accepted(sqlite, Create(start("gone", tags={"k": "v"})))
    removed = commit("gone", consumed=list(range(100)))
    removed.removes = True
    await accepted(sqlite, removed)
    assert await tags_left(sqlite) == []


# ---- who has the hub, and what waits in it


async def test_who_owns_the_hub_is_told_while_it_does(store: Store) -> None:
    assert await store.owner() is None
    await store.acquire(OWNER)
    assert await store.owner() == OWNER
    await store.release()
    assert await store.owner() is None


async def test_to_look_who_has_the_hub_keeps_nobody_from_taking_it(sqlite: SqliteStore, other: SqliteStore) -> None:
    await sqlite.acquire(OWNER)
    assert await other.owner() == OWNER
    await sqlite.release()
    for _ in range(50):
        _, epoch = await asyncio.gather(other.owner(), sqlite.acquire(OWNER))
        assert epoch > 0
        await sqlite.release()


async def test_what_waits_is_told_oldest_first_with_its_time_and_whether_its_receiver_takes_it(store: Store) -> None:
    epoch = await store.acquire(OWNER)
    await accepted(store, create("a"), create("b"), epoch=epoch)
    await accepted(store, post("b", b"first"), post("a", b"second"), Park("b", "x1", b"problem"), epoch=epoch)
    both = await store.waiting(None)
    assert [(one.instance_id, one.event, one.takes_messages) for one in both] == [
        ("b", b"first", False),
        ("a", b"second", True),
    ]
    assert all(one.since is not None and one.since > 1_600_000_000_000_000 for one in both)
    assert [one.event for one in await store.waiting("a")] == [b"second"]
    assert await store.waiting(None, 1) == both[:1]
    assert await store.waiting("none") == []
    await accepted(store, commit("b", consumed=[both[0].number]), epoch=epoch)
    assert await store.waiting(None) == both[1:]


# ---- how the store is


async def test_the_condition_of_a_file_has_its_sizes_its_format_and_its_permissions(sqlite: SqliteStore) -> None:
    await accepted(sqlite, *(create(f"i{n}") for n in range(100)))
    found = await sqlite.condition(is_thorough=True)
    assert found.faults == ()
    assert (found.size % 4096, found.log > 0, found.format) == (0, True, 10)
    sqlite.path.chmod(0o640)
    assert (await sqlite.condition()).mode == 0o640


async def test_a_thorough_look_finds_what_is_damaged(sqlite: SqliteStore) -> None:
    await accepted(sqlite, *(create(f"i{n}") for n in range(400)))
    await sqlite.close()
    content = bytearray(sqlite.path.read_bytes())
    content[-4096:-4088] = b"\xff" * 8
    sqlite.path.write_bytes(content)
    await sqlite.open()
    assert (await sqlite.condition()).faults == ()
    assert (await sqlite.condition(is_thorough=True)).faults


# ---- hubs of earlier versions


async def test_what_is_in_a_hub_of_an_earlier_format_is_found_by_all_that_it_has(path: Path) -> None:
    every = schema.migrations()
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(schema, "migrations", lambda: every[:2])
            schema.migrate(old, path)
        old.executemany(
            "INSERT INTO instance (key, id, execution_id, name, status, start, start_number, created_at, completed_at, problem, parent_id, tags) "
            "VALUES (?, ?, 'x1', 'order', ?, x'00', 0, ?, ?, ?, ?, ?)",
            [
                (1, "a", "COMPLETED", 10, 20, None, None, '{"k": "v", "ü": "\\""}'),
                (2, "b", "RUNNING", 11, None, b"problem", "a", None),
                (3, "@e@c", "RUNNING", 12, None, None, None, None),
            ],
        )
        old.execute("INSERT INTO inbox (number, instance, event, is_control) VALUES (1, 2, x'00', 0)")
        old.execute("UPDATE hub SET next_key = 4, next_number = 2")
    store = SqliteStore(path)
    await store.open()
    for wanted, ids in [
        (InstanceFilter(tags=(("k", "v"), ("ü", '"'))), ["a"]),
        (InstanceFilter(is_parked=True), ["b"]),
        (InstanceFilter(parent_id="a"), ["b"]),
        (InstanceFilter(completed_to=21), ["a"]),
        (InstanceFilter(is_entity=True), ["@e@c"]),
        (InstanceFilter(is_entity=False), ["a", "b"]),
        (InstanceFilter(statuses=frozenset({Status.RUNNING})), ["b", "@e@c"]),
        (InstanceFilter(created_from=11), ["b", "@e@c"]),
    ]:
        assert await all_ids(store, wanted) == ids
    assert [message.since for message in await store.waiting("b")] == [None]
    await store.close()
