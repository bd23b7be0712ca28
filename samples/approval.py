"""A human decides, or a deadline does: whichever comes first, an external event or a durable timer.

    python -m samples.approval [STORE]

The request for a laptop gets an answer, the one for a yacht gets none. A real deadline would be days: it is durable, the process need not
run meanwhile, and it fires when a worker is there again. The answer has a `dedupe_key`, so that giving it again does no harm.
"""

import asyncio
import sys
from dataclasses import dataclass
from datetime import timedelta

from replayflow import App, Orchestration, OrchestrationContext, TaskHub, when_any

app = App()


@dataclass
class Request:
    what: str
    patience: timedelta


@dataclass
class Answer:
    approved: bool
    by: str


@app.activity
def ask(what: str) -> None:
    print(f"  to the manager: may we buy {what}?")


@app.orchestrator
def approval(ctx: OrchestrationContext, request: Request) -> Orchestration[str]:
    yield from ctx.call_activity(ask, request.what)
    answer = ctx.wait_for_external_event("answer", type=Answer)
    deadline = ctx.create_timer(request.patience)
    winner = yield from when_any([answer, deadline])
    if winner is deadline:
        return f"{request.what}: no answer in time"
    deadline.cancel()
    return f"{request.what}: {'approved' if answer.result.approved else 'refused'} by {answer.result.by}"


async def main(store: str = "approval.db") -> None:
    requests = {
        "laptop": Request("a laptop", patience=timedelta(days=3)),
        "yacht": Request("a yacht", patience=timedelta(seconds=0.5)),
    }
    async with TaskHub(store, app) as hub:
        pending = {
            id: await hub.client.start(approval, request, instance_id=id, on_existing="return")
            for id, request in requests.items()
        }
        await pending["laptop"].raise_event("answer", Answer(True, "Ada"), dedupe_key="Ada's answer")
        for instance in pending.values():
            print(await instance.result())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
