"""The contract of purging and of trimmed pasts: instances go as a whole, and leave their ids free; for every store."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from replayflow.core.commit import Commit, Message, RowState
from replayflow.core.instance import Status
from replayflow.errors import (
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    InvalidStateError,
    LeaseLostError,
)
from replayflow.store import SqliteStore, Store
from replayflow.store.base import (
    EXECUTIONS_PER_TRIM,
    Create,
    Finished,
    InstanceFilter,
    Operation,
    Park,
    Post,
    Purge,
    Trim,
)
from tests.store.builders import (
    EVERYTHING,
    OWNER,
    accepted,
    all_ids,
    commit,
    create,
    end,
    everything,
    inbox,
    one,
    post,
    record,
    refusals,
    shown,
    start,
)


def ended(id: str = "a", execution: str = "x1", sequence: int = 1, *, at: int = 3, status: Status = Status.COMPLETED):  # type: ignore[no-untyped-def]
    """The end of an instance that owes nothing."""
    return commit(id, execution, sequence, chunk=b"the end", state=RowState(status, None, None, b"output", None, at))


def continued(id: str, sequence: int, execution: str, following: str, past_kept: int | None = None) -> Operation:
    ending = commit(id, execution, sequence, chunk=b"end of " + execution.encode())
    return replace(
        ending, state=RowState(Status.CONTINUED_AS_NEW, None), next_start=start(id, following), past_kept=past_kept
    )


async def with_past(store: Store, executions: int, past_kept: int | None = None) -> None:
    """'a' is in the execution after so many others: x1, x2, ..."""
    await accepted(store, create())
    for number in range(1, executions + 1):
        await accepted(store, continued("a", 2 * number - 1, f"x{number}", f"x{number + 1}", past_kept))


async def pasts(store: Store, count: int) -> list[str]:
    return [f"x{n}" for n in range(1, count + 1) if await store.history("a", f"x{n}")]


# ---- purging


async def test_nothing_is_left_of_what_is_purged_and_its_id_is_free(store: Store) -> None:
    empty = await everything(store)
    await accepted(
        store,
        create(),
        post("a", key="k"),
        commit(),
        continued("a", 2, "x1", "x2"),
        ended(execution="x2", sequence=4),
        Purge("a"),
    )
    assert await everything(store) == empty
    assert await store.history("a", "x1") == []
    [again] = await accepted(store, create("a", "x9"))
    assert [s.execution_id for s in again.started] == ["x9"]
    await accepted(store, post("a", b"again", "k"))
    assert await inbox(store) == [None, b"again"], "a key of the purged instance is remembered"
    assert await store.history("a") == [b"start a x9"]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.TERMINATED, Status.CANCELED])
async def test_every_kind_of_end_can_be_purged(store: Store, status: Status) -> None:
    await accepted(store, create(), ended(status=status))
    await accepted(store, Purge("a"))
    assert await store.get("a") is None


async def test_what_cannot_be_purged_is_refused_alone_and_stays_as_it_is(store: Store) -> None:
    await accepted(
        store,
        *(create(id) for id in ("pending", "running", "suspended", "owes", "other")),
        commit("running", state=shown(Status.RUNNING)),
        commit("suspended", state=shown(Status.SUSPENDED)),
        end("owes"),
        ended("other"),
        create("done"),
        ended("done"),
    )
    before = await everything(store)
    names = ("nobody", "pending", "running", "suspended", "owes")
    outcomes = await store.write([*map(Purge, names), Purge("other", "x0"), Purge("a\0"), Purge("\ud800")])
    assert refusals(outcomes) == [
        InstanceNotFoundError,
        *[InvalidStateError] * 5,
        InstanceNotFoundError,
        InstanceNotFoundError,
    ]
    assert [str(status) in str(outcomes[n].error) for n, status in ((1, "PENDING"), (3, "SUSPENDED"))] == [True, True]
    assert await everything(store) == before
    assert refusals(await store.write([Purge("running"), Purge("done"), Purge("done")])) == [
        InvalidStateError,
        None,
        InstanceNotFoundError,
    ]


async def test_an_instance_may_begin_end_go_and_begin_again_within_one_group(store: Store) -> None:
    await accepted(
        store,
        create(),
        post(),
        ended(),
        Purge("a"),
        create("b"),
        create("a", "x2"),
        post("a", b"new"),
        commit("a", "x2", chunk=b"second"),
    )
    assert sorted(await all_ids(store)) == ["a", "b"]
    assert await inbox(store) == [None, b"new"]
    assert await store.history("a") == [b"start a x2", b"second"]


async def test_what_was_on_its_way_to_the_purged_instance_does_not_reach_the_next(store: Store) -> None:
    await accepted(store, create(), ended(), Purge("a"), create("a", "x2"), create("sender"))
    assert (
        refusals(await store.write([commit("a", "x1", 2), Park("a", "x1", b"p"), commit("a", "x1", 1)]))
        == [LeaseLostError] * 3
    )
    [late] = await accepted(store, commit("sender", messages=[Message("a", b"late", "x1")]))
    assert [m.event for m in late.dropped] == [b"late"]
    await accepted(store, post("a", b"late", execution="x1"))
    assert await inbox(store) == [None]


async def test_a_purge_knows_nothing_of_what_another_client_has_done_since(
    sqlite: SqliteStore, other: SqliteStore
) -> None:
    await accepted(sqlite, create(), ended())
    await accepted(other, Purge("a"), create("a", "x2"))
    assert refusals(await sqlite.write([Purge("a"), Purge("a", "x1"), commit("a", "x1", 2)])) == [
        InvalidStateError,
        InvalidStateError,
        LeaseLostError,
    ]
    await accepted(sqlite, ended("a", "x2"))
    await accepted(other, Purge("a", "x2"))
    assert refusals([await one(sqlite, post("a"))]) == [InstanceNotFoundError]


async def test_the_owner_purges_under_its_epoch_alone(store: Store) -> None:
    epoch = await store.acquire(OWNER)
    await accepted(store, create(), ended(), epoch=epoch)
    with pytest.raises(LeaseLostError):
        await store.write([Purge("a")], epoch - 1)
    assert await store.get("a") is not None
    await accepted(store, Purge("a"), epoch=epoch)
    assert await store.get("a") is None


async def test_a_purge_beside_a_value_that_cannot_be_stored_happens_all_the_same(sqlite: SqliteStore) -> None:
    await accepted(sqlite, create(), ended())
    assert refusals(await sqlite.write([create("b", at=2**63), Purge("a"), create("c")])) == [
        InvalidArgumentError,
        None,
        None,
    ]
    assert await all_ids(sqlite) == ["c"]


async def test_the_hub_counts_who_has_finished_and_who_is_gone(store: Store) -> None:
    day = 24 * 3600 * 10**6
    await accepted(store, *(create(id) for id in "abcde"))
    await accepted(store, ended("a", at=9), ended("b", at=5, status=Status.FAILED), ended("c", at=7), ended("d", at=8))
    found = await store.footprint()
    assert found.finished == {Status.COMPLETED: 3, Status.FAILED: 1}
    assert (found.oldest_end, found.purged) == (5, 0)
    await accepted(
        store, Purge("b", at=1), Purge("a", at=2), Purge("c", at=2 * day), Purge("d", at=3, cause="retention")
    )
    found = await store.footprint()
    assert (found.finished, found.oldest_end, found.purged) == ({}, None, 4)


async def test_a_hub_knows_its_size_and_what_of_it_is_free(sqlite: SqliteStore) -> None:
    await accepted(sqlite, create(), commit(chunk=bytes(10**6)), ended(sequence=2))
    full = await sqlite.footprint()
    await accepted(sqlite, Purge("a"))
    purged = await sqlite.footprint()
    assert full.total_bytes > 10**6 > full.free_bytes
    assert purged.total_bytes == full.total_bytes
    assert purged.free_bytes > 9 * 10**5


# ---- who may go


async def test_children_are_found_by_their_parents_once_they_have_finished(store: Store) -> None:
    await accepted(store, create("p"), create("q"))
    await accepted(
        store,
        commit("p", starts=[start(id, parent="p") for id in ("p1", "p2", "p3", "p4")]),
        commit("q", starts=[start("q1", parent="q")]),
        ended("p1"),
        end("p2"),
        ended("p3", status=Status.FAILED),
        ended("q1"),
    )
    assert await store.children(["q", "nobody", "p"], 10) == [Finished(id, "x1") for id in ("q1", "p1", "p3")]
    assert await store.children(["p", "q"], 1) == [Finished("p1", "x1")]
    assert await store.children(["\ud800", "p1"], 1) == []


async def test_those_that_finished_first_come_first(store: Store) -> None:
    await accepted(store, *(create(id) for id in "abcde"))
    await accepted(
        store,
        ended("a", at=30),
        ended("b", at=10),
        ended("c", at=20, status=Status.FAILED),
        end("d"),
        ended("e", at=20),
    )
    assert [one.instance_id for one in await store.ended(Status.COMPLETED, 31, 10)] == ["b", "e", "a"]
    assert [one.instance_id for one in await store.ended(Status.COMPLETED, 30, 10)] == ["b", "e"]
    assert [one.instance_id for one in await store.ended(Status.COMPLETED, 30, 1)] == ["b"]
    assert [one.instance_id for one in await store.ended(Status.FAILED, 31, 10)] == ["c"]
    assert await all_ids(store, InstanceFilter(completed_from=10, completed_to=30)) == ["b", "c", "e"]
    assert await all_ids(store, InstanceFilter(completed_to=10)) == ["d"]


async def test_who_has_a_child_there_does_not_go_before_it(store: Store) -> None:
    await accepted(store, create("p"), create("q"))
    await accepted(store, commit("p", starts=[start("c", parent="p")]), ended("p", sequence=2), ended("q"), ended("c"))
    assert [one.instance_id for one in await store.ended(Status.COMPLETED, 10, 10)] == ["q", "c"]
    await accepted(store, Purge("c"))
    assert [one.instance_id for one in await store.ended(Status.COMPLETED, 10, 10)] == ["p", "q"]


# ---- pasts


async def test_a_commit_keeps_as_many_past_executions_as_it_says(store: Store) -> None:
    await with_past(store, 5, past_kept=2)
    assert await pasts(store, 6) == ["x4", "x5", "x6"]
    assert await store.history("a", "x4") == [b"start a x4", b"end of x4"]
    assert await store.history("a", "x3") == []


@pytest.mark.parametrize(
    ("keep", "left"), [(0, ["x5"]), (1, ["x4", "x5"]), (3, ["x2", "x3", "x4", "x5"]), (4, None), (9, None)]
)
async def test_a_trimmed_past_has_its_last_executions_as_a_whole(
    store: Store, keep: int, left: list[str] | None
) -> None:
    await with_past(store, 4)
    whole = await store.history("a", "x4")
    await accepted(store, Trim("a", keep))
    assert await pasts(store, 5) == (left or ["x1", "x2", "x3", "x4", "x5"])
    assert await store.history("a", "x4") == (whole if keep else [])
    assert refusals([await one(store, commit("a", "x5", 9, chunk=b"on"))]) == [None]
    assert (await record(store)).execution_id == "x5"


async def test_who_has_no_piece_left_was_updated_when_it_was_created(store: Store) -> None:
    """The next execution's start is no piece until another follows it."""
    await accepted(store, create("a", at=5), create("b", at=5))
    continued = RowState(Status.CONTINUED_AS_NEW, None)
    for id, past_kept in (("a", 0), ("b", 1)):
        await accepted(
            store, Commit(id, "x1", 1, 9, b"end", continued, next_start=start(id, "x2"), past_kept=past_kept)
        )
    assert [(await record(store, id)).updated_at for id in "ab"] == [5, 9]
    await accepted(store, Trim("b", 0))
    assert (await record(store, "b")).updated_at == 5


