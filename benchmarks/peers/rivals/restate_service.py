"""The workloads' handlers on Restate, an ASGI application: `granian benchmarks.peers.rivals.restate_service:app`."""

from __future__ import annotations

import restate
from restate import Context, Service, Workflow, WorkflowContext, WorkflowSharedContext

bench = Service("bench")
waiter = Workflow("waiter")


async def add_one(x: int) -> int:
    return x + 1


@bench.handler()
async def chain(ctx: Context, x: int) -> int:
    for _ in range(5):
        x = await ctx.run_typed("add_one", add_one, x=x)
    return x


@bench.handler()
async def long(ctx: Context, n: int) -> int:
    x = 0
    for _ in range(n):
        x = await ctx.run_typed("add_one", add_one, x=x)
    return x


@bench.handler()
async def fan(ctx: Context, n: int) -> int:
    results = [ctx.run_typed("add_one", add_one, x=i) for i in range(n)]
    return sum([await result for result in results])


@waiter.main()
async def wait(ctx: WorkflowContext, x: int) -> int:
    for _ in range(20):
        x = await ctx.run_typed("add_one", add_one, x=x)
    await ctx.promise("ready").resolve(True)
    more: int = await ctx.promise("go", type_hint=int).value()
    return x + more


@waiter.handler()
async def go(ctx: WorkflowSharedContext, more: int) -> None:
    await ctx.promise("go", type_hint=int).resolve(more)


@waiter.handler()
async def ready(ctx: WorkflowSharedContext) -> bool:
    return await ctx.promise("ready", type_hint=bool).value()


app = restate.app([bench, waiter])
