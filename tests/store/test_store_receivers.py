"""The contract of receivers that begin with a message, of pasts that are forgotten, and of instances that are removed; for every store."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from replayflow.core.commit import Message
from replayflow.core.instance import Status
from replayflow.errors import InstanceFinishedError, InstanceNotFoundError, InvalidArgumentError, LeaseLostError
from replayflow.store import Store
from replayflow.store.base import InstanceFilter, Park, Post
from tests.store.builders import (
    OWNER,
    accepted,
    all_ids,
    commit,
    create,
    end,
    everything,
    inbox,
    message,
    numbers,
    one,
    post,
    record,
    refusals,
    shown,
    start,
)


def first(id: str = "@e@a", event: bytes = b"event", execution: str = "e1") -> Message:
    """A message that begins its receiver."""
    return Message(id, event, start=start(id, execution, name="@e"))


def continued(
    id: str = "a", sequence: int = 2, execution: str = "x1", following: str = "x2", *, forgets: bool
) -> object:
    ending = commit(id, execution, sequence, chunk=b"end of " + execution.encode())
    return replace(
        ending, state=shown(Status.CONTINUED_AS_NEW), next_start=start(id, following), past_kept=1 if forgets else None
    )


# ---- receivers that begin with a message


async def test_a_message_begins_its_receiver_where_there_is_none(store: Store) -> None:
    [outcome] = await accepted(store, Post(first()))
    assert [s.execution_id for s in outcome.started] == ["e1"]
    assert [d.event for d in outcome.deliveries] == [b"event"]
    assert await inbox(store, "@e@a") == [b"event"]
    found = await record(store, "@e@a")
    assert (found.name, found.status, found.execution_id, found.wake_at) == ("@e", Status.PENDING, "e1", 0)


async def test_the_second_of_two_that_race_finds_what_the_first_has_begun(store: Store) -> None:
    outcomes = await accepted(store, Post(first(event=b"1")), Post(first(event=b"2", execution="e2")))
    assert [len(outcome.started) for outcome in outcomes] == [1, 0]
    assert (await record(store, "@e@a")).execution_id == "e1"
    assert await inbox(store, "@e@a") == [b"1", b"2"]
    [third] = await accepted(store, Post(first(event=b"3", execution="e3")))
    assert third.started == []
    assert await inbox(store, "@e@a") == [b"1", b"2", b"3"]


async def test_commits_and_parkings_begin_receivers_too(store: Store) -> None:
    await accepted(store, create(), commit())
    [moved, parked] = await accepted(
        store,
        commit(sequence=2, messages=[first(event=b"1"), first(event=b"2", execution="e2")]),
        Park("a", "x1", b"problem", [first("@e@b")]),
    )
    assert [s.instance_id for s in moved.started] == ["@e@a"]
    assert [s.instance_id for s in parked.started] == ["@e@b"]
    assert await inbox(store, "@e@a") == [b"1", b"2"]


async def test_a_receiver_that_is_there_is_left_as_it_is(store: Store) -> None:
    await accepted(store, create("@e@a", "x1"), create("done"), end("done"))
    await accepted(store, Post(first()))
    assert (await record(store, "@e@a")).execution_id == "x1"
    before = await everything(store)
    assert refusals(await store.write([Post(first("done")), post("@e@b")])) == [
        InstanceFinishedError,
        InstanceNotFoundError,
    ]
    assert await everything(store) == before


async def test_a_receiver_that_cannot_be_stored_begins_nothing(store: Store) -> None:
    await accepted(store, create())
    before = await everything(store)
    bad = Message("@e@a", b"event", start=start("@e@a", "\ud800"))
    assert (
        refusals(await store.write([Post(bad), Post(bad, "key"), commit(messages=[first("@e@b"), bad])]))
        == [InvalidArgumentError] * 3
    )
    assert refusals([await one(store, Post(first(), "\ud800"))]) == [InvalidArgumentError]
    assert await everything(store) == before


async def test_a_repeated_key_neither_delivers_nor_begins_again(store: Store) -> None:
    [begun, again] = await accepted(store, Post(first(), "k"), Post(first(execution="e2"), "k"))
    assert (len(begun.deliveries), again.deliveries, again.started) == (1, [], [])
    assert await inbox(store, "@e@a") == [b"event"]


async def test_entities_are_told_from_other_instances(store: Store) -> None:
    await accepted(
        store, create("a"), Post(first("@e@a")), create("b@c"), Park("@e@a", "e1", b"p"), Park("a", "x1", b"p")
    )
    assert await all_ids(store, InstanceFilter(is_entity=True)) == ["@e@a"]
    assert await all_ids(store, InstanceFilter(is_entity=False)) == ["a", "b@c"]
    assert await all_ids(store, InstanceFilter(is_entity=False, is_parked=True)) == ["a"]
    assert await all_ids(store, InstanceFilter(is_entity=True, is_parked=True)) == ["@e@a"]
    assert await all_ids(store, InstanceFilter(is_parked=True), limit=1) == ["a", "@e@a"]


# ---- pasts that are forgotten


async def test_a_forgotten_past_is_gone_but_for_the_last_execution(store: Store) -> None:
    await accepted(store, create(), commit(), continued(forgets=True))  # type: ignore[arg-type]
    assert await store.history("a", "x1") == [b"start a x1", b"chunk", b"end of x1"]
    await accepted(
        store,
        commit(execution="x2", sequence=4),
        continued(sequence=5, execution="x2", following="x3", forgets=True),  # type: ignore[arg-type]
        commit(execution="x3", sequence=7, chunk=b"third"),
    )
    assert await store.history("a", "x1") == []
    assert await store.history("a", "x2") == [b"start a x2", b"chunk", b"end of x2"]
    assert await store.history("a") == [b"start a x3", b"third"]
    assert refusals([await one(store, commit(execution="x3", sequence=7))]) == [LeaseLostError]


async def test_without_being_asked_a_store_forgets_nothing(store: Store) -> None:
    await accepted(store, create(), commit(), continued(forgets=False))  # type: ignore[arg-type]
    await accepted(store, continued(sequence=4, execution="x2", following="x3", forgets=False))  # type: ignore[arg-type]
    assert await store.history("a", "x1") == [b"start a x1", b"chunk", b"end of x1"]


# ---- instances that are removed


async def test_a_removed_instance_leaves_nothing_and_its_id_is_free(store: Store) -> None:
    await accepted(store, create("before"))
    before = await everything(store)
    [_, posted] = await accepted(store, create("a"), post("a", key="k"))
    [loaded] = await store.load(["a"])
    await accepted(store, replace(commit("a", consumed=[d.number for d in loaded.inbox]), removes=True))
    assert await store.get("a") is None
    assert await store.history("a") == []
    assert refusals(await store.write([post("a"), commit("a", sequence=2)])) == [InstanceNotFoundError, LeaseLostError]
    assert await everything(store) == before
    [_, again] = await accepted(store, create("a", "x9"), post("a", b"new", key="k"))
    assert len(again.deliveries) == 1
    assert numbers(again)[0] > numbers(posted)[0]
    assert await store.history("a") == [b"start a x9"]


async def test_a_message_that_is_not_consumed_keeps_its_receiver(store: Store) -> None:
    [begun] = await accepted(store, Post(first()))
    [_] = await accepted(store, Post(first(event=b"late")))
    await accepted(store, replace(commit("@e@a", "e1", consumed=numbers(begun)), removes=True))
    assert await inbox(store, "@e@a") == [b"late"]
    assert await store.history("@e@a") == [b"start @e@a e1", b"chunk"]


async def test_removed_and_begun_anew_within_one_group(store: Store) -> None:
    [begun] = await accepted(store, Post(first()))
    outcomes = await store.write(
        [
            replace(commit("@e@a", "e1", consumed=numbers(begun)), removes=True),
            commit("@e@a", "e1", sequence=2),
            Post(first(event=b"again", execution="e2")),
            commit("@e@a", "e2", chunk=b"anew"),
        ]
    )
    assert refusals(outcomes) == [None, LeaseLostError, None, None]
    assert [s.execution_id for s in outcomes[2].started] == ["e2"]
    assert await store.history("@e@a") == [b"start @e@a e2", b"anew"]
    assert await inbox(store, "@e@a") == [b"again"]


async def test_begun_moved_and_removed_within_one_group(store: Store) -> None:
    await accepted(store, create("x"))
    before = await everything(store)
    epoch = await store.acquire(OWNER)
    await accepted(
        store, create("@e@a", "e1"), replace(commit("@e@a", "e1", messages=[message("x")]), removes=True), epoch=epoch
    )
    assert await store.get("@e@a") is None
    loaded = await store.load(["x"])
    await accepted(
        store, commit("x", chunk=None, consumed=[d.number for d in loaded[0].inbox if d.event is not None]), epoch=epoch
    )
    assert await everything(store) == before


@pytest.mark.parametrize("wakes", [None, 5])
async def test_what_is_removed_wakes_nobody(store: Store, wakes: int | None) -> None:
    epoch = await store.acquire(OWNER)
    await accepted(store, create("@e@a", "e1"), epoch=epoch)
    await accepted(store, replace(commit("@e@a", "e1", state=shown(wake_at=wakes)), removes=True), epoch=epoch)
    assert await store.wakes(None, 10) == []
