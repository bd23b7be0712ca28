"""What it takes to find fifty instances among many, by each thing that they can be looked for by: it should not grow with the hub."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from benchmarks.question import Bar, Figure, Figures, Question
from replayflow import Codec, SqliteStore, Status
from replayflow.core import events
from replayflow.core.commit import Commit, RowState, Start
from replayflow.core.events import ExecutionStarted, OrchestratorStarted
from replayflow.store.base import Create, InstanceFilter, Operation, Park

_GROUP = 1_000
_PAGE = 50
_TRIES = 5
_SECOND = 1_000_000
_BEGIN = 1_700_000_000 * _SECOND
_RARE = 200_000
"""Of so many instances one is rare."""
_PIECE = events.encode([OrchestratorStarted(_BEGIN)])
_BAR = Bar(50)


async def measure(n: int, folder: Path) -> Figures:
    store = SqliteStore(folder / "finding.db", synchronous="NORMAL")
    await store.open()
    try:
        made = _instances(n)
        while group := list(islice(made, _GROUP)):
            for outcome in await store.write(group):
                if outcome.error is not None:
                    raise outcome.error
        figures = {f"{name}_ms": await _slowest(store, filters) for name, filters in _filters(n).items()}
        began = time.perf_counter()
        assert sum((await store.count(InstanceFilter(), "status")).values()) == n
        figures["count_ms"] = (time.perf_counter() - began) * 1e3
    finally:
        await store.close()
    return figures


def _instances(n: int) -> Iterator[Operation]:
    """Instances as a hub has them after a while: the old ones have ended, of the newest some are at work, a few are out of the ordinary."""
    event = events.encode([ExecutionStarted("order", Codec().encode("x" * 100), "", "")])
    for i in range(n):
        is_rare = i % _RARE == 0
        start = Start(
            instance_id=f"{'order' if i % 2 else 'parcel'}-{i:09}",
            execution_id=f"{i:032}",
            name="rare" if is_rare else ("ship" if i % 3 else "order"),
            version=None,
            event=event,
            created_at=_BEGIN + i * _SECOND,
            parent_id="rare" if is_rare else ("batch" if i % 10 == 0 else None),
            tags={"case": "rare"} if is_rare else ({"team": "red"} if i % 4 == 0 else None),
        )
        yield Create(start, has_new_id=True)
        at = start.created_at + 10 * _SECOND
        status = Status.FAILED if is_rare else (Status.RUNNING if i > n - n // 20 else Status.COMPLETED)
        state = RowState(status, None, completed_at=at if status.is_finished else None)
        yield Commit(start.instance_id, start.execution_id, 1, at, _PIECE, state)
        if is_rare:
            yield Park(start.instance_id, start.execution_id, b"problem")


def _filters(n: int) -> dict[str, list[InstanceFilter]]:
    late = _BEGIN + n * _SECOND * 9 // 10
    failed, running, completed = (frozenset({status}) for status in (Status.FAILED, Status.RUNNING, Status.COMPLETED))
    return {
        "everything": [InstanceFilter(is_entity=False)],
        "tag": [InstanceFilter(tags=(("case", "rare"),)), InstanceFilter(tags=(("team", "red"),))],
        "name": [InstanceFilter(name="rare"), InstanceFilter(name="order")],
        "status": [InstanceFilter(statuses=one) for one in (failed, running, completed)],
        "prefix": [InstanceFilter(id_prefix=f"order-{n - 1:09}"[:-2]), InstanceFilter(id_prefix="parcel-")],
        "parent": [InstanceFilter(parent_id="rare"), InstanceFilter(parent_id="batch")],
        "window": [
            InstanceFilter(created_from=late),
            InstanceFilter(completed_from=late, completed_to=late + 3_600 * _SECOND),
        ],
        "parked": [InstanceFilter(is_parked=True)],
        "nothing": [
            InstanceFilter(name="none"),
            InstanceFilter(id_prefix="none"),
            InstanceFilter(tags=(("case", "none"),)),
            InstanceFilter(parent_id="none"),
            InstanceFilter(statuses=frozenset({Status.TERMINATED})),
            InstanceFilter(created_from=_BEGIN + 2 * n * _SECOND),
        ],
        "several": [
            InstanceFilter(name="order", statuses=running, tags=(("team", "red"),)),
            InstanceFilter(name="ship", statuses=failed),
            InstanceFilter(statuses=completed, created_from=late, id_prefix="order-"),
            InstanceFilter(name="rare", id_prefix="order-", is_parked=True),
            InstanceFilter(parent_id="batch", created_from=late, statuses=frozenset({Status.FAILED, Status.RUNNING})),
        ],
    }


async def _slowest(store: SqliteStore, filters: list[InstanceFilter]) -> float:
    """The milliseconds of a page of fifty, first and next one, forward and back, by the filter that takes longest; of a few tries the best."""
    slowest = 0.0
    for wanted in filters:
        for latest_first in (False, True):
            first, cursor = await _page_ms(store, wanted, None, latest_first)
            following = 0.0 if cursor is None else (await _page_ms(store, wanted, cursor, latest_first))[0]
            slowest = max(slowest, first, following)
    return slowest


async def _page_ms(
    store: SqliteStore, wanted: InstanceFilter, cursor: str | None, latest_first: bool
) -> tuple[float, str | None]:
    best, following = float("inf"), None
    for _ in range(_TRIES):
        began = time.perf_counter()
        page = await store.page(wanted, _PAGE, cursor, latest_first)
        best = min(best, (time.perf_counter() - began) * 1e3)
        following = page.cursor
    return best, following


QUESTION = Question(
    "finding",
    "a page of fifty out of n instances, by each filter, rare and common, forward and back: the slowest",
    measure,
    figures=(
        *(
            Figure(f"{name}_ms", f"by {name}" if name != "everything" else "of all", "ms", bar=_BAR)
            for name in ("everything", "tag", "name", "status", "prefix", "parent", "window", "parked", "several")
        ),
        Figure("nothing_ms", "that fits none", "ms", bar=_BAR),
        Figure("count_ms", "all counted by status", "ms"),
    ),
    sizes=(1_000_000,),
    short_sizes=(20_000,),
)
