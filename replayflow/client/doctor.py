"""What is stuck in a hub, or about to be, and what to do about it: the part of `Client` that examines.

Each examination is a function that reads by index, and at most so many instances (`LOOKED_AT_MAX`); where there are more, its finding says "or more".
What is normal is no finding: an instance that waits for a timer, a child or, for a while, an event.
"""

from __future__ import annotations

import re
import shlex
import stat
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Literal, Protocol

from replayflow.client.finding import Wanted, filter_of
from replayflow.client.waits import message_name, past_of
from replayflow.clock import Clock, to_datetime
from replayflow.core import events
from replayflow.core.instance import Status
from replayflow.core.signatures import OWN_PREFIX
from replayflow.core.suspicion import is_poison
from replayflow.core.versions import of_version
from replayflow.core.waits import WaitKind, Waits
from replayflow.errors import SealedError, StoreCorruptError
from replayflow.patterns.schedule_handle import ScheduleState
from replayflow.registry import App
from replayflow.store import Store
from replayflow.store.base import Condition, InstanceFilter, InstanceRecord
from replayflow.store.sound import is_unreadable, load_sound

LOOKED_AT_MAX = 2_000
_TOGETHER = 200
_EXAMPLES = 3
_FINISHED_MANY = 1_000_000
_SIZE_LARGE = 10 * 2**30
_LOG_LARGE = 256 * 2**20
_DAMAGE_ADVICE = (
    "keep a copy of the file, and restore the last good backup; all of it is looked through with: replayflow doctor --integrity; "
    "where there is no backup, one damaged instance goes, and the rest stays, with: replayflow purge ID --damaged"
)
_UNFINISHED = frozenset({Status.PENDING, Status.RUNNING, Status.SUSPENDED})

Topic = Literal[
    "worker",
    "late",
    "parked",
    "unserved",
    "activity",
    "event",
    "message",
    "suspended",
    "schedule",
    "size",
    "log",
    "damage",
    "permissions",
]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long something may last before it is a finding."""

    event: timedelta = timedelta(days=7)
    """Waiting for an event, with no time limit."""
    activity: timedelta = timedelta(hours=1)
    """One attempt of an activity."""
    message: timedelta = timedelta(minutes=5)
    """A message that its receiver does not take in."""
    suspended: timedelta = timedelta(days=1)
    late: timedelta = timedelta(minutes=1)
    """A timer or a run of a schedule whose time has come."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to see to. A problem needs somebody; a notice is worth knowing."""

    topic: Topic
    is_problem: bool
    text: str
    advice: str
    """What to do next."""
    count: int = 1
    """How many instances, messages or schedules it is about; at least so many where the text says "or more"."""
    examples: tuple[str, ...] = ()
    """The ids of a few of them."""


@dataclass(frozen=True, slots=True)
class Examination:
    """A hub as it was when it was examined: what was found, problems first, and what there is."""

    findings: list[Finding]
    counts: dict[str, int]
    """How many instances there are, by status; without entities."""
    worker: str | None
    condition: Condition

    @property
    def problems(self) -> list[Finding]:
        """The findings that need somebody."""
        return [finding for finding in self.findings if finding.is_problem]


class _Examiner(Protocol):
    """What this needs of the client."""

    _store: Store
    _app: App | None
    _clock: Clock

    def list_schedules(self) -> AsyncIterator[ScheduleState]: ...


class DoctorVerbs:
    """`examine` of a `Client`."""

    async def examine(self: _Examiner, *, patience: Patience | None = None, is_thorough: bool = False) -> Examination:
        """All that is stuck in the hub, or about to be. Reads, and changes nothing.

        A client with an app also finds what waits for code that the app does not have. With `is_thorough` the whole store is read and checked, which
        takes some 20 seconds for each gigabyte.
        """
        limits = patience or Patience()
        now = to_datetime(self._clock.now())
        broken: dict[str, StoreCorruptError] = {}
        try:
            owner = await self._store.owner()
        except StoreCorruptError as error:  # the hub's own row: the rest is looked at none the less
            owner, broken = None, {"": error}
        condition = await self._store.condition(is_thorough)
        counts = await self._store.count(InstanceFilter(is_entity=False), "status")
        store = self._store
        found = [*_damage_of(broken), *_of_the_store(condition, counts)]
        looks: list[Callable[[], Awaitable[list[Finding]]]] = [
            partial(_worker, store, owner is not None, now, limits),
            partial(_parked, store),
            *([partial(_unserved, store, self._app)] if self._app is not None else []),
            partial(_standing, store, now, limits),
            partial(_messages, store, now, limits),
            partial(_suspended, store, now, limits),
            partial(_schedules, store, self.list_schedules(), now, limits),
        ]
        for look in looks:
            try:
                found += await look()
            except StoreCorruptError as error:  # the others are looked at none the less
                found += _damage_of({"": error})
        if all(finding.topic != "damage" for finding in found):
            found += await _damaged(store)
        findings = sorted(found, key=lambda finding: not finding.is_problem)
        return Examination(findings, counts, None if owner is None else str(owner), condition)


