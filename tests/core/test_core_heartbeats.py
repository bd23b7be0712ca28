"""Heartbeats in histories: they are facts that reach no code, and are kept as long as somebody may want to know."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from replayflow import OrchestrationContext, RetryPolicy, when_all
from replayflow.core.events import (
    ExecutionResumed,
    ExecutionSuspended,
    ExecutionTerminated,
    HeartbeatRecorded,
    MapItemFailed,
    MapPage,
    MapProgress,
    MapRetried,
)
from replayflow.core.instance import Instance
from replayflow.core.map.mapping import PAGE
from replayflow.errors import FailureDetails
from tests.core.driver import Stage, app_with, done, encoded, failed, folded

RETRIED = RetryPolicy(max_attempts=3, first_interval=timedelta(seconds=1))


def told(task_id: int, detail: object, *, attempt: int = 1, call: int | None = None) -> HeartbeatRecorded:
    return HeartbeatRecorded(task_id, attempt, encoded(detail), call)


def work(x: int) -> int:
    return x


def two(ctx: OrchestrationContext) -> Any:
    yield when_all([ctx.call_activity(work, n, retry=RETRIED) for n in range(2)])
    yield ctx.call_activity(work, 2)


def maps(ctx: OrchestrationContext) -> Any:
    yield ctx.map(work, [1, 2, 3], concurrency=2, retry=RETRIED)


def again(stage: Stage) -> Instance:
    """The fold of the whole history, made anew."""
    instance = Instance()
    instance.apply_pieces(stage.history())
    return instance


@pytest.mark.parametrize("always_cold", [False, True])
def test_the_last_detail_is_kept_until_the_task_is_closed_and_wakes_no_code(always_cold: bool) -> None:
    with Stage(app_with(two, work), always_cold=always_cold) as stage:
        stage.run()
        stage.run(told(1, "first"), told(2, "other"), told(1, "second"))
        assert stage.kinds() == ["HeartbeatRecorded"] * 3
        assert stage.instance.heartbeats == {1: encoded("second"), 2: encoded("other")}
        stage.run(told(1, "third"), failed(1))
        assert stage.kinds() == ["HeartbeatRecorded", "TaskAttemptFailed"]
        assert stage.instance.heartbeats[1] == encoded("third")
        stage.run(done(1, 1))
        assert stage.run(told(1, "late")).commit is None
        stage.run(told(2, "last"))
        assert stage.instance.heartbeats == {2: encoded("last")}
        stage.run(done(2, 2))
        stage.run(told(3, "new"))
        assert stage.instance.heartbeats == {3: encoded("new")}
        assert folded(again(stage)) == folded(stage.instance)
        stage.run(done(3, 3))
        assert stage.run(told(3, "late")).commit is None


def test_a_suspended_instance_takes_heartbeats_in_and_holds_the_failure() -> None:
    with Stage(app_with(two, work)) as stage:
        stage.run()
        stage.run(ExecutionSuspended())
        episode = stage.run(told(1, "meanwhile"), failed(1))
        assert stage.kinds() == ["HeartbeatRecorded"]
        assert [type(event).__name__ for event in episode.held] == ["TaskFailed"]
        stage.run(ExecutionResumed(), *episode.held)
        assert stage.instance.heartbeats == {1: encoded("meanwhile")}


def test_what_is_told_after_the_end_is_dropped() -> None:
    with Stage(app_with(two, work)) as stage:
        stage.run()
        stage.run(told(1, "before"), ExecutionTerminated())
        assert stage.kinds()[0] == "ExecutionTerminated"
        assert "HeartbeatRecorded" not in stage.kinds()
        assert stage.run(told(2, "after")).commit is None


def test_a_call_of_a_map_is_heard_until_it_is_settled() -> None:
    details = FailureDetails("ValueError", "broken")
    with Stage(app_with(maps, work)) as stage:
        stage.run()
        stage.run(told(1, "zero", call=0), told(1, "one", call=1))
        # What failed is gathered with what lies in the mailbox already, and may stand before its last heartbeat.
        stage.run(MapProgress(1, [0], [encoded(1)], [MapItemFailed(1, 0, details)]), told(1, "last", call=1))
        open = stage.instance.maps[1]
        assert open.heartbeats[1] == encoded("last")
        assert stage.run(told(1, "late", call=0)).commit is None
        assert stage.run(told(1, "none", call=99)).commit is None
        for number in range(100):
            stage.run(told(1, number, call=1))
        assert len(open.heartbeats) <= 5
        assert again(stage).maps[1].heartbeats == open.heartbeats
        stage.run(MapRetried(1, [1]), MapProgress(1, [1, 2], [encoded(2), encoded(3)], []))
        assert stage.run(told(1, "late", call=2)).commit is None


def pages(cursor: int | None) -> tuple[list[int], int | None]:
    return [1], cursor


def paged(ctx: OrchestrationContext) -> Any:
    yield ctx.map(work, pages, concurrency=2)


def test_what_one_page_told_is_nothing_to_the_next() -> None:
    with Stage(app_with(paged, work, pages)) as stage:
        stage.run()
        stage.run(told(1, "page 0", call=PAGE))
        open = stage.instance.maps[1]
        assert open.heartbeats == {PAGE: encoded("page 0")}
        stage.run(MapPage(1, 0, [], 0, encoded(1)))
        assert open.heartbeats == {}
        stage.run(MapPage(1, 1, [], 0, None))
        assert stage.run(told(1, "late", call=PAGE)).commit is None
