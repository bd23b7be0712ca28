"""The activities of worlds. Each tells its world what it does."""

from __future__ import annotations

from typing import Any

from replayflow import ActivityContext, App, Rate, Transaction
from tests.simulation.code.measures import PAGE_ITEMS, RATED_PER_SECOND
from tests.simulation.world import World


def add_activities(app: App, world: World) -> None:
    """The app has all activities, of every edition."""
    _add_plain(app, world)
    _add_limited(app, world)
    _add_failing(app, world)
    _add_effects(app, world)
    _add_accounts(app, world)


def _add_plain(app: App, world: World) -> None:
    """What answers, with no more to it."""

    @app.activity
    async def echo(ctx: ActivityContext, x: Any) -> Any:
        await world.work("echo", ctx)
        return x

    @app.activity
    async def double(ctx: ActivityContext, x: int) -> int:
        await world.work("double", ctx)
        return 2 * x

    @app.activity
    async def old_words(ctx: ActivityContext) -> str:
        await world.work("old_words", ctx)
        return "old"

    @app.activity
    async def new_words(ctx: ActivityContext) -> str:
        await world.work("new_words", ctx)
        return "new"

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


def _add_limited(app: App, world: World) -> None:
    """What has to wait for its turn, or takes its time."""

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


def _add_failing(app: App, world: World) -> None:
    """What fails, for a while or until it is mended."""

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
    async def breaks(ctx: ActivityContext, given: tuple[int, str]) -> int:
        x, what = given
        await world.work("breaks", ctx)
        if what in world.broken:
            raise ValueError(f"{what} is broken")
        return x


def _add_effects(app: App, world: World) -> None:
    """What changes the world, and what undoes it."""

    @app.activity
    async def do(ctx: ActivityContext, item: int) -> int:
        await world.work("do", ctx)
        _enter(world, ctx, f"do {item}")
        return item

    @app.activity
    async def undo(ctx: ActivityContext, item: int) -> None:
        await world.work("undo", ctx)
        _enter(world, ctx, f"undo {item}")


def _enter(world: World, ctx: ActivityContext, what: str) -> None:
    """What was done to the world, once for each idempotency key: as an activity does that has effects."""
    entries = world.ledger.setdefault(ctx.instance_id, [])
    entry = f"{what} {ctx.idempotency_key}"
    if entry not in entries:
        entries.append(entry)


def _add_accounts(app: App, world: World) -> None:
    """What writes into the hub's own file, in the commit of its result."""

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
