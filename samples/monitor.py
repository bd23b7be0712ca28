"""A monitor: it looks at something again and again, for as long as it takes, with a history that does not grow.

    python -m samples.monitor [STORE]

`continue_as_new` starts the orchestrator from the top with what it needs to remember and an empty history: ten looks or ten million, the
store holds one. The custom status says to whoever asks how far it has got.
"""

import asyncio
import sys
from dataclasses import dataclass, replace
from datetime import timedelta

from replayflow import App, Instance, Orchestration, OrchestrationContext, TaskHub

app = App()


@dataclass
class Watch:
    job: str
    interval: timedelta
    looks: int = 0
    looks_max: int = 1_000


@app.activity
def percent_done(watch: Watch) -> int:
    """What a print shop, a build server or a data warehouse would answer."""
    return min(100, watch.looks * 15)


@app.orchestrator
def monitor(ctx: OrchestrationContext, watch: Watch) -> Orchestration[str]:
    done = yield from ctx.call_activity(percent_done, watch)
    ctx.set_custom_status(f"{done} %")
    if done == 100:
        return f"{watch.job} was done at look {watch.looks + 1}"
    if watch.looks + 1 == watch.looks_max:
        return f"{watch.job} is at {done} % after {watch.looks_max} looks; giving up"
    yield from ctx.create_timer(watch.interval)
    ctx.continue_as_new(replace(watch, looks=watch.looks + 1))
    return ""  # nobody gets this: the next execution has the last word


async def show(instance: Instance[str]) -> None:
    """Prints the custom status whenever it has changed, until the instance has finished."""
    shown = None
    while True:
        state = await instance.status()
        if state.custom_status != shown:
            shown = state.custom_status
            print(f"  {shown}")
        if state.status.is_finished:
            return
        await asyncio.sleep(0.05)


async def main(store: str = "monitor.db") -> None:
    watch = Watch("the print job", interval=timedelta(seconds=0.2))
    async with TaskHub(store, app) as hub:
        instance = await hub.client.start(monitor, watch, instance_id="print-job", on_existing="return")
        await show(instance)
        print(await instance.result())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
