"""The code that worlds run: activities that the world watches, orchestrators whose results can be worked out beforehand, entities that remember.

An app is made for each edition of the code: what was right at first, the same after a change that fits what is under way, and one that does not fit.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from replayflow import (
    ActivityContext,
    ActivityError,
    App,
    EntityContext,
    EntityError,
    Orchestration,
    OrchestrationCancelled,
    OrchestrationContext,
    Rate,
    RetryPolicy,
    Saga,
    SubOrchestrationError,
    Transaction,
    race,
    when_all,
    when_any,
)
from tests.simulation.world import CHANGED, RIGHT, WRONG, World

SOON = timedelta(milliseconds=200)
PAGE_ITEMS = 5
RATED_PER_SECOND = 3


def app_of(world: World, edition: int) -> App:
    """The code of the edition, whose activities tell the world what they do."""
    app = App()
    _add_activities(app, world)
    _add_orchestrators(app)
    _add_families(app)
    _add_entities(app)
    if edition != WRONG:
        _add_changing(app, edition)
    else:
        _add_wrong(app)
    return app


# ---- activities ------------------------------------------------------------------------------------------------


def _add_activities(app: App, world: World) -> None:
    @app.activity
    async def echo(ctx: ActivityContext, x: Any) -> Any:
        await world.work("echo", ctx)
        return x

    @app.activity
    async def old_words(ctx: ActivityContext) -> str:
        await world.work("old_words", ctx)
        return "old"

    @app.activity
    async def new_words(ctx: ActivityContext) -> str:
        await world.work("new_words", ctx)
        return "new"

    @app.activity
    async def double(ctx: ActivityContext, x: int) -> int:
        await world.work("double", ctx)
        return 2 * x

    @app.activity(concurrency=2)
    async def narrow(ctx: ActivityContext, x: int) -> int:
        await world.work("narrow", ctx)
        return x + 1

    @app.activity(rate=Rate(RATED_PER_SECOND))
    async def rated(ctx: ActivityContext, x: int) -> int:
        world.rated_at.append(world.loop.time())
        await world.work("rated", ctx)
        return x

    @app.activity
    async def slow(ctx: ActivityContext, x: int) -> int:
        await world.work("slow", ctx, 10.0)
        return x

    @app.activity
    async def flaky(ctx: ActivityContext, given: list[int]) -> int:
        """Fails so often before it gives what it was given. What an attempt has told, the next one finds."""
        x, fails = given
        await world.work("flaky", ctx)
        if ctx.attempt > 1:
            told = ctx.last_heartbeat
            world.check(told == ctx.attempt - 1, f"attempt {ctx.attempt} of {ctx.idempotency_key} heard {told}")
        ctx.heartbeat(-1)
        ctx.heartbeat(ctx.attempt)
        if ctx.attempt <= fails:
            raise ValueError(f"attempt {ctx.attempt}")
        return x

    @app.activity
    async def do(ctx: ActivityContext, item: int) -> int:
        await world.work("do", ctx)
        _enter(world, ctx, f"do {item}")
        return item

    @app.activity
    async def undo(ctx: ActivityContext, item: int) -> None:
        await world.work("undo", ctx)
        _enter(world, ctx, f"undo {item}")

    @app.activity
    async def breaks(ctx: ActivityContext, given: tuple[int, str]) -> int:
        x, what = given
        await world.work("breaks", ctx)
        if what in world.broken:
            raise ValueError(f"{what} is broken")
        return x

    @app.activity
    async def all_doubled(ctx: ActivityContext, items: list[int]) -> list[int]:
        await world.work("all_doubled", ctx)
        return [2 * item for item in items]

    @app.activity
    async def pages(ctx: ActivityContext, cursor: int | None) -> tuple[list[int], int | None]:
        await world.work("pages", ctx)
        first = cursor or 0
        following = first + PAGE_ITEMS
        return list(range(first, following)), following if following < 3 * PAGE_ITEMS else None

    @app.activity(transactional=True)
    def deposit(tx: Transaction, given: tuple[str, int]) -> int:
        account, amount = given
        world.watch.begins("deposit", tx.instance_id, tx.task_id, tx.idempotency_key)
        tx.execute(
            "CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, balance INTEGER NOT NULL, deposits INTEGER NOT NULL)"
        )
        statement = (
            "INSERT INTO account VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET balance = balance + excluded.balance, "
            "deposits = deposits + 1 RETURNING deposits"
        )
        [(deposits,)] = tx.execute(statement, (account, amount))
        return int(deposits)

    @app.activity(transactional=True)
    def balance(tx: Transaction, account: str) -> list[int]:
        world.watch.begins("balance", tx.instance_id, tx.task_id, tx.idempotency_key)
        [(balance, deposits)] = tx.execute("SELECT balance, deposits FROM account WHERE name = ?", (account,))
        return [int(balance), int(deposits)]


def _enter(world: World, ctx: ActivityContext, what: str) -> None:
    """What was done to the world, once for each idempotency key: as an activity does that has effects."""
    entries = world.ledger.setdefault(ctx.instance_id, [])
    entry = f"{what} {ctx.idempotency_key}"
    if entry not in entries:
        entries.append(entry)


# ---- orchestrators ---------------------------------------------------------------------------------------------


def _add_orchestrators(app: App) -> None:
    @app.orchestrator
    def chain(ctx: OrchestrationContext, given: tuple[int, int]) -> Orchestration[int]:
        x, length = given
        for _ in range(length):
            x = yield ctx.call_activity("narrow", x)
        return x

    @app.orchestrator
    def retries(ctx: OrchestrationContext, given: tuple[int, int, int]) -> Orchestration[Any]:
        x, fails, attempts = given
        policy = RetryPolicy(max_attempts=attempts, first_interval=SOON, backoff=1.5, jitter=0.5)
        try:
            x = yield ctx.call_activity("flaky", [x, fails], retry=policy)
        except ActivityError:
            return -1
        return x

    @app.orchestrator
    def fan(ctx: OrchestrationContext, width: int) -> Orchestration[int]:
        results = yield when_all([ctx.call_activity("double", i) for i in range(width)])
        return sum(results)

    @app.orchestrator
    def paced(ctx: OrchestrationContext, width: int) -> Orchestration[int]:
        results = yield when_all([ctx.call_activity("rated", i) for i in range(width)])
        return sum(results)

    @app.orchestrator
    def races(ctx: OrchestrationContext, x: int) -> Orchestration[list[Any]]:
        """The quicker of two, the first of three with the others left alive, and a time limit."""
        first = yield race([ctx.call_activity("slow", x), ctx.call_activity("echo", x + 1)])
        tasks = [ctx.call_activity("echo", x + i) for i in range(3)]
        winner = yield when_any(tasks)
        rest = yield when_all(tasks)
        try:
            timed = yield ctx.call_activity("slow", x, timeout=timedelta(seconds=5))
        except ActivityError:
            timed = x
        return [first - x in (0, 1), winner in tasks, sum(rest) - 3 * x, timed - x]

    @app.orchestrator
    def naps(ctx: OrchestrationContext, millis: list[int]) -> Orchestration[int]:
        for ms in millis:
            yield ctx.create_timer(timedelta(milliseconds=ms))
        unused = ctx.create_timer(timedelta(days=3))
        yield when_all([ctx.create_timer(timedelta(milliseconds=ms)) for ms in millis])
        unused.cancel()
        return len(millis)

    @app.orchestrator
    def deadline(ctx: OrchestrationContext, seconds: float) -> Orchestration[Any]:
        try:
            said = yield ctx.wait_for_external_event("go", type=str, timeout=timedelta(seconds=seconds))
        except TimeoutError:
            return "late"
        return said

    @app.orchestrator
    def listens(ctx: OrchestrationContext, count: int) -> Orchestration[list[Any]]:
        heard: list[Any] = []
        for _ in range(count):
            heard.append((yield ctx.wait_for_external_event("go")))
            ctx.set_custom_status(len(heard))
        return heard

    @app.orchestrator
    def loops(ctx: OrchestrationContext, given: tuple[int, list[Any]]) -> Orchestration[Any]:
        """One event for each execution, and work beside it that nobody waits for."""
        left, heard = given
        ctx.call_activity("echo", left)
        said = yield ctx.wait_for_external_event("go")
        doubled = yield ctx.call_activity("double", left)
        heard = [*heard, [said, doubled]]
        if left == 1:
            return heard
        ctx.call_activity("echo", "on the way out")
        ctx.continue_as_new((left - 1, heard))
        return None

    @app.orchestrator
    def sends(ctx: OrchestrationContext, given: tuple[str, int]) -> Orchestration[int]:
        target, count = given
        for number in range(count):
            ctx.send_event(target, "Go", [ctx.instance_id, number])
            if number % 2:
                yield ctx.call_activity("echo", number)
        return count

    @app.orchestrator
    def maps(ctx: OrchestrationContext, width: int) -> Orchestration[dict[str, Any]]:
        again = RetryPolicy(max_attempts=3, first_interval=SOON)
        single = ctx.map("flaky", [[i, i % 3] for i in range(width)], concurrency=3, retry=again)
        children = ctx.map("child", range(3), concurrency=2)
        batches = ctx.map("all_doubled", list(range(width)), batch_size=4, concurrency=2)
        one, two, three = yield when_all([single, children, batches])
        return {"single": list(one.succeeded), "children": list(two.succeeded), "batches": list(three.succeeded)}

    @app.orchestrator
    def paged(ctx: OrchestrationContext) -> Orchestration[list[int]]:
        result = yield ctx.map(app.activities["double"].fn, app.activities["pages"].fn, concurrency=2)
        return list(result.succeeded)

    @app.orchestrator
    def tolerates(ctx: OrchestrationContext, width: int) -> Orchestration[list[int]]:
        """Every fifth call fails for good."""
        result = yield ctx.map(
            "flaky",
            [[i, 9 * (i % 5 == 0)] for i in range(width)],
            concurrency=2,
            tolerated_failures=1.0,
            on_item_error="collect",
        )
        return [len(result.succeeded), len(result.failures)]

    @app.orchestrator
    def undoes(ctx: OrchestrationContext, given: tuple[int, bool]) -> Orchestration[str]:
        parts, fails = given

        def body(saga: Saga) -> Orchestration[str]:
            for part in range(parts):
                yield from saga.run("do", "undo", part, undo_input=part)
            if fails:
                raise ValueError("not today")
            return "done"

        try:
            return (yield from ctx.saga(body))
        except ValueError:
            return "undone"

    @app.orchestrator
    def saves(ctx: OrchestrationContext, given: tuple[str, list[int]]) -> Orchestration[Any]:
        account, amounts = given
        yield when_all([ctx.call_activity("deposit", (account, amount)) for amount in amounts])
        found = yield ctx.call_activity("balance", account)
        ctx.call_activity("deposit", (account, 1_000))
        return found

    @app.orchestrator
    def audits(ctx: OrchestrationContext, account: str) -> Orchestration[Any]:
        return (yield ctx.call_activity("balance", account))

    @app.orchestrator
    def records(ctx: OrchestrationContext, length: int) -> Orchestration[bool]:
        """What was recorded stays as it is: the numbers that are drawn differ at every call."""
        drawn = [ctx.record(_draw) for _ in range(length)]
        uuids = [ctx.new_uuid() for _ in range(length)]
        chances = [ctx.random.random() for _ in range(length)]
        said = yield when_all([ctx.call_activity("echo", one) for one in [*drawn, *uuids, *chances]])
        return bool(said == [*drawn, *uuids, *chances])

    @app.orchestrator
    def carries(ctx: OrchestrationContext, given: tuple[str, int]) -> Orchestration[Any]:
        """Something large through an activity, an event, a custom status and a continue-as-new."""
        text, left = given
        text = yield ctx.call_activity("echo", text)
        said = yield ctx.wait_for_external_event("go", type=str)
        ctx.set_custom_status(said)
        if left:
            ctx.continue_as_new((text + said[:1], left - 1))
            return ""
        return text + said

    @app.orchestrator
    def waits_for_ever(ctx: OrchestrationContext) -> Orchestration[str]:
        ctx.call_activity("slow", 1)
        try:
            yield ctx.wait_for_external_event("never")
        except OrchestrationCancelled:
            yield ctx.call_activity("undo", 0)
            raise
        return ""

    @app.orchestrator
    def leaves(ctx: OrchestrationContext, count: int) -> Orchestration[int]:
        """What is asked for last runs, though nobody waits for it."""
        yield ctx.call_activity("echo", 0)
        for number in range(count):
            ctx.call_activity("do", number)
        return count


def _draw() -> int:
    """Another number each time: what a second call of it would come to differs from what was recorded."""
    return int.from_bytes(os.urandom(4))


# ---- children --------------------------------------------------------------------------------------------------


def _add_families(app: App) -> None:
    @app.orchestrator
    def child(ctx: OrchestrationContext, x: int) -> Orchestration[Any]:
        first = yield ctx.call_activity("double", x)
        yield ctx.create_timer(timedelta(milliseconds=5))
        return (yield ctx.call_activity("narrow", first))

    @app.orchestrator
    def fails_at_first(ctx: OrchestrationContext, given: tuple[int, int]) -> Orchestration[int]:
        """Fails in its first attempts: the id of a later one ends with its number."""
        x, fails = given
        yield ctx.call_activity("echo", x)
        attempt = _attempt_of(ctx.instance_id)
        if attempt <= fails:
            raise ValueError(f"attempt {attempt}")
        return x

    @app.orchestrator
    def family(ctx: OrchestrationContext, size: int) -> Orchestration[Any]:
        again = RetryPolicy(max_attempts=3, first_interval=SOON)
        tasks = [ctx.call_sub_orchestrator("child", i) for i in range(size)]
        tasks.append(ctx.call_sub_orchestrator("parent", 2))
        results = yield when_all(tasks)
        results.append((yield ctx.call_sub_orchestrator("fails_at_first", (5, 2), retry=again)))
        try:
            yield ctx.call_sub_orchestrator("fails_at_first", (5, 9))
        except SubOrchestrationError:
            results.append(-1)
        return results

    @app.orchestrator
    def parent(ctx: OrchestrationContext, size: int) -> Orchestration[int]:
        results = yield when_all([ctx.call_sub_orchestrator("child", i) for i in range(size)])
        return sum(results)

    @app.orchestrator
    def dynasty(ctx: OrchestrationContext, size: int) -> Orchestration[None]:
        """Its children wait for ever, until somebody ends it and them."""
        yield when_all([ctx.call_sub_orchestrator("waits_for_ever") for _ in range(size)])

    @app.orchestrator
    def hurried(ctx: OrchestrationContext, size: int) -> Orchestration[str]:
        """Has no patience with its children, who are asked to end."""
        slow = [ctx.call_sub_orchestrator("waits_for_ever") for _ in range(size)]
        yield race([when_all(slow), ctx.create_timer(SOON)])
        return "gone on"

    @app.orchestrator
    def brittle(ctx: OrchestrationContext, given: tuple[int, str]) -> Orchestration[list[int]]:
        number, what = given
        first = yield ctx.call_activity("double", number)
        second = yield ctx.call_activity("breaks", (first, f"{what}.child"))
        return [first, second]

    @app.orchestrator
    def repaired(ctx: OrchestrationContext, what: str) -> Orchestration[list[Any]]:
        """Fails in an activity of its own, and in its children, as long as they are broken."""
        first = yield when_all(
            [
                ctx.call_activity("double", 0),
                ctx.call_activity("breaks", (1, f"{what}.own")),
                ctx.call_activity("double", 2),
            ]
        )
        said = yield ctx.wait_for_external_event("go")
        again = RetryPolicy(max_attempts=2, first_interval=SOON)
        children = yield when_all(
            [
                ctx.call_sub_orchestrator("brittle", (3, what)),
                ctx.call_sub_orchestrator("brittle", (4, what), retry=again),
            ]
        )
        return [first, said, children]


def _attempt_of(instance_id: str) -> int:
    _, *rest = instance_id.split(":")
    return int(rest[1]) if len(rest) == 2 else 1


# ---- entities --------------------------------------------------------------------------------------------------


def _add_entities(app: App) -> None:
    @app.entity
    def log(ctx: EntityContext[list[Any] | None], entry: Any = None) -> Any:
        """All that it was told, in order."""
        match ctx.operation:
            case "append":
                ctx.state = [*(ctx.state or []), entry]
                ctx.signal_entity("@count@all", "add", 1)
            case "spoil":
                ctx.state = ["spoilt"]
                ctx.signal_entity("@count@all", "add", -1_000)
                raise ValueError("spoilt")
        return len(ctx.state or [])

    @app.entity
    def count(ctx: EntityContext[int | None], amount: int = 0) -> int:
        if ctx.operation == "add":
            ctx.state = (ctx.state or 0) + amount
        elif ctx.operation == "clear":
            ctx.state = None
        return ctx.state or 0

    @app.orchestrator
    def tells(ctx: OrchestrationContext, given: tuple[str, int]) -> Orchestration[int]:
        """Signals, calls and failing calls to one log, in order."""
        entity, times = given
        for number in range(times):
            ctx.signal_entity(entity, "append", [ctx.instance_id, 2 * number])
            try:
                yield ctx.call_entity(entity, "spoil")
            except EntityError:
                yield ctx.call_entity(entity, "append", [ctx.instance_id, 2 * number + 1])
        return times

    @app.orchestrator
    def counts_anew(ctx: OrchestrationContext, given: tuple[str, int]) -> Orchestration[list[int]]:
        """Counts up, clears, and counts up again, while somebody cleans up."""
        entity, times = given
        seen = []
        for _ in range(times):
            yield ctx.call_entity(entity, "add", 2)
            ctx.signal_entity(entity, "add", 1)
            seen.append((yield ctx.call_entity(entity, "get")))
            yield ctx.call_entity(entity, "clear")
            yield ctx.create_timer(SOON)
        return seen

    @app.orchestrator
    def transfer(ctx: OrchestrationContext, given: tuple[list[str], int]) -> Orchestration[int]:
        """Moves an amount from the first to the second, with nobody between."""
        ids, amount = given
        with (yield ctx.lock_entities(ids)):
            before = yield when_all([ctx.call_entity(id, "get") for id in ids])
            yield ctx.call_activity("echo", amount)
            yield ctx.call_entity(ids[0], "add", -amount)
            yield ctx.call_entity(ids[1], "add", amount)
            after = yield when_all([ctx.call_entity(id, "get") for id in ids])
        return int([after[0] - before[0], after[1] - before[1]] == [-amount, amount])


# ---- code that changes -----------------------------------------------------------------------------------------


def _add_changing(app: App, edition: int) -> None:
    if edition == RIGHT:

        @app.orchestrator(name="evolves")
        def before(ctx: OrchestrationContext, count: int) -> Orchestration[list[str]]:
            said = []
            for _ in range(count):
                yield ctx.create_timer(SOON)
                said.append((yield ctx.call_activity("old_words")))
            return said

    if edition == CHANGED:

        @app.orchestrator(name="evolves")
        def after(ctx: OrchestrationContext, count: int) -> Orchestration[list[str]]:
            said = []
            for _ in range(count):
                yield ctx.create_timer(SOON)
                if ctx.patched("new-words"):
                    said.append((yield ctx.call_activity("new_words")))
                else:
                    said.append((yield ctx.call_activity("old_words")))
            return said

        @app.orchestrator(name="versioned", version="2")
        def second(ctx: OrchestrationContext, x: int) -> Orchestration[list[int]]:
            yield ctx.create_timer(SOON)
            return [2, (yield ctx.call_activity("double", x))]

    @app.orchestrator(name="versioned", version="1")
    def first(ctx: OrchestrationContext, x: int) -> Orchestration[list[int]]:
        doubled = yield ctx.call_activity("double", x)
        yield ctx.create_timer(SOON)
        return [1, doubled]

    @app.orchestrator(name="changes")
    def right(ctx: OrchestrationContext, x: int) -> Orchestration[Any]:
        x = yield ctx.call_activity("double", x)
        yield ctx.create_timer(SOON)
        return (yield ctx.call_activity("double", x))

    @app.orchestrator
    def withdrawn(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
        for _ in range(3):
            yield ctx.wait_for_external_event("go")
            x = yield ctx.call_activity("double", x)
        return x


def _add_wrong(app: App) -> None:
    """`changes` does not fit what began under the right code, `withdrawn` and the others have none."""

    @app.orchestrator(name="changes")
    def wrong(ctx: OrchestrationContext, x: int) -> Orchestration[int]:
        yield ctx.create_timer(SOON)
        return x
