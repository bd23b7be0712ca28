"""New code meets old instances: those that sleep are tried against it, once.

What sleeps is not read at start-up. But when an orchestrator's code has changed since a worker last served it, its sleeping instances are read in
the background, a few at a time: those that no longer fit are parked at once, and not in three weeks, when their timer fires (I9). The new code is
remembered when all have been tried, so that a worker that dies in between begins again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from replayflow.core.definitions import Environment
from replayflow.core.digest import digest_of
from replayflow.core.instance import Status
from replayflow.engine.patience import until_it_answers
from replayflow.store.base import InstanceFilter, Store

TRIED_TOGETHER = 200


async def try_sleepers(
    store: Store,
    epoch: int,
    environment: Environment,
    look_at: Callable[[str], None],
    all_read: Callable[[], Awaitable[None]],
) -> None:
    """Every sleeping instance of an orchestrator whose code has changed has been looked at.

    `all_read` waits until what was asked for is in memory.
    """
    digests = {name: digest_of(definition.fn) for name, definition in environment.orchestrators.items()}
    before = await until_it_answers(store.code)
    for name, digest in digests.items():
        if before.get(name, digest) != digest:
            await _try_all(store, name, look_at, all_read)
    if any(before.get(name) != digest for name, digest in digests.items()):
        await until_it_answers(partial(store.keep_code, digests, epoch))


async def _try_all(
    store: Store, name: str, look_at: Callable[[str], None], all_read: Callable[[], Awaitable[None]]
) -> None:
    wanted = InstanceFilter(statuses=frozenset({Status.RUNNING, Status.SUSPENDED}), name=name)
    cursor: str | None = None
    while True:
        page = await until_it_answers(partial(store.page, wanted, TRIED_TOGETHER, cursor))
        for record in page.records:
            if record.problem is None:  # the parked ones are tried at every start
                look_at(record.instance_id)
        await all_read()
        cursor = page.cursor
        if cursor is None:
            return