# ---- the examinations ------------------------------------------------------------------------------------------


async def _worker(store: Store, is_served: bool, now: datetime, limits: Patience) -> list[Finding]:
    due = [wake for wake in await store.wakes(None, LOOKED_AT_MAX) if to_datetime(wake.at) <= now]
    if not is_served:
        messages = [one for one in await store.waiting(None) if one.event is not None and one.takes_messages]
        waiting = len({wake.instance_id for wake in due} | {message.instance_id for message in messages})
        unfinished = sum((await store.count(InstanceFilter(_UNFINISHED, is_entity=False))).values())
        if not unfinished:
            return []
        has_work = (
            f"{_many(waiting, len(due) < LOOKED_AT_MAX)} could go on now"
            if waiting
            else "none of them has anything to do yet"
        )
        text = (
            f"no worker serves this hub: of {_instances(unfinished)} that {_have(unfinished)} not finished, {has_work}"
        )
        return [
            Finding("worker", waiting > 0, text, f"start one: replayflow worker MODULE:APP{_store(store)}", waiting)
        ]
    late = [wake.instance_id for wake in due if wake.at and to_datetime(wake.at) < now - limits.late]
    if not late:
        return []
    first = to_datetime(due[0].at) if due[0].at else min(to_datetime(wake.at) for wake in due if wake.at)
    text = f"{_instances(len(late), len(due) < LOOKED_AT_MAX)} should have been woken, the first at {first:%Y-%m-%d %H:%M:%S} UTC"
    advice = "the worker has too much to do, or an orchestrator blocks it: look at its log, and restart it"
    return [Finding("late", True, text, advice, len(late), tuple(late[:_EXAMPLES]))]


async def _damaged(store: Store) -> list[Finding]:
    """Rows that are damaged, among the first of all."""
    page = await store.page(InstanceFilter(), LOOKED_AT_MAX)
    return _damage_of({one.instance_id: one.damage for one in page.records if one.damage is not None})


def _damage_of(damaged: Mapping[str, object]) -> list[Finding]:
    if not damaged:
        return []
    id, error = next(iter(damaged.items()))
    text = str(error) if not id or id in str(error) else f"instance '{id}': {error}"
    return [Finding("damage", True, text, _DAMAGE_ADVICE, len(damaged), tuple(filter(None, damaged))[:_EXAMPLES])]


async def _parked(store: Store) -> list[Finding]:
    groups: dict[tuple[str, str], list[InstanceRecord]] = defaultdict(list)
    parked, is_all = await _first_of(store, InstanceFilter(is_parked=True))
    unreadable = {one.instance_id: _problem(one) for one in parked if is_unreadable(one.problem)}
    for record in parked:
        if record.instance_id in unreadable:
            continue
        groups[record.name, _generalized(record)].append(record)
    return [
        *_damage_of(unreadable),
        *[
            Finding(
                "parked",
                True,
                f"{_instances(len(records), is_all)} of '{name}' {_are(len(records))} parked: {_problem(records[0])}",
                f"{_repair(records[0])}: replayflow resume {_id(records[0].instance_id)}{_store(store)}",
                len(records),
                _examples(records),
            )
            for (name, _), records in groups.items()
        ],
    ]


async def _unserved(store: Store, app: App) -> list[Finding]:
    found: list[Finding] = []
    # A parked one has its own finding, which says why.
    entities = await store.count(InstanceFilter(is_parked=False, is_entity=True), "name")
    for name, count in entities.items():
        if name.removeprefix("@").lower() not in app.entities:
            text = f"{_instances(count)} of '{name}' {_have(count)} no code: this app has no entity of that name"
            found.append(_without_code(store, name, text, count, " --entities"))
    for name, version in await store.open_versions():
        if name.startswith(("@", OWN_PREFIX)) or app.orchestrators.serving(name, version) is not None:
            continue
        parked, _ = await _first_of(store, InstanceFilter(is_parked=True, name=name))
        count = await store.count_open(name, version) - sum(record.version == version for record in parked)
        if count <= 0:
            continue
        has_name = name in app.orchestrators
        of = f"'{name}' {of_version(version)}" if has_name else f"'{name}'"
        lacks = "no code of that version" if has_name else "no orchestrator of that name"
        text = f"{_instances(count)} of {of} {_have(count)} no code: this app has {lacks}"
        found.append(_without_code(store, name, text, count))
    return found


def _without_code(store: Store, name: str, text: str, count: int, option: str = "") -> Finding:
    listed = f"replayflow list --name {shlex.quote(name)}{option}{_store(store)}"
    return Finding("unserved", True, text, f"register it, or serve the app that has it; which ones: {listed}", count)


