"""Kills workers and clients again and again, at random, while orchestrations are started and signalled; then audits every history.

Besides SIGKILL a worker gets SIGTERM, is stopped for a while, and has its hub taken by force while it is stopped (`crash_hands.py`).

    python -m tests.engine.crash_campaign --kills 30

1. What a client was told is accepted is there after every kill (I6): each instance ends, with the right result.
2. In each history every task that was scheduled has its result exactly once (I4), every call of a map, too, and each event that was raised stands
   there exactly once (I5).
3. A saga that fails undoes what it began, the last first, each once; one that succeeds undoes nothing.
4. A schedule that catches up has a run for each of its times, and none a second one.
5. Of entities every operation counts once, in whatever way it was asked for; a section that reads, computes and writes has them to itself; no lock is
   left, also of orchestrations that were terminated at any moment.
6. What was terminated goes, by the worker's retention, and what clients purge goes, with its children: as a whole, whenever the worker dies.
7. What transactional activities wrote is what they returned: every deposit is in the account exactly once, and no two were told the same number.
8. Instances that fail are rewound, by a client that the worker knows nothing of, until what was broken is mended: then they and their children
   complete, with all that had completed done once in each history; forks of them come to the same end.
9. What a client was told in its life is there after its death, and all that it asked, asked again, counts once (`crash_client.py`).
10. Who told to end does so in good order; a worker whose hub was taken changes nothing when it wakes, and says so.
11. The file passes SQLite's own check.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

from replayflow import (
    BulkOutcome,
    Client,
    Instance,
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidStateError,
    OrchestrationFailed,
    Schedule,
)
from replayflow.core import events
from replayflow.store.sqlite.audit import faults
from tests.engine.crash_client import ITEMS, ask_again, check_what_it_was_told
from tests.engine.crash_hands import Hands

WIDTH = 60
MAP_WIDTH = 400
MAPPED = {"single": MAP_WIDTH * (MAP_WIDTH - 1), "children": 4 * sum(range(6)), "batches": 2 * sum(range(120))}
SAGA_PARTS = 12
BEAT = timedelta(milliseconds=400)  # a thousand of them are caught up with, which is longer than any suspicion lasts
STRAYS = """
    SELECT (SELECT count(*) FROM history WHERE instance NOT IN (SELECT key FROM instance))
         + (SELECT count(*) FROM execution WHERE instance NOT IN (SELECT key FROM instance))
         + (SELECT count(*) FROM dedupe WHERE instance NOT IN (SELECT key FROM instance))