async def test_a_trim_of_nobody_is_refused(store: Store) -> None:
    assert refusals([await one(store, Trim("a", 1))]) == [InstanceNotFoundError]


async def test_a_long_past_goes_a_part_at_a_time(store: Store) -> None:
    await with_past(store, EXECUTIONS_PER_TRIM + 20)
    await accepted(store, Trim("a", 5))
    assert await pasts(store, EXECUTIONS_PER_TRIM + 1) == [f"x{EXECUTIONS_PER_TRIM + 1}"]
    await accepted(store, Trim("a", 5))
    assert (await pasts(store, EXECUTIONS_PER_TRIM + 21))[0] == f"x{EXECUTIONS_PER_TRIM + 16}"


async def test_instances_with_long_pasts_are_found_page_by_page(store: Store) -> None:
    for id, executions in (("a", 3), ("b", 1), ("c", 0), ("d", 2)):
        await accepted(store, create(id))
        for number in range(executions):
            await accepted(store, continued(id, 2 * number + 1, f"x{number + 1}", f"x{number + 2}"))
    found: list[str] = []
    after: int | None = 0
    while after is not None:
        ids, after = await store.long_pasts(1, after, 1)
        found += ids
    assert found == ["a", "d"]
    assert await store.long_pasts(0, 0, 10) == (["a", "b", "d"], None)


