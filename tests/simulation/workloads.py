"""What worlds are asked to do, each with a model that says what has to come of it.

A workload is a coroutine of the world: it starts something, does to it what a user would, waits for the end, and compares. Whatever goes wrong
meanwhile, the result must be the one that the model says, or one of the few.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any, TypeAlias

from replayflow import Client, Instance
from replayflow.clock import to_datetime
from replayflow.core.instance import Status
from replayflow.errors import (
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidStateError,
    OrchestrationEnded,
    OrchestrationFailed,
    StateError,
)
from replayflow.patterns.schedule import run_id
from replayflow.patterns.timing import Timing
from tests.simulation.code import RATED_PER_SECOND
from tests.simulation.world import World

Workload: TypeAlias = Callable[[World], Coroutine[Any, Any, None]]
Verb: TypeAlias = Callable[[Instance[Any]], Awaitable[Any]]
_KINDS_MAX = 6


# ---- what workloads share --------------------------------------------------------------------------------------


async def start(world: World, name: str, input: Any = None, id: str | None = None, **options: Any) -> str:
    """The instance is durable. Who has not been heard asks again, and then it may be there already: by nobody else."""
    id = id or world.new_id(name)
    asked = 0

    async def starts(client: Client) -> None:
        nonlocal asked
        asked += 1
        careless = asked == 1 and world.chance.random() < 0.3
        try:
            await client.start(name, input, instance_id=id, on_existing="error" if careless else "return", **options)
        except InstanceExistsError:
            world.check(asked > 1, f"'{id}' is said to exist before anybody has started it")

    await world.ask(starts)
    world.check(world.watch.status_of(id) is not None or id in world.gone, f"I6: '{id}' was accepted and is not there")
    return id


async def tell(world: World, id: str, name: str, payloads: Sequence[Any]) -> None:
    """Each event is accepted before the next is sent, so that they come in this order."""
    sender, pause = world.new_id("sender"), world.rhythm()
    for number, payload in enumerate(payloads):
        await world.pause(pause)
        while True:
            try:
                await world.ask(partial(_raise_event, id=id, name=name, payload=payload, key=f"{sender}/{number}"))
            except InstanceFinishedError:  # it has failed, and will be rewound
                await world.pause(1.0)
            else:
                break
        if world.chance.random() < 0.2:  # one that was accepted is accepted for ever, and not delivered again
            again = world.chance.randint(0, number)
            key = f"{sender}/{again}"
            await world.ask(partial(_raise_event, id=id, name=name, payload=payloads[again], key=key))


async def _raise_event(client: Client, id: str, name: str, payload: Any, key: str) -> None:
    await client.get(id).raise_event(name, payload, dedupe_key=key)


async def outcome(world: World, id: str) -> Any:
    """The instance's result when it has ended, or how else it ended: asked of a client, who waits for it, or comes when it is over."""
    if world.is_calm or world.chance.random() < 0.5:
        await world.watch.until_ended(id)
    try:
        return await world.ask(lambda client: client.get(id).result())
    except OrchestrationFailed as error:
        return f"FAILED: {error.details.type}: {error.details.message}"
    except OrchestrationEnded as error:
        return type(error).__name__


async def comes_to(world: World, id: str, *expected: Any) -> None:
    result = await outcome(world, id)
    world.check(result in expected, f"'{id}' came to {result!r:.300}, and not to {expected!r:.300}")


async def asked(world: World, id: str, verb: Verb) -> bool:
    """Whether the instance has taken the request; one that it cannot take in its state changes nothing."""
    try:
        await world.ask(lambda client: verb(client.get(id)))
    except StateError:
        return False
    return True


def small(world: World, most: int = 4) -> int:
    return world.chance.randint(1, most)


# ---- activities, timers, composites ----------------------------------------------------------------------------


async def chain(world: World) -> None:
    x, length = world.chance.randrange(100), small(world, 8)
    await comes_to(world, await start(world, "chain", (x, length)), x + length)


async def retries(world: World) -> None:
    x, fails, attempts = world.chance.randrange(100), world.chance.randrange(5), small(world)
    await comes_to(world, await start(world, "retries", (x, fails, attempts)), x if fails < attempts else -1)