async def _standing(store: Store, now: datetime, limits: Patience) -> list[Finding]:
    """Instances at which nothing has happened for long: what they wait for is worked out from their histories."""
    events_since: dict[str, list[InstanceRecord]] = defaultdict(list)
    activities: dict[str, list[InstanceRecord]] = defaultdict(list)
    broken: dict[str, StoreCorruptError] = {}
    quiet_since = now - min(limits.event, limits.activity)
    wanted: Wanted = {"status": Status.RUNNING, "created_to": quiet_since}
    running, is_all = await _first_of(store, filter_of(wanted))
    candidates = [
        record.instance_id
        for record in running
        if not record.name.startswith(OWN_PREFIX)  # a schedule that is paused says so itself
        and record.problem is None
        and not record.wake_at
        and to_datetime(record.updated_at) <= quiet_since
    ]
    for start in range(0, len(candidates), _TOGETHER):
        found, damaged = await load_sound(store, candidates[start : start + _TOGETHER])
        broken |= damaged
        for loaded in found:
            fold = Waits()
            for piece in past_of(loaded):
                fold.take(piece)
            opens = fold.now(loaded.record.updated_at)
            record = loaded.record
            if not opens and to_datetime(record.updated_at) <= now - limits.event:
                events_since[record.name].append(record)
            for one in opens:
                if one.kind is WaitKind.ACTIVITY and to_datetime(one.since) <= now - limits.activity:
                    activities[one.name].append(record)
    listening = _of_groups(store, events_since, is_all, _waiting_text)
    return [*_damage_of(broken), *listening, *_of_groups(store, activities, is_all, _activity_text)]


def _of_groups(
    store: Store,
    groups: dict[str, list[InstanceRecord]],
    is_all: bool,
    words: Callable[[str, str, datetime], tuple[Topic, str, str]],
) -> list[Finding]:
    found: list[Finding] = []
    for name, records in groups.items():
        first = min(records, key=lambda record: record.updated_at)
        topic, text, advice = words(name, _instances(len(records), is_all), to_datetime(first.updated_at))
        command = advice.format(id=_id(first.instance_id), store=_store(store))
        found.append(Finding(topic, True, text, command, len(records), _examples(records)))
    return found


def _waiting_text(name: str, several: str, first: datetime) -> tuple[Topic, str, str]:
    text = f"an event is waited for, without a time limit, by {several} of '{name}', the first since {first:%Y-%m-%d}"
    return (
        "event",
        text,
        "which one: replayflow show {id} --app MODULE:APP{store}; then raise-event, cancel or terminate",
    )


def _activity_text(name: str, several: str, first: datetime) -> tuple[Topic, str, str]:
    text = f"activity '{name}' is under way in {several}, the first since {first:%Y-%m-%d %H:%M:%S} UTC"
    return "activity", text, "is it at work, or stuck? replayflow show {id}{store}; a timeout would end it by itself"


async def _messages(store: Store, now: datetime, limits: Patience) -> list[Finding]:
    old: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    messages = await store.waiting(None, LOOKED_AT_MAX)
    is_all = len(messages) < LOOKED_AT_MAX
    for message in messages:
        if message.event is None or message.since is None:
            continue  # that an instance begins shows in its status
        if to_datetime(message.since) <= now - limits.message:
            name = message_name(events.decode(message.event)[0])
            old[message.takes_messages].append((message.instance_id, name))
    found: list[Finding] = []
    if untaken := old[True]:
        id, name = untaken[0]
        text = f"{_many(len(untaken), is_all)} {_messages_wait(len(untaken))} that nobody takes in, the first {name} for '{id}'"
        advice = f"is the worker at work? replayflow show {_id(id)}{_store(store)}"
        found.append(Finding("message", True, text, advice, len(untaken), _first(id for id, _ in untaken)))
    if held := old[False]:
        id, name = held[0]
        text = f"{_many(len(held), is_all)} {_messages_wait(len(held))} until their receivers go on, the first {name} for '{id}'"
        advice = f"they are suspended or parked: replayflow resume {_id(id)}{_store(store)}"
        found.append(Finding("message", False, text, advice, len(held), _first(id for id, _ in held)))
    return found


async def _suspended(store: Store, now: datetime, limits: Patience) -> list[Finding]:
    suspended, is_all = await _first_of(store, InstanceFilter(frozenset({Status.SUSPENDED})))
    records = [record for record in suspended if to_datetime(record.updated_at) <= now - limits.suspended]
    if not records:
        return []
    text = f"{_instances(len(records), is_all)} {_have(len(records))} been suspended for long"
    advice = f"replayflow resume {_id(records[0].instance_id)}{_store(store)}; all: replayflow list --status SUSPENDED{_store(store)}"
    return [Finding("suspended", False, text, advice, len(records), _examples(records))]