# ---- messages that begin their receiver in the place of a finished one


def first(event: bytes, execution: str) -> Message:
    return Message("a", event, start=start("a", execution))


async def test_a_message_begins_in_the_place_of_a_finished_receiver_where_it_is_told_to(store: Store) -> None:
    await accepted(store, create(), ended())
    assert refusals([await one(store, Post(first(b"1", "x2")))]) == [InstanceFinishedError]
    begun, second = await accepted(store, Post(first(b"1", "x2"), None, True), Post(first(b"2", "x3"), None, True))
    assert [len(outcome.started) for outcome in (begun, second)] == [1, 0]
    assert (await record(store)).execution_id == "x2"
    assert await inbox(store) == [None, b"1", b"2"]
    assert await store.history("a", "x1") == [b"start a x1", b"the end"]


async def test_a_repeated_key_does_not_begin_it_again_after_its_end(store: Store) -> None:
    await accepted(store, Post(first(b"1", "x1"), "k", True))
    [delivery] = (await store.load(["a"]))[0].inbox
    await accepted(store, replace(ended(), consumed=[delivery.number]), Post(first(b"1", "x2"), "k", True))
    assert (await record(store)).execution_id == "x1"
    await accepted(store, Post(first(b"2", "x2"), "k2", True))
    assert (await record(store)).execution_id == "x2"
    assert await inbox(store) == [b"2"]


async def test_a_replacement_that_cannot_be_stored_changes_nothing(store: Store) -> None:
    await accepted(store, create(), ended())
    before = await everything(store)
    bad = Message("a", b"1", start=start("a", "x2", tags={"k": "v\0"}))
    assert refusals([await one(store, Post(bad, "k", True))]) == [InvalidArgumentError]
    assert await everything(store) == before
    assert await all_ids(store, EVERYTHING) == ["a"]
    assert refusals([await one(store, Create(start("a", "x3")))]) == [InstanceExistsError]