async def fan(world: World) -> None:
    width = small(world, 12)
    await comes_to(world, await start(world, "fan", width), width * (width - 1))


async def paced(world: World) -> None:
    """Not more begin within any second than may, whoever works; but of two at once neither knows the other."""
    width = small(world, 6)
    await comes_to(world, await start(world, "paced", width), width * (width - 1) // 2)
    if not (world.faults.takeover_every or world.faults.stop_every):
        times = world.rated_at
        for before, after in zip(times, times[RATED_PER_SECOND:], strict=False):
            world.check(
                after - before > 0.999, f"{RATED_PER_SECOND + 1} rated activities began within {after - before} s"
            )


async def races(world: World) -> None:
    id = await start(world, "races", small(world, 100))
    await comes_to(world, id, [True, True, 3, 0])


async def naps(world: World) -> None:
    millis = [world.chance.choice([0, 1, 50, 3_000, 60_000]) for _ in range(small(world))]
    await comes_to(world, await start(world, "naps", millis), len(millis))


async def later(world: World) -> None:
    """A start that is set for later."""
    delay = timedelta(seconds=world.chance.random() * 10)
    id = await start(world, "fan", 3, start_at=delay)
    await comes_to(world, id, 6)


async def leaves(world: World) -> None:
    count = small(world)
    id = await start(world, "leaves", count)
    await comes_to(world, id, count)
    while len(world.ledger.get(id, ())) < count:
        await world.pause(1.0)


async def records(world: World) -> None:
    await comes_to(world, await start(world, "records", small(world)), True)


# ---- events ----------------------------------------------------------------------------------------------------


async def listens(world: World) -> None:
    """Several senders, each in its order; some of them orchestrations."""
    counts = [small(world) for _ in range(small(world, 3))]
    of_orchestrations = [small(world) for _ in range(world.chance.randrange(3))]
    total = sum(counts) + sum(of_orchestrations)
    id = await start(world, "listens", total)
    senders = [await start(world, "sends", (id, count)) for count in of_orchestrations]
    names = [f"client-{number}" for number in range(len(counts))]
    await asyncio.gather(
        *(tell(world, id, "go", [[name, i] for i in range(count)]) for name, count in zip(names, counts, strict=True))
    )
    if world.chance.random() < 0.3:
        await suspended_for_a_while(world, id)
    heard = await outcome(world, id)
    expected = dict(zip([*names, *senders], [*counts, *of_orchestrations], strict=True))
    _check_order(world, id, heard, expected)
    for sender, count in zip(senders, of_orchestrations, strict=True):
        await comes_to(world, sender, count)


def _check_order(world: World, id: str, heard: Any, expected: dict[str, int]) -> None:
    """Each sender's numbers have come once each, in order."""
    world.check(isinstance(heard, list), f"'{id}' came to {heard!r:.300}")
    for sender, count in expected.items():
        numbers = [number for who, number in heard if who == sender]
        world.check(
            numbers == list(range(count)), f"I5: '{id}' heard {numbers} of {sender}, and not {list(range(count))}"
        )
    world.check(len(heard) == sum(expected.values()), f"I5: '{id}' heard of others: {heard!r:.300}")


async def suspended_for_a_while(world: World, id: str) -> None:
    await asked(world, id, lambda instance: instance.suspend("a look"))
    await world.pause(2.0)
    await resumed(world, id)


async def resumed(world: World, id: str) -> None:
    """Nothing holds the instance any more. A request that was heard late must not be the last."""
    while True:
        await asked(world, id, lambda instance: instance.resume("on with it"))
        state = await world.ask(lambda client: client.get(id).status())
        if state.status is not Status.SUSPENDED:
            waiting = await world.ask(lambda client: client._store.waiting(id))
            if not any(one.is_control for one in waiting):
                return
        await world.pause(1.0)


async def deadline(world: World) -> None:
    id = await start(world, "deadline", world.chance.random() * 3)
    await world.pause(2.0)
    key = world.new_id("key")
    await asked(world, id, lambda instance: instance.raise_event("GO", "in time", dedupe_key=key))
    await comes_to(world, id, "late", "in time")


async def signals(world: World) -> None:
    """Several start the same instance with an event each; all events arrive."""
    id, count = world.new_id("listens"), small(world)

    async def signal(number: int) -> None:
        await world.pause(0.5)
        key = f"{id}/{number}"
        await world.ask(
            lambda client: client.signal_with_start(
                "listens", count, "go", [str(number), 0], instance_id=id, dedupe_key=key
            )
        )

    await asyncio.gather(*(signal(number) for number in range(count)))
    _check_order(world, id, await outcome(world, id), {str(number): 1 for number in range(count)})


async def loops(world: World) -> None:
    """One execution for each event; what has come early goes with it."""
    count = small(world, 5)
    id = await start(world, "loops", (count, []))
    await tell(world, id, "Go", list(range(count)))
    if world.chance.random() < 0.3:
        await suspended_for_a_while(world, id)
    await comes_to(world, id, [[number, 2 * (count - number)] for number in range(count)])


async def carries(world: World) -> None:
    text, events, left = "x" * world.chance.randrange(300), small(world, 3), 0
    left = events - 1
    words = [f"{number}{'y' * world.chance.randrange(300)}" for number in range(events)]
    id = await start(world, "carries", (text, left))
    await tell(world, id, "go", words)
    await comes_to(world, id, text + "".join(word[:1] for word in words[:-1]) + words[-1])


# ---- children, maps, sagas -------------------------------------------------------------------------------------


async def family(world: World) -> None:
    size = small(world)
    id = await start(world, "family", size)
    await comes_to(world, id, [*(4 * 0 + 2 * i + 1 for i in range(size)), 1 + 3, 5, -1])


async def maps(world: World) -> None:
    width = small(world, 9)
    single, batches = list(range(width)), [2 * i for i in range(width)]
    id = await start(world, "maps", width)
    if world.chance.random() < 0.2:
        await suspended_for_a_while(world, id)
    await comes_to(world, id, {"single": single, "children": [1, 3, 5], "batches": batches})


async def paged(world: World) -> None:
    await comes_to(world, await start(world, "paged"), [2 * i for i in range(15)])


async def tolerates(world: World) -> None:
    width = small(world, 12)
    failing = len(range(0, width, 5))
    await comes_to(world, await start(world, "tolerates", width), [width - failing, failing])


async def undoes(world: World) -> None:
    parts, fails = small(world), world.chance.random() < 0.5
    id = await start(world, "undoes", (parts, fails))
    await comes_to(world, id, "undone" if fails else "done")
    entries = [entry.rpartition(" ")[0] for entry in world.ledger.get(id, [])]
    expected = [f"do {part}" for part in range(parts)] + [f"undo {part}" for part in reversed(range(parts)) if fails]
    world.check(entries == expected, f"'{id}' did to the world {entries}, and not {expected}")


async def saves(world: World) -> None:
    account, amounts = world.new_id("account"), [world.chance.randrange(100) for _ in range(small(world, 5))]
    id = await start(world, "saves", (account, amounts))
    await comes_to(world, id, [sum(amounts), len(amounts)])
    whole = [sum(amounts) + 1_000, len(amounts) + 1]  # with what it asked for last
    while (found := await outcome(world, await start(world, "audits", account))) != whole:
        world.check(found[1] < whole[1], f"'{id}' has deposited {found}, and not {whole}")
        await world.pause(1.0)


# ---- verbs -----------------------------------------------------------------------------------------------------


async def terminated(world: World) -> None:
    id = await start(world, "waits_for_ever")
    await world.pause(1.0)
    await until_taken(world, id, lambda instance: instance.terminate("enough"))
    await is_ended(world, id, "OrchestrationTerminated")


async def until_taken(world: World, id: str, verb: Verb) -> None:
    """The request was taken, now or by somebody who was not heard."""
    if not await asked(world, id, verb):
        status = world.watch.status_of(id)
        world.check(status is None or status.is_finished, f"'{id}' is {status} and refuses a request to end")


async def is_ended(world: World, id: str, *how: Any) -> None:
    """It has ended so, or is gone by retention."""
    await world.watch.until_ended(id)
    try:
        await comes_to(world, id, *how)
    except InstanceNotFoundError:
        world.check(world.manner.retention is not None, f"'{id}' is gone, and nobody has purged it")


async def cancelled(world: World) -> None:
    id = await start(world, "waits_for_ever")
    await world.pause(1.0)
    requests = 0

    async def cancels(instance: Instance[Any]) -> None:
        nonlocal requests
        requests += 1
        await instance.cancel("no more")

    await until_taken(world, id, cancels)
    await comes_to(world, id, "OrchestrationCanceled")
    if requests == 1:  # a second one is heard while it undoes, and ends that
        world.check(len(world.ledger.get(id, ())) == 1, f"'{id}' was cancelled and did {world.ledger.get(id)} about it")


async def dynasty(world: World) -> None:
    """A parent is terminated, and its children with it."""
    id = await start(world, "dynasty", small(world, 3))
    await world.pause(1.0)
    await until_taken(world, id, lambda instance: instance.terminate("enough"))
    await world.watch.until_ended(id)
    while any(world.watch.is_open(child) for child in world.watch.ids_below(id)):
        await world.pause(1.0)


async def hurried(world: World) -> None:
    """Children that lost a race end, though nobody waits for them."""
    id = await start(world, "hurried", small(world, 3))
    await comes_to(world, id, "gone on")
    while any(world.watch.is_open(child) for child in world.watch.ids_below(id)):
        await world.pause(1.0)


async def many(world: World) -> None:
    """Verbs for many, and looks at many, while others come and go."""
    tag = world.new_id("tag")
    ids = [await start(world, "waits_for_ever", tags={"many": tag}) for _ in range(small(world, 5))]
    waiting = [await start(world, "listens", 1, tags={"many": tag}) for _ in range(small(world))]
    await world.pause(0.5)
    # Who was started when the clock was ahead is not meant by who asks now: so it is asked, less and less often, until all have heard.
    pause = 1.0
    while any(world.watch.is_open(id) for id in [*ids, *waiting]):
        await world.ask(lambda client: client.raise_event_to_all("go", tag, tags={"many": tag}, name="listens"))
        await world.ask(lambda client: client.count(by="status", tags={"many": tag}))
        await world.ask(lambda client: _seen(client, tag))
        await world.ask(lambda client: client.terminate_all(tags={"many": tag}, name="waits_for_ever"))
        await world.pause(pause)
        pause = min(2 * pause, 60.0)
    for id in ids:
        await is_ended(world, id, "OrchestrationTerminated")
    for id in waiting:
        await is_ended(world, id, [tag])


async def _seen(client: Client, tag: str) -> None:
    """Everything that can be looked at without a change."""
    async for state in client.list(tags={"many": tag}):
        instance = client.get(state.id)
        try:
            await instance.status()
            await instance.waits()
            await instance.tree()
            await instance.maps()
            [event async for event in instance.history()]
        except InstanceNotFoundError:
            pass  # gone by retention


async def ended_at_any_time(world: World) -> None:
    """Something that would end by itself is ended; whichever comes first."""
    size = small(world)
    id = await start(world, "family", size)
    await world.pause(1.0)
    await asked(world, id, lambda instance: instance.terminate("enough"))
    await is_ended(world, id, "OrchestrationTerminated", [*(2 * i + 1 for i in range(size)), 4, 5, -1])


async def replaced(world: World) -> None:
    """An instance is replaced by another of its id, and that one counts."""
    id = await start(world, "waits_for_ever")
    await world.pause(1.0)
    # Asked again it replaces its own successor, which comes to the same.
    await world.ask(lambda client: client.start("fan", 4, instance_id=id, on_existing="terminate_and_replace"))
    while True:
        await world.watch.until_ended(id)
        result = await outcome(world, id)
        if result == 12:
            return
        world.check(result == "OrchestrationTerminated", f"'{id}' was replaced, and came to {result!r:.200}")
        await world.pause(1.0)


async def purged(world: World) -> None:
    """What has finished is purged, and its id is free."""
    width = small(world)
    id = await start(world, "fan", width)
    await comes_to(world, id, width * (width - 1))
    world.gone.add(id)
    while True:
        try:
            await world.ask(lambda client: client.get(id).purge())
        except InstanceNotFoundError:
            pass  # it was, and nobody heard of it
        except InvalidStateError:
            await world.pause(1.0)
            continue
        break
    world.check(world.watch.status_of(id) is None, f"'{id}' was purged and is still there")
    await start(world, "chain", (1, 2), id=id)
    world.gone.discard(id)
    await comes_to(world, id, 3)


async def repaired(world: World) -> None:
    """What fails is mended and rewound, until nothing fails."""
    what = world.new_id("part")
    parts = [f"{what}.own", f"{what}.child"]
    world.broken.update(part for part in parts if world.chance.random() < 0.7)
    id = await start(world, "repaired", what)
    telling = asyncio.ensure_future(tell(world, id, "go", ["said"]))
    expected = [[0, 1, 4], "said", [[6, 6], [8, 8]]]
    while (result := await outcome(world, id)) != expected:
        world.check(isinstance(result, str) and result.startswith("FAILED"), f"'{id}' came to {result!r:.300}")
        still = [part for part in parts if part in world.broken]
        world.check(still, f"'{id}' fails with nothing broken: {result!r:.300}")
        world.broken.discard(world.chance.choice(still))
        if world.chance.random() < 0.3:
            await forked_or_restarted(world, id)
        await asked(world, id, lambda instance: instance.rewind("mended"))
    await telling


async def forked_or_restarted(world: World, id: str) -> None:
    """Another begins with the past of the failed one, or with its input, beside it."""
    other = world.new_id("copy")
    try:
        if world.chance.random() < 0.5:
            await world.ask(lambda client: client.get(id).fork(instance_id=other, at=2))
        else:
            await world.ask(lambda client: client.get(id).restart(instance_id=other))
    except InstanceExistsError:
        pass
    except InvalidStateError:
        return
    await asked(world, other, lambda instance: instance.terminate("only a try"))


# ---- entities --------------------------------------------------------------------------------------------------


async def logs(world: World) -> None:
    """Orchestrations and clients tell one log things; it has each once, in order, and what fails has changed nothing."""
    entity = f"@log@{world.new_id('log')}"
    tellers = {
        await start(world, "tells", (entity, times)): 2 * times
        for times in [small(world, 3) for _ in range(small(world, 2))]
    }
    clients = {world.new_id("sender"): small(world, 3) for _ in range(world.chance.randrange(3))}

    async def signal(sender: str, times: int) -> None:
        pause = world.rhythm()
        for number in range(times):

            def signals(client: Client, number: int = number) -> Awaitable[None]:
                return client.signal_entity(entity, "append", [sender, number], dedupe_key=f"{sender}/{number}")

            await world.ask(signals)
            await world.pause(pause)

    await asyncio.gather(*(signal(sender, times) for sender, times in clients.items()))
    for id, times in tellers.items():
        await comes_to(world, id, times // 2)
    expected = {**tellers, **clients}
    world.counted += sum(expected.values())
    while len(state := await world.ask(lambda client: client.read_entity(entity)) or []) < sum(expected.values()):
        await world.pause(1.0)
    _check_order(world, entity, state, expected)


async def counts_anew(world: World) -> None:
    """An entity is removed whenever it has no state, and begins anew."""
    entity, times = f"@count@{world.new_id('anew')}", small(world)
    id = await start(world, "counts_anew", (entity, times))
    for _ in range(times):
        await world.pause(0.3)
        await world.ask(lambda client: client.clean_entities(name="count"))
    await comes_to(world, id, [3] * times)


async def transfers(world: World) -> None:
    """Amounts move between accounts under their locks; nothing is lost on the way."""
    ids = [f"@count@{world.new_id('account')}" for _ in range(3)]
    moved = dict.fromkeys(ids, 0)
    started = []
    for _ in range(small(world, 4)):
        first, second = world.chance.sample(ids, 2)
        amount = small(world, 100)
        started.append(await start(world, "transfer", ([first, second], amount)))
        moved[first] -= amount
        moved[second] += amount
    for id in started:
        await comes_to(world, id, 1)
    for id, expected in moved.items():
        state = await world.ask(partial(_read_entity, entity=id))
        world.check((state or 0) == expected, f"'{id}' has {state}, and not {expected}")


async def _read_entity(client: Client, entity: str) -> Any:
    return await client.read_entity(entity)


# ---- schedules -------------------------------------------------------------------------------------------------


async def schedules(world: World) -> None:
    """Every time has its run, once, however late."""
    name, count = world.new_id("plan"), small(world, 4)
    every = timedelta(seconds=world.chance.choice([1, 5]))
    first = to_datetime(world.clock.now() // 1_000_000 * 1_000_000) + timedelta(seconds=5)
    last = first + (count - 1) * every
    made_at: list[int] = []

    async def creates(client: Client) -> None:
        made_at.append(world.clock.now())
        await client.create_schedule(
            name,
            "fan",
            2,
            every=every,
            start_at=first,
            end_at=last,
            overlap="allow",
            misfire="catch_up",
            catch_up_max=100,
            on_existing="return",
        )

    await world.ask(creates)
    timing = Timing(every, None, "UTC", first, first, last, timedelta(0))
    times = [run_id(name, time) for time in timing.times(first - timedelta(microseconds=1))]
    surely = [run_id(name, time) for time in timing.times(to_datetime(max(made_at)))]
    for id in surely:
        await world.watch.until_ended(id)
        await comes_to(world, id, 2)
    for id in times:
        if world.watch.status_of(id) is not None:
            await comes_to(world, id, 2)
    await until_taken(world, f"schedule:{name}", lambda instance: instance.terminate("done"))
    await world.watch.until_ended(f"schedule:{name}")


# ---- code that changes -----------------------------------------------------------------------------------------


async def evolves(world: World) -> None:
    count = small(world)
    id = await start(world, "evolves", count)
    await comes_to(world, id, ["old"] * count, ["new"] * count)


async def versioned(world: World) -> None:
    id = await start(world, "versioned", 4)
    await comes_to(world, id, [1, 8], [2, 8])


async def changes(world: World) -> None:
    """Begins under the right code; then the code may be wrong for a while, or gone."""
    name = world.chance.choice(["changes", "withdrawn"])
    while world.worker is None or world.worker.edition == 2 or world.worker.process.is_dead:
        await world.pause(0.5)
    world.beginning += 1
    try:
        id = await start(world, name, 3)
        while not await world.ask(lambda client: client._store.history(id)) or world.watch.pieces_of(id) < 1:
            await world.pause(0.2)
    finally:
        world.beginning -= 1
    if name == "withdrawn":
        await tell(world, id, "go", [1, 2, 3])
    await comes_to(world, id, 12 if name == "changes" else 24)


KINDS: tuple[Workload, ...] = (
    *(chain, retries, fan, paced, races, naps, later, leaves, records),
    *(listens, deadline, signals, loops, carries),
    *(family, maps, paged, tolerates, undoes, saves),
    *(terminated, cancelled, dynasty, hurried, many, ended_at_any_time, replaced, purged, repaired),
    *(logs, counts_anew, transfers, schedules, evolves, versioned, changes),
)


def chosen(chance: Random, only: str | None) -> list[Workload]:
    """The kinds that a world has."""
    if only is not None:
        return [kind for kind in KINDS if kind.__name__ == only]
    return chance.sample(KINDS, chance.randint(1, _KINDS_MAX))


async def settle(world: World) -> None:
    """What nobody waits for has come to its end: signals on their way, activities that were asked for last, requests to those that have ended."""
    expected = world.counted
    if expected:
        while (state := await world.ask(lambda client: client.read_entity("@count@all"))) != expected:
            world.check((state or 0) < expected, f"I5: '@count@all' has {state}, and not {expected}")
            await world.pause(1.0)
    for _ in range(600):
        if not world.watch.open_ids() and world.watch.is_empty(world.disk) and world.watch.nothing_owed():
            return
        await asyncio.sleep(1.0)
    open_ids = world.watch.open_ids()
    world.check(not open_ids, f"these never end: {open_ids}")