async def _schedules(
    store: Store, schedules: AsyncIterator[ScheduleState], now: datetime, limits: Patience
) -> list[Finding]:
    found: list[Finding] = []
    try:
        states = [state async for state in schedules]
    except SealedError as error:
        return [Finding("schedule", False, f"the schedules cannot be looked at: {error}", "the rest can, and was")]
    for state in states:
        if state.is_paused:
            because = f": {state.reason}" if state.reason else ""
            advice = f"replayflow schedule resume {_id(state.name)}{_store(store)}"
            found.append(
                Finding("schedule", False, f"schedule '{state.name}' is paused{because}", advice, 1, (state.name,))
            )
        elif state.next_at is not None and state.next_at + state.jitter < now - limits.late:
            text = f"schedule '{state.name}' is late: its run of {state.next_at:%Y-%m-%d %H:%M:%S} UTC has not begun"
            advice = f"a worker starts its runs; replayflow schedule show {_id(state.name)}{_store(store)}"
            found.append(Finding("schedule", True, text, advice, 1, (state.name,)))
    return found


def _of_the_store(condition: Condition, counts: dict[str, int]) -> list[Finding]:
    found: list[Finding] = []
    finished = sum(count for status, count in counts.items() if Status(status).is_finished)
    if finished >= _FINISHED_MANY or condition.size >= _SIZE_LARGE:
        text = f"the hub grows: {finished:,} finished instances, {size_text(condition.size)}"
        advice = (
            "finished instances stay until somebody removes them: replayflow purge --status COMPLETED --completed-to -30d; "
            "or as a rule, by the worker: replayflow worker --retain completed=30d"
        )
        found.append(Finding("size", False, text, advice, finished))
    if condition.log >= _LOG_LARGE:
        text = (
            f"the write-ahead log has {size_text(condition.log)}: something reads for so long that it cannot be emptied"
        )
        advice = "end what holds the file open (a copy, a backup, an SQLite shell); the next commits empty it"
        found.append(Finding("log", True, text, advice))
    if condition.faults:
        text = f"the store is damaged: {condition.faults[0]}"
        found.append(Finding("damage", True, text, _DAMAGE_ADVICE, len(condition.faults)))
    if condition.mode is not None and condition.mode & (stat.S_IROTH | stat.S_IWOTH):
        text = f"everybody on this machine can {'write' if condition.mode & stat.S_IWOTH else 'read'} the store's file"
        advice = "where inputs and results are nobody else's matter: chmod o-rwx on the file, its -wal and its -shm"
        found.append(Finding("permissions", bool(condition.mode & stat.S_IWOTH), text, advice))
    return found


# ---- reading and words -----------------------------------------------------------------------------------------


async def _first_of(store: Store, wanted: InstanceFilter) -> tuple[list[InstanceRecord], bool]:
    """The first of the instances that fit, the oldest first, and whether these are all."""
    found: list[InstanceRecord] = []
    cursor: str | None = None
    while len(found) < LOOKED_AT_MAX:
        page = await store.page(wanted, _TOGETHER, cursor)
        found += [record for record in page.records if record.damage is None]
        cursor = page.cursor
        if cursor is None:
            return found, True
    return found, False


def _generalized(record: InstanceRecord) -> str:
    """The problem without what differs between instances: ids and numbers."""
    return re.sub(r"\d+", "#", _problem(record).replace(record.instance_id, "#"))


def _repair(record: InstanceRecord) -> str:
    """What to do about a parked instance; a command follows that tries it again."""
    if is_poison(record.problem):
        return "mend what kills the worker; its start alone tries none of them again, this does, one by one"
    return "mend the code, or what it needs, and restart the worker, which tries all of them again; or one by one"


def _problem(record: InstanceRecord) -> str:
    return "" if record.problem is None else record.problem.decode()


def _many(count: int, is_all: bool = True) -> str:
    return f"{count:,}" if is_all else f"{count:,} or more"


def _instances(count: int, is_all: bool = True) -> str:
    return f"{_many(count, is_all)} {'instance' if count == 1 and is_all else 'instances'}"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _messages_wait(count: int) -> str:
    return "message waits" if count == 1 else "messages wait"


def _examples(records: Sequence[InstanceRecord]) -> tuple[str, ...]:
    return _first(record.instance_id for record in records)


def _first(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ids))[:_EXAMPLES]


def _id(id: str) -> str:
    return shlex.quote(id)


def _store(store: Store) -> str:
    return f" --store {shlex.quote(store.url)}"


def size_text(count: int) -> str:
    """A number of bytes for people: `512 bytes`, `3.4 MB`."""
    size, unit = float(count), "bytes"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < 1_024:
            break
        size, unit = size / 1_024, larger
    return f"{size:,.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:,.1f} {unit}"
