"""The contract of reading, owning and closing, for every store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from replayflow.core.instance import Status
from replayflow.errors import HubOwnedError, InvalidArgumentError, LeaseLostError, StoreUnavailableError
from replayflow.store import Store
from replayflow.store.base import Create, InstanceFilter, Park, Wake
from tests.store.builders import (
    EVERYTHING,
    OWNER,
    accepted,
    all_ids,
    commit,
    create,
    end,
    everything,
    numbers,
    post,
    record,
    shown,
    start,
)

# ---- executions


async def test_executions_come_oldest_first_and_the_present_one_last(store: Store) -> None:
    await accepted(
        store,
        create("a", "x9"),
        commit("a", "x9", sequence=1, state=shown(Status.CONTINUED_AS_NEW), next_start=start("a", "x1")),
        commit("a", "x1", sequence=3, state=shown(Status.CONTINUED_AS_NEW), next_start=start("a", "x5")),
        create("b", "y"),
    )
    assert await store.executions("a") == ["x9", "x1", "x5"]
    assert await store.executions("b") == ["y"]
    assert await store.executions("c") == []
    assert await store.executions("\ud800") == []


# ---- single instances


async def test_what_does_not_exist_is_not_found(store: Store) -> None:
    await accepted(store, create("a"))
    for id in ("b", "A", "a ", "", "a\0b", "a\0", "\ud800", "x" * 10_000, "a'--"):
        assert await store.get(id) is None
        assert await store.load([id]) == []
        assert await store.history(id) == []
    assert await store.history("a", "x2") == []
    assert await store.history("a", "\ud800") == []
    assert await store.load([]) == []


async def test_load_gives_instances_in_the_order_asked_for_each_once_and_leaves_missing_ones_out(store: Store) -> None:
    ids = [f"i{n}" for n in range(500)]
    await accepted(store, *(create(id) for id in ids))
    wanted = [*reversed(ids), "missing", *ids[:10], "also missing"]
    loaded = await store.load(wanted)
    assert [one.record.instance_id for one in loaded] == list(reversed(ids))
    assert all(one.pieces == b"" and one.piece_count == 0 and [d.event for d in one.inbox] == [None] for one in loaded)


async def test_load_gives_only_the_pieces_after_the_present_start(store: Store) -> None:
    await accepted(
        store,
        create("a"),
        create("b"),
        commit("a", sequence=1, chunk=b"past", state=shown(Status.CONTINUED_AS_NEW), next_start=start("a", "x2")),
        commit("b", sequence=1, chunk=b"b1"),
        commit("a", "x2", 3, chunk=b"a3"),
        commit("b", sequence=2, chunk=b"b2"),
        commit("a", "x2", 4, chunk=b"a4"),
    )
    [a, b] = await store.load(["a", "b"])
    assert (a.record.start, a.pieces, a.piece_count) == (b"start a x2", b"a3a4", 2)
    assert (b.record.start, b.pieces, b.piece_count) == (b"start b x1", b"b1b2", 2)
    assert await record(store, "a") == a.record


async def test_what_is_read_is_the_readers_own(store: Store) -> None:
    await accepted(store, create("a"), post("a"))
    before = await everything(store)
    [loaded] = await store.load(["a"])
    loaded.record.problem = b"changed"
    loaded.inbox[0].event = b"changed"
    loaded.inbox.clear()
    (await record(store)).status = Status.FAILED
    assert await everything(store) == before


@pytest.mark.parametrize("status", [Status.RUNNING, Status.SUSPENDED, Status.COMPLETED])
@pytest.mark.parametrize("problem", [None, b"problem"])
async def test_a_delivery_says_whether_its_receiver_takes_messages_now(
    store: Store, status: Status, problem: bytes | None
) -> None:
    await accepted(store, create("a"), post("a"), commit(state=shown(status)), Park("a", "x1", problem))
    takes = problem is None and status is not Status.SUSPENDED
    [loaded] = await store.load(["a"])
    assert [d.takes_messages for d in loaded.inbox] == [takes, takes]
    assert await store.arrived(0, 10) == loaded.inbox


# ---- arrived and wakes


async def test_arrived_gives_messages_in_the_order_of_their_numbers_page_by_page(store: Store) -> None:
    await accepted(store, *(create(id) for id in "abc"))
    await accepted(store, *(post("abc"[n % 3], b"%d" % n) for n in range(20)))
    read, last = [], 3
    while page := await store.arrived(last, 6):
        assert len(page) <= 6
        read += page
        last = page[-1].number
    assert [d.event for d in read] == [b"%d" % n for n in range(20)]
    assert await store.arrived(last, 6) == []
    [late] = await accepted(store, post("a", b"late"))
    assert await store.arrived(last, 6) == late.deliveries


async def test_wakes_come_in_order_of_time_and_are_paged_by_position(store: Store) -> None:
    times = [5, 0, 5, 7, 5, 0, 9, 5]
    await accepted(store, *(Create(start(f"i{n}", wake_at=at)) for n, at in enumerate(times)), create("asleep"))
    await accepted(store, commit("asleep", state=shown(wake_at=None)))
    everyone = await store.wakes(None, 100)
    assert [(w.at, w.instance_id) for w in everyone] == sorted((at, f"i{n}") for n, at in enumerate(times))
    read: list[Wake] = []
    while page := await store.wakes(read[-1].position if read else None, 2):
        assert len(page) <= 2
        read += page
    assert read == everyone
    # A position of a time only is before all of that time.
    assert [w.at for w in await store.wakes((5, -1), 100)] == [5, 5, 5, 5, 7, 9]


async def test_a_wake_moves_with_the_row(store: Store) -> None:
    await accepted(store, Create(start("a", wake_at=5)), Create(start("b", wake_at=6)))
    await accepted(store, commit("a", state=shown(wake_at=8)))
    assert [(w.at, w.instance_id) for w in await store.wakes(None, 10)] == [(6, "b"), (8, "a")]
    await accepted(store, end("b"))
    assert [w.instance_id for w in await store.wakes(None, 10)] == ["a"]
    await accepted(store, Create(start("b", "x2", wake_at=1), "replace_finished"))
    assert [w.instance_id for w in await store.wakes(None, 10)] == ["b", "a"]


# ---- pages

HOSTILE = [
    "'",
    '"',
    "%",
    "_",
    "a%",
    "a_c",
    "\\",
    "ü",
    "日本",
    "😀",
    "é",
    "e\u0301",
    "x" * 10_000,
    "' OR 1=1 --",
    "$.a",
    "[0]",
    "\x7f",
]


async def fill(store: Store) -> None:
    await accepted(
        store,
        Create(start("a1", at=10, name="order", tags={"k": "v", "team": "red"})),
        Create(start("a2", at=20, name="order", tags={"k": "w"})),
        Create(start("b1", at=30, name="ship", tags={"team": "red"})),
        Create(start("b2", at=40, name="ship")),
        Create(start("c1", at=50, name="Order")),
        end("a2"),
        commit("b1", state=shown(Status.SUSPENDED)),
        commit("b2", state=shown()),
        Park("b2", "x1", b"problem"),
        Park("c1", "x1", b"problem"),
    )


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (InstanceFilter(), "a1 a2 b1 b2 c1"),
        (InstanceFilter(statuses=frozenset({Status.PENDING})), "a1 c1"),
        (InstanceFilter(statuses=frozenset({Status.COMPLETED, Status.SUSPENDED})), "a2 b1"),
        (InstanceFilter(statuses=frozenset()), ""),
        (InstanceFilter(name="order"), "a1 a2"),
        (InstanceFilter(name=""), ""),
        (InstanceFilter(name="\ud800"), ""),
        (InstanceFilter(id_prefix="b"), "b1 b2"),
        (InstanceFilter(id_prefix="b1"), "b1"),
        (InstanceFilter(id_prefix="b11"), ""),
        (InstanceFilter(id_prefix="B"), ""),
        (InstanceFilter(id_prefix="_"), ""),
        (InstanceFilter(id_prefix="%1"), ""),
        (InstanceFilter(id_prefix="a\0"), ""),
        (InstanceFilter(id_prefix="\ud800"), ""),
        (InstanceFilter(tags=(("team", "red"),)), "a1 b1"),
        (InstanceFilter(tags=(("team", "red"), ("k", "v"))), "a1"),
        (InstanceFilter(tags=(("team", "v"),)), ""),
        (InstanceFilter(tags=(("none", "none"),)), ""),
        (InstanceFilter(created_from=20), "a2 b1 b2 c1"),
        (InstanceFilter(created_to=20), "a1"),
        (InstanceFilter(created_from=20, created_to=50), "a2 b1 b2"),
        (InstanceFilter(is_parked=True), "b2 c1"),
        (InstanceFilter(is_parked=False), "a1 a2 b1"),
        (InstanceFilter(is_parked=True, name="ship"), "b2"),
        (InstanceFilter(frozenset({Status.PENDING, Status.RUNNING}), "ship", "b", (), 10, 100, True), "b2"),
        (InstanceFilter(frozenset({Status.PENDING}), "order", "a", (("k", "v"),), 10, 11, False), "a1"),
        (InstanceFilter(frozenset({Status.PENDING}), "order", "a", (("k", "v"),), 11, 12, False), ""),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_a_page_has_those_that_fit_all_that_is_given(
    store: Store, wanted: InstanceFilter, ids: str, limit: int
) -> None:
    await fill(store)
    assert await all_ids(store, wanted, limit) == ids.split()


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_text_is_text_everywhere(store: Store, text: str) -> None:
    await accepted(
        store,
        Create(start("plain", tags={"k": "v"})),
        Create(start(text, text, name=text, version=text, parent=text, tags={text: text})),
        post(text, b"m", text, execution=text),
    )
    assert (await accepted(store, post(text, b"m", text)))[0].deliveries == []
    row = await record(store, text)
    assert (row.execution_id, row.name, row.version, row.parent_id, row.tags) == (text, text, text, text, {text: text})
    assert (await store.load([text, "plain"]))[0].record == row
    assert [d.instance_id for d in await store.arrived(0, 10)] == ["plain", text, text]
    for wanted in (
        InstanceFilter(name=text),
        InstanceFilter(id_prefix=text),
        InstanceFilter(tags=((text, text),)),
        InstanceFilter(name=text, id_prefix=text[:1], tags=((text, text),)),
    ):
        assert await all_ids(store, wanted) == [text]
    assert await all_ids(store, InstanceFilter(tags=((text, "v"),))) == []
    assert await all_ids(store, InstanceFilter(id_prefix=text + text)) == []


async def test_pages_are_exact_at_their_ends(store: Store) -> None:
    await accepted(store, *(create(f"i{n}") for n in range(4)))
    first = await store.page(EVERYTHING, 2)
    second = await store.page(EVERYTHING, 2, first.cursor)
    assert [r.instance_id for r in first.records + second.records] == ["i0", "i1", "i2", "i3"]
    assert (first.cursor is None, second.cursor) == (False, None)
    assert (await store.page(EVERYTHING, 4)).cursor is None


async def test_a_cursor_stays_true_while_rows_are_added_and_change(store: Store) -> None:
    await accepted(store, *(create(f"i{n}") for n in range(6)))
    page = await store.page(EVERYTHING, 3)
    await accepted(store, create("new"), end("i0"), end("i4"), create("i1", "x2", "return"))
    await accepted(store, create("i0", "x2", "replace_finished"), create("i4", "x2", "replace_finished"))
    rest = await store.page(EVERYTHING, 10, page.cursor)
    assert [r.instance_id for r in rest.records] == ["i3", "i4", "i5", "new"]


@pytest.mark.parametrize("cursor", ["", "a", "-1", "1.5", "9" * 30, "²", "٣", " 1", "1; DROP TABLE instance"])
async def test_a_cursor_that_is_none_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cursor"):
        await store.page(EVERYTHING, 1, cursor)


# ---- owning, hearing, closing


async def test_one_owner_at_a_time_with_a_larger_epoch_each(store: Store) -> None:
    first = await store.acquire(OWNER)
    with pytest.raises(HubOwnedError, match="process 4711 on somewhere"):
        await store.acquire(OWNER)
    await accepted(store, create("a"), epoch=first)
    await store.release()
    await store.release()
    assert await store.acquire(OWNER) > first


async def test_closing_gives_the_hub_free_and_keeps_what_is_in_it(store: Store) -> None:
    first = await store.acquire(OWNER)
    await accepted(store, create("a"), epoch=first)
    await store.close()
    await store.close()
    await store.open()
    await store.open()
    assert await all_ids(store) == ["a"]
    assert await store.acquire(OWNER) > first


USES: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "acquire": lambda store: store.acquire(OWNER),
    "write": lambda store: store.write([create("b")]),
    "write nothing": lambda store: store.write([]),
    "load": lambda store: store.load(["a"]),
    "get": lambda store: store.get("a"),
    "page": lambda store: store.page(EVERYTHING, 1),
    "history": lambda store: store.history("a"),
    "wakes": lambda store: store.wakes(None, 1),
    "arrived": lambda store: store.arrived(0, 1),
}


@pytest.mark.parametrize("use", USES)
async def test_use_after_closing_is_refused(store: Store, use: str) -> None:
    await accepted(store, create("a"))
    await store.close()
    with pytest.raises(StoreUnavailableError, match="is not open"):
        await USES[use](store)
    with pytest.raises(StoreUnavailableError, match="is not open"):
        store.subscribe(lambda: None)
    await store.open()
    assert await all_ids(store) == ["a"]
    await store.acquire(OWNER)  # the refused one has left no lock behind


async def test_what_was_under_way_when_the_store_is_closed_is_done_or_refused(store: Store) -> None:
    writes = [asyncio.ensure_future(store.write([create(f"i{n}")])) for n in range(20)]
    reads = [asyncio.ensure_future(store.load([f"i{n}"])) for n in range(20)]
    await asyncio.sleep(0)
    await store.close()
    done = await asyncio.gather(*writes, *reads, return_exceptions=True)
    assert all(isinstance(result, list | StoreUnavailableError) for result in done)
    await store.open()
    assert await all_ids(store) == [f"i{n}" for n, result in enumerate(done[:20]) if isinstance(result, list)]


async def test_a_cancelled_write_is_done_as_a_whole_or_not_at_all_and_the_store_goes_on(store: Store) -> None:
    for n in range(20):
        write = asyncio.ensure_future(store.write([create(f"a{n}"), create(f"b{n}")]))
        for _ in range(n % 3):
            await asyncio.sleep(0)
        write.cancel()
        await asyncio.wait([write])
    await accepted(store, create("last"))
    ids = await all_ids(store)
    assert ids[-1] == "last"
    assert [id[1:] for id in ids if id[0] == "a"] == [id[1:] for id in ids if id[0] == "b"]


async def test_an_epoch_that_was_acquired_is_good_until_the_next(store: Store) -> None:
    epoch = await store.acquire(OWNER)
    await accepted(store, create("a"), epoch=epoch)
    assert numbers((await accepted(store, post("a"), epoch=epoch))[0]) == [1]


async def test_the_code_that_was_kept_is_what_is_read_beside_other_names(store: Store) -> None:
    epoch = await store.acquire(OWNER)
    assert await store.code() == {}
    await store.keep_code({"a": "1", "b": "2"}, epoch)
    await store.keep_code({"b": "3"}, epoch)
    assert await store.code() == {"a": "1", "b": "3"}


async def test_code_is_not_kept_under_another_epoch(store: Store) -> None:
    epoch = await store.acquire(OWNER)
    with pytest.raises(LeaseLostError):
        await store.keep_code({"a": "1"}, epoch - 1)
    assert await store.code() == {}