"""
AMOUNTS = list(range(1, 13))
REPAIRED = [[0, 2, 4], [[6, 12], [8, 16]]]
COUNTERS = tuple(f"@counter@{key}" for key in "abcd")


def broken_files(path: Path, id: str) -> list[Path]:
    """As long as these are there, what the instance needs is broken, and what its children need."""
    return [path.parent / f"{id}.own", path.parent / f"{id}.child"]


async def campaign(path: Path, kills: int, batches: int, seed: int) -> dict[str, int]:
    """The figures of a campaign that found nothing wrong.

    Raises:
        AssertionError: a promise was broken; the message says which, and with what seed.
    """
    chance = random.Random(seed)
    hands = Hands(path, chance)
    try:
        async with Client(path) as client:
            asked = Asked(client, path, chance, seed)
            await asked.begin(batches)
            while hands.kills < kills:
                await hands.hit()
                await check_what_it_was_told(client, hands.logs[-1])
                await asked.more()
            hands.end_client()
            await asked.the_rest(hands.logs)
            figures = await asked.come_to_their_ends()
    finally:
        hands.end()
    assert "an error of its own" not in hands.said.read_text(), f"seed {seed}: a worker came upon a defect"
    check_file(path, seed)
    return figures | dict(hands.blows) | {"kills": hands.kills}


def check_file(path: Path, seed: int) -> None:
    """The file is sound, with all of its sums, and nothing is in it that belongs to nobody."""
    with closing(sqlite3.connect(path)) as connection:
        assert faults(connection) == (), f"seed {seed}: the file is damaged"
        assert connection.execute("SELECT count(*) FROM inbox").fetchone() == (0,), f"seed {seed}: messages are left"
        assert connection.execute(STRAYS).fetchone() == (0,), f"seed {seed}: something is left of what was purged"


class Asked:
    """What was asked for so far, and what has to come of it."""

    def __init__(self, client: Client, path: Path, chance: random.Random, seed: int) -> None:
        self.client = client
        self.path = path
        self.chance = chance
        self.seed = seed
        self.started: list[str] = []
        self.maps: list[str] = []
        self.sagas: list[str] = []
        self.repaired: list[str] = []
        self.told: list[str] = []
        self.raised: dict[str, int] = {}
        self.counting: dict[str, list[str]] = {}
        self.signals: Counter[str] = Counter()
        self.purged = self.savers = self.rewound = 0
        self.deadline = 0.0

    async def begin(self, batches: int) -> None:
        """A schedule, and many at once of what is asked for one by one later."""
        client = self.client
        self.beat = await client.create_schedule(
            "beat", "child", 3, every=BEAT, overlap="allow", misfire="catch_up", catch_up_max=1000
        )
        self.first_beat = (await self.beat.status()).next_at
        self.sagas += [await _start_saga(client, number) for number in range(batches)]
        self.started += [await _start(client, number) for number in range(batches)]
        self.maps += [await _start_map(client, number) for number in range(max(1, batches // 4))]

    async def more(self) -> None:
        """One more of each, and some verbs, with nobody there to serve them, perhaps."""
        client, chance = self.client, self.chance
        self.purged += await _purge(client, self.purged)
        self.sagas.append(await _start_saga(client, len(self.sagas)))
        await _count(client, chance, self.counting, self.signals)
        await client.start("saves", AMOUNTS, instance_id=f"saver-{self.savers}")
        self.savers += 1
        self.repaired.append(await _start_broken(client, self.path, len(self.repaired)))
        self.rewound += await _rewind_what_failed(client, self.path, chance, self.repaired)
        self.started.append(await _start(client, len(self.started)))
        self.maps.append(await _start_map(client, len(self.maps)))
        for id in chance.sample(self.started, min(5, len(self.started))):
            if id not in self.raised:
                await self._raise_event(id)
                await client.get(id).raise_event("MORE", self.raised[id], dedupe_key="once")

    async def the_rest(self, logs: list[Path]) -> None:
        """Everybody has the events that he waits for, and what the killed clients asked is asked again."""
        for id in self.started:
            if id not in self.raised:
                with suppress(InstanceFinishedError):
                    await self._raise_event(id)
        for log in logs:
            await check_what_it_was_told(self.client, log)
            self.told += await ask_again(self.client, log)

    async def _raise_event(self, id: str) -> None:
        self.raised[id] = self.chance.randrange(1000)
        await self.client.get(id).raise_event("more", self.raised[id], dedupe_key="once")

    async def come_to_their_ends(self) -> dict[str, int]:
        """Everything has ended as it has to; the figures."""
        client, path, seed = self.client, self.path, self.seed
        self.deadline = time.monotonic() + 120
        await self._check_results()
        self.rewound += await _repair(client, path, self.repaired, self.deadline, seed)
        beats = await _stop(client, self.beat, self.deadline)
        arrivals = dict.fromkeys(self.raised, 1) | dict.fromkeys(self.told, len(ITEMS))
        figures = await audit(client, arrivals)
        figures |= await audit_counters(client, self.counting, self.signals, seed)
        figures["deposits"] = await audit_account(client, path, self.savers, seed)
        assert self.first_beat is not None
        expected_beats = [self.beat.run_id(self.first_beat + number * BEAT) for number in range(len(beats))]
        assert beats == expected_beats, f"seed {seed}: {beats} are not {expected_beats}"
        await self._until_all_is_gone_that_has_to_go()
        return figures | {
            "beats": len(beats),
            "instances": len(self.started),
            "sagas": len(self.sagas),
            "maps": len(self.maps),
            "told": len(self.told),
            "rewound": self.rewound,
            "purged": self.purged,
        }

    async def _check_results(self) -> None:
        expected: dict[str, object] = {
            id: {"sum": WIDTH * (WIDTH - 1), "children": 4 * (0 + 1 + 2), "more": more, "said": f"{id}:{WIDTH}"}
            for id, more in self.raised.items()
        }
        expected |= dict.fromkeys(self.maps, MAPPED)
        expected |= {id: "undone" if number % 2 else "done" for number, id in enumerate(self.sagas)}
        expected |= dict.fromkeys(self.told, 2 * sum(ITEMS))
        for id, value in expected.items():
            result = await self.client.get(id).result(timeout=max(1, self.deadline - time.monotonic()))
            assert result == value, f"seed {self.seed}: {id} came to {result}, not {value}"

    async def _until_all_is_gone_that_has_to_go(self) -> None:
        client, seed = self.client, self.seed
        while [state async for state in client.list(id_prefix="family-")]:
            assert time.monotonic() < self.deadline, f"seed {seed}: a family does not go"
            self.purged += await client.purge(id_prefix="family-")
            await asyncio.sleep(0.02)
        while await client.terminate_all(status="TERMINATED", dry_run=True) != BulkOutcome():
            assert time.monotonic() < self.deadline, f"seed {seed}: what was terminated does not go"
            await asyncio.sleep(0.02)


async def _start(client: Client, number: int) -> str:
    instance = await client.start("batch", WIDTH, instance_id=f"batch-{number}")
    return instance.id


async def _purge(client: Client, number: int) -> int:
    """What has finished of the families that were started for it is gone; another one is started."""
    gone = await client.purge(id_prefix="family-")
    await client.start("family", 4, instance_id=f"family-{number}-{time.monotonic_ns()}")
    return gone


async def _start_map(client: Client, number: int) -> str:
    instance = await client.start("mapped", MAP_WIDTH, instance_id=f"map-{number}")
    return instance.id


async def _start_saga(client: Client, number: int) -> str:
    """A saga that fails where its number is odd."""
    instance = await client.start("guarded", 2 * SAGA_PARTS + number % 2, instance_id=f"saga-{number}")
    return instance.id


async def _start_broken(client: Client, path: Path, number: int) -> str:
    """One that fails, and its second child, until what they need is mended."""
    id = f"repaired-{number}"
    for file in broken_files(path, id):
        file.touch()
    return (await client.start("repaired", str(path.parent / id), instance_id=id)).id


async def _rewind_what_failed(client: Client, path: Path, chance: random.Random, ids: list[str]) -> int:
    """Some of those that have failed are rewound, mended or not; some are forked as well. The worker may be killed at any moment of it."""
    rewound = 0
    for id in chance.sample(ids, min(6, len(ids))):
        if chance.random() < 0.5:
            chance.choice(broken_files(path, id)).unlink(missing_ok=True)
        with suppress(InvalidStateError):
            await client.get(id).rewind()
            rewound += 1
            if chance.random() < 0.3:
                await client.get(id).fork(instance_id=f"{id}-fork-{chance.randrange(10**9)}")
    return rewound


async def _repair(client: Client, path: Path, ids: list[str], deadline: float, seed: int) -> int:
    """All are mended and rewound until they complete; how many rewinds that took."""
    rewound = 0
    forks = [state.id async for state in client.list(name="repaired") if "-fork-" in state.id]
    for id in ids:
        for file in broken_files(path, id):
            file.unlink(missing_ok=True)
    for id in [*ids, *forks]:
        instance = client.get(id)
        while (result := await _end_of(instance, deadline)) is None:
            assert time.monotonic() < deadline, f"seed {seed}: {id} fails again and again"
            rewound += 1
            await instance.rewind()
        assert result == REPAIRED, f"seed {seed}: {id} came to {result}, not {REPAIRED}"
    return rewound


async def _end_of(instance: Instance[object], deadline: float) -> object:
    try:
        return await instance.result(timeout=max(1, deadline - time.monotonic()))
    except OrchestrationFailed:
        return None


async def _stop(client: Client, schedule: Schedule, deadline: float) -> list[str]:
    """The runs of the schedule, in order, when it is paused and they have ended."""
    await schedule.pause()
    while not (await schedule.status()).is_paused:
        assert time.monotonic() < deadline, "the schedule does not pause"
        await asyncio.sleep(0.02)
    runs = [state.id async for state in client.list(tags={"schedule": schedule.name})]
    for id in runs:
        assert await client.get(id).result(timeout=max(1, deadline - time.monotonic())) == 12
    await schedule.delete()
    with suppress(InstanceNotFoundError):  # it is terminated, and goes with the others that were
        await client.get(schedule.instance_id).wait(max(1, deadline - time.monotonic()))
    return runs


async def _count(client: Client, chance: random.Random, counting: dict[str, list[str]], signals: Counter[str]) -> None:
    """Some more that has to be counted, and somebody who is terminated in the middle of a section on another entity."""
    for number in range(3):
        ids = chance.sample(COUNTERS, 2)
        id = f"count-{len(counting)}-{number}"
        await client.start("count", ids, instance_id=id)
        counting[id] = ids
    for id in chance.choices(COUNTERS, k=5):
        await client.signal_entity(id, "add", 1)
        signals[id] += 1
    doomed = await client.start("count", chance.sample(["@counter@x", "@counter@y", "@counter@z"], 2))
    await asyncio.sleep(chance.uniform(0, 0.05))
    with suppress(InvalidStateError):
        await doomed.terminate()


async def audit_counters(
    client: Client, counting: dict[str, list[str]], signals: Counter[str], seed: int
) -> dict[str, int]:
    """Every counter has what it was given, and nobody holds one."""
    expected = Counter(signals)
    for id, ids in counting.items():
        assert await client.get(id).result(timeout=60) == 8, f"seed {seed}: {id}"
        expected.update(dict.fromkeys(ids, 4))
    deadline = time.monotonic() + 30
    while True:
        found = {shown.id: shown async for shown in client.list_entities(include_empty=True)}
        counters = {id: shown.state for id, shown in found.items() if id in expected}
        all_added = sum(shown.state or 0 for shown in found.values() if shown.name == "counter")
        rest = [shown for shown in found.values() if shown.backlog or shown.locked_by]
        if counters == expected and not rest and found["@total@all"].state == all_added:
            return {"counted": expected.total()}
        assert time.monotonic() < deadline, f"seed {seed}: {counters}, not {dict(expected)}; of all {all_added}; {rest}"
        await asyncio.sleep(0.05)


async def audit_account(client: Client, path: Path, savers: int, seed: int) -> int:
    """Every deposit was made once, and its number told to one."""
    told: list[int] = []
    for number in range(savers):
        told += await client.get(f"saver-{number}").result(timeout=60)
    expected = (savers * sum(AMOUNTS), savers * len(AMOUNTS))
    deadline = time.monotonic() + 30
    while True:  # the last deposit of each is made after its end
        with closing(sqlite3.connect(path)) as connection:
            found = connection.execute("SELECT balance, deposits FROM account").fetchone()
        if found == expected:
            break
        assert time.monotonic() < deadline, f"seed {seed}: balance and deposits are {found}, not {expected}"
        await asyncio.sleep(0.05)
    assert len(set(told)) == len(told) == savers * (len(AMOUNTS) - 1), f"seed {seed}: a deposit was told twice"
    return savers * len(AMOUNTS)


async def audit(client: Client, arrivals: dict[str, int]) -> dict[str, int]:
    """Every task has its result exactly once, every event was delivered exactly once."""
    figures: Counter[str] = Counter()
    async for state in client.list():
        if state.id.startswith("schedule:"):
            assert state.status == "TERMINATED", f"{state.id} is {state.status}: {state.problem or state.failure}"
            continue
        if state.name in ("count", "saves", "family"):
            continue  # their audits are those of the counters and of the account, and that nothing is left of them
        if state.name == "brittle" and state.status == "FAILED":
            continue  # an attempt that another has taken the place of
        assert state.status == "COMPLETED", f"{state.id} is {state.status}: {state.problem or state.failure}"
        undone: list[object] = []
        asked: Counter[int] = Counter()
        answered: Counter[int] = Counter()
        arrived = 0
        calls: Counter[tuple[int, int]] = Counter()
        async for event in client.get(state.id).history():
            figures["events"] += 1
            match event:
                case events.TaskScheduled() | events.SubOrchestrationInstanceCreated() | events.TimerCreated():
                    asked[event.event_id] += 1
                    if isinstance(event, events.TaskScheduled) and event.name == "undo":
                        undone.append(event.input)
                case events.TaskFailed() | events.SubOrchestrationInstanceFailed() if state.name in (
                    "repaired",
                    "brittle",
                ):
                    raise AssertionError(f"{state.id}: a failure is left in the history of what was rewound")
                case events.TaskCompleted() | events.SubOrchestrationInstanceCompleted():
                    answered[event.task_scheduled_id] += 1
                    figures["activities"] += isinstance(event, events.TaskCompleted)
                case events.TimerFired():
                    answered[event.timer_id] += 1
                case events.MapProgress():
                    calls.update((event.task_scheduled_id, number) for number in event.numbers)
                    figures["calls"] += len(event.numbers)
                case events.EventRaised():
                    arrived += 1
                case _:
                    pass
        assert not calls or set(calls.values()) == {1}, f"{state.id}: a call has two results: {calls.most_common(3)}"
        assert asked == answered, f"{state.id}: asked {asked - answered}, answered {answered - asked}"
        assert set(asked.values()) <= {1}, f"{state.id}: an id was used twice"
        if state.name == "guarded":
            assert undone == (list(reversed(range(state.input))) if state.input % 2 else []), f"{state.id}: {undone}"
        assert arrived == arrivals.get(state.id, 0), f"{state.id}: {arrived} events"
    return dict(figures)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        figures = asyncio.run(campaign(folder / "crash.db", options.kills, options.batches, options.seed))
    except BaseException:
        print(f"seed {options.seed}: the hub, and what was said, is in {folder}", file=sys.stderr)
        raise
    shutil.rmtree(folder)
    print(f"nothing lost, nothing doubled: {figures}, seed {options.seed}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
