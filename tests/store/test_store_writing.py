"""The contract of writing, for every store."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from replayflow.core.commit import Message
from replayflow.core.instance import Status
from replayflow.errors import (
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    LeaseLostError,
    ReplayflowError,
)
from replayflow.store import Store
from replayflow.store.base import Create, Delivery, OnExisting, Operation, Park, Post
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

# ---- groups


async def test_an_empty_group_writes_nothing_and_succeeds(store: Store) -> None:
    await accepted(store, create())
    before = await everything(store)
    assert await store.write([]) == []
    assert await everything(store) == before


async def test_operations_are_applied_in_order_and_refused_one_by_one(store: Store) -> None:
    outcomes = await store.write(
        [
            post("a"),  # not there yet
            create("a"),
            create("a", "x2"),
            post("a", b"1"),
            commit("a", sequence=2),
            commit("a", sequence=1, chunk=b"one"),
            end("a", sequence=2),
            post("a", b"too late"),
            create("b"),
            Park("b", "x9", b"problem"),
        ]
    )
    assert refusals(outcomes) == [
        InstanceNotFoundError,
        None,
        InstanceExistsError,
        None,
        LeaseLostError,
        None,
        None,
        InstanceFinishedError,
        None,
        LeaseLostError,
    ]
    assert await store.history("a") == [b"start a x1", b"one", b"the end"]
    assert await inbox(store, "a") == [None, b"1"]
    assert (await record(store, "b")).problem is None
    assert await all_ids(store) == ["a", "b"]


@pytest.mark.parametrize(
    ("operation", "refusal"),
    [
        (create("a", "x2"), InstanceExistsError),
        (create("a", "x2", "replace_finished"), InstanceExistsError),
        (create("done", "x2"), InstanceExistsError),
        (post("nobody"), InstanceNotFoundError),
        (post("nobody", key="k"), InstanceNotFoundError),
        (post("done"), InstanceFinishedError),
        (post("done", key="k"), InstanceFinishedError),
        (commit("nobody"), LeaseLostError),
        (commit("a", "x2", 2), LeaseLostError),
        (commit("a", sequence=1), LeaseLostError),
        (commit("a", sequence=3), LeaseLostError),
        (commit("a", sequence=0, chunk=None), LeaseLostError),
        (Park("nobody", "x1", b"p"), LeaseLostError),
        (Park("a", "x2", b"p", [message("a")]), LeaseLostError),
        (Create(start("bad \ud800")), InvalidArgumentError),
        (Create(start("new", "\udfff")), InvalidArgumentError),
        (Create(start("new", name="\udfff")), InvalidArgumentError),
        (Create(start("new", version="\udfff")), InvalidArgumentError),
        (Create(start("new", tags={"k": "\udfff"})), InvalidArgumentError),
        (Create(start("new", tags={"k\0": "v"})), InvalidArgumentError),
        (Create(start("a\0b")), InvalidArgumentError),
        (Create(start("done", "\udfff"), "replace_finished"), InvalidArgumentError),
        (post("a", key="\ud800"), InvalidArgumentError),
    ],
)
async def test_a_refused_operation_changes_nothing_and_drags_no_neighbour_down(
    store: Store, operation: Operation, refusal: type[ReplayflowError]
) -> None:
    await accepted(store, create("a"), create("done"), end("done"), commit("a"))
    before = await everything(store)
    if isinstance(operation, type(commit())):
        operation = replace(
            operation, state=shown(), consumed=[1, 2], starts=[start("child")], messages=[message("done"), message("a")]
        )
    outcome = await one(store, operation)
    assert refusals([outcome]) == [refusal]
    assert (outcome.deliveries, outcome.started, outcome.dropped) == ([], [], [])
    assert await everything(store) == before

    outcomes = await store.write([create("before"), operation, post("before", b"still")])
    assert refusals(outcomes) == [None, refusal, None]
    assert await inbox(store, "before") == [None, b"still"]
    assert "before" in await all_ids(store)
    assert (await everything(store)) != before


async def test_a_commit_with_text_that_cannot_be_stored_is_refused_as_a_whole(store: Store) -> None:
    [created] = await accepted(store, create())
    before = await everything(store)
    bad = commit(
        state=shown(), consumed=numbers(created), starts=[start("good"), start("\ud800")], messages=[message("a")]
    )
    assert refusals(await store.write([bad])) == [InvalidArgumentError]
    again = replace(bad, starts=[], next_start=start("a", "\ud800"), state=shown(Status.CONTINUED_AS_NEW))
    assert refusals(await store.write([again])) == [InvalidArgumentError]
    assert await everything(store) == before
    await accepted(store, commit())


# ---- creating


async def test_a_creation_is_what_the_row_shows(store: Store) -> None:
    parts = start("a", "x1", at=5, version="v2", wake_at=9, parent="p", tags={"k": "v", "ü": "'%"})
    [outcome] = await accepted(store, Create(parts))
    assert outcome.started == [parts]
    assert not outcome.has_existed
    row = await record(store)
    assert (row.instance_id, row.execution_id, row.name, row.version) == ("a", "x1", "order", "v2")
    assert (row.status, row.start, row.start_number) == (Status.PENDING, parts.event, 0)
    assert (row.wake_at, row.created_at, row.updated_at, row.completed_at) == (9, 5, 5, None)
    assert (row.parent_id, row.tags) == ("p", {"k": "v", "ü": "'%"})
    assert (row.custom_status, row.output, row.failure, row.problem, row.orphans, row.progress) == (None,) * 6
    assert await store.history("a") == [parts.event]


async def test_nudges_are_left_only_without_an_epoch(store: Store) -> None:
    epoch = await store.acquire(OWNER)
    [mine] = await accepted(store, create("mine"), epoch=epoch)
    [clients] = await accepted(store, create("client's"))
    assert mine.deliveries == []
    assert clients.deliveries == [Delivery(1, "client's", None, None, True, True)]
    assert await store.arrived(0, 10) == clients.deliveries
    await accepted(store, end("mine"), end("client's"), epoch=epoch)
    [mine] = await accepted(store, create("mine", "x2", "replace_finished"), epoch=epoch)
    [clients] = await accepted(store, create("client's", "x2", "replace_finished"))
    assert mine.deliveries == []
    assert [d.event for d in clients.deliveries] == [None]


@pytest.mark.parametrize("is_finished", [False, True])
@pytest.mark.parametrize("on_existing", ["error", "return", "replace_finished", "terminate_and_replace"])
@pytest.mark.parametrize("is_one_group", [False, True])
async def test_what_a_creation_does_where_the_id_is_taken(
    store: Store, on_existing: OnExisting, is_finished: bool, is_one_group: bool
) -> None:
    past: list[Operation] = [create("a"), *([end("a")] if is_finished else [])]
    second = create("a", "x2", on_existing, at=7)
    if is_one_group:
        outcome = (await store.write([*past, second]))[-1]
    else:
        await accepted(store, *past)
        outcome = await one(store, second)
    row = await record(store)
    replaced = is_finished and on_existing in ("replace_finished", "terminate_and_replace")
    assert outcome.started == ([second.start] if replaced else [])
    assert row.execution_id == ("x2" if replaced else "x1")
    assert outcome.has_existed == (on_existing == "return")
    is_refused = on_existing == "error" or (on_existing == "replace_finished" and not is_finished)
    assert refusals([outcome]) == [InstanceExistsError if is_refused else None]
    if on_existing == "terminate_and_replace" and not is_finished:
        assert [d.event for d in outcome.deliveries] == [b"replaced by start a x2"]
        assert outcome.deliveries[0].is_control
        assert await inbox(store) == [None, b"replaced by start a x2"]
    elif replaced:
        assert [d.event for d in outcome.deliveries] == [None]
    else:
        assert outcome.deliveries == []


async def test_a_creation_and_its_first_commit_may_stand_in_one_group(store: Store) -> None:
    epoch = await store.acquire(OWNER)
    await accepted(
        store,
        create("a"),
        commit("a", chunk=b"one", state=shown(wake_at=8), starts=[start("child")], messages=[message("child", b"m")]),
        commit("child", state=shown(Status.SUSPENDED)),
        epoch=epoch,
    )
    row = await record(store)
    assert (row.status, row.wake_at, row.custom_status, row.output) == (Status.RUNNING, 8, b"custom", b"output")
    assert (row.failure, row.orphans, row.progress, row.updated_at) == (b"failure", b"orphans", b"progress", 2)
    assert await store.history("a") == [b"start a x1", b"one"]
    assert await inbox(store, "child") == [b"m"]
    assert (await record(store, "child")).status is Status.SUSPENDED


async def test_where_a_creation_is_refused_its_first_commit_is_refused_too(store: Store) -> None:
    await accepted(store, create("a"))
    outcomes = await store.write([create("a", "x2"), commit("a", "x2", state=shown())])
    assert refusals(outcomes) == [InstanceExistsError, LeaseLostError]
    assert await store.history("a") == [b"start a x1"]
    assert (await record(store)).status is Status.PENDING


# ---- posting


async def test_messages_are_numbered_in_order_and_stand_in_the_inbox(store: Store) -> None:
    outcomes = await accepted(store, create("a"), create("b"), post("a", b"1"), post("b", b"2"), post("a", b"3"))
    outcomes += await accepted(store, post("a", b"4", execution="x1"))
    assert [numbers(outcome) for outcome in outcomes] == [[1], [2], [3], [4], [5], [6]]
    assert outcomes[-1].deliveries == [Delivery(6, "a", b"4", "x1", False, True)]
    [a, b] = await store.load(["a", "b"])
    assert [(d.number, d.event) for d in a.inbox] == [(1, None), (3, b"1"), (5, b"3"), (6, b"4")]
    assert [(d.number, d.event) for d in b.inbox] == [(2, None), (4, b"2")]
    assert a.inbox[-1] == outcomes[-1].deliveries[0]


async def test_a_message_for_another_execution_is_not_delivered(store: Store) -> None:
    await accepted(store, create("a"))
    outcome = await one(store, post("a", b"m", execution="x2"))
    assert outcome.deliveries == []
    assert outcome.dropped == [message("a", b"m", execution="x2")]
    assert await inbox(store) == [None]


async def test_a_dedupe_key_is_delivered_once_per_instance_also_after_the_end(store: Store) -> None:
    await accepted(store, create("a"), create("b"))
    first, twice, elsewhere, other = await accepted(
        store, post("a", b"1", "k"), post("a", b"2", "k"), post("b", b"3", "k"), post("a", b"4", "K")
    )
    assert [len(outcome.deliveries) for outcome in (first, twice, elsewhere, other)] == [1, 0, 1, 1]
    assert (await one(store, post("a", b"5", "k"))).deliveries == []
    assert await inbox(store) == [None, b"1", b"4"]
    await accepted(store, end("a"))
    [repeated] = await accepted(store, post("a", b"6", "k"))
    assert repeated.deliveries == []
    assert refusals([await one(store, post("a", b"7", "new"))]) == [InstanceFinishedError]
    await accepted(store, create("a", "x2", "replace_finished"))
    # A replacement has had none of the keys, and the refusal above has not used its key up.
    assert [len((await one(store, post("a", b"8", "k"))).deliveries) for _ in range(2)] == [1, 0]
    assert len((await accepted(store, post("a", b"9", "new")))[0].deliveries) == 1


async def test_a_key_of_a_post_to_nobody_is_not_remembered(store: Store) -> None:
    assert refusals(await store.write([post("a", b"1", "k"), create("a")])) == [InstanceNotFoundError, None]
    assert len((await accepted(store, post("a", b"1", "k")))[0].deliveries) == 1


# ---- committing


async def test_only_the_commit_that_continues_the_history_is_accepted(store: Store) -> None:
    await accepted(store, create("a"), commit(sequence=1, chunk=b"1"))
    doubled = await store.write([commit(sequence=2, chunk=b"2"), commit(sequence=2, chunk=b"other 2")])
    assert refusals(doubled) == [None, LeaseLostError]
    stale = await store.write(
        [commit(sequence=1), commit(sequence=4), commit(sequence=2), commit(sequence=3, chunk=b"3")]
    )
    assert refusals(stale) == [LeaseLostError, LeaseLostError, LeaseLostError, None]
    assert await store.history("a") == [b"start a x1", b"1", b"2", b"3"]


async def test_a_commit_without_a_chunk_takes_no_number(store: Store) -> None:
    await accepted(store, create("a"), commit(sequence=1, at=4))
    await accepted(store, commit(sequence=2, chunk=None, at=9, state=shown(wake_at=77)), commit(sequence=2, at=6))
    row = await record(store)
    assert (row.wake_at, row.updated_at) == (77, 6)
    assert len(await store.history("a")) == 3


async def test_a_commit_without_a_state_leaves_the_row(store: Store) -> None:
    await accepted(store, create("a"), commit(sequence=1, state=shown(wake_at=5)))
    before = await record(store)
    await accepted(store, commit(sequence=2, at=30))
    assert await record(store) == replace(before, updated_at=30)


async def test_consumed_messages_vanish_with_the_commit_and_no_others(store: Store) -> None:
    _, first, second, third = await accepted(store, create("a"), post("a", b"1"), post("a", b"2"), post("a", b"3"))
    refused = commit(sequence=7, consumed=numbers(first))
    assert refusals([await one(store, refused)]) == [LeaseLostError]
    assert await inbox(store) == [None, b"1", b"2", b"3"]
    await accepted(store, commit(sequence=1, consumed=numbers(first) + numbers(third)))
    assert await inbox(store) == [None, b"2"]
    await accepted(store, commit(sequence=2, consumed=numbers(first) + numbers(second) + [999]))
    assert await inbox(store) == [None]
    assert [d.event for d in await store.arrived(0, 10)] == [None]


async def test_numbers_are_never_used_again(store: Store) -> None:
    [created, posted] = await accepted(store, create("a"), post("a"))
    await accepted(store, commit(consumed=numbers(created) + numbers(posted)))
    assert await inbox(store) == []
    [later] = await accepted(store, post("a"))
    assert numbers(later) > numbers(posted)


async def test_children_are_created_or_the_parent_is_told_that_the_id_is_taken(store: Store) -> None:
    epoch = await store.acquire(OWNER)
    await accepted(store, create("parent"), create("taken"), create("another"), epoch=epoch)
    told = message("parent", b"taken", execution="x1")
    new = start("child", parent="parent", at=3)
    [outcome] = await accepted(
        store,
        commit(
            "parent",
            starts=[
                new,
                start("taken", "x7", if_taken=told),
                start("child", "x8", if_taken=told),
                start("taken", "x9"),
                start("taken", "x10", if_taken=message("another", b"taken")),
            ],
        ),
        epoch=epoch,
    )
    assert outcome.started == [new]
    assert [(d.instance_id, d.event) for d in outcome.deliveries] == [
        ("parent", b"taken"),
        ("parent", b"taken"),
        ("another", b"taken"),
    ]
    assert (await record(store, "child")).parent_id == "parent"
    assert (await record(store, "taken")).execution_id == "x1"


async def test_messages_of_a_commit_are_delivered_or_dropped(store: Store) -> None:
    await accepted(store, create("a"), create("b"), create("done"), end("done"))
    sent = [
        message("b", b"1"),
        message("nobody"),
        message("done"),
        message("b", execution="x2"),
        Message("b", b"2", "x1", is_control=True, about="about"),
        message("a", b"3"),
        message("c", b"4"),
    ]
    [outcome] = await accepted(store, commit("a", starts=[start("c")], messages=sent))
    assert [d.event for d in outcome.deliveries] == [b"1", b"2", b"3", b"4"]
    assert outcome.dropped == sent[1:4]
    assert [d.is_control for d in outcome.deliveries] == [False, True, False, False]
    assert numbers(outcome) == sorted(numbers(outcome))
    assert await inbox(store, "b") == [None, b"1", b"2"]
    assert await inbox(store, "c") == [b"4"]


async def test_a_finished_instance_is_sent_nothing_in_the_group_that_ends_it(store: Store) -> None:
    await accepted(store, create("a"), create("b"))
    [_, outcome] = await accepted(store, end("b"), commit("a", messages=[message("b")]))
    assert outcome.dropped == [message("b")]


# ---- executions that follow each other


async def test_a_continuation_keeps_what_is_the_instances_and_drops_what_was_the_executions(store: Store) -> None:
    first = start("a", "x1", at=1, parent="p", version="v1", tags={"old": "1"})
    await accepted(store, Create(first), post("a", b"kept"), commit(sequence=1, at=2, chunk=b"1"))
    following = start("a", "x2", at=5, name="other", version="v2", wake_at=50, tags={"new": "2"}, parent="ignored")
    [outcome] = await accepted(
        store,
        commit(
            sequence=2,
            at=5,
            chunk=b"2",
            state=shown(Status.CONTINUED_AS_NEW),
            next_start=following,
            messages=[message("a", b"for the next", execution="x2"), message("a", b"for the last", execution="x1")],
        ),
    )
    assert outcome.started == []
    assert [d.event for d in outcome.deliveries] == [b"for the next"]
    assert [m.event for m in outcome.dropped] == [b"for the last"]
    row = await record(store)
    assert (row.execution_id, row.name, row.version, row.tags) == ("x2", "other", "v2", {"new": "2"})
    assert (row.status, row.start, row.start_number, row.wake_at) == (Status.PENDING, following.event, 3, 50)
    assert (row.created_at, row.updated_at, row.completed_at, row.parent_id) == (1, 5, None, "p")
    assert (row.custom_status, row.orphans, row.progress) == (b"custom", b"orphans", None)
    assert (row.output, row.failure, row.problem) == (None, None, None)
    assert await inbox(store) == [None, b"kept", b"for the next"]
    assert await store.history("a") == [following.event]
    assert await store.history("a", "x1") == [first.event, b"1", b"2"]


async def test_a_replacement_begins_anew_under_the_same_id(store: Store) -> None:
    await accepted(store, Create(start("a", at=1, parent="p", tags={"old": "1"})), post("a", b"left"), end("a"))
    [outcome] = await accepted(store, create("a", "x2", "replace_finished", at=9))
    assert len(outcome.started) == 1
    row = await record(store)
    assert (row.status, row.created_at, row.updated_at, row.completed_at) == (Status.PENDING, 9, 9, None)
    assert (row.parent_id, row.tags, row.custom_status) == (None, None, None)
    assert (row.output, row.failure, row.problem, row.orphans) == (None, None, None, b"orphans")
    assert row.progress is None
    assert await inbox(store) == [None, b"left", None]
    assert await store.history("a", "x1") == [b"start a x1", b"the end"]


async def test_numbers_of_pieces_go_on_over_executions(store: Store) -> None:
    await accepted(store, create("a"))
    sequence = 1
    for execution in range(1, 5):
        following = start("a", f"x{execution + 1}", at=execution)
        await accepted(
            store,
            commit("a", f"x{execution}", sequence, chunk=b"%d.1" % execution),
            commit(
                "a",
                f"x{execution}",
                sequence + 1,
                chunk=b"%d.2" % execution,
                state=shown(Status.CONTINUED_AS_NEW),
                next_start=following,
            ),
        )
        refused = await store.write(
            [commit("a", f"x{execution}", sequence + 2), commit("a", f"x{execution + 1}", sequence + 2)]
        )
        assert refusals(refused) == [LeaseLostError, LeaseLostError]
        sequence += 3
    assert (await record(store)).start_number == sequence - 1
    for execution in range(1, 5):
        begun = b"start a x%d" % execution
        assert await store.history("a", f"x{execution}") == [begun, b"%d.1" % execution, b"%d.2" % execution]
    assert await store.history("a", "x5") == [b"start a x5"] == await store.history("a")


async def test_an_instance_may_begin_continue_and_end_within_one_group(store: Store) -> None:
    await accepted(
        store,
        create("a"),
        commit(sequence=1, chunk=b"1", state=shown(Status.CONTINUED_AS_NEW), next_start=start("a", "x2")),
        commit("a", "x2", 3, chunk=b"3", state=shown(Status.COMPLETED)),
        create("a", "x3", "replace_finished"),
        post("a", b"m"),
        commit("a", "x3", 5, chunk=b"5"),
        create("b"),
    )
    assert await store.history("a", "x1") == [b"start a x1", b"1"]
    assert await store.history("a", "x2") == [b"start a x2", b"3"]
    assert await store.history("a") == [b"start a x3", b"5"]
    assert await all_ids(store) == ["a", "b"]


# ---- parking


async def test_parking_shows_the_problem_and_keeps_the_messages(store: Store) -> None:
    await accepted(store, create("a"), create("b"), commit(sequence=1))
    mine, theirs = message("a", b"result", execution="x1"), message("b", b"too")
    [outcome] = await accepted(store, Park("a", "x1", b"problem", [mine, theirs, message("a", execution="x0")]))
    assert [(d.instance_id, d.takes_messages) for d in outcome.deliveries] == [("a", False), ("b", True)]
    assert outcome.dropped == [message("a", execution="x0")]
    row = await record(store)
    assert (row.problem, row.status) == (b"problem", Status.PENDING)
    [delivered] = (await accepted(store, post("a", b"waits")))[0].deliveries
    assert not delivered.takes_messages
    assert await inbox(store) == [None, b"result", b"waits"]
    await accepted(store, Park("a", "x1", None))
    assert (await record(store)).problem is None
    assert (await accepted(store, post("a")))[0].deliveries[0].takes_messages


async def test_a_parked_instance_stays_parked_over_a_commit(store: Store) -> None:
    [_, _, _, in_group] = await accepted(
        store, create("a"), Park("a", "x1", b"problem"), commit(state=shown()), post("a", b"1")
    )
    [later] = await accepted(store, post("a", b"2"))
    assert (await record(store)).problem == b"problem"
    for outcome in (in_group, later):
        assert not outcome.deliveries[0].takes_messages
    await accepted(store, commit(sequence=2, state=shown(Status.COMPLETED)), create("a", "x2", "replace_finished"))
    assert (await record(store)).problem is None
    assert (await accepted(store, post("a", b"3")))[0].deliveries[0].takes_messages


async def test_a_new_instance_can_be_parked_in_the_group_that_creates_it(store: Store) -> None:
    await accepted(store, create("a"), Park("a", "x1", b"problem"), create("b"), Park("b", "x1", None))
    assert ((await record(store, "a")).problem, (await record(store, "b")).problem) == (b"problem", None)


# ---- who may write


@pytest.mark.parametrize("wrong", [-1, 0, +2])
@pytest.mark.parametrize(
    "operation",
    [
        create("new"),
        create("done", "x2", "replace_finished"),
        create("a", "x2", "terminate_and_replace"),
        Post(message("a"), "k"),
        commit("a", sequence=2, state=shown(), starts=[start("child")], messages=[message("a")]),
        Park("a", "x1", b"problem", [message("a")]),
    ],
)
async def test_a_write_under_another_epoch_changes_nothing(store: Store, operation: Operation, wrong: int) -> None:
    await accepted(store, create("a"), commit("a"), create("done"), end("done"))
    first = await store.acquire(OWNER)
    await store.release()
    second = await store.acquire(OWNER)
    assert second > first
    before = await everything(store)
    with pytest.raises(LeaseLostError):
        await store.write([create("neighbour"), operation, post("a")], first + wrong)
    assert await everything(store) == before
    await accepted(store, operation, epoch=second)
    assert await everything(store) != before
