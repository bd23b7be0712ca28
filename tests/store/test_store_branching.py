"""Executions that begin with a past: all of a branch or nothing, and only on what was read."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from replayflow.core.commit import RowState
from replayflow.core.instance import Status
from replayflow.errors import InstanceExistsError, InvalidArgumentError, InvalidStateError, ReplayflowError
from replayflow.store import Store
from replayflow.store.base import Branch, Branched, Seen
from tests.store.builders import (
    OWNER,
    accepted,
    commit,
    create,
    end,
    everything,
    inbox,
    message,
    one,
    post,
    record,
    start,
)

PIECES = [(5, b"first"), (6, b"second")]
STATE = RowState(Status.RUNNING, 7, custom_status=b"kept", orphans=b"owed")


def rewound(execution: str = "x2", *, replaces: str = "x1", last: int = 2, id: str = "a") -> Branched:
    return Branched(start(id, execution, at=9, parent="p", tags={"k": "v"}), PIECES, STATE, replaces, last)


def forked(id: str = "f") -> Branched:
    return Branched(start(id, "y1", at=9), PIECES, STATE)


async def a_failed_instance(store: Store) -> None:
    """`a`, with two pieces, a key that it has had, and one that it has started."""
    await accepted(store, create("a", "x1"), post("a", key="k"))
    await accepted(store, commit("a", "x1", 1), end("a", "x1", 2, Status.FAILED))


async def test_a_rewound_execution_has_its_pieces_and_its_instance_keeps_the_rest(store: Store) -> None:
    await a_failed_instance(store)
    before = await record(store)
    outcome = await one(store, Branch([rewound()], messages=[message("a", b"told", execution="x2")]))
    assert (outcome.error, [begun.execution_id for begun in outcome.started]) == (None, ["x2"])
    after = await record(store)
    assert (after.execution_id, after.created_at, after.parent_id) == ("x2", before.created_at, before.parent_id)
    assert (after.status, after.wake_at, after.custom_status, after.orphans) == (Status.RUNNING, 7, b"kept", b"owed")
    assert (after.failure, after.output, after.completed_at, after.problem, after.progress) == (None,) * 5
    [loaded] = await store.load(["a"])
    assert (loaded.pieces, loaded.piece_count) == (b"firstsecond", 2)
    assert await store.history("a") == [after.start, b"first", b"second"]
    assert await store.history("a", "x1") == [before.start, b"chunk", b"the end"]
    # The key is kept (I6), what was in the inbox is, and the worker learns of it by a nudge.
    assert (await one(store, post("a", key="k"))).deliveries == []
    assert await inbox(store) == [None, b"event", None, b"told"]


async def test_a_rewound_execution_is_continued_by_commits(store: Store) -> None:
    await a_failed_instance(store)
    await accepted(store, Branch([rewound()]))
    number = (await record(store)).start_number + len(PIECES)
    epoch = await store.acquire(OWNER)
    await accepted(store, commit("a", "x2", number + 1, chunk=b"more"), epoch=epoch)
    assert (await store.history("a"))[1:] == [b"first", b"second", b"more"]


async def test_a_worker_needs_no_nudge(store: Store) -> None:
    await a_failed_instance(store)
    epoch = await store.acquire(OWNER)
    before = await inbox(store)
    outcome = await one(store, Branch([rewound(), forked()]), epoch)
    assert [begun.instance_id for begun in outcome.started] == ["a", "f"]
    assert await inbox(store) == before


async def test_a_fork_is_an_instance_of_its_own(store: Store) -> None:
    await accepted(store, Branch([forked()], starts=[start("c", "z1", parent="f")]))
    fork = await record(store, "f")
    assert (fork.status, fork.created_at, fork.start_number) == (Status.RUNNING, 9, 0)
    assert await store.history("f") == [fork.start, b"first", b"second"]
    assert (await record(store, "c")).parent_id == "f"
    await accepted(store, commit("f", "y1", 3))


@pytest.mark.parametrize(
    ("branch", "error"),
    [
        (Branch([rewound(replaces="x0")]), InvalidStateError),
        (Branch([rewound(last=1)]), InvalidStateError),
        (Branch([rewound(last=3)]), InvalidStateError),
        (Branch([rewound(), rewound(id="running", last=1)]), InvalidStateError),
        (Branch([forked(), rewound(id="nobody")]), InvalidStateError),
        (Branch([rewound(), forked("running")]), InstanceExistsError),
        (Branch([rewound()], [Seen("running", "x1")]), InvalidStateError),
        (Branch([rewound()], [Seen("a", None)]), InvalidStateError),
        (Branch([rewound()], [Seen("a", "x0")]), InvalidStateError),
        (Branch([rewound()], [Seen("nobody")]), InvalidStateError),
        (Branch([rewound(), forked("\ud800")]), InvalidArgumentError),
        (Branch([rewound()], starts=[start("b\0", "z1")]), InvalidArgumentError),
    ],
)
async def test_a_branch_that_does_not_fit_changes_nothing_at_all(
    store: Store, branch: Branch, error: type[ReplayflowError]
) -> None:
    await a_failed_instance(store)
    await accepted(store, create("running", "x1"), commit("running", "x1", 1))
    before = await everything(store)
    outcome = await one(store, branch)
    assert type(outcome.error) is error
    assert (outcome.started, outcome.deliveries) == ([], [])
    assert await everything(store) == before


async def test_a_branch_that_is_refused_leaves_its_neighbours_alone(store: Store) -> None:
    await a_failed_instance(store)
    good, bad, other = await store.write([Branch([rewound()]), Branch([rewound("x3")]), create("b", "x1")])
    assert (good.error, type(bad.error), other.error) == (None, InvalidStateError, None)
    assert (await record(store)).execution_id == "x2"


async def test_what_was_seen_as_it_is_does_not_hinder(store: Store) -> None:
    await a_failed_instance(store)
    await accepted(store, create("running", "x1"))
    await accepted(store, create("done", "x1"), end("done", "x1", 1))
    await accepted(store, Branch([rewound()], [Seen("running"), Seen("done", "x1")]))


async def test_a_child_whose_id_is_taken_is_told_to_its_parent(store: Store) -> None:
    await accepted(store, create("c", "x1"))
    taken = start("c", "z1", if_taken=message("f", b"taken", execution="y1"))
    await accepted(store, Branch([forked()], starts=[taken]))
    assert await inbox(store, "f") == [None, b"taken"]


async def test_a_result_that_came_since_is_not_passed_over(store: Store) -> None:
    await accepted(store, create("a", "x1"), post("a", execution="x1"), post("a"))
    await accepted(store, commit("a", "x1", 1), end("a", "x1", 2, Status.FAILED))
    numbers = [delivery.number for delivery in await store.arrived(0, 10) if delivery.event is not None]
    assert isinstance((await one(store, Branch([rewound()]))).error, InvalidStateError)
    await accepted(
        store, Branch([replace(rewound(), last_message=numbers[0])])
    )  # one for whoever has the id is kept for that
