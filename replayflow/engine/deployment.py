"""New code meets old instances: what nobody here serves is named, and those that sleep are tried, once.

What sleeps is not read at start-up. But where the code that serves a name and version has changed since a worker last served them, their sleeping
instances are read in the background, a few at a time: those that no longer fit are parked at once, and not in three weeks, when their timer fires
(I9). The new code is remembered when all have been tried, so that a worker that dies in between begins again; and where a worker ended before it had
remembered anything, nobody knows what ran, and they are tried as well.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeAlias

from replayflow.core.definitions import Environment, OrchestratorDefinition
from replayflow.core.digest import digest_of
from replayflow.core.instance import Status
from replayflow.core.versions import of_version
from replayflow.engine.patience import until_it_answers
from replayflow.store.base import InstanceFilter, Served, Store

TRIED_TOGETHER = 200
NAMED_MAX = 20
_logger = logging.getLogger("replayflow")
Pair: TypeAlias = tuple[str, str | None]


async def meet_what_is_open(
    store: Store,
    epoch: int,
    environment: Environment,
    look_at: Callable[[str], None],
    all_read: Callable[[], Awaitable[None]],
    *,
    is_first: bool,
) -> None:
    """What is open and has no code here has been named, and every sleeping instance whose code has changed has been looked at.

    `all_read` waits until what was asked for is in memory. `is_first` says that nobody worked here before: what is open ran no other code.
    """
    pairs = await until_it_answers(store.open_versions)
    fails = environment.versioning is not None and environment.versioning.fails
    await _name_unserved(store, [pair for pair in pairs if not serves(environment, *pair)], fails=fails)
    now = _served(environment, pairs)
    before = {(each.name, each.version): each for each in await until_it_answers(store.served)}
    changed: defaultdict[str, set[str | None]] = defaultdict(set)
    for name, version in pairs:
        served = now.get((name, version))
        past = before.get((name, version)) or before.get((name, None))
        if served is not None and (not is_first if past is None else past.digest != served.digest):
            changed[name].add(version)
    for name, versions in changed.items():
        await _try_all(store, name, versions, look_at, all_read)
    if any(before.get(pair) != served for pair, served in now.items()):
        await until_it_answers(partial(store.keep_served, list(now.values()), epoch))


def serves(environment: Environment, name: str, version: str | None) -> bool:
    """Whether this worker has code for instances of the name and version; `@` begins the names of entities."""
    if name.startswith("@"):
        return name[1:] in environment.entities
    return isinstance(environment.serving(name, version), OrchestratorDefinition)


async def _name_unserved(store: Store, unserved: Iterable[Pair], *, fails: bool) -> None:
    """The counts are logged, largest first. `fails` says whether this worker fails instances of other versions."""
    counted = [(await until_it_answers(partial(store.count_open, *pair)), *pair) for pair in unserved]
    if not counted:
        return
    counted.sort(key=lambda each: -each[0])
    named = [
        f"{count:,} of '{name}'{'' if version is None else f' {of_version(version)}'}"
        for count, name, version in counted[:NAMED_MAX]
    ]
    more = f", and {len(counted) - NAMED_MAX} more names and versions" if len(counted) > NAMED_MAX else ""
    total = sum(count for count, _, _ in counted)
    _logger.warning(
        "no code here serves %s open instances: %s%s; they wait for a worker that does%s",
        f"{total:,}",
        ", ".join(named),
        more,
        ", or fail when something comes for them" if fails else "",
    )


def _served(environment: Environment, pairs: Iterable[Pair]) -> dict[Pair, Served]:
    """The code of each registered version, of instances without one, and of all that are open, where it is here."""
    orchestrators = environment.orchestrators
    wanted = [(each.name, version) for each in orchestrators.every() for version in (each.version, None)]
    found: dict[Pair, Served] = {}
    for name, version in (*wanted, *pairs):
        definition = orchestrators.serving(name, version)
        if definition is not None:
            is_default = version == environment.default_version(name)
            found[name, version] = Served(name, version, digest_of(definition.fn), is_default)
    return found


async def _try_all(
    store: Store,
    name: str,
    versions: set[str | None],
    look_at: Callable[[str], None],
    all_read: Callable[[], Awaitable[None]],
) -> None:
    wanted = InstanceFilter(statuses=frozenset({Status.RUNNING, Status.SUSPENDED}), name=name)
    cursor: str | None = None
    while True:
        page = await until_it_answers(partial(store.page, wanted, TRIED_TOGETHER, cursor))
        for record in page.records:
            if (
                record.problem is None and (record.version or None) in versions
            ):  # the parked ones are tried at every start
                look_at(record.instance_id)
        await all_read()
        cursor = page.cursor
        if cursor is None:
            return
